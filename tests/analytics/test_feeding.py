"""Preprocessing fitted over a federation feeds the training task of the same federation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from privfl_analytics import (
    FederatedKBinsDiscretizer,
    FederatedOneHotEncoder,
    FederatedSimpleImputer,
    FederatedStandardScaler,
    Study,
    fit_preprocessing,
    frozen_columns,
)
from privfl_analytics.feeding import reference_schema, transformed_schema, transformed_table
from sklearn.preprocessing import StandardScaler

import privfl
from privfl.errors import Misuse
from privfl.tasks import Schema

SCHEMA = Schema.from_dict(
    {
        "name": "cohort",
        "records": 1500,
        "columns": {
            "dose": {"lower": 0, "upper": 3000, "unit": "mg"},  # wide bounds: the middle says nothing
            "age": {"lower": 0, "upper": 120},
            "sex": {"classes": ["f", "m"]},
            "ill": {"classes": [False, True]},
        },
    }
)


def rows(seed: int, size: int = 500) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    dose, age, male = rng.normal(300, 60, size), rng.normal(50, 15, size), rng.random(size) < 0.5
    ill = rng.random(size) < 1 / (1 + np.exp(-((dose - 300) / 30 + 1.5 * male - 0.75)))
    dose = np.where(rng.random(size) < 0.05, np.nan, dose)
    return pd.DataFrame({"dose": dose, "age": age, "sex": np.where(male, "m", "f"), "ill": ill})


TABLES = {name: rows(at) for at, name in enumerate(("north", "south", "east"))}
HELD = rows(9, 2000).dropna()


def ask(study: Study) -> object:
    return privfl.Federation.local(TABLES, SCHEMA).ask(study, epsilon=400.0, delta=1e-6, progress=False)


def trained(schema: Schema, tables: dict[str, pd.DataFrame], held: pd.DataFrame, **options: object) -> float:
    federation = privfl.Federation.local(tables, schema)
    fit = federation.train(
        privfl.Logistic(label="ill", **options), epsilon=20.0, delta=1e-5, rounds=12, progress=False, held_out=held
    )
    return float(fit.held_out["score"].iloc[-1])


def test_a_fitted_scaler_becomes_the_schema_s_reference_and_training_gains_from_it() -> None:
    """Centre and scale are the noisy mean and spread; with wide bounds a model learns from them, else hardly."""
    (scaler,) = fit_preprocessing(ask, FederatedStandardScaler(SCHEMA, ["dose", "age"]))
    schema = reference_schema(SCHEMA, scaler)
    assert (schema.name, schema.version) == ("cohort", 2)
    assert schema.columns["dose"].center == pytest.approx(300, abs=15)  # type: ignore[union-attr]
    assert schema.columns["dose"].scale == pytest.approx(60, rel=0.4)  # type: ignore[union-attr]
    assert schema.columns["sex"] == SCHEMA.columns["sex"]
    assert trained(schema, TABLES, HELD) > trained(SCHEMA, TABLES, HELD) + 0.05


def test_transformed_tables_bind_by_a_schema_whose_bounds_are_public() -> None:
    """Bins, imputed numbers and classes become columns; every transformed row lies within the derived bounds."""
    imputer, bins, classes = fit_preprocessing(
        ask,
        FederatedSimpleImputer(SCHEMA, ["dose"]),
        FederatedKBinsDiscretizer(SCHEMA, ["age"], n_bins=4, encode="onehot-dense", strategy="uniform"),
        FederatedOneHotEncoder(SCHEMA, ["sex"]),
    )
    columns = frozen_columns(SCHEMA, dose=imputer, age=bins, sex=classes)
    schema = transformed_schema(SCHEMA, columns, keep=("ill",))
    assert "ill" in schema.columns
    assert len(schema.numeric) == 1 + 4 + 2
    tables = {name: transformed_table(columns, table, keep=("ill",)) for name, table in TABLES.items()}
    for table in tables.values():
        for name in schema.numeric:
            column = schema.columns[name]
            assert table[name].between(column.lower, column.upper).all()  # type: ignore[union-attr]
    assert set(privfl.Federation.local(tables, schema).names) == set(TABLES)


def test_what_cannot_feed_a_task_is_refused_in_words() -> None:
    """An object that is no fitted scaler, a column that the schema does not have, a kept column that is not there."""
    with pytest.raises(Misuse, match="StandardScaler"):
        reference_schema(SCHEMA, StandardScaler())
    with pytest.raises(Misuse, match="no numeric column"):
        reference_schema(SCHEMA, StandardScaler().fit(pd.DataFrame({"height": [1.0, 2.0]})))
    (scaler,) = fit_preprocessing(ask, FederatedStandardScaler(SCHEMA, ["age"]))
    with pytest.raises(Misuse, match="cannot keep"):
        transformed_schema(SCHEMA, frozen_columns(SCHEMA, age=scaler), keep=("label",))
