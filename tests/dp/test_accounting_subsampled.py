"""DP-SGD blocks against the published figures and against dp-accounting as oracle."""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting import rdp
from dp_accounting.pld import privacy_loss_distribution as pld

from privfl.dp import (
    ZERO_COST,
    delta_of,
    dp_sgd_cost,
    dp_sgd_multiplier_for,
    dp_sgd_parts,
    effective_multiplier,
    epsilon_of_cost,
    mu_for_budget,
)
from privfl.dp.accounting import root_up
from privfl.dp.subsampled import _least_mu
from privfl.errors import Misuse

# q, z, T, δ, ε by RDP, ε by PLD, ε by the rule (upper figure, met within 1 %)
REFERENCE = [
    (256 / 60000, 1.1, 14062, 1e-5, 2.596556, 2.381686, 2.386),
    (0.01, 1.0, 1000, 1e-5, 2.101367, 1.828244, 1.832),
    (0.1, 2.0, 300, 1e-5, 4.564, 4.183, 4.184),
    (1.0, 1.0, 1, 1e-5, 4.728507, 4.377178, 4.377178),
    (1.0, 5.0, 50, 1e-6, 7.766238, 7.286081, 7.286081),
    (240 / 60000, 1.1, 15000, 1e-5, 2.502871, 2.295468, None),
    (256 / 60000, 0.7, 10546, 1e-5, 6.319464, 5.639447, None),
    (150 / 60000, 1.3, 6000, 1e-5, 0.724223, 0.640111, None),
]


def oracle(q: float, z: float, steps: int) -> pld.PrivacyLossDistribution:
    """Exact loss of the whole block, add/remove."""
    return pld.from_gaussian_mechanism(z, sampling_prob=q, value_discretization_interval=1e-4).self_compose(steps)


@pytest.mark.parametrize("row", REFERENCE, ids=lambda row: f"q{row[0]:.4f}-z{row[1]}-T{row[2]}")
def test_reference_figures(row: tuple[float, float, int, float, float, float, float | None]) -> None:
    """RDP and PLD reproduce the table (the oracle is the oracle); our rule is never below PLD, never 1 % above."""
    q, z, steps, delta, by_rdp, by_pld, rule = row
    accountant = rdp.RdpAccountant()
    gaussian: dp_accounting.DpEvent = dp_accounting.GaussianDpEvent(z)
    accountant.compose(dp_accounting.PoissonSampledDpEvent(q, gaussian) if q < 1 else gaussian, steps)
    assert accountant.get_epsilon(delta) == pytest.approx(by_rdp, rel=1e-3)
    assert oracle(q, z, steps).get_epsilon_for_delta(delta) == pytest.approx(by_pld, rel=1e-3)
    ours = epsilon_of_cost(dp_sgd_cost(q, z, steps, delta / 10), delta)
    assert ours >= by_pld * (1 - 1e-6)
    assert ours <= (rule if rule is not None else by_pld) * 1.01


def test_the_curve_covers_the_loss_distribution_between_grid_points() -> None:
    """δ_PLD(ε) ≤ δ′ + (1 − δ′)·δ_G(ε) at points the search never looked at, far tail included."""
    q, z, steps, prime = 0.02, 1.2, 200, 1e-7
    mu = root_up(dp_sgd_cost(q, z, steps, prime).mu2)
    loss = oracle(q, z, steps)
    epsilons = sorted(float(e) for e in np.random.default_rng(3).uniform(0, 6, 400))
    for epsilon, true in zip(epsilons, loss.get_delta_for_epsilon(epsilons), strict=True):
        assert true <= prime + (1 - prime) * delta_of(epsilon, mu)
        tight = prime + (1 - prime) * delta_of(epsilon, mu * 0.995)
        if true > tight:
            break
    else:
        pytest.fail("the bound is loose everywhere: a smaller mu would have done")


def test_between_grid_points_the_worst_is_assumed() -> None:
    """On a coarse grid a loss that stays high until the next point is still covered, right up to that point."""
    epsilons, deltas = np.array([0.0, 0.5, 1.0, 1.5]), np.array([0.4, 0.2, 0.05, 0.0])
    mu = _least_mu(epsilons, deltas, 1e-7)
    for i in range(3):
        covered = 1e-7 + (1 - 1e-7) * delta_of(float(epsilons[i + 1]), mu)
        assert covered >= deltas[i]
    assert _least_mu(epsilons, np.zeros(4), 1e-7) == 0.0
    with pytest.raises(Misuse, match="cut before"):
        _least_mu(epsilons, deltas + 0.01, 1e-7)


def test_full_batches_need_no_conversion() -> None:
    """q = 1 is the closed formula and charges no δ′."""
    cost = dp_sgd_cost(1.0, 5.0, 50, 1e-7)
    assert (float(cost.mu2), cost.delta) == (2.0, 0)


def test_parts_cost_more_than_the_whole_and_are_few() -> None:
    """Five sub-blocks of the long reference run cost about 4 % of ε; six are refused."""
    q, z, steps, delta = 256 / 60000, 1.1, 14062, 1e-5
    parts = dp_sgd_parts(q, z, steps, delta / 10, 5)
    assert len(parts) == 5
    epsilon = epsilon_of_cost(sum(parts, ZERO_COST), delta)
    assert 2.386 < epsilon < 2.386 * 1.045
    with pytest.raises(Misuse, match="1 to 5"):
        dp_sgd_parts(q, z, steps, delta / 10, 6)


def test_effective_multiplier_takes_the_four_off() -> None:
    """√(σ² − 4)/Δ, not above."""
    assert effective_multiplier(9, 4.0) == pytest.approx(math.sqrt(12) / 3)
    assert effective_multiplier(9, 4.0) <= math.sqrt(12) / 3
    with pytest.raises(Misuse):
        effective_multiplier(0, 4.0)


@pytest.mark.parametrize(
    ("q", "z", "steps", "prime"),
    [(0, 1, 1, 1e-6), (1.1, 1, 1, 1e-6), (0.1, 0, 1, 1e-6), (0.1, 1, 0, 1e-6), (0.1, 1, 1, 0), (0.1, 1, 1, 0.5)],
)
def test_impossible_blocks(q: float, z: float, steps: int, prime: float) -> None:
    """Arguments out of range are the caller's mistake."""
    with pytest.raises(Misuse):
        dp_sgd_cost(q, z, steps, prime)


def test_delta_prime_must_dwarf_the_noise_of_the_accountant() -> None:
    """A δ′ in the range of floating-point noise is refused instead of trusted."""
    with pytest.raises(Misuse, match="resolves"):
        dp_sgd_cost(0.01, 1.0, 1000, 1e-12)


def test_hopeless_noise_is_named() -> None:
    """A block whose ε is beyond the accountant's range says so instead of returning a number."""
    with pytest.raises(Misuse, match="add noise or take fewer steps"):
        dp_sgd_cost(0.9, 0.4, 60, 1e-6)
    with pytest.raises(Misuse, match="hardly any noise"):
        dp_sgd_cost(0.5, 0.05, 50, 1e-6)


def test_calibrated_block_fits_and_not_much_less_noise_would() -> None:
    """The z found for (ε, δ) is admitted, z/1.005 is not."""
    epsilon, delta, q, steps = 2.0, 1e-5, 0.1, 20
    z = dp_sgd_multiplier_for(epsilon, delta, q, steps)
    mu2, slack = mu_for_budget(epsilon, delta)
    cost = dp_sgd_cost(q, z, steps, math.nextafter(float(slack), 0))
    assert cost.mu2 <= mu2
    assert cost.delta <= slack
    assert dp_sgd_cost(q, z / 1.005, steps, float(slack)).mu2 > mu2
