"""Ends what a process started when that process is gone, however it went: run as a script by ``children.py``.

Flower starts processes of its own (SuperExec, one per app), some in sessions of their own, so neither a process
group nor the kernel's signal at a parent's death reaches all. What all inherit is the environment: every process
that carries the mark belongs to the family. Only the standard library is used, so that this starts at once.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

MARK = "PRIVFL_LOCAL_FLOWER"
_POLL_S = 0.25
_SWEEPS = 40


def family(mark: str) -> list[int]:
    """Ids of this user's processes whose environment carries ``MARK=mark...``, without this one (Linux; else none)."""
    wanted = f"{MARK}={mark}".encode()
    found: list[int] = []
    try:
        numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return found
    for number in numbers:
        with suppress(OSError):  # it has ended, or is another user's
            with open(f"/proc/{number}/environ", "rb") as file:
                words = file.read().split(b"\0")
            if number != os.getpid() and any(word.startswith(wanted) for word in words):
                found.append(number)
    return found


def sweep(mark: str) -> None:
    """Kill the family of ``mark``, until none is left: one may start another while it is looked for."""
    for _ in range(_SWEEPS):
        left = family(mark)
        if not left:
            return
        for number in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.02)


def main(parent: int, mark: str) -> None:
    """Wait until ``parent`` is gone, then sweep."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    sweep(mark)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
