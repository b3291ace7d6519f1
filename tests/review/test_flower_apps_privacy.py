"""Regressions of a privacy review of private Flower apps: no function makes two sites of one, no report flatters."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_analytics import Study

from privfl.budget import Budget, Charge, Limits, Purpose
from privfl.dp import LocalReport, epsilon_of_cost
from privfl.errors import DataError, Malformed
from privfl.learn.update_data import Answer
from privfl.learn.update_inputs import Arrays, ArrayShape, Ask, Inputs
from privfl.learn.updates import UpdateDescriptor, UpdateQuestion
from privfl.runtime.update_report import releases_of, report_of
from tests.learn.support import SeededEntropy
from tests.learn.update_support import EVALUATE, SCHEMA, TRAIN, arrays_of, data, question

FINE = {"num-examples": 3, "loss": 1.0, "acc": 0.5}


def _forks(ends: Callable[[], Any]) -> int:
    """How many processes come back from a slot in which the app's function forks a child that ends so."""
    asked, (read, write), parent = question(), os.pipe(), os.getpid()

    def call(ask: Ask, arrays: Arrays) -> Answer:
        if ask.kind == "train":
            child = os.fork()
            if child == 0:
                ends()
            os.waitpid(child, 0)
        return Answer(arrays, FINE)

    try:
        asked.contribution(asked.encode_inputs(1, arrays_of(), TRAIN, EVALUATE), data(call=call), SeededEntropy(1))
        os.write(write, b"x")
    finally:
        if os.getpid() != parent:
            os._exit(0)
        os.close(write)
    with os.fdopen(read, "rb") as found:
        return len(found.read())


@pytest.mark.parametrize("ends", [sys.exit, lambda: None, lambda: 1 / 0], ids=["exits", "returns", "raises"])
def test_a_child_that_a_function_forked_is_no_second_site(ends: Callable[[], Any]) -> None:
    """What its parent caught the child caught too: it went on to noise, mask and send a second vector in the slot."""
    assert _forks(ends) == 1


def test_how_a_function_takes_warnings_ends_with_it() -> None:
    """NumPy's and Python's, turned into errors by an app, would have reached the rounding and the noise."""
    asked = question()
    before = np.geterr(), list(warnings.filters)

    def call(ask: Ask, arrays: Arrays) -> Answer:
        np.seterr(all="raise")
        warnings.simplefilter("error", append=True)
        return Answer(arrays, FINE)

    try:
        asked.contribution(asked.encode_inputs(1, arrays_of(), TRAIN, EVALUATE), data(call=call), SeededEntropy(1))
        assert (np.geterr(), list(warnings.filters)) == before
    finally:
        np.seterr(**before[0])


@pytest.mark.parametrize("unit", ["record", "subject", "site"])
def test_all_runs_together_cost_no_less_than_one_of_them(unit: str) -> None:
    """An app's release names the unit site; counted in it, three runs per record looked cheaper than the last alone."""
    asked = question(epsilon=4.0, unit=unit, sites=5, least=5)
    releases = releases_of(asked, {1: 1, 2: 1})

    def report(*past: Any) -> Any:
        return report_of(asked, releases, SimpleNamespace(past=past, spent=dict, sites_per_subject=1))  # type: ignore[arg-type]

    alone, third = report(), report((asked.release, 2), (asked.release, 2))
    assert alone.lifetime_epsilon == alone.epsilon
    assert third.lifetime_epsilon > 1.5 * alone.epsilon
    assert f"All 3 runs together: epsilon {third.lifetime_epsilon:.3f} at delta 1e-06 per {unit}." in third.words
    assert report((None, 1)).lifetime_epsilon == math.inf


def test_an_empty_array_of_an_impossible_shape_is_malformed() -> None:
    """A peer's zero among huge sizes: the reason was an error of NumPy's, which told the operator nothing."""
    told = UpdateDescriptor.decode(question().descriptor())
    shape = ArrayShape("e", (0,) + (2**32,) * 31, "<f4")
    asked = UpdateQuestion.from_descriptor(replace(told, arrays=(*told.arrays, shape)).encode())
    arrays = {**arrays_of(), "e": np.zeros(0, dtype="<f4")}
    with pytest.raises(Malformed, match="shape"):
        asked.sum_of(Inputs(1, arrays, TRAIN, EVALUATE).encode())


ODD: tuple[Any, ...] = (
    0, -1, True, None, "7", [1.0], b"x", 1 + 2j, 2**70, 10**400, float("nan"), float("-inf"), 5e-324, 1e308,
    np.float16(9), np.int64(-5), np.uint64(2**64 - 1), np.longdouble("1e4000"), np.array(3.0),
)  # fmt: skip
CHANGES: tuple[Any, ...] = (
    0.0, 1e-3, -3.0, 1e18, 1e155, -1e300, 1.7e308, 5e-324, np.nan, np.inf, np.longdouble("1e4000"), True, 1j,
    np.uint64(2**64 - 1), np.datetime64(3, "s"), "text", None,
)  # fmt: skip
ASKED = [
    question(epsilon=3.0, bits=20),
    question(cap=0, epsilon=5.0, unit="record", final=True),
    question({"w": np.zeros(6, "|u1")}, cap=1 << 53, train={"loss": (-1e308, 1e308)}, evaluate={"acc": (0, 5e-324)}),
    question({"w": np.zeros(6, dtype="<f8")}, clip=1e-12, bits=16),
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    asked=st.sampled_from(ASKED),
    change=st.sampled_from(CHANGES),
    shape=st.sampled_from([(6,), (6,), (6,), (1, 6), (0,), ()]),
    numbers=st.lists(st.one_of(st.sampled_from(ODD), st.just(50)), min_size=3, max_size=3),
    last=st.booleans(),
)
def test_no_answer_passes_the_charged_norm(
    asked: UpdateQuestion, change: Any, shape: tuple[int, ...], numbers: list[Any], last: bool
) -> None:
    """Huge, endless, subnormal, of any type or shape: a vector of the announced length within every block's bound."""

    def call(ask: Ask, arrays: Arrays) -> Answer:
        return Answer({"w": np.full(shape, change)}, dict(zip(FINE, numbers, strict=True)))

    start = {one.name: np.ones(one.shape, dtype=one.dtype) for one in asked.spec.arrays}
    alone = last and asked.final
    inputs = asked.encode_inputs(asked.rounds + 1 if alone else 1, start, None if alone else TRAIN, EVALUATE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of comparisons with such numbers; none may become an error
        vector, at = asked.contribution(inputs, data(call=call), SeededEntropy(1), report=LocalReport()), 0
    for part in asked.layout():
        if alone and part.name != "evaluate":
            continue
        block = [int(value) for value in vector[at : at + part.length]]
        assert sum(value * value for value in block) <= part.delta2
        assert max(map(abs, block)) <= part.x_max
        at += part.length
    assert at == len(vector) == asked.sum_of(inputs).length


def test_a_study_is_refused_at_an_apps_site_before_it_is_charged() -> None:
    """A question about a table is nothing that an app's functions can answer, and the check says so in time."""
    study = Study("s", ("mean x",)).compile(SCHEMA, epsilon=4.0, delta=1e-6, sites=4, min_survivors=4)
    with pytest.raises(DataError, match="Flower app"):
        study.check(data())


def test_a_description_without_end_is_refused_before_it_is_read() -> None:
    """Reading costs time and memory that nothing pays for: more than a mebibyte is no app's description."""
    with pytest.raises(Malformed, match="longer"):
        UpdateQuestion.from_descriptor(bytes(1 << 21))


@pytest.mark.parametrize("sites", [2, 3])
def test_a_report_tells_what_a_subject_at_several_sites_is_charged(sites: int) -> None:
    """As the ledgers price it under a policy that expects one subject's rows at k sites."""
    asked = question(epsilon=4.0)
    stage: Any = SimpleNamespace(past=[], spent=dict, sites_per_subject=sites)
    release = asked.release
    assert release is not None
    shares = dict.fromkeys(Purpose, Fraction(1))
    unit = asked.plan.unit
    limits = Limits(unit, Budget.from_epsilon_delta(1e3, 1e-6), shares, {}, sites_per_subject=sites)
    price = limits.price(Charge(bytes(32), Purpose.TRAINING, "", {unit: release.cost_in(unit)}, release.trust))
    words = report_of(asked, [(release, 3)], stage).words
    assert f"at up to {sites} sites" in words
    assert f"epsilon is {epsilon_of_cost(3 * price, 1e-6):.3f}" in words
