"""Fitted encoders and discretisers of scikit-learn, from declared classes, declared bounds, or noisy quantiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from privfl.errors import Misuse
from privfl.tasks import Schema
from privfl_analytics.answer import Answer
from privfl_analytics.making import made
from privfl_analytics.query import MAX_NAME, Query
from privfl_analytics.transformers import FederatedTransformer
from privfl_analytics.view import View

__all__ = ["FederatedKBinsDiscretizer", "FederatedOneHotEncoder"]


class FederatedOneHotEncoder(FederatedTransformer):
    """:class:`sklearn.preprocessing.OneHotEncoder` of the declared classes, which costs nothing.

    By default a value that was not declared, or is missing, gets zeros. Text classes keep their declared order; others
    are sorted, as scikit-learn demands.
    """

    kind = "category"

    def fitted(self, answers: Mapping[str, Answer]) -> Any:
        """A fitted OneHotEncoder."""
        from sklearn.preprocessing import OneHotEncoder  # noqa: PLC0415

        view, classes = View(self.schema), []
        for name in self.columns:
            declared = view.category(name).classes
            text = isinstance(declared[0], str)
            classes.append(np.array(declared if text else sorted(declared), dtype=object if text else None))
        options = {"handle_unknown": "ignore", **self.options, "categories": classes}
        return OneHotEncoder(**options).fit(self._frame([one[0] for one in classes]))


class FederatedKBinsDiscretizer(FederatedTransformer):
    """:class:`sklearn.preprocessing.KBinsDiscretizer` with equal widths over the bounds, or equal shares of the rows.

    Args:
        n_bins: at least 2. strategy: ``uniform`` costs nothing; ``quantile`` asks for the quantiles between bins.
            Quantiles that coincide make one edge, as in scikit-learn.
    """

    def __init__(
        self,
        schema: Schema,
        columns: Sequence[str],
        *,
        n_bins: int = 5,
        strategy: Literal["quantile", "uniform"] = "quantile",
        **options: Any,
    ) -> None:
        super().__init__(schema, columns, **options)
        if strategy not in ("quantile", "uniform") or not 2 <= n_bins <= 100:
            raise Misuse("choose the strategy quantile or uniform, and 2 to 100 bins")
        self.n_bins, self.strategy = n_bins, strategy

    def queries(self) -> tuple[Query, ...]:
        """The quantiles of each column, or nothing."""
        if self.strategy == "uniform":
            return ()
        shares = tuple(at / self.n_bins for at in range(1, self.n_bins))
        return tuple(
            Query(
                self.schema,
                f"quantiles in {self.n_bins} {name}"[:MAX_NAME].strip(),
                made("quantiles", (), {"column": name, "q": shares}),
            )
            for name in self.columns
        )

    def fitted(self, answers: Mapping[str, Answer]) -> Any:
        """A fitted KBinsDiscretizer."""
        from sklearn.preprocessing import KBinsDiscretizer  # noqa: PLC0415

        view, asked, edges = View(self.schema), self.queries(), []
        for at, name in enumerate(self.columns):
            bounds = view.numeric(name)
            inner = np.linspace(bounds.lower, bounds.upper, self.n_bins + 1)[1:-1].tolist()
            if asked:
                inner = self._values(answers, asked[at], "quantile")
            found = np.array([bounds.lower, *np.maximum.accumulate(inner), bounds.upper])
            edges.append(found[np.ediff1d(found, to_begin=math.inf) > 1e-8])
        made_ = KBinsDiscretizer(n_bins=[len(one) - 1 for one in edges], strategy="uniform", **self.options)
        made_.fit(self._frame([one[0] for one in edges], [one[-1] for one in edges]))
        made_.set_params(n_bins=self.n_bins, strategy=self.strategy)
        for at, one in enumerate(edges):
            made_.bin_edges_[at] = one
        return made_
