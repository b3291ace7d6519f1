"""What a data scientist asks for: frozen task specifications, and their compilation into tasks.

A specification says nothing of budget or sites; ``compile`` adds those and fixes every public number.
All defaults below are constants: none is computed from rows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from privfl.declared import Declared
from privfl.dp import Trust, Unit, mu2_per_upload
from privfl.errors import BudgetExceeded, DataError, Misuse
from privfl.learn.averaging import AveragingTask
from privfl.learn.glm import GlmTask
from privfl.learn.models import EstimatorRef, template
from privfl.learn.planning import Plan, check_sizes, check_unit, plan_release, plan_ring, signal_to_noise, site_noise
from privfl.learn.strategies import Strategy, adam, momentum, sgd, tail_averaged
from privfl.learn.tasks import MAX_PARAMETERS, Task
from privfl.ring import Ring
from privfl.tasks.schema import Category, Numeric, Schema

__all__ = ["Averaging", "Linear", "Logistic", "Spec"]

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

    #: Units that it can protect, the usual one first.
    UNITS: ClassVar[tuple[Unit, ...]]

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
        names, numeric = self.feature_names(schema), set(schema.numeric)
        complaints += [f"feature {name!r} is not a numeric column" for name in names if name not in numeric]
        if self.label in names:
            complaints.append(f"the label {self.label!r} cannot be a feature")
        if not names or len(set(names)) != len(names):
            complaints.append("features must be at least one, and none twice")
        if complaints:
            raise DataError(f"{schema!r} does not fit the task: " + "; ".join(complaints))

    def __repr__(self) -> str:
        changed = (
            f"{name}={getattr(self, name)!r}"
            for name, field in type(self).model_fields.items()
            if name != "kind" and getattr(self, name) != field.default
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    __str__ = __repr__

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
            unit: to protect, by default the task's usual one. ``subject`` bounds all rows of a person together:
                the schema names the subject column, and each site keeps ``max_rows`` rows of it at most. Counted in
                records such a run costs 4 times its μ², since removing one row may bring in another.
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
    UNITS = (Unit.RECORD, Unit.SUBJECT)

    clip: Positive = 0.3
    l2: Annotated[float, Field(ge=0)] = 3e-4
    optimiser: Literal["momentum", "adam", "sgd"] = "momentum"
    rate: Positive | None = None
    beta: Share = 0.5
    average: Annotated[float, Field(ge=0, le=1)] = 0.5
    feature_bits: Annotated[int, Field(ge=1, le=24)] = 8
    residual_bits: Annotated[int, Field(ge=1, le=24)] = 12

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
        protected = check_unit(unit, self.UNITS, schema)
        if epsilon is None or delta is None:
            raise Misuse(f"{type(self).__name__} protects {protected}s and needs epsilon and delta")
        check_sizes(rounds, sites, alone=trust == Trust.LOCAL)
        draft = GlmTask(self, schema, Plan(epsilon, delta, rounds, sites, None, Ring.of(64), protected), sgd(1.0))
        if draft.length > MAX_PARAMETERS:
            raise Misuse(f"{draft.length} parameters are more than the {MAX_PARAMETERS} that fit one upload")
        mu2 = mu2_per_upload(epsilon, delta, rounds)
        release = plan_release(draft.layout(), mu2, self.metrics, protected, trust, sites, min_survivors, colluders)
        rows = schema.max_rows if protected is Unit.SUBJECT else 1
        signal = signal_to_noise(draft.layout()[0], release, schema.records, sites, rounds, rows)
        if signal < LEAST_SIGNAL:
            raise BudgetExceeded(
                f"the budget is too small for one round: at epsilon {epsilon:g} the noise is {1 / signal:.0f} times "
                f"what {schema.records} records can say together; raise epsilon, or join more records"
            )
        ring = plan_ring(draft.layout(), site_noise(release), sites, bits)
        plan = Plan(epsilon, delta, rounds, sites, release, ring, protected)
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
    """Logistic regression, two classes or more, with privacy for records or, by ``unit``, for subjects.

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
    """Linear regression by squared loss, private as :class:`Logistic`; the label is centred and scaled in public.

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

    UNITS = (Unit.SITE,)

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
        check_unit(unit, self.UNITS, schema)
        check_sizes(rounds, sites)
        label = schema.columns[self.label]
        template(self.estimator, label.classes if isinstance(label, Category) else None, self.feature_names(schema))
        if self.unprotected:
            if epsilon is not None:
                raise Misuse("unprotected averaging has no epsilon: pass epsilon=None, or drop unprotected")
            plan = Plan(None, None, rounds, sites, None, Ring.of(64), Unit.SITE)
            layout = AveragingTask(self, schema, plan, sgd(self.rate)).layout()
            plan = Plan(None, None, rounds, sites, None, plan_ring(layout, {}, sites, bits), Unit.SITE)
            return AveragingTask(self, schema, plan, sgd(self.rate))
        if epsilon is None or delta is None:
            raise Misuse("averaging protects sites and needs epsilon and delta; unprotected=True runs without noise")
        draft = AveragingTask(
            self, schema, Plan(epsilon, delta, rounds, sites, None, Ring.of(64), Unit.SITE), sgd(self.rate)
        )
        mu2 = mu2_per_upload(epsilon, delta, rounds)
        release = plan_release(draft.layout(), mu2, self.metrics, Unit.SITE, trust, sites, min_survivors, colluders)
        ring = plan_ring(draft.layout(), site_noise(release), sites, bits)
        return AveragingTask(
            self, schema, Plan(epsilon, delta, rounds, sites, release, ring, Unit.SITE), sgd(self.rate)
        )
