"""Exact sampling of a symmetric integer distribution by inversion of a table, in blocks of numpy.

The table holds the distribution function at 192 bits as exact integers. A draw is the number of
thresholds not above a uniform 192-bit integer, of which bits are taken from the stream only as they are needed:

* 16 bits choose a cell of a guide; where the whole cell has one answer (≥ 94 % of draws) that is it;
* otherwise 48 further bits decide by binary search among the thresholds' leading 64 bits;
* a point equal to some threshold's leading 64 bits is a tie, and 128 further bits decide it exactly.

The three kinds of bits come from three lanes, each read in the order of the samples. Hence what is drawn
does not depend on how the samples are cut into blocks.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from privfl.entropy import Entropy, Keystream

__all__ = ["THRESHOLD_BITS", "InversionTable", "Lanes", "Words"]

THRESHOLD_BITS = 192
_THRESHOLD_BYTES = THRESHOLD_BITS // 8
_CELL_BITS = 16
_CELLS = 1 << _CELL_BITS
_STRADDLED = np.int16(-(1 << 15))  # the guide's mark for a cell that holds a threshold
_LARGEST = (1 << 15) - 1


class Words(Protocol):
    """A stream of uniform 64-bit words."""

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Return the next ``count`` words."""
        ...


class Lanes(NamedTuple):
    """The three streams one table reads: cells (4 samples a word), refinements, ties."""

    cells: Words
    refinements: Words
    ties: Words

    @classmethod
    def open(cls, entropy: Entropy) -> Lanes:
        """Return three fresh key streams, keyed by three draws from ``entropy``."""
        return cls(Keystream(entropy), Keystream(entropy), Keystream(entropy))

    def __repr__(self) -> str:
        return "Lanes(<redacted>)"


class InversionTable:
    """A distribution on -M … M with P(x) proportional to ``weights[|x|]``.

    With exact weights every P(x) is met within 2^-191, so the total variation is at most 2M · 2^-191 < 2^-176;
    weights that are off by e in sum, relative to the sum of all, add at most e. The table is symmetric
    exactly: P(X ≤ x) = 1 - P(X ≤ -x-1) holds in the stored integers.
    """

    __slots__ = ("_guide", "_leading", "_rest", "largest")

    def __init__(self, weights: list[int]) -> None:
        """Build from integer weights for |x| = 0 … M, 1 ≤ M < 2^15, on any common scale."""
        self.largest = len(weights) - 1
        if not 1 <= self.largest < _LARGEST:
            raise ValueError("a table needs between 2 and 32767 weights")
        words = np.frombuffer(_threshold_bytes(weights), dtype="<u8").reshape(-1, 3)
        self._leading = np.ascontiguousarray(words[:, 2])
        self._rest = words[:, :2]
        inside = np.bincount((self._leading >> np.uint64(64 - _CELL_BITS)).astype(np.intp), minlength=_CELLS)
        answer = np.cumsum(inside) - self.largest
        # A threshold exactly at a cell's lower edge would need no mark; marking it is only slower.
        self._guide = np.where(inside == 0, answer, _STRADDLED).astype(np.int16)

    def thresholds(self) -> list[int]:
        """Return ``P(X ≤ x) · 2^192`` for x = -M … M - 1, exact integers, as sampled."""
        return [
            int(high) << 128 | int(middle) << 64 | int(low)
            for high, (low, middle) in zip(self._leading, self._rest, strict=True)
        ]

    def draw(self, count: int, lanes: Lanes) -> npt.NDArray[np.int16]:
        """Return ``count`` independent samples, shape ``(count,)``.

        Successive calls on the same lanes join seamlessly where ``count`` is a multiple of four.
        """
        cells = lanes.cells.words(-(-count // 4)).view("<u2")[:count]
        # The cast is what take would do itself, only slower; every index is in range, so wrap never wraps.
        samples = self._guide.take(cells.astype(np.intp), mode="wrap")
        straddled = np.flatnonzero(samples == _STRADDLED)
        if straddled.size:
            samples[straddled] = self._refine(cells[straddled], lanes)
        return samples

    def _refine(self, cells: npt.NDArray[np.uint16], lanes: Lanes) -> npt.NDArray[np.intp]:
        points = lanes.refinements.words(cells.size)
        points >>= np.uint64(_CELL_BITS)
        points |= cells.astype(np.uint64) << np.uint64(64 - _CELL_BITS)
        ranks = np.searchsorted(self._leading, points, side="right")
        # Rank 0 looks at the last threshold, which lies above the point and so never ties.
        for tie in np.flatnonzero(self._leading[ranks - 1] == points):
            ranks[tie] = self._settle(points[tie], lanes)
        return ranks - self.largest

    def _settle(self, point: np.uint64, lanes: Lanes) -> int:
        """Return the rank of a point whose 64 bits equal a threshold's, by the 128 bits that follow."""
        first, end = (int(np.searchsorted(self._leading, point, side=side)) for side in ("left", "right"))
        middle, low = (int(word) for word in lanes.ties.words(2))
        follow = middle << 64 | low
        return first + sum(int(m) << 64 | int(lo) <= follow for lo, m in self._rest[first:end])


def _threshold_bytes(weights: list[int]) -> bytes:
    """Return the 2M thresholds as 24-byte little-endian integers, each in [1, 2^192 - 1], rising."""
    total = 2 * sum(weights) - weights[0]
    below = []
    mass = 0
    for weight in reversed(weights[1:]):
        mass += weight
        below.append(max(1, (mass << THRESHOLD_BITS) // total))
    above = [(1 << THRESHOLD_BITS) - threshold for threshold in reversed(below)]
    return b"".join(threshold.to_bytes(_THRESHOLD_BYTES, "little") for threshold in below + above)
