"""privfl: privacy-hardened federated learning and federated analytics.

The names below are loaded when they are first used, so that ``import privfl`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.4.0"

_WHERE = {
    "Averaging": "privfl.learn",
    "Category": "privfl.learn",
    "Federation": "privfl.runtime",
    "Fit": "privfl.runtime",
    "Kill": "privfl.runtime",
    "Linear": "privfl.learn",
    "Logistic": "privfl.learn",
    "Numeric": "privfl.learn",
    "PrivflError": "privfl.errors",
    "Schema": "privfl.learn",
    "load_model": "privfl.learn",
    "read_transcript": "privfl.secagg",
    "save_model": "privfl.learn",
    "verify_transcript": "privfl.secagg",
}

__all__ = [
    "Averaging",
    "Category",
    "Federation",
    "Fit",
    "Kill",
    "Linear",
    "Logistic",
    "Numeric",
    "PrivflError",
    "Schema",
    "__version__",
    "load_model",
    "read_transcript",
    "save_model",
    "verify_transcript",
]

if TYPE_CHECKING:
    from privfl.errors import PrivflError
    from privfl.learn import Averaging, Category, Linear, Logistic, Numeric, Schema, load_model, save_model
    from privfl.runtime import Federation, Fit, Kill
    from privfl.secagg import read_transcript, verify_transcript


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'privfl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
