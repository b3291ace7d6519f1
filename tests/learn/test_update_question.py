"""A question about an app's training as it travels: nothing that a peer claims is believed, nothing hostile gets in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.codec import decode, encode
from privfl.dp import Release, Unit, epsilon_of_cost
from privfl.errors import BudgetExceeded, Malformed, Misuse, PrivflError, Refused
from privfl.learn.update_inputs import Ask, Inputs, read_inputs, shapes_of
from privfl.learn.update_plan import Wanted, plan_update
from privfl.learn.update_spec import UpdateSpec, bounded
from privfl.learn.updates import UpdateDescriptor, UpdateQuestion
from privfl.ring import packed_size
from privfl.runtime.questions import question_from
from tests.learn.support import SeededEntropy
from tests.learn.update_support import EVALUATE, TRAIN, arrays_of, data, question

SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=20).filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text)),
    st.binary(max_size=20),
)
SETTINGS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=10),
    st.one_of(SCALARS, st.lists(st.integers(-9, 9)), st.lists(st.floats(allow_nan=False)), st.lists(st.binary())),
    max_size=5,
)


@settings(max_examples=100, deadline=None)
@given(config=SETTINGS, action=st.sampled_from(["train", "train.warm_up"]))
def test_calls_travel_whole(config: dict[str, Any], action: str) -> None:
    """Whatever a server may put into a configuration arrives with its value and its type."""
    asked, ask = question(), Ask(action, (("m", None), ("c", config), ("more", {})))
    found = read_inputs(asked.encode_inputs(2, arrays_of(), ask, EVALUATE), asked.spec.arrays)
    assert found.round == 2
    assert found.evaluate == EVALUATE
    assert found.train is not None
    told = dict(found.train.records)["c"]
    assert told == config
    assert [type(value) for value in (told or {}).values()] == [type(value) for value in config.values()]
    np.testing.assert_array_equal(found.arrays["w"], arrays_of()["w"])


def test_settings_that_do_not_travel() -> None:
    """Objects, numbers beyond 64 bits, nested lists and floods are the user's mistake, in words."""
    asked = question()
    for value in (object(), 2**70, [[1]], ["x" * (1 << 21)], [1] * 20_000):
        with pytest.raises(Misuse):
            asked.encode_inputs(1, arrays_of(), Ask("train", (("m", None), ("c", {"k": value}))), None)  # type: ignore[dict-item]
    for kind in ("query", "train.1", "train.a.b", "", "evaluate()"):
        with pytest.raises(Misuse):
            Ask(kind, (("m", None),))
    with pytest.raises(Misuse):
        Ask("train", (("m", None), ("n", None)))


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 400), flip=st.integers(0, 400), bit=st.integers(0, 7), more=st.binary(max_size=3))
def test_spoiled_inputs_are_malformed_or_other_sound_inputs(cut: int, flip: int, bit: int, more: bytes) -> None:
    """Cut, lengthened or flipped bytes never raise anything but Malformed; what passes is canonical."""
    asked = question()
    good = asked.encode_inputs(1, arrays_of(), TRAIN, EVALUATE)
    spoiled = bytearray(good)
    spoiled[flip % len(good)] ^= 1 << bit
    for bad in (good[: cut % len(good)], good + (more or b"\0"), bytes(spoiled)):
        try:
            found = asked.read(bad)
        except Malformed:
            continue
        assert Inputs(found.round, found.arrays, found.train, found.evaluate).encode() == bad


def test_inputs_of_another_question() -> None:
    """Other rounds, other sizes, models that are not finite, calls that stand in the wrong place."""
    asked = question()
    good = Inputs(1, arrays_of(), TRAIN, EVALUATE)
    nan = {"w": np.full(6, np.nan, dtype=np.float32)}
    for bad in (
        replace(good, round=3),
        replace(good, round=0),
        replace(good, train=None),
        replace(good, train=EVALUATE),
        replace(good, evaluate=TRAIN),
        replace(good, train=None, evaluate=None),
        replace(good, arrays=arrays_of(7)),
        replace(good, arrays={}),
        replace(good, arrays=nan),
    ):
        with pytest.raises(Malformed):
            asked.sum_of(bad.encode())
    with pytest.raises(Malformed):
        question(evaluate={}).sum_of(good.encode())
    with pytest.raises(Misuse, match="cannot be asked"):
        asked.encode_inputs(1, nan, TRAIN, None)


def test_a_question_comes_back_the_same() -> None:
    """From its bytes, by the one function that sites use."""
    for made in (
        question(),
        question(epsilon=3.0, bits=20, final=True, unit="record"),
        question(cap=0, trust="local", epsilon=9.0),
    ):
        found = question_from(made.descriptor())
        assert isinstance(found, UpdateQuestion)
        assert found.descriptor() == made.descriptor()
        assert found.id == made.id
        assert found.layout() == made.layout()
        assert (found.kind, found.purpose, found.clip, found.columns) == ("update", "training", 1.0, ())


def lies() -> list[tuple[str, dict[str, Any]]]:
    told = UpdateDescriptor.decode(question(epsilon=3.0).descriptor())
    assert told.release is not None
    first = told.release.blocks[0]

    def with_first(**changes: Any) -> dict[str, Any]:
        assert told.release is not None
        return {"release": replace(told.release, blocks=(replace(first, **changes), *told.release.blocks[1:]))}

    return [
        ("a smaller sensitivity", with_first(delta2=first.delta2 - 1)),
        ("less noise", with_first(sigma=first.sigma * 0.99)),
        ("another bound", with_first(x_max=first.x_max + 1)),
        ("dithered", with_first(dithered=True)),
        ("a larger clip", {"clip": "2.0"}),
        ("a clip that is none", {"clip": "nan"}),
        ("a clip at length", {"clip": "1.00"}),
        ("another scale", {"scale": told.scale + 1}),
        ("other steps", {"fine": told.fine - 1}),
        ("a smaller epsilon", {"epsilon": "2.9"}),
        ("no epsilon", {"epsilon": None}),
        ("no delta", {"delta": None}),
        ("no release", {"release": None}),
        ("another unit of promise", {"unit": "record"}),
        ("a unit that is none", {"unit": "village"}),
        ("more uploads", {"uploads": told.uploads + 5}),
        ("no round", {"rounds": 0}),
        ("more rounds than uploads", {"rounds": told.uploads + 1}),
        ("a last slot beyond them", {"final": True, "rounds": told.uploads}),
        ("one site", {"sites": 1}),
        ("many sites", {"sites": 10_000_000}),
        ("a narrow ring", {"bits": 16, "word": 16}),
        ("no ring", {"bits": 99}),
        ("a longer array", {"arrays": (replace(told.arrays[0], shape=(7,)),)}),
        ("a huge array", {"arrays": (replace(told.arrays[0], shape=(2**32, 2**32)),)}),
        ("objects", {"arrays": (replace(told.arrays[0], dtype="|O"),)}),
        ("a type that is none", {"arrays": (replace(told.arrays[0], dtype="<f3"),)}),
        ("an array twice", {"arrays": told.arrays * 2}),
        ("no array", {"arrays": ()}),
        ("other weights", {"weights": "heavy"}),
        ("no cap", {"cap": 0}),
        ("a metric less", {"train": ()}),
        ("bounds at length", {"train": (replace(told.train[0], low="-1.00"),)}),
        ("bounds out of order", {"train": (replace(told.train[0], low="9.0"),)}),
        ("infinite bounds", {"train": (replace(told.train[0], high="inf"),)}),
        ("metrics of no evaluation", {"evaluates": False}),
        ("no schema", {"schema": "{}"}),
        ("a record unit", {"release": replace(told.release, unit=Unit.RECORD)}),
        ("survivors beyond the sites", {"release": replace(told.release, min_survivors=9)}),
    ]  # fmt: skip


@pytest.mark.parametrize("lie", lies(), ids=lambda lie: lie[0])
def test_a_peers_figures_are_computed_again(lie: tuple[str, dict[str, Any]]) -> None:
    """Every figure that does not follow from the others is refused, before anything is charged."""
    told = UpdateDescriptor.decode(question(epsilon=3.0).descriptor())
    with pytest.raises((Malformed, Refused)):
        question_from(replace(told, **lie[1]).encode())


@settings(max_examples=150, deadline=None)
@given(flip=st.integers(0, 5000), bit=st.integers(0, 7))
def test_spoiled_descriptions_raise_nothing_unexpected(flip: int, bit: int) -> None:
    """One flipped bit: refused, or a question that describes itself by these very bytes."""
    good = question(epsilon=3.0).descriptor()
    bad = bytearray(good)
    bad[flip % len(good)] ^= 1 << bit
    try:
        found = question_from(bytes(bad))
    except PrivflError:
        return
    assert found.descriptor() == bytes(bad)


def test_a_description_of_nothing() -> None:
    """A tuple with the right tag and nothing else."""
    with pytest.raises(Malformed):
        question_from(encode(("update",)))
    value = decode(question().descriptor())
    assert isinstance(value, tuple)
    with pytest.raises(Malformed):
        question_from(encode((*value, 1)))


@pytest.mark.parametrize(("bits", "most"), [(32, 1.05), (20, 0.67), (16, 0.55)])
def test_a_million_parameters_are_as_small_as_promised(bits: int, most: float) -> None:
    """The packed vector beside the model in float32, for ten sites."""
    arrays = {"w": np.zeros(1_000_000, dtype=np.float32)}
    asked = question(arrays, bits=bits, sites=10, least=8)
    assert packed_size(asked.length, asked.plan.ring) <= most * arrays["w"].nbytes
    assert asked.grain.rotated == (bits < 32)
    inputs = asked.encode_inputs(1, arrays, TRAIN, EVALUATE)
    vector = asked.contribution(inputs, data(np.float32(1e-3)), SeededEntropy(1))
    assert int(np.abs(vector[:1_000_000]).max()) <= asked.layout()[0].x_max


@settings(max_examples=60, deadline=None)
@given(
    epsilon=st.floats(0.5, 50),
    uploads=st.integers(2, 60),
    sites=st.integers(4, 200),
    unit=st.sampled_from(list(Unit)),
    trust=st.sampled_from(["local", "distributed"]),
    clip=st.floats(1e-3, 1e3),
)
def test_every_plan_keeps_its_promise(
    epsilon: float, uploads: int, sites: int, unit: Unit, trust: str, clip: float
) -> None:
    """All uploads together cost at most what was given, in the unit that was named, and nearly all of it is used."""
    try:
        made = question(
            epsilon=epsilon, uploads=uploads, sites=sites, least=sites - 1, unit=unit, trust=trust, clip=clip
        )
    except Refused:
        return
    assert isinstance(made.release, Release)
    spent = epsilon_of_cost(uploads * made.release.cost_in(unit), 1e-6)
    assert 0.9 * epsilon < spent <= epsilon
    assert made.noise("update") >= 4


def test_plans_that_cannot_be() -> None:
    """Each with its reason."""
    spec = UpdateSpec(shapes_of(arrays_of()), 1.0, "equal", 0, train=bounded({"a": (0, 1)}), evaluates=False)
    for wanted, kind in (
        ({"epsilon": 1.0, "delta": None}, Misuse),
        ({"sites": 1}, Misuse),
        ({"least": 5}, Misuse),
        ({"uploads": 0}, Misuse),
        ({"epsilon": 1e-7, "delta": 1e-6}, (Refused, BudgetExceeded)),
        ({"epsilon": 1.0, "delta": 1e-20}, (Refused, BudgetExceeded, Misuse)),
        ({"epsilon": 1.0, "delta": 1e-6, "least": 2}, Refused),
    ):
        fields: dict[str, Any] = {"epsilon": None, "delta": None, "uploads": 3, "sites": 4, "least": 4, **wanted}
        with pytest.raises(kind):  # type: ignore[arg-type]
            plan_update(spec, Wanted(**fields), 16 if "epsilon" in wanted else None)
    with pytest.raises(Misuse):
        shapes_of({"z": np.zeros(2, dtype=complex)})
    with pytest.raises(Misuse, match="1 to"):
        question({"w": np.zeros(0, dtype=np.float32)})
