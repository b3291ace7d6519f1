"""What every statistic is: constructions to sum, stage by stage, and a way to decode the noisy sums into an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from privfl.declared import Declared
from privfl_analytics.answer import Answer
from privfl_analytics.constructions import Construction
from privfl_analytics.view import View

__all__ = ["REGISTRY", "Context", "Noisy", "State", "Statistic", "statistic_of"]

Floats: TypeAlias = npt.NDArray[np.float64]
#: What a stage takes from earlier ones: plain JSON values, all of them functions of noisy sums or of public things.
State: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Noisy:
    """A construction's sum as the server sees it.

    Attributes:
        values: float64 of the construction's inner shape (one cell of ``by``), in units of 1 (counts are persons or
            rows); exact sum plus noise. Of a ``local`` statistic one more axis stands in front: the sites that
            answered, in the order of the roster, each with its own numbers and noise.
        sd: standard deviation of the Gaussian noise in every coordinate; 0 without noise.
    """

    values: Floats
    sd: float


@dataclass(frozen=True)
class Context:
    """What decoding needs beside the sums.

    Attributes:
        confidence: of intervals. interval: ``rows`` (noise alone: what these rows' exact answer is) or ``population``
            (sampling too: what the rows were drawn from).
        min_cell_count: counts below it are not shown (the policy's display rule), judged on noisy counts.
        survivors: sites in the sums. records: declared public size.
        rng: for bootstraps; what it draws touches nothing but noisy sums.
        draws: replicates of a parametric bootstrap.
    """

    confidence: float = 0.95
    interval: Literal["rows", "population"] = "population"
    min_cell_count: int = 1
    survivors: int = 1
    records: int = 1
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    draws: int = 2000


class Statistic(Declared, ABC):
    """A statistic as it is asked for; frozen. Subclasses are registered by their ``statistic``.

    The number of stages, and each stage's constructions' kinds, shapes and sensitivities, depend on the fields and the
    public schema alone; ``state`` may only move parameters such as centres, coefficients and candidates.
    """

    #: Name in YAML and in policies, e.g. ``"mean"``.
    name: ClassVar[str]
    #: One line for ``--help`` and the README.
    summary: ClassVar[str]
    #: How it is asked for in one line, of the schema of :mod:`privfl_analytics.datasets`.
    example: ClassVar[str] = ""
    #: Every text field of a statistic is a column's name.
    text_means: ClassVar[str] = "a column"
    #: Which site's noise must suffice: statistics that show single sites need ``local``.
    local: ClassVar[bool] = False
    #: Whether its intervals contain the noise alone whatever was asked for, as no sample could be drawn again.
    rows_only: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            REGISTRY[cls.name] = cls

    def stages(self, view: View) -> int:
        """How many rounds it takes, one after another."""
        return 1

    @abstractmethod
    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """What stage ``stage`` (from 0) sums, ungrouped.

        Args:
            state: what :meth:`decide` made after the stage before; None while planning and in stage 0. A peer may have
                sent it: anything odd raises Misuse.

        Raises:
            Misuse: a column, class, bin or option does not fit; the message says what to write.
        """

    def weights(self, view: View) -> Sequence[Sequence[float]]:
        """Shares of the query's μ², by stage and construction; they need not sum to 1. By default all equal."""
        return [[1.0] * len(self.constructions(view, stage)) for stage in range(self.stages(view))]

    def decide(self, view: View, stage: int, sums: Sequence[Noisy], state: State | None) -> State:
        """The state for stage ``stage + 1`` from this stage's sums (ungrouped statistics only)."""
        raise NotImplementedError  # single-stage statistics are never asked

    @abstractmethod
    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """The answer, from every stage's sums in the order of :meth:`constructions`, and the state of each.

        Without noise (``sd`` 0 everywhere) it equals the statistic of the pooled rows to the precision of the
        fixed-point numbers. A result that the noise drowns is marked as not resolved, never printed as a number.
        """

    @abstractmethod
    def words(self) -> str:
        """What is asked, in a plain clause for people: "the mean of age"."""

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        """The error to expect from noise of these standard deviations, by stage and construction, in plain words.

        By default of counts; override it where an answer is not a count.
        """
        return f"each count ± {1.96 * sds[0][0]:.3g}"

    def group_axes(self, view: View) -> bool:
        """Whether it can be asked for by groups."""
        return self.stages(view) == 1 and not self.local


REGISTRY: dict[str, type[Statistic]] = {}


def statistic_of(name: str) -> type[Statistic] | None:
    """The class registered under ``name``; loads all statistics first."""
    import privfl_analytics.statistics  # noqa: F401, PLC0415 - fills the registry

    return REGISTRY.get(name)
