"""Entropy, re-exported from the keys package, and its stretch by AES-256-CTR for bulk draws."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from privfl_keys.entropy import SYSTEM, Entropy, SystemEntropy

__all__ = ["SYSTEM", "Entropy", "Keystream", "SystemEntropy"]


class Keystream:
    """An endless uniform byte stream: AES-256-CTR under one fresh 32-byte key from ``entropy``.

    The stream satisfies :class:`Entropy` itself. It is stateful and must not be shared between
    threads or copied; drop it after use.
    """

    __slots__ = ("_encryptor",)

    def __init__(self, entropy: Entropy) -> None:
        self._encryptor = Cipher(algorithms.AES(entropy.draw(32)), modes.CTR(bytes(16))).encryptor()

    def draw(self, size: int) -> bytes:
        """Return the next ``size`` bytes of the stream."""
        return self._encryptor.update(bytes(size))

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Return ``count`` uniform 64-bit words, shape ``(count,)``, writable."""
        out = np.zeros(count, dtype=np.uint64)
        if count:
            view = out.data.cast("B")
            self._encryptor.update_into(view, view)
        return out

    def __reduce__(self) -> str:
        raise TypeError("a Keystream cannot be pickled or copied")

    def __repr__(self) -> str:
        return "Keystream(<redacted>)"
