"""Hybrid HPKE: known answers, a second implementation, weak keys, and what a ciphertext is bound to."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_keys import SEAL_OVERHEAD, Label, Misuse, SealingKey, SealingPublicKey, Unverified, context

KEY = SealingKey(bytes(range(96)))
P = 2**255 - 19


def open_by_hand(secret: bytes, sealed: bytes, info: bytes) -> bytes:
    """RFC 9180 base mode (sections 4, 5.1, 5.2) over the X-Wing combiner, in hashlib and hmac."""
    suite = b"HPKE" + bytes.fromhex("647a00010003")

    def extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")

    def expand(key: bytes, label: bytes, info: bytes, size: int) -> bytes:
        labelled = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
        return hmac.digest(key, labelled + b"\x01", "sha256")[:size]

    mlkem = MLKEM768PrivateKey.from_seed_bytes(secret[:64])
    x25519 = X25519PrivateKey.from_private_bytes(secret[64:])
    enc_m, enc_x, body = sealed[:1088], sealed[1088:1120], sealed[1120:]
    shared = hashlib.sha3_256(
        mlkem.decapsulate(enc_m)
        + x25519.exchange(X25519PublicKey.from_public_bytes(enc_x))
        + enc_x
        + x25519.public_key().public_bytes_raw()
        + rb"\.//^" + b"\\"
    ).digest()  # fmt: skip
    schedule = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    key, nonce = expand(secret, b"key", schedule, 32), expand(secret, b"base_nonce", schedule, 12)
    return ChaCha20Poly1305(key).decrypt(nonce, body, b"")


def test_known_answer(vectors: Any) -> None:
    """A fixed secret opens a fixed ciphertext: a changed draft of the KEM is noticed here."""
    case = vectors("sealing")
    key = SealingKey.from_secret_bytes(bytes.fromhex(case["secret"]))
    assert key.public.raw.hex() == case["public"]
    assert key.open(bytes.fromhex(case["sealed"]), Label.PROBE, "vector", 1).hex() == case["plaintext"]


def test_known_answer_by_a_second_implementation(vectors: Any) -> None:
    """The same ciphertext opens by RFC 9180 and X-Wing written out, suite 647A 0001 0003."""
    case = vectors("sealing")
    opened = open_by_hand(
        bytes.fromhex(case["secret"]), bytes.fromhex(case["sealed"]), context(Label.PROBE, "vector", 1)
    )
    assert opened.hex() == case["plaintext"]


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=5000), st.binary(max_size=50))
def test_what_is_sealed_opens(plaintext: bytes, part: bytes) -> None:
    """open ∘ seal is the identity, in both implementations, with 1 136 bytes of overhead."""
    sealed = KEY.public.seal(plaintext, Label.BLOB, part)
    assert len(sealed) == len(plaintext) + SEAL_OVERHEAD
    assert KEY.open(sealed, Label.BLOB, part) == plaintext
    assert open_by_hand(KEY.secret_bytes(), sealed, context(Label.BLOB, part)) == plaintext


@pytest.mark.parametrize(
    ("label", "parts"),
    [(Label.RELEASE_SEAL, ("i", "j")), (Label.BLOB, ("j", "i")), (Label.BLOB, ("i",)), (Label.BLOB, ("ij",))],
)
def test_info_binds_label_and_parts(label: Label, parts: tuple[str, ...]) -> None:
    """A ciphertext copied under another label, sender, recipient or round does not open."""
    sealed = KEY.public.seal(b"shares", Label.BLOB, "i", "j")
    with pytest.raises(Unverified):
        KEY.open(sealed, label, *parts)


def test_only_the_recipient_opens() -> None:
    """Another key, also one that shares either half with the recipient's, opens nothing."""
    sealed = KEY.public.seal(b"x", Label.BLOB)
    secret = KEY.secret_bytes()
    for other in (bytes(96), secret[:64] + bytes(32), bytes(64) + secret[64:]):
        with pytest.raises(Unverified):
            SealingKey(other).open(sealed, Label.BLOB)


def test_damaged_ciphertexts_are_refused() -> None:
    """A flipped bit in either KEM part, body or tag, truncation and extension all raise Unverified."""
    sealed = KEY.public.seal(b"hello", Label.BLOB)
    for at in (*range(0, len(sealed), 61), 1087, 1088, 1119, 1120, len(sealed) - 1):
        mutated = bytearray(sealed)
        mutated[at] ^= 1
        with pytest.raises(Unverified):
            KEY.open(bytes(mutated), Label.BLOB)
    for other in (b"", b"x", sealed[:1088], sealed[:1120], sealed[:-1], sealed + b"\0"):
        with pytest.raises(Unverified):
            KEY.open(other, Label.BLOB)


def test_the_ignored_bit_of_x25519_is_not_malleable() -> None:
    """X25519 masks the top bit of u; the combiner hashes it, so flipping it still fails."""
    sealed = bytearray(KEY.public.seal(b"hello", Label.BLOB))
    sealed[1119] ^= 0x80
    with pytest.raises(Unverified):
        KEY.open(bytes(sealed), Label.BLOB)


def test_two_seals_of_one_plaintext_differ() -> None:
    """Every seal is fresh."""
    assert KEY.public.seal(b"x", Label.BLOB) != KEY.public.seal(b"x", Label.BLOB)


def with_u(u: int) -> bytes:
    return KEY.public.raw[:1184] + u.to_bytes(32, "little")


def test_weak_x25519_parts_are_refused(vectors: Any) -> None:
    """The five canonical points of order dividing 8, on the curve and its twist, zero included."""
    points = [int.from_bytes(bytes.fromhex(raw), "little") for raw in vectors("sealing")["small_order_u"]]
    assert len(points) == 5
    assert 0 in points
    for u in points:
        with pytest.raises(Unverified, match="small order"):
            SealingPublicKey(with_u(u))
        with pytest.raises(ValueError, match="shared key"):  # the library agrees, but only when it is used
            X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(u.to_bytes(32, "little")))


def test_second_encodings_of_x25519_are_refused() -> None:
    """u = p .. 2^255 − 1, and every sound u with the ignored top bit set: one key, one encoding."""
    sound = int.from_bytes(KEY.public.raw[1184:], "little")
    for u in (*range(P, 2**255), sound | 1 << 255, 1 << 255, 2**256 - 1):
        with pytest.raises(Unverified, match="non-canonical"):
            SealingPublicKey(with_u(u))


def test_malformed_mlkem_parts_are_refused() -> None:
    """Any 12-bit coefficient ≥ 3329 fails the modulus check; wrong sizes too."""
    raw = KEY.public.raw
    for at in (0, 3, 1149):
        with pytest.raises(Unverified, match="ML-KEM"):
            SealingPublicKey(raw[:at] + b"\x01\x1d\xd0" + raw[at + 3 :])  # 0xd01 = 3329 = q
    for size in (0, 32, 1184, 1215, 1217):
        with pytest.raises(Unverified):
            SealingPublicKey(bytes(size))
    with pytest.raises(Misuse):
        SealingKey(bytes(95))


def test_probe_seals_to_a_received_key() -> None:
    """A sound key passes; a key that the library cannot seal to raises Unverified, not ValueError."""
    SealingPublicKey(KEY.public.raw).probe()
    broken = SealingPublicKey(KEY.public.raw)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(bytes(64)).public_key()
    from cryptography.hazmat.primitives.hpke import MLKEM768X25519PublicKey

    broken._key = MLKEM768X25519PublicKey(mlkem, X25519PublicKey.from_public_bytes(bytes(32)))
    with pytest.raises(Unverified, match="nothing can be sealed"):
        broken.probe()


def test_sealing_keys_are_values_only_in_public(entropy: Any) -> None:
    """Public keys compare by bytes and print their tail; generation draws 96 bytes of the argument."""
    key = SealingKey.generate(entropy)
    assert entropy.count == 3
    assert SealingPublicKey(key.public.raw) == key.public
    assert len({SealingPublicKey(key.public.raw), key.public}) == 1
    assert key.public != KEY.public
    assert SealingKey.from_secret_bytes(key.secret_bytes()).public == key.public
    assert key.public.raw[-32:].hex() in repr(key.public)
