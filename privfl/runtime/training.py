"""One training run over sites that are ready: what the coordinator's side does from first epoch to fitted model."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
from privfl_keys import VerifyKey

from privfl.codec import Record
from privfl.dp import Release
from privfl.errors import Refused, RoundAborted
from privfl.learn import Task
from privfl.learn.checkpoint import dump_state, load_state
from privfl.runtime.coordinator import CoordinatorNode, RoundResult
from privfl.runtime.fit import Fit, PrivacyReport, Transcripts
from privfl.runtime.progress import TrainingProgress
from privfl.secagg import Transcript

__all__ = ["STOPPED_EARLY", "Observer", "RunRecord", "Setting", "Stage", "TrainingRun"]

log = logging.getLogger("privfl.training")
EPOCH_ROUNDS = 100
STOPPED_EARLY = "stopped early"
NEWCOMERS_AFTER = 3  # rounds of an epoch before a site that came back may start the next one

#: Called after each round with its number, its result, and the packed vectors by site id in hex.
Observer = Callable[[int, RoundResult, Mapping[str, bytes]], None]


@dataclass(frozen=True)
class Stage:
    """What a run stands on: the coordinator, and the sites as it may know them.

    Attributes:
        authority: the key that transcripts are verified against. names: site id → name.
        start: make every site ready for the run. revive: restart dead ones. Both for sites in this process.
        spent: ε by site name, from the sites' own accounts, as far as they can be seen from here.
        past: what earlier runs released, and how often.
        bodies: the packed vectors of a slot by site id in hex. tidy: forget what a finished round left.
        present: sites to open an epoch with; by default all.
    """

    coordinator: CoordinatorNode
    authority: VerifyKey
    names: Mapping[bytes, str]
    spent: Callable[[], Mapping[str, float]] = dict
    past: Sequence[tuple[Release | None, int]] = ()
    start: Callable[[], None] = lambda: None
    revive: Callable[[], object] = lambda: None
    bodies: Callable[[bytes], Mapping[str, bytes]] = lambda h0: {}
    tidy: Callable[[], None] = lambda: None
    present: Callable[[], Sequence[bytes]] | None = None


@dataclass(frozen=True)
class Setting:
    """How a run is carried out: the mode, the least survivors, tries per round, and who asks for it."""

    policy: bytes
    complete: bool
    least: int
    attempts: int
    mandate: bytes = b""


@dataclass(frozen=True)
class RunRecord(Record):
    """A run between two slots; together with its transcripts, all that is needed to go on."""

    TAG: ClassVar[str] = "training run"
    state: bytes
    round: int
    attempt: int  # number of the next attempt of that round
    charged: int
    epoch: int  # number of the epoch that this run opened last
    rounds_in_epoch: int
    dropped: tuple[tuple[int, tuple[str, ...]], ...]
    scores: str  # JSON, exact figures of rows that the coordinator holds itself
    sizes: tuple[int, int]  # total bytes of uploads, and how many


class TrainingRun:
    """One run: epochs, rounds, the model that grows from their sums, and what it all cost.

    Args:
        journal: takes the run's record and the newest transcript, before the machine's state is saved together
            with what it returns; None for a run that ends with its process.
        resumed: the record and transcripts of a run that was stopped.
    """

    def __init__(
        self,
        stage: Stage,
        task: Task,
        setting: Setting,
        held_out: pd.DataFrame | None = None,
        observer: Observer | None = None,
        journal: Callable[[RunRecord, Transcript | None], Mapping[str, bytes | None]] | None = None,
        resumed: tuple[RunRecord, Sequence[Transcript]] | None = None,
    ) -> None:
        self.stage, self.task, self.setting = stage, task, setting
        self.held_out, self.observer, self._journal = held_out, observer, journal
        self.state = task.initial_state()
        self.transcripts: list[Transcript] = []
        self.dropped: dict[int, tuple[str, ...]] = {}
        self.scores: list[dict[str, float]] = []
        self.sizes = (0, 0)
        self.charged = self._attempt = self._epoch = self._in_epoch = 0
        if resumed is not None:
            self._resume(*resumed)

    def _resume(self, record: RunRecord, transcripts: Sequence[Transcript]) -> None:
        self.state = load_state(self.task, record.state)
        self.charged, self._attempt, self.sizes = record.charged, record.attempt, record.sizes
        self._epoch, self._in_epoch = record.epoch, record.rounds_in_epoch
        self.dropped, self.scores = dict(record.dropped), json.loads(record.scores)
        self.transcripts = list(transcripts)

    def record(self) -> RunRecord:
        """The run as it stands."""
        return RunRecord(
            dump_state(self.task, self.state),
            self.state.round + 1,
            self._attempt,
            self.charged,
            self._epoch,
            self._in_epoch,
            tuple(sorted(self.dropped.items())),
            json.dumps(self.scores),
            self.sizes,
        )

    def train(self, bar: TrainingProgress | None = None) -> Fit:
        """Run to the end; see :meth:`privfl.Federation.train` for what is raised."""
        started = time.perf_counter()
        stage, task = self.stage, self.task
        stage.start()
        stopped = task.done(self.state)
        while stopped is None:
            try:
                if self._epoch_needed():
                    self._open_epoch()
                self._round(bar)
            except (RoundAborted, Refused) as error:
                if not self.transcripts:
                    raise
                stopped = f"{STOPPED_EARLY}: {error}"
                break
            stopped = task.done(self.state)
            if stopped is None and self.charged >= task.uploads:
                stopped = f"the budget of {task.uploads} uploads is used up, aborted attempts included"
        return Fit(
            task.finish(self.state),
            self.state.history,
            PrivacyReport.of(task, self.charged, stage.spent(), stage.past),
            Transcripts(self.transcripts, stage.authority),
            task,
            pd.DataFrame(self.scores),
            self.dropped,
            stopped or "",
            time.perf_counter() - started,
            self.sizes[0] / max(1, self.sizes[1]),
            task.initial_state().params.size,
        )

    def _epoch_needed(self) -> bool:
        """At the start, after 100 rounds, for a new roster, and soon after a site came back that is not in it.

        Also if another run has opened one since: rounds only rise within an epoch.
        """
        coordinator = self.stage.coordinator
        if not coordinator.epoch_open or coordinator.machine.record.scope.epoch != self._epoch:
            return True
        if coordinator.slot_open:
            return False
        if self._in_epoch % EPOCH_ROUNDS == 0:
            return True
        waiting = coordinator.view.hello - set(coordinator.machine.record.sites)
        return bool(waiting) and self._in_epoch >= NEWCOMERS_AFTER

    def _open_epoch(self) -> None:
        stage = self.stage
        stage.revive()
        present = stage.present() if stage.present is not None else sorted(stage.names)
        for site, why in stage.coordinator.open_epoch(present).items():
            log.warning("site %s is not in the epoch: %s", stage.names[site], why)
        self._epoch, self._in_epoch = stage.coordinator.machine.record.scope.epoch, 0

    def _round(self, bar: TrainingProgress | None) -> None:
        stage, task, number, setting = self.stage, self.task, self.state.round + 1, self.setting
        left = max(0, min(setting.attempts - self._attempt, task.uploads - self.charged))

        def counted(attempt: int) -> Mapping[str, bytes | None] | None:
            self.charged += 1
            self._attempt = attempt + 1
            stage.revive()
            return self._journal(self.record(), None) if self._journal else None

        result = stage.coordinator.run_round(
            task,
            task.model_bytes(self.state),
            setting.policy,
            number,
            complete=setting.complete,
            min_survivors=setting.least,
            attempts=left,
            first=self._attempt,
            mandate=setting.mandate,
            on_attempt=counted,
        )
        self.state = task.update(self.state, result.total, len(result.survivors))
        self._attempt, self._in_epoch = 0, self._in_epoch + 1
        self.transcripts.append(result.transcript)
        gone = tuple(stage.names[site] for site in result.dropped)
        if gone:
            self.dropped[number] = gone
        self.sizes = (self.sizes[0] + sum(result.upload_bytes.values()), self.sizes[1] + len(result.upload_bytes))
        if self.held_out is not None:
            self.scores.append({"round": number, **task.evaluate(self.state, self.held_out)})
        if self.observer is not None:
            self.observer(number, result, stage.bodies(result.transcript.announcement.h0))
        stage.coordinator.save(self._journal(self.record(), result.transcript) if self._journal else None)
        stage.tidy()
        if bar is not None:
            bar.update(self.state, gone, self.scores[-1]["score"] if self.scores else None)
