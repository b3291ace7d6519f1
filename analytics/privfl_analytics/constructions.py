"""What a row can contribute to a sum: a handful of integer vectors, each with its proof of sensitivity.

Every statistic is decoded from sums of these. A construction says its shape, the squared norm that one row's
vector cannot pass, and how far one coordinate of it can go, all from the public schema; the local engine
(:mod:`privfl_analytics.local`) computes exactly these integers and nothing else. Whatever a row holds, it
contributes a vector within the bound: a value that is missing or unreadable has its own cell or contributes
zero, one that is out of bounds is clamped, a class that was not declared is ``other``.

A coordinate carries ``scale`` integer units per 1, so that noise of less than a person is still exact.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field

from privfl.declared import Declared
from privfl.errors import Misuse
from privfl.tasks import Class
from privfl_analytics.conditions import Condition, check_condition, columns_of
from privfl_analytics.view import View

__all__ = [
    "COUNT_SCALE",
    "CROSS",
    "DIAGONAL",
    "OTHER",
    "OUTER_BITS",
    "SQUARE",
    "VALUE_BITS",
    "Axis",
    "Bins",
    "Classes",
    "Construction",
    "Distinct",
    "Gradient",
    "Is",
    "Keys",
    "Linear",
    "Meets",
    "One",
    "Outer",
    "Prefixes",
    "Presence",
    "Square",
    "SquaredError",
    "Sums",
    "Tally",
    "Term",
]

#: Integer units of one person in a count.
COUNT_SCALE = 1 << 10
#: Fractional bits of a value in [-1, 1].
VALUE_BITS = 16
#: Fractional bits of one factor of a product.
OUTER_BITS = 10
#: Whole numbers in nearly the ratio 1 : √2 (41² ≤ 2·29²): what squares and products of an outer product are
#: multiplied by, so that the vector is at most 29·‖z‖² long, whatever mixes of the two a row has.
DIAGONAL, CROSS = 29, 41
#: Most that a model's largest features may add up to, integer units (:data:`privfl.dp.MAX_REACH`).
MAX_REACH = 1 << 50
#: The flag of a clipped row counts half of one squared unit.
SQUARE = 1 << (2 * OUTER_BITS)
OTHER, MISSING = "other", "missing"


# -- axes: in which cell a row falls; each row in exactly one ----------------------


class Classes(Declared):
    """Cells: the declared classes in their order, ``other``, ``missing``."""

    kind: Literal["classes"] = "classes"
    column: str

    def labels(self, view: View) -> tuple[str, ...]:
        """Names of the cells."""
        return (*map(str, view.category(self.column).classes), OTHER, MISSING)

    def names(self) -> tuple[str, ...]:
        """Columns read."""
        return (self.column,)

    def check(self, view: View) -> None:
        """Raise Misuse unless the schema has what is named."""
        view.category(self.column)


class Bins(Declared):
    """Cells: ``[e₀, e₁), …, [eₙ₋₁, eₙ]``, ``outside`` (within the column's bounds, beyond the edges), ``missing``.

    Values are clamped to the column's bounds first. Edges are public, never taken from data.
    """

    kind: Literal["bins"] = "bins"
    column: str
    edges: Annotated[tuple[float, ...], Field(min_length=2, max_length=100_001)]

    def labels(self, view: View) -> tuple[str, ...]:
        """Names of the cells."""
        last = len(self.edges) - 2
        pairs = zip(self.edges, self.edges[1:], strict=False)
        bins = (f"[{low:.12g}, {high:.12g}{']' if at == last else ')'}" for at, (low, high) in enumerate(pairs))
        return (*bins, "outside", MISSING)

    def names(self) -> tuple[str, ...]:
        """Columns read."""
        return (self.column,)

    def check(self, view: View) -> None:
        """Raise Misuse unless the edges rise and lie within the bounds of a numeric column."""
        column = view.numeric(self.column)
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise Misuse(f"the edges of bins of {self.column!r} must rise")
        if self.edges[0] < column.lower or self.edges[-1] > column.upper:
            raise Misuse(
                f"bins of {self.column!r} from {self.edges[0]:g} to {self.edges[-1]:g} leave its declared bounds "
                f"[{column.lower:g}, {column.upper:g}]; stay within them, or have the schema widened"
            )


class Presence(Declared):
    """Cells: ``present``, ``missing``."""

    kind: Literal["presence"] = "presence"
    column: str

    def labels(self, view: View) -> tuple[str, ...]:
        """Names of the cells."""
        return ("present", MISSING)

    def names(self) -> tuple[str, ...]:
        """Columns read."""
        return (self.column,)

    def check(self, view: View) -> None:
        """Raise Misuse unless the schema has the column."""
        view.column(self.column)


class Meets(Declared):
    """Cells: ``met``, ``not met``, ``unknown`` (a value that the condition needs is missing).

    With ``raw`` numbers are compared as the site has them, before they are clamped to the bounds: for rules about
    the data's quality.
    """

    kind: Literal["meets"] = "meets"
    condition: Condition
    raw: bool = False

    def labels(self, view: View) -> tuple[str, ...]:
        """Names of the cells."""
        return ("met", "not met", "unknown")

    def names(self) -> tuple[str, ...]:
        """Columns read."""
        return columns_of(self.condition)

    def check(self, view: View) -> None:
        """Raise Misuse unless the condition names what the schema declares."""
        check_condition(self.condition, view)


class Prefixes(Declared):
    """How the text of a column goes on after some candidates: one level of a prefix tree over the full alphabet.

    Cells: for each of ``size`` places, each letter of the alphabet and the end of the text; then ``other`` (another
    prefix, a letter that was not declared, or missing). ``candidates`` fill the first places, all of one length;
    the others stay empty. Text longer than ``max_length`` ends there.
    """

    kind: Literal["prefixes"] = "prefixes"
    column: str
    size: Annotated[int, Field(ge=1, le=4096)]
    candidates: tuple[str, ...] = ("",)

    def labels(self, view: View) -> tuple[str, ...]:
        """Names of the cells: the prefix with its next letter; the end of a text as the text and a NUL."""
        letters = (*view.text(self.column).alphabet, "\0")
        places = [*self.candidates, *("" for _ in range(self.size - len(self.candidates)))]
        return (*(f"{place}{letter}" for place in places for letter in letters), OTHER)

    def names(self) -> tuple[str, ...]:
        """Columns read."""
        return (self.column,)

    def check(self, view: View) -> None:
        """Raise Misuse unless the candidates are distinct, of one length, in the alphabet, and fit."""
        column = view.text(self.column)
        lengths = {len(one) for one in self.candidates}
        if len(self.candidates) > self.size or len(set(self.candidates)) != len(self.candidates) or len(lengths) > 1:
            raise Misuse("candidates of a prefix tree are distinct, of one length, and at most as many as its places")
        if (
            any(set(one) - set(column.alphabet) for one in self.candidates)
            or max(lengths, default=0) > column.max_length
        ):
            raise Misuse("candidates of a prefix tree consist of letters of the column's alphabet, up to its length")


Axis: TypeAlias = Annotated[Classes | Bins | Presence | Meets | Prefixes, Field(discriminator="kind")]


def _cells(axis: Axis, view: View) -> int:
    """How many labels an axis has, without writing a hundred thousand of them: a peer's bytes may ask for many."""
    if isinstance(axis, Bins):
        return len(axis.edges) + 1
    if isinstance(axis, Prefixes):
        return max(axis.size, len(axis.candidates)) * (len(view.text(axis.column).alphabet) + 1) + 1
    return len(axis.labels(view))


# -- terms: numbers in [-1, 1]; a row in which a term's column is missing contributes zero altogether


class One(Declared):
    """1 for every row."""

    kind: Literal["one"] = "one"

    def names(self) -> tuple[str, ...]:
        """Columns read."""
        return ()

    def check(self, view: View) -> None:
        """Nothing to check."""


class Linear(Declared):
    """t = clip((x - center)/half, -1, 1); by default over the column's bounds, so that nothing is clipped."""

    kind: Literal["linear"] = "linear"
    column: str
    center: float | None = None
    half: Annotated[float | None, Field(gt=0)] = None

    def frame(self, view: View) -> tuple[float, float]:
        """(center, half), as given or from the bounds."""
        column = view.numeric(self.column)
        center = (column.lower + column.upper) / 2 if self.center is None else self.center
        half = max(column.upper - center, center - column.lower) if self.half is None else self.half
        return center, half

    def names(self) -> tuple[str, ...]:
        """Columns read."""
        return (self.column,)

    def check(self, view: View) -> None:
        """Raise Misuse unless the column is a number, and no value of it overflows in this frame."""
        column, (center, half) = view.numeric(self.column), self.frame(view)
        if not max(column.upper - center, center - column.lower, half) < math.inf:
            # ∞/∞ would be no number, and one row would make the sum anything
            raise Misuse(f"the frame {center:g} ± {half:g} is too far from the bounds of {self.column!r}")


class Square(Linear):
    """2t² - 1 with the t of :class:`Linear`."""

    kind: Literal["square"] = "square"  # type: ignore[assignment]


class Is(Declared):
    """1 where a category is this class, 0 elsewhere; an undeclared class counts as missing."""

    kind: Literal["is"] = "is"
    column: str
    value: Class

    def names(self) -> tuple[str, ...]:
        """Columns read."""
        return (self.column,)

    def check(self, view: View) -> None:
        """Raise Misuse unless the class is declared."""
        column = view.category(self.column)
        if (type(self.value), self.value) not in {(type(item), item) for item in column.classes}:
            raise Misuse(
                f"{self.value!r} is no declared class of {self.column!r}; "
                f"there are {', '.join(map(repr, column.classes))}"
            )


class SquaredError(Declared):
    """(p - y)² of a numeric column p within [0, 1] and a class: a part of the Brier score."""

    kind: Literal["squared error"] = "squared error"
    column: str
    label: Is

    def names(self) -> tuple[str, ...]:
        """Columns read."""
        return (self.column, *self.label.names())

    def check(self, view: View) -> None:
        """Raise Misuse unless the column is a probability and the class is declared."""
        column = view.numeric(self.column)
        if column.lower < 0 or column.upper > 1:
            raise Misuse(
                f"{self.column!r} is taken for a probability and its bounds are [{column.lower:g}, {column.upper:g}]"
            )
        self.label.check(view)


Term: TypeAlias = Annotated[One | Linear | Square | Is | SquaredError, Field(discriminator="kind")]

# -- constructions --------------------------------------------------------------------------


class _Construction(Declared):
    """Common to all: ``by`` puts a row's vector into the stretch of its cell; all stretches always leave."""

    by: tuple[Axis, ...] = ()

    @abstractmethod
    def inner(self, view: View) -> tuple[int, ...]:
        """Shape of one stretch."""

    @abstractmethod
    def row2(self, view: View) -> int:
        """Largest squared norm of one row's integers."""

    @abstractmethod
    def reach(self, view: View) -> int:
        """Largest magnitude of one coordinate of one row's integers."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """Integer units per 1."""

    @abstractmethod
    def own_names(self) -> tuple[str, ...]:
        """Columns read, but for those of ``by``."""

    def shape(self, view: View) -> tuple[int, ...]:
        """Cells of each axis of ``by``, then the inner shape."""
        return (*(_cells(axis, view) for axis in self.by), *self.inner(view))

    def length(self, view: View) -> int:
        """Coordinates in all."""
        return math.prod(self.shape(view))

    def delta2(self, view: View, rows: int = 1) -> int:
        """Squared sensitivity of a unit with at most ``rows`` rows: all of them may fall on one coordinate."""
        return rows * rows * self.row2(view)

    def names(self) -> tuple[str, ...]:
        """Every column read, each once."""
        return tuple(dict.fromkeys([*(name for axis in self.by for name in axis.names()), *self.own_names()]))

    def check(self, view: View) -> None:
        """Raise Misuse unless everything named is declared."""
        for axis in self.by:
            axis.check(view)

    def grouped(self, axes: tuple[Axis, ...]) -> Self:
        """The same for every cell of some axes, which come first."""
        return type(self)(**{**dict(self), "by": (*axes, *self.by)})


class Tally(_Construction):
    """One count per cell of some axes; each row is one-hot.

    Args:
        axes: the table's axes; none for the number of rows.
        levels: h ≥ 1 makes a dyadic tree over the bins of the one axis, which must be :class:`Bins` with 2^(h-1) bins:
            for level l = 0 … h-1 the counts of 2^l equal runs of bins, then ``outside`` and ``missing``. A row counts
            once per level, or once in one of the last two: its squared norm is at most h.
        subjects: count persons instead of rows: of each subject only one of its kept rows counts.
    """

    kind: Literal["tally"] = "tally"
    axes: tuple[Axis, ...] = ()
    levels: Annotated[int, Field(ge=0, le=20)] = 0
    subjects: bool = False

    def inner(self, view: View) -> tuple[int, ...]:
        if self.levels:
            return ((1 << self.levels) - 1 + 2,)
        return tuple(_cells(axis, view) for axis in self.axes) or (1,)

    def row2(self, view: View) -> int:
        return max(1, self.levels) * COUNT_SCALE**2

    def delta2(self, view: View, rows: int = 1) -> int:
        return super().delta2(view, 1 if self.subjects else rows)

    def reach(self, view: View) -> int:
        return COUNT_SCALE

    @property
    def scale(self) -> float:
        return float(COUNT_SCALE)

    def own_names(self) -> tuple[str, ...]:
        return tuple(name for axis in self.axes for name in axis.names())

    def check(self, view: View) -> None:
        super().check(view)
        for axis in self.axes:
            axis.check(view)
        if self.levels:
            only = self.axes[0] if len(self.axes) == 1 else None
            if not isinstance(only, Bins) or len(only.edges) - 1 != 1 << (self.levels - 1):
                raise Misuse("a tree of h levels is over one axis of 2^(h-1) bins")
        if self.subjects and view.schema.subject is None:
            raise Misuse("persons can be counted only where the schema names its subject column")


class Sums(_Construction):
    """Sums of terms in [-1, 1], over rows in which every column of the terms is present.

    Each term is rounded to a multiple of 2^-VALUE_BITS for its row alone: row2 = terms·4^VALUE_BITS.
    """

    kind: Literal["sums"] = "sums"
    terms: Annotated[tuple[Term, ...], Field(min_length=1, max_length=10_000)]

    def inner(self, view: View) -> tuple[int, ...]:
        return (len(self.terms),)

    def row2(self, view: View) -> int:
        return len(self.terms) << (2 * VALUE_BITS)

    def reach(self, view: View) -> int:
        return 1 << VALUE_BITS

    @property
    def scale(self) -> float:
        return float(1 << VALUE_BITS)

    def own_names(self) -> tuple[str, ...]:
        return tuple(name for term in self.terms for name in term.names())

    def check(self, view: View) -> None:
        super().check(view)
        for term in self.terms:
            term.check(view)


class Outer(_Construction):
    """Σ z zᵀ of z = (1, x), x = (t₁, …, t_p)/radius shortened to ‖x‖ ≤ 1, over rows that have every column.

    ``columns`` give t without their own clip at ±1. Coordinates: the upper triangle by rows, (0,0), (0,1), …, then
    how many rows were shortened. In integers z̃ = trunc(z·2^OUTER_BITS) is tested: Σx̃² ≤ 4^OUTER_BITS, or the row
    contributes zero. Squares are multiplied by DIAGONAL and products by CROSS after summing; the flag adds
    DIAGONAL·SQUARE/2. So row2 = 29²·(‖z̃‖²)² + flag² with ‖z̃‖² ≤ 2·4^OUTER_BITS.
    """

    kind: Literal["outer"] = "outer"
    columns: Annotated[tuple[Linear, ...], Field(min_length=1, max_length=2000)]
    radius: Annotated[float, Field(gt=0)] = 1.0

    def inner(self, view: View) -> tuple[int, ...]:
        width = len(self.columns) + 1
        return (width * (width + 1) // 2 + 1,)

    def row2(self, view: View) -> int:
        return (2 * DIAGONAL * SQUARE) ** 2 + (DIAGONAL * SQUARE // 2) ** 2

    def reach(self, view: View) -> int:
        return CROSS * SQUARE

    @property
    def scale(self) -> float:
        """Units of a square; products carry CROSS/DIAGONAL times as many, and the flag half as many."""
        return float(DIAGONAL * SQUARE)

    def own_names(self) -> tuple[str, ...]:
        return tuple(column.column for column in self.columns)

    def check(self, view: View) -> None:
        super().check(view)
        for column in self.columns:
            column.check(view)


class Gradient(_Construction):
    """Σ r·z of a generalised linear model at public coefficients: z = (1, x) as in :class:`Outer`, not shortened.

    r = mean(z·beta) - y with the link's mean; r·z is shortened to ‖r·z‖ ≤ clip. z̃ = rint(z·2^feature_bits) is bounded
    by the columns' bounds, r̃ = trunc(a·r·2^residual_bits) with a ≤ 1 such that ‖r̃·z̃‖² ≤ ⌊clip²·4^(both bits)⌋ in
    integers, or the row contributes zero (construction F, docs/privacy.md).
    """

    kind: Literal["gradient"] = "gradient"
    columns: Annotated[tuple[Linear, ...], Field(min_length=1, max_length=2000)]
    label: Is | Linear
    link: Literal["identity", "logistic", "exp"]
    beta: tuple[float, ...] = ()
    clip: Annotated[float, Field(gt=0, le=1e6)]
    feature_bits: Annotated[int, Field(ge=1, le=20)] = 10
    residual_bits: Annotated[int, Field(ge=1, le=20)] = 12

    def inner(self, view: View) -> tuple[int, ...]:
        return (len(self.columns) + 1,)

    def row2(self, view: View) -> int:
        from privfl.dp import factor_delta2  # noqa: PLC0415 - brings scipy

        return factor_delta2(self.clip, self.feature_bits, self.residual_bits)

    def reach(self, view: View) -> int:
        return math.isqrt(self.row2(view)) + 1

    @property
    def scale(self) -> float:
        return float(1 << (self.feature_bits + self.residual_bits))

    def own_names(self) -> tuple[str, ...]:
        return (*(column.column for column in self.columns), *self.label.names())

    def check(self, view: View) -> None:
        super().check(view)
        for column in self.columns:
            column.check(view)
        self.label.check(view)
        if self.beta and len(self.beta) != len(self.columns) + 1:
            raise Misuse("coefficients are one more than columns: the intercept first")
        # Said before a charge: predictions are exact only while the largest features leave room below 2^53.
        room = [*self.reaches(view), float(1 << self.feature_bits)]
        if not math.fsum(room) <= MAX_REACH or self.reach(view) >= 1 << 53:
            raise Misuse("the features or the clip of this model leave no room below 2^53; use fewer bits, or scales")

    def reaches(self, view: View) -> list[float]:
        """Largest magnitude of each feature by the schema, integer units; infinite where it overflows."""
        found = []
        for one in self.columns:
            center, half = one.frame(view)
            bounds = view.numeric(one.column)
            found.append(max(bounds.upper - center, center - bounds.lower) / half * float(1 << self.feature_bits))
        return found


class Distinct(_Construction):
    """How many different values of a column the site has, summed over sites.

    One row makes one value appear or vanish. Values that two sites share count twice: this is not a sum over people.
    """

    kind: Literal["distinct"] = "distinct"
    column: str

    def inner(self, view: View) -> tuple[int, ...]:
        return (1,)

    def row2(self, view: View) -> int:
        return COUNT_SCALE**2

    def reach(self, view: View) -> int:
        return COUNT_SCALE

    @property
    def scale(self) -> float:
        return float(COUNT_SCALE)

    def own_names(self) -> tuple[str, ...]:
        return (self.column,)

    def check(self, view: View) -> None:
        super().check(view)
        view.column(self.column)
        if self.by:
            raise Misuse("distinct values cannot be grouped: one row may make a value appear in one group only")


class Keys(_Construction):
    """Names of a text column's frequent values at one site, each with its noisy count; ``local`` trust only.

    A site fills ``slots`` places. It adds its noise to the counts of all values that it has, keeps those above the
    threshold, largest first, and fills each place with the count and the characters of the value. How often a rare
    value passes is bounded by the δ that the study charges beside the noise (see docs/analytics.md).
    """

    kind: Literal["keys"] = "keys"
    column: str
    slots: Annotated[int, Field(ge=1, le=1000)]

    def inner(self, view: View) -> tuple[int, ...]:
        return (self.slots, 1 + view.text(self.column).max_length)

    def row2(self, view: View) -> int:
        return COUNT_SCALE**2

    def reach(self, view: View) -> int:
        return COUNT_SCALE

    @property
    def scale(self) -> float:
        return float(COUNT_SCALE)

    def own_names(self) -> tuple[str, ...]:
        return (self.column,)

    def check(self, view: View) -> None:
        super().check(view)
        view.text(self.column)
        if self.by:
            raise Misuse("frequent values cannot be grouped; filter instead")


Construction: TypeAlias = Annotated[Tally | Sums | Outer | Gradient | Distinct | Keys, Field(discriminator="kind")]
