"""The coordinator in a ServerApp: its folder is opened, its jobs are run, and a courier carries its mail.

What the coordinator knows lies in its folder, not in Flower: a run that is stopped loses nothing, and the next one
goes on where it was. A job that fails makes the Flower run fail.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from privfl.clock import Clock, SystemClock
from privfl.errors import Misuse, PrivflError, WireError
from privfl.flower.courier import Courier
from privfl.flower.resident import passphrase as passphrase_of_environment
from privfl.homes.coordinator import CoordinatorHome, OpenCoordinator
from privfl.runtime.coordinator import RoundResult
from privfl.runtime.coordinator_process import CoordinatorProcess, Pace
from privfl.runtime.jobs import Job, jobs_of, kind_of, submit
from privfl.runtime.logs import configure
from privfl.runtime.status import CoordinatorStatus, show_failed_start, write_notes
from privfl.wires.flower import Spool, SpoolMailbox, spool_of
from privfl.wires.folder import FolderDelivery
from privfl.wires.settings import FlowerSettings

__all__ = ["PACE", "Leash", "RunOver", "app", "coordinator_app", "serve"]

log = logging.getLogger("privfl.flower")

HOME, HOME_VARIABLE = "privfl-coordinator", "PRIVFL_COORDINATOR"
SERVE, TASK, LOG = "privfl-serve", "privfl-task", "privfl-log"

#: How long a coordinator over Flower waits, in milliseconds: a message may take seconds on its way, however small.
PACE = Pace(gather=120_000, patience=300_000, grace=10_000)


#: Called with each opened round's number, its result, and the packed vectors by site id in hex.
AfterRound = Callable[[int, RoundResult, Mapping[str, bytes]], None]


class RunOver(BaseException):
    """Ends the coordinator's work where it is, as Ctrl-C does: no job has failed, and the next run goes on."""


class Leash(SpoolMailbox):
    """The coordinator's end of its spool, which lets nobody wait for mail that will not come any more."""

    def __init__(self, spool: Spool, own: bytes, over: Callable[[], bool]) -> None:
        super().__init__(spool, own)
        self._over = over

    def receive(self, wait_ms: int) -> list[FolderDelivery]:
        """See the contract."""
        if self._over():
            raise RunOver
        return super().receive(wait_ms)


class JobFailed(PrivflError):
    """A job of this run failed; the message names it and says why."""

    exit_code = 6


def serve(
    grid: Grid,
    context: Context,
    *,
    home: Path | None = None,
    passphrase: str | None = None,
    task: Path | None = None,
    forever: bool | None = None,
    pace: Pace = PACE,
    stop: Callable[[], bool] = lambda: False,
    clock: Clock | None = None,
    after_round: AfterRound | None = None,
    **courier: Any,
) -> None:
    """Run the coordinator's waiting jobs over ``grid``; the main function of a ServerApp calls this.

    Args:
        home: the coordinator's folder; by default the run's ``privfl-coordinator``, or PRIVFL_COORDINATOR.
        passphrase: of its key store; by default PRIVFL_PASSPHRASE, or the file PRIVFL_PASSPHRASE_FILE.
        task: a task or study file that is submitted first; by default the run's ``privfl-task``, if it has one.
        forever: go on waiting for jobs until the run is stopped; by default the run's ``privfl-serve``.
        pace: how long is waited for sites. stop: whether to end, at the next look at the mail; what
            was begun goes on with the next run. after_round: see
            :func:`~privfl.runtime.coordinator_process.run_coordinator`. courier: further arguments of
            :class:`~privfl.flower.courier.Courier`.

    Raises:
        PrivflError: the folder cannot be opened, or a job of this run failed (the message names it).
        WireError: the Flower run ended before the jobs did; run the app again, and they go on.
    """
    run, clock = context.run_config, clock or SystemClock()
    folder = home or _folder(run)
    asked = task or (Path(str(run[TASK])).expanduser() if run.get(TASK) else None)
    stays = bool(run.get(SERVE, False)) if forever is None else forever
    word = passphrase_of_environment(folder) if passphrase is None else passphrase
    if asked is not None:
        job = submit(folder, asked, clock.now(), kind=kind_of(asked))
        log.info("job %s is queued", job.id)
    try:
        opened = CoordinatorHome.open(folder, word, clock.now())
    except PrivflError as error:
        show_failed_start(folder, CoordinatorStatus, error, clock.now())
        raise
    with opened:
        _run(grid, opened, clock, pace, stop, stays, after_round, courier)


def _run(
    grid: Grid,
    home: OpenCoordinator,
    clock: Clock,
    pace: Pace,
    stop: Callable[[], bool],
    stays: bool,
    after_round: AfterRound | None,
    options: Mapping[str, Any],
) -> None:
    settings = home.wire
    if not isinstance(settings, FlowerSettings):
        raise Misuse(
            f"the coordinator in {home.folder} speaks over {settings}; have it join again with a federation.yaml that "
            "has 'kind: flower': privfl coordinator join --wire"
        )
    spool = spool_of(home.folder)
    usual = {"poll": float(settings.poll), "tell": partial(write_notes, home.folder)}
    courier = Courier(grid, spool, home.party.id, home.party.roster, **{**usual, **options})
    home.mailbox.close()
    home.mailbox = Leash(spool, home.party.id, lambda: stop() or bool(courier.ended))
    process = CoordinatorProcess(home, clock, pace=pace, after_round=after_round)
    before = {job.id for job in jobs_of(home.folder) if job.state().over}
    try:
        with courier:
            process.serve(lambda: stop() or bool(courier.ended), once=not stays)
    except RunOver:
        log.info("stopped; the next run goes on where this one was")
    except BaseException as error:
        why = str(error) if isinstance(error, PrivflError) else type(error).__name__
        process.end(why)
        raise
    finally:
        write_notes(home.folder, ())
    process.end()
    if courier.ended:
        raise WireError(f"{courier.ended} before its jobs were done; run the app again, and they go on")
    _check([job for job in jobs_of(home.folder) if job.id not in before], courier)


def _check(jobs: list[Job], courier: Courier) -> None:
    failed = [(job.id, job.state()) for job in jobs if job.state().state == "failed"]
    if failed:
        said = "; ".join(f"job {name} failed: {state.error}" for name, state in failed)
        hints = "; ".join(f"{who}: {words}" for who, words in courier.problems.items())
        raise JobFailed(f"{said}{f' ({hints})' if hints else ''}")


def _folder(run: Mapping[str, Any]) -> Path:
    named = run.get(HOME) or os.environ.get(HOME_VARIABLE)
    if not named:
        raise Misuse(
            f"no coordinator is named: give flwr run --run-config '{HOME}=\"/path/of/the/coordinator\"', or set "
            f"{HOME_VARIABLE} where the SuperLink is started"
        )
    return Path(str(named)).expanduser()


def coordinator_app(**options: Any) -> ServerApp:
    """A ServerApp that does nothing but :func:`serve`, with these options.

    What the coordinator logs goes to standard error, and so into the run's log: lines of text, or one JSON object
    each if the run's ``privfl-log`` says ``json``.
    """
    made = ServerApp()

    @made.main()
    def main(grid: Grid, context: Context) -> None:
        configure("json" if context.run_config.get(LOG) == "json" else "text", file=None, who="coordinator")
        serve(grid, context, **options)

    return made


app = coordinator_app()
