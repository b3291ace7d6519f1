"""The coordinator as a process: it takes jobs from its folder, runs them to the end, and goes on after a stop."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from privfl.budget import Mandate
from privfl.clock import Clock, SystemClock
from privfl.codec import Record
from privfl.dp import Release
from privfl.entropy import SYSTEM, Entropy
from privfl.errors import PrivflError, RoundAborted, StorageError, WireError
from privfl.homes.coordinator import CoordinatorHome, OpenCoordinator
from privfl.homes.files import write_file
from privfl.runtime.alive import Process
from privfl.runtime.consult import Consult
from privfl.runtime.consulting import Consultation
from privfl.runtime.coordinator import CoordinatorNode, RoundResult
from privfl.runtime.fit import transcript_name
from privfl.runtime.jobs import Job, JobState, jobs_of
from privfl.runtime.progress import waiting_for
from privfl.runtime.run import STOPPED_EARLY, Bar, Outcome, Run, RunRecord, Setting, Stage
from privfl.runtime.shelves import FolderShelf
from privfl.runtime.status import NAME, CoordinatorStatus, Phase, SiteSeen, StatusFile, show_failed_start
from privfl.runtime.watched import WatchedMailbox
from privfl.secagg import Transcript, read_transcript

__all__ = ["CoordinatorProcess", "Pace", "may_be_charged", "run_coordinator"]

log = logging.getLogger("privfl.coordinator")
PAST = "past"
RETRY_S = 0.5
THE_WIRE = "the wire"
TURN_MS = 10_000  # how long a job waits for operators before another one that is queued gets its turn
_START_SITES = "Start them with: privfl site run"
_START = {"flower": "Start their SuperNodes, each with privfl-site in its --node-config"}
_PHASES = {"epoch": Phase.EPOCH, "collecting": Phase.COLLECTING, "voting": Phase.VOTING, "releasing": Phase.RELEASING}


@dataclass(frozen=True)
class Pace:
    """How long the coordinator waits, in milliseconds.

    Attributes:
        gather: for sites to come up before an epoch. patience: for the last sites of a phase.
        grace: for the others once enough have answered. wire: for a wire that cannot be used, before a job fails.
        approval: for operators whose yes is needed; None: for ever, letting other jobs go first.
    """

    gather: int = 30_000
    patience: int = 60_000
    grace: int = 2_000
    wire: int = 600_000
    approval: int | None = None


@dataclass(frozen=True)
class Past(Record):
    """What this coordinator's runs have released, and how often: (encoded release or nothing, uploads)."""

    TAG: ClassVar[str] = "past runs"
    runs: tuple[tuple[bytes, int], ...]

    def pairs(self) -> list[tuple[Release | None, int]]:
        """The releases themselves."""
        return [(Release.decode(data) if data else None, uploads) for data, uploads in self.runs]


class _Later(Exception):
    """The job in hand waits for people; nothing was charged for it, and it is taken up again."""


class CoordinatorProcess:
    """One run of a coordinator, on an open folder."""

    def __init__(
        self,
        home: OpenCoordinator,
        clock: Clock,
        entropy: Entropy = SYSTEM,
        pace: Pace | None = None,
        after_round: Callable[[int, RoundResult, Mapping[str, bytes]], None] | None = None,
        asks_operators: Callable[[tuple[str, ...], int], None] | None = None,
    ) -> None:
        """The arguments' meaning.

        Args:
            after_round: see :func:`run_coordinator`. asks_operators: called whenever a wait for operators begins, with
                the names of their sites and the uploads that the job was charged so far.
        """
        self.home, self._clock, self.pace = home, clock, pace or Pace()
        self._asks_operators = asks_operators
        self._shelf = FolderShelf(home.folder / "shelf")
        self._after_round = after_round
        self.names = {member.site_id: member.name for member in home.party.roster.holding("site")}
        wire = home.config.wire
        self.wire = WatchedMailbox(home.mailbox, clock, wire.kind, str(wire), self._wire_changed)
        self.node = CoordinatorNode(
            home.party,
            home.signed_roster,
            self.wire,
            self._shelf,
            clock,
            entropy,
            patience_ms=self.pace.patience,
            grace_ms=self.pace.grace,
            state=home.state,
            changed=self._show,
        )
        self._file = StatusFile(home.folder / NAME)
        self._run: Run[Outcome] | None = None
        self._bar: Bar | None = None
        self._stop: Callable[[], bool] = lambda: False
        self._turns: dict[str, int] = {}  # jobs that wait for operators, and when each had its last turn
        now = clock.now()
        self._status = CoordinatorStatus(home.config.federation, Process.present(now), since=now)
        self._update(phase=Phase.STARTING)

    # -- jobs ---------------------------------------------------------------------------------------

    def serve(self, stop: Callable[[], bool], *, once: bool = False) -> None:
        """Run every job that is waiting; then listen for more, unless ``once``."""
        self._stop = stop
        while not stop():
            waiting = self._waiting()
            if waiting:
                self.attempt(waiting[0])
            elif once:
                return
            else:
                self._update(phase=Phase.WAITING, waits_for="a task: privfl train TASK.yaml")
                self._file.flush()
                try:
                    self.node.desk.listen(500)
                except WireError as error:
                    log.warning("the wire cannot be used: %s; trying again", error)
                    time.sleep(RETRY_S)

    def _waiting(self) -> list[Job]:
        """Jobs to be run, oldest first; those that wait for operators take turns behind the others."""
        found = [job for job in jobs_of(self.home.folder) if not job.state().over]
        return sorted(found, key=lambda job: self._turns.get(job.id, 0))

    def attempt(self, job: Job) -> Outcome | None:
        """Run a job; its failure is noted in its folder and does not end the process. None if it failed."""
        try:
            return self.run(job)
        except StorageError:
            raise  # not the job's fault: it goes on when the disk takes it again
        except _Later:
            job.move(JobState("queued", "waits for approval by operators of sites"))
            self._turns[job.id] = self._clock.now()
            return None
        except PrivflError as error:
            log.error("job %s failed: %s", job.id, error)
            return None

    def run(self, job: Job, bar: Bar | None = None) -> Outcome:
        """Run a job to its end, from where it was.

        Raises:
            PrivflError: why it cannot be run or go on; noted in the job's folder first.
        """
        job.move(JobState("running"))
        self._bar = bar
        try:
            fit = self._held_up(job, bar)
            fit.save(job.result)
            write_file(job.result / "summary.json", json.dumps(fit.figures(job.name), indent=2).encode())
        except StorageError:
            raise
        except PrivflError as error:
            self._forget(job, self._run)
            job.move(JobState("failed", str(error), error.exit_code, type(error).__name__))
            self._update(phase=Phase.FAILED, error=str(error), force=True)
            raise
        finally:
            self._run, run = None, self._run
        self._forget(job, run)
        job.move(JobState("done", fit.stopped if fit.stopped.startswith(STOPPED_EARLY) else ""))
        try:
            self.node.end_epoch()
        except WireError as error:
            log.warning("the sites were not told that the epoch is over: %s", error)
        self._update(phase=Phase.DONE, waits_for="", deadline=None, force=True)
        return fit

    def _held_up(self, job: Job, bar: Bar | None) -> Outcome:
        """Train, and go on where it was while the wire comes and goes; raises WireError once it is gone for good."""
        began = None
        while True:
            try:
                return self._trained(job, bar)
            except WireError as error:
                now = self._clock.now()
                began = now if began is None or self._heard_since(began) else began
                if now - began > self.pace.wire:
                    raise
                log.warning("the wire cannot be used: %s; trying again", error)
                self._update(waits_for=THE_WIRE, error=str(error), force=True)
                time.sleep(RETRY_S)

    def _heard_since(self, moment: int) -> bool:
        return any(seen > moment for seen in self.node.view.seen.values())

    def _trained(self, job: Job, bar: Bar | None) -> Outcome:
        home, kind, asked = self.home, job.kind, job.asked
        self._forget_cancelled()
        compiled = kind.compile(asked, home.party.roster, home.policy)
        question, tries = compiled.question, min(compiled.attempts, home.policy.attempts_per_round)
        setting = Setting(home.policy.hash, compiled.complete, compiled.least, tries, job.mandate)
        stored = home.state.get(f"run {job.id}")
        if job.mandate and stored is None:  # the sites check it too; here nobody has been troubled yet
            Mandate.decode(job.mandate).verify(home.party.roster, question.id, self._clock.now())
        self._status = replace(self._status, job=job.id, name=asked.name, rounds=asked.rounds, error="", aborted="")
        resumed = None
        if stored is not None:
            resumed = RunRecord.decode(stored), _transcripts(job)
            log.info("job %s goes on in round %d", job.id, resumed[0].round)
        stage = Stage(
            self.node,
            home.authority,
            self.names,
            past=self._past(),
            bodies=self._shelf.bodies,
            tidy=self._shelf.clear,
            present=self._gather,
            min_cell_count=home.policy.min_cell_count,
            sites_per_subject=home.policy.max_sites_per_subject,
        )

        def journal(record: RunRecord, transcript: Transcript | None) -> Mapping[str, bytes | None]:
            if transcript is not None:
                (job.folder / "transcripts").mkdir(mode=0o700, exist_ok=True)
                write_file(job.folder / "transcripts" / transcript_name(transcript), transcript.encode())
            return {f"run {job.id}": record.encode()}

        self._run = kind.begin(asked, compiled, stage, setting, self._after_round, journal, resumed)
        return self._run.run(bar)

    def _gather(self) -> Sequence[bytes]:
        """The sites that are up; raises RoundAborted if they are too few for an epoch."""
        self._update(phase=Phase.WAITING, waits_for="sites to come up", force=True)
        roster = self.home.party.roster
        present = self.node.desk.gather(roster.site_ids, self.pace.gather)
        least = roster.corrupt_bound + 2
        if len(present) < least:
            missing = sorted(name for site, name in self.names.items() if site not in present)
            raise RoundAborted(
                f"{len(present)} of {len(roster.site_ids)} sites are up and {least} are needed; not heard of: "
                f"{', '.join(missing)}. {_START.get(self.home.wire.kind, _START_SITES)}, and run the task again"
            )
        return self._consulted(present)

    def _consulted(self, present: Sequence[bytes]) -> Sequence[bytes]:
        """Those of the sites whose operators agree to the question, where the policy wants them to be asked."""
        run, policy = self._run, self.home.policy
        if run is None or run.question.purpose not in policy.approval:
            return present
        setting, question, began = run.setting, run.question, self._clock.now()
        consult = Consult(question.descriptor(), run.inputs(), setting.mandate, setting.complete, setting.least)
        enough = max(setting.least, policy.min_sites)
        asked = Consultation(self.node.desk, self._clock, consult, question.id, self.names, enough)

        begun = False

        def tell(names: tuple[str, ...]) -> None:
            nonlocal begun
            words = f"approval by the operator of {', '.join(names) or 'sites that are not up'}"
            self._update(phase=Phase.WAITING, waits_for=words, operators=names, error="", force=True)
            if names and not begun and self._asks_operators is not None:
                begun = True
                self._asks_operators(names, run.charged)
            if self._bar is not None:
                self._bar.update(run.number - 1, waiting_for(names))
            turn_over = self._clock.now() - began >= TURN_MS and len(self._waiting()) > 1
            if not run.charged and (self._stop() or (turn_over and self.pace.approval is None)):
                raise _Later

        try:
            return asked.wait(present, self.pace.approval, self.pace.grace, tell)
        finally:
            self._update(operators=())

    def _forget_cancelled(self) -> None:
        """Drop what was kept to go on with jobs that are over, cancelled ones above all."""
        over = {f"run {job.id}": None for job in jobs_of(self.home.folder) if job.state().over}
        self.home.state.put({name: None for name in over if self.home.state.get(name) is not None})

    def _past(self) -> list[tuple[Release | None, int]]:
        stored = self.home.state.get(PAST)
        return [] if stored is None else Past.decode(stored).pairs()

    def _forget(self, job: Job, run: Run[Outcome] | None) -> None:
        """The run is over: its record goes, what it has released is remembered."""
        items: dict[str, bytes | None] = {f"run {job.id}": None}
        if run is not None and run.charged:
            stored = self.home.state.get(PAST)
            before = Past.decode(stored).runs if stored is not None else ()
            new = [(release.encode() if release else b"", times) for release, times in run.released() if times]
            items[PAST] = Past((*before, *new)).encode()
        self.home.state.put(items)

    # -- status -------------------------------------------------------------------------------------

    def end(self, error: str | None = None) -> None:
        """Show how the process ended: well, or why not."""
        if error is None:
            self._update(phase=Phase.DONE, waits_for="", force=True)
        else:
            self._update(phase=Phase.FAILED, error=error, force=True)

    def _show(self) -> None:
        if not hasattr(self, "_status"):
            return
        view, now, run, last = self.node.view, self._clock.now(), self._run, self._status
        missed = Counter(name for names in run.dropped.values() for name in names) if run is not None else Counter()
        began, took = last.round_began, last.last_round_ms
        if view.round != last.round:
            followed = began is not None and view.round == last.round + 1
            began, took = now, now - began if followed and began is not None else None
        phase = _PHASES.get(view.phase, Phase.WAITING)
        waiting = [site for site in view.asked if site not in view.answered and site not in view.refused]
        score = run.score() if run is not None else None
        self._update(
            phase=phase,
            since=now if phase != self._status.phase else self._status.since,
            waits_for=", ".join(self.names.get(site, "?") for site in waiting),
            epoch=self.node.machine.record.scope.epoch if self.node.epoch_open else None,
            round=view.round,
            attempt=view.attempt,
            deadline=view.deadline or None,
            sites=tuple(
                SiteSeen(
                    name,
                    view.seen.get(site),
                    site in view.sizes,
                    late=site in waiting and phase is Phase.COLLECTING and bool(view.answered),
                    refused=view.refused.get(site) or view.apart.get(site, ""),
                    bytes_sent=view.sizes.get(site, 0),
                    bytes_to=self.wire.to.get(site, 0),
                    missed=missed[name],
                )
                for site, name in self.names.items()
            ),
            score=score,
            aborted=self.node.last_abort,
            round_began=began,
            last_round_ms=took,
        )

    def _wire_changed(self) -> None:
        """The wire went away, failed again, or came back: say so at once."""
        if not hasattr(self, "_status"):
            return
        if not self.wire.away:
            log.info("the wire can be used again")
            if self._status.waits_for == THE_WIRE:
                self._update(waits_for="", error="")
        self._update(force=True)

    def _update(self, *, force: bool = False, **fields: object) -> None:
        self._status = replace(self._status, wire=self.wire.seen, **fields)  # type: ignore[arg-type]
        self._file.write(self._status, force=force)


def may_be_charged(home: OpenCoordinator, job: Job) -> bool:
    """Whether sites may have been charged for a job that is not over; it is noted before any of them is invited."""
    try:
        stored = home.state.get(f"run {job.id}")
        return stored is not None and any(times for _, times in RunRecord.decode(stored).charged)
    except PrivflError:  # what cannot be read is no promise
        return True


def _transcripts(job: Job) -> list[Transcript]:
    """The transcripts of a run that was stopped, in order of their rounds."""
    found = [read_transcript(path.read_bytes()) for path in (job.folder / "transcripts").glob("*.transcript")]
    return sorted(found, key=lambda one: one.announcement.round)


def run_coordinator(
    folder: Path,
    passphrase: str,
    *,
    stop: Callable[[], bool],
    pace: Pace | None = None,
    once: bool = False,
    clock: Clock | None = None,
    after_round: Callable[[int, RoundResult, Mapping[str, bytes]], None] | None = None,
) -> None:
    """Open a coordinator's folder and run its jobs until told to stop, or with ``once`` until none is waiting.

    Args:
        after_round: called with each opened round's number, its result, and the packed vectors by site id in hex.

    Raises:
        PrivflError: the folder cannot be opened, or the disk does not take what must be durable.
    """
    clock = clock or SystemClock()
    process = None
    try:
        with CoordinatorHome.open(folder, passphrase, clock.now()) as home:
            process = CoordinatorProcess(home, clock, pace=pace, after_round=after_round)
            try:
                process.serve(stop, once=once)
            except BaseException as error:
                why = str(error) if isinstance(error, PrivflError) else type(error).__name__
                process.end(why)
                raise
            process.end()
    except PrivflError as error:
        if process is None:
            show_failed_start(folder, CoordinatorStatus, error, clock.now())
        raise
