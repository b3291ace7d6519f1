"""Drift is found where there is some, and noise is not taken for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from privfl_analytics.constructions import COUNT_SCALE
from privfl_analytics.monitor import DriftReport, Limit, Profile, Thresholds, compare
from scipy.spatial.distance import jensenshannon
from scipy.stats import binom, wasserstein_distance
from sklearn.metrics import roc_auc_score

from privfl.errors import Misuse
from tests.analytics.monitor.profiles import drawn, patients, plain, profile

TINY = Limit(warn=1e-9, alert=1e-9)
OFF = {"ks": None, "jensen_shannon": None, "total_variation": None, "missing": None}
SHARES = np.array([0.05, 0.1, 0.15, 0.2, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02])


def cells(shares: np.ndarray) -> np.ndarray:
    """With nobody missing."""
    return np.append(shares, 0.0)


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.0), (10.0, 50.0), (50.0, 50.0)])
def test_noise_raises_no_more_alarms_than_it_may(before: float, after: float) -> None:
    """At the 5 % level at most 7 % of comparisons without drift alarm, whatever the two noises and sizes are."""
    rng, runs, alarms = np.random.default_rng(5), 300, 0
    limits = Thresholds(psi=TINY, **OFF)
    for _ in range(runs):
        reference = plain({"x": drawn(rng, cells(SHARES), 5000, before)}, before)
        later = plain({"x": drawn(rng, cells(SHARES), 2000, after)}, after)
        limits_ = limits.model_copy(update={"draws": 300})
        alarms += compare(reference, later, limits_, rng=rng).status in ("drift", "warn")
    assert alarms <= 0.07 * runs
    assert alarms >= binom.ppf(0.001, runs, 0.02), "a test that never alarms finds nothing either"


@pytest.mark.parametrize(("before", "after", "floor"), [(5.0, 15.0, 0), (3.0, 40.0, 10)])
def test_every_measure_s_p_values_are_what_they_say(before: float, after: float, floor: int) -> None:
    """Of each measure of each column about 5 % are at most 0.05 without drift, with hidden cells, too."""
    rng, runs, low = np.random.default_rng(17), 100, Counter[tuple[str, str]]()
    base = profile(patients(rng, 20_000))
    limits = Thresholds(draws=200, **OFF, psi=None, auc=None, brier=None, calibration=None)
    for _ in range(runs):
        sides = [redrawn(base, rng, *how) for how in ((5000, before, floor), (2000, after, floor))]
        for one in compare(*sides, limits, rng=rng).findings:
            low[one.column, one.measure] += one.p is not None and one.p <= 0.05
    assert {"auc", "brier", "calibration_error", "psi", "missing", "wasserstein"} <= {name for _, name in low}
    assert max(low.values()) <= binom.ppf(0.9995, runs, 0.05), low
    assert np.mean(list(low.values())) <= 0.065 * runs


def redrawn(base: Profile, rng: np.random.Generator, rows: int, sd: float, floor: int) -> Profile:
    """The profile of so many other rows of the same distribution."""
    tables = []
    for table in base.tables:
        shares = table.array.ravel() / table.array.sum()
        counts = rng.multinomial(rows, shares) + rng.normal(0, sd, len(shares))
        counts = np.where(counts < floor, 0, counts) if floor else counts
        whole = tuple(int(one) for one in np.rint(counts * COUNT_SCALE))
        tables.append(replace(table, counts=whole, sd=repr(sd), floor=floor))
    return replace(base, tables=tuple(tables))


def test_many_columns_and_measures_share_one_level() -> None:
    """Holm over all of them: without drift hardly any comparison of six columns alarms."""
    rng, runs, alarms = np.random.default_rng(6), 60, 0
    every = dict.fromkeys(("psi", "ks", "jensen_shannon", "total_variation", "missing"), TINY)
    limits = Thresholds(draws=600, **every)
    for _ in range(runs):
        sides = [
            plain({f"x{at}": drawn(rng, np.append(0.95 * SHARES, 0.05), size, 20) for at in range(6)}, 20)
            for size in (4000, 2000)
        ]
        alarms += compare(sides[0], sides[1], limits, rng=rng).status in ("drift", "warn")
    assert alarms <= binom.ppf(0.999, runs, 0.05)


def test_the_null_of_psi_is_what_noise_alone_shows() -> None:
    """n = 2000 in ten equal cells under noise of 50 show a PSI of about 0.067 without any drift."""
    rng, equal = np.random.default_rng(7), np.full(10, 0.1)
    reference = plain({"x": cells(equal) * 1e7}, 0.0)
    found = [
        compare(reference, plain({"x": drawn(rng, cells(equal), 2000, 50)}, 50), Thresholds(draws=200), rng=rng)
        for _ in range(40)
    ]
    psi = [next(one for one in report.findings if one.measure == "psi") for report in found]
    assert np.mean([one.value for one in psi]) == pytest.approx(0.067, rel=0.2)
    assert np.mean([one.null_mean for one in psi]) == pytest.approx(0.067, rel=0.25)
    assert abs(np.mean([one.excess for one in psi])) < 0.02
    assert sum(report.status in ("warn", "drift") for report in found) <= binom.ppf(0.999, 40, 0.05)


def test_without_noise_measures_are_those_of_the_pooled_rows() -> None:
    """Against numpy, SciPy and scikit-learn on the rows themselves."""
    rng = np.random.default_rng(8)
    first, second = patients(rng, 1500), patients(rng, 900, older=6)
    report = compare(profile(first), profile(second), Thresholds(draws=200), rng=rng)
    edges = np.linspace(0, 100, 11)
    p, q = (np.histogram(one["age"].dropna(), edges)[0] for one in (first, second))
    p, q, middles = p / p.sum(), q / q.sum(), (edges[1:] + edges[:-1]) / 2
    p4, q4 = np.maximum(p, 1e-4), np.maximum(q, 1e-4)
    want = {
        "psi": ((q4 - p4) * np.log(q4 / p4)).sum(),
        "ks": np.abs(np.cumsum(q - p)).max(),
        "jensen_shannon": jensenshannon(p, q, base=2) ** 2,
        "wasserstein": wasserstein_distance(middles, middles, p, q),
        "total_variation": np.abs(q - p).sum() / 2,
        "missing": second["age"].isna().mean() - first["age"].isna().mean(),
    }
    got = {one.measure: one.value for one in report.findings if one.column == "age"}
    assert got == pytest.approx(want, abs=1e-9)
    grid = [np.clip((one["risk"] * 10).astype(int), 0, 9) for one in (first, second)]
    auc = [roc_auc_score(one["ill"], at) for one, at in zip((first, second), grid, strict=True)]
    change = next(one for one in report.findings if one.measure == "auc")
    assert change.value == pytest.approx(auc[1] - auc[0])


@pytest.mark.parametrize("sd", [2.0, 10.0])
def test_real_drift_is_found_under_noise(sd: float) -> None:
    """Ten years older: the age and the score have drifted, the sexes have not."""
    rng = np.random.default_rng(9)
    report = compare(
        profile(patients(rng, 3000), sd=sd), profile(patients(rng, 2000, older=10), sd=sd, seed=2), rng=rng
    )
    assert report.columns["age"] == "drift"
    assert report.columns["risk"] == "drift"
    assert report.columns["sex"] == "ok"
    assert (report.status, report.exit_code) == ("drift", 11)
    psi = next(one for one in report.findings if (one.column, one.measure) == ("age", "psi"))
    assert psi.p_adjusted is not None
    assert psi.p_adjusted <= 0.05
    assert psi.excess is not None
    assert psi.value is not None
    assert 0.2 < psi.excess < psi.value


def test_missing_values_that_appear_are_found() -> None:
    """The share of missing values is watched beside the distribution of what is there."""
    rng = np.random.default_rng(10)
    before, after = patients(rng, 3000), patients(rng, 3000, missing=0.25)
    report = compare(profile(before, sd=5, scored=False), profile(after, sd=5, seed=2, scored=False), rng=rng)
    found = {one.measure: one.status for one in report.findings if one.column == "age"}
    assert found["missing"] == "drift"
    assert found["psi"] == "ok"


def test_a_small_change_warns_and_one_below_the_limit_does_not() -> None:
    """Statistically plain is not enough: the limit counts."""
    rng = np.random.default_rng(11)
    moved = SHARES + np.array([0.0, 0.0, -0.006, -0.006, 0, 0, 0, 0.006, 0.006, 0])
    reference = plain({"x": cells(SHARES) * 1e6}, 10.0)
    later = plain({"x": cells(moved) * 1e6}, 10.0)
    assert compare(reference, later, rng=rng).status == "ok"
    warned = compare(reference, later, Thresholds(psi=Limit(warn=1e-4, alert=0.2)), rng=rng)
    assert (warned.status, warned.exit_code) == ("warn", 10)


def test_noise_that_hides_an_alert_is_said_to_hide_it() -> None:
    """Neither ok nor drift: 300 people under noise of 60 could hide anything; 20 people are not there at all."""
    rng = np.random.default_rng(12)
    reference = plain({"x": cells(SHARES) * 5000}, 5.0)
    hidden = compare(reference, plain({"x": drawn(rng, cells(SHARES), 800, 60)}, 60.0), rng=rng)
    assert (hidden.status, hidden.exit_code) == ("unresolved", 12)
    drowned = compare(reference, plain({"x": cells(SHARES) * 20}, 60.0), rng=rng)
    assert drowned.status == "unresolved"
    assert all(one.value is None for one in drowned.findings)
    assert "noise" in drowned.findings[0].note


def test_groups_are_told_apart() -> None:
    """Only the women have grown older: found for them, not for the men."""
    rng = np.random.default_rng(13)
    before, after = patients(rng, 6000), patients(rng, 6000)
    women = after["sex"] == "f"
    after.loc[women, "age"] = np.minimum(after.loc[women, "age"] + 15, 100)
    report = compare(
        profile(before, sd=3, by="sex", scored=False, columns=("age",)),
        profile(after, sd=3, by="sex", seed=2, scored=False, columns=("age",)),
        rng=rng,
    )
    psi = {one.group: one.status for one in report.findings if one.measure == "psi"}
    assert set(psi) == {"", "f", "m"}
    assert psi["f"] == "drift"
    assert psi["m"] == "ok"
    assert report.columns == {"age": "drift"}


def test_hidden_small_cells_raise_no_alarm() -> None:
    """A display minimum empties small cells; the null does the same to its own."""
    rng, statuses = np.random.default_rng(14), []
    for seed in range(12):
        sides = [
            profile(patients(rng, 1500), sd=5, least=40, seed=seed + at, scored=False, columns=("age",))
            for at in (0, 50)
        ]
        statuses.append(compare(*sides, Thresholds(draws=400), rng=rng).status)
    assert statuses.count("drift") == 0
    assert statuses.count("ok") >= 9


def test_tables_of_other_cells_are_refused() -> None:
    """Before any comparison, with what to do."""
    rng = np.random.default_rng(15)
    one = profile(patients(rng, 100), scored=False, columns=("age",))
    with pytest.raises(Misuse, match=r"lacks table 'age'.*own queries"):
        compare(one, profile(patients(rng, 100), scored=False, columns=("sex",)))
    with pytest.raises(Misuse, match="name column 'height'; the profile watches age"):
        compare(one, one, Thresholds(columns={"height": {"psi": TINY}}))


def test_the_report_reads_and_saves() -> None:
    """Frame, JSON, HTML and the answer hold every finding; text is escaped."""
    rng = np.random.default_rng(16)
    report = compare(plain({"<b>": cells(SHARES) * 1000}, 5.0), plain({"<b>": cells(SHARES) * 900}, 5.0), rng=rng)
    assert isinstance(report, DriftReport)
    assert len(report.to_frame()) == len(report.findings) == len(report.answer().rows)
    assert '"exit_code": 0' in report.to_json()
    assert "<b></td>" not in report._repr_html_()
    assert "&lt;b&gt;" in report._repr_html_()
    assert report.words() == "no drift in <b>"
