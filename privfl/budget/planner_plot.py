"""A plan as a picture: what is spent and left by purpose, and how accurate counts would be."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from privfl.budget.planner_counts import NORMAL_95
from privfl.budget.planner_report import Plan
from privfl.dp import Trust
from privfl.errors import Misuse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plan_figure", "plan_picture"]


def plan_figure(plan: Plan) -> Figure:
    """Two panels; raises Misuse where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise Misuse("plots need matplotlib; install it with: pip install 'privfl[plots]'") from None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _shares(left, plan)
    _errors(right, plan)
    return figure


def plan_picture(plan: Plan, kind: str) -> bytes:
    """The content of a ``png`` or ``svg`` file; raises Misuse for another kind or without matplotlib."""
    if kind not in ("png", "svg"):
        raise Misuse(f"a plot is written as .png or .svg, not as {kind!a:.20}")
    buffer = io.BytesIO()
    plan_figure(plan).savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return buffer.getvalue()


def _shares(axes: Axes, plan: Plan) -> None:
    """μ² adds up, as ε does not: bars in percent of the total's μ²."""
    total = plan.rooms[0].budget.mu2
    names = [str(room.purpose) for room in plan.rooms]
    shares = [100.0 * float(plan.policy.shares.get(room.purpose, 0.0)) for room in plan.rooms]
    left = [100.0 * float(room.left.mu2 / total) for room in plan.rooms]
    axes.barh(names, shares, color="0.85", label="share")
    axes.barh(names, left, height=0.5, color="C0", label="left")
    for at, room in enumerate(plan.rooms):
        axes.annotate(f" ε {room.epsilon_left(plan.policy.trust):.3g}", (shares[at], at), va="center")
    axes.set_xlim(0, max(*shares, 1.0) * 1.25)
    axes.set_xlabel("percent of the budget's μ²")
    axes.set_title(f"left at δ = {plan.rooms[0].budget.delta:g}, per {plan.policy.unit}")
    axes.invert_yaxis()
    axes.legend(loc="lower right")


def _errors(axes: Axes, plan: Plan) -> None:
    drawn = False
    for room in plan.rooms:
        for trust in Trust:
            points = [
                (queries, NORMAL_95 * found.error)
                for purpose, queries, kind, found in plan.counts
                if purpose is room.purpose and kind is trust and found is not None
            ]
            if points:
                style = "-" if trust is Trust.DISTRIBUTED else "--"
                axes.plot(*zip(*points, strict=True), style, marker="o", label=f"{room.purpose}, noise {trust}")
                drawn = True
    axes.set_xlabel("counts that are asked")
    axes.set_ylabel("each within ± people (95 %)")
    axes.set_title(f"noise on a count, {plan.cohort.sites} sites")
    if drawn:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.legend()
    else:
        axes.text(0.5, 0.5, "no counts fit", ha="center", transform=axes.transAxes)
