"""The last step at a site: block order, saturation, exact noise of the announced size."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

import privfl.dp.mechanisms as module
from privfl.dp.contribution import Contribution, LocalReport
from privfl.dp.mechanisms import assemble, noised, saturate
from privfl.dp.release import Block, Release
from privfl.dp.samplers import DiscreteLaplace
from privfl.dp.units import Noise, Trust, Unit
from privfl.errors import Misuse
from privfl.ring import Ring, centred, reduce, to_words


class Seeded:
    """Entropy from a fixed seed; counts its draws."""

    def __init__(self, seed: int) -> None:
        self._seed, self.count = seed, 0

    def draw(self, size: int) -> bytes:
        self.count += 1
        return hashlib.shake_256(f"{self._seed} {self.count}".encode()).digest(size)


def release(*blocks: Block, trust: Trust = Trust.DISTRIBUTED) -> Release:
    return Release(Unit.RECORD, trust, blocks, min_survivors=5, colluders=1)


class Silent:
    """In place of a sampler: no noise, so that what is left can be seen."""

    def __init__(self, sigma: object) -> None:
        pass

    def sample(self, size: int, entropy: object) -> np.ndarray:
        return np.zeros(size, dtype=np.int64)


def test_each_block_has_its_own_noise_of_the_announced_size() -> None:
    """σ_site = σ/√h within 1 % on 400 000 draws per block, fresh across chunks and blocks."""
    size = 400_000
    plan = release(Block("a", size, 1, 10, 40.0), Block("b", size, 1, 10, 2000.0))
    out = noised(np.zeros(2 * size, dtype=np.int64), plan, Seeded(1))
    for part, sigma in ((out[:size], 40.0), (out[size:], 2000.0)):
        assert math.isclose(float(part.std()), sigma / 2, rel_tol=0.01)
        assert abs(float(part.mean())) < 6 * sigma / 2 / math.sqrt(size)
        chunk = module._CHUNK
        rest = part[chunk:]
        assert abs(float(np.corrcoef(rest, part[: rest.size])[0, 1])) < 6 / math.sqrt(rest.size)
    assert abs(float(np.corrcoef(out[:size], out[size:])[0, 1])) < 6 / math.sqrt(size)


def test_one_fresh_draw_and_nothing_else() -> None:
    """The noise is a function of one 32-byte draw; a second call with the same source draws again."""
    plan = release(Block("a", 1000, 1, 10, 40.0))
    zero = np.zeros(1000, dtype=np.int64)
    source = Seeded(2)
    first, second = noised(zero, plan, source), noised(zero, plan, source)
    assert source.count == 2
    assert not np.array_equal(first, second)
    assert np.array_equal(noised(zero, plan, Seeded(2)), first)


def test_noise_does_not_depend_on_the_vector() -> None:
    """The same draw gives the same noise whatever it is added to."""
    plan = release(Block("a", 100, 1, 10**6, 40.0))
    vector = np.arange(100, dtype=np.int64) - 50
    zero = noised(np.zeros(100, dtype=np.int64), plan, Seeded(3))
    assert np.array_equal(noised(vector, plan, Seeded(3)) - zero, vector)


def test_saturation_comes_before_noise_and_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each coordinate is bounded at its own block's x_max, nothing else is changed, and strays are counted locally."""
    monkeypatch.setattr(module, "DiscreteGaussian", Silent)
    monkeypatch.setattr(module, "_CHUNK", 2)
    plan = release(Block("a", 3, 1, 5, 40.0), Block("b", 2, 1, 100, 40.0))
    report = LocalReport()
    vector = np.array([-9, 5, 6, 99, -(2**63)], dtype=np.int64)
    assert noised(vector, plan, Seeded(4), report=report).tolist() == [-5, 5, 5, 99, -100]
    assert vector.tolist()[0] == -9
    assert report.saturated == 3


def test_saturation_never_moves_neighbours_apart() -> None:
    """1-Lipschitz in every coordinate, at the ends of int64 too."""
    values = np.array([-(2**63), -(2**62), -7, -1, 0, 1, 6, 2**62, 2**63 - 1], dtype=np.int64)
    for x_max in (1, 6, 2**62, 2**63 - 1, 2**70):
        out = saturate(values, x_max)
        for left, a in zip(values.tolist(), out.tolist(), strict=True):
            assert abs(a) <= x_max
            for right, b in zip(values.tolist(), out.tolist(), strict=True):
                assert abs(a - b) <= abs(left - right)


def test_noise_beyond_64_bits_wraps_as_the_ring_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full-width coordinate plus noise is right modulo every ring, hence costs utility and no more."""

    class One(Silent):
        def sample(self, size: int, entropy: object) -> np.ndarray:
            return np.ones(size, dtype=np.int64)

    monkeypatch.setattr(module, "DiscreteGaussian", One)
    plan = release(Block("a", 1, 1, 2**63 - 1, 40.0))
    out = noised(np.array([2**63 - 1], dtype=np.int64), plan, Seeded(5))
    for bits in (16, 20, 64):
        ring = Ring.of(bits)
        got = int(centred(reduce(to_words(out, ring), ring), ring)[0])
        assert (got - 2**63) % ring.modulus == 0


def test_laplace_under_local_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pure-ε release draws discrete Laplace noise of the block's scale."""
    scales = []
    monkeypatch.setattr(module, "DiscreteLaplace", lambda scale: scales.append(float(scale)) or DiscreteLaplace(scale))
    block = Block("count", 200_000, 1, 10, 8.0, delta1=1)
    plan = Release(Unit.RECORD, Trust.LOCAL, (block,), noise=Noise.LAPLACE)
    out = noised(np.zeros(200_000, dtype=np.int64), plan, Seeded(6))
    assert scales == [8.0]
    assert math.isclose(float(out.std()), 8 * math.sqrt(2), rel_tol=0.02)


def part(length: int, delta2: int = 4, dithered: bool = False) -> Contribution:
    return Contribution(np.arange(length, dtype=np.int64), delta2, dithered)


def test_contributions_fill_their_blocks_in_order() -> None:
    """A matrix is flattened row by row; order is the release's."""
    plan = release(Block("a", 4, 9, 5, 40.0), Block("b", 2, 4, 5, 40.0, dithered=True))
    matrix = Contribution(np.array([[1, 2], [3, 4]], dtype=np.int64), 9)
    assert assemble([matrix, part(2, dithered=True)], plan).tolist() == [1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize(
    ("parts", "cause"),
    [
        ([part(4)], "do not fill"),
        ([part(3), part(2)], "coordinates"),
        ([part(4, delta2=5), part(2)], "smaller sensitivity"),
        ([part(4), part(2, dithered=True)], "smaller sensitivity"),
    ],
)
def test_more_than_was_charged_is_refused(parts: list[Contribution], cause: str) -> None:
    """A contribution that needs a larger Δ, or a δ′ for its dither, than was announced does not pass."""
    plan = release(Block("a", 4, 4, 5, 40.0), Block("b", 2, 4, 5, 40.0))
    with pytest.raises(Misuse, match=cause):
        assemble(parts, plan)


def test_the_l1_norm_is_charged_under_laplace() -> None:
    """Laplace noise counts L1: four coordinates of L2 norm 2 can have L1 norm 4, not 3."""
    for delta1, accepted in ((4, True), (3, False)):
        block = Block("a", 4, 4, 5, 40.0, delta1=delta1)
        plan = Release(Unit.RECORD, Trust.LOCAL, (block,), noise=Noise.LAPLACE)
        if accepted:
            assemble([part(4)], plan)
        else:
            with pytest.raises(Misuse, match="L1"):
                assemble([part(4)], plan)


def test_floats_and_foreign_lengths_are_refused() -> None:
    """Only exact integers of the announced length are noised."""
    plan = release(Block("a", 4, 1, 5, 40.0))
    with pytest.raises(Misuse, match="does not fill"):
        noised(np.zeros(5, dtype=np.int64), plan, Seeded(7))
    with pytest.raises(Misuse, match="exact integers"):
        noised(np.zeros(4), plan, Seeded(7))  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="x_max"):
        saturate(np.zeros(4, dtype=np.int64), 0)
