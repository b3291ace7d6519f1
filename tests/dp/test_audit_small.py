"""The audits themselves: bounds that are right, and small runs that pass the true noise and catch a quarter of it."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks import audit as command
from benchmarks._audit_bounds import canary_bound, error_bounds, gaussian_bound, pure_bound, upper
from benchmarks._audit_training import Plan, audit_training, guess
from benchmarks._audit_worlds import Subject, audit, subjects
from privfl.dp import delta_of, epsilon_of_mu


class Fixed:
    """Entropy that repeats from run to run, and never within one."""

    def __init__(self, seed: str) -> None:
        self._seed, self._drawn = seed, 0

    def draw(self, size: int) -> bytes:
        """The next bytes of a hash stream."""
        self._drawn += 1
        return hashlib.shake_256(f"{self._seed}/{self._drawn}".encode()).digest(size)


@pytest.mark.parametrize("subject", subjects(), ids=lambda subject: subject.name)
def test_every_construction_holds_and_its_broken_twin_is_caught(subject: Subject) -> None:
    """Audit A at 20 000 outputs per world: correct below the claim and not idle, noise/4 beyond it."""
    outcome = audit(subject, 20_000, Fixed(subject.name))
    assert outcome.claimed / 2 < outcome.lower_bound_correct <= outcome.claimed < outcome.lower_bound_broken


def test_one_training_run_is_enough_to_catch_a_quarter_of_the_noise() -> None:
    """Audit B with 1024 canaries: three trainings with true noise stay below the claim, broken ones do not."""
    outcome = audit_training(Plan(), 3, 5, Fixed("training"))
    assert 0 < outcome.lower_bound_correct <= outcome.claimed < outcome.lower_bound_broken
    assert outcome.claimed <= 2


def test_the_plan_meets_its_size() -> None:
    """At least a thousand orthogonal canaries in at least a thousand dimensions."""
    plan = Plan()
    assert plan.canaries >= 1000
    assert plan.release().length >= 1000


@pytest.mark.parametrize(("errors", "runs"), [(0, 50), (3, 50), (50, 50), (20, 1000)])
def test_clopper_pearson_is_exact(errors: int, runs: int) -> None:
    """At the upper limit, seeing so few errors has exactly the probability that was risked."""
    limit = upper(errors, runs, 0.01)
    assert errors == runs or binom.cdf(errors, runs, limit) == pytest.approx(0.01, rel=1e-9)


def test_bounds_of_exact_worlds_are_valid_and_near() -> None:
    """On continuous N(0,1) against N(1,1) the bound is below ε(μ=1) and above ε(0.9); identical worlds give 0."""
    rng = np.random.default_rng(11)
    absent, present = rng.normal(size=100_000), rng.normal(size=100_000)
    bound = gaussian_bound(absent, present + 1, 1e-5, 1e-6)
    assert epsilon_of_mu(0.9, 1e-5) < bound <= epsilon_of_mu(1.0, 1e-5)
    assert gaussian_bound(absent, present, 1e-5, 1e-6) == 0.0
    coins = rng.random(100_000) < 1 / (1 + math.e)
    assert 0.9 < pure_bound(coins.astype(float), (~coins).astype(float), 1e-6) <= 1.0


def test_thresholds_are_judged_on_fresh_halves() -> None:
    """The judging half alone decides: swapping the pilot half for one that shows nothing cannot raise the bound."""
    rng = np.random.default_rng(12)
    absent, present = rng.normal(size=4000), rng.normal(size=4000)
    present[:2000] += 5  # only the pilot half shows a shift
    alarms, misses = error_bounds(absent, present, 0.01)
    assert alarms + misses >= 1 - 1e-9


def test_canary_bound_agrees_with_its_formula() -> None:
    """With δ = 0 and all guesses right it solves (e^ε/(1+e^ε))^r = risk; it falls with δ and with wrong guesses."""
    epsilon = canary_bound(1000, 100, 100, 0.0, 0.05)
    assert (math.exp(epsilon) / (1 + math.exp(epsilon))) ** 100 == pytest.approx(0.05, rel=1e-4)
    assert canary_bound(1000, 100, 100, 1e-5, 0.05) < epsilon
    assert canary_bound(1000, 100, 90, 1e-5, 0.05) < canary_bound(1000, 100, 95, 1e-5, 0.05)
    assert canary_bound(1000, 100, 50, 1e-5, 0.05) == 0.0
    assert canary_bound(1000, 100, 0, 1e-5, 0.05) == 0.0


def test_randomised_response_is_not_overestimated() -> None:
    """A mechanism of exactly ε = 1 is bounded above 1 in at most 5 % of runs (here: 200 runs, at most 25)."""
    rng, over = np.random.default_rng(13), 0
    for _ in range(200):
        right = int(rng.binomial(400, math.e / (1 + math.e)))
        over += canary_bound(1000, 400, right, 0.0, 0.05) > 1.0
    assert over <= 25
    assert delta_of(0.0, 1.0) > 0.38  # the scale the audits live on


def test_guesses_name_the_extremes() -> None:
    """Highest present, lowest absent, nothing in between."""
    included = np.array([True, False, True, False, True, False])
    assert guess(np.array([9.0, -9.0, 1.0, 1.0, -3.0, -2.0]), included, 2) == 2
    assert guess(np.array([-9.0, 9.0, 1.0, 1.0, -3.0, -2.0]), included, 2) == 0


def test_the_command_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    """``--json`` prints exactly one object with the three figures, per mechanism too; without it, a table."""
    command.main(["--json", "--runs", "1000", "--trainings", "1"])
    result = json.loads(capsys.readouterr().out)
    three = {"claimed", "lower_bound_correct", "lower_bound_broken"}
    assert three <= result.keys()
    assert len(result["mechanisms"]) == 6
    assert all(three == figures.keys() for figures in result["mechanisms"].values())
    command.main(["--runs", "1000", "--trainings", "1"])
    assert "claimed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["--runs", "5"])
