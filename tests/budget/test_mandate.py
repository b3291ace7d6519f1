"""A mandate says which analyst pays for which task, and nobody else can say it for him."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_keys import SYSTEM, SigningKey

from privfl.budget import Mandate, Purpose
from privfl.errors import Malformed, Misuse, PrivflError, Refused, Unverified
from tests.budget.policies import NOW, roster

ANALYST = SigningKey.from_secret_bytes(bytes(32))
ROSTER = roster(ANALYST, "analyst")
TASK = bytes(range(32))


def mandate(purpose: Purpose = Purpose.TRAINING, *, federation: str = "northern hospitals") -> Mandate:
    """One for TASK, valid for a second."""
    return Mandate.sign(ANALYST, federation=federation, task=TASK, purpose=purpose, expires=NOW + 1000, entropy=SYSTEM)


@pytest.mark.parametrize("purpose", Purpose)
def test_there_and_back(purpose: Purpose) -> None:
    """Name and purpose, after a journey; two mandates for one task differ."""
    one = mandate(purpose)
    assert Mandate.decode(one.encode()).verify(ROSTER, TASK, NOW) == ("officer", purpose)
    assert one != mandate(purpose)


def test_refusals() -> None:
    """Another task, another federation, too late."""
    with pytest.raises(Refused, match="for another task"):
        mandate().verify(ROSTER, bytes(32), NOW)
    with pytest.raises(Refused, match="for federation 'others'"):
        mandate(federation="others").verify(ROSTER, TASK, NOW)
    with pytest.raises(Refused, match="expired"):
        mandate().verify(ROSTER, TASK, NOW + 1000)
    mandate().verify(ROSTER, TASK, NOW + 999)


def test_who_may_sign() -> None:
    """Not a stranger, not an officer, not the revoked; nor one analyst for another."""
    other = SigningKey.generate(SYSTEM)
    for book in (roster(other, "analyst"), roster(ANALYST), roster(other, revoked=[ANALYST.verify_key.site_id])):
        with pytest.raises(Unverified, match=r"not signed by an analyst of this roster .*ask the authority"):
            mandate().verify(book, TASK, NOW)
    stolen = replace(mandate(), analyst=other.verify_key.site_id)
    with pytest.raises(Unverified):
        stolen.verify(roster(other, "analyst"), TASK, NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": "analytics"},
        {"expires": NOW + 10**9},
        {"nonce": bytes(16)},
        {"federation": "x"},
        {"task": bytes(32)},
    ],
)
def test_every_field_is_signed(change: dict[str, object]) -> None:
    """None can be exchanged."""
    with pytest.raises(Unverified):
        replace(mandate(), **change).verify(ROSTER, TASK, NOW)  # type: ignore[arg-type]


def test_no_such_purpose() -> None:
    """Signed by the analyst himself, it is still malformed."""
    parts = ("northern hospitals", TASK, "fun", ANALYST.verify_key.site_id, bytes(16), NOW + 1)
    from privfl_keys import Label

    with pytest.raises(Malformed, match="names the purpose 'fun'"):
        Mandate(*parts, ANALYST.sign(Label.MANDATE, *parts)).verify(ROSTER, TASK, NOW)


def test_misuse() -> None:
    """What no site would accept is not signed."""
    for task, expires, federation in ((b"x", 1, "f"), (TASK, -1, "f"), (TASK, 2**64, "f"), (TASK, 1, "-")):
        with pytest.raises(Misuse):
            Mandate.sign(
                ANALYST, federation=federation, task=task, purpose=Purpose.TRAINING, expires=expires, entropy=SYSTEM
            )


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_changed_byte_verifies(data: st.DataObject) -> None:
    """Only errors of the tree come out."""
    raw = bytearray(mandate().encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PrivflError):
        Mandate.decode(bytes(raw)).verify(ROSTER, TASK, NOW)
