"""A signal that falls into the library's work must not make an honest sender look guilty."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from privfl_keys import Label, SealingKey, sealing

from privfl.entropy import SYSTEM
from privfl.errors import Unverified


class _Once:
    """Decrypts, but fails the first time as the library does when a signal handler raises inside it."""

    def __init__(self, suite: Any) -> None:
        self.suite, self.calls = suite, 0

    def decrypt(self, *args: Any) -> bytes:
        """Fail once."""
        self.calls += 1
        if self.calls == 1:
            raise InvalidTag
        return self.suite.decrypt(*args)


def test_a_ciphertext_that_opens_the_second_time_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One failure and one success of the same bytes is an interrupt, and is raised as one."""
    key = SealingKey.generate(SYSTEM)
    sealed = key.public.seal(b"secret", Label.BLOB, 1)
    monkeypatch.setattr(sealing, "_SUITE", _Once(sealing._SUITE))
    with pytest.raises(KeyboardInterrupt):
        key.open(sealed, Label.BLOB, 1)
    assert key.open(sealed, Label.BLOB, 1) == b"secret"


def test_a_damaged_ciphertext_is_still_damaged() -> None:
    """Bad bytes stay Unverified."""
    key = SealingKey.generate(SYSTEM)
    sealed = bytearray(key.public.seal(b"secret", Label.BLOB, 1))
    sealed[-1] ^= 1
    with pytest.raises(Unverified):
        key.open(bytes(sealed), Label.BLOB, 1)


def test_real_interrupts_never_blame_the_sender() -> None:
    """Timers that fire inside the library end in an interrupt or in the plaintext, never in Unverified."""
    key = SealingKey.generate(SYSTEM)
    sealed = key.public.seal(b"secret", Label.BLOB, 1)
    armed = False

    def fire(number: int, frame: object) -> None:
        if armed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, fire)
    interrupted = 0
    try:
        for step in range(300):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, 1e-5 * (1 + step % 40))
                assert key.open(sealed, Label.BLOB, 1) == b"secret"
                armed = False
            except KeyboardInterrupt:
                interrupted += 1
            armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 0
