"""Studies asked of whole federations in one process, through the real protocol: what comes out and what is charged."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from privfl_analytics import Query, Study
from privfl_analytics.datasets import hospital_schema, hospital_tables

import privfl
from privfl.budget import Purpose
from privfl.dp import Cost, Unit, epsilon_of_cost

TABLES = hospital_tables(4, seed=3, patients=1200)
SCHEMA = hospital_schema(1200)
POOLED = pd.concat(TABLES.values(), ignore_index=True)
STUDY = Study.from_yaml(
    """
study: several
queries:
  - {count: rows, name: wards, by: [ward]}
  - {mean: age, name: age, by: [sex]}
  - {median: bmi, name: bmi}
  - {correlation: [age, systolic], name: related}
"""
)


def federation(**options: Any) -> privfl.Federation:
    return privfl.Federation.local(TABLES, SCHEMA, **options)


def test_answers_of_a_generous_budget_are_those_of_the_pooled_rows() -> None:
    """With little noise every answer comes near the pooled rows', each site by its size."""
    found = federation().ask(STUDY, epsilon=300.0, delta=1e-6, progress=False)
    for ward, count in POOLED["ward"].value_counts().items():
        if ward != "day clinic":
            assert found["wards"].value("count", ward=str(ward)) == pytest.approx(count, abs=5)
    for sex, mean in POOLED.groupby("sex")["age"].mean().items():
        assert found["age"].value("mean", sex=str(sex)) == pytest.approx(mean, abs=0.3)
    assert found["bmi"].value() == pytest.approx(POOLED["bmi"].median(), abs=0.5)
    whole = POOLED[POOLED["systolic"] != 999]
    exact = whole["age"].corr(whole["systolic"])
    assert found["related"].value("correlation", column="age", other="systolic") == pytest.approx(exact, abs=0.05)
    assert found.survivors == (4,)
    (proof,) = found.transcript.verify()
    assert set(proof.survivors) == set(TABLES)


@pytest.mark.parametrize("unit", [Unit.RECORD, Unit.SUBJECT])
def test_the_ledger_is_charged_what_the_plan_says(unit: Unit) -> None:
    """Each site's account holds exactly the plan's μ² and δ′, for the study's purpose, in the unit asked for."""
    fed = federation()
    found = fed.ask(STUDY, epsilon=1.0, delta=1e-6, unit=unit, progress=False)
    question = STUDY.compile(SCHEMA, epsilon=1.0, delta=1e-6, sites=4, unit=unit, min_survivors=3)
    (price,) = question.prices()
    planned = price.costs[unit]
    for site in fed._sites.values():
        assert site.account is not None
        charges = [(charge.purpose, charge.costs[unit]) for charge in site.account.charges]
        assert charges == [(Purpose.ANALYTICS, planned)]
    assert found.privacy.epsilon == pytest.approx(epsilon_of_cost(planned, 1e-6))
    assert found.privacy.epsilon <= 1.0
    release = question.releases[0]
    parts = question.plan[0].parts
    rows = question.rows
    exact = sum(
        (
            Fraction(part.construction.delta2(question.view, rows)) / (Fraction(block.sigma) ** 2 - 4)
            for part, block in zip(parts, release.blocks, strict=True)
        ),
        Fraction(0),
    )
    assert exact <= release.mu2 <= exact + Fraction(len(parts), 10**24)
    assert planned.mu2 == release.mu2


def test_what_a_site_sends_has_one_length_whatever_its_rows_are() -> None:
    """Empty tables, odd values and full ones make uploads of the same number of bytes."""
    odd = TABLES["north"].assign(age=np.inf, ward="nowhere", bmi=np.nan)
    sizes = []
    for table in (TABLES["north"], TABLES["north"].iloc[:0], odd):
        bodies: list[int] = []
        fed = privfl.Federation.local({**TABLES, "north": table}, SCHEMA)
        fed.ask(
            STUDY,
            epsilon=1.0,
            delta=1e-6,
            progress=False,
            observer=lambda number, result, found, bodies=bodies: bodies.extend(sorted(map(len, found.values()))),
        )
        sizes.append(bodies)
    assert sizes[0] == sizes[1] == sizes[2]
    assert len(set(sizes[0])) == 1


def test_two_queries_that_differ_in_one_person_are_both_charged() -> None:
    """Asking again, or nearly again, costs again: two accounts' worth of μ², and the noise is another."""
    fed, first = federation(), Study("a", (Query.parse("count"),))
    second = Study("b", (Query.parse("count where age < 100"),))
    one = fed.ask(first, epsilon=0.5, delta=1e-6, progress=False)
    again = fed.ask(first, epsilon=0.5, delta=1e-6, progress=False)
    fed.ask(second, epsilon=0.5, delta=1e-6, progress=False)
    assert one["count rows"].value() != again["count rows"].value()
    assert len(fed._past) == 3
    total = sum((times * release.cost for release, times in fed._past if release is not None), Cost(0))
    assert epsilon_of_cost(total, 1e-6) > 1.6 * one.privacy.epsilon


def test_several_rounds_and_single_sites_by_name() -> None:
    """Letters of codes over rounds, and sites each in its own stretch under its own full noise, told by name."""
    study = Study.from_yaml(
        """
study: rounds
queries:
  - {heavy_hitters: diagnosis, name: codes}
  - {site_divergence: ward, name: sites}
  - {frequent_values: diagnosis, name: named}
"""
    )
    found = federation().ask(study, epsilon=30.0, delta=1e-6, progress=False)
    exact = POOLED["diagnosis"].value_counts()
    for code, count in exact.items():
        assert found["codes"].value("count", diagnosis=str(code)) == pytest.approx(count, abs=40)
        assert found["named"].value("count", diagnosis=str(code)) == pytest.approx(count, abs=40)
    for name, rows in TABLES.items():
        share = (rows["ward"] == "surgery").mean()
        assert found["sites"].value("share", site=name, ward="surgery") == pytest.approx(share, abs=0.05)
    assert len(found.survivors) == 4  # three letters, and one round in which every site answers for itself
    assert found.privacy.uploads == 4
    assert len(found.transcript.verify()) == 4


def test_a_run_that_ends_early_answers_what_was_through() -> None:
    """Sites that die for good after the first round cost no answer that was already paid for."""
    study = Study.from_yaml(
        "study: early\nqueries:\n  - {count: rows, name: count}\n  - {sd: bmi, two_stage: true, name: bmi}\n"
    )
    fed = federation()

    def die(number: int, *rest: object) -> None:
        for site in fed._sites.values():
            site.node = None
        fed._revive = lambda terms: []  # type: ignore[method-assign]

    found = fed.ask(study, epsilon=20.0, delta=1e-6, progress=False, attempts=1, observer=die)
    assert found.stopped.startswith("stopped early")
    assert found["count"].value() == pytest.approx(len(POOLED), abs=30)
    assert not found["bmi"].resolved
    assert "not opened" in found["bmi"].rows[0].note
    assert found.figures("early")["stopped_early"]
    assert found.privacy.uploads == 2


@pytest.mark.parametrize("asked", ["mean age", ["mean age"], Query().count()])
def test_what_is_no_study_is_refused_in_words(asked: Any) -> None:
    """It was an AttributeError, or a statistic 'compile' that does not exist."""
    schema = hospital_schema()
    federation = privfl.Federation.local(hospital_tables(patients=300), schema=schema)
    with pytest.raises(privfl.errors.Misuse, match="ask a study"):
        federation.ask(asked, epsilon=1, delta=1e-6)
