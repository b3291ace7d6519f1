"""Secrets are used once, print as redacted, and cannot be pickled, copied or hashed."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from privfl_keys import Identity, Misuse, SealingKey, Secret, SecretBytes, SigningKey

SEED = bytes(range(1, 33))


def holders() -> list[Any]:
    key = SigningKey.from_secret_bytes(SEED)
    return [Secret(SEED), SecretBytes(SEED), key, SealingKey(SEED * 3), Identity("site", key)]


def test_a_secret_gives_its_bytes_once() -> None:
    """The second take is misuse, so a seed cannot serve two vectors."""
    secret = Secret(SEED)
    assert secret.take() == SEED
    with pytest.raises(Misuse, match="used already"):
        secret.take()


def test_wiped_holders_give_nothing() -> None:
    """After wipe, and after a with block, the bytes are gone; wiping twice is harmless."""
    secret, reusable = Secret(SEED), SecretBytes(SEED)
    buffer = reusable._buffer
    secret.wipe()
    secret.wipe()
    with pytest.raises(Misuse):
        secret.take()
    with reusable as entered:
        assert entered.reveal() == entered.reveal() == SEED
    with pytest.raises(Misuse):
        reusable.reveal()
    assert buffer == bytearray(32)


def test_taking_overwrites_the_buffer() -> None:
    """What the holder kept is zeros afterwards."""
    secret = Secret(SEED)
    buffer = secret._buffer
    secret.take()
    assert buffer == bytearray(32)


def test_the_holder_does_not_follow_its_source() -> None:
    """Wiping the holder leaves the caller's bytearray alone, and the reverse."""
    source = bytearray(SEED)
    secret = SecretBytes(source)
    source[0] = 99
    assert secret.reveal() == SEED


def test_equality_is_by_content_and_kind() -> None:
    """Equal secrets are equal, a used one equals only itself, and no secret equals raw bytes."""
    assert Secret(SEED) == Secret(SEED)
    assert Secret(SEED) != Secret(bytes(32))
    assert Secret(SEED) != SecretBytes(SEED)
    assert Secret(SEED) != SEED
    used = Secret(SEED)
    used.take()
    assert used == used
    assert used != Secret(SEED)
    with pytest.raises(TypeError):
        hash(Secret(SEED))


def test_only_bytes_are_held() -> None:
    """Text or an int in place of bytes is refused without being shown."""
    with pytest.raises(Misuse) as caught:
        Secret("s3cret text")  # type: ignore[arg-type]
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("holder", holders(), ids=lambda holder: type(holder).__name__)
@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, ascii, lambda x: f"{[x]}"])
def test_nothing_printed_holds_the_secret(holder: Any, show: Callable[[Any], str]) -> None:
    """repr, str and format show neither the bytes nor their hex."""
    text = show(holder)
    assert "redacted" in text
    for form in (SEED.hex(), str(SEED)[2:-1], str(list(SEED))[1:-1]):
        assert form not in text
        assert form[:12] not in text


@pytest.mark.parametrize("holder", holders(), ids=lambda holder: type(holder).__name__)
@pytest.mark.parametrize(
    "leak",
    [copy.copy, copy.deepcopy, lambda x: x.__getstate__(), lambda x: copy.deepcopy({"key": x})]
    + [lambda x, p=p: pickle.dumps(x, p) for p in range(pickle.HIGHEST_PROTOCOL + 1)],
)
def test_secrets_cannot_be_pickled_or_copied(holder: Any, leak: Callable[[Any], Any]) -> None:
    """Every pickle protocol and both kinds of copy refuse, also from inside a container."""
    with pytest.raises(Misuse, match="cannot be pickled or copied"):
        leak(holder)


@pytest.mark.parametrize("holder", holders(), ids=lambda holder: type(holder).__name__)
def test_secrets_are_not_serialised_by_accident(holder: Any) -> None:
    """json has no way in, and the object is not iterable or bytes-like."""
    with pytest.raises(TypeError):
        json.dumps(holder)
    with pytest.raises(TypeError):
        bytes(holder)


@pytest.mark.parametrize(
    "kind", [SigningKey.from_secret_bytes, SealingKey.from_secret_bytes, Identity.from_secret_bytes]
)
def test_errors_about_secrets_do_not_show_them(kind: Callable[[bytes], Any]) -> None:
    """Loading a secret of the wrong length or shape names lengths, never bytes, in the whole chain."""
    with pytest.raises(Misuse) as caught:
        kind(SEED[:31])
    error: BaseException | None = caught.value
    while error is not None:
        assert SEED[:8].hex() not in repr(error)
        assert repr(SEED[:8])[2:-1] not in repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
