"""Wrong calls are answered before anything is spent, by a message of one screen that names cause and next step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import privfl
from privfl.errors import BudgetExceeded, DataError, Misuse, PrivflError, Refused
from privfl.learn import Averaging, Linear, Logistic
from tests.runtime.support import QUICK, SCHEMA, SPEC, charged, federation, table, tables

local = privfl.Federation.local
ROWS = table(20)


def sites(**named: Any) -> dict[str, Any]:
    """Three tables, some replaced."""
    return {**tables(3), **named}


FEDERATIONS: dict[str, tuple[Callable[[], Any], type[PrivflError], str]] = {
    "no site": (lambda: local({}, SCHEMA), Misuse, "at least three"),
    "one site": (lambda: local({"north": ROWS}, SCHEMA), Misuse, "one site only.*at least three"),
    "two sites": (lambda: local(tables(2), SCHEMA), Misuse, "two sites only.*enrol a third"),
    "a name twice": (
        lambda: local([("a", ROWS), ("b", ROWS), ("a", ROWS)], SCHEMA),
        Misuse,
        "two sites are called 'a'",
    ),
    "a name twice in another case": (
        lambda: local({"North": ROWS, "north": ROWS, "b": ROWS}, SCHEMA),
        Misuse,
        "own name",
    ),
    "a name that is no text": (lambda: local({1: ROWS, 2: ROWS, 3: ROWS}, SCHEMA), Misuse, "name is text"),  # type: ignore[dict-item]
    "an empty name": (lambda: local(sites(**{"": ROWS}), SCHEMA), Misuse, "no usable name"),
    "a name with a line break": (lambda: local(sites(**{"a\nb": ROWS}), SCHEMA), Misuse, "no usable name"),
    "no table": (lambda: local(sites(north=None), SCHEMA), DataError, "site north: expected a pandas DataFrame"),
    "a schema without columns": (
        lambda: local(sites(), {"records": 3, "columns": {}}),
        Misuse,
        "at least one record and one column",
    ),
    "a schema that is no file": (lambda: local(sites(), Path("/nowhere.yaml")), Misuse, "cannot be read"),
    "a schema that is no YAML": (lambda: local(sites(), "a: ["), Misuse, "cannot be read as YAML"),
    "too many colluders": (lambda: local(sites(), SCHEMA, colluders=2), Misuse, "fewer than two honest"),
}


@pytest.mark.parametrize("case", FEDERATIONS)
def test_federations_that_cannot_be(case: str) -> None:
    """Names, number of sites, tables and schema are checked before a key is made."""
    call, kind, words = FEDERATIONS[case]
    with pytest.raises(kind, match=words) as caught:
        call()
    fits_a_screen(caught.value)


def fits_a_screen(error: BaseException) -> None:
    """At most twelve lines of eighty."""
    assert 0 < len(str(error)) <= 12 * 80


def test_all_sites_complaints_are_in_one_message() -> None:
    """Three sites with five faults are told at once, each by site and column."""
    broken = {
        "north": ROWS.drop(columns=["age", "ill"]),
        "south": ROWS.assign(dose="text"),
        "east": ROWS,
        "west": ROWS.drop(columns="dose").assign(age=1j),
    }
    with pytest.raises(DataError) as caught:
        local(broken, SCHEMA)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["site north", "site south", "site west"]
    assert "'age' is missing" in lines[0]
    assert "'ill' is missing" in lines[0]
    assert "'dose' is str" in lines[1] or "'dose' is object" in lines[1]
    assert "'dose' is missing" in lines[2]
    assert "'age' is complex128" in lines[2]


TRAININGS: dict[str, tuple[dict[str, Any], type[PrivflError], str]] = {
    "a schema without the label": ({"spec": Logistic(label="sex")}, DataError, "no label 'sex'.*dose, age, ill"),
    "a label of the wrong kind": ({"spec": Linear(label="ill")}, DataError, "must be a number"),
    "a feature that is none": ({"spec": Logistic(label="ill", features=("mass",))}, DataError, "'mass' is not"),
    "a budget too small for one round": ({"epsilon": 1e-6}, BudgetExceeded, "too small for one round.*raise epsilon"),
    "no budget": ({"epsilon": None}, Misuse, "needs epsilon and delta"),
    "a budget of zero": ({"epsilon": 0.0}, Misuse, "epsilon is 0"),
    "a budget that is no number": ({"epsilon": float("nan")}, Misuse, "epsilon is nan"),
    "a negative budget": ({"epsilon": -1.0}, Misuse, "epsilon is -1"),
    "delta of zero": ({"delta": 0.0}, Misuse, "strictly between 0 and 1"),
    "delta of one": ({"delta": 1.0}, Misuse, "strictly between 0 and 1"),
    "no rounds": ({"rounds": 0}, Misuse, "plan at least one"),
    "no attempts": ({"attempts": 0}, Misuse, "at least 1"),
    "a cohort below the minimum": ({"min_survivors": 2}, Misuse, r"outside \[3, 5\]"),
    "more survivors than sites": ({"min_survivors": 6}, Misuse, r"outside \[3, 5\]"),
    "a ring too small for the sum": ({"bits": 16}, Refused, "ring too small for the sum.*ask for"),
    "sigma below four units": (
        {"spec": Logistic(label="ill", feature_bits=1, residual_bits=1), "epsilon": 50.0, "rounds": 1},
        Refused,
        "needs 4",
    ),
    "an unknown trust": ({"trust": "blind"}, Misuse, "choose local or distributed"),
    "an unknown mode": ({"mode": "fast"}, Misuse, "choose auto, voted or complete"),
    "a held-out table without a column": ({"held_out": ROWS.drop(columns="age")}, DataError, "'age' is missing"),
    "a held-out table without labels": ({"held_out": ROWS.assign(ill=None)}, DataError, "no row .* usable label"),
    "averaging without noise by accident": (
        {"spec": Averaging(label="ill", estimator={"path": "sklearn.linear_model.SGDClassifier"}), "epsilon": None},
        Misuse,
        "unprotected=True",
    ),
}


@pytest.mark.parametrize("case", TRAININGS)
def test_trainings_that_cannot_be(case: str) -> None:
    """Every wrong argument is refused before a message is sent or a site charged."""
    changes, kind, words = TRAININGS[case]
    fed = federation(5)
    before = dict(fed._wire.sent_bytes)
    options = {**QUICK, **changes}
    with pytest.raises(kind, match=words) as caught:
        fed.train(options.pop("spec", SPEC), **options)
    fits_a_screen(caught.value)
    assert fed._wire.sent_bytes == before == {}
    assert all(not found for found in charged(fed).values())


def test_two_sites_that_accept_it_train_with_their_own_noise() -> None:
    """Nobody is forbidden what he asks for by name: local trust, no collusion; distributed trust stays refused."""
    fed = local(tables(2), SCHEMA, colluders="no site colludes")
    assert fed.train(SPEC, **QUICK, trust="local").rounds == 3
    with pytest.raises(Refused, match="use local trust"):
        fed.train(SPEC, **QUICK)


def test_the_same_noiseless_question_is_answered_once() -> None:
    """Averaging without noise a second time from the same start is refused by the sites, with the next step."""
    spec = Averaging(label="ill", estimator={"path": "sklearn.linear_model.SGDClassifier"}, unprotected=True)
    options = {**QUICK, "epsilon": None, "delta": None}
    fed = federation(3)
    assert fed.train(spec, **options).rounds == 3
    with pytest.raises(Refused, match="answered once per data version"):
        fed.train(spec, **options)
