"""The most frequent values: of declared classes, of texts by a prefix tree, and of texts that sites name themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy.stats import norm

from privfl.errors import Misuse
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import COUNT_SCALE, Classes, Construction, Keys, Prefixes, Tally
from privfl_analytics.decode import count_rows, z_of
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics.binned import answered
from privfl_analytics.statistics.histograms import concealed
from privfl_analytics.view import View

__all__ = ["FrequentValues", "HeavyHitters", "TopK"]

#: How likely noise alone makes any candidate of a whole level.
_FALSE = 0.05
_AND_MORE = "…"


class TopK(Statistic):
    """The k most frequent declared classes of a category.

    Args:
        column: a category.
        k: how many are listed.
    """

    name: ClassVar[str] = "top"
    summary: ClassVar[str] = "the most frequent declared classes of a category"
    example: ClassVar[str] = "top ward k=3"

    column: str
    k: Annotated[int, Field(ge=1, le=1000)] = 5

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """One cell per class, ``other``, ``missing``."""
        asked = Tally(axes=(Classes(column=self.column),))
        asked.check(view)
        return (asked,)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Rows ``count`` in falling order; a row says where noise leaves open which of two comes first."""
        found, labels = stages[0][0], Classes(column=self.column).labels(view)
        mask = concealed(found.values, context.min_cell_count, found.sd)
        classes = found.values[:-2]
        order = np.argsort(-classes, kind="stable")
        best = order[: self.k]
        places: list[dict[str, str | float]] = [{self.column: labels[cell]} for cell in best]
        total = float(np.clip(found.values, 0, None).sum())
        rows = count_rows("count", classes[best], found.sd, places, context, mask=mask[best], total=total)
        noted = []
        for at, row in enumerate(rows):
            nearest = order[at + 1] if at + 1 < len(order) else None
            gap = math.inf if nearest is None else float(classes[order[at]] - classes[nearest])
            open_ = row.value is not None and nearest is not None and gap < z_of(context) * math.sqrt(2) * found.sd
            noted.append(_noted(row, "its order with the next is not resolved") if open_ else row)
        shown = [row for row in noted if row.value is not None or not row.note.startswith(("below", "hidden"))]
        return answered(self, context, shown, picture="histogram", notes=("other and missing values are not ranked",))

    def words(self) -> str:
        return f"the {self.k} most frequent declared classes of {self.column}"


def _noted(row: Row, note: str) -> Row:
    return Row(row.what, row.value, row.at, row.se, row.lower, row.upper, row.unit, note)


class HeavyHitters(Statistic):
    """Frequent values of a text column, letter by letter: each round counts how the frequent beginnings go on.

    Which beginnings are followed is decided on noisy counts of the round before: those that noise alone hardly makes,
    at most ``size``, largest first. A value is found if every beginning of it was; a rare one never is.

    Args:
        column: a text column with a declared alphabet.
        length: letters that are looked at, one round each; by default the column's length, at most 8.
        size: beginnings that are followed in each round.
    """

    name: ClassVar[str] = "heavy_hitters"
    summary: ClassVar[str] = "frequent values of a text column by a prefix tree"
    example: ClassVar[str] = "heavy_hitters diagnosis"

    column: str
    length: Annotated[int | None, Field(ge=1, le=64)] = None
    size: Annotated[int, Field(ge=1, le=1024)] = 32

    def stages(self, view: View) -> int:
        longest = view.text(self.column).max_length
        if self.length is not None and self.length > longest:
            raise Misuse(f"{self.column!r} has at most {longest} letters; a length of {self.length} is too much")
        return self.length or min(longest, 8)

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """All letters after each followed beginning; as many places in every state."""
        letters = len(view.text(self.column).alphabet)
        size = self.size if stage and letters > 1 else 1
        if stage and letters**stage < size:
            size = letters**stage
        asked = Prefixes(column=self.column, size=size, candidates=self.followed(stage, size, state))
        asked.check(view)
        return (Tally(axes=(asked,)),)

    def followed(self, stage: int, size: int, state: State | None) -> tuple[str, ...]:
        """The beginnings of a stage; raises Misuse unless the state lists texts of that length."""
        if stage == 0:
            return ("",)
        if state is None:
            return ()
        given = state.get("candidates") if isinstance(state, Mapping) and len(state) == 1 else None
        if not isinstance(given, list | tuple) or len(given) > size:
            raise Misuse(f"round {stage + 1} of heavy_hitters needs candidates: a list of at most {size} texts")
        if not all(isinstance(one, str) and len(one) == stage for one in given):
            raise Misuse(f"candidates of round {stage + 1} of heavy_hitters have {stage} letters each")
        return tuple(given)

    def decide(self, view: View, stage: int, sums: Sequence[Noisy], state: State | None) -> State:
        """The longest beginnings that noise alone hardly makes."""
        found = self.counted(view, stage, sums[0], state)
        going = sorted((one for one in found if not one[0].endswith("\0")), key=lambda one: (-one[1], one[0]))
        letters = len(view.text(self.column).alphabet)
        return {"candidates": [text for text, _ in going[: min(self.size, letters ** (stage + 1))]]}

    def counted(self, view: View, stage: int, noisy: Noisy, state: State | None) -> list[tuple[str, float]]:
        """Continuations above the noise and their counts; one that ends there has a NUL at its end."""
        tally = self.constructions(view, stage, state)[0]
        assert isinstance(tally, Tally)
        axis = tally.axes[0]
        assert isinstance(axis, Prefixes)
        real = len(axis.candidates) * (len(view.text(self.column).alphabet) + 1)
        labels, counts = axis.labels(view)[:real], noisy.values[:real].tolist()
        least = self.threshold(noisy.sd, max(real, 1))
        return [(label, count) for label, count in zip(labels, counts, strict=True) if count > least]

    @staticmethod
    def threshold(sd: float, cells: int) -> float:
        """Count that noise alone reaches in any of so many cells with probability 5 %."""
        return float(sd * norm.ppf((1 - _FALSE) ** (1 / cells)))

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Rows ``count`` by value, in falling order; one that may go on after the last round ends in "…"."""
        texts: list[tuple[str, float, float]] = []
        whole = len(stages) == view.text(self.column).max_length
        for stage, ((noisy,), state) in enumerate(zip(stages, states, strict=True)):
            for text, count in self.counted(view, stage, noisy, state):
                if text.endswith("\0"):
                    texts.append((text[:-1], count, noisy.sd))
                elif stage + 1 == len(stages):
                    texts.append((text if whole else text + _AND_MORE, count, noisy.sd))
        texts = [one for one in texts if context.min_cell_count <= 1 or one[1] >= context.min_cell_count]
        rows = []
        for text, count, sd in sorted(texts, key=lambda one: (-one[1], one[0])):
            rows += count_rows("count", np.array([count]), sd, [{self.column: text}], context)
        least = max(self.threshold(one[0].sd, 1 if stage == 0 else self.size) for stage, one in enumerate(stages))
        notes = (
            f"a value is found only if its beginnings stand out of the noise in every round, so hardly one with fewer "
            f"than about {max(least, context.min_cell_count):.3g} rows; one whose count noise raised is likelier found",
        )
        if not rows:
            rows = [Row("count", None, note="no value stands out of the noise at this budget")]
        return answered(self, context, rows, picture="histogram", notes=notes)

    def words(self) -> str:
        return f"the frequent values of {self.column}, found letter by letter, at most {self.size} at a time"

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        sd, letters = max(one[0] for one in sds), len(view.text(self.column).alphabet)
        least = self.threshold(sd, self.size * (letters + 1))
        return f"each count ± {1.96 * sd:.3g}; values of fewer than about {least:.3g} rows are not found"


class FrequentValues(Statistic):
    """Values of a text column that each site finds frequent, by their names; for domains that nobody has declared.

    Names leave the site: a value is named where its noisy count passes a threshold that a single person's value
    hardly ever reaches (that probability is part of the δ that is charged). Prefer public code lists.

    Args:
        column: a text column.
        slots: values that a site names at most.
    """

    name: ClassVar[str] = "frequent_values"
    summary: ClassVar[str] = "frequent values that each site names, for undeclared domains"
    example: ClassVar[str] = "frequent_values diagnosis slots=10"
    local: ClassVar[bool] = True

    column: str
    slots: Annotated[int, Field(ge=1, le=1000)] = 20

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """A place for each value: its noisy count and its characters."""
        asked = Keys(column=self.column, slots=self.slots)
        asked.check(view)
        return (asked,)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Rows ``count`` by value in falling order: sums over the sites that name it, which are noted."""
        found, width = stages[0][0], 1 + view.text(self.column).max_length
        sites = found.values.reshape(-1, self.slots, width)
        merged: dict[str, list[float]] = {}
        for site in sites:
            for place in site:
                text = _text(place[1:])
                if place[0] > 0 and set(text) <= set(view.text(self.column).alphabet):
                    merged.setdefault(text, []).append(float(place[0]))
        rows = []
        for text, counts in sorted(merged.items(), key=lambda one: (-sum(one[1]), one[0])):
            if context.min_cell_count > 1 and sum(counts) < context.min_cell_count:
                continue
            sd = found.sd * math.sqrt(len(counts))
            row = count_rows("count", np.array([sum(counts)]), sd, [{self.column: text}], context)[0]
            rows.append(_noted(row, f"named by {len(counts)} of {len(sites)} sites") if row.value is not None else row)
        if not rows:
            rows = [Row("count", None, note="no site names a value at this budget")]
        notes = (
            "counts are of the sites that name the value; others may have it too seldom to name it, so they are low",
        )
        return answered(self, context, rows, picture="histogram", notes=notes)

    def words(self) -> str:
        return f"the names and counts of up to {self.slots} frequent values of {self.column} at each site"


def _text(codes: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    """Characters from their code points, which the sum's scale has divided; up to the first that is none."""
    letters = []
    for code in np.rint(codes * COUNT_SCALE).astype(np.int64).tolist():
        if not 0 < code < 0x110000:
            break
        letters.append(chr(code))
    return "".join(letters)
