"""Server optimisers as pairs of pure functions: ``init`` makes a state, ``update`` turns it and the parameters over.

A strategy knows nothing of privacy: it sees the noisy mean only, so whatever it does is post-processing.
Parameters, gradients and every slot of a state are float64 arrays of one shape; nothing is changed in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from privfl.errors import Malformed, Misuse

__all__ = ["Floats", "Strategy", "StrategyState", "adam", "from_settings", "momentum", "sgd", "tail_averaged"]

Floats = npt.NDArray[np.float64]
Settings: TypeAlias = "tuple[tuple[str, float], ...]"


@dataclass(frozen=True, slots=True)
class StrategyState:
    """Steps made so far and the optimiser's arrays (moments, running means)."""

    steps: int = 0
    slots: tuple[Floats, ...] = ()


@dataclass(frozen=True, slots=True)
class Strategy:
    """An optimiser: ``state = init(params)``, then ``params, state = update(gradient, state, params)``.

    Attributes:
        name, settings: what it is and its numbers; enough to build it again (:func:`from_settings`).
        output: the parameters to hand out, given the current ones and the state; differs for averages.
    """

    name: str
    settings: Settings
    init: Callable[[Floats], StrategyState]
    update: Callable[[Floats, StrategyState, Floats], tuple[Floats, StrategyState]]
    output: Callable[[Floats, StrategyState], Floats] = lambda params, _: params

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value:g}' for key, value in self.settings)})"


def sgd(rate: float) -> Strategy:
    """Plain gradient descent: ``params - rate * gradient``.

    Raises:
        Misuse: ``rate`` is not positive and finite.
    """
    _require_positive("rate", rate)

    def update(gradient: Floats, state: StrategyState, params: Floats) -> tuple[Floats, StrategyState]:
        return params - rate * gradient, StrategyState(state.steps + 1)

    return Strategy("sgd", (("rate", rate),), lambda _: StrategyState(), update)


def momentum(rate: float, beta: float = 0.5) -> Strategy:
    """Heavy ball on an exponential mean of gradients: ``m = beta*m + (1-beta)*g``, ``params - rate*m``.

    Raises:
        Misuse: ``rate`` not positive and finite, or ``beta`` outside [0, 1).
    """
    _require_positive("rate", rate)
    _require_decay("beta", beta)

    def init(params: Floats) -> StrategyState:
        return StrategyState(0, (np.zeros_like(params),))

    def update(gradient: Floats, state: StrategyState, params: Floats) -> tuple[Floats, StrategyState]:
        mean = beta * state.slots[0] + (1 - beta) * gradient
        return params - rate * mean, StrategyState(state.steps + 1, (mean,))

    return Strategy("momentum", (("rate", rate), ("beta", beta)), init, update)


def adam(rate: float, beta1: float = 0.9, beta2: float = 0.99, floor: float = 1e-8) -> Strategy:
    """Adam (Kingma and Ba 2015, algorithm 1) with bias correction; ``floor`` is its epsilon.

    Raises:
        Misuse: ``rate`` or ``floor`` not positive, or a beta outside [0, 1).
    """
    _require_positive("rate", rate)
    _require_positive("floor", floor)
    _require_decay("beta1", beta1)
    _require_decay("beta2", beta2)

    def init(params: Floats) -> StrategyState:
        return StrategyState(0, (np.zeros_like(params), np.zeros_like(params)))

    def update(gradient: Floats, state: StrategyState, params: Floats) -> tuple[Floats, StrategyState]:
        steps = state.steps + 1
        first = beta1 * state.slots[0] + (1 - beta1) * gradient
        second = beta2 * state.slots[1] + (1 - beta2) * gradient**2
        corrected = first / (1 - beta1**steps)
        spread = np.sqrt(second / (1 - beta2**steps))
        return params - rate * corrected / (spread + floor), StrategyState(steps, (first, second))

    settings = (("rate", rate), ("beta1", beta1), ("beta2", beta2), ("floor", floor))
    return Strategy("adam", settings, init, update)


def tail_averaged(inner: Strategy, start: int) -> Strategy:
    """Hand out the mean of the iterates after step ``start``; before it, the current one (Polyak, Ruppert).

    The mean takes independent noise of many rounds out of the model at no cost in privacy.

    Raises:
        Misuse: ``start`` is negative.
    """
    if start < 0:
        raise Misuse(f"start is {start}; averaging starts after step 0 or later")

    def init(params: Floats) -> StrategyState:
        return StrategyState(0, (np.zeros_like(params), *inner.init(params).slots))

    def update(gradient: Floats, state: StrategyState, params: Floats) -> tuple[Floats, StrategyState]:
        mean, *slots = state.slots
        params, stepped = inner.update(gradient, StrategyState(state.steps, tuple(slots)), params)
        count = stepped.steps - start
        if count > 0:
            mean = mean + (params - mean) / count
        return params, StrategyState(stepped.steps, (mean, *stepped.slots))

    def output(params: Floats, state: StrategyState) -> Floats:
        return state.slots[0] if state.steps > start else params

    settings = (*inner.settings, ("average_after", float(start)))
    return Strategy(inner.name, settings, init, update, output)


_MAKERS: Mapping[str, Callable[..., Strategy]] = {"sgd": sgd, "momentum": momentum, "adam": adam}


def from_settings(name: str, settings: Settings) -> Strategy:
    """Build the strategy whose ``name`` and ``settings`` these are.

    Raises:
        Malformed: no such strategy, or numbers it does not take.
    """
    numbers = dict(settings)
    start = numbers.pop("average_after", None)
    try:
        inner = _MAKERS[name](**numbers)
        strategy = inner if start is None else tail_averaged(inner, int(start))
    except (KeyError, TypeError, ValueError, OverflowError, Misuse):
        raise Malformed(f"there is no strategy {name!r} with these settings") from None
    if strategy.settings != settings:
        raise Malformed(f"the settings of strategy {name!r} are not in their canonical form")
    return strategy


def _require_positive(what: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise Misuse(f"{what} is {value}; it must be positive and finite")


def _require_decay(what: str, value: float) -> None:
    if not 0 <= value < 1:
        raise Misuse(f"{what} is {value}; it must lie in [0, 1)")
