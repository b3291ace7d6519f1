"""The floor of secure aggregation: AES-256-CTR streams by pyca, additions by numpy, and nothing else.

No derivation, check, hash, signature, share or copy is in it: what is left is the arithmetic that no
implementation on the same libraries can do without. Every block size is tried in the run that uses it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Words = npt.NDArray[np.unsignedinteger]

BLOCKS = tuple(1 << power for power in range(15, 23))  # bytes
_DISTINCT = 2  # bodies, used by turns: they lie in the cache here as they do in the machine, which has just hashed them
_TRIAL_STREAMS = 16
_TRIAL_SECONDS = 0.25


def streams_seconds(count: int, length: int, word: int, block_bytes: int) -> float:
    """Seconds to add ``count`` fresh key streams to ``length`` words, block by block."""
    acc = np.zeros(length, dtype=f"u{word // 8}")
    keys = [os.urandom(32) for _ in range(count)]
    zeros, scratch = memoryview(bytes(block_bytes)), memoryview(bytearray(block_bytes))
    stream = np.frombuffer(scratch, dtype=acc.dtype)
    step = block_bytes // acc.itemsize
    start = time.perf_counter()
    contexts = [Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update_into for key in keys]
    for at in range(0, length, step):
        target = acc[at : at + step]
        size = target.nbytes
        source, sink, mask = zeros[:size], scratch[:size], stream[: target.size]
        for advance in contexts:
            advance(source, sink)
            np.add(target, mask, target)
    return time.perf_counter() - start


def bodies_seconds(acc: Words, bodies: Sequence[Words], count: int, block_bytes: int) -> float:
    """Seconds to add ``count`` vectors of ring words, taken from ``bodies`` by turns, to ``acc``."""
    step = block_bytes // acc.itemsize
    start = time.perf_counter()
    for at in range(count):
        body = bodies[at % len(bodies)]
        for first in range(0, len(acc), step):
            target = acc[first : first + step]
            np.add(target, body[first : first + step], target)
    return time.perf_counter() - start


@dataclass
class Floor:
    """One workload's floor; :meth:`sample` is called between the measurements that it is compared with.

    Args:
        streams: key streams of ``length`` words of ``word`` bits. bodies: vectors to be added besides.
    """

    streams: int
    bodies: int
    length: int
    word: int

    def __post_init__(self) -> None:
        self._acc: Words = np.zeros(self.length, dtype=f"u{self.word // 8}")
        distinct = min(self.bodies, _DISTINCT)
        rng = np.random.default_rng(1)
        self._bodies: list[Words] = [
            rng.integers(0, 255, self._acc.nbytes, dtype=np.uint8).view(self._acc.dtype) for _ in range(distinct)
        ]
        few = min(self.streams, _TRIAL_STREAMS)
        self.stream_block = self._best(lambda block: streams_seconds(few, self.length, self.word, block))
        self.body_block = (
            self._best(lambda block: bodies_seconds(self._acc, self._bodies, len(self._bodies), block))
            if distinct
            else BLOCKS[0]
        )
        self.seconds = float("inf")

    def _best(self, seconds_of: Callable[[int], float]) -> int:
        """The block size with the least time of up to five tries."""
        least: dict[int, float] = {}
        for _ in range(5):
            for block in BLOCKS:
                least[block] = min(least.get(block, float("inf")), seconds_of(block))
            if sum(least.values()) > _TRIAL_SECONDS:
                break
        return min(least, key=least.__getitem__)

    def sample(self) -> float:
        """Measure once more; returns the least time so far."""
        taken = streams_seconds(self.streams, self.length, self.word, self.stream_block)
        if self.bodies:
            taken += bodies_seconds(self._acc, self._bodies, self.bodies, self.body_block)
        self.seconds = min(self.seconds, taken)
        return self.seconds
