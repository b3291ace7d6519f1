"""A study over sites that are ready: one slot for each stage, and the result with its proof."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from privfl.dp import Release
from privfl.runtime.coordinator import RoundResult
from privfl.runtime.fit import Transcripts, replace_results
from privfl.runtime.run import STOPPED_EARLY, Journal, Observer, Resumed, Run, Setting, Stage
from privfl_analytics.answer import Answer
from privfl_analytics.opened import History
from privfl_analytics.question import StudyQuestion
from privfl_analytics.result import StudyResult

__all__ = ["Findings", "StudyRun"]


@dataclass(frozen=True)
class Findings(StudyResult):
    """A study's result with what its run leaves behind.

    Attributes:
        transcript: proof of every stage's sum; ``transcript.verify()`` needs no secret.
        dropped: stage, from 1 → names of sites missing from its sum.
        stopped: why the run ended. seconds: wall time. upload_bytes: mean bytes of one upload, everything included.
        spent: ε by site, from each site's own account, where it can be seen from here.
        sums: the opened rounds, noise in them, from which the answers can be decoded again.
    """

    transcript: Transcripts | None = None
    dropped: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    stopped: str = ""
    seconds: float = 0.0
    upload_bytes: float = 0.0
    spent: Mapping[str, float] = field(default_factory=dict)
    sums: bytes = b""

    def save(self, folder: str | Path) -> Path:
        """Write answers, a report and the transcripts into ``folder``; an earlier run's results there are replaced.

        Raises:
            Misuse: the folder cannot be written.
        """

        def write(target: Path) -> None:
            StudyResult.save(self, target)
            (target / "opened.sums").write_bytes(self.sums)
            if self.transcript is not None:
                self.transcript.save(target / "transcripts")

        return replace_results(Path(folder), write)

    def figures(self, name: str) -> dict[str, Any]:
        """The run in a few public figures."""
        finite = self.privacy.epsilon is not None and math.isfinite(self.privacy.epsilon)
        return {
            "name": name,
            "rounds": len(self.survivors),
            "stopped": self.stopped,
            "stopped_early": self.stopped.startswith(STOPPED_EARLY),
            "dropped": {str(number): list(names) for number, names in self.dropped.items()},
            "survivors": list(self.survivors),
            "epsilon": self.privacy.epsilon if finite else None,
            "delta": self.privacy.delta,
            "uploads": self.privacy.uploads,
            "seconds": round(self.seconds, 3),
            "upload_bytes": self.upload_bytes,
        }

    def __repr__(self) -> str:
        return StudyResult.__repr__(self)

    def _repr_html_(self) -> str:
        return StudyResult._repr_html_(self)


class StudyRun(Run[Findings]):
    """One round for each stage of a compiled study."""

    def __init__(
        self,
        stage: Stage,
        question: StudyQuestion,
        setting: Setting,
        observer: Observer | None = None,
        journal: Journal | None = None,
        resumed: Resumed | None = None,
    ) -> None:
        self.study, self.history = question, History()
        super().__init__(stage, question, setting, observer, journal, resumed)

    @property
    def number(self) -> int:
        """See :class:`privfl.runtime.run.Run`."""
        return len(self.history) + 1

    def inputs(self) -> bytes:
        """What the stages so far decided."""
        inputs = self.study.next_inputs(self.history)
        assert inputs is not None
        return inputs

    def take(self, result: RoundResult) -> None:
        """Keep an opened stage."""
        places = {site: at for at, site in enumerate(sorted(self.stage.coordinator.machine.party.roster.site_ids))}
        own = bool(self.study.sum_at(len(self.history)).own)
        seats = [places[site] for site in result.survivors] if own else []
        total = np.asarray(result.total)
        opened = self.study.opened(len(self.history), total, len(result.survivors), seats)
        self.history = self.history.add(opened)

    def over(self) -> str | None:
        """Whether every stage is through."""
        stages = self.study.stages
        return f"all {stages} round(s) done" if len(self.history) >= stages else None

    def dump(self) -> bytes:
        """The opened stages."""
        return self.history.encode()

    def restore(self, state: bytes) -> None:
        """Take up the opened stages; raises Malformed for anything else."""
        self.history = History.decode(state)

    def released(self) -> list[tuple[Release | None, int]]:
        """Every stage's release, and how often it was asked for."""
        return [(self.study.release(at - 1), times) for at, times in sorted(self.charges.items())]

    def outcome(self, stopped: str) -> Findings:
        """The answers; of a run that ended early, of the queries that were through."""
        stage = self.stage
        charged = [self.charges.get(at + 1, 0) for at in range(self.study.stages)]
        found = self.study.decode(self.history, min_cell_count=stage.min_cell_count, charged=charged, partial=True)
        return Findings(
            found.study,
            {name: self._with_names(answer) for name, answer in found.answers.items()},
            found.privacy,
            found.survivors,
            Transcripts(self.transcripts, stage.authority),
            self.dropped,
            stopped,
            self.seconds,
            self.sizes[0] / max(1, self.sizes[1]),
            dict(stage.spent()),
            self.history.encode(),
        )

    def _with_names(self, answer: Answer) -> Answer:
        """Sites by their names in the roster, where an answer tells them apart; decoding knows their places only."""
        numbers = answer.details.get("sites")
        own = [opened for opened in self.history if self.study.sum_at(opened.stage).own]
        if not numbers or not own:
            return answer
        order = sorted(self.stage.coordinator.machine.party.roster.site_ids)
        names = {str(at + 1): self.stage.names[order[seat]] for at, seat in enumerate(sorted(own[0].seats))}
        rows = tuple(
            replace(
                row, at={key: names.get(str(cell), cell) if key == "site" else cell for key, cell in row.at.items()}
            )
            for row in answer.rows
        )
        notes = tuple(note for note in answer.notes if "order of their seats" not in note)
        details = {**answer.details, "sites": [names.get(str(one), one) for one in numbers]}
        return replace(answer, rows=rows, notes=notes, details=details)
