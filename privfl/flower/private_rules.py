"""Which strategies can stand behind secure aggregation: those that use nothing but a weighted average."""

from __future__ import annotations

from typing import Any, Final

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from privfl.errors import Misuse, Refused

__all__ = ["AVERAGING", "WHY_NOT", "check_strategy"]

#: Strategies of Flower whose ``aggregate_train`` is a function of the weighted average of all replies.
AVERAGING: Final[tuple[type[Strategy], ...]] = (
    flower.FedAvg,
    flower.FedAvgM,
    flower.FedAdam,
    flower.FedYogi,
    flower.FedAdagrad,
    flower.FedProx,
)
_ONE_BY_ONE = "it compares single updates with one another, and secure aggregation shows nobody a single update"
_TREES = "it collects trees, which have no average"
_NOISE = (
    "it clips or adds noise in Flower's own way; privfl does both at the sites, before anything leaves, and charges "
    "it: wrap the strategy that is inside it"
)
WHY_NOT: Final = {
    "Krum": _ONE_BY_ONE,
    "MultiKrum": _ONE_BY_ONE,
    "Bulyan": _ONE_BY_ONE,
    "FedMedian": _ONE_BY_ONE,
    "FedTrimmedAvg": _ONE_BY_ONE,
    "QFedAvg": "it weighs each update by its own loss, so that it needs both one by one",
    "FedXgbBagging": _TREES,
    "FedXgbCyclic": _TREES,
    "DifferentialPrivacyServerSideFixedClipping": _NOISE,
    "DifferentialPrivacyClientSideFixedClipping": _NOISE,
    "DifferentialPrivacyServerSideAdaptiveClipping": _NOISE,
    "DifferentialPrivacyClientSideAdaptiveClipping": _NOISE,
}


def check_strategy(strategy: Any, *, weighted_average: bool, sites: int | None = None) -> None:
    """Refuse a strategy whose result is no function of a weighted average of the replies.

    Args:
        weighted_average: the user says by name that it is one, of a strategy that is not known here.
        sites: how many nodes there are, once that is known.

    Raises:
        Refused: it needs single updates. Misuse: it is unknown, or waits for more nodes than there are.
    """
    kind = type(strategy)
    if not isinstance(strategy, Strategy):
        raise Misuse(f"a strategy of flwr.serverapp.strategy is wanted, not {kind.__name__}")
    for base in kind.__mro__:
        if base.__name__ in WHY_NOT and base.__module__.startswith("flwr."):
            raise Refused(f"{base.__name__} cannot be made private: {WHY_NOT[base.__name__]}")
    known = {getattr(base, "aggregate_train") for base in AVERAGING}  # noqa: B009 - functions, not bound
    if getattr(kind, "aggregate_train", None) not in known and not weighted_average:
        raise Misuse(
            f"{kind.__name__} aggregates in a way of its own. If what it makes depends on the replies through their "
            "weighted average alone, say so: PrivateStrategy(..., weighted_average=True); it then gets one reply, the "
            "average. If it looks at single replies, it cannot be made private"
        )
    for name in ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes"):
        least = getattr(strategy, name, 0)
        if sites is not None and isinstance(least, int) and least > sites:
            raise Misuse(f"{name} is {least} and the roster has {sites} sites; lower it")
