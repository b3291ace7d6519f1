"""privfl's error tree; its root and the picture of it are in :mod:`privfl_keys.errors`."""

from __future__ import annotations

from privfl_keys.errors import (
    KeyStoreError,
    Malformed,
    Misuse,
    PrivflError,
    Refused,
    Theirs,
    Unverified,
    WireError,
)

__all__ = [
    "BudgetExceeded",
    "DataError",
    "KeyStoreError",
    "Malformed",
    "Misuse",
    "PrivflError",
    "Refused",
    "RoundAborted",
    "StorageError",
    "Theirs",
    "Unverified",
    "WireError",
]


class DataError(Misuse):
    """A table does not fit the schema or the task; found when data is bound, before anything is spent."""


class StorageError(Misuse):
    """The local disk did not take what must be durable (full, read-only); the process stops, nothing is lost."""


class BudgetExceeded(Refused):
    """The privacy filter does not admit the charge; the message says what is left."""


class RoundAborted(PrivflError):
    """A round ended without a result; what sites uploaded in it stays charged."""

    exit_code = 6
