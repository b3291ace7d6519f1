"""A site that stays up beside its SuperNode: started when there is mail, ended by itself when it is idle for long.

It is a process of its own in a session of its own, so that neither the end of the ClientApp that started it nor the
SuperNode's restart ends it. The folder's lock says whether it lives. Its passphrase comes by the environment, or by
a file that the environment names.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from privfl_keys import EnrolmentRequest
from privfl_keys.signing import VerifyKey

from privfl.errors import Misuse, PrivflError
from privfl.flower.client import Worked
from privfl.homes.lock import holder
from privfl.wires.flower_carry import Carrier

__all__ = ["Resident", "SiteWire", "own_id", "passphrase", "site_wire"]

PASSPHRASE, PASSPHRASE_FILE = "PRIVFL_PASSPHRASE", "PRIVFL_PASSPHRASE_FILE"
IDLE_S = 900
STARTING_S = 120.0  # a site that was started by another message gets so long to take its folder's lock
FIRST_PAUSE_S, LAST_PAUSE_S = 0.01, 0.1
LOG = "site-start.log"
MARK = "starting"
_WHY = {
    2: "its folder, passphrase or data needs its operator",
    3: "it refuses to run; its operator reads why",
    4: "its spool cannot be used",
}
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class SiteWire:
    """What a site's own configuration says of how it is carried."""

    resident: bool = True
    idle: int = IDLE_S


def site_wire(home: Path) -> SiteWire:
    """Read from ``site.yaml``, which its own commands check; raises Misuse if this site speaks over another wire."""
    try:
        fields = yaml.safe_load((home / "site.yaml").read_bytes())
        wire = fields["wire"]
        kind = wire["kind"] if isinstance(wire, dict) else str(wire).partition(":")[0]
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        raise Misuse(
            f"{home / 'site.yaml'} names no wire; run: privfl site join {home} --wire federation.yaml"
        ) from None
    if kind != "flower":
        raise Misuse(f"the site in {home} speaks over a wire of kind {kind}; join it with a federation.yaml that has "
                     "'kind: flower'")  # fmt: skip
    return SiteWire(bool(wire.get("resident", True)), int(wire.get("idle", IDLE_S)))


def own_id(home: Path) -> bytes:
    """The site's id, from its public request."""
    try:
        request = EnrolmentRequest.decode((home / "request").read_bytes())
    except (OSError, PrivflError):
        raise Misuse(
            f"{home / 'request'} is not there or damaged; write it again: privfl site request {home}"
        ) from None
    return VerifyKey(request.verify_key).site_id


def passphrase(home: Path | None = None) -> str:
    """From the environment: PRIVFL_PASSPHRASE, or the file that PRIVFL_PASSPHRASE_FILE names.

    Args:
        home: whose keys are to be opened; where a key service does that, it is empty.

    Raises:
        Misuse: neither is set, or the file is no good.
    """
    from privfl_keys.kms import is_kms_store  # noqa: PLC0415 - when a site is started

    from privfl.homes.passphrase import ask_passphrase  # noqa: PLC0415

    if home is not None and is_kms_store(home / "keys"):
        return ""
    file = os.environ.get(PASSPHRASE_FILE)
    if not file and not os.environ.get(PASSPHRASE):
        raise Misuse(f"no passphrase: set {PASSPHRASE} or {PASSPHRASE_FILE} where the Flower process is started")
    return ask_passphrase(Path(file) if file else None)


class Resident:
    """The site in ``home`` as a process of its own; ``idle`` seconds without a request end it.

    Args:
        options: more of ``privfl site run``, where this starts it. word: its passphrase, if not the environment's.
    """

    def __init__(self, home: Path, idle: int, options: Sequence[str] = (), word: str | None = None) -> None:
        self._home, self._idle, self._options, self._word = home, idle, tuple(options), word

    def __call__(self, carrier: Carrier, hold: float, hello: bool) -> Worked:
        """See :data:`privfl.flower.client.Work`. A courier that says hello wakes the site, and does not wait for it."""
        if not carrier.unread():
            if hello and holder(self._home) is None and not self._starting():
                self._start()
            return Worked()
        until, pause, child = time.monotonic() + hold, FIRST_PAUSE_S, None
        while time.monotonic() < until:
            if not carrier.unread():
                return Worked()
            if holder(self._home) is None:
                if child is not None and child.poll() is not None:
                    return Worked(problem=_why(child.returncode))
                if child is None and not self._starting():
                    child = self._start()
            worked = self._waited(pause)
            until += worked
            pause = FIRST_PAUSE_S if worked else min(1.5 * pause, LAST_PAUSE_S)
        return Worked(working=True)

    def _waited(self, seconds: float) -> float:
        """Let some time pass; returns by how many seconds the message may then take longer."""
        time.sleep(seconds)
        return 0.0

    def _starting(self) -> bool:
        """Whether a site that another message has started is not yet so far that it holds the folder."""
        for child in list(_children):
            if child.poll() is not None:
                _children.remove(child)
        mark = self._home / "flower" / MARK
        with suppress(OSError, ValueError):
            if time.time() - mark.stat().st_mtime < STARTING_S:
                return _lives(int(mark.read_text()))
        return False

    def _start(self) -> subprocess.Popen[bytes]:
        if self._word is None:
            passphrase(self._home)  # told here if there is none
        command = [sys.executable, "-P", "-c", "from privfl.cli import main; main()", "site", "run", str(self._home)]
        command += self._options
        if self._word is None and (file := os.environ.get(PASSPHRASE_FILE)) and not os.environ.get(PASSPHRASE):
            command += ["--passphrase-file", os.path.abspath(file)]  # its content comes into nobody's environment
        log = os.open(self._home / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            child = subprocess.Popen(  # noqa: S603 - this very interpreter, and no words of a stranger
                [*command, "--stop-when-idle", str(self._idle)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
                env=None if self._word is None else {**os.environ, PASSPHRASE: self._word},
                start_new_session=True,
            )
        finally:
            os.close(log)
        _children.append(child)
        (self._home / "flower" / MARK).write_text(str(child.pid))
        return child


def _lives(pid: int) -> bool:
    """Whether a process runs; one that has ended, and that nobody has asked about (in a container), does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[:1]
    except ProcessLookupError:
        return False
    except OSError:  # no such folder on this system, or another user's process
        return True
    return state != ["Z"]


def _why(code: int) -> str:
    """In words that may leave the site: its own are for its operator, in the log and status of its folder."""
    return f"the site does not start (exit {code}): {_WHY.get(code, 'it broke down; its operator reads why')}"
