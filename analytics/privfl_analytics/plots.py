"""One good plot for each kind of answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from privfl.errors import Misuse
from privfl_analytics.answer import Answer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_answer"]


def plot_answer(answer: Answer, axes: Axes | None = None) -> Axes:
    """Draw ``answer`` in the way that fits it; raises Misuse where it cannot be drawn."""
    raise Misuse(f"there is no plot for {answer.picture!r}")
