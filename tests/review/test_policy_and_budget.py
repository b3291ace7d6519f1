"""Regressions of a review of the policy: what it says in words, and what its differences are called."""

from __future__ import annotations

import math

import pytest
from scipy.stats import norm

from privfl.budget import Budget, Charge, Purpose
from privfl.budget.planner import room_for
from privfl.budget.policy_diff import Direction, differences
from privfl.budget.policy_hazards import failure, up
from privfl.budget.policy_words import explain, figures
from privfl.budget.tally import Tally
from privfl.dp import Block, Release, Trust, Unit, epsilon_of_cost
from privfl.dp.accounting import root_up
from privfl.dp.cost import Cost
from privfl.runtime.terms import costs_of
from tests.budget.policies import NOW, policy


def words(**changes: object) -> str:
    return " ".join(sentence for section in explain(policy(**changes)) for sentence in section.sentences)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0, 8.0])
def test_the_chance_that_the_odds_bound_fails_is_not_delta(epsilon: float) -> None:
    """A Gaussian's loss passes ε several times as often as δ says; what is printed is above both tails together."""
    budget = Budget.from_epsilon_delta(epsilon, 1e-5)
    mu = root_up(budget.mu2)
    tails = norm.sf(epsilon / mu - mu / 2) + norm.sf(epsilon / mu + mu / 2)
    assert tails > 3e-5
    assert tails + float(budget.slack) < failure(budget) < 10 * tails
    assert "is the chance that the bound on the odds fails" not in words()


def test_a_window_is_not_taken_for_a_lifetime() -> None:
    """With ε = 0.5 each 90 days and 8 for life, nothing says that little is learnt, or that 62 % is all there is."""
    said = words(epsilon=0.5, max_epsilon_per_upload=None)
    assert "is small" not in said
    assert "Epsilon 8 for life is large" in said
    assert "within any 90 days, the odds" in said
    assert "For life, the odds" in said


def test_printed_bounds_are_rounded_up() -> None:
    """e⁵ is 148.41: at most 149, not 148; columns are told exactly."""
    assert "factor of at most 149," in words(epsilon=5, window=None)
    assert [up(value) for value in (2.341, 2.34, 1e-5, 148.0, 1234.0)] == ["2.35", "2.34", "1e-05", "148", "1.24e+03"]
    assert "costs at most epsilon 4.0000049 at" in words(epsilon=4.0000049)
    assert "1234567.5" in words(columns={"id": {"lower": 0, "upper": 1234567.5}})


def test_the_fallback_covers_the_coarsest_noise_that_is_allowed() -> None:
    """At 4 units per site, a share costs more than h times the whole: the printed ε covers it."""
    one = policy(min_survivors=10, min_sites=10)
    budget, sigma = one.budget, 4 * math.sqrt(9)
    assert budget is not None
    release = Release(Unit.RECORD, Trust.DISTRIBUTED, (Block("sum", 1, 1, 10, sigma),), 10, 1)
    share = release.fallback_mu**2 / float(release.mu2)
    real = epsilon_of_cost(Cost(float(budget.mu2) * share * (1 - 1e-9), budget.slack), budget.delta)
    assert epsilon_of_cost(Cost(9 * budget.mu2, budget.slack), budget.delta) < real
    assert real <= figures(one)["epsilon_if_all_others_collude"]


def test_a_site_takes_part_in_public() -> None:
    """Under the unit site the promise is not about whether a site takes part."""
    assert "to a site being in the data" not in words(unit="site")


def test_no_change_that_allows_more_is_called_tighter_or_neutral() -> None:
    """An upload clipped per site costs a quarter once sites are the unit; another dataset was refused before."""
    upload = Release(Unit.SITE, Trust.DISTRIBUTED, (Block("update", 2, 10**8, 10**6, 200_000.0),), 3, 1)
    charge = Charge(bytes(32), Purpose.TRAINING, "lab", costs_of(upload), upload.trust)
    by_row, by_site = (policy(unit=unit).limits().price(charge).mu2 for unit in ("record", "site"))
    assert by_row == 4 * by_site
    for changed in ({"unit": "site"}, {"unit": "subject"}, {"dataset": "others"}, {"schema_version": 9}):
        assert [change.direction for change in differences(policy(), policy(**changed))] == [Direction.LOOSER]


def test_the_planner_promises_nothing_once_delta_is_used_up() -> None:
    """With μ² left and no δ′, no upload is admitted, so no ε may be asked for."""
    limits, tally = policy(window=None, analysts={}).limits(), Tally()
    assert limits.budget is not None
    whole = limits.budget.part(limits.shares[Purpose.TRAINING])
    costs = {Unit.RECORD: Cost(0, whole.delta)}
    tally.add(Charge(bytes(32), Purpose.TRAINING, "lab", costs, Trust.DISTRIBUTED), NOW)
    room = room_for(limits, tally, NOW, Purpose.TRAINING)
    assert room.left == Cost(whole.mu2, 0)
    assert room.epsilon_left(Trust.DISTRIBUTED) == 0


def test_attempts_are_said_to_be_counted_in_an_epoch() -> None:
    """Slots of another epoch count from 0 again, so the sentence may not promise more."""
    assert "at most 3 time(s) in one epoch" in words()
