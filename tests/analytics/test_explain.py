"""An explanation's figures are those of the question, before anything runs."""

from __future__ import annotations

import json
import math

import pytest
from privfl_analytics import Query, Study
from privfl_analytics.explain import block_mu2, sds_of

from privfl.dp import epsilon_of_mu
from privfl.dp.accounting import root_up
from privfl.errors import BudgetExceeded, Misuse
from tests.analytics.studies import PLAIN, SCHEMA, asked

STUDY = Study(
    "the cohort",
    (
        Query(SCHEMA).where("age >= 50").group_by("sex").mean("bmi").named("bmi <by> sex"),
        Query.parse("count weight 2"),
        Query.parse("histogram age bins=4"),
    ),
    description="Is it fit?",
)


def test_figures_are_those_of_the_question() -> None:
    question = STUDY.compile(SCHEMA, epsilon=6.0, attempts=2, **PLAIN)
    told = question.explain()
    (release,) = question.releases
    assert [block.length for block in told.blocks] == [block.length for block in release.blocks]
    assert sum(block.length for block in told.blocks) * 8 == told.bytes
    for place, (line, block) in enumerate(zip(told.blocks, release.blocks, strict=True)):
        scale = question.plan[0].parts[place].construction.scale
        assert line.sensitivity == pytest.approx(math.sqrt(block.delta2) / scale)
        assert line.noise == pytest.approx(math.sqrt(3) * release.sigma_site(block) / scale)
        assert line.mu2 == float(block_mu2(release, place))
        assert line.epsilon == epsilon_of_mu(root_up(block_mu2(release, place)), 1e-6 - 1e-7)
    assert sum(block.mu2 or 0 for block in told.blocks) == pytest.approx(float(release.mu2))
    privacy = question.privacy()
    assert (told.epsilon, told.fallback_epsilon, told.delta) == (privacy.epsilon, privacy.fallback_epsilon, 1e-6)
    assert told.uploads == question.uploads == 2
    assert told.queries[0].columns == ("age", "bmi", "sex") or set(told.queries[0].columns) == {"age", "bmi", "sex"}


def test_errors_to_expect_are_the_statistics_own_at_each_budget() -> None:
    told = STUDY.explain(sites=3, epsilons=(0.01, 3.0, 6.0), min_survivors=3)
    for epsilon in (3.0, 6.0):
        question = STUDY.compile(SCHEMA, epsilon=epsilon, **PLAIN)
        for at, name in enumerate(STUDY.names):
            said = STUDY.queries[at].asked.precision(question.view, sds_of(question, at), 60)
            assert told.errors[name][f"{epsilon:g}"] == said
    assert {row["0.01"] for row in told.errors.values()} == {"resolves nothing"}
    frame = told.to_frame()
    assert list(frame.columns) == ["query", "epsilon 0.01", "epsilon 3", "epsilon 6"]
    assert list(frame["query"]) == list(STUDY.names)
    assert told.epsilon is not None
    assert told.epsilon <= 3.0  # layout and price of the first that resolves


def test_words_say_what_is_asked_what_leaves_and_who_sees_it() -> None:
    said = str(STUDY.explain(sites=3, epsilons=(4.0,), min_survivors=3))
    for piece in (
        "Study 'the cohort': Is it fit?",
        "the mean of bmi, for every group of sex, among rows where age >= 50",
        "up to 3 attempts of 1 round(s), 3 uploads at most: epsilon ",
        "the coordinator sees only sums over at least 3 of 3 sites, which hold 2 honest shares of noise",
        "If all other sites and the coordinator colluded",
        "epsilon 4: ",
    ):
        assert piece in said
    local = str(STUDY.explain(sites=3, epsilons=(4.0,), trust="local"))
    assert "Trust local: sums over sites, and the site's own noise alone suffices" in local
    persons = str(STUDY.explain(sites=3, epsilons=(8.0,), min_survivors=3, unit="subject"))
    assert "Of each person at most 2 row(s) are used" in persons


def test_the_worst_case_is_what_all_attempts_cost() -> None:
    """As the report of a run says that was charged for every one of them; a single attempt has none."""
    question = STUDY.compile(SCHEMA, epsilon=6.0, attempts=3, **PLAIN)
    told = question.explain()
    assert told.worst_epsilon == question.privacy([3]).epsilon
    assert f"epsilon {told.worst_epsilon:.3f} if every one of these 3 uploads were needed" in str(told)
    once = STUDY.compile(SCHEMA, epsilon=6.0, attempts=1, **PLAIN).explain()
    assert once.worst_epsilon == once.epsilon
    assert "if every one" not in str(once)


def test_one_budget_may_be_a_number() -> None:
    """Of one value."""
    one, several = (STUDY.explain(sites=3, epsilons=given, min_survivors=3) for given in (4.0, (4.0,)))
    assert one == several


def test_values_and_pages() -> None:
    told = STUDY.explain(sites=3, epsilons=(4.0,), min_survivors=3)
    value = json.loads(json.dumps(told.to_value()))
    assert value["blocks"][0]["query"] == "bmi <by> sex"
    page = told._repr_html_()
    assert "bmi &lt;by&gt; sex" in page
    assert "<by>" not in page
    assert list(told.layout()["stage"]) == [1, 1, 1]


def test_budgets_that_all_resolve_nothing_say_which_would() -> None:
    with pytest.raises(BudgetExceeded, match="at least"):
        STUDY.explain(sites=3, epsilons=(0.001, 0.01), min_survivors=3)
    with pytest.raises(Misuse, match="needs the schema"):
        Study("s", ("count",)).explain(sites=3)
    with pytest.raises(Misuse, match="name at least one budget"):
        STUDY.explain(sites=3, epsilons=())


def test_what_runs_costs_what_was_explained() -> None:
    question = STUDY.compile(SCHEMA, epsilon=6.0, **PLAIN)
    _, result = asked(question)
    assert result.privacy.epsilon == question.explain().epsilon
