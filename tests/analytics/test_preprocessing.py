"""Preprocessing: without noise the fitted objects transform as scikit-learn's own fits of the pooled rows do."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from privfl_analytics.preprocessing import (
    FederatedKBinsDiscretizer,
    FederatedMinMaxScaler,
    FederatedOneHotEncoder,
    FederatedSimpleImputer,
    FederatedStandardScaler,
    fit_preprocessing,
    frozen_columns,
)
from sklearn.base import clone
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.utils.validation import check_is_fitted

from privfl.errors import Misuse
from privfl.tasks import Schema
from tests.analytics.reference import answer

SCHEMA = Schema(
    records=300,
    columns={
        "age": {"lower": 0, "upper": 128},
        "bmi": {"lower": 0, "upper": 64, "missing": [-1]},
        "sex": {"classes": ["m", "f"]},
        "ill": {"classes": [False, True]},
        "stage": {"classes": [3, 1, 2]},
    },
)
ROW = st.tuples(
    st.integers(0, 128).map(float),
    st.one_of(st.integers(0, 64).map(float), st.just(np.nan)),
    st.sampled_from(["m", "f"]),
    st.booleans(),
    st.sampled_from([1, 2, 3]),
)
SITES = st.lists(st.lists(ROW, max_size=20), min_size=1, max_size=3).filter(lambda sites: sum(map(len, sites)) > 1)
FEW = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = list(SCHEMA.columns)


def frames(sites):
    return [pd.DataFrame(rows, columns=NAMES) for rows in sites]


def asker(tables, sd=0.0, seen=None):
    """Runs a study over tables, row by row; ``seen`` collects the names of what was asked."""

    def ask(study):
        if seen is not None:
            seen.extend(study.names)
        rng = np.random.default_rng(9)
        return {query.name: answer(query.statistic, SCHEMA, tables, sd=sd, rng=rng) for query in study.queries}

    return ask


def table(rng, size=200):
    return pd.DataFrame(
        {
            "age": rng.integers(20, 90, size).astype(float),
            "bmi": np.where(rng.random(size) < 0.1, np.nan, rng.integers(15, 40, size)),
            "sex": rng.choice(["m", "f", "f"], size),
            "ill": rng.random(size) < 0.3,
            "stage": rng.integers(1, 4, size),
        }
    )


@FEW
@given(SITES)
def test_a_standard_scaler_is_that_of_the_pooled_rows(sites):
    pooled = frames([[row for rows in sites for row in rows]])[0]
    if pooled.bmi.notna().sum() < 2 or np.ptp(pooled.bmi.dropna()) == 0 or np.ptp(pooled.age) == 0:
        return
    (found,) = fit_preprocessing(asker(frames(sites)), FederatedStandardScaler(SCHEMA, ["age", "bmi"]))
    want = StandardScaler().fit(pooled[["age", "bmi"]])
    for name in ("mean_", "var_", "scale_", "n_samples_seen_"):
        assert getattr(found, name) == pytest.approx(getattr(want, name), abs=1e-6)
    assert found.get_feature_names_out().tolist() == ["age", "bmi"]
    assert type(found) is StandardScaler
    assert found.transform(pooled[["age", "bmi"]]) == pytest.approx(
        want.transform(pooled[["age", "bmi"]]), nan_ok=True, abs=1e-6
    )


def test_a_scaler_keeps_its_options_and_a_constant_column():
    frame = pd.DataFrame({"age": [64.0] * 9, "bmi": np.arange(9.0)})
    (found,) = fit_preprocessing(asker([frame]), FederatedStandardScaler(SCHEMA, ["age", "bmi"], with_mean=False))
    assert found.scale_[0] == 1.0
    assert not found.with_mean
    assert clone(found).get_params() == found.get_params()
    (plain,) = fit_preprocessing(asker([frame]), FederatedStandardScaler(SCHEMA, ["age"], with_std=False))
    assert plain.transform(frame[["age"]]) == pytest.approx(np.zeros((9, 1)), abs=1e-9)


def test_a_min_max_scaler_takes_the_bounds_for_nothing_or_asks_for_percentiles():
    seen, frame = [], table(np.random.default_rng(1))
    bounds, percentiles = fit_preprocessing(
        asker([frame], seen=seen),
        FederatedMinMaxScaler(SCHEMA, ["age", "bmi"]),
        FederatedMinMaxScaler(SCHEMA, ["age"], source="percentiles", clip=True),
    )
    assert seen == ["range 0.01 0.99 age"]
    want = MinMaxScaler().fit(pd.DataFrame({"age": [0, 128], "bmi": [0, 64]}))
    assert bounds.transform(frame[["age", "bmi"]]) == pytest.approx(want.transform(frame[["age", "bmi"]]), nan_ok=True)
    assert percentiles.data_min_ == pytest.approx([frame.age.quantile(0.01)], abs=1.0)
    assert percentiles.data_max_ == pytest.approx([frame.age.quantile(0.99)], abs=1.0)
    assert percentiles.transform(pd.DataFrame({"age": [0.0, 128.0]})).ravel().tolist() == [0.0, 1.0]


@FEW
@given(SITES)
def test_imputers_fill_in_what_scikit_learns_do(sites):
    pooled = frames([[row for rows in sites for row in rows]])[0]
    mean, most = fit_preprocessing(
        asker(frames(sites)),
        FederatedSimpleImputer(SCHEMA, ["age"]),
        FederatedSimpleImputer(SCHEMA, ["sex"], strategy="most_frequent"),
    )
    assert mean.statistics_ == pytest.approx(SimpleImputer().fit(pooled[["age"]]).statistics_)
    holes = pd.DataFrame({"age": [np.nan, 3.0]})
    assert mean.transform(holes).ravel() == pytest.approx([pooled.age.mean(), 3.0])
    counts = pooled.sex.value_counts()
    assert counts[most.statistics_[0]] == counts.max()
    assert most.transform(pd.DataFrame({"sex": ["m", None]}, dtype=object)).ravel().tolist()[0] == "m"


def test_a_median_imputer_takes_the_median_to_its_bin():
    frame = table(np.random.default_rng(2))
    (found,) = fit_preprocessing(asker([frame]), FederatedSimpleImputer(SCHEMA, ["bmi"], strategy="median"))
    assert found.statistics_[0] == pytest.approx(frame.bmi.median(), abs=0.6)


def test_an_encoder_has_the_declared_classes_and_asks_nothing():
    def ask(study):
        raise AssertionError("nothing has to be asked")

    (found,) = fit_preprocessing(ask, FederatedOneHotEncoder(SCHEMA, ["sex", "ill", "stage"], sparse_output=False))
    frame = table(np.random.default_rng(3))[["sex", "ill", "stage"]]
    want = OneHotEncoder(categories=[["m", "f"], [False, True], [1, 2, 3]], sparse_output=False).fit(frame)
    assert (found.transform(frame) == want.transform(frame)).all()
    assert found.get_feature_names_out().tolist() == want.get_feature_names_out().tolist()
    assert found.transform(pd.DataFrame({"sex": ["x"], "ill": [True], "stage": [9]})).tolist() == [
        [0, 0, 0, 1, 0, 0, 0]
    ]


def test_a_discretiser_has_uniform_or_equally_filled_bins():
    frame = table(np.random.default_rng(4), 1000)
    uniform, quantile = fit_preprocessing(
        asker([frame]),
        FederatedKBinsDiscretizer(SCHEMA, ["age", "bmi"], n_bins=4, strategy="uniform"),
        FederatedKBinsDiscretizer(SCHEMA, ["age"], n_bins=4, encode="ordinal"),
    )
    assert uniform.bin_edges_[1].tolist() == [0, 16, 32, 48, 64]
    wide = KBinsDiscretizer(4, strategy="uniform").fit(pd.DataFrame({"age": [0.0, 128], "bmi": [0.0, 64]}))
    whole = frame[["age", "bmi"]].dropna()
    assert (uniform.transform(whole) != wide.transform(whole)).nnz == 0
    shares = np.bincount(quantile.transform(frame[["age"]]).astype(int).ravel()) / 1000
    assert shares == pytest.approx([0.25] * 4, abs=0.03)
    assert quantile.get_params()["strategy"] == "quantile"
    assert clone(quantile).n_bins == 4


def test_quantiles_that_coincide_make_one_edge():
    frame = pd.DataFrame({"age": [0.0] * 90 + [100.0] * 10, "bmi": 1.0})
    (found,) = fit_preprocessing(asker([frame]), FederatedKBinsDiscretizer(SCHEMA, ["age"], n_bins=5))
    assert found.n_bins_[0] == len(found.bin_edges_[0]) - 1
    assert found.transform(frame[["age"]]).shape == (100, found.n_bins_[0])


def test_fitted_objects_feed_a_pipeline_and_a_column_transformer():
    frame = table(np.random.default_rng(5))
    imputer, scaler, encoder = fit_preprocessing(
        asker([frame], sd=1.0),
        FederatedSimpleImputer(SCHEMA, ["age", "bmi"]),
        FederatedStandardScaler(SCHEMA, ["age", "bmi"]),
        FederatedOneHotEncoder(SCHEMA, ["sex"]),
    )
    for one in (imputer, scaler, encoder):
        check_is_fitted(one)
    imputer.set_output(transform="pandas")
    columns = frozen_columns(SCHEMA, numbers=[imputer, scaler], classes=encoder)
    found = columns.transform(frame)
    assert columns.get_feature_names_out().tolist() == ["age", "bmi", "sex_m", "sex_f"]
    assert found[:, :2] == pytest.approx(scaler.transform(imputer.transform(frame[["age", "bmi"]])))
    model = make_pipeline(columns, LogisticRegression()).fit(frame, frame.ill)
    assert model.predict(frame).shape == (200,)
    assert make_pipeline(columns).transform(frame.iloc[:1]) == pytest.approx(found[:1])


def test_what_several_need_is_asked_once():
    seen, frame = [], table(np.random.default_rng(6))
    fit_preprocessing(
        asker([frame], seen=seen), FederatedSimpleImputer(SCHEMA, ["age"]), FederatedStandardScaler(SCHEMA, ["age"])
    )
    assert seen == ["mean age", "variance age"]


@pytest.mark.parametrize(
    "transformer",
    [
        FederatedStandardScaler(SCHEMA, ["age"]),
        FederatedMinMaxScaler(SCHEMA, ["age"], source="percentiles"),
        FederatedSimpleImputer(SCHEMA, ["sex"], strategy="most_frequent"),
        FederatedKBinsDiscretizer(SCHEMA, ["age"]),
    ],
)
def test_nothing_is_fitted_from_what_was_not_resolved(transformer):
    with pytest.raises(Misuse, match="larger epsilon"):
        fit_preprocessing(asker([table(np.random.default_rng(7))], sd=1e5), transformer)
    with pytest.raises(Misuse, match="there is no answer"):
        transformer.fitted({})


def test_what_does_not_fit_is_refused_in_words():
    with pytest.raises(Misuse, match="number is needed"):
        FederatedStandardScaler(SCHEMA, ["sex"])
    with pytest.raises(Misuse, match="category with declared classes"):
        FederatedSimpleImputer(SCHEMA, ["age"], strategy="most_frequent")
    with pytest.raises(Misuse, match="did you mean"):
        FederatedOneHotEncoder(SCHEMA, ["sx"])
    with pytest.raises(Misuse, match="in a list"):
        FederatedMinMaxScaler(SCHEMA, "age")
    with pytest.raises(Misuse, match="bounds or percentiles"):
        FederatedMinMaxScaler(SCHEMA, ["age"], source="data")
    with pytest.raises(Misuse, match="mean, median"):
        FederatedSimpleImputer(SCHEMA, ["age"], strategy="constant")
    with pytest.raises(Misuse, match="add_indicator"):
        FederatedSimpleImputer(SCHEMA, ["age"], add_indicator=True)
    with pytest.raises(Misuse, match="2 to 100"):
        FederatedKBinsDiscretizer(SCHEMA, ["age"], n_bins=1)
