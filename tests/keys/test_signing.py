"""Ed25519: weak and second encodings are refused, signatures bind label and every part."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_keys import Label, Misuse, SigningKey, Unverified, VerifyKey, context, derive, digest, extract_and_derive

KEY = SigningKey.from_secret_bytes(bytes(range(32)))
P = 2**255 - 19


def test_rfc_8032_keys(vectors: Any) -> None:
    """Public keys are those of RFC 8032, section 7.1."""
    for case in vectors("signing")["rfc8032"]:
        key = SigningKey.from_secret_bytes(bytes.fromhex(case["secret"]))
        assert key.verify_key.raw.hex() == case["public"]
        assert key.secret_bytes().hex() == case["secret"]


def test_known_answers(vectors: Any) -> None:
    """Pins signature inputs, site ids, fingerprints and derivations: other bytes are another protocol."""
    good = vectors("signing")["good"]
    parts = ("federation", 7, b"\x01\x02")
    assert KEY.verify_key.raw.hex() == good["public"]
    assert KEY.verify_key.site_id.hex() == good["site_id"] == digest(Label.SITE_ID, KEY.verify_key.raw).hex()
    assert KEY.sign(Label.PROBE, *parts).hex() == good["signature"]
    assert derive(bytes(range(32)), Label.PROBE, *parts, size=48).hex() == good["derived"]
    assert extract_and_derive(bytes(range(64)), Label.PROBE, *parts).hex() == good["extracted"]


@pytest.mark.parametrize("group", ["small_order", "non_canonical", "off_curve"])
def test_unsound_public_keys_are_refused(vectors: Any, group: str) -> None:
    """All 8 torsion points, all 40 second encodings, and points off the curve raise Unverified."""
    encodings = vectors("signing")[group]
    assert len(encodings) >= 8
    for raw in encodings:
        with pytest.raises(Unverified):
            VerifyKey(bytes.fromhex(raw))


def test_why_small_order_keys_are_refused() -> None:
    """pyca accepts one fixed signature for any message under the identity point; we never load it."""
    identity = b"\x01" + bytes(31)
    signature = identity + bytes(32)  # R = identity, S = 0
    Ed25519PublicKey.from_public_bytes(identity).verify(signature, b"any message")
    Ed25519PublicKey.from_public_bytes(identity).verify(signature, b"any other")
    with pytest.raises(Unverified, match="small order"):
        VerifyKey(identity)


def test_every_encoding_with_large_y_is_refused() -> None:
    """y = p .. 2^255 − 1 with either sign of x, exhaustively, names non-canonical as the cause."""
    for y in range(P, 2**255):
        for sign in (0, 1 << 255):
            with pytest.raises(Unverified, match="canonical"):
                VerifyKey((y | sign).to_bytes(32, "little"))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_keys_of_another_size_are_refused(size: int) -> None:
    """Only 32 bytes are a key; the blame is the peer's for public keys, the caller's for secrets."""
    with pytest.raises(Unverified):
        VerifyKey(bytes(size))
    with pytest.raises(Misuse):
        SigningKey.from_secret_bytes(bytes(size))


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_honest_keys_are_always_loaded(secret: bytes) -> None:
    """The checks have no false alarm: any generated key loads, signs and verifies."""
    key = SigningKey.from_secret_bytes(secret)
    VerifyKey(key.verify_key.raw).verify(key.sign(Label.H0, 1), Label.H0, 1)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_curve_check_agrees_with_the_library(raw: bytes) -> None:
    """A key we call off the curve verifies nothing under pyca either; one we load, pyca loads."""
    try:
        VerifyKey(raw)
    except Unverified:
        return
    Ed25519PublicKey.from_public_bytes(raw)


@pytest.mark.parametrize(
    ("label", "parts"),
    [
        (Label.VOTE, ("a", 1)),
        (Label.HEADER, ("a", 2)),
        (Label.HEADER, ("a",)),
        (Label.HEADER, ("a", 1, None)),
        (Label.HEADER, (("a", 1),)),
        (Label.HEADER, ("a", True)),
        (Label.HEADER, (b"a", 1)),
    ],
)
def test_signatures_bind_label_and_parts(label: Label, parts: tuple[object, ...]) -> None:
    """Another label, value, type or grouping does not verify."""
    signature = KEY.sign(Label.HEADER, "a", 1)
    KEY.verify_key.verify(signature, Label.HEADER, "a", 1)
    with pytest.raises(Unverified):
        KEY.verify_key.verify(signature, label, *parts)


def test_every_flipped_bit_breaks_the_signature() -> None:
    """All 512 single-bit mutations and wrong lengths are refused; the error names label and key id."""
    signature = KEY.sign(Label.HEADER, 1)
    for bit in range(512):
        mutated = bytearray(signature)
        mutated[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Unverified, match=f"header is not by {KEY.verify_key.site_id.hex()[:16]}"):
            KEY.verify_key.verify(bytes(mutated), Label.HEADER, 1)
    for other in (b"", signature[:-1], signature + b"\0"):
        with pytest.raises(Unverified):
            KEY.verify_key.verify(other, Label.HEADER, 1)


def test_a_second_form_of_s_is_refused() -> None:
    """S + ℓ is the classic malleable signature; it does not verify."""
    signature = KEY.sign(Label.HEADER, 1)
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(signature[32:], "little") + order
    with pytest.raises(Unverified):
        KEY.verify_key.verify(signature[:32] + s.to_bytes(32, "little"), Label.HEADER, 1)


def test_another_key_does_not_verify() -> None:
    """A signature is one key's."""
    other = SigningKey.from_secret_bytes(bytes(32))
    with pytest.raises(Unverified):
        other.verify_key.verify(KEY.sign(Label.H0), Label.H0)


def test_signature_input_is_the_context() -> None:
    """What is signed is exactly context(label, *parts), checked against pyca directly."""
    signature = KEY.sign(Label.H0, "x")
    Ed25519PublicKey.from_public_bytes(KEY.verify_key.raw).verify(signature, context(Label.H0, "x"))


def test_verify_keys_are_values() -> None:
    """Public keys compare, hash, print and pickle by their bytes; signing keys do not."""
    key = VerifyKey(KEY.verify_key.raw)
    assert key == KEY.verify_key
    assert len({key, KEY.verify_key}) == 1
    assert key != KEY.verify_key.raw
    assert key.raw.hex() in repr(key)
    assert pickle.loads(pickle.dumps(key)) == key


def test_generation_uses_the_entropy_it_is_given(entropy: Any) -> None:
    """32 bytes are drawn, from the argument; two draws give two keys."""
    first, second = SigningKey.generate(entropy), SigningKey.generate(entropy)
    assert first.verify_key != second.verify_key
    assert entropy.count == 2
