"""Quality rules: pandas' counts without noise, shares that are covered with it, drowned ones silent."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from privfl_analytics.conditions import Compare, IsMissing, Not
from privfl_analytics.decode import BELOW_MINIMUM, NOT_RESOLVED
from privfl_analytics.predicates import col
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics.quality import Quality
from privfl_analytics.view import View

from privfl.errors import Misuse
from tests.analytics.reference import answer
from tests.analytics.statistics.made import QUICK, SCHEMA, SITES, covered, frame_of, quiet

VIEW = View(SCHEMA)
ADULT = Compare(column="age", operator=">=", value=18)


@given(SITES)
@QUICK
def test_without_noise_rules_are_counted_as_pandas_would(frames: list[pd.DataFrame]) -> None:
    """Numbers out of their bounds are judged as they are, not as the bound."""
    found = answer(Quality(rules={"adult": ADULT}, columns=("age", "sex", "code")), SCHEMA, frames, context=quiet())
    pooled = pd.concat(frames)
    age, sex = pooled.age[pooled.age.notna() & (pooled.age != 999)], pooled.sex.replace("?", None).dropna()
    expected = {
        "adult": ((age >= 18).sum(), (age < 18).sum(), len(pooled) - len(age)),
        "age is present": (len(age), len(pooled) - len(age), 0),
        "age lies within [0, 100]": (age.between(0, 100).sum(), (~age.between(0, 100)).sum(), len(pooled) - len(age)),
        "sex is present": (len(sex), len(pooled) - len(sex), 0),
        "sex is a declared class": (sex.isin(["f", "m"]).sum(), (sex == "x").sum(), len(pooled) - len(sex)),
        "code is present": (pooled.code.notna().sum(), pooled.code.isna().sum(), 0),
    }
    for rule, counts in expected.items():
        assert tuple(found.value(what, rule=rule) for what in ("ok", "violated", "unknown")) == counts
        share = found.value("share violated", rule=rule)
        judged = counts[0] + counts[1]
        assert share == pytest.approx(counts[1] / judged) if judged else math.isnan(share)
    about = {row.at["rule"]: row.at["about"] for row in found.rows}
    assert set(about.values()) == {"rule", "completeness", "plausibility", "conformance"}


@pytest.mark.parametrize("interval", ["rows", "population"])
def test_intervals_cover(interval: str) -> None:
    def once(rng: np.random.Generator) -> tuple:
        exact = rng.multinomial(700, [0.7, 0.2, 0.1])
        noisy = Noisy(exact + rng.normal(0, 15, 3), 15.0)
        context = Context(interval=interval, records=700, rng=rng)
        found = Quality(rules={"adult": ADULT}).decode(VIEW, [[noisy]], [None], context)
        return found.rows[3], exact[1] / exact[:2].sum() if interval == "rows" else 2 / 9

    covered(once)


def test_rules_are_conditions_predicates_or_plain_values() -> None:
    same = [{"adult": ADULT}, {"adult": col("age") >= 18}, {"adult": ADULT.model_dump()}]
    made = [Quality(rules=one) for one in same]
    assert made[0] == made[1] == made[2]
    assert made[0].words() == "how many rows violate adult (age >= 18)"
    assert len(Quality(columns=("age", "sex")).constructions(VIEW)) == 4
    assert Quality(**made[0].model_dump()) == made[0]


def test_misuse_is_named() -> None:
    with pytest.raises(Misuse, match="at least one rule"):
        Quality()
    with pytest.raises(Misuse, match="rule 'old': age >= 200: the bounds"):
        Quality(rules={"old": Compare(column="age", operator=">=", value=200)}).constructions(VIEW)
    with pytest.raises(Misuse, match="two rules"):
        Quality(columns=("age", "age")).constructions(VIEW)
    with pytest.raises(Misuse, match="must map"):
        Quality(rules="age > 3")
    with pytest.raises(Misuse, match="visible characters"):
        Quality(rules={"": Not(part=IsMissing(column="age"))})


def test_what_noise_drowns_is_not_printed_and_few_violations_are_hidden() -> None:
    frame = frame_of([{"age": 40.0}] * 60 + [{"age": 4.0}] * 3 + [{"age": 999}] * 20)
    found = answer(Quality(rules={"adult": ADULT}), SCHEMA, [frame], sd=1e5)
    assert {row.note for row in found.rows} == {NOT_RESOLVED}
    few = answer(Quality(rules={"adult": ADULT}), SCHEMA, [frame], context=quiet(min_cell_count=10))
    assert [row.value for row in few.rows] == [60, None, None, None]
    assert few.rows[3].note == BELOW_MINIMUM
    assert "percentage points" in Quality(rules={"adult": ADULT}).precision(VIEW, [[3.0]], 100)
