"""A release: its rules, its encoding, and what it costs to whom."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfl.codec import decode, encode
from privfl.dp import Block, Cost, Noise, Release, Trust, Unit, gaussian_cost, pure_epsilon_mu
from privfl.errors import Malformed, Misuse, Refused

BLOCK = Block("gradient", 100, 10**12, 2**40, 5e6)


def distributed(sigma: float = 5e6, survivors: int = 5, colluders: int = 1, unit: Unit = Unit.RECORD) -> Release:
    """One block under distributed trust."""
    block = dataclasses.replace(BLOCK, sigma=sigma)
    return Release(unit, Trust.DISTRIBUTED, (block,), survivors, colluders)


@given(st.floats(100, 2**50), st.integers(2, 60), st.integers(0, 9))
def test_shares_of_the_honest_reach_the_total(sigma: float, h: int, colluders: int) -> None:
    """h·σ_site² ≥ σ² exactly, and one step of 2^-16 (or one float) less would not do."""
    release = distributed(sigma, h + max(1, colluders), colluders)
    assert release.honest == h
    site, total = release.sigma_site(release.blocks[0]), Fraction(release.blocks[0].sigma)
    assert h * Fraction(site) ** 2 >= total**2
    assert h * Fraction(site - max(2**-16, 2 * math.ulp(site))) ** 2 < total**2
    assert total >= Fraction(sigma)
    assert release.mu2 == gaussian_cost(10**12, total).mu2


@pytest.mark.parametrize(("survivors", "colluders", "honest"), [(3, 0, 2), (3, 1, 2), (5, 1, 4), (5, 3, 2)])
def test_one_site_is_always_taken_to_collude(survivors: int, colluders: int, honest: int) -> None:
    """c_noise = max(1, c): a lone site that reads the result knows its own noise."""
    assert distributed(5e6, survivors, colluders).honest == honest


@pytest.mark.parametrize(("survivors", "colluders"), [(2, 0), (2, 1), (3, 2), (1, 5)])
def test_fewer_than_two_honest_shares_are_refused(survivors: int, colluders: int) -> None:
    """Distributed trust needs two honest shares; the message says how many survivors would do."""
    with pytest.raises(Refused, match=f"min_survivors to {max(1, colluders) + 2}"):
        distributed(5e6, survivors, colluders)


def test_four_integer_units_per_site_or_nothing() -> None:
    """σ_site = 4 passes, a step less is refused, under both kinds of trust."""
    assert distributed(8.0, 5, 1).sigma_site(distributed(8.0).blocks[0]) == 4.0
    with pytest.raises(Refused, match="finer scale"):
        distributed(8.0 - 2**-14, 5, 1)
    Release(Unit.RECORD, Trust.LOCAL, (dataclasses.replace(BLOCK, sigma=4.0),))
    with pytest.raises(Refused, match="finer scale"):
        Release(Unit.RECORD, Trust.LOCAL, (dataclasses.replace(BLOCK, sigma=3.9),))


def test_local_noise_stands_alone() -> None:
    """Under local trust h = 1 whatever the cohort, and the fallback is the claim."""
    release = Release(Unit.RECORD, Trust.LOCAL, (BLOCK,), min_survivors=5, colluders=1)
    assert release.honest == 1
    assert release.sigma_site(BLOCK) == BLOCK.sigma
    assert release.fallback_mu == release.mu


@given(st.floats(20, 1e9), st.integers(3, 40))
def test_the_fallback_is_root_h_times_mu(sigma: float, survivors: int) -> None:
    """If all others collude one share remains: μ·√h, and slightly more where the 4 counts."""
    release = distributed(max(sigma, 4.01 * math.sqrt(survivors)), survivors)
    assert release.fallback_mu >= release.mu * math.sqrt(release.honest) * (1 - 1e-3)
    site = release.sigma_site(release.blocks[0])
    assert release.fallback_mu == pytest.approx(1e6 / math.sqrt(site**2 - 4), rel=1e-9)


def test_blocks_add_and_dither_and_samplers_are_charged() -> None:
    """μ² adds over blocks; δ′ is 10⁻¹² per dithered block plus 2^-70 per coordinate."""
    other = Block("metrics", 3, 300, 2**20, 400.0, dithered=True)
    release = Release(Unit.RECORD, Trust.LOCAL, (BLOCK, other))
    assert release.mu2 == gaussian_cost(10**12, 5e6).mu2 + gaussian_cost(300, 400.0).mu2
    assert release.delta == Fraction(1, 10**12) + Fraction(103, 2**70)
    assert release.cost == Cost(release.mu2, release.delta)
    assert release.length == 103


def test_laplace_is_for_local_pure_epsilon() -> None:
    """Laplace needs an L1 bound and local trust; its μ is the one of Σ Δ₁/t."""
    block = Block("counts", 4, 1, 2**20, 2.0, delta1=1)
    release = Release(Unit.RECORD, Trust.LOCAL, (block,), noise=Noise.LAPLACE)
    assert release.mu == pytest.approx(pure_epsilon_mu(0.5), rel=1e-9)
    assert release.mu >= pure_epsilon_mu(0.5)
    assert release.sigma_site(block) == 2.0
    with pytest.raises(Refused, match="local trust"):
        Release(Unit.RECORD, Trust.DISTRIBUTED, (block,), 5, 1, Noise.LAPLACE)
    with pytest.raises(Misuse, match="delta1"):
        Release(Unit.RECORD, Trust.LOCAL, (BLOCK,), noise=Noise.LAPLACE)
    with pytest.raises(Misuse, match="dithered"):
        Release(Unit.RECORD, Trust.LOCAL, (dataclasses.replace(block, dithered=True),), noise=Noise.LAPLACE)


def test_costs_in_other_units() -> None:
    """Clipped per site, a record costs twice the μ; per record, a subject max_rows times, a site has no cost."""
    site, record = distributed(unit=Unit.SITE), distributed()
    assert site.cost_in(Unit.RECORD).mu2 == site.cost_in(Unit.SUBJECT).mu2 == 4 * site.mu2
    assert record.cost_in(Unit.RECORD) == record.cost
    assert record.cost_in(Unit.SUBJECT, max_rows=3).mu2 == 9 * record.mu2
    assert distributed(unit=Unit.SUBJECT).cost_in(Unit.RECORD).mu2 == 4 * record.mu2
    with pytest.raises(Refused, match="max_rows"):
        record.cost_in(Unit.SUBJECT)
    with pytest.raises(Refused, match="no finite cost"):
        record.cost_in(Unit.SITE)


@given(st.floats(200, 2**58), st.integers(1, 10**60), st.sampled_from(Unit), st.booleans())
def test_releases_travel_exactly(sigma: float, delta2: int, unit: Unit, dithered: bool) -> None:
    """σ is hashed as an integer, and decoding gives the same release back."""
    block = Block("g", 7, delta2, 99, sigma, dithered)
    release = Release(unit, Trust.DISTRIBUTED, (block, dataclasses.replace(block, name="h")), 6, 2)
    assert Release.decode(release.encode()) == release
    assert block.sigma_q16 == math.ceil(Fraction(sigma) * 2**16)
    assert Fraction(block.sigma) * 2**16 == block.sigma_q16


def test_every_field_is_in_the_hash() -> None:
    """Two releases that differ anywhere have different bytes."""
    base = distributed()
    variants = [
        base,
        dataclasses.replace(base, unit=Unit.SITE),
        dataclasses.replace(base, trust=Trust.LOCAL),
        dataclasses.replace(base, min_survivors=6),
        dataclasses.replace(base, colluders=2),
    ]
    for field, value in (
        ("name", "x"), ("length", 9), ("delta2", 9), ("x_max", 9), ("sigma", 6e6), ("dithered", True), ("delta1", 1),
    ):  # fmt: skip
        variants.append(dataclasses.replace(base, blocks=(dataclasses.replace(BLOCK, **{field: value}),)))
    assert len({item.encode() for item in variants}) == len(variants)


@pytest.mark.parametrize(
    "change",
    [(0, "other"), (1, "person"), (1, 5), (2, "central"), (3, ()), (4, 0), (4, "5"), (5, -1), (6, "uniform")],
)
def test_foreign_bytes_are_malformed(change: tuple[int, object]) -> None:
    """A peer's nonsense is the peer's fault: Malformed, whichever field it is in."""
    value = list(distributed().to_value())
    value[change[0]] = change[1]
    with pytest.raises(Malformed):
        Release.from_value(decode(encode(tuple(value))))


@pytest.mark.parametrize(
    "change", [(1, ""), (2, 0), (3, -1), (4, 0), (5, 0), (5, 2**80), (5, 2**70 + 1), (6, 1), (7, -1)]
)
def test_foreign_blocks_are_malformed(change: tuple[int, object]) -> None:
    """The same for the fields of a block, a σ without an exact float included."""
    value = list(BLOCK.to_value())
    value[change[0]] = change[1]
    with pytest.raises(Malformed):
        Block.from_value(tuple(value))


def test_a_peer_that_breaks_a_rule_of_noise_is_refused() -> None:
    """Well-formed bytes with too little noise are not malformed: the rule that forbids them speaks."""
    value = list(distributed().to_value())
    value[4] = 2
    with pytest.raises(Refused):
        Release.from_value(tuple(value))


@pytest.mark.parametrize(
    "fields",
    [{"name": ""}, {"length": 0}, {"delta2": 0}, {"delta2": 1.5}, {"x_max": 0}, {"sigma": 0}, {"sigma": math.nan},
     {"sigma": math.inf}, {"delta1": -1}, {"length": True}],
)  # fmt: skip
def test_impossible_blocks(fields: dict[str, object]) -> None:
    """A block that no upload can have is the caller's mistake."""
    with pytest.raises(Misuse):
        dataclasses.replace(BLOCK, **fields)


def test_impossible_releases() -> None:
    """No blocks, twins, unknown words."""
    with pytest.raises(Misuse, match="no two"):
        Release(Unit.RECORD, Trust.LOCAL, (BLOCK, BLOCK))
    with pytest.raises(Misuse):
        Release(Unit.RECORD, Trust.LOCAL, ())
    with pytest.raises(Misuse, match="record, subject, site"):
        Release("person", Trust.LOCAL, (BLOCK,))  # type: ignore[arg-type]
    assert Release("record", "local", (BLOCK,)).trust is Trust.LOCAL  # type: ignore[arg-type]


def test_reports_name_unit_trust_and_fallback() -> None:
    """Every report says who is protected, on whose noise it rests, and what is left if all others collude."""
    words = distributed().words(1e-5, uploads=30)
    for needed in ("epsilon 4.866", "delta 1e-05", "record", "one row", "distributed", "4 honest shares", "11.192"):
        assert needed in words
    assert "collude" not in Release(Unit.RECORD, Trust.LOCAL, (BLOCK,)).words(1e-5)
