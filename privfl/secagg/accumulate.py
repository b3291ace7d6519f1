"""The running sum at the coordinator: one vector of words, whatever the number of sites."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from privfl.errors import Misuse
from privfl.ring import BLOCK, Ring, WordArray, centred, check_packed, unpack_block
from privfl.secagg.masks import apply_masks
from privfl.secagg.messages import Header
from privfl.secagg.site import verify_body

__all__ = ["Accumulator"]


class Accumulator:
    """Sum of packed vectors modulo 2^w, in one array of ``length`` words.

    A body is added or subtracted only after its hash is verified, so the caller may re-read it from
    a store that lies.
    """

    def __init__(self, ring: Ring, length: int) -> None:
        self.ring = ring
        self._sum: WordArray = np.zeros(length, dtype=ring.dtype)
        self._open = True

    def add(self, header: Header, body: bytes | memoryview) -> None:
        """Add one site's vector; raises Unverified (wrong hash) or Malformed (wrong size) and adds nothing."""
        self._apply(header, body, np.add)

    def subtract(self, header: Header, body: bytes | memoryview) -> None:
        """Take out a vector that was added before its site fell out of U."""
        self._apply(header, body, np.subtract)

    def _apply(self, header: Header, body: bytes | memoryview, operation: np.ufunc) -> None:
        if not self._open:
            raise Misuse("this sum is already unmasked; start another accumulator")
        verify_body(header, body)
        self.apply_verified(body, operation)

    def apply_verified(self, body: bytes | memoryview, operation: np.ufunc = np.add) -> None:
        """Add a vector whose hash the caller has verified on these very bytes."""
        check_packed(body, self.ring, len(self._sum))
        # words that fill their bits are added where they lie; only others are unpacked, a block at a time
        step = BLOCK if self.ring.bits < self.ring.word else max(1, len(self._sum))
        for start in range(0, len(self._sum), step):
            part = self._sum[start : start + step]
            operation(part, unpack_block(body, self.ring, start, len(part)), out=part)

    def unmask(self, plus: Sequence[bytes], minus: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """Apply the remaining masks and read the sum as signed integers, int64 of shape ``(length,)``.

        Args:
            plus: mask keys to add, minus: mask keys to subtract, 32 bytes each.

        The accumulator is spent: what it held is overwritten.
        """
        if not self._open:
            raise Misuse("this sum is already unmasked; start another accumulator")
        self._open = False
        apply_masks(self._sum, plus, minus)
        total = centred(self._sum, self.ring)
        self._sum = np.zeros(0, dtype=self.ring.dtype)
        return total
