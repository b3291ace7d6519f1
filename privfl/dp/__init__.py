"""Differential privacy: units, releases, costs, calibration."""

from privfl.dp.accounting import (
    additive_mu2,
    delta_of,
    delta_only_cost,
    epsilon_of_cost,
    epsilon_of_mu,
    gaussian_cost,
    mu_for_budget,
    mu_of_epsilon,
    pure_epsilon_mu,
)
from privfl.dp.calibrate import (
    METRICS_SHARE,
    dp_sgd_multiplier_for,
    epsilon_for,
    mu2_per_upload,
    noise_multiplier_for,
    rounds_for,
    sigma_for,
    sigma_of_mu2,
    split_mu2,
)
from privfl.dp.cost import ZERO_COST, Cost
from privfl.dp.release import Block, Release
from privfl.dp.subsampled import dp_sgd_cost, dp_sgd_parts, effective_multiplier
from privfl.dp.units import Noise, Trust, Unit

__all__ = [
    "METRICS_SHARE",
    "ZERO_COST",
    "Block",
    "Cost",
    "Noise",
    "Release",
    "Trust",
    "Unit",
    "additive_mu2",
    "delta_of",
    "delta_only_cost",
    "dp_sgd_cost",
    "dp_sgd_multiplier_for",
    "dp_sgd_parts",
    "effective_multiplier",
    "epsilon_for",
    "epsilon_of_cost",
    "epsilon_of_mu",
    "gaussian_cost",
    "mu2_per_upload",
    "mu_for_budget",
    "mu_of_epsilon",
    "noise_multiplier_for",
    "pure_epsilon_mu",
    "rounds_for",
    "sigma_for",
    "sigma_of_mu2",
    "split_mu2",
]
