"""One training run: the model that grows from the rounds' sums."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from privfl.codec import decode, encode
from privfl.dp import Release
from privfl.errors import Malformed
from privfl.learn import Task
from privfl.learn.checkpoint import dump_state, load_state
from privfl.runtime.coordinator import RoundResult
from privfl.runtime.fit import Fit, PrivacyReport, Transcripts
from privfl.runtime.run import STOPPED_EARLY, Journal, Observer, Resumed, Run, RunRecord, Setting, Stage

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["STOPPED_EARLY", "Observer", "RunRecord", "Setting", "Stage", "TrainingRun"]


class TrainingRun(Run[Fit]):
    """Rounds of training on one task; ``held_out`` are rows that the coordinator holds itself."""

    TAG: ClassVar[str] = "training"

    def __init__(
        self,
        stage: Stage,
        task: Task,
        setting: Setting,
        held_out: pd.DataFrame | None = None,
        observer: Observer | None = None,
        journal: Journal | None = None,
        resumed: Resumed | None = None,
    ) -> None:
        self.task, self.held_out = task, held_out
        self.state = task.initial_state()
        self.scores: list[dict[str, float]] = []
        super().__init__(stage, task, setting, observer, journal, resumed)

    @property
    def number(self) -> int:
        """See :class:`~privfl.runtime.run.Run`."""
        return self.state.round + 1

    def inputs(self) -> bytes:
        """The model."""
        return self.task.model_bytes(self.state)

    def take(self, result: RoundResult) -> None:
        """Take a round's sum into the model."""
        number = self.number
        self.state = self.task.update(self.state, np.asarray(result.total), len(result.survivors))
        if self.held_out is not None:
            self.scores.append({"round": number, **self.task.evaluate(self.state, self.held_out)})

    def over(self) -> str | None:
        """See :meth:`privfl.learn.Task.done`."""
        return self.task.done(self.state)

    def dump(self) -> bytes:
        """Model, optimiser, history, and exact scores on rows that the coordinator holds."""
        return encode((self.TAG, dump_state(self.task, self.state), json.dumps(self.scores)))

    def restore(self, state: bytes) -> None:
        """Take up what :meth:`dump` wrote; raises Malformed for anything else."""
        match decode(state):
            case (self.TAG, bytes(model), str(scores)):
                self.state, self.scores = load_state(self.task, model), json.loads(scores)
            case _:
                raise Malformed("this is not the record of a training run")

    def released(self) -> list[tuple[Release | None, int]]:
        """See :class:`~privfl.runtime.run.Run`."""
        return [(self.task.release, self.charged)]

    def score(self) -> float | None:
        """The noisy score of the last rounds."""
        found = self.state.history.smoothed()
        return None if found is None else found[0]

    def note(self) -> str:
        """The score of the last round."""
        if self.scores:
            return f"held-out {self.scores[-1]['score']:.3f}"
        found = self.state.history.smoothed()
        return "" if found is None else f"score {found[0]:.3f} ± {found[1]:.3f}"

    def outcome(self, stopped: str) -> Fit:
        """The fitted model and what it cost."""
        import pandas as pd  # noqa: PLC0415 - slow to load, and seldom needed

        stage, task = self.stage, self.task
        return Fit(
            task.finish(self.state),
            self.state.history,
            PrivacyReport.of(task, self.charged, stage.spent(), stage.past, stage.sites_per_subject),
            Transcripts(self.transcripts, stage.authority),
            task,
            pd.DataFrame(self.scores),
            self.dropped,
            stopped,
            self.seconds,
            self.sizes[0] / max(1, self.sizes[1]),
            task.initial_state().params.size,
        )
