"""scikit-learn preprocessing fitted over the whole federation: what comes back are scikit-learn's own fitted objects.

Each transformer here says what it needs to know (``queries``, none where the schema knows it already) and makes the
fitted object of the answers (``fitted``). :func:`fit_preprocessing` does both through one study:

>>> scaler, imputer = fit_preprocessing(ask, FederatedStandardScaler(schema, ["age"]),
...                                     FederatedSimpleImputer(schema, ["bmi"]))  # doctest: +SKIP

What noise does: a fitted number is off by about its standard error, so a scaled column has mean 0 and standard
deviation 1 only nearly, and a bin holds its share of rows only nearly. The same noisy numbers are used at every
site, which is what a model needs; nothing of them can be traced to a row. Numbers are those of present values,
clamped to the schema's bounds. An answer that was not resolved is refused, never replaced by a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from privfl.errors import Misuse
from privfl.tasks import Schema
from privfl_analytics.answer import Answer
from privfl_analytics.encoders import FederatedKBinsDiscretizer, FederatedOneHotEncoder
from privfl_analytics.query import Query
from privfl_analytics.study import Study
from privfl_analytics.transformers import (
    FederatedMinMaxScaler,
    FederatedSimpleImputer,
    FederatedStandardScaler,
    FederatedTransformer,
)

__all__ = [
    "FederatedKBinsDiscretizer",
    "FederatedMinMaxScaler",
    "FederatedOneHotEncoder",
    "FederatedSimpleImputer",
    "FederatedStandardScaler",
    "FederatedTransformer",
    "fit_preprocessing",
    "frozen_columns",
]


def fit_preprocessing(
    ask: Callable[[Study], Mapping[str, Answer]], *transformers: FederatedTransformer, name: str = "preprocessing"
) -> tuple[Any, ...]:
    """Fit transformers through one study; what two of them need is asked once.

    Args:
        ask: runs a study and gives its answers by name, such as ``federation.ask``.
        name: of the study.

    Returns:
        The fitted scikit-learn objects, in order. Nothing is asked where the schema is enough for all of them.

    Raises:
        Misuse: an answer was not resolved.
    """
    queries: dict[str, Query] = {}
    for query in (query for one in transformers for query in one.queries()):
        if queries.setdefault(query.name, query) != query:
            raise Misuse(f"two different queries are named {query.name!r}: shorten the names of the columns")
    answers = ask(Study(name, tuple(queries.values()))) if queries else {}
    return tuple(one.fitted(answers) for one in transformers)


def frozen_columns(schema: Schema, **steps: Any) -> Any:
    """A fitted :class:`sklearn.compose.ColumnTransformer` of fitted objects, ready for a pipeline.

    Its ``fit`` changes nothing: a pipeline around it can be fitted to a site's own rows without looking at them here.

    Args:
        schema: whose columns a table has. steps: name → fitted object, or several in a list for the same columns.

    Raises:
        Misuse: scikit-learn is older than 1.6.
    """
    from sklearn.compose import ColumnTransformer  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    try:
        from sklearn.frozen import FrozenEstimator  # noqa: PLC0415
    except ImportError:
        raise Misuse("frozen columns need scikit-learn 1.6 or later; use the fitted objects one by one") from None
    parts = []
    for name, step in steps.items():
        line = list(step) if isinstance(step, list | tuple) else [step]
        frozen = [FrozenEstimator(one) for one in line]
        columns = list(line[0].feature_names_in_)
        parts.append((name, frozen[0] if len(frozen) == 1 else make_pipeline(*frozen), columns))
    numbers = {name: [column.center] for name, column in schema.columns.items() if column.kind == "numeric"}
    first = {name: [column.classes[0]] for name, column in schema.columns.items() if column.kind == "category"}
    public = pd.DataFrame({name: {**numbers, **first}.get(name, [""]) for name in schema.columns})
    return ColumnTransformer(parts, verbose_feature_names_out=False).fit(public)
