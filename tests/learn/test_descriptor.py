"""A task as bytes: it comes back the same, and a site believes none of its numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, SGDClassifier

from privfl.codec import decode, encode
from privfl.dp import Block, Release, Unit
from privfl.errors import Malformed, PrivflError
from privfl.learn import Averaging, Category, Linear, Logistic, Numeric, Task
from privfl.learn.planning import Descriptor
from tests.learn.support import LOUD, SeededEntropy, rows, schema_with

TWO, NUMBER = schema_with(Category(classes=("no", "yes"))), schema_with(Numeric(lower=-3, upper=3))
TASKS = [
    Logistic(label="y").compile(TWO, rounds=4, **LOUD),  # type: ignore[arg-type]
    Logistic(label="y", optimiser="adam", metrics=0, target=0.9).compile(TWO, rounds=4, trust="local", **LOUD),  # type: ignore[arg-type]
    Linear(label="y", features=("b",)).compile(NUMBER, rounds=4, **LOUD),  # type: ignore[arg-type]
    Averaging(label="y", estimator=SGDClassifier(alpha=0.01, random_state=1)).compile(TWO, rounds=4, **LOUD),  # type: ignore[arg-type]
    Averaging(label="y", estimator=Ridge(), unprotected=True).compile(
        NUMBER, rounds=4, **{**LOUD, "epsilon": None}  # type: ignore[arg-type]
    ),
]  # fmt: skip


@pytest.mark.parametrize("task", TASKS, ids=repr)
def test_a_task_comes_back_the_same(task: Task) -> None:
    """Descriptor to task to descriptor is the identity, and both answer a model alike."""
    data = task.descriptor()
    again = Task.from_descriptor(data)
    assert again.descriptor() == data
    assert again.id == task.id
    assert (again.plan, again.layout(), repr(again)) == (task.plan, task.layout(), repr(task))
    model = task.model_bytes(task.initial_state())
    frame = rows(20, classes=("no", "yes")) if task.classes else rows(20, classes=(-1.0, 1.0))
    one, two = (each.upload(model, each.schema.bind(frame), SeededEntropy(1)) for each in (task, again))
    np.testing.assert_array_equal(one, two)


def with_block(release: Release, **changes: object) -> Release:
    """The release with its first block changed."""
    first, *rest = release.blocks
    return dataclasses.replace(release, blocks=(dataclasses.replace(first, **changes), *rest))  # type: ignore[arg-type]


def test_a_release_that_understates_its_sensitivity_is_refused() -> None:
    """Length, Δ², bound, unit and blocks are recomputed from clip and bits; a smaller claim is malformed."""
    told = Descriptor.decode(TASKS[0].descriptor())
    release = told.release
    assert release is not None
    block = release.blocks[0]
    lies = [
        with_block(release, delta2=block.delta2 - 1),
        with_block(release, x_max=block.x_max + 1),
        with_block(release, length=block.length + 1),
        with_block(release, name="other"),
        with_block(release, dithered=True),
        dataclasses.replace(release, unit=Unit.SITE),
        dataclasses.replace(release, blocks=release.blocks[:1]),
        dataclasses.replace(release, blocks=(*release.blocks, Block("more", 1, 1, 1, 50.0))),
        dataclasses.replace(release, min_survivors=4),
    ]
    for lie in lies:
        with pytest.raises(Malformed):
            Task.from_descriptor(dataclasses.replace(told, release=lie).encode())


def test_noise_below_the_claimed_epsilon_is_refused() -> None:
    """A coordinator that lowers σ, raises the rounds or lowers the ε it prints is found out at the site."""
    told = Descriptor.decode(TASKS[0].descriptor())
    assert told.release is not None
    weak = with_block(told.release, sigma=told.release.blocks[0].sigma * 0.99)
    for lie in ({"release": weak}, {"rounds": 5}, {"epsilon": "149.0"}, {"epsilon": None}, {"release": None}):
        with pytest.raises(Malformed):
            Task.from_descriptor(dataclasses.replace(told, **lie).encode())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "lie",
    [
        {"kind": "boosting"},
        {"kind": "linear"},
        {"schema": "{}"},
        {"schema": TWO.to_json().replace("600", "601")},
        {"schema": TWO.to_json() + " "},
        {"spec": "[]"},
        {"spec": '{"label":"y"}'},
        {"spec": Logistic(label="q").to_json()},
        {"spec": Logistic(label="y", clip=0.31).to_json()},
        {"sites": 1},
        {"sites": 0},
        {"rounds": -1},
        {"bits": 8},
        {"bits": 99},
        {"word": 17},
        {"epsilon": "nan"},
        {"epsilon": "150"},
        {"delta": "inf"},
        {"delta": "2.0"},
        {"strategy": "magic"},
        {"settings": (("rate", "x"),)},
    ],
    ids=str,
)
def test_any_other_lie_is_malformed(lie: dict[str, object]) -> None:
    """Each field of a descriptor is either consistent with all others or refused with a typed error."""
    told = Descriptor.decode(TASKS[0].descriptor())
    with pytest.raises(PrivflError):
        Task.from_descriptor(dataclasses.replace(told, **lie).encode())  # type: ignore[arg-type]


def test_an_estimator_outside_the_linear_rooms_cannot_be_asked_for() -> None:
    """A peer's descriptor can name linear models of scikit-learn and nothing that runs other code."""
    told = Descriptor.decode(TASKS[3].descriptor())
    for path in ("os.system", "sklearn.ensemble.RandomForestClassifier", "sklearn.linear_model.np", "SGDClassifier"):
        spec = told.spec.replace("sklearn.linear_model.SGDClassifier", path)
        with pytest.raises(Malformed):
            Task.from_descriptor(dataclasses.replace(told, spec=spec).encode())


def test_missing_noise_needs_to_be_allowed_by_name() -> None:
    """Dropping the release of an averaging task, or the word that allows it, is malformed."""
    told, free = Descriptor.decode(TASKS[3].descriptor()), Descriptor.decode(TASKS[4].descriptor())
    with pytest.raises(Malformed, match="by name"):
        Task.from_descriptor(dataclasses.replace(told, release=None).encode())
    spec = free.spec.replace('"unprotected":true', '"unprotected":false')
    with pytest.raises(Malformed):
        Task.from_descriptor(dataclasses.replace(free, spec=spec).encode())


@settings(max_examples=200, deadline=None)
@given(which=st.integers(0, len(TASKS) - 1), place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_one_changed_byte_never_escapes_as_another_exception(which: int, place: int, byte: int) -> None:
    """Bytes in, an equal-length task or a typed error out."""
    data = bytearray(TASKS[which].descriptor())
    data[place % len(data)] = byte
    try:
        task = Task.from_descriptor(bytes(data))
    except PrivflError:
        return
    assert task.descriptor() == bytes(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_malformed(data: bytes) -> None:
    """Neither a descriptor nor a model is found in noise."""
    with pytest.raises(Malformed):
        Task.from_descriptor(data)
    with pytest.raises(Malformed):
        TASKS[0].read_model(data)


def test_model_bytes_are_canonical() -> None:
    """The broadcast is the canonical encoding of its tag, round and little-endian float64 numbers."""
    task = TASKS[0]
    data = task.model_bytes(task.initial_state())
    assert decode(data) == ("model", 0, bytes(24))
    assert encode(decode(data)) == data
