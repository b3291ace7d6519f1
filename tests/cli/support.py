"""Running the command as a process, and in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from privfl.cli import main; main()"]


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    def failed(self, code: int, *words: str) -> Ran:
        """Check a failure: exit code, a message on standard error of one screen with ``words``, no traceback."""
        flat = " ".join(self.err.replace("│", " ").split())
        assert self.code == code, (self.code, self.err)
        assert "Traceback" not in self.err
        assert 0 < len(self.err.splitlines()) <= 24
        assert all(word in flat for word in words), flat
        return self


def environment() -> dict[str, str]:
    """Eighty columns, no colours, nothing buffered."""
    return {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "PYTHONUNBUFFERED": "1"}


def process(*args: str | Path) -> Ran:
    """Run ``privfl`` as a real process."""
    done = subprocess.run(
        [*COMMAND, *map(str, args)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=120,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def called(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str | Path) -> Ran:
    """Run ``privfl`` in this process, by its entry point, with a short training."""
    from privfl.cli import demo, main

    monkeypatch.setattr(demo, "ROUNDS", 4)
    monkeypatch.setattr(sys, "argv", ["privfl", *map(str, args)])
    for name in ("COLUMNS", "NO_COLOR", "TERM"):
        monkeypatch.setenv(name, environment()[name])
    capfd.readouterr()
    code = 0
    try:
        main()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    out, err = capfd.readouterr()
    return Ran(code, out, err)
