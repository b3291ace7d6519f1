"""One training run over sites that are ready: what the coordinator's side does from first epoch to fitted model."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from privfl_keys import VerifyKey

from privfl.dp import Release
from privfl.errors import Refused, RoundAborted
from privfl.learn import Task, TaskState
from privfl.runtime.coordinator import CoordinatorNode, MemoryShelf, RoundResult
from privfl.runtime.fit import Fit, PrivacyReport, Transcripts
from privfl.runtime.progress import TrainingProgress
from privfl.runtime.terms import Terms
from privfl.secagg import Transcript
from privfl.wires import MemoryWire

__all__ = ["Observer", "Stage", "TrainingRun"]

log = logging.getLogger("privfl.training")
EPOCH_ROUNDS = 100

#: Called after each round with its number, its result, and the packed vectors by site id in hex.
Observer = Callable[[int, RoundResult, Mapping[str, bytes]], None]


@dataclass(frozen=True)
class Stage:
    """What a run stands on: the coordinator with its wire and shelf, and the sites as it may know them.

    Attributes:
        authority: the key that transcripts are verified against. names: site id → name.
        start: bring up every site under the run's terms, with a fresh account. revive: restart dead ones.
        spent: ε by site name, from the sites' own accounts. past: what earlier runs released, and how often.
    """

    coordinator: CoordinatorNode
    wire: MemoryWire
    shelf: MemoryShelf
    authority: VerifyKey
    names: Mapping[bytes, str]
    start: Callable[[Terms], None]
    revive: Callable[[Terms], object]
    spent: Callable[[], Mapping[str, float]]
    past: Sequence[tuple[Release | None, int]]


class TrainingRun:
    """One run: epochs, rounds, the model that grows from their sums, and what it all cost."""

    def __init__(
        self,
        stage: Stage,
        task: Task,
        terms: Terms,
        complete: bool,
        least: int,
        attempts: int,
        held_out: pd.DataFrame | None,
        observer: Observer | None,
    ) -> None:
        self.stage, self.task, self.terms = stage, task, terms
        self.complete, self.least, self.attempts = complete, least, attempts
        self.held_out, self.observer = held_out, observer
        self.transcripts: list[Transcript] = []
        self.dropped: dict[int, tuple[str, ...]] = {}
        self.scores: list[dict[str, float]] = []
        self.sizes: list[int] = []
        self.charged = 0

    def train(self, bar: TrainingProgress | None) -> Fit:
        started = time.perf_counter()
        stage, task = self.stage, self.task
        stage.start(self.terms)
        state = task.initial_state()
        stopped: str | None = None
        while stopped is None:
            try:
                if state.round % EPOCH_ROUNDS == 0:
                    self._open_epoch()
                state = self._round(state, bar)
            except (RoundAborted, Refused) as error:
                if not self.transcripts:
                    raise
                stopped = f"stopped early: {error}"
                break
            stopped = task.done(state)
            if stopped is None and self.charged >= task.uploads:
                stopped = f"the budget of {task.uploads} uploads is used up, aborted attempts included"
        return Fit(
            task.finish(state),
            state.history,
            PrivacyReport.of(task, self.charged, stage.spent(), stage.past),
            Transcripts(self.transcripts, stage.authority),
            task,
            pd.DataFrame(self.scores),
            self.dropped,
            stopped or "",
            time.perf_counter() - started,
            sum(self.sizes) / max(1, len(self.sizes)),
            task.initial_state().params.size,
        )

    def _open_epoch(self) -> None:
        self.stage.revive(self.terms)
        for site, why in self.stage.coordinator.open_epoch(sorted(self.stage.names)).items():
            log.warning("site %s is not in the epoch: %s", self.stage.names[site], why)

    def _round(self, state: TaskState, bar: TrainingProgress | None) -> TaskState:
        stage, task, number = self.stage, self.task, state.round + 1
        left = min(self.attempts, task.uploads - self.charged)

        def counted(attempt: int) -> None:
            self.charged += 1
            stage.revive(self.terms)

        result = stage.coordinator.run_round(
            task,
            task.model_bytes(state),
            self.terms.hash,
            number,
            complete=self.complete,
            min_survivors=self.least,
            attempts=left,
            on_attempt=counted,
        )
        state = task.update(state, result.total, len(result.survivors))
        self.transcripts.append(result.transcript)
        gone = tuple(stage.names[site] for site in result.dropped)
        if gone:
            self.dropped[number] = gone
        self.sizes += result.upload_bytes.values()
        if self.held_out is not None:
            self.scores.append({"round": number, **task.evaluate(state, self.held_out)})
        if self.observer is not None:
            self.observer(number, result, stage.shelf.bodies(result.transcript.announcement.h0))
        stage.shelf.clear()
        stage.wire.forget_bodies()
        if bar is not None:
            bar.update(state, gone, self.scores[-1]["score"] if self.scores else None)
        return state
