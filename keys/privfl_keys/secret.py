"""Holders that keep secret bytes out of logs, exceptions, pickles and comparisons.

:class:`Secret` gives its bytes up once; :class:`SecretBytes` until it is wiped. Wiping is best
effort: Python and the libraries below it may have copied the bytes, and the pages may have been
swapped, so a wiped holder narrows the window for a thief and does not close it.
"""

from __future__ import annotations

import hmac
from types import TracebackType
from typing import NoReturn, Self, SupportsIndex

from privfl_keys.entropy import Entropy
from privfl_keys.errors import Misuse

__all__ = ["Redacted", "Secret", "SecretBytes"]


class Redacted:
    """Base of everything that holds a secret: prints as redacted, cannot be pickled or copied."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<redacted>)"

    def __str__(self) -> str:
        return repr(self)

    def _stay(self) -> NoReturn:
        raise Misuse(
            f"a {type(self).__name__} cannot be pickled or copied; pass the object itself, "
            "or export its bytes explicitly into a key store"
        )

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        self._stay()

    def __copy__(self) -> NoReturn:
        self._stay()

    def __deepcopy__(self, memo: object) -> NoReturn:
        self._stay()

    def __getstate__(self) -> NoReturn:
        self._stay()


class _Held(Redacted):
    __slots__ = ("_buffer",)

    def __init__(self, value: bytes | bytearray) -> None:
        if not isinstance(value, bytes | bytearray):
            raise Misuse(f"a {type(self).__name__} holds bytes, not a {type(value).__name__}")
        self._buffer: bytearray | None = bytearray(value)

    @classmethod
    def generate(cls, entropy: Entropy, size: int = 32) -> Self:
        """Draw ``size`` fresh bytes from ``entropy``."""
        return cls(entropy.draw(size))

    def wipe(self) -> None:
        """Overwrite the bytes with zeros and let them go; wiping twice does no harm."""
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            _clear(buffer)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, _Held)
        if self._buffer is None or other._buffer is None:
            return self is other
        return hmac.compare_digest(self._buffer, other._buffer)

    __hash__ = None  # type: ignore[assignment]  # a hash would be a fingerprint of the secret


class Secret(_Held):
    """Bytes that can be taken out exactly once.

    Equality of two secrets is compared in constant time; they cannot be hashed.
    """

    __slots__ = ()

    def take(self) -> bytes:
        """Return the bytes and forget them.

        Raises:
            Misuse: they were taken or wiped before. Using one seed twice would expose what it masks.
        """
        buffer, self._buffer = self._buffer, None
        if buffer is None:
            raise Misuse("this secret was used already; derive a new one, never keep a copy of the first")
        value = bytes(buffer)
        _clear(buffer)
        return value


class SecretBytes(_Held):
    """Bytes that may be read until :meth:`wipe`, which leaving a ``with`` block calls.

    >>> with SecretBytes(b"abc") as secret:
    ...     len(secret.reveal()), secret
    (3, SecretBytes(<redacted>))
    """

    __slots__ = ()

    def reveal(self) -> bytes:
        """Return a copy of the bytes; raises Misuse after :meth:`wipe`."""
        if self._buffer is None:
            raise Misuse("this secret was wiped; read it from its key store again")
        return bytes(self._buffer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()


def _clear(buffer: bytearray) -> None:
    buffer[:] = bytes(len(buffer))
