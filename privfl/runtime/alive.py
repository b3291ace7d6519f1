"""Whether a process still lives: its number alone does not tell, for numbers come again."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process"]

_ENDED = "ended"  # but still in the table until its parent asks


@dataclass(frozen=True)
class Process:
    """Which process wrote a status.

    ``birth`` is the boot of the machine and the process's start within it, empty where the system does not tell.
    ``began`` is in milliseconds since 1970.
    """

    pid: int
    began: int
    birth: str = ""
    host: str = ""

    @classmethod
    def present(cls, now: int) -> Process:
        """This process; ``now`` becomes its ``began``."""
        return cls(os.getpid(), now, _birth(os.getpid()), socket.gethostname())

    def here(self) -> bool:
        """Whether it belongs to this machine; of another's processes nothing can be told."""
        return not self.host or self.host == socket.gethostname()

    def lives(self) -> bool:
        """Whether it still runs on this machine; a later process with its number is another one."""
        if self.pid < 1:
            return False
        try:
            os.kill(self.pid, 0)
        except PermissionError:
            pass  # it is another user's
        except (OSError, OverflowError):
            return False
        present = _birth(self.pid)
        return present != _ENDED and (not (self.birth and present) or self.birth == present)


def _birth(pid: int) -> str:
    """Boot and start of a process from Linux's /proc (proc_pid_stat(5), field 22); empty where there is none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return _ENDED if fields[0] in "ZX" else f"{boot}/{fields[19]}"
    except (OSError, IndexError):
        return ""
