"""Plans keep their word: what they say fits is admitted by a real account, and not one charge more."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.budget import Budget, Charge, Limits, MemoryAccount, Policy, Purpose
from privfl.budget.planner import epsilon_to_ask, epsilons, room_for, rooms, uploads_that_fit
from privfl.budget.planner_counts import COUNT_UNITS, NORMAL_95, Cohort, counts_for, counts_within
from privfl.budget.planner_plot import plan_picture
from privfl.budget.planner_report import Asked, make_plan
from privfl.budget.planner_runs import largest_run, run_for
from privfl.budget.planner_values import plan_values
from privfl.budget.tally import Tally
from privfl.dp import Cost, DiscreteGaussian, Trust, Unit, epsilon_of_cost
from privfl.dp.accounting import mu_for_budget
from privfl.entropy import SYSTEM
from privfl.errors import BudgetExceeded, Misuse, Refused
from privfl.learn import Logistic, Schema
from tests.budget.policies import DAY, NOW, documents, noiseless, policy

SCHEMA = Schema(
    name="small",
    records=5000,
    columns={  # type: ignore[arg-type]
        "dose": {"lower": -4, "upper": 4, "center": 0, "scale": 1},
        "ill": {"classes": [False, True]},
    },
)

FEW = Asked(rounds=(7,), epsilons=(1.0,), queries=(3,), people=(25.0,))


class Books:
    """An account and, beside it, the tally that a plan starts from."""

    def __init__(self, limits: Limits) -> None:
        self.account, self.tally, self._made = MemoryAccount(limits), Tally(limits.window_ms), 0

    def charge(self, cost: Cost, purpose: Purpose, trust: Trust, analyst: str = "", unit: Unit | None = None) -> Charge:
        """A charge of its own reference."""
        self._made += 1
        costs = {unit or self.account.limits.unit: cost}
        return Charge(self._made.to_bytes(32, "big"), purpose, analyst, costs, trust)

    def spend(self, charge: Charge, now: int) -> bool:
        """Charge it; False if it is not admitted."""
        try:
            self.account.reserve(charge, now)
        except BudgetExceeded:
            return False
        self.tally.add(charge, now)
        return True


@st.composite
def situations(draw: st.DrawFn) -> tuple[Books, Cost, Purpose, str, Trust, int]:
    """Limits, a history, and a cost of which about a dozen fit at most."""
    budget = Budget.from_epsilon_delta(draw(st.sampled_from([0.5, 2.0, 8.0])), 1e-6)
    windowed = draw(st.booleans())
    part = st.fractions(0, 1, max_denominator=20)
    limits = Limits(
        draw(st.sampled_from(list(Unit))),
        budget,
        {purpose: draw(part) for purpose in Purpose},
        draw(st.sampled_from([{}, {"ann": Fraction(1, 3), "bob": Fraction(9, 10)}])),
        10 * DAY if windowed else None,
        Budget.from_epsilon_delta(budget.epsilon * draw(st.sampled_from([1.0, 1.5])), 1e-6) if windowed else None,
        draw(st.integers(1, 3)),
    )
    books, now = Books(limits), NOW
    for _ in range(draw(st.integers(0, 6))):
        now += draw(st.integers(0, 4 * DAY))
        cost = Cost(budget.mu2 / draw(st.integers(3, 40)), budget.slack / draw(st.integers(5, 100)))
        asker = draw(st.sampled_from(["ann", "bob"]))
        books.spend(
            books.charge(cost, draw(st.sampled_from(list(Purpose))), draw(st.sampled_from(list(Trust))), asker), now
        )
    now += draw(st.integers(0, 12 * DAY))
    cost = Cost(
        budget.mu2 * draw(st.fractions(Fraction(1, 12), 1, max_denominator=50)),
        budget.slack * draw(st.sampled_from([0, 0, Fraction(1, 7)])),
    )
    who, trust = draw(st.sampled_from(["ann", "bob"])), draw(st.sampled_from(list(Trust)))
    return books, cost, draw(st.sampled_from(list(Purpose))), who, trust, now


@settings(max_examples=100, deadline=None)
@given(situations())
def test_as_many_uploads_as_an_account_admits(situation: tuple[Books, Cost, Purpose, str, Trust, int]) -> None:
    """Shares, caps, windows, lifetime, several sites per subject, either limit: the plan counts what is admitted."""
    books, cost, purpose, who, trust, now = situation
    charge = books.charge(cost, purpose, trust, who)
    planned = uploads_that_fit(books.account.limits, books.tally, charge, now)
    room = room_for(books.account.limits, books.tally, now, purpose, analyst=who)
    assert planned == room.uploads(cost, trust)
    admitted = 0
    while books.spend(books.charge(cost, purpose, trust, who), now):
        admitted += 1
    assert planned == admitted
    assert uploads_that_fit(books.account.limits, books.tally, charge, now) == 0


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 40), st.sampled_from([1e-5, 1e-8]))
def test_epsilon_to_ask_is_the_largest_of_four_digits(epsilon: float, delta: float) -> None:
    """It turns into no more than what is left, and one step of the last digit more does not."""
    mu2 = mu_for_budget(epsilon, delta)[0]
    found = epsilon_to_ask(mu2, delta)
    assert mu_for_budget(found, delta)[0] <= mu2
    step = 10.0 ** (math.floor(math.log10(found)) - 3)
    assert mu_for_budget(found + 1.0001 * step, delta)[0] > mu2
    assert 0 < found <= epsilon * (1 + 1e-9)


def test_nothing_can_be_asked_of_nothing() -> None:
    """Zero and next to zero give ε 0, not an error."""
    assert epsilon_to_ask(Fraction(0), 1e-5) == 0
    assert epsilon_to_ask(Fraction(1, 10**24), 1e-5) == 0


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("trust", list(Trust))
@pytest.mark.parametrize("sites_per_subject", [1, 2])
def test_the_largest_run_trains_to_its_end(attempts: int, trust: Trust, sites_per_subject: int) -> None:
    """A real task at the planned ε, after other spending: every upload is admitted, and hardly anything is left."""
    agreed = policy(max_sites_per_subject=sites_per_subject, window=None, max_epsilon_per_upload=None)
    books = Books(agreed.limits())
    assert books.spend(books.charge(Cost(0.07, 1e-9), Purpose.TRAINING, trust, "lab"), NOW)
    room = room_for(agreed.limits(), books.tally, NOW, Purpose.TRAINING, analyst="lab")
    run = largest_run(room, 12, attempts=attempts, trust=trust)
    task = Logistic(label="ill").compile(
        SCHEMA, epsilon=run.epsilon, delta=1e-5, sites=4, rounds=12, min_survivors=3, trust=trust
    )
    assert task.release is not None
    assert room.priced(task.release.cost, trust).mu2 <= run.cost.mu2
    for _ in range(12 * attempts):
        assert books.spend(books.charge(task.release.cost, Purpose.TRAINING, trust, "lab"), NOW)
    after = room_for(agreed.limits(), books.tally, NOW, Purpose.TRAINING, analyst="lab").left.mu2
    assert after < room.left.mu2 / 200
    assert run.fits == 1


@settings(max_examples=20, deadline=None)
@given(st.floats(0.3, 2), st.integers(1, 4), st.integers(1, 3))
def test_runs_fit_as_often_as_they_are_admitted(epsilon: float, rounds: int, attempts: int) -> None:
    """Whole runs, every attempt used: that many are admitted and no further one is, to its end."""
    agreed = policy(window=None, epsilon=3)
    books = Books(agreed.limits())
    run = run_for(rooms(agreed.limits(), books.tally, NOW)[0], epsilon, rounds, attempts=attempts)
    assert run.fits is not None
    charges = 0
    while books.spend(books.charge(run.cost, Purpose.TRAINING, Trust.DISTRIBUTED, "lab"), NOW):
        charges += 1
    assert charges // (rounds * attempts) == run.fits


@pytest.mark.parametrize("sites_per_subject", [1, 3])
def test_the_cap_on_one_upload(sites_per_subject: int) -> None:
    """The planned upload is just below what a policy allows for one; a dearer one is marked, not counted."""
    agreed = policy(max_epsilon_per_upload=0.2, max_sites_per_subject=sites_per_subject)
    room = rooms(agreed.limits(), Tally(), NOW)[0]
    run = largest_run(room, 5, most=0.2)
    assert 0.199 < epsilon_of_cost(run.cost, 1e-5) <= 0.2
    assert run_for(room, run.epsilon * 1.01, 5, most=0.2).fits is None
    assert run_for(room, run.epsilon, 5, most=0.2).fits is not None


def test_rooms_name_what_binds() -> None:
    """Another analyst's spending leaves the share; the cap of one analyst binds only him; a lifetime binds all."""
    agreed = policy()
    books = Books(agreed.limits())
    whole = agreed.limits().budget
    assert whole is not None
    assert books.spend(
        books.charge(Cost(whole.mu2 * Fraction(45, 100)), Purpose.TRAINING, Trust.LOCAL, "dr-jones"), NOW
    )
    training = room_for(agreed.limits(), books.tally, NOW, Purpose.TRAINING)
    assert training.binding == "the share of training"
    capped = room_for(agreed.limits(), books.tally, NOW, Purpose.TRAINING, analyst="dr-jones")
    assert capped.binding == "the cap of dr-jones"
    assert capped.left.mu2 < training.left.mu2
    monitoring = room_for(agreed.limits(), books.tally, NOW, Purpose.MONITORING)
    assert monitoring.left == Cost(0)
    assert monitoring.epsilon_left(Trust.LOCAL) == 0
    with pytest.raises(Misuse, match="does not name"):
        rooms(agreed.limits(), books.tally, NOW, analyst="nobody")


def test_a_stricter_policy_after_more_was_spent() -> None:
    """Less than nothing is nothing: no room, no run, no count, and still a plan."""
    books = Books(policy().limits())
    assert books.spend(books.charge(Cost(0.5), Purpose.TRAINING, Trust.LOCAL, "lab"), NOW)
    strict = policy(epsilon=0.5, max_epsilon_per_upload=None, window=None)
    plan = make_plan(strict, books.tally, NOW, FEW)
    assert all(room.left == Cost(0) for room in plan.rooms)
    assert {run.epsilon for pair in plan.largest for run in pair} == {0}
    assert {found for _, _, _, found in plan.counts} == {None}
    assert {number for _, _, _, number in plan.within} == {0}
    json.dumps(plan_values(plan), allow_nan=False)


def test_charges_without_a_finite_cost_leave_no_room() -> None:
    """As the account says."""
    agreed = policy()
    books = Books(agreed.limits())
    books.tally.add(books.charge(Cost(0.01), Purpose.TRAINING, Trust.LOCAL, "lab", unit=Unit.SITE), NOW)
    assert all(room.left == Cost(0) for room in rooms(agreed.limits(), books.tally, NOW))
    plan = make_plan(agreed, books.tally, NOW, FEW)
    assert plan.spent is None
    assert any("no finite cost" in note for note in plan.notes)


# -- counts -----------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.sampled_from(list(Trust)), st.integers(1, 3), st.integers(1, 3), st.integers(3, 6))
def test_counts_by_closed_form_and_account(
    queries: int, trust: Trust, attempts: int, sites_per_subject: int, sites: int
) -> None:
    """σ² = 1/μ² + 4 small units for the part of one charge, shared by h; all charges are admitted."""
    agreed = policy(window=None, max_sites_per_subject=sites_per_subject)
    books = Books(agreed.limits())
    room = room_for(agreed.limits(), books.tally, NOW, Purpose.ANALYTICS)
    cohort = Cohort(sites, 3, 1)
    found = counts_for(room, cohort, queries, trust, attempts=attempts)
    assert found is not None
    factor = sites_per_subject if trust is Trust.LOCAL else sites_per_subject**2
    honest = 1 if trust is Trust.LOCAL else 2
    mu2 = float(room.left.mu2) / (queries * attempts * factor)
    sigma = max(math.sqrt(1 / mu2 + 4 / COUNT_UNITS**2), 4 * math.sqrt(honest) / COUNT_UNITS)  # people
    assert found.release.blocks[0].sigma == pytest.approx(COUNT_UNITS * sigma, rel=1e-6)
    assert found.error == pytest.approx(sigma * math.sqrt(sites / honest), rel=1e-6)
    assert found.within == NORMAL_95 * found.error
    for _ in range(queries * attempts):
        assert books.spend(books.charge(found.release.cost, Purpose.ANALYTICS, trust, "lab"), NOW)
    if trust is Trust.DISTRIBUTED:
        assert found.fallback > found.epsilon
    else:
        assert found.fallback == pytest.approx(found.epsilon, abs=1e-9)


@pytest.mark.parametrize("trust", list(Trust))
@pytest.mark.parametrize("people", [1.0, 18.0, 60.0, 300.0])
def test_counts_within_is_the_most(people: float, trust: Trust) -> None:
    """So many are good enough, one more is not."""
    room = room_for(policy().limits(), Tally(), NOW, Purpose.ANALYTICS)
    cohort = Cohort(5, 3, 1)
    number = counts_within(room, cohort, people, trust)
    if number:
        good = counts_for(room, cohort, number, trust)
        assert good is not None
        assert good.within <= people
    bad = counts_for(room, cohort, number + 1, trust)
    assert bad is None or bad.within > people


def test_the_noise_that_is_drawn_has_the_planned_error() -> None:
    """The sum of what every site draws spreads as far as the plan says (±3 % on 40 000 sums)."""
    room = room_for(policy().limits(), Tally(), NOW, Purpose.ANALYTICS)
    found = counts_for(room, Cohort(5, 3, 1), 50, Trust.DISTRIBUTED)
    assert found is not None
    site = DiscreteGaussian(found.release.sigma_site(found.release.blocks[0]))
    total = sum(site.sample(40_000, SYSTEM) for _ in range(5)) / COUNT_UNITS
    assert float(np.std(total)) == pytest.approx(found.error, rel=0.03)
    assert float(np.mean(np.abs(total) <= found.within)) == pytest.approx(0.95, abs=0.01)


def test_counts_that_cannot_be_planned() -> None:
    """A site has no bound of one person; a sum of too few sites is not opened; nonsense is refused."""
    room = room_for(policy(unit="site").limits(), Tally(), NOW, Purpose.ANALYTICS)
    with pytest.raises(Misuse, match="per site"):
        counts_for(room, Cohort(4, 3, 1), 1, Trust.LOCAL)
    with pytest.raises(Misuse, match="no sum of fewer than 3"):
        Cohort(2, 3, 1)
    room = room_for(policy().limits(), Tally(), NOW, Purpose.ANALYTICS)
    for people in (0, -1, math.inf, math.nan):
        with pytest.raises(Misuse, match="cannot be planned"):
            counts_within(room, Cohort(4, 3, 1), people, Trust.LOCAL)
    with pytest.raises(Misuse, match="at least one"):
        counts_for(room, Cohort(4, 3, 1), 0, Trust.LOCAL)


# -- the whole plan -------------------------------------------------------------------------------------------------


def test_the_curve_meets_the_budget_and_rises() -> None:
    """At the policy's δ the budget is the policy's ε; a smaller δ has a larger ε, down to where nothing is promised."""
    plan = make_plan(policy(), Tally(), NOW)
    at = {delta: (whole, spent) for delta, whole, spent in plan.curve}
    assert at[1e-5][0] == pytest.approx(4, abs=1e-6)
    assert at[1e-5][0] <= 4  # type: ignore[operator]
    assert at[1e-7][0] is None
    assert at[1e-7][1] == 0
    known = [whole for _, whole, _ in plan.curve if whole is not None]
    assert known == sorted(known)
    assert epsilons(Cost(1), [1e-5])[0][1] == pytest.approx(4.377178, abs=1e-5)


def test_a_window_gives_back_and_a_lifetime_does_not() -> None:
    """What was spent now is there again when the window has passed, but the lifetime holds fewer whole windows."""
    agreed = policy()
    books = Books(agreed.limits())
    whole = agreed.limits().budget
    assert whole is not None
    fresh = make_plan(agreed, books.tally, NOW, FEW).window
    assert books.spend(books.charge(Cost(whole.mu2 * Fraction(69, 100)), Purpose.TRAINING, Trust.LOCAL, "lab"), NOW)
    after = make_plan(agreed, books.tally, NOW, FEW).window
    assert fresh is not None
    assert after is not None
    assert [value for _, value in fresh.ahead] == [4.0] * 5
    assert [then - NOW for then, _ in after.ahead] == [quarter * 90 * DAY // 4 for quarter in range(5)]
    assert [value for _, value in after.ahead][:4] == [after.ahead[0][1]] * 4
    assert after.ahead[0][1] < 2.2
    assert after.ahead[4][1] == 4.0
    assert (fresh.whole, after.whole) == (3, 2)
    assert fresh.windows == 5


@settings(max_examples=15, deadline=None)
@given(documents())
def test_every_policy_has_a_plan(fields: dict[str, Any]) -> None:
    """Any valid policy: the plan is plain JSON, and says the same twice."""
    made = Policy(**fields)
    try:
        plan = make_plan(made, Tally(), NOW, FEW)
    except Refused as error:  # too few honest shares cannot come from a valid policy
        raise AssertionError(str(error)) from None
    values = plan_values(plan)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values == plan_values(make_plan(made, Tally(), NOW, FEW))
    assert [room["purpose"] for room in values["rooms"]] == ["training", "analytics", "monitoring"]


def test_no_plan_without_noise() -> None:
    """There is nothing to plan, and the message says why."""
    with pytest.raises(Misuse, match="no budget to plan"):
        make_plan(noiseless(), Tally(), NOW)


def test_notes_and_picture() -> None:
    """Hints where they apply; a picture in either format, even with nothing to draw."""
    words = " ".join(make_plan(policy(tasks=None, statistics=["mean"]), Tally(), NOW + 400 * DAY, FEW).notes)
    assert "has expired" in words
    assert "no kind of training" in words
    assert "caps of single analysts" in words
    early = make_plan(policy(), Tally(), NOW - 400 * DAY, FEW)
    assert "not in force yet" in " ".join(early.notes)
    site = make_plan(policy(unit="site", statistics=None), Tally(), NOW, Asked(analyst="lab"))
    assert site.counts == site.within == ()
    assert plan_picture(early, "png").startswith(b"\x89PNG")
    assert b"<svg" in plan_picture(site, "svg")
    with pytest.raises(Misuse, match="png or"):
        plan_picture(site, "pdf")


@pytest.mark.parametrize("trust", list(Trust))
@pytest.mark.parametrize("sites_per_subject", [1, 3])
def test_what_is_left_as_epsilon_of_one_task(trust: Trust, sites_per_subject: int) -> None:
    """A task at that ε is admitted in whole, and one at a percent more is not."""
    agreed = policy(window=None, trust=trust, max_sites_per_subject=sites_per_subject)
    room = room_for(agreed.limits(), Tally(), NOW, Purpose.TRAINING)
    epsilon = room.epsilon_left(trust)
    for asked, admitted in ((epsilon, True), (1.01 * epsilon, False)):
        books = Books(agreed.limits())
        cost = Cost(mu_for_budget(asked, 1e-5)[0])
        assert books.spend(books.charge(cost, Purpose.TRAINING, trust, "lab"), NOW) is admitted
