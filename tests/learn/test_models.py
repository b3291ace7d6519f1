"""Models as plain numbers: folding, saving, loading, and files that are not models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_wine
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.svm import LinearSVC

from privfl.errors import Malformed, Misuse
from privfl.learn import load_model, save_model
from privfl.learn.models import EstimatorRef, _checksum, fitted, folded

WINE = load_wine(as_frame=True)
FEATURES = WINE.data[["alcohol", "hue", "proline"]].assign(proline=lambda frame: frame["proline"] / 300)
TEXT = WINE.target.map({0: "barolo", 1: "grignolino", 2: "barbera"})


@pytest.mark.parametrize(
    ("model", "label"),
    [
        (LogisticRegression(C=2.5, max_iter=500), TEXT),
        (LogisticRegression(), WINE.target == 1),
        (LinearSVC(random_state=1), WINE.target),
        (SGDClassifier(random_state=1, loss="log_loss"), TEXT),
        (Ridge(alpha=0.1), FEATURES["hue"] * 3),
        (LinearRegression(fit_intercept=False), FEATURES["hue"]),
    ],
    ids=lambda found: type(found).__name__,
)
def test_a_saved_model_predicts_the_same(model: object, label: pd.Series, tmp_path: Path) -> None:
    """What comes back from the file is fitted, of the same class and parameters, and predicts alike."""
    model.fit(FEATURES, label)  # type: ignore[attr-defined]
    again = load_model(save_model(model, tmp_path / "m.json"))
    assert type(again) is type(model)
    assert again.get_params() == model.get_params()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(again.predict(FEATURES), model.predict(FEATURES))  # type: ignore[attr-defined]
    if hasattr(model, "predict_proba"):
        np.testing.assert_allclose(again.predict_proba(FEATURES), model.predict_proba(FEATURES))


def test_a_model_without_feature_names_stays_without(tmp_path: Path) -> None:
    """Trained on an array, used on an array."""
    model = LogisticRegression().fit(FEATURES.to_numpy(), TEXT)
    again = load_model(save_model(model, tmp_path / "m.json"))
    np.testing.assert_array_equal(again.predict(FEATURES.to_numpy()), model.predict(FEATURES.to_numpy()))


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    """Anyone can read what is in it; saving twice gives the same bytes and leaves no other file."""
    model = LogisticRegression().fit(FEATURES, TEXT)
    path = save_model(model, tmp_path / "m.json")
    first = path.read_bytes()
    assert json.loads(first)["coef"] == model.coef_.tolist()
    assert save_model(model, path).read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


def test_saving_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """An unwritable place, an unfitted or foreign model: a typed error and nothing on disk."""
    with pytest.raises(Misuse, match="cannot write"):
        save_model(Ridge().fit(FEATURES, WINE.target), tmp_path / "missing" / "m.json")
    with pytest.raises(Misuse, match="not fitted"):
        save_model(Ridge(), tmp_path / "m.json")
    with pytest.raises(Misuse):
        save_model({"coef_": 1}, tmp_path / "m.json")
    assert list(tmp_path.iterdir()) == []


MODEL = LogisticRegression().fit(FEATURES, TEXT)


def test_damaged_files_are_malformed(tmp_path: Path) -> None:
    """Truncated, empty, foreign or altered files raise one typed error."""
    data = save_model(MODEL, tmp_path / "good.json").read_bytes()
    bad = tmp_path / "bad.json"
    for content in (b"", b"PK", b"[]", b"null", b"{}", b"[" * 100_000, b"\xff", data[:100], data[:-1], data + b"x"):
        bad.write_bytes(content)
        with pytest.raises(Malformed, match="save_model"):
            load_model(bad)
    with pytest.raises(Misuse, match="cannot read"):
        load_model(tmp_path / "none.json")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "privfl model 9"},
        {"path": "subprocess.Popen"},
        {"path": "sklearn.linear_model.Ridge"},
        {"params": '{"C": 1}'},
        {"params": '{"bogus":1}'},
        {"classes": ["only", "two"]},
        {"classes": None},
        {"names": ["too", "few"]},
        {"coef": [[1.0, 2.0, 3.0]]},
        {"coef": "many"},
        {"intercept": [1.0, None, 2.0]},
    ],
    ids=str,
)
def test_a_forged_header_is_malformed(change: dict[str, object], tmp_path: Path) -> None:
    """The header names a linear estimator that fits its numbers, or the file is refused."""
    body = json.loads(save_model(MODEL, tmp_path / "good.json").read_bytes())
    del body["sha256"]
    body |= change
    (tmp_path / "forged.json").write_text(json.dumps({**body, "sha256": _checksum(body)}))
    with pytest.raises(Malformed):
        load_model(tmp_path / "forged.json")


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    """Flip any one byte and the file no longer loads, or (white space aside) never as another model."""
    data = save_model(MODEL, tmp_path / "good.json").read_bytes()
    odd = tmp_path / "odd.json"
    for place in range(0, len(data), 7):
        odd.write_bytes(data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :])
        try:
            found = load_model(odd)
        except Malformed:
            continue
        # a digit beyond a float's precision may change without changing the float: then it is the same model
        assert np.array_equal(found.coef_, MODEL.coef_), place
        assert np.array_equal(found.intercept_, MODEL.intercept_), place


@given(
    coef=st.lists(st.floats(-5, 5), min_size=3, max_size=3),
    center=st.lists(st.floats(-100, 100), min_size=3, max_size=3),
    scale=st.lists(st.floats(0.01, 100), min_size=3, max_size=3),
)
def test_folding_changes_units_not_predictions(coef: list[float], center: list[float], scale: list[float]) -> None:
    """Coefficients for raw features predict what those for scaled features do."""
    raw = np.random.default_rng(1).normal(size=(10, 3)) * 50
    weights, middle, width = np.array([coef]), np.array(center), np.array(scale)
    scaled = ((raw - middle) / width) @ weights[0] + 0.5
    folded_coef, folded_intercept = folded(weights, np.array([0.5]), middle, width)
    np.testing.assert_allclose(raw @ folded_coef[0] + folded_intercept[0], scaled, rtol=1e-6, atol=1e-5)


def test_classes_in_declared_order_land_in_scikit_learns_order() -> None:
    """Rows of coefficients follow the declaration, whatever order scikit-learn keeps."""
    reference = EstimatorRef(path="sklearn.linear_model.LogisticRegression")
    at = pd.DataFrame({"a": [1.0], "b": [0.0]})
    two = fitted(reference, np.array([[5.0, 0.0]]), np.zeros(1), ("yes", "no"), ("a", "b"))
    assert two.predict(at)[0] == "no"  # the second declared class is the positive one
    three = fitted(reference, np.array([[0.0, 0], [9, 0], [1, 0]]), np.zeros(3), ("z", "y", "x"), ("a", "b"))
    assert three.predict(at)[0] == "y"


@pytest.mark.parametrize("params", ['{"n_jobs":64}', '{"max_iter":1000000000}', '{"max_iter":-1}'])
def test_a_task_cannot_make_sites_work_without_end(params: str) -> None:
    """Parameters that only cost the site its time are refused when the task is read, before anything is charged."""
    with pytest.raises(Misuse, match=r"n_jobs|max_iter"):
        EstimatorRef(path="sklearn.linear_model.LogisticRegression", params=params)
