"""A run over sites that are ready: epochs, slots, what was charged, and what is needed to go on after a stop.

What is asked in each slot and what its sum means is the business of a subclass: :class:`TrainingRun` for models,
and whatever other families of questions bring.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from privfl_keys import VerifyKey

from privfl.codec import Record
from privfl.dp import Release
from privfl.errors import Refused, RoundAborted
from privfl.runtime.coordinator import CoordinatorNode, RoundResult
from privfl.secagg import Transcript
from privfl.tasks import Question

__all__ = ["STOPPED_EARLY", "Bar", "Observer", "Outcome", "Resumed", "Run", "RunRecord", "Setting", "Stage"]

log = logging.getLogger("privfl.run")
EPOCH_ROUNDS = 100
STOPPED_EARLY = "stopped early"
NEWCOMERS_AFTER = 3  # rounds of an epoch before a site that came back may start the next one

#: Called after each round with its number, its result, and the packed vectors by site id in hex.
Observer = Callable[[int, RoundResult, Mapping[str, bytes]], None]


class Bar(Protocol):
    """Something that shows how far a run is."""

    def update(self, completed: int, note: str = "") -> None:
        """``completed`` rounds are through."""
        ...


class Outcome(Protocol):
    """What a run leaves behind."""

    @property
    def stopped(self) -> str:
        """Why it ended."""
        ...

    def save(self, folder: str | Path) -> Path:
        """Write it into a folder; raises Misuse if that cannot be written."""
        ...

    def figures(self, name: str) -> dict[str, Any]:
        """The run in a few public figures, with ``stopped_early``."""
        ...


O_co = TypeVar("O_co", bound=Outcome, covariant=True)


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
        min_cell_count: counts below it are not shown in a result (the policy's rule).
        sites_per_subject: at how many sites one subject's rows may be (the policy's assumption).
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
    min_cell_count: int = 1
    sites_per_subject: int = 1


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

    TAG: ClassVar[str] = "run"
    state: bytes
    round: int
    attempt: int  # number of the next attempt of that round
    charged: tuple[tuple[int, int], ...]  # (round, uploads asked for)
    epoch: int  # number of the epoch that this run opened last
    rounds_in_epoch: int
    dropped: tuple[tuple[int, tuple[str, ...]], ...]
    sizes: tuple[int, int]  # total bytes of uploads, and how many


Resumed = tuple[RunRecord, Sequence[Transcript]]
#: Takes a run's record and its newest transcript, before the machine's state is saved together with what it returns.
Journal = Callable[[RunRecord, "Transcript | None"], Mapping[str, "bytes | None"]]


class Run(ABC, Generic[O_co]):
    """One run of one question.

    Args:
        journal: None for a run that ends with its process.
        resumed: the record and transcripts of a run that was stopped.
    """

    def __init__(
        self,
        stage: Stage,
        question: Question,
        setting: Setting,
        observer: Observer | None = None,
        journal: Journal | None = None,
        resumed: Resumed | None = None,
    ) -> None:
        self.stage, self.question, self.setting = stage, question, setting
        self.observer, self._journal = observer, journal
        self.transcripts: list[Transcript] = []
        self.dropped: dict[int, tuple[str, ...]] = {}
        self.sizes = (0, 0)
        self.charges: dict[int, int] = {}
        self.seconds = 0.0
        self._attempt = self._epoch = self._in_epoch = 0
        if resumed is not None:
            record, transcripts = resumed
            self.charges, self._attempt, self.sizes = dict(record.charged), record.attempt, record.sizes
            self._epoch, self._in_epoch = record.epoch, record.rounds_in_epoch
            self.dropped, self.transcripts = dict(record.dropped), list(transcripts)
            self.restore(record.state)

    # -- what a family of questions brings ------------------------------------------------------------

    @property
    @abstractmethod
    def number(self) -> int:
        """Number of the round that comes next, from 1."""

    @abstractmethod
    def inputs(self) -> bytes:
        """What the next round is asked with."""

    @abstractmethod
    def take(self, result: RoundResult) -> None:
        """Take an opened sum in; :attr:`number` goes up by one."""

    @abstractmethod
    def over(self) -> str | None:
        """Why nothing more is to be asked, or None."""

    @abstractmethod
    def dump(self) -> bytes:
        """What has been learned from the sums, for :meth:`restore`."""

    @abstractmethod
    def restore(self, state: bytes) -> None:
        """Take up again what :meth:`dump` wrote."""

    @abstractmethod
    def outcome(self, stopped: str) -> O_co:
        """The result, after the last round."""

    @abstractmethod
    def released(self) -> list[tuple[Release | None, int]]:
        """What was asked for so far, and how often: (release of one upload, uploads)."""

    def score(self) -> float | None:
        """The latest noisy score, where there is one."""
        return None

    def note(self) -> str:
        """A few words about the last round, for a progress bar."""
        return ""

    # -- what is the same for all ---------------------------------------------------------------------

    @property
    def charged(self) -> int:
        """Uploads asked of each site, aborted attempts included."""
        return sum(self.charges.values())

    def record(self) -> RunRecord:
        """The run as it stands."""
        return RunRecord(
            self.dump(),
            self.number,
            self._attempt,
            tuple(sorted(self.charges.items())),
            self._epoch,
            self._in_epoch,
            tuple(sorted(self.dropped.items())),
            self.sizes,
        )

    def run(self, bar: Bar | None = None) -> O_co:
        """Run to the end.

        Raises:
            RoundAborted, Refused: the first round could not be opened; later ones end the run instead.
            WireError, StorageError: as they come.
        """
        started = time.perf_counter()
        self.stage.start()
        stopped = self.over()
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
            stopped = self.over()
            if stopped is None and self.charged >= self.question.uploads:
                stopped = f"the budget of {self.question.uploads} uploads is used up, aborted attempts included"
        self.seconds = time.perf_counter() - started
        return self.outcome(stopped)

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

    def _round(self, bar: Bar | None) -> None:
        stage, number, setting = self.stage, self.number, self.setting
        left = max(0, min(setting.attempts - self._attempt, self.question.uploads - self.charged))

        def counted(attempt: int) -> Mapping[str, bytes | None] | None:
            self.charges[number] = self.charges.get(number, 0) + 1
            self._attempt = attempt + 1
            stage.revive()
            return self._journal(self.record(), None) if self._journal else None

        result = stage.coordinator.run_round(
            self.question,
            self.inputs(),
            setting.policy,
            number,
            complete=setting.complete,
            min_survivors=setting.least,
            attempts=left,
            first=self._attempt,
            mandate=setting.mandate,
            on_attempt=counted,
        )
        self.take(result)
        self._attempt, self._in_epoch = 0, self._in_epoch + 1
        self.transcripts.append(result.transcript)
        gone = tuple(stage.names[site] for site in result.dropped)
        if gone:
            self.dropped[number] = gone
        self.sizes = (self.sizes[0] + sum(result.upload_bytes.values()), self.sizes[1] + len(result.upload_bytes))
        if self.observer is not None:
            self.observer(number, result, stage.bodies(result.transcript.announcement.h0))
        stage.coordinator.save(self._journal(self.record(), result.transcript) if self._journal else None)
        stage.tidy()
        if bar is not None:
            said = [self.note(), f"without {', '.join(gone)}" if gone else ""]
            bar.update(number, "  ".join(text for text in said if text))
