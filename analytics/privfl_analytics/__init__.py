"""Federated analytics over privfl's engine: ask all sites together, see no site alone, pay from one ledger.

>>> from privfl_analytics import Query, Study, col
>>> study = Study("cohort", [Query().where(col("age") >= 50).group_by("sex").mean("bmi")])  # doctest: +SKIP

Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_WHERE = {
    "Answer": "answer",
    "FederatedKBinsDiscretizer": "preprocessing",
    "FederatedMinMaxScaler": "preprocessing",
    "FederatedOneHotEncoder": "preprocessing",
    "FederatedSimpleImputer": "preprocessing",
    "FederatedStandardScaler": "preprocessing",
    "History": "opened",
    "Opened": "opened",
    "PrivacyReport": "result",
    "Query": "query",
    "Row": "answer",
    "Score": "view",
    "Statistic": "statistic",
    "Study": "study",
    "StudyQuestion": "question",
    "StudyResult": "result",
    "View": "view",
    "bins": "query",
    "col": "predicates",
    "fit_preprocessing": "preprocessing",
    "frozen_columns": "preprocessing",
    "reference_schema": "feeding",
    "synthetic": "synthesis",
    "transformed_schema": "feeding",
    "transformed_table": "feeding",
}

__all__ = [
    "Answer",
    "FederatedKBinsDiscretizer",
    "FederatedMinMaxScaler",
    "FederatedOneHotEncoder",
    "FederatedSimpleImputer",
    "FederatedStandardScaler",
    "History",
    "Opened",
    "PrivacyReport",
    "Query",
    "Row",
    "Score",
    "Statistic",
    "Study",
    "StudyQuestion",
    "StudyResult",
    "View",
    "bins",
    "col",
    "fit_preprocessing",
    "frozen_columns",
    "reference_schema",
    "synthetic",
    "transformed_schema",
    "transformed_table",
]

if TYPE_CHECKING:
    from privfl_analytics.answer import Answer, Row
    from privfl_analytics.feeding import reference_schema, transformed_schema, transformed_table
    from privfl_analytics.opened import History, Opened
    from privfl_analytics.predicates import col
    from privfl_analytics.preprocessing import (
        FederatedKBinsDiscretizer,
        FederatedMinMaxScaler,
        FederatedOneHotEncoder,
        FederatedSimpleImputer,
        FederatedStandardScaler,
        fit_preprocessing,
        frozen_columns,
    )
    from privfl_analytics.query import Query, bins
    from privfl_analytics.question import StudyQuestion
    from privfl_analytics.result import PrivacyReport, StudyResult
    from privfl_analytics.statistic import Statistic
    from privfl_analytics.study import Study
    from privfl_analytics.synthesis import synthetic
    from privfl_analytics.view import Score, View


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'privfl_analytics' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"privfl_analytics.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
