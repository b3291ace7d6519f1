"""One answer in a report: its table, and its picture as an address that holds the picture itself."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

from privfl.errors import Misuse
from privfl_analytics.answer import Answer, Row

__all__ = ["picture_of", "plots_missing", "table_of"]

_NOTHING = "–"


def table_of(answer: Answer) -> tuple[list[tuple[str, bool]], list[dict[str, Any]]]:
    """Heads, and rows of cells, each with whether it is a number; columns that hold nothing are left out."""
    places = list(dict.fromkeys(key for row in answer.rows for key in row.at))
    numbers = [name for name in ("se", "lower", "upper") if any(getattr(row, name) is not None for row in answer.rows)]
    texts = [name for name in ("unit", "note") if any(getattr(row, name) for row in answer.rows)]
    heads = {"se": "standard error", "what": "number"}
    columns = [
        *((name, False) for name in places),
        (heads["what"], False),
        ("value", True),
        *((heads.get(name, name), True) for name in numbers),
        *((name, False) for name in texts),
    ]
    rows = [
        {
            "lost": row.value is None,
            "cells": [
                *((_cell(row.at.get(name, "")), False) for name in places),
                (row.what, False),
                (_number(row, row.value), True),
                *((_number(row, getattr(row, name)), True) for name in numbers),
                *((getattr(row, name), False) for name in texts),
            ],
        }
        for row in answer.rows
    ]
    return columns, rows


def _cell(cell: str | float) -> str:
    return f"{cell:g}" if isinstance(cell, float) else str(cell)


def _number(row: Row, value: float | None) -> str:
    """As many digits as the standard error leaves meaning to, and two more."""
    if value is None or math.isnan(value):
        return _NOTHING
    if row.se and math.isfinite(row.se) and row.se > 0 and math.isfinite(value):
        places = 1 - math.floor(math.log10(row.se))
        if 0 <= places <= 8 and abs(value) < 1e12:
            return f"{value:.{places}f}"
        if -9 <= places < 0 and abs(value) < 1e15:
            return f"{value:.0f}"
    return f"{value:.5g}"


def picture_of(answer: Answer) -> str:
    """The plot as a data address of an SVG image; empty where it cannot be drawn."""
    try:
        import matplotlib  # noqa: PLC0415 - an extra
        from matplotlib import pyplot  # noqa: PLC0415

        from privfl_analytics.plots import is_crossed, plot_answer  # noqa: PLC0415
    except ImportError:
        return ""
    if not answer.rows or (answer.picture == "table" and not is_crossed(answer)):
        return ""
    try:
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "privfl"}):
            figure = plot_answer(answer).get_figure(root=True)
            out = io.BytesIO()
            figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})  # type: ignore[union-attr]
            pyplot.close(figure)
    except Misuse:  # nothing that could be drawn: the table has it
        return ""
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def plots_missing() -> str:
    """Why there are no pictures, where matplotlib is the reason."""
    try:
        import matplotlib  # noqa: F401, PLC0415 - an extra
    except ImportError:
        return "Plots are left out: install matplotlib (pip install 'privfl[plots]') and write the report again."
    return ""
