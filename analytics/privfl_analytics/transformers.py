"""Which sums each scikit-learn transformer needs, and how its fitted object is made of the answers.

Fitted objects are made by fitting scikit-learn's own class to a small public table that has the wanted numbers, so
that every attribute that the installed version looks at is there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from privfl.errors import Misuse
from privfl.tasks import Schema
from privfl_analytics.answer import Answer
from privfl_analytics.making import made
from privfl_analytics.query import MAX_NAME, Query
from privfl_analytics.view import View

__all__ = [
    "FederatedMinMaxScaler",
    "FederatedSimpleImputer",
    "FederatedStandardScaler",
    "FederatedTransformer",
]


class FederatedTransformer(ABC):
    """Some columns of a schema and one scikit-learn transformer for them.

    Args:
        schema: what the federation agreed on.
        columns: in the order in which the transformer takes them.
        options: parameters of the scikit-learn class.

    Raises:
        Misuse: no column, one twice, or one of another kind.
    """

    kind: ClassVar[Literal["numeric", "category", "any"]] = "numeric"

    def __init__(self, schema: Schema, columns: Sequence[str], **options: Any) -> None:
        view = View(schema)
        self.schema, self.columns, self.options = schema, tuple(columns), options
        if isinstance(columns, str) or not self.columns or len(set(self.columns)) != len(self.columns):
            raise Misuse("name the columns in a list, each once, such as ['age', 'bmi']")
        for name in self.columns:
            {"numeric": view.numeric, "category": view.category, "any": view.column}[self.kind](name)

    def queries(self) -> tuple[Query, ...]:
        """What has to be asked; empty where the schema is enough. Equal queries have equal names."""
        return ()

    @abstractmethod
    def fitted(self, answers: Mapping[str, Answer]) -> Any:
        """The fitted scikit-learn object from the answers by the names of :meth:`queries`.

        Raises:
            Misuse: an answer is missing or was not resolved.
        """

    def _ask(self, statistic: str, column: str, **options: Any) -> Query:
        said = " ".join([statistic, *(f"{value:g}" for value in options.values() if isinstance(value, float)), column])
        return Query(self.schema, said[:MAX_NAME].strip(), made(statistic, (), {"column": column, **options}))

    def _values(self, answers: Mapping[str, Answer], query: Query, what: str) -> list[float]:
        """Every number of this kind in the answer to a query."""
        if query.name not in answers:
            raise Misuse(f"there is no answer {query.name!r}; ask what queries() says, under the names that it gives")
        found = [row for row in answers[query.name].rows if row.what == what]
        if not found or any(row.value is None for row in found):
            why = next((row.note for row in found if row.value is None), "not in the answer")
            raise Misuse(f"{query.name}: {why or 'not resolved'}; ask with a larger epsilon, or for fewer columns")
        return [float(row.value) for row in found if row.value is not None]

    def _frame(self, *rows: Sequence[Any]) -> pd.DataFrame:
        """A public table of these columns."""
        lines = zip(*rows, strict=True)
        return pd.DataFrame({name: list(values) for name, values in zip(self.columns, lines, strict=True)})


class FederatedStandardScaler(FederatedTransformer):
    """:class:`sklearn.preprocessing.StandardScaler` from the mean and the variance of each column.

    ``n_samples_seen_`` is the noisy number of present values. A column whose variance is 0 is only centred.
    """

    def queries(self) -> tuple[Query, ...]:
        """Mean and variance of each column."""
        return tuple(self._ask(what, name) for name in self.columns for what in ("mean", "variance"))

    def fitted(self, answers: Mapping[str, Answer]) -> Any:
        """A fitted StandardScaler."""
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - slow to import

        asked = self.queries()
        mean = np.array([self._values(answers, one, "mean")[0] for one in asked[::2]])
        spread = np.array([self._values(answers, one, "variance")[0] for one in asked[1::2]])
        seen = np.array([max(round(self._values(answers, one, "count")[0]), 1) for one in asked[::2]])
        scaler = StandardScaler(**self.options).fit(self._frame((mean - 1).tolist(), (mean + 1).tolist()))
        scaler.n_samples_seen_ = np.int64(seen[0]) if (seen == seen[0]).all() else seen
        if scaler.mean_ is not None:
            scaler.mean_ = mean
        if scaler.scale_ is not None:  # scikit-learn divides by n, the unbiased variance by n - 1
            scaler.var_ = spread * (seen - 1) / seen
            scaler.scale_ = np.where(scaler.var_ > 0, np.sqrt(scaler.var_), 1.0)
        return scaler


class FederatedMinMaxScaler(FederatedTransformer):
    """:class:`sklearn.preprocessing.MinMaxScaler` from public bounds, or from the 1st and 99th percentile.

    Args:
        source: ``bounds`` of the schema, which cost nothing, or ``percentiles``. An exact minimum or maximum is one
            row's value; with percentiles, values beyond them leave the range unless ``clip=True``.
    """

    def __init__(
        self,
        schema: Schema,
        columns: Sequence[str],
        *,
        source: Literal["bounds", "percentiles"] = "bounds",
        **options: Any,
    ) -> None:
        super().__init__(schema, columns, **options)
        if source not in ("bounds", "percentiles"):
            raise Misuse(f"source is {source!r}; choose bounds or percentiles")
        self.source = source

    def queries(self) -> tuple[Query, ...]:
        """Two percentiles of each column, or nothing."""
        if self.source == "bounds":
            return ()
        return tuple(self._ask("range", name, low=0.01, high=0.99) for name in self.columns)

    def fitted(self, answers: Mapping[str, Answer]) -> Any:
        """A fitted MinMaxScaler."""
        from sklearn.preprocessing import MinMaxScaler  # noqa: PLC0415

        view = View(self.schema)
        low = [view.numeric(name).lower for name in self.columns]
        high = [view.numeric(name).upper for name in self.columns]
        if self.source == "percentiles":
            low = [self._values(answers, one, "p1")[0] for one in self.queries()]
            high = [self._values(answers, one, "p99")[0] for one in self.queries()]
        return MinMaxScaler(**self.options).fit(self._frame(low, high))


class FederatedSimpleImputer(FederatedTransformer):
    """:class:`sklearn.impute.SimpleImputer` with the mean, the median, or the class that is most frequent.

    Args:
        strategy: ``mean`` or ``median`` of numbers, ``most_frequent`` of categories. Where classes are about equally
            frequent, noise decides between them.
    """

    kind = "any"

    def __init__(
        self,
        schema: Schema,
        columns: Sequence[str],
        *,
        strategy: Literal["mean", "median", "most_frequent"] = "mean",
        **options: Any,
    ) -> None:
        if strategy not in ("mean", "median", "most_frequent"):
            raise Misuse(f"strategy is {strategy!r}; choose mean, median or most_frequent")
        if options.get("add_indicator"):
            raise Misuse("which columns have missing values is not known in public; leave add_indicator out")
        super().__init__(schema, columns, **options)
        self.strategy, view = strategy, View(schema)
        for name in self.columns:
            (view.category if strategy == "most_frequent" else view.numeric)(name)

    def queries(self) -> tuple[Query, ...]:
        """Mean or median of each column, or its counts by class."""
        what = "values" if self.strategy == "most_frequent" else self.strategy
        return tuple(self._ask(what, name) for name in self.columns)

    def fitted(self, answers: Mapping[str, Answer]) -> Any:
        """A fitted SimpleImputer."""
        from sklearn.impute import SimpleImputer  # noqa: PLC0415

        if self.strategy == "most_frequent":
            fill: list[Any] = [
                self._most(answers, one, name) for one, name in zip(self.queries(), self.columns, strict=True)
            ]
        else:
            fill = [self._values(answers, one, self.strategy)[0] for one in self.queries()]
        frame = self._frame(fill)
        if self.strategy == "most_frequent":
            frame = frame.astype(object)
        return SimpleImputer(strategy=self.strategy, **self.options).fit(frame)

    def _most(self, answers: Mapping[str, Answer], query: Query, name: str) -> Any:
        """The class with the largest noisy count; counts that are not shown are small."""
        if query.name not in answers:
            raise Misuse(f"there is no answer {query.name!r}; ask what queries() says, under the names that it gives")
        classes = {str(one): one for one in View(self.schema).category(name).classes}
        counts = {row.at[name]: row.value for row in answers[query.name].rows if row.what == "count" and row.at}
        known = {label: counts[label] for label in classes if counts.get(label) is not None}
        if not known:
            raise Misuse(f"{query.name}: not resolved; ask with a larger epsilon, or for fewer columns")
        return classes[max(known, key=lambda label: known[label] or 0.0)]
