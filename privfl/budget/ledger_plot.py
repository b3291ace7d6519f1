"""ε over time against the budget: as numbers, as text for a terminal, as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from privfl.budget.filter import Budget
from privfl.budget.ledger_book import Book
from privfl.budget.ledger_entries import Kind, Stated, moment
from privfl.budget.tally import Tally
from privfl.dp import Cost, epsilon_of_cost
from privfl.errors import Misuse

__all__ = ["Point", "epsilon_at", "history", "picture", "sampled", "text_plot"]


@dataclass(frozen=True)
class Point:
    """What the account showed after one entry, in the unit and with the window of the policy now in force.

    ``spent`` is None where it has no finite cost; ``budget`` is that of the policy in force then, None if that
    one protected another unit or had none.
    """

    seq: int
    time: int
    spent: Cost | None
    budget: Budget | None


def epsilon_at(spent: Cost | None, delta: float) -> float:
    """ε of a total at ``delta``, rounded up; infinite without a finite cost, or if δ′ alone uses δ up."""
    if spent is None or spent.delta >= delta:
        return math.inf
    return epsilon_of_cost(spent, delta) if spent.mu2 or spent.delta else 0.0


def history(book: Book) -> list[Point]:
    """One point per reservation, refund and policy, in order; empty without a policy that has a budget."""
    limits = book.limits
    if limits is None or limits.budget is None:
        return []
    tally, budget, points = Tally(limits.window_ms), None, []
    for entry in book.entries:
        if entry.kind == Kind.POLICY:
            then = Stated.decode(entry.detail).limits()
            budget = then.budget if then.unit is limits.unit else None
        elif entry.kind == Kind.RESERVE:
            tally.add(entry.charge, entry.time)
        elif entry.kind == Kind.REFUND:
            tally.remove(entry.reference)
        else:
            continue
        spent = tally.within(entry.time).total(limits.unit, sites_per_subject=limits.sites_per_subject)
        points.append(Point(entry.seq, entry.time, spent, budget))
    return points


def sampled(points: Sequence[Point], count: int) -> list[Point]:
    """At most ``count`` of the points, evenly by place, the last among them; ε takes a millisecond each."""
    if len(points) <= count:
        return list(points)
    return [points[round(at * (len(points) - 1) / (count - 1))] for at in range(count)]


def text_plot(book: Book, width: int = 60, height: int = 12) -> str:
    """A plot in plain characters: ``*`` what is spent, ``-`` the budget; the axis is time.

    Returns:
        Lines of at most ``width`` + 9 characters; one sentence where there is nothing to plot.
    """
    points = history(book)
    if not points:
        return "There is no budget to plot against."
    delta = _delta(book)
    start, end = points[0].time, points[-1].time
    columns: list[Point] = []
    at = 0
    for column in range(width):  # the last point at or before each column's time
        edge = start + (end - start) * (column + 1) / width
        while at + 1 < len(points) and points[at + 1].time <= edge:
            at += 1
        columns.append(points[at])
    values = [epsilon_at(point.spent, delta) for point in columns]
    budgets = [point.budget.epsilon if point.budget else None for point in columns]
    top = max([value for value in [*values, *budgets] if value is not None and value < math.inf], default=0.0) or 1.0
    rows = [[" "] * width for _ in range(height)]
    for column, (value, budget) in enumerate(zip(values, budgets, strict=True)):
        if budget is not None:
            rows[_level(budget, top, height)][column] = "-"
        rows[_level(min(value, top), top, height)][column] = "*"
    labels = [f"{top:7.3g}", *[" " * 7] * (height - 2), f"{0:7d}"]
    lines = [f"{label} |{''.join(row).rstrip()}" for label, row in zip(labels, rows, strict=True)]
    axis = f"{moment(start)[:16]}{moment(end)[:16]:>{max(width - 16, 17)}}"
    return "\n".join([*lines, " " * 8 + "+" + "-" * width, " " * 9 + axis])


def _level(value: float, top: float, height: int) -> int:
    return height - 1 - round(value / top * (height - 1))


def _delta(book: Book) -> float:
    assert book.limits is not None
    assert book.limits.budget is not None
    return book.limits.budget.delta


def picture(book: Book, kind: str) -> bytes:
    """The plot as a file's content.

    Args:
        kind: ``png`` or ``svg``.

    Raises:
        Misuse: another kind, matplotlib is not installed, or there is no budget to plot against.
    """
    if kind not in ("png", "svg"):
        raise Misuse(f"a plot is written as .png or .svg, not as {kind!a:.20}")
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise Misuse("plots need matplotlib; install it with: pip install 'privfl[plots]'") from None
    points = sampled(history(book), 400)
    if not points:
        raise Misuse("there is no budget to plot against; the ledger names no policy that has one")
    delta = _delta(book)
    times = [_hours(point.time, points[0].time) for point in points]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    values = [epsilon_at(point.spent, delta) for point in points]
    budgets = [point.budget.epsilon if point.budget else math.nan for point in points]
    axes.step(times, [value if value < math.inf else math.nan for value in values], where="post", label="spent")
    axes.step(times, budgets, where="post", linestyle="--", label="budget")
    axes.set_xlabel(f"hours since {moment(points[0].time)}")
    axes.set_ylabel(f"epsilon at delta {delta:g}, per {book.limits.unit if book.limits else ''}")
    axes.set_ylim(bottom=0)
    axes.set_title(f"{book.opening.population}, site {book.key.site_id.hex()[:8]}")
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return buffer.getvalue()


def _hours(time: int, start: int) -> float:
    return (time - start) / 3_600_000
