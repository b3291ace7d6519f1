"""Every command that a page of documentation names exists, with the options that it is given there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from typer.main import get_command

from privfl.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("docs/*.md"), ROOT / "README.md"])
_NAMED = re.compile(r"\bprivfl ((?:[^`\n|#\\]|\\\n)+)")


def commands(text: str) -> list[str]:
    """What follows ``privfl`` in shell lines and between backquotes."""
    places = re.findall(r"`(privfl [^`\n]+)`|^ *(privfl [a-z](?:\\\n|[^\n])*)", text, flags=re.MULTILINE)
    return [_NAMED.sub(r"\1", next(filter(None, place))) for place in places]


def complaint(command: str) -> str | None:
    """What is wrong with a command, None if it exists and takes its options."""
    words, at = command.split(), get_command(app)
    while isinstance(at, click.Group) and words and re.fullmatch(r"[a-z]+", words[0]):
        found = at.commands.get(words[0])
        if found is None:
            return f"there is no {words[0]!r}"
        at, words = found, words[1:]
    known = {name for option in at.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in known]
    return f"no option {unknown}" if unknown else None


@pytest.mark.parametrize("page", PAGES)
def test_a_page_s_commands(page: str) -> None:
    """Names and options."""
    wrong = {command: said for command in commands((ROOT / page).read_text()) if (said := complaint(command))}
    assert wrong == {}


def test_what_is_found() -> None:
    """Inline and in blocks, over several lines; a wrong one is noticed."""
    text = "see `privfl site run north --follow`\n\n```\nprivfl site status north --follow\n  privfl sites\n```\n"
    found = commands(text)
    assert found == ["site run north --follow", "site status north --follow", "sites"]
    assert [complaint(one) for one in found] == ["no option ['--follow']", None, "there is no 'sites'"]
