"""A compiled task: what is summed each round, what it costs, and how the server uses the sum.

The coordinator keeps a :class:`TaskState` and broadcasts :meth:`Task.model_bytes`; a site answers with
:meth:`Task.upload`; the decoded sum goes back in through :meth:`Task.update`. Both ends hold the same
task: it travels as :meth:`Task.descriptor`, from which a site recomputes every sensitivity itself.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from privfl.budget import Purpose
from privfl.codec import decode, encode
from privfl.dp import Contribution, LocalReport, Release, assemble, epsilon_for, noised, saturate
from privfl.entropy import Entropy
from privfl.errors import DataError, Malformed, Misuse
from privfl.learn.history import History, Row
from privfl.learn.models import EstimatorRef, fitted, folded
from privfl.learn.planning import Descriptor, Layout, Plan, text_of
from privfl.learn.strategies import Floats, Strategy, StrategyState
from privfl.ring import Ring
from privfl.tasks import Price, Question, SiteData, Sum, costs_of
from privfl.tasks.binding import BoundData
from privfl.tasks.schema import Category, Class, Numeric, Schema

if TYPE_CHECKING:
    from privfl.learn.specs import Spec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Int64s", "Layout", "Plan", "Task", "TaskState"]

Int64s = npt.NDArray[np.int64]

#: Metrics of a round, each in [0, 1] per record (or per site): how many, how many right, loss over its cap.
METRICS = ("count", "correct", "loss")
#: Integer units per 1 of a metric.
METRIC_SCALE = 1 << 12
#: Parameters of one upload at most.
MAX_PARAMETERS = 1 << 26


@dataclass(frozen=True, slots=True, eq=False)
class TaskState:
    """What the coordinator knows between rounds; every value has passed through the noise.

    Attributes:
        round: rounds that have been summed.
        params: float64 ``[d + 1, k]``, last row the intercepts, in public units.
        strategy: state of the optimiser.
        history: one row per round.
    """

    round: int
    params: Floats
    strategy: StrategyState
    history: History


class Task(Question):
    """Base of compiled tasks of training; build one with ``spec.compile`` or :meth:`from_descriptor`."""

    purpose = Purpose.TRAINING

    def __init__(self, spec: Spec, schema: Schema, plan: Plan, strategy: Strategy) -> None:
        self.spec, self.schema, self.plan, self.strategy = spec, schema, plan, strategy

    # -- what is public ------------------------------------------------------------------------------

    @property
    def sites(self) -> int:  # type: ignore[override]
        """How many may upload in one round, at most."""
        return self.plan.sites

    @property
    def title(self) -> str:
        """Kind and label, in public words."""
        return f"{self.kind} {self.spec.label!a}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Features and label."""
        return (*self.features, self.spec.label)

    @property
    def clip(self) -> float | None:
        """The specification's clip norm."""
        return getattr(self.spec, "clip", None)

    def sum_of(self, inputs: bytes) -> Sum:
        """The same in every round; raises Malformed unless ``inputs`` are a model of this task."""
        self.read_model(inputs)
        return Sum(self.ring, self.length, self.release)

    def prices(self) -> Sequence[Price]:
        """All planned uploads."""
        if self.release is None:
            return ()
        return (Price(costs_of(self.release), self.release.trust, self.uploads),)

    @property
    def release(self) -> Release | None:
        """What one upload costs; None only for a task that was asked, by name, to run without noise."""
        return self.plan.release

    @property
    def ring(self) -> Ring:
        """The ring in which uploads are added."""
        return self.plan.ring

    @property
    def uploads(self) -> int:  # type: ignore[override]
        """Uploads planned for each site."""
        return self.plan.rounds

    @property
    def length(self) -> int:
        """Coordinates of one upload, all blocks together."""
        return sum(block.length for block in self.layout())

    @property
    def features(self) -> tuple[str, ...]:
        """Columns the model reads, in order."""
        return self.spec.feature_names(self.schema)

    @property
    def classes(self) -> tuple[Class, ...] | None:
        """Declared classes of the label; None for a number."""
        column = self.schema.columns[self.spec.label]
        return column.classes if isinstance(column, Category) else None

    @property
    def outputs(self) -> int:
        """k: linear predictors; 1 for two classes and for a number."""
        return len(self.classes) if self.classes is not None and len(self.classes) > 2 else 1

    @abstractmethod
    def layout(self) -> tuple[Layout, ...]:
        """The blocks, computed from spec and schema alone: what a site checks the release against."""

    def epsilon_after(self, rounds: int, delta: float | None = None) -> float:
        """ε of ``rounds`` uploads at the plan's δ (or another), rounded up; infinite without noise."""
        if self.release is None:
            return math.inf
        at = delta if delta is not None else self.plan.delta
        return epsilon_for(self.release.cost, rounds, at if at is not None else 0.0)

    def descriptor(self) -> bytes:
        """Everything a site needs, canonically encoded; goes into H0."""
        plan = self.plan
        return Descriptor(
            kind=self.kind,
            schema=self.schema.to_json(),
            spec=self.spec.to_json(),
            epsilon=text_of(plan.epsilon),
            delta=text_of(plan.delta),
            rounds=plan.rounds,
            sites=plan.sites,
            bits=plan.ring.bits,
            word=plan.ring.word,
            strategy=self.strategy.name,
            settings=tuple((key, repr(float(value))) for key, value in self.strategy.settings),
            release=plan.release,
        ).encode()

    @staticmethod
    def from_descriptor(data: bytes) -> Task:
        """Rebuild a task from a peer's bytes.

        Raises:
            Malformed: not a canonical task, or one whose release claims another sensitivity, length or
                bound than its clip norm and bits give.
            Refused: a release that breaks a rule of noise.
        """
        from privfl.learn.rebuild import task_from  # noqa: PLC0415 - the kinds of task build on this module

        return task_from(Descriptor.decode(data))

    # -- the site ------------------------------------------------------------------------------------

    def check(self, data: SiteData | BoundData) -> None:
        """Raise DataError unless ``data`` was bound to this very schema, and read it; before anything is spent."""
        if data.schema != self.schema or data.schema.digest != self.schema.digest:
            raise DataError(
                f"the task is about {self.schema!r} and the data is bound to {data.schema!r}, or their columns "
                f"differ; bind the table to the task's schema after comparing the two"
            )
        _in_memory(data)

    def contribution(
        self, inputs: bytes, data: SiteData | BoundData, entropy: Entropy, *, report: LocalReport | None = None
    ) -> Int64s:
        """The site's exact integer vector, saturated and **without noise**: it must not leave as it is.

        Args:
            inputs: the model, as :meth:`model_bytes` made it.
            data: the site's rows.
            entropy: for randomised rounding, where the construction uses it.
            report: counts for the site's own log, to add to.

        Returns:
            int64 of shape ``(length,)``. No row and no number of rows makes it fail.

        Raises:
            Malformed: ``inputs`` are not a model of this task.
            DataError: the data is bound to another schema.
        """
        self.check(data)
        bound = _in_memory(data)
        _, params = self.read_model(inputs)
        report = LocalReport() if report is None else report
        # Numbers may overflow on odd rows or models; what comes of that is zeroed or clamped, and counted.
        with np.errstate(all="ignore"):
            parts = self._parts(params, bound, entropy, report)
        layout = self.layout()
        if self.release is not None:
            assemble(parts, self.release)  # refuses a contribution that is more sensitive than was charged
        pairs = zip(parts, layout, strict=True)
        return np.concatenate([saturate(part.vector.reshape(-1), block.x_max, report=report) for part, block in pairs])

    def upload(
        self,
        inputs: bytes,
        data: SiteData | BoundData,
        entropy: Entropy,
        *,
        seat: int = 0,
        report: LocalReport | None = None,
    ) -> Int64s:
        """:meth:`contribution` with the site's share of exact noise: ready to be masked; same errors."""
        vector = self.contribution(inputs, data, entropy, report=report)
        return vector if self.release is None else noised(vector, self.release, entropy)

    @abstractmethod
    def _parts(
        self, params: Floats, bound: BoundData, entropy: Entropy, report: LocalReport
    ) -> Sequence[Contribution]: ...

    # -- the coordinator -----------------------------------------------------------------------------

    def initial_state(self) -> TaskState:
        """Round 0: all coefficients zero."""
        params = np.zeros((len(self.features) + 1, self.outputs))
        return TaskState(0, params, self.strategy.init(params), History())

    def model_bytes(self, state: TaskState) -> bytes:
        """The model of this round as canonical bytes for every site."""
        return encode(("model", state.round, state.params.astype("<f8").tobytes()))

    def read_model(self, data: bytes) -> tuple[int, Floats]:
        """Round and parameters of a broadcast model.

        Raises:
            Malformed: not a model, of another shape, or with numbers that are not finite.
        """
        value = decode(data)
        shape = (len(self.features) + 1, self.outputs)
        match value:
            case ("model", int(round_), bytes(raw)) if round_ >= 0 and len(raw) == 8 * shape[0] * shape[1]:
                params = np.frombuffer(raw, dtype="<f8").reshape(shape).astype(np.float64)
            case _:
                raise Malformed(f"this is not a model of {shape[0]} by {shape[1]} parameters")
        if not np.isfinite(params).all():
            raise Malformed("a model must have finite parameters")
        return round_, params

    @abstractmethod
    def update(self, state: TaskState, total: Int64s, survivors: int) -> TaskState:
        """Take a round's decoded sum into the model.

        Args:
            state: before the round.
            total: int64 of shape ``(length,)``, the centred sum.
            survivors: sites in the sum.

        Raises:
            Misuse: wrong shape or type, or no survivor.
        """

    def done(self, state: TaskState) -> str | None:
        """Why to stop before the next round (rounds used up, target met), or None to go on.

        The target is judged by metrics that carry noise already, so looking at it costs nothing.
        """
        if state.round >= self.plan.rounds:
            return f"all {self.plan.rounds} rounds done"
        found = state.history.smoothed("score")
        target = self.spec.target
        if target is not None and found is not None and len(state.history) >= 3 and found[0] - found[1] >= target:
            return f"target reached: noisy score {found[0]:.3f} ± {found[1]:.3f} against {target:g}"
        return None

    @abstractmethod
    def finish(self, state: TaskState) -> Any:
        """The model as a fitted scikit-learn estimator that takes raw features by name."""

    def output(self, state: TaskState) -> Floats:
        """The parameters to hand out: the strategy's average where it keeps one; shape ``[d + 1, k]``."""
        return self.strategy.output(state.params, state.strategy)

    def evaluate(self, state: TaskState, frame: pd.DataFrame) -> Mapping[str, float]:
        """Score and loss of the current model on rows that the coordinator itself holds; exact, not private.

        Raises:
            DataError: the frame does not fit the schema, or has no row with a label.
        """
        bound = self.schema.bind(frame)
        table = self.metrics_of(self.output(state), bound)
        count = float(table[:, 0].sum())
        if count == 0:
            raise DataError("no row of the held-out table has a usable label")
        correct, loss = (float(value) / count for value in table[:, 1:].sum(axis=0))
        return {"records": count, "score": correct, "loss": self.loss_cap * loss}

    @abstractmethod
    def metrics_of(self, params: Floats, bound: BoundData) -> Floats:
        """``[n, 3]``: labelled, right, loss over its cap; every entry in [0, 1], rows without label all zero."""

    @property
    @abstractmethod
    def loss_cap(self) -> float:
        """The public number at which one record's loss is cut."""

    # -- shared by the kinds -------------------------------------------------------------------------

    def _open(self, total: Int64s, survivors: int) -> dict[str, Int64s]:
        if total.dtype != np.int64 or total.shape != (self.length,):
            raise Misuse(f"expected {self.length} int64 coordinates, not {total.dtype} of shape {total.shape}")
        if not 1 <= survivors <= self.plan.sites:
            raise Misuse(f"{survivors} survivors do not fit a task for {self.plan.sites} sites")
        parts, at = {}, 0
        for block in self.layout():
            parts[block.name] = total[at : at + block.length]
            at += block.length
        return parts

    def _row(self, state: TaskState, parts: Mapping[str, Int64s], survivors: int, size: float, norm: float) -> Row:
        if "metrics" not in parts:
            return Row(state.round + 1, survivors, update_norm=norm)
        count, correct, loss = (float(value) / METRIC_SCALE for value in parts["metrics"])
        sd = self._noise("metrics") * math.sqrt(survivors) / METRIC_SCALE / size
        return Row(
            state.round + 1, survivors, count, correct / size, self.loss_cap * loss / size, sd, self.loss_cap * sd, norm
        )

    def _finished(self, reference: EstimatorRef, params: Floats) -> Any:
        """The estimator with ``params`` taken from public units to raw features and the raw label."""
        columns = [self.schema.columns[name] for name in self.features]
        center = np.array([column.center for column in columns if isinstance(column, Numeric)])
        scale = np.array([column.scale for column in columns if isinstance(column, Numeric)])
        coef, intercept = folded(params[:-1].T, params[-1], center, scale)
        label = self.schema.columns[self.spec.label]
        if isinstance(label, Numeric):
            coef, intercept = coef * label.scale, intercept * label.scale + label.center
        return fitted(reference, coef, intercept, self.classes, self.features)

    def _noise(self, name: str) -> float:
        """σ of one site in a block, integer units; 0 without noise."""
        if self.release is None:
            return 0.0
        return next(self.release.sigma_site(block) for block in self.release.blocks if block.name == name)

    def __repr__(self) -> str:
        plan = self.plan
        cost = "no noise" if plan.release is None else f"epsilon {plan.epsilon:g}, delta {plan.delta:g}"
        who = "" if plan.release is None else f", per {plan.release.unit}, trust {plan.release.trust}"
        return (
            f"Task({self.kind} of {self.spec.label!r} on {len(self.features)} features; {plan.rounds} rounds, "
            f"{plan.sites} sites, {cost}{who}; {self.length} x {self.ring.bits} bits)"
        )


def _in_memory(data: SiteData | BoundData) -> BoundData:
    return data.bound if isinstance(data, SiteData) else data
