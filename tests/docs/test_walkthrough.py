"""The walk-throughs are true: their commands work as printed, and print what is shown; the first is under twenty."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.docs.pages import Block, agrees, blocks, run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "walkthrough.md"
ANALYTICS = PAGE.with_name("walkthrough-analytics.md")
AFTERWARDS = "Looking around"  # the heading under which counting ends
JOINED = "6. The sites run"  # the heading before which all have joined, and analytics goes on


@pytest.mark.slow
def test_the_page_is_true(tmp_path: Path) -> None:
    """From nothing to a verified model in one shell; nothing runs any more at the end."""
    page = blocks(PAGE.read_text(encoding="utf-8"))
    session = run(page, tmp_path, seconds=400)
    assert session.code == 0, "\n".join(session.printed)[-4000:]
    _shown(page, session.printed)
    until = _before(page, AFTERWARDS)
    commands = [command for part in session.commands[:until] for command in part]
    assert len(commands) < 20, commands
    assert f"Those were {len(commands)} commands." in PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_on_analytics_is_true(tmp_path: Path) -> None:
    """From the federation that the first page has set up to a study, a profile, drift, and a budget that is used up."""
    first, page = blocks(PAGE.read_text(encoding="utf-8")), blocks(ANALYTICS.read_text(encoding="utf-8"))
    until = _before(first, JOINED)
    session = run([*first[:until], *page], tmp_path, seconds=500)
    assert session.code == 0, "\n".join(session.printed)[-4000:]
    _shown(page, session.printed[until:])
    report = (tmp_path / "work" / "report.html").read_text(encoding="utf-8")
    assert "before training" in report


def _shown(page: list[Block], printed: list[str]) -> None:
    """Check that each block printed what the page shows."""
    for block, said in zip(page, printed, strict=True):
        missing = agrees(block.shown or "", said)
        assert missing is None, f"{block.heading}: the page shows {missing!r} and this was printed:\n{said}"


def _before(page: list[Block], heading: str) -> int:
    """How many blocks stand before a heading."""
    return next(at for at, block in enumerate(page) if block.heading == heading)


def test_a_page_s_blocks() -> None:
    """Headings, shell and what it prints; other fences are left alone."""
    page = blocks("## One\n```bash\na\n```\n```text\nb\n```\n```yaml\nc: 1\n```\n## Two\n```bash\nd\n```\n")
    assert [(block.heading, block.text, block.shown) for block in page] == [("One", "a\n", "b\n"), ("Two", "d\n", None)]


@pytest.mark.parametrize(
    ("shown", "printed", "missing"),
    [
        ("a\nb\n", "a\nb\n", None),
        ("a\n…\nc\n", "a\nb\nb\nc\n", None),
        ("a\n…\nc\n", "a\nc\n", None),
        ("a … c\n", "a 17 c\n", None),
        ("a\n", "a\nb\n", "(the end)"),
        ("a\nb\n", "a\n", "b"),
        ("…\nx\n", "a\nb\n", "x"),
        ("…\n", "", None),
        ("", "", None),
        ("", "a\n", "(the end)"),
        ("a.b\n", "axb\n", "a.b"),
    ],
)
def test_comparing(shown: str, printed: str, missing: str | None) -> None:
    """A page may leave out what differs, and nothing else."""
    assert agrees(shown, printed) == missing


def test_a_page_that_fails_leaves_no_process(tmp_path: Path) -> None:
    """What it started in the background is gone although it never came to stop it."""
    page = blocks('```bash\nsleep 600 & echo "$!"\n```\n```bash\nfalse\n```\n```bash\necho never\n```\n')
    session = run(page, tmp_path, seconds=20)
    assert session.code == 1
    assert session.printed[2] == ""
    until = time.monotonic() + 10
    while not _ended(session.printed[0].strip()):
        assert time.monotonic() < until, "the background process goes on"
        time.sleep(0.02)


def _ended(process: str) -> bool:
    """Killed, though perhaps not yet collected by whoever inherited it."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", process], capture_output=True, text=True, check=False).stdout
    return state.strip()[:1] in ("", "Z")
