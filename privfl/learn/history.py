"""The noisy story of a training run: one row per round, as a frame, a plot or a table in a notebook."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, overload

from privfl.errors import Misuse

if TYPE_CHECKING:
    from matplotlib.axes import Axes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["History", "Row"]

#: Rounds that are averaged where one noisy number has to be judged.
SMOOTHING = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One round as the sum told it. Metrics are means over the declared size, with noise; None if not asked for.

    Attributes:
        round: from 1.
        survivors: sites whose vectors are in the sum.
        count: noisy number of records with a label.
        score: accuracy for classes; for a number the share of records predicted within the task's tolerance.
        loss: mean loss, each record's cut at the task's public cap.
        score_sd, loss_sd: standard deviation of the noise in the two (public).
        update_norm: length of the noisy mean update.
    """

    round: int
    survivors: int
    count: float | None = None
    score: float | None = None
    loss: float | None = None
    score_sd: float | None = None
    loss_sd: float | None = None
    update_norm: float | None = None


class History(Sequence[Row]):
    """Rows in order of rounds; immutable."""

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    @overload
    def __getitem__(self, at: int) -> Row: ...

    @overload
    def __getitem__(self, at: slice) -> History: ...

    def __getitem__(self, at: int | slice) -> Row | History:
        return History(self._rows[at]) if isinstance(at, slice) else self._rows[at]

    def smoothed(self, name: str = "score") -> tuple[float, float] | None:
        """The latest value of a metric averaged over the last rounds, and the deviation of its noise.

        Judging one round's number by itself would stop a run on a lucky draw.

        Raises:
            Misuse: ``name`` is neither ``score`` nor ``loss``.
        """
        if name not in ("score", "loss"):
            raise Misuse(f"{name!r} is not a metric of a round; choose score or loss")
        tail = [row for row in self._rows if getattr(row, name) is not None][-SMOOTHING:]
        if not tail:
            return None
        deviations = [getattr(row, f"{name}_sd") or 0.0 for row in tail]
        mean = math.fsum(getattr(row, name) for row in tail) / len(tail)
        return mean, math.hypot(*deviations) / len(tail)

    def to_frame(self) -> pd.DataFrame:
        """One row per round, indexed by ``round``; columns as the attributes of :class:`Row`."""
        import pandas as pd  # noqa: PLC0415 - slow to load, and seldom needed

        names = [field.name for field in fields(Row)]
        return pd.DataFrame([asdict(row) for row in self._rows], columns=names).set_index("round")

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw score and loss over rounds with bands of two standard deviations of noise.

        Raises:
            Misuse: matplotlib is not installed (the extra ``plots``).
        """
        try:
            from matplotlib import pyplot  # noqa: PLC0415 - heavy, and an extra
        except ImportError:
            raise Misuse("plots need matplotlib: pip install 'privfl[plots]'") from None
        if axes is None:
            _, axes = pyplot.subplots(figsize=(7, 3.5))
        for name in ("score", "loss"):
            rows = [row for row in self._rows if getattr(row, name) is not None]
            at = [row.round for row in rows]
            value = [getattr(row, name) for row in rows]
            band = [2 * (getattr(row, f"{name}_sd") or 0.0) for row in rows]
            (line,) = axes.plot(at, value, label=f"noisy {name}")
            low = [one - wide for one, wide in zip(value, band, strict=True)]
            high = [one + wide for one, wide in zip(value, band, strict=True)]
            axes.fill_between(at, low, high, alpha=0.15, color=line.get_color())
        axes.set_xlabel("round")
        axes.set_ylim(-0.05, 1.5)
        axes.legend(loc="best")
        return axes

    def __repr__(self) -> str:
        if not self._rows:
            return "History(no rounds yet)"
        said = [
            f"{name} {found[0]:.3f} ± {found[1]:.3f}" for name in ("score", "loss") if (found := self.smoothed(name))
        ]
        return f"History({len(self._rows)} rounds{''.join('; ' + text for text in said)})"

    def _repr_html_(self) -> str:
        table = self.to_frame().to_html(float_format=lambda value: f"{value:.4g}", na_rep="–")
        return f"<p>{html.escape(repr(self))}</p>{table}"
