"""Server optimisers against written-out references; purity; their settings as text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfl.errors import Malformed, Misuse
from privfl.learn.strategies import Strategy, adam, from_settings, momentum, sgd, tail_averaged

GRADIENTS = np.random.default_rng(7).normal(size=(9, 4, 2))


def run(strategy: Strategy, gradients: np.ndarray = GRADIENTS) -> list[np.ndarray]:
    """Outputs after each step from zero parameters."""
    params = np.zeros(gradients.shape[1:])
    state, out = strategy.init(params), []
    for gradient in gradients:
        params, state = strategy.update(gradient, state, params)
        out.append(strategy.output(params, state))
    return out


def test_sgd_is_the_scaled_sum() -> None:
    """Plain descent from zero ends at minus the rate times the sum of gradients."""
    np.testing.assert_allclose(run(sgd(0.3))[-1], -0.3 * GRADIENTS.sum(axis=0))


def test_momentum_is_an_exponential_mean() -> None:
    """Each step is the rate times the weighted mean of all gradients so far."""
    out = run(momentum(0.3, 0.8))
    steps = [sum(0.2 * 0.8 ** (t - past) * GRADIENTS[past] for past in range(t + 1)) for t in range(len(GRADIENTS))]
    np.testing.assert_allclose(out[-1], -0.3 * np.sum(steps, axis=0))
    np.testing.assert_allclose(run(momentum(0.3, 0.0))[-1], run(sgd(0.3))[-1])


def test_adam_follows_algorithm_1_of_the_paper() -> None:
    """A loop written from the paper, with bias-corrected moments, gives the same parameters."""
    theta, m, v = np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((4, 2))
    for t, g in enumerate(GRADIENTS, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        theta = theta - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
    np.testing.assert_allclose(run(adam(0.05))[-1], theta)


def test_tail_average_is_the_mean_of_the_last_iterates() -> None:
    """Before the tail the current iterate is handed out, then the exact mean of those in the tail."""
    plain, averaged = run(momentum(0.3, 0.5)), run(tail_averaged(momentum(0.3, 0.5), 4))
    for step in range(4):
        np.testing.assert_allclose(averaged[step], plain[step])
    np.testing.assert_allclose(averaged[-1], np.mean(plain[4:], axis=0))


@pytest.mark.parametrize("strategy", [sgd(0.1), momentum(0.1), adam(0.1), tail_averaged(adam(0.1), 2)])
def test_updates_are_pure(strategy: Strategy) -> None:
    """The same arguments give the same result, and nothing that was passed in changes."""
    params = np.ones((4, 2))
    state = strategy.init(params)
    first = strategy.update(GRADIENTS[0], state, params)
    again = strategy.update(GRADIENTS[0], state, params)
    np.testing.assert_array_equal(first[0], again[0])
    assert (params == 1).all()
    assert all((slot == 0).all() for slot in state.slots)


@given(
    rate=st.floats(1e-6, 1e6),
    beta=st.floats(0, 0.999),
    start=st.one_of(st.none(), st.integers(0, 1000)),
    name=st.sampled_from(["sgd", "momentum", "adam"]),
)
def test_settings_rebuild_the_strategy(rate: float, beta: float, start: int | None, name: str) -> None:
    """Name and numbers are the whole strategy."""
    inner = {"sgd": lambda: sgd(rate), "momentum": lambda: momentum(rate, beta), "adam": lambda: adam(rate, beta)}[
        name
    ]()
    strategy = inner if start is None else tail_averaged(inner, start)
    again = from_settings(strategy.name, strategy.settings)
    assert (again.name, again.settings) == (strategy.name, strategy.settings)
    np.testing.assert_array_equal(run(again)[-1], run(strategy)[-1])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("newton", ()),
        ("sgd", ()),
        ("sgd", (("rate", 0.1), ("beta", 0.5))),
        ("sgd", (("rate", float("nan")),)),
        ("momentum", (("beta", 0.5), ("rate", 0.1))),
        ("sgd", (("rate", 0.1), ("average_after", 1.5))),
        ("sgd", (("rate", 0.1), ("average_after", float("inf")))),
    ],
)
def test_foreign_settings_are_malformed(name: str, settings: tuple[tuple[str, float], ...]) -> None:
    """A peer's settings rebuild a strategy exactly or are refused."""
    with pytest.raises(Malformed):
        from_settings(name, settings)


@pytest.mark.parametrize(
    "make", [lambda: sgd(0), lambda: momentum(1, 1), lambda: adam(1, -0.1), lambda: adam(1, floor=0)]
)
def test_numbers_out_of_range_are_misuse(make: object) -> None:
    """Rates are positive, decays below one."""
    with pytest.raises(Misuse):
        make()  # type: ignore[operator]
    with pytest.raises(Misuse):
        tail_averaged(sgd(1), -1)
