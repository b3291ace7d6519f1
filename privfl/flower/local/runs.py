"""What Flower's own command line does for a run: start it, follow it, stop it, and say truly how it ended."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privfl.errors import Misuse, PrivflError, WireError
from privfl.flower.local.children import Family

__all__ = ["CONNECTION", "Finished", "Plain", "RunFailed", "Runs", "toml"]

CONNECTION = "loopback"
Plain = str | int | float | bool
_DONE = "finished"
_AGAIN_S = 2.0
_PATIENCE_S = 300.0  # of a command that answers within a second on a computer that has nothing else to do
_COMPLETED = "finished:completed"
_UNAVAILABLE = "Connection to the SuperLink is unavailable"
# One interpreter for many commands: most of a command's second is the import of flwr.
_MANY = """
import json, sys, click
from flwr.cli.app import app
for line in sys.stdin:
    try:
        app(json.loads(line), standalone_mode=False)
    except click.ClickException as error:
        sys.exit(error.message)
"""


class RunFailed(PrivflError):
    """The ServerApp of a Flower run raised, or was stopped; ``outcome`` has its log."""

    exit_code = 6

    def __init__(self, outcome: Finished) -> None:
        self.outcome = outcome
        super().__init__(
            f"Flower run {outcome.run} ended as {outcome.status}: {outcome.details}\n{outcome.log[-4000:]}"
        )


@dataclass(frozen=True)
class Finished:
    """How a run ended.

    Attributes:
        run: Flower's number of the run. status: ``finished:completed``, ``finished:failed`` or ``finished:stopped``.
        details: Flower's reason. log: what the ServerApp has written. seconds: wall time from its start to its end.
        inbound, outbound: bytes that SuperLink counted, from its own point of view.
    """

    run: str
    status: str
    details: str
    log: str
    seconds: float
    inbound: int
    outbound: int

    @property
    def code(self) -> int:
        """0 if the ServerApp completed; else 6."""
        return 0 if self.status == _COMPLETED else RunFailed.exit_code


def toml(values: Mapping[str, Plain]) -> str:
    """``values`` as a flat TOML table: the form in which Flower takes values with blanks and quotes unharmed."""
    lines = []
    for key, value in values.items():
        if not all(part.isascii() and part.replace("-", "").replace("_", "").isalnum() for part in key.split(".")):
            raise Misuse(f"{key!r} is no key of a Flower configuration; use letters, digits, '-', '_' and '.'")
        lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}\n")
    return "".join(lines)


class Runs:
    """``flwr`` commands against one SuperLink; ``authority`` is None for a connection without TLS.

    ``home`` names the Flower home that has the connection.
    """

    def __init__(self, family: Family, address: str, authority: Path | None, *, home: str = "flwr") -> None:
        self._folder = family.folder
        self._environment = family.environment(home)
        secure = f"root-certificates = {json.dumps(str(authority))}" if authority else "insecure = true"
        (Path(self._environment["FLWR_HOME"]) / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\naddress = "{address}"\n{secure}\n'
        )

    def command(self, *words: str, given: str | None = None, seconds: float = _PATIENCE_S) -> str:
        """Run ``flwr WORDS``; standard output. Raises WireError with what it said if it fails."""
        line = [sys.executable, "-c", _MANY] if given is not None else ["flwr", *words]
        try:
            ran = subprocess.run(  # noqa: S603 - flwr of this environment, no shell
                line,
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                text=True,
                env=self._environment,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise WireError(f"flwr {' '.join(words)} did not answer within {seconds:g} s") from None
        if ran.returncode:
            raise WireError(f"flwr {' '.join(words)} failed: {_error(ran.stdout, ran.stderr)}")
        return ran.stdout

    def json(self, *words: str) -> dict[str, Any]:
        """Run ``flwr WORDS --format json``; raises WireError unless it succeeded."""
        said = _object(self.command(*words, "--format", "json"))
        if not said.get("success"):
            raise WireError(f"flwr {' '.join(words)} failed: {_error(json.dumps(said), '')}")
        return said

    def register(self, keys: list[Path]) -> None:
        """Enrol SuperNodes by their public keys."""
        if keys:
            self._many("register", [["supernode", "register", str(key), CONNECTION] for key in keys])

    def replace(self, node: str, key: Path) -> None:
        """Strike off a SuperNode and enrol another by its public key."""
        self._many(
            "unregister",
            [["supernode", "unregister", node, CONNECTION], ["supernode", "register", str(key), CONNECTION]],
        )

    def _many(self, what: str, commands: list[list[str]]) -> None:
        self.command("supernode", what, given="".join(json.dumps(words) + "\n" for words in commands))

    def start(self, app: Path, config: Mapping[str, Plain], federation: Mapping[str, Plain]) -> str:
        """``flwr run``; the number of the run."""
        file = self._folder / "run-config.toml"
        file.write_text(toml(config), encoding="utf-8")
        overrides = ["--run-config", str(file)] if config else []
        if federation:
            file = file.with_name("federation-config.toml")
            file.write_text(toml(federation), encoding="utf-8")
            overrides += ["--federation-config", str(file)]
        return str(self.json("run", str(app), CONNECTION, *overrides)["run-id"])

    def look(self, run: str) -> dict[str, Any]:
        """Flower's record of the run."""
        found: dict[str, Any] = self.json("list", CONNECTION, "--run-id", run)["runs"][0]
        return found

    def stop(self, run: str) -> None:
        """``flwr stop``."""
        self.json("stop", run, CONNECTION)

    def log(self, run: str) -> str:
        """What the ServerApp has written so far."""
        return self.command("log", run, CONNECTION, "--show")

    def finished(self, run: str, seconds: float) -> Finished:
        """Wait for the end of a run; raises WireError when time is up. A SuperLink that is away is asked again."""
        until = time.monotonic() + seconds
        while True:
            # The log's stream ends with the run, and costs nothing meanwhile; a command per second costs half a CPU.
            with suppress(WireError):
                self.command("log", run, CONNECTION, "--stream", seconds=max(1.0, until - time.monotonic()))
            try:
                record = self.look(run)
            except WireError:
                if time.monotonic() > until:
                    raise
                record = {"status": "unknown"}
            if record["status"].startswith(_DONE):
                return self._finished(run, record)
            if time.monotonic() > until:
                raise WireError(f"Flower run {run} is still {record['status']} after {seconds:g} s")
            time.sleep(_AGAIN_S)

    def _finished(self, run: str, record: Mapping[str, Any]) -> Finished:
        traffic = record["network-traffic"]
        return Finished(
            run,
            record["status"],
            record["status-details"],
            self.log(run),
            float(record["elapsed"]),
            traffic["inbound-bytes"],
            traffic["outbound-bytes"],
        )


def _object(text: str) -> dict[str, Any]:
    """The JSON object in a command's output; Flower may write lines before it."""
    start = text.find("{")
    try:
        found = json.JSONDecoder().raw_decode(text[start:])[0] if start >= 0 else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise WireError(f"flwr answered something unexpected: {text[-400:]}")
    return found


def _error(out: str, err: str) -> str:
    try:
        words = str(_object(out).get("error-message", out))
    except WireError:
        words = err or out
    words = words.strip()[-2000:]
    # Flower has one sentence for a SuperLink that is down, and for one whose certificate does not hold.
    return f"{words} (or its certificate is not of the trusted authority)" if _UNAVAILABLE in words else words
