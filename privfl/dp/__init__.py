"""Differential privacy: units, releases, exact mechanisms, one currency of cost, calibration.

A site turns rows into an exact integer :class:`Contribution`, :func:`assemble` and :func:`noised` make it
ready to be masked; the :class:`Release` says what that costs. The arguments are in docs/privacy.md.
"""

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
from privfl.dp.contribution import LocalReport
from privfl.dp.cost import ZERO_COST, Cost
from privfl.dp.mechanisms import (
    MAX_REACH,
    Contribution,
    FactorTable,
    assemble,
    bounded_sum,
    contributions,
    dithered_sum,
    factor_gradient,
    materialised,
    noised,
    saturate,
    site_vector,
)
from privfl.dp.release import Block, Release
from privfl.dp.samplers import DiscreteGaussian, DiscreteLaplace
from privfl.dp.sizing import (
    WIDTHS,
    Sizing,
    bounded_delta2,
    dithered_delta2,
    factor_delta2,
    largest_x_max,
    least_scaled_clip,
    rounded_delta2,
    size_vector,
)
from privfl.dp.subsampled import dp_sgd_cost, dp_sgd_parts, effective_multiplier
from privfl.dp.units import Noise, Trust, Unit

__all__ = [
    "MAX_REACH",
    "METRICS_SHARE",
    "WIDTHS",
    "ZERO_COST",
    "Block",
    "Contribution",
    "Cost",
    "DiscreteGaussian",
    "DiscreteLaplace",
    "FactorTable",
    "LocalReport",
    "Noise",
    "Release",
    "Sizing",
    "Trust",
    "Unit",
    "additive_mu2",
    "assemble",
    "bounded_delta2",
    "bounded_sum",
    "contributions",
    "delta_of",
    "delta_only_cost",
    "dithered_delta2",
    "dithered_sum",
    "dp_sgd_cost",
    "dp_sgd_multiplier_for",
    "dp_sgd_parts",
    "effective_multiplier",
    "epsilon_for",
    "epsilon_of_cost",
    "epsilon_of_mu",
    "factor_delta2",
    "factor_gradient",
    "gaussian_cost",
    "largest_x_max",
    "least_scaled_clip",
    "materialised",
    "mu2_per_upload",
    "mu_for_budget",
    "mu_of_epsilon",
    "noise_multiplier_for",
    "noised",
    "pure_epsilon_mu",
    "rounded_delta2",
    "rounds_for",
    "saturate",
    "sigma_for",
    "sigma_of_mu2",
    "site_vector",
    "size_vector",
    "split_mu2",
]
