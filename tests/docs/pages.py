"""Pages of documentation as scripts: their shell blocks run in one session, and what they show is compared.

A block of ``bash`` is run exactly as it is printed. A block of ``text`` right after it is what it prints, on standard
output and error together; ``…`` stands for anything within a line, a line of ``…`` for any number of lines.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.cli.support import environment

_FENCED = re.compile(r"^(## [^\n]*)$|^```(bash|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "@@ block "


@dataclass
class Block:
    """One block of shell: the heading it stands under, its text, and what the page says it prints, if it says so."""

    heading: str
    text: str
    shown: str | None = None


@dataclass(frozen=True)
class Session:
    """How a page's session ended: exit code, and per block what was printed and which ``privfl`` commands ran."""

    code: int
    printed: list[str]
    commands: list[list[str]]


def blocks(page: str) -> list[Block]:
    """The shell blocks of a page with what they show."""
    found: list[Block] = []
    heading = ""
    for title, kind, text in _FENCED.findall(page):
        if title:
            heading = title.removeprefix("## ")
        elif kind == "bash":
            found.append(Block(heading, text))
        else:
            assert found, "a page shows output before any command"
            assert found[-1].shown is None, f"two outputs for one block under {heading!r}"
            found[-1].shown = text
    return found


def run(page: list[Block], place: Path, seconds: float) -> Session:
    """Run the blocks in one bash session in ``place``/work; whatever it started has ended when this returns.

    ``privfl`` is a script that notes each call, then becomes the command: loops are counted as often as they run.
    """
    work, bin_, log = place / "work", place / "bin", place / "log"
    work.mkdir()
    bin_.mkdir()
    log.touch()
    real = f"{shlex.quote(sys.executable)} -P -c 'from privfl.cli import main; main()'"
    shim = bin_ / "privfl"
    shim.write_text(f'#!/bin/sh\necho "$*" >> {shlex.quote(str(log))}\nexec {real} "$@"\n')
    shim.chmod(0o755)
    lines = ["set -euo pipefail"]
    for number, block in enumerate(page):
        lines += [f"echo '{_MARK}{number}' | tee -a {shlex.quote(str(log))}", block.text]
    script = place / "page.sh"
    script.write_text("\n".join(lines))
    kept = {name: value for name, value in environment().items() if not name.startswith("PRIVFL_")}
    code, output = _in_a_group(
        ["bash", str(script)], work, {**kept, "COLUMNS": "100", "PATH": f"{bin_}:{kept['PATH']}"}, seconds
    )
    printed, commands = _parts(output, len(page)), _parts(log.read_text(), len(page))
    return Session(code, printed, [part.splitlines() for part in commands])


def _in_a_group(command: list[str], work: Path, env: dict[str, str], seconds: float) -> tuple[int, str]:
    """Run in a process group of its own, which is killed as a whole in the end."""
    target = work.parent / "output"
    with open(target, "wb") as stream:
        child = subprocess.Popen(
            command, cwd=work, env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
        try:
            code = child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = 124
        finally:
            left = alive(child.pid)
            if left:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    output = target.read_text()
    assert not (left and code == 0), f"the page leaves processes behind\n{output}"
    return code, output


def alive(group: int) -> bool:
    """Whether any process of the group exists."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _parts(text: str, count: int) -> list[str]:
    """Text per block; empty for a block that was not reached."""
    found = re.split(rf"^{_MARK}\d+\n", text, flags=re.MULTILINE)[1:]
    return found + [""] * (count - len(found))


def agrees(shown: str, printed: str) -> str | None:
    """None if what was printed is what a page shows, else the first line of the page that is not there."""
    want = [line.rstrip() for line in shown.splitlines()]
    have = [line.rstrip() for line in printed.splitlines()]
    reach = {0}  # how many printed lines may be used up
    for line in want:
        # a number with fewer digits moves what stands beside it: how many blanks there are does not matter
        pattern = re.compile(re.sub(r"(\\ )+", " +", ".*".join(re.escape(part) for part in line.split("…"))))
        if line.strip() == "…":
            reach = set(range(min(reach), len(have) + 1))
        else:
            reach = {at + 1 for at in reach if at < len(have) and pattern.fullmatch(have[at])}
        if not reach:
            return line
    return None if len(have) in reach else "(the end)"
