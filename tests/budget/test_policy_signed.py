"""A policy counts only under the signature of a compliance officer of the roster, in the order of its versions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_keys import SYSTEM, Label, SigningKey

from privfl.budget import SignedPolicy, check_succession, read_policy
from privfl.errors import Malformed, Misuse, PrivflError, Refused, Unverified
from tests.budget.policies import DAY, NOW, TEXT, policy, roster

OFFICER = SigningKey.from_secret_bytes(bytes(range(32)))
ROSTER = roster(OFFICER)
SIGNED = SignedPolicy.sign(policy(), OFFICER)


def test_there_and_back() -> None:
    """Signed, encoded, decoded and verified, it is the same policy; early as well, for who installs it in advance."""
    assert SignedPolicy.decode(SIGNED.encode()).verify(ROSTER, NOW) == policy()
    assert SIGNED.verify(ROSTER, policy().valid_from_at - DAY) == policy()
    assert SIGNED.verify(ROSTER, policy().expires_at - 1) == policy()


def test_expired() -> None:
    """From its first millisecond on, with the next step."""
    with pytest.raises(Refused, match=r"expired on 2027-11-20.*ask compliance for the next version"):
        SIGNED.verify(ROSTER, policy().expires_at)


def test_foreign() -> None:
    """Signed for another federation by one who is officer in both."""
    with pytest.raises(Refused, match="for federation 'others' and this roster for 'northern hospitals'"):
        SignedPolicy.sign(policy(federation="others"), OFFICER).verify(ROSTER, NOW)


def test_who_may_sign() -> None:
    """Not a stranger, not an analyst or site, not a revoked officer; nor one for another."""
    for book, words in (
        (roster(SigningKey.generate(SYSTEM)), "is not in roster"),
        (roster(OFFICER, "analyst"), "does not hold the role compliance"),
        (roster(OFFICER, "auditor", "site"), "does not hold the role compliance"),
        (roster(SigningKey.generate(SYSTEM), revoked=[OFFICER.verify_key.site_id]), "was revoked"),
    ):
        with pytest.raises(Unverified, match=rf"not signed by a compliance officer of this roster \(.*{words}"):
            SIGNED.verify(book, NOW)
    forged = replace(SignedPolicy.sign(policy(), SigningKey.generate(SYSTEM)), officer=OFFICER.verify_key.site_id)
    with pytest.raises(Unverified, match="'officer' did not sign this policy, or it was changed since"):
        forged.verify(ROSTER, NOW)


def test_a_signature_for_something_else() -> None:
    """The officer's signature under another label, or over the text itself, is none."""
    for signature in (OFFICER.sign(Label.POLICY, policy().hash), OFFICER.sign(Label.POLICY_SIGNED, SIGNED.text)):
        with pytest.raises(Unverified, match="did not sign"):
            replace(SIGNED, signature=signature).verify(ROSTER, NOW)


def test_a_changed_text() -> None:
    """A changed number is not what was signed; another spelling is malformed even if it means the same."""
    with pytest.raises(Unverified, match="changed since"):
        replace(SIGNED, text=policy(epsilon=5).canonical()).verify(ROSTER, NOW)
    with pytest.raises(Malformed, match="not in canonical form"):
        replace(SIGNED, text=SIGNED.text.replace(b",", b", ", 1)).verify(ROSTER, NOW)
    with pytest.raises(Malformed, match="not the text of a policy"):
        replace(SIGNED, text=SIGNED.text.replace(b'"epsilon":4.0', b'"epsilon":-4.0')).verify(ROSTER, NOW)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, len(SIGNED.encode()) - 1), st.integers(1, 255))
def test_no_changed_byte_verifies(at: int, flip: int) -> None:
    """Wherever it is; and only errors of the tree come out."""
    data = bytearray(SIGNED.encode())
    data[at] ^= flip
    with pytest.raises(PrivflError):
        SignedPolicy.decode(bytes(data)).verify(ROSTER, NOW)


def test_succession() -> None:
    """Forward and the same again; not back, not another under the same version."""
    one = policy()
    check_succession(None, one)
    check_succession((3, one.hash), one)
    check_succession((2, bytes(32)), one)
    with pytest.raises(Refused, match=r"version 3 is older than version 4.*ask compliance for version 5"):
        check_succession((4, bytes(32)), one)
    with pytest.raises(Refused, match="another policy under the version 3"):
        check_succession((3, policy(epsilon=5).hash), one)


def test_agreement_with_the_roster() -> None:
    """All disagreements at once; more colluders in the roster than the policy asks for are welcome."""
    policy().agrees_with(ROSTER)
    policy().agrees_with(roster(OFFICER, sites=7, corrupt_bound=2))
    with pytest.raises(Refused) as caught:
        policy(colluders=2, min_survivors=4, min_sites=9, min_committee=9, federation="x").agrees_with(ROSTER)
    found = str(caught.value)
    for words in (
        "federation 'x'",
        "2 colluders and the roster on c = 1",
        "committee of 9",
        "cohorts of 9",
        "next step",
    ):
        assert words in found


def test_reading_either_file(tmp_path: Path) -> None:
    """YAML and signed files are told apart; damaged ones are named."""
    plain, signed, torn = tmp_path / "p.yaml", tmp_path / "p.signed", tmp_path / "torn"
    plain.write_text(TEXT)
    signed.write_bytes(SIGNED.encode())
    torn.write_bytes(SIGNED.encode()[:-5])
    assert read_policy(plain) == (policy(), None)
    assert read_policy(signed) == (policy(), SIGNED)
    with pytest.raises(Malformed, match="torn is no whole signed policy"):
        read_policy(torn)
    with pytest.raises(Misuse, match="cannot be read"):
        read_policy(tmp_path / "none")
