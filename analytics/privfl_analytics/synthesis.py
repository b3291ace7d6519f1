"""Synthetic rows from noisy tables: they cost nothing more, and know nothing more.

What no table holds is not in the rows: columns without a pair between them are independent, three columns together
are as the tree of pairs makes them, numbers are even within their bins. Good for trying out code, not for findings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from privfl.errors import Misuse
from privfl_analytics.answer import Answer

__all__ = ["synthetic"]

Floats = npt.NDArray[np.float64]
Cells = npt.NDArray[np.int64]


def synthetic(answer: Answer, rows: int, rng: np.random.Generator | None = None) -> pd.DataFrame:
    """Rows drawn from the tables of a :class:`Marginals` answer.

    Each column is drawn given at most one other: along the tree of the pairs that tell most about each other
    (Chow and Liu 1968). A class that was not declared becomes a missing value, as does a number beyond its edges
    where there is no room for one.

    Args:
        answer: what ``marginals`` found, not by groups.
        rows: how many. rng: to draw them again; by default fresh.

    Raises:
        Misuse: another answer, nothing resolved in it, or a number of rows that is none.
    """
    tables = answer.details
    if answer.statistic != "marginals" or not {"columns", "one_way", "two_way"} <= set(tables):
        raise Misuse("synthetic rows are drawn from the answer of marginals, asked without groups")
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
        raise Misuse(f"rows is {rows!r}; say how many synthetic rows to draw")
    if not answer.resolved:
        raise Misuse("nothing was resolved at this budget; synthetic rows would be noise alone")
    rng = rng or np.random.default_rng()
    single = {name: np.asarray(counts, dtype=np.float64) for name, counts in tables["one_way"].items()}
    drawn: dict[str, Cells] = {}
    for parent, child, counts in _tree(single, tables["two_way"]):
        if parent is None:
            drawn[child] = rng.choice(len(single[child]), size=rows, p=_shares(single[child]))
        else:
            drawn[child] = _given(counts, drawn[parent], single[child], rng)
    return pd.DataFrame({name: _values(tables["columns"][name], drawn[name], rng) for name in tables["columns"]})


def _shares(counts: Floats) -> Floats:
    """Counts as probabilities; all alike where there are none."""
    counts = np.maximum(counts, 0.0)
    return counts / counts.sum() if counts.sum() > 0 else np.full(len(counts), 1 / len(counts))


def _information(counts: Floats) -> float:
    """Mutual information of a table, in nats."""
    joint = _shares(counts.ravel()).reshape(counts.shape)
    alone = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / alone[seen])).sum())


def _tree(single: Mapping[str, Floats], pairs: Any) -> list[tuple[str | None, str, Floats]]:
    """Parent, child and their table in an order in which parents come first; roots have no parent."""
    found = [(tuple(one["columns"]), np.asarray(one["counts"], dtype=np.float64)) for one in pairs]
    found.sort(key=lambda one: -_information(one[1]))
    group = {name: name for name in single}
    beside: dict[str, list[tuple[str, Floats]]] = {name: [] for name in single}
    for (one, other), counts in found:
        if group[one] != group[other]:
            old, new = group[other], group[one]
            group = {name: new if at == old else at for name, at in group.items()}
            beside[one].append((other, counts))
            beside[other].append((one, counts.T))
    out: list[tuple[str | None, str, Floats]] = []
    done: set[str] = set()
    for root in single:
        waiting: list[tuple[str | None, str, Floats]] = [] if root in done else [(None, root, single[root])]
        while waiting:
            parent, child, counts = waiting.pop()
            out.append((parent, child, counts))
            done.add(child)
            waiting += [(child, name, table) for name, table in beside[child] if name not in done]
    return out


def _given(counts: Floats, parent: Cells, single: Floats, rng: np.random.Generator) -> Cells:
    """A cell for each parent's cell."""
    out = np.empty(len(parent), dtype=np.int64)
    for at in np.unique(parent):
        here = parent == at
        line = counts[at] if counts[at].sum() > 0 else single
        out[here] = rng.choice(len(line), size=int(here.sum()), p=_shares(line))
    return out


def _values(column: Mapping[str, Any], cells: Cells, rng: np.random.Generator) -> Any:
    """Values of the cells: classes as they are, numbers even within their bin, None or NaN where missing."""
    if column["kind"] == "category":
        classes = column["classes"]
        values = [classes[at] if at < len(classes) else None for at in cells.tolist()]
        return pd.Series(values, dtype=object).infer_objects()
    edges = np.array(column["edges"], dtype=np.float64)
    low, width = np.append(edges[:-1], np.nan), np.append(np.diff(edges), np.nan)
    at = np.minimum(cells, len(edges) - 1)
    values_ = low[at] + rng.random(len(cells)) * width[at]
    below, above = edges[0] - column["lower"], column["upper"] - edges[-1]
    if below + above > 0:  # then the cell after the bins is ``outside``
        outside = cells == len(edges) - 1
        place = rng.random(int(outside.sum())) * (below + above)
        values_[outside] = np.where(place < below, column["lower"] + place, edges[-1] + place - below)
    return values_
