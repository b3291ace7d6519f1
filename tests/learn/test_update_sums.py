"""What a site sends of an app's training stays within its bounds, and what is opened is the weighted mean."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.dp import LocalReport, Unit
from privfl.learn.update_data import Answer
from privfl.learn.update_inputs import Arrays
from privfl.learn.update_spec import Grain, layout_of
from privfl.learn.updates import Opened, UpdateQuestion
from privfl.ring import centred, to_words
from tests.learn.support import SeededEntropy
from tests.learn.update_support import EVALUATE, TRAIN, arrays_of, data, question


def blocks(asked: UpdateQuestion, vector: Any) -> dict[str, Any]:
    """A vector's stretches by name."""
    found, at = {}, 0
    for part in asked.layout():
        found[part.name] = vector[at : at + part.length]
        at += part.length
    return found


def summed(asked: UpdateQuestion, sites: list[Any], arrays: Arrays, *, number: int = 1, seed: int = 1) -> Opened:
    """One slot added in its ring without masks."""
    evaluate = EVALUATE if asked.spec.evaluates else None
    inputs = asked.encode_inputs(number, arrays, TRAIN if number <= asked.rounds else None, evaluate)
    total = np.zeros(asked.sum_of(inputs).length, dtype=asked.plan.ring.dtype)
    for place, site in enumerate(sites):
        total += to_words(asked.upload(inputs, site, SeededEntropy(seed + place)), asked.plan.ring)
    return asked.opened(inputs, centred(total, asked.plan.ring), len(sites))


# -- sensitivity ------------------------------------------------------------------------------------------

WILD = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=150, deadline=None)
@given(
    numbers=st.lists(WILD, min_size=6, max_size=6),
    examples=st.one_of(WILD, st.integers(-5, 10**30), st.none(), st.just("many"), st.booleans()),
    metrics=st.tuples(WILD, WILD),
    bits=st.sampled_from([16, 20, 32]),
    cap=st.sampled_from([0, 1, 100]),
    seed=st.integers(0, 2**32),
)
def test_whatever_comes_back_stays_within_its_bounds(
    numbers: list[float], examples: Any, metrics: tuple[float, float], bits: int, cap: int, seed: int
) -> None:
    """Each block's squared norm is at most the announced Δ², in exact integers, for any answer of any function."""
    asked = question(bits=bits, cap=cap, epsilon=40.0)
    site = data(examples=examples, loss=metrics[0], acc=metrics[1])
    site.call = lambda ask, arrays: Answer(
        {"w": np.array(numbers)}, {"num-examples": examples, "loss": metrics[0], "acc": metrics[1]}
    )
    inputs = asked.encode_inputs(1, arrays_of(), TRAIN, EVALUATE)
    vector = asked.contribution(inputs, site, SeededEntropy(seed))
    assert vector.dtype == np.int64
    assert len(vector) == asked.length
    assert asked.release is not None
    bounds = {block.name: block.delta2 for block in asked.release.blocks}
    for name, part in blocks(asked, vector).items():
        assert sum(int(x) ** 2 for x in part) <= bounds[name]
        if name != "update":
            assert all(0 <= int(x) <= 1 << asked.grain.fine for x in part)


def test_the_bound_of_weights_and_metrics_is_reached_and_never_passed() -> None:
    """All weights and metrics on a grid: the largest norm is Δ exactly; any two answers are at most 2Δ apart."""
    asked = question(cap=4, train={"a": (0, 1), "b": (-1, 1)}, evaluate={}, bits=16)
    inputs = asked.encode_inputs(1, arrays_of(), TRAIN, None)
    seen = set()
    for n, a, b in product(range(6), (-1.0, 0.0, 0.3, 1.0, 2.0), (-2.0, -1.0, 0.1, 1.0)):
        vector = asked.contribution(inputs, data(examples=n, a=a, b=b), SeededEntropy(1))
        seen.add(tuple(int(x) for x in blocks(asked, vector)["train"]))
    delta2 = next(part.delta2 for part in asked.layout() if part.name == "train")
    assert max(sum(x * x for x in row) for row in seen) == delta2 == 3 * (1 << asked.grain.fine) ** 2
    assert len(seen) > 30
    # one record may turn any answer into any other: within 2Δ, which is what four times the μ² pays for
    assert (
        max(sum((x - y) ** 2 for x, y in zip(one, other, strict=True)) for one in seen for other in seen) <= 4 * delta2
    )


def test_the_longest_changes_are_at_most_two_clips_apart() -> None:
    """Opposite changes of full weight: the pair that is furthest apart stays within 2Δ, also after a rotation."""
    for bits in (16, 32):
        asked = question(arrays_of(300), clip=2.0, bits=bits, evaluate={}, train={}, cap=0)
        inputs = asked.encode_inputs(1, arrays_of(300), TRAIN, None)
        rng = np.random.default_rng(bits)
        for _ in range(20):
            way = rng.normal(size=300).astype(np.float32)
            pair = [asked.contribution(inputs, data(sign * way), SeededEntropy(7)) for sign in (1e6, -1e6)]
            far = sum((int(x) - int(y)) ** 2 for x, y in zip(*pair, strict=True))
            delta2 = asked.layout()[0].delta2
            assert 3.9 * delta2 < far <= 4 * delta2
        assert asked.grain.rotated == (bits == 16)


def test_a_record_costs_four_times_a_site() -> None:
    """ε per record buys noise of twice the width: the same bound, twice as far apart."""
    site, record = (question(epsilon=4.0, unit=unit) for unit in ("site", "record"))
    assert site.release is not None
    assert record.release is not None
    ratio = record.noise("update") / math.ldexp(1.0, record.grain.scale - site.grain.scale) / site.noise("update")
    assert ratio == pytest.approx(2.0, rel=1e-3)
    assert record.costs(record.encode_inputs(1, arrays_of(), TRAIN, None))[Unit.RECORD].mu2 == 4 * record.release.mu2


# -- what is opened ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.floats(-0.3, 0.3), min_size=2, max_size=4),
    counts=st.lists(st.integers(1, 300), min_size=4, max_size=4),
    losses=st.lists(st.floats(-2, 4), min_size=4, max_size=4),
    bits=st.sampled_from([20, 32]),
)
def test_the_opened_mean_is_the_weighted_mean(
    changes: list[float], counts: list[int], losses: list[float], bits: int
) -> None:
    """Σwx/Σw of changes and metrics, w the capped number of examples, within the steps of the fixed point."""
    asked = question(bits=bits, clip=2.0)
    sites = [data(np.float32(c), n, loss=x) for c, n, x in zip(changes, counts, losses, strict=False)]
    found = summed(asked, sites, arrays_of())
    weights = np.minimum(counts[: len(sites)], 100) / 100
    assert found.change is not None
    assert found.train is not None
    step = 3e-5 if bits == 32 else 8e-3
    np.testing.assert_allclose(found.change["w"], np.average(changes, weights=weights), atol=step)
    assert found.examples == pytest.approx(100 * weights.sum(), abs=400 * step)
    told = np.average(np.clip(losses[: len(sites)], -1, 3), weights=weights)
    assert found.train["loss"] == pytest.approx(told, abs=10 * step)
    assert found.evaluate == pytest.approx({"acc": 0.5}, abs=10 * step)


def test_every_type_of_number_is_moved() -> None:
    """Half, single and double floats, whole numbers of every width, scalars and empty arrays travel side by side."""
    arrays: Arrays = {
        name: np.arange(4).astype(name).reshape(2, 2)
        for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint64")
    }
    arrays |= {"scalar": np.array(2.5), "empty": np.zeros((0, 3), dtype=np.float32)}
    asked = question(arrays, clip=100.0, cap=0, train={}, evaluate={})
    found = summed(asked, [data(2), data(4)], arrays)
    assert found.change is not None
    for name, array in arrays.items():
        assert found.change[name].shape == array.shape
        np.testing.assert_allclose(found.change[name], 3.0, atol=1e-4)


def test_metrics_alone_are_a_shorter_vector() -> None:
    """The last slot carries no model back, costs less, and is the same metrics."""
    asked = question(final=True, epsilon=400.0, uploads=3)
    inputs = asked.encode_inputs(3, arrays_of(), None, EVALUATE)
    total = asked.sum_of(inputs)
    assert total.length == 2
    assert total.release is not None
    assert asked.release is not None
    assert total.release.mu2 < asked.release.mu2 / 10
    found = summed(asked, [data()] * 4, arrays_of(), number=3)
    assert found.change is None
    assert found.evaluate == pytest.approx({"acc": 0.5}, abs=0.35)
    assert [price.times for price in asked.prices()] == [2, 1]


@pytest.mark.parametrize("bits", [20, 32])
def test_noise_has_the_announced_width(bits: int) -> None:
    """The spread of the opened mean is what σ says, for the model (rotated or not) and for the metrics."""
    length, sites = 20_000, 4
    arrays = {"w": np.zeros(length, dtype=np.float32)}
    asked = question(arrays, epsilon=30.0, bits=bits, cap=0)
    found = [summed(asked, [data(0.0)] * sites, arrays, seed=seed * 10) for seed in range(40)]
    sd = asked.noise("update") * math.sqrt(sites) * math.ldexp(1.0, -asked.grain.scale) / sites
    values = np.concatenate([one.change["w"] for one in found if one.change is not None])
    assert values.size == 40 * length
    assert abs(values.mean()) < 5 * sd / math.sqrt(values.size)
    assert values.std() == pytest.approx(sd, rel=0.01)
    assert asked.noise_norm == pytest.approx(sd * math.sqrt(length), rel=1e-6)
    assert found[0].train_sd["loss"] == pytest.approx(
        4 * asked.noise("train") * math.sqrt(sites) / (1 << asked.grain.fine) / sites
    )


def test_weights_that_drown_in_noise_divide_nothing() -> None:
    """Where the sum of weights is within three deviations of zero, no quotient is made of it."""
    asked = question(epsilon=0.5, train={}, evaluate={"acc": (0, 1)})
    found = summed(asked, [data(examples=0)] * 4, arrays_of())
    assert found.change is None
    assert found.train is None
    assert found.examples == 0.0


def test_a_blank_vector_looks_like_any_other() -> None:
    """A site that breaks down sends the same length and noise: the zero contribution."""
    asked = question(epsilon=20.0)
    inputs = asked.encode_inputs(1, arrays_of(), TRAIN, EVALUATE)
    broken = data(call=lambda ask, arrays: 1 / 0)
    report = LocalReport()
    upload = asked.upload(inputs, broken, SeededEntropy(3), report=report)
    np.testing.assert_array_equal(asked.contribution(inputs, broken, SeededEntropy(3)), np.zeros(asked.length))
    assert upload.shape == asked.blank(inputs, SeededEntropy(3)).shape
    assert upload.any()


def test_the_model_is_evaluated_before_it_is_trained_and_each_call_has_its_own_arrays() -> None:
    """A function that scribbles into what it got changes nothing for the other."""
    seen: list[tuple[str, float]] = []

    def call(ask: Any, arrays: Arrays) -> Answer:
        seen.append((ask.kind, float(arrays["w"].sum())))
        arrays["w"] += 100
        return Answer(arrays, {"num-examples": 1, "loss": 0.0, "acc": 0.0})

    asked = question()
    asked.contribution(asked.encode_inputs(1, arrays_of(), TRAIN, EVALUATE), data(call=call), SeededEntropy(1))
    assert [kind for kind, _ in seen] == ["evaluate", "train"]
    assert seen[0][1] == seen[1][1] == pytest.approx(0.0, abs=1e-6)


def test_saturation_is_at_what_a_clipped_vector_can_hold() -> None:
    """Without rotation a coordinate has room for the whole clip."""
    asked = question(clip=3.0)
    (update, *_) = layout_of(asked.spec, Grain(asked.grain.scale, asked.grain.fine, False))
    assert update.x_max >= 3.0 * 2.0**asked.grain.scale
    one = np.zeros(6, dtype=np.float32)
    one[2] = 3.0
    found = summed(question(clip=3.0, cap=0, train={}, evaluate={}), [data(one)], arrays_of())
    assert found.change is not None
    np.testing.assert_allclose(found.change["w"], one, atol=1e-5)
