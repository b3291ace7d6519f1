"""One run of an app's training: the model goes out, weighted means of what the sites made of it come back.

What is asked in a round, and what is made of the means, is a :class:`Server`'s business: the strategy of the app's
own server, behind :mod:`privfl.flower`. Here nothing is known of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from privfl.codec import decode, encode
from privfl.dp import Release
from privfl.errors import Malformed, Misuse
from privfl.learn.update_inputs import Arrays, Ask
from privfl.learn.updates import Opened, UpdateQuestion
from privfl.runtime.coordinator import RoundResult
from privfl.runtime.fit import PrivacyReport, Transcripts, replace_results
from privfl.runtime.run import STOPPED_EARLY, Journal, Observer, Resumed, Run, Setting, Stage
from privfl.runtime.update_report import releases_of, report_of

__all__ = ["Numbers", "Server", "Step", "UpdateFit", "UpdateRow", "UpdateRun"]

#: Metrics by name: a number, or a list of numbers.
Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """What a server made of a round: the next model, and metrics as its own functions aggregated them.

    ``evaluated`` belongs to the model *before* this round, ``trained`` to the round.
    """

    arrays: Arrays
    trained: Numbers | None = None
    evaluated: Numbers | None = None


class Server(Protocol):
    """The app's own server as a run needs it."""

    def asks(self, number: int, arrays: Arrays) -> tuple[Ask | None, Ask | None]:
        """The calls of training and evaluation of slot ``number``; without the first, only metrics are asked for."""
        ...

    def take(self, number: int, arrays: Arrays, opened: Opened) -> Step:
        """Take a slot's means in; ``arrays`` is the model that was sent out."""
        ...

    def held(self, number: int, arrays: Arrays) -> Numbers | None:
        """What it finds itself of the model after round ``number``; may be slow, and raise whatever it likes."""
        ...

    def dump(self) -> bytes:
        """What it remembers between rounds."""
        ...

    def restore(self, state: bytes) -> None:
        """Take up what :meth:`dump` wrote; raises Malformed for anything else."""
        ...


@dataclass(frozen=True)
class UpdateRow:
    """One model's public figures. Row 0 is of the first model, before any training.

    Attributes:
        round: after which the model stood. survivors: sites in that round's sum. examples: sum of their capped
            numbers of examples, with noise. norm: of the mean change. train: metrics of the training that led to it.
        evaluate: metrics of this very model at the sites, measured in the *next* slot. held: at the server.
        train_sd, evaluate_sd: standard deviation of the noise on the declared metrics.
    """

    round: int
    survivors: int = 0
    examples: float = 0.0
    norm: float = 0.0
    train: Numbers | None = None
    evaluate: Numbers | None = None
    held: Numbers | None = None
    train_sd: Numbers = field(default_factory=dict)
    evaluate_sd: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class UpdateFit:
    """The result of a run.

    Attributes:
        arrays: the last model. history: one row per model. privacy, transcript: what it cost, and the proof.
        dropped: round → names of sites missing from its sum. stopped: why it ended. seconds: wall time.
        upload_bytes: mean bytes of one upload. parameters: of the model.
    """

    arrays: Arrays
    history: Sequence[UpdateRow]
    privacy: PrivacyReport
    transcript: Transcripts
    dropped: Mapping[int, tuple[str, ...]]
    stopped: str
    seconds: float
    upload_bytes: float
    parameters: int

    def figures(self, name: str) -> dict[str, Any]:
        """The run in a few public figures."""
        last = self.history[-1]
        return {
            "name": name,
            "rounds": last.round,
            "stopped": self.stopped,
            "stopped_early": self.stopped.startswith(STOPPED_EARLY),
            "dropped": {str(number): list(names) for number, names in self.dropped.items()},
            "train": last.train,
            "evaluate": next((row.evaluate for row in reversed(self.history) if row.evaluate), None),
            "seconds": round(self.seconds, 3),
            "upload_bytes": self.upload_bytes,
            "parameters": self.parameters,
            "uploads": self.privacy.uploads,
        }

    def save(self, folder: str | Path) -> Path:
        """Write model (``.npz``), history, privacy report and transcripts into ``folder``, without pickle.

        Raises:
            Misuse: the folder cannot be written.
        """
        return replace_results(Path(folder), self._write)

    def _write(self, target: Path) -> None:
        names = {f"array-{place:05d}": array for place, array in enumerate(self.arrays.values())}
        np.savez(target / "model.npz", allow_pickle=False, **names)
        (target / "arrays.json").write_text(json.dumps(list(self.arrays), indent=2) + "\n", encoding="utf-8")
        rows = [_plain(row) for row in self.history]
        (target / "history.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        report = {
            "epsilon": _finite(self.privacy.epsilon),
            "delta": self.privacy.delta,
            "uploads": self.privacy.uploads,
            "unit": self.privacy.unit,
            "trust": self.privacy.trust,
            "words": self.privacy.words,
            "runs": self.privacy.runs,
        }
        (target / "privacy.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        self.transcript.save(target / "transcripts")


class UpdateRun(Run[UpdateFit]):
    """Rounds of an app's training, from ``arrays`` on."""

    TAG: ClassVar[str] = "update run"

    def __init__(
        self,
        stage: Stage,
        question: UpdateQuestion,
        setting: Setting,
        server: Server,
        arrays: Arrays,
        observer: Observer | None = None,
        journal: Journal | None = None,
        resumed: Resumed | None = None,
    ) -> None:
        self.update, self.server, self.arrays = question, server, arrays
        self.history = [UpdateRow(0)]
        self._seen = -1  # the newest model that the server has looked at itself
        self._next = 1
        self._asked: tuple[int, bytes] = (0, b"")
        super().__init__(stage, question, setting, observer, journal, resumed)

    @property
    def number(self) -> int:
        """See :class:`~privfl.runtime.run.Run`."""
        return self._next

    def inputs(self) -> bytes:
        """The model and both calls; the server is asked once per round."""
        if self._asked[0] != self.number:
            train, evaluate = self.server.asks(self.number, self.arrays)
            self._asked = self.number, self.update.encode_inputs(self.number, self.arrays, train, evaluate)
        return self._asked[1]

    def take(self, result: RoundResult) -> None:
        """Take a slot's sum in."""
        number, survivors = self.number, len(result.survivors)
        opened = self.update.opened(self.inputs(), np.asarray(result.total), survivors)
        step = self.server.take(number, self.arrays, opened)
        before = self.history[-1]
        self.history[-1] = _with(before, evaluate=step.evaluated, evaluate_sd=opened.evaluate_sd)
        if number <= self.update.rounds:
            norm = math.hypot(*(float(np.linalg.norm(part)) for part in (opened.change or {}).values()))
            row = UpdateRow(number, survivors, opened.examples, norm, step.trained, train_sd=opened.train_sd)
            self.history.append(row)
        self.arrays = self._kept(step.arrays)
        self._next = number + 1

    def _kept(self, arrays: Arrays) -> Arrays:
        """The next model in the types of the first; raises Misuse if it is another kind of model."""
        kept: Arrays = {}
        for shape in self.update.spec.arrays:
            array = np.asarray(arrays.get(shape.name))
            if array.shape != shape.shape or len(arrays) != len(self.update.spec.arrays):
                raise Misuse("the strategy made a model with other arrays than the first one's; keep names and shapes")
            whole = np.dtype(shape.dtype).kind in "iu" and array.dtype.kind == "f"
            kept[shape.name] = (np.rint(array) if whole else array).astype(shape.dtype)
        return kept

    def over(self) -> str | None:
        """See :class:`~privfl.runtime.run.Run`.

        Here the server looks at the new model itself: what was learned is durable by now, and lost by no fault of it.
        """
        row = self.history[-1]
        if self._seen < row.round:
            held = row.held if row.held is not None else self.server.held(row.round, self.arrays)
            self.history[-1], self._seen = _with(row, held=held), row.round
        if self.number > self.update.rounds + self.update.final:
            return f"all {self.update.rounds} rounds done"
        return None

    def dump(self) -> bytes:
        """Model, metrics, and what the server remembers."""
        raw = tuple(np.ascontiguousarray(array).tobytes() for array in self.arrays.values())
        rows = json.dumps([_plain(row) for row in self.history])
        return encode((self.TAG, self._next, raw, rows, self.server.dump()))

    def restore(self, state: bytes) -> None:
        """Take up what :meth:`dump` wrote; raises Malformed for anything else."""
        shapes = self.update.spec.arrays
        match decode(state):
            case (self.TAG, int(number), tuple(raw), str(rows), bytes(server)) if len(raw) == len(shapes):
                parts = zip(shapes, (part for part in raw if isinstance(part, bytes)), strict=True)
                self.arrays = {s.name: np.frombuffer(part, dtype=s.dtype).reshape(s.shape) for s, part in parts}
                self._next, self.history = number, [UpdateRow(**row) for row in json.loads(rows)]
                self.server.restore(server)
            case _:
                raise Malformed("this is not the record of an app's training")

    def released(self) -> list[tuple[Release | None, int]]:
        """See :class:`~privfl.runtime.run.Run`."""
        return releases_of(self.update, self.charges)

    def note(self) -> str:
        """The newest metrics."""
        row = self.history[-1]
        found = row.train or self.history[-2].evaluate if len(self.history) > 1 else None
        return "  ".join(f"{name} {value:.3f}" for name, value in (found or {}).items() if isinstance(value, float))

    def outcome(self, stopped: str) -> UpdateFit:
        """The model and what it cost."""
        return UpdateFit(
            self.arrays,
            tuple(self.history),
            report_of(self.update, self.released(), self.stage),
            Transcripts(self.transcripts, self.stage.authority),
            self.dropped,
            stopped,
            self.seconds,
            self.sizes[0] / max(1, self.sizes[1]),
            self.update.spec.length,
        )


def _with(row: UpdateRow, **changes: Any) -> UpdateRow:
    return UpdateRow(**{**_plain(row), **changes})


def _plain(row: UpdateRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in UpdateRow.__dataclass_fields__}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
