"""The one place where privfl asks the operating system for randomness.

Everything secret (identity keys, seeds, Shamir coefficients, noise) is drawn through an
:class:`Entropy` that the caller passes in; in production that is :data:`SYSTEM`. The single
exception is the ephemeral key inside an HPKE seal, which pyca/cryptography draws itself from
the same source.
"""

from __future__ import annotations

import os
from typing import Protocol

__all__ = ["SYSTEM", "Entropy", "SystemEntropy"]


class Entropy(Protocol):
    """A source of uniform random bytes."""

    def draw(self, size: int) -> bytes:
        """Return ``size`` fresh bytes."""
        ...


class SystemEntropy:
    """The operating system's CSPRNG (``getrandom`` on Linux)."""

    def draw(self, size: int) -> bytes:
        """Return ``size`` bytes; blocks only before the kernel's pool is seeded at boot."""
        return os.urandom(size)

    def __repr__(self) -> str:
        return "SystemEntropy()"


SYSTEM = SystemEntropy()
