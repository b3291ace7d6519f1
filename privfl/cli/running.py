"""Carrying out a job from the command line: as the coordinator, or by following the one that runs."""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from privfl.cli.roles import now, passphrase, quoted
from privfl.cli.serve import LogLevel, Stop, check_own_wire, next_run
from privfl.errors import Malformed, Misuse, PrivflError

if TYPE_CHECKING:
    from privfl.homes.coordinator import OpenCoordinator
    from privfl.runtime.jobs import Asked, Job, JobState

__all__ = ["carry_out", "missing_rounds"]

APPROVAL_S = 600.0


def carry_out(
    asked: Path | Asked,
    kind: str,
    coordinator: Path,
    mandate: Path | None,
    pace: tuple[float, ...],
    log_level: LogLevel,
    detach: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> Job | None:
    """Queue a job file (or what was read of one) and see it to its end; None where it was only queued.

    If a coordinator runs on the folder the job is followed there; otherwise this process is the coordinator.

    Args:
        pace: seconds to gather sites, to wait for the last ones, of grace for the others, and, by default ten minutes,
            for operators whose own yes is needed.

    Raises:
        PrivflError: what ended the job.
    """
    from privfl.homes.coordinator import CoordinatorHome  # noqa: PLC0415 - loaded when a command runs
    from privfl.homes.lock import holder  # noqa: PLC0415
    from privfl.runtime.jobs import submit  # noqa: PLC0415

    signed = b"" if mandate is None else _content(mandate)
    running = holder(coordinator) is not None
    if not running and not detach:
        check_own_wire(coordinator)
    word = "" if running or detach else passphrase(coordinator, passphrase_file)
    # opened before anything is queued: a coordinator that cannot run must not keep a task to run it later
    home = None if running or detach else CoordinatorHome.open(coordinator, word, now())
    with home or nullcontext():
        job = submit(coordinator, asked, now(), mandate=signed, kind=kind)
        if detach:
            _tell_queued(job, coordinator, running, as_json)
            return None
        try:
            if home is None:
                _follow(job, coordinator)
            else:
                _here(job, home, pace, log_level, quiet=as_json)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_interrupted(job, coordinator, home)) from None
    return job


def _content(path: Path) -> bytes:
    from privfl.budget import Mandate  # noqa: PLC0415 - loaded when a command runs

    try:
        data = path.read_bytes()
        Mandate.decode(data)
    except OSError as error:
        raise Misuse(f"the mandate {path} cannot be read ({error.strerror}); check the path") from None
    except Malformed:
        raise Malformed(f"{path} is damaged or no mandate; have the analyst sign one with: privfl mandate") from None
    return data


def _tell_queued(job: Job, coordinator: Path, running: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"job": job.id, "running": running}))
        return
    typer.echo(f"task {job.id} is in the queue of {coordinator}")
    if not running:
        typer.echo(f"Next: {next_run(coordinator)}")


def _here(job: Job, home: OpenCoordinator, pace: tuple[float, ...], level: LogLevel, *, quiet: bool) -> None:
    """Be the coordinator until the job is over."""
    from privfl.cli.serve import LogFormat, logging_to  # noqa: PLC0415
    from privfl.clock import SystemClock  # noqa: PLC0415
    from privfl.runtime.coordinator_process import CoordinatorProcess, Pace  # noqa: PLC0415
    from privfl.runtime.progress import RunProgress  # noqa: PLC0415

    def asks(names: tuple[str, ...], charged: int) -> None:
        """Also where no bar is seen: somebody has to call these people."""
        free = "" if charged else "; Ctrl-C costs nothing"
        _say(f"waiting for the yes of the operators of {', '.join(names)} (up to {approval / 1000:g} s{free})")

    logging_to(home.folder, "coordinator", LogFormat.TEXT, level)
    gather, patience, grace, approval = (int(1000 * seconds) for seconds in (*pace, APPROVAL_S)[:4])
    clock, waits = SystemClock(), Pace(gather, patience, grace, approval=approval)
    Stop()
    process = CoordinatorProcess(home, clock, pace=waits, asks_operators=asks)
    if quiet:
        process.run(job)
        return
    with RunProgress(job.rounds, job.verb) as bar:
        process.run(job, bar)


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def _interrupted(job: Job, coordinator: Path, home: OpenCoordinator | None) -> str:
    """What Ctrl-C leaves behind, and how it goes on; told after the bar has gone."""
    where = quoted(coordinator)
    if home is None:
        _say(f"\ntask {job.id} goes on: the coordinator that runs on {coordinator} has it")
        return "this command no longer follows the task; nothing else was stopped"
    _say(
        f"\ntask {job.id} goes on with: privfl coordinator run {where}\n"
        f"or is dropped with: privfl coordinator cancel {where} {job.id}"
    )
    from privfl.runtime.coordinator_process import may_be_charged  # noqa: PLC0415

    return "" if may_be_charged(home, job) else "no site was asked to compute anything, and nothing was charged"


def _follow(job: Job, coordinator: Path) -> None:
    """Wait until the running coordinator is through with the job; raises what ended it."""
    from privfl.homes.lock import holder  # noqa: PLC0415
    from privfl.runtime.progress import FollowedProgress  # noqa: PLC0415

    told = False
    with FollowedProgress(coordinator, job) as bar:
        while not (state := job.state()).over:
            if holder(coordinator) is None and not job.state().over:
                raise Misuse(
                    f"the coordinator on {coordinator} has stopped; task {job.id} goes on with: {next_run(coordinator)}"
                )
            bar.look()
            if bar.operators and not told:
                told = True
                _say(
                    f"waiting for the yes of the operators of {', '.join(bar.operators)} "
                    "(the coordinator goes on waiting after Ctrl-C)"
                )
            time.sleep(0.1)
    if state.state == "failed":
        raise _failure(state)


def _failure(state: JobState) -> PrivflError:
    import privfl.errors  # noqa: PLC0415

    kind = getattr(privfl.errors, state.kind, PrivflError)
    error: PrivflError = (kind if issubclass(kind, PrivflError) else PrivflError)(state.error)
    return error


def missing_rounds(dropped: dict[str, list[str]]) -> dict[str, str]:
    """By site the rounds that it missed, in words."""
    by_site: dict[str, list[list[int]]] = {}
    for number, names in sorted((int(number), names) for number, names in dropped.items()):
        for name in names:
            runs = by_site.setdefault(name, [])
            if runs and runs[-1][1] == number - 1:
                runs[-1][1] = number
            else:
                runs.append([number, number])
    return {
        name: ("round " if len(runs) == 1 and runs[0][0] == runs[0][1] else "rounds ")
        + ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs)
        for name, runs in by_site.items()
    }
