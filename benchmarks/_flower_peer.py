"""The same work by the published SecAgg+ functions of flwr, an extra that only this benchmark uses.

Functions are called in the order and number in which flwr's client mod and server workflow call them; messages,
servers and training are left out on both sides. Pair masks of a dropped client are made for all its neighbours,
and a secret is combined from every share that came in, as the workflow does. What would take longer than
a minute is put together from unit costs and counts instead, and says so.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

MEASURED_UP_TO = 60.0  # seconds
_TRIES = 3


@dataclass(frozen=True)
class Work:
    """One slot: ``peers`` neighbours of each site, ``dropped`` sites that uploaded nothing."""

    sites: int
    peers: int
    dropped: int
    length: int
    modulus: int

    @property
    def survivors(self) -> int:
        """Sites whose vectors are added."""
        return self.sites - self.dropped

    @property
    def shares(self) -> int:
        """Shares of each secret that come in: one per living member of its neighbourhood, itself included."""
        return round((self.peers + 1) * self.survivors / self.sites)

    @property
    def threshold(self) -> int:
        """Two thirds of the neighbourhood."""
        return min(self.shares, -(-2 * (self.peers + 1) // 3))


def published() -> SimpleNamespace:
    """The functions of flwr; raises ImportError without the ``bench`` extra. Nothing is reported home."""
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    from flwr.common import bytes_to_ndarray, ndarray_to_bytes  # noqa: PLC0415 - an extra
    from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic  # noqa: PLC0415
    from flwr.common.secure_aggregation.crypto import shamir, symmetric_encryption  # noqa: PLC0415
    from flwr.common.secure_aggregation.quantization import dequantize  # noqa: PLC0415
    from flwr.common.secure_aggregation.secaggplus_utils import (  # noqa: PLC0415
        pseudo_rand_gen,
        share_keys_plaintext_concat,
    )

    try:
        asymmetric = importlib.import_module("flwr.supercore.primitives.asymmetric")
    except ImportError:  # older releases keep these functions beside the symmetric ones
        asymmetric = symmetric_encryption
    return SimpleNamespace(
        split=shamir.create_shares,
        combine=shamir.combine_shares,
        agree=symmetric_encryption.generate_shared_key,
        encrypt=symmetric_encryption.encrypt,
        decrypt=symmetric_encryption.decrypt,
        keys=asymmetric.generate_key_pairs,
        private_bytes=asymmetric.private_key_to_bytes,
        private=asymmetric.bytes_to_private_key,
        public_bytes=asymmetric.public_key_to_bytes,
        public=asymmetric.bytes_to_public_key,
        mask=pseudo_rand_gen,
        plaintext=share_keys_plaintext_concat,
        add=arithmetic.parameters_addition,
        subtract=arithmetic.parameters_subtraction,
        mod=arithmetic.parameters_mod,
        dequantize=dequantize,
        write=ndarray_to_bytes,
        read=bytes_to_ndarray,
    )


class Peer:
    """flwr's functions on one :class:`Work`; every method is one step of its protocol."""

    def __init__(self, work: Work) -> None:
        self.work, self.f = work, published()
        own, other = self.f.keys(), self.f.keys()
        self._secret, self._public = self.f.private_bytes(own[0]), self.f.public_bytes(other[1])
        self._seed = os.urandom(32)
        self._shapes = [(1,), (work.length,)]
        self._vector = self.f.mask(self._seed, work.modulus, self._shapes)

    @cached_property
    def _seed_shares(self) -> list[bytes]:
        return list(self.f.split(self._seed, self.work.threshold, self.work.peers + 1))[: self.work.shares]

    @cached_property
    def _key_shares(self) -> list[bytes]:
        return list(self.f.split(self._secret, self.work.threshold, self.work.peers + 1))[: self.work.shares]

    @cached_property
    def _uploaded(self) -> list[bytes]:
        return [self.f.write(part) for part in self._vector]

    def split(self) -> None:
        """Client: share the seed of its own mask and its private key."""
        for secret in (self._seed, self._secret):
            self.f.split(secret, self.work.threshold, self.work.peers + 1)

    def agree(self) -> bytes:
        """Either side: one shared key."""
        return bytes(self.f.agree(self.f.private(self._secret), self.f.public(self._public)))

    def exchange(self) -> None:
        """Client: agree with one neighbour, encrypt its shares, and decrypt what it sent."""
        key = self.agree()
        plain = self.f.plaintext(1, 2, self._seed_shares[0], self._key_shares[0])
        self.f.decrypt(key, self.f.encrypt(key, plain))

    def masked(self) -> None:
        """Either side: stretch one seed and add or subtract it."""
        self.f.subtract(self._vector, self.f.mask(self._seed, self.work.modulus, self._shapes))

    def sent(self) -> None:
        """Client: reduce and serialise."""
        for part in self.f.mod(self._vector, self.work.modulus):
            self.f.write(part)

    def taken(self) -> None:
        """Server: read one masked vector and add it."""
        self.f.add(self._vector, [self.f.read(part) for part in self._uploaded])

    def seed_combined(self) -> None:
        """Server: the seed of one survivor."""
        self.f.combine(self._seed_shares)

    def key_combined(self) -> None:
        """Server: the private key of one dropped client."""
        self.f.combine(self._key_shares)

    def decoded(self) -> None:
        """Server: reduce the sum and turn it into numbers again."""
        parts = self.f.mod(self._vector, self.work.modulus)
        self.f.dequantize(parts[1:], 8.0, self.work.modulus)

    def site(self) -> list[tuple[int, Callable[[], Any]]]:
        """(count, step) of one client in one round."""
        peers = self.work.peers
        return [
            (1, self.split),
            (peers, self.exchange),
            (peers, self.agree),
            (peers + 1, self.masked),
            (1, self.sent),
        ]

    def coordinator(self) -> list[tuple[int, Callable[[], Any]]]:
        """(count, step) of the server in one round."""
        work = self.work
        pairs = work.dropped * work.peers
        return [
            (work.survivors, self.taken),
            (work.survivors, self.seed_combined),
            (work.dropped, self.key_combined),
            (pairs, self.agree),
            (work.survivors + pairs, self.masked),
            (1, self.decoded),
        ]


def _once(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def seconds(steps: list[tuple[int, Callable[[], Any]]]) -> tuple[float, bool]:
    """(seconds, whether estimated): counted steps run for real if that takes under a minute."""
    steps = [(count, step) for count, step in steps if count]
    for _, step in steps:
        step()  # inputs are made on first use
    units = {step: min(_once(step) for _ in range(_TRIES)) for _, step in steps}
    estimate = sum(count * units[step] for count, step in steps)
    if estimate >= MEASURED_UP_TO:
        return estimate, True
    start = time.perf_counter()
    for count, step in steps:
        for _ in range(count):
            step()
    return time.perf_counter() - start, False


def compare(work: Work) -> dict[str, object]:
    """The ``flower`` object of the benchmark: ``site_s``, ``coordinator_s``, ``estimated``, and which of them are."""
    peer = Peer(work)
    site_s, site_estimated = seconds(peer.site())
    coordinator_s, coordinator_estimated = seconds(peer.coordinator())
    return {
        "site_s": site_s,
        "coordinator_s": coordinator_s,
        "estimated": site_estimated or coordinator_estimated,
        "estimated_parts": [
            name
            for name, estimated in (("site_s", site_estimated), ("coordinator_s", coordinator_estimated))
            if estimated
        ],
    }
