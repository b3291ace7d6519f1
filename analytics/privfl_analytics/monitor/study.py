"""The queries that collect a reference profile, and later the data to compare with it: the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from privfl.errors import Misuse
from privfl.tasks import Schema, Text
from privfl_analytics.monitor.profile import Profile
from privfl_analytics.query import Query
from privfl_analytics.statistics.profile import DEFAULT_BINS, ProfileCounts
from privfl_analytics.study import Study
from privfl_analytics.view import Score, View

__all__ = ["again", "profile_queries", "profile_study"]

#: Bins of a score against its label: more would put more noise into the AUC than they take grid error out.
SCORE_BINS = 10


def profile_queries(
    schema: Schema,
    columns: Sequence[str] | None = None,
    *,
    score: Score | str | None = None,
    label: str | None = None,
    by: str | None = None,
    bins: int = DEFAULT_BINS,
    edges: Mapping[str, Sequence[float]] | None = None,
) -> tuple[Query, ...]:
    """One query per column, per score and label, and one of the score by the label.

    Args:
        columns: to watch; by default every number and category of the schema.
        score: a model's prediction, computed at the sites or a column of the schema. label: the outcome, a category.
        by: a category; everything is collected for each of its classes, at no further cost but smaller counts.
        bins: of numbers without ``edges``, equally wide over their bounds.

    Raises:
        Misuse: a column that is not there, or is text.
    """
    view = View(schema, (score,) if isinstance(score, Score) else ())
    name = score.name if isinstance(score, Score) else score
    asked = (
        columns if columns is not None else [one for one, kind in schema.columns.items() if not isinstance(kind, Text)]
    )
    watched = dict.fromkeys([*asked, *([label] if label else []), *([name] if name else [])])
    edges = edges or {}
    unknown = set(edges) - set(watched)
    if unknown:
        raise Misuse(f"edges are given for {min(unknown)!r}, which is not watched; there are {', '.join(watched)}")
    statistics = {
        one: ProfileCounts(column=one, bins=bins, edges=tuple(float(edge) for edge in edges.get(one, ())))
        for one in watched
        if one != by
    }
    if name and label:
        statistics[f"{name} by {label}"] = ProfileCounts(column=name, bins=SCORE_BINS, label=label)
    queries = []
    for title, statistic in statistics.items():
        query = Query(name=title, statistic=statistic)
        query = query.group_by(by) if by and label != by else query
        query.check(view)
        queries.append(query)
    return tuple(queries)


def profile_study(
    schema: Schema,
    columns: Sequence[str] | None = None,
    *,
    score: Score | str | None = None,
    label: str | None = None,
    by: str | None = None,
    bins: int = DEFAULT_BINS,
    edges: Mapping[str, Sequence[float]] | None = None,
    purpose: Literal["analytics", "monitoring"] = "monitoring",
) -> Study:
    """A study of :func:`profile_queries`; run it at training time, and again later, on the monitoring budget."""
    queries = profile_queries(schema, columns, score=score, label=label, by=by, bins=bins, edges=edges)
    scores = (score,) if isinstance(score, Score) else ()
    watched = ", ".join(query.title for query in queries)
    return Study(
        "profile",
        queries,
        scores=scores,
        purpose=purpose,  # a study takes the word, too
        description=f"Noisy counts over fixed cells, to see later whether data has drifted: {watched}.",
    )


def again(profile: Profile, schema: Schema) -> Study:
    """The study that collects later data into exactly the cells of a verified profile, with its own scores.

    Raises:
        Refused: a column is not there any more, or is declared otherwise. Misuse: one that a score weighs is gone.
    """
    view = profile.view(schema)
    profile.check_schema(view)
    queries = []
    for table in profile.tables:
        column = table.own[0]
        label = table.own[1].column if len(table.own) == 2 else None
        edges = tuple(float(edge) for edge in column.numbers)
        query = Query(name=table.name, statistic=ProfileCounts(column=column.column, edges=edges, label=label))
        queries.append(query.group_by(table.group) if table.group else query)
    return Study(
        "monitor",
        tuple(queries),
        scores=view.scores,
        purpose="monitoring",
        description=f"Noisy counts to compare with the reference profile of {profile.date}.",
    )
