"""After a charge nothing in a row changes what leaves: same messages, same sizes, whatever the tables hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier

from privfl.learn import Averaging, Linear, Logistic, Spec
from privfl.runtime import Federation, Fit
from privfl.wires import Envelope
from tests.harness import SeededEntropy
from tests.runtime.support import QUICK, SCHEMA, FixedClock, Watch, charged, table

CLEAN = table(40, 1)


def with_values(**columns: object) -> pd.DataFrame:
    """The clean table with whole columns replaced."""
    return CLEAN.assign(**columns)


ODD: dict[str, Callable[[], pd.DataFrame]] = {
    "no rows at all": lambda: CLEAN.iloc[:0],
    "one row": lambda: CLEAN.iloc[:1],
    "a hundred times the rows": lambda: pd.concat([CLEAN] * 100, ignore_index=True),
    "NaN everywhere": lambda: with_values(dose=np.nan, age=np.nan, ill=None),
    "NaN in a feature": lambda: with_values(dose=np.nan),
    "infinities": lambda: with_values(dose=np.where(CLEAN["ill"], np.inf, -np.inf)),
    "far out of bounds": lambda: with_values(age=1e300),
    "as small as numbers get": lambda: with_values(dose=5e-324),
    "no label": lambda: with_values(ill=None),
    "labels that nobody declared": lambda: with_values(ill=pd.Series(["perhaps"] * 40, dtype=object)),
    "one class only": lambda: with_values(ill=True),
    "nullable integers with gaps": lambda: with_values(age=pd.array([None, 50] * 20, dtype="Int64")),
    "a constant column": lambda: with_values(dose=0.0, age=50.0),
    "booleans as numbers": lambda: with_values(dose=CLEAN["ill"]),
    "an undeclared column and a strange index": lambda: CLEAN.assign(note="x").set_index(CLEAN["dose"]),
}
SPECS: dict[str, tuple[Spec, dict[str, Any]]] = {
    "logistic": (Logistic(label="ill"), {"epsilon": 8.0, "rounds": 2}),
    "linear": (Linear(label="age"), {"epsilon": 8.0}),
    "averaging by steps": (Averaging(label="ill", estimator=SGDClassifier(loss="log_loss")), {"epsilon": 50.0}),
    "averaging by fits": (Averaging(label="ill", estimator=LogisticRegression()), {"epsilon": 50.0}),
    "averaging numbers": (Averaging(label="age", estimator=LinearRegression()), {"epsilon": 50.0}),
}
Trace = list[tuple[bytes, bytes, str, int, tuple[int, ...], int]]


def traced(
    spec: Spec, options: dict[str, Any], odd: pd.DataFrame, watch: Watch | None
) -> tuple[Trace, Federation, Fit]:
    """All the wire shows of a run in which the first of three sites holds ``odd``; keys are the same each time."""
    bound = {"north": SCHEMA.bind(odd), "south": SCHEMA.bind(table(40, 2)), "east": SCHEMA.bind(table(40, 3))}
    fed = Federation(bound, SCHEMA, entropy=SeededEntropy("odd rows"), clock=FixedClock())
    trace: Trace = []

    def tap(recipient: bytes, data: bytes) -> None:
        one = Envelope.decode(data)
        sizes = tuple(body.size for body in one.bodies)
        trace.append((one.sender, recipient, one.kind, len(one.payload), sizes, len(data)))

    fed._wire.tap = tap
    fit = fed.train(spec, **{**QUICK, "rounds": 1, **options}, observer=watch and watch.observe)
    return trace, fed, fit


@pytest.mark.parametrize("name", SPECS)
def test_what_leaves_does_not_tell_odd_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifteen odd tables give the very trace of a clean one: messages, kinds, order, sizes and charges."""
    watch = Watch().install(monkeypatch)
    expected, clean, _ = traced(*SPECS[name], CLEAN, watch)
    assert len({kind for _, _, kind, *_ in expected}) >= 9
    for case, make in ODD.items():
        watch.vectors.clear()  # the same keys name the same slots
        found, fed, fit = traced(*SPECS[name], make(), watch)
        assert found == expected, case
        assert fit.rounds == SPECS[name][1].get("rounds", 1)
        assert fit.dropped == {}
        assert np.isfinite(fit.model.coef_).all(), case
        assert [len(one) for one in charged(fed).values()] == [len(one) for one in charged(clean).values()]


def test_oddities_are_counted_in_the_site_s_own_report_only(caplog: pytest.LogCaptureFixture) -> None:
    """The operator sees how many rows were odd; no log line, result or repr of anybody else says so."""
    caplog.set_level("DEBUG")
    dose = CLEAN["dose"].to_numpy().copy()
    dose[:3], dose[3:5], dose[5:12] = np.nan, np.inf, 77.0
    label = CLEAN["ill"].astype(object).to_numpy().copy()
    label[:13], label[13:17] = None, "perhaps"
    odd = with_values(dose=dose, ill=label)
    _, fed, fit = traced(Logistic(label="ill"), {"epsilon": 8.0}, odd, None)
    north = next(site for site in fed._sites.values() if site.name == "north")
    said = str(north.data.bound.report)
    assert "dose: 3 missing, 2 infinite, 7 out of bounds" in said
    assert "ill: 13 missing, 0 infinite, 0 out of bounds, 4 of unknown class" in said
    for shown in (caplog.text, repr(fed), repr(fit), fit.history.to_frame().to_string(), repr(north.node)):
        assert "missing" not in shown
        assert "perhaps" not in shown
    assert north.node is not None
    assert repr(north.node.report) == "LocalReport(<local only>)"
