"""What a data scientist asks for: frozen task specifications, and their compilation into tasks.

A specification says nothing of budget or sites; ``compile`` adds those and fixes every public number.
All defaults below are constants: none is computed from rows.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from privfl.dp import Block, Release, Trust, Unit, mu2_per_upload, sigma_of_mu2
from privfl.errors import BudgetExceeded, DataError, Malformed, Misuse, Refused
from privfl.learn.averaging import AveragingTask
from privfl.learn.glm import GlmTask
from privfl.learn.models import EstimatorRef, template
from privfl.learn.schema import Category, Declared, Numeric, Schema
from privfl.learn.strategies import Strategy, adam, from_settings, momentum, sgd, tail_averaged
from privfl.learn.tasks import MAX_PARAMETERS, Descriptor, Layout, Plan, Task
from privfl.ring import Ring

__all__ = ["Averaging", "Linear", "Logistic", "Spec", "task_from"]

#: Signal over noise of a whole run (see :func:`signal_to_noise`) beyond which more steps do not help.
SIGNAL_CAP = 100.0
#: Signal over noise of a whole run below which a model would be noise only.
LEAST_SIGNAL = 0.25

Share = Annotated[float, Field(ge=0, lt=0.9)]
Positive = Annotated[float, Field(gt=0)]


class Spec(Declared, ABC):
    """Common to all specifications.

    Args:
        label: column to predict.
        features: numeric columns to use; by default all but the label.
        metrics: share of each round's μ² for the noisy count, score and loss; 0 leaves them out.
        target: stop early when the noisy score is above this by a standard deviation.
    """

    UNIT: ClassVar[Unit]

    kind: str
    label: str
    features: tuple[str, ...] | None = None
    metrics: Share = 0.05
    target: float | None = None

    def feature_names(self, schema: Schema) -> tuple[str, ...]:
        """The columns read, in order."""
        if self.features is not None:
            return self.features
        return tuple(name for name in schema.numeric if name != self.label)

    def to_json(self) -> str:
        """The specification as JSON text."""
        return self.model_dump_json()

    def check(self, schema: Schema) -> None:
        """Raise DataError unless the schema has the label, of the right kind, and every feature."""
        complaints = []
        column = schema.columns.get(self.label)
        if column is None:
            complaints.append(f"it declares no label {self.label!r} (columns: {', '.join(schema.columns)})")
        elif not isinstance(column, self._label_kinds()):
            need = " or ".join("a category" if kind is Category else "a number" for kind in self._label_kinds())
            complaints.append(f"the label {self.label!r} must be {need} for {type(self).__name__}")
        names = self.feature_names(schema)
        complaints += [f"feature {name!r} is not a numeric column" for name in names if name not in schema.numeric]
        if self.label in names:
            complaints.append(f"the label {self.label!r} cannot be a feature")
        if not names or len(set(names)) != len(names):
            complaints.append("features must be at least one, and none twice")
        if complaints:
            raise DataError(f"{schema!r} does not fit the task: " + "; ".join(complaints))

    @abstractmethod
    def _label_kinds(self) -> tuple[type[Category] | type[Numeric], ...]: ...

    @abstractmethod
    def compile(
        self,
        schema: Schema,
        *,
        epsilon: float | None,
        delta: float | None,
        sites: int,
        rounds: int = 30,
        trust: Trust | str = Trust.DISTRIBUTED,
        unit: Unit | str | None = None,
        min_survivors: int | None = None,
        colluders: int = 1,
        bits: int | None = None,
    ) -> Task:
        """Fix every public number of a run.

        Args:
            schema: the federation's columns and declared size.
            epsilon, delta: total for all rounds, for every site's records (or sites).
            sites: how many upload per round, at most.
            rounds: uploads per site, repeated attempts included.
            trust: ``distributed`` shares the noise among sites, ``local`` has each site bring all of it.
            unit: must be the unit the task protects; checked, for callers that were given one by name.
            min_survivors: fewest sites whose sum may be opened; by default all but one.
            colluders: sites that may side with the coordinator (``distributed``).
            bits: width of the ring, if it is fixed; by default the least that holds the sum.

        Raises:
            DataError: the schema lacks the label or a feature.
            BudgetExceeded: the budget is too small for one useful round.
            Refused: too few honest shares of noise, σ below 4 units, or a ring too small for the sum.
            Misuse: anything else out of range.
        """


class _Glm(Spec):
    UNIT = Unit.RECORD

    clip: Positive = 0.3
    l2: Annotated[float, Field(ge=0)] = 3e-4
    optimiser: Literal["momentum", "adam", "sgd"] = "momentum"
    rate: Positive | None = None
    beta: Share = 0.5
    average: Annotated[float, Field(ge=0, le=1)] = 0.5
    feature_bits: Annotated[int, Field(ge=1, le=24)] = 8
    residual_bits: Annotated[int, Field(ge=1, le=24)] = 10

    def _steps(self, schema: Schema) -> float:
        """How far a run may go at full signal, in steps of clip-normalised gradients."""
        column = schema.columns[self.label]
        return float(len(column.classes)) if isinstance(column, Category) else 0.5

    def compile(
        self,
        schema: Schema,
        *,
        epsilon: float | None,
        delta: float | None,
        sites: int,
        rounds: int = 30,
        trust: Trust | str = Trust.DISTRIBUTED,
        unit: Unit | str | None = None,
        min_survivors: int | None = None,
        colluders: int = 1,
        bits: int | None = None,
    ) -> Task:
        self.check(schema)
        _same_unit(unit, self.UNIT)
        if epsilon is None or delta is None:
            raise Misuse(f"{type(self).__name__} protects records and needs epsilon and delta")
        _check_sizes(rounds, sites)
        draft = GlmTask(self, schema, Plan(epsilon, delta, rounds, sites, None, Ring.of(64)), sgd(1.0))
        if draft.length > MAX_PARAMETERS:
            raise Misuse(f"{draft.length} parameters are more than the {MAX_PARAMETERS} that fit one upload")
        mu2 = mu2_per_upload(epsilon, delta, rounds)
        release = _release(draft.layout(), mu2, self.metrics, self.UNIT, trust, sites, min_survivors, colluders)
        signal = signal_to_noise(draft.layout()[0], release, schema.records, sites, rounds)
        if signal < LEAST_SIGNAL:
            raise BudgetExceeded(
                f"the budget is too small for one round: at epsilon {epsilon:g} the noise is {1 / signal:.0f} times "
                f"what {schema.records} records can say together; raise epsilon, or join more records"
            )
        ring = _ring(draft.layout(), _site_noise(release), sites, bits)
        plan = Plan(epsilon, delta, rounds, sites, release, ring)
        return GlmTask(self, schema, plan, self._strategy(schema, signal, rounds))

    def _strategy(self, schema: Schema, signal: float, rounds: int) -> Strategy:
        """The optimiser with its public rate: steps add up to as far as the signal stands above the noise."""
        reach = min(signal, SIGNAL_CAP) / rounds
        if self.optimiser == "adam":
            inner = adam(self.rate or min(0.1, reach / 10))
        else:
            rate = self.rate or self._steps(schema) * reach / self.clip
            inner = sgd(rate) if self.optimiser == "sgd" else momentum(rate, self.beta)
        return tail_averaged(inner, math.floor(rounds * (1 - self.average))) if self.average else inner


class Logistic(_Glm):
    """Logistic regression, two classes or more, with record-level privacy.

    Args:
        clip: C, bound of one record's gradient (features in public units times residual).
        l2: pull of the coefficients towards zero, per record.
        optimiser, beta: server optimiser; ``beta`` is the memory of momentum.
        rate: step length; by default ``classes·min(signal/noise, 100)/(rounds·clip)``, all public.
        average: last part of the rounds whose iterates are averaged into the model.
        feature_bits, residual_bits: fixed point.
        loss_cap: a record's loss is cut here in metrics; by default ``2·log(classes)``.

    >>> Logistic(label="malignant", clip=0.5)
    Logistic(label='malignant', clip=0.5)
    """

    kind: Literal["logistic"] = "logistic"
    loss_cap: Positive | None = None

    def _label_kinds(self) -> tuple[type[Category] | type[Numeric], ...]:
        return (Category,)


class Linear(_Glm):
    """Linear regression by squared loss, with record-level privacy; the label is centred and scaled in public.

    Args:
        tolerance: a prediction within this of the truth counts as right, in units of the label's scale.
        loss_cap: squared errors are cut here in metrics, in squared units of the label's scale; default 4.
    """

    kind: Literal["linear"] = "linear"
    clip: Positive = 1.0
    loss_cap: Positive | None = None
    tolerance: Positive = 0.5

    def _label_kinds(self) -> tuple[type[Category] | type[Numeric], ...]:
        return (Numeric,)


class Averaging(Spec):
    """Federated averaging of a scikit-learn estimator with ``coef_`` and ``intercept_``; protects whole sites.

    Each site fits the estimator on its rows from the round's model and uploads its change, clipped as one
    vector. A site whose rows cannot be fitted (one class only, say) contributes zero.

    Args:
        estimator: unfitted; a linear model of scikit-learn with plain parameters.
        clip: bound of a site's change of the coefficients, in public units.
        passes: passes over the local rows per round, for estimators with ``partial_fit``.
        rate: part of the mean change that the server takes.
        scale_bits: fixed point of the uploaded change.
        tolerance: as in :class:`Linear`, where the label is a number.
        unprotected: no noise at all. Secure aggregation still hides each site's change, but the result
            itself has no differential privacy; this must be asked for by this name.
    """

    UNIT = Unit.SITE

    kind: Literal["averaging"] = "averaging"
    estimator: EstimatorRef
    clip: Positive = 1.0
    passes: Annotated[int, Field(ge=1, le=1000)] = 1
    rate: Positive = 1.0
    unprotected: bool = False
    scale_bits: Annotated[int, Field(ge=4, le=40)] = 16
    tolerance: Positive = 0.5

    @field_validator("estimator", mode="before")
    @classmethod
    def _reference(cls, estimator: Any) -> Any:
        if isinstance(estimator, EstimatorRef | Mapping):
            return estimator
        return EstimatorRef.of(estimator)

    def _label_kinds(self) -> tuple[type[Category] | type[Numeric], ...]:
        return (Category, Numeric)

    def compile(
        self,
        schema: Schema,
        *,
        epsilon: float | None,
        delta: float | None,
        sites: int,
        rounds: int = 30,
        trust: Trust | str = Trust.DISTRIBUTED,
        unit: Unit | str | None = None,
        min_survivors: int | None = None,
        colluders: int = 1,
        bits: int | None = None,
    ) -> Task:
        self.check(schema)
        _same_unit(unit, self.UNIT)
        _check_sizes(rounds, sites)
        label = schema.columns[self.label]
        template(self.estimator, label.classes if isinstance(label, Category) else None, self.feature_names(schema))
        if self.unprotected:
            if epsilon is not None:
                raise Misuse("unprotected averaging has no epsilon: pass epsilon=None, or drop unprotected")
            plan = Plan(None, None, rounds, sites, None, Ring.of(64))
            layout = AveragingTask(self, schema, plan, sgd(self.rate)).layout()
            plan = Plan(None, None, rounds, sites, None, _ring(layout, {}, sites, bits))
            return AveragingTask(self, schema, plan, sgd(self.rate))
        if epsilon is None or delta is None:
            raise Misuse("averaging protects sites and needs epsilon and delta; unprotected=True runs without noise")
        draft = AveragingTask(self, schema, Plan(epsilon, delta, rounds, sites, None, Ring.of(64)), sgd(self.rate))
        mu2 = mu2_per_upload(epsilon, delta, rounds)
        release = _release(draft.layout(), mu2, self.metrics, self.UNIT, trust, sites, min_survivors, colluders)
        ring = _ring(draft.layout(), _site_noise(release), sites, bits)
        return AveragingTask(self, schema, Plan(epsilon, delta, rounds, sites, release, ring), sgd(self.rate))


_SPECS: Mapping[str, type[Logistic] | type[Linear] | type[Averaging]] = {
    "logistic": Logistic,
    "linear": Linear,
    "averaging": Averaging,
}


def task_from(told: Descriptor) -> Task:
    """Rebuild a task from a peer's descriptor; see :meth:`privfl.learn.tasks.Task.from_descriptor`."""
    kind = _SPECS.get(told.kind)
    if kind is None:
        raise Malformed(f"there is no task of kind {told.kind!r}; the peer may run another version")
    try:
        schema, spec = Schema.from_json(told.schema), kind(**json.loads(told.spec))
        spec.check(schema)
        plan = Plan(
            _number(told.epsilon),
            _number(told.delta),
            told.rounds,
            told.sites,
            told.release,
            Ring(told.bits, told.word),
        )
        _check_sizes(told.rounds, told.sites)
        strategy = from_settings(told.strategy, tuple((key, float(text)) for key, text in told.settings))
        maker = AveragingTask if isinstance(spec, Averaging) else GlmTask
        task: Task = maker(spec, schema, plan, strategy)
        layout = task.layout()
    except (Misuse, ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"the task's descriptor does not hold together: {error}") from None
    _recompute(task, layout)
    if task.descriptor() != told.encode():
        raise Malformed("the task's descriptor is not in its canonical form")
    return task


def _recompute(task: Task, layout: Sequence[Layout]) -> None:
    """Hold a peer's release against what spec and schema give; the noise itself is priced by the site's budget."""
    release = task.release
    if release is None:
        if not (isinstance(task.spec, Averaging) and task.spec.unprotected):
            raise Malformed("the task has no noise although its specification does not allow that by name")
        return
    told = [(block.name, block.length, block.delta2, block.x_max, block.dithered) for block in release.blocks]
    own = [(block.name, block.length, block.delta2, block.x_max, False) for block in layout]
    if told != own or release.unit is not task.spec.UNIT:
        raise Malformed("the task's release claims another unit, length, bound or sensitivity than its settings give")


def signal_to_noise(block: Layout, release: Release, records: int, sites: int, rounds: int) -> float:
    """√rounds · records·Δ / (σ of the summed noise · √length): how far a whole run can stand above its noise."""
    noise = release.sigma_site(release.blocks[0]) * math.sqrt(sites * block.length)
    return math.sqrt(rounds) * records * math.sqrt(block.delta2) / noise


def _release(
    layout: Sequence[Layout],
    mu2: Fraction,
    metrics: float,
    unit: Unit,
    trust: Trust | str,
    sites: int,
    min_survivors: int | None,
    colluders: int,
) -> Release:
    fewest = min_survivors if min_survivors is not None else max(sites - 1, min(sites, colluders + 2))
    if not 1 <= fewest <= sites or colluders < 0:
        raise Misuse(f"min_survivors {fewest} and {colluders} colluders do not fit {sites} sites")
    shares = {"metrics": Fraction(metrics)}
    blocks = []
    for part in layout:
        share = shares.get(part.name, 1 - Fraction(metrics))
        sigma = sigma_of_mu2(mu2 * share, part.delta2)
        blocks.append(Block(part.name, part.length, part.delta2, part.x_max, sigma))
    try:
        kind = Trust(trust)
    except ValueError:
        raise Misuse(f"trust is {trust!r}; choose {' or '.join(Trust)}") from None
    return Release(unit, kind, tuple(blocks), fewest, colluders)


def _site_noise(release: Release) -> dict[str, float]:
    return {block.name: release.sigma_site(block) for block in release.blocks}


def _ring(layout: Sequence[Layout], sigmas: Mapping[str, float], sites: int, bits: int | None) -> Ring:
    """The least ring for every block, or the one asked for if it is wide enough."""
    least = max(Ring.fit(sites, part.x_max, sigmas.get(part.name, 0.0)).bits for part in layout)
    if bits is not None and bits < least:
        raise Refused(
            f"ring too small for the sum: {sites} sites need {least} bits and {bits} were asked for; "
            f"ask for {least}, or use fewer feature_bits and residual_bits"
        )
    return Ring.of(bits if bits is not None else least)


def _check_sizes(rounds: int, sites: int) -> None:
    if sites < 2:
        raise Misuse("one site only: a federation needs at least two, or there is nothing to hide a sum in")
    if rounds < 1:
        raise Misuse(f"rounds is {rounds}; plan at least one")


def _same_unit(asked: Unit | str | None, own: Unit) -> None:
    if asked is not None and asked != own:
        raise Refused(f"this task protects the unit {own} and {asked} was asked for; choose another task or unit")


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)
