"""Identities: names that cannot deceive, fingerprints over the telephone, rotation with continuity."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_keys import (
    EnrolmentRequest,
    Identity,
    Label,
    Member,
    Misuse,
    Rotation,
    SealingKey,
    SigningKey,
    Unverified,
    check_fingerprint,
    check_name,
    fingerprint,
)

SITE = Identity("site 1", SigningKey.from_secret_bytes(bytes(range(32))))


@pytest.mark.parametrize("name", ["a", "A1", "St. Mary_2-b", "ops@clinic", "x" * 64])
def test_plain_names_are_usable(name: str) -> None:
    """Letters, digits, and . _ @ - or spaces inside, up to 64."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "-a", "a\n", "a\x1b[2Jb", "a\u200bb", "сite", "é", "x" * 65, "a\x00b", "a\tb", "a/b"]
)
def test_deceptive_names_are_refused(name: str) -> None:
    """Look-alike letters, invisible or control characters and loose spaces; the error is plain ASCII."""
    with pytest.raises(Misuse) as caught:
        check_name(name)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


def test_fingerprints_are_spoken_digits(vectors: Any) -> None:
    """Eight groups of five digits, pinned by a vector."""
    text = SITE.fingerprint
    assert [len(group) for group in text.split(" ")] == [5] * 8
    assert text.replace(" ", "").isdigit()
    assert text == fingerprint(SITE.verify_key) == vectors("signing")["good"]["fingerprint"]


def test_fingerprints_are_compared_by_digits() -> None:
    """Spacing and dashes do not matter; one wrong, missing or extra digit does."""
    digits = SITE.fingerprint.replace(" ", "")
    for spoken in (SITE.fingerprint, digits, "-".join(SITE.fingerprint.split()), f"  {SITE.fingerprint}\n"):
        check_fingerprint(SITE.verify_key, spoken)
    for at in range(40):
        wrong = digits[:at] + str((int(digits[at]) + 1) % 10) + digits[at + 1 :]
        with pytest.raises(Unverified, match="do not enrol"):
            check_fingerprint(SITE.verify_key, wrong)
    for wrong in ("", digits[:-1], digits + "0", digits[:5], digits + "x"):
        with pytest.raises(Unverified):
            check_fingerprint(SITE.verify_key, wrong)


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_fingerprints_differ_with_the_key(a: bytes, b: bytes) -> None:
    """Two keys, two fingerprints."""
    left, right = (SigningKey.from_secret_bytes(secret).verify_key for secret in (a, b))
    assert (left == right) == (fingerprint(left) == fingerprint(right))


def test_identities_rest_in_a_key_store() -> None:
    """Export and import give the same name and key; other entries are refused."""
    again = Identity.from_secret_bytes(SITE.secret_bytes())
    assert (again.name, again.verify_key, again.site_id) == (SITE.name, SITE.verify_key, SITE.site_id)
    for entry in (b"", bytes(32), SITE.secret_bytes() + b"\0"):
        with pytest.raises(Misuse, match="no identity"):
            Identity.from_secret_bytes(entry)


def test_rotation_is_signed_by_both_keys(entropy: Any) -> None:
    """The name stays, the key changes, and the proof verifies after a trip over the wire."""
    after, proof = SITE.rotate(entropy, 5)
    assert after.name == SITE.name
    assert after.site_id != SITE.site_id
    again = Rotation.decode(proof.encode())
    again.verify()
    assert (again.old_key, again.new_key) == (SITE.verify_key.raw, after.verify_key.raw)


def test_one_sided_rotations_are_refused(entropy: Any) -> None:
    """Neither the old key alone (claiming a stranger's) nor the new alone (usurping a name) suffices."""
    after, proof = SITE.rotate(entropy, 5)
    stranger, other = SITE.rotate(entropy, 5)
    parts = (SITE.name, SITE.verify_key.raw, stranger.verify_key.raw, 5)
    claims = [
        replace(proof, new_key=stranger.verify_key.raw),
        replace(proof, new_key=stranger.verify_key.raw, old_signature=SITE.key.sign(Label.ROTATION_OLD, *parts)),
        replace(proof, new_key=stranger.verify_key.raw, new_signature=stranger.key.sign(Label.ROTATION_NEW, *parts)),
        replace(proof, old_signature=proof.new_signature, new_signature=proof.old_signature),
        replace(proof, old_signature=other.old_signature),
        replace(proof, rotated_at=6),
        replace(proof, name="site 2"),
        replace(proof, old_key=proof.new_key, new_key=proof.old_key),
        replace(proof, new_key=proof.old_key),
        replace(proof, new_key=b"\x01" + bytes(31)),
        replace(proof, old_key=bytes(32)),
    ]
    raw = SITE.verify_key.raw
    parts = (SITE.name, raw, raw, 5)
    signed = SITE.key.sign(Label.ROTATION_OLD, *parts), SITE.key.sign(Label.ROTATION_NEW, *parts)
    claims.append(Rotation(SITE.name, raw, raw, 5, *signed))  # both signatures hold, but nothing changes
    for claim in claims:
        with pytest.raises(Unverified):
            claim.verify()
    assert after.name == SITE.name


# -- enrolment ------------------------------------------------------------------------------------


def test_a_request_becomes_a_member() -> None:
    """Signature, federation and the spoken fingerprint fit: what the roster lists is what was asked."""
    request = EnrolmentRequest.decode(EnrolmentRequest.create(SITE, "trial", 7).encode())
    request.verify()
    assert request.admit("trial", SITE.fingerprint) == Member("site 1", SITE.verify_key.raw, ("site",))


def test_an_auditor_brings_a_sealing_key() -> None:
    """Only auditors have one; it is signed with the rest, and weak ones are refused."""
    raw = SealingKey(bytes(96)).public.raw
    request = EnrolmentRequest.create(SITE, "trial", 7, ["auditor"], raw)
    assert request.admit("trial", SITE.fingerprint).sealing_key == raw
    with pytest.raises(Misuse, match="no auditor"):
        EnrolmentRequest.create(SITE, "trial", 7, ["site"], raw)
    with pytest.raises(Unverified):
        EnrolmentRequest.create(SITE, "trial", 7, ["auditor"], raw[:1184] + bytes(32))


def test_altered_requests_are_refused() -> None:
    """Every field is under the signature: a relay cannot change name, roles, federation or time."""
    request = EnrolmentRequest.create(SITE, "trial", 7)
    other = SigningKey.from_secret_bytes(bytes(32))
    for change in (
        {"name": "site 2"},
        {"federation": "other"},
        {"roles": ("compliance", "site")},
        {"roles": ("coordinator",)},
        {"requested_at": 8},
        {"verify_key": other.verify_key.raw},
        {"signature": bytes(64)},
        {"roles": ("auditor",), "sealing_key": SealingKey(bytes(96)).public.raw},
    ):
        with pytest.raises(Unverified):
            replace(request, **change).verify()  # type: ignore[arg-type]


def test_the_telephone_catches_a_substituted_request() -> None:
    """A self-consistent request by an attacker's key under the site's name fails the fingerprint."""
    attacker = Identity(SITE.name, SigningKey.from_secret_bytes(bytes(32)))
    request = EnrolmentRequest.create(attacker, "trial", 7)
    request.verify()
    with pytest.raises(Unverified, match="fingerprint"):
        request.admit("trial", SITE.fingerprint)


def test_a_request_is_for_one_federation() -> None:
    """It cannot be replayed into another federation's roster."""
    with pytest.raises(Unverified, match="asks to join 'trial'"):
        EnrolmentRequest.create(SITE, "trial", 7).admit("another", SITE.fingerprint)


@pytest.mark.parametrize("roles", [[], ["root"], ["site", "coordinator"], ["compliance", "coordinator"], ["Site"]])
def test_roles_that_cannot_be_held_are_refused(roles: list[str]) -> None:
    """Unknown roles, none at all, or the untrusted coordinator with any other hat."""
    with pytest.raises(Misuse):
        EnrolmentRequest.create(SITE, "trial", 7, roles)


def test_requests_carry_nothing_secret() -> None:
    """Neither seed nor expanded key is in the bytes that travel, nor in the printed request."""
    request = EnrolmentRequest.create(SITE, "trial", 7)
    assert SITE.key.secret_bytes() not in request.encode()
    assert SITE.key.secret_bytes().hex() not in repr(request)
