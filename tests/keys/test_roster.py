"""One roster: its rules, its hash, its signature; broken rules blame the right side."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from privfl_keys import (
    NO_SITE_COLLUDES,
    Identity,
    Label,
    Malformed,
    Member,
    Misuse,
    Roster,
    SealingKey,
    SignedRoster,
    SigningKey,
    Unverified,
    VerifyKey,
    encode,
)


def sites(count: int, start: int = 0) -> list[Member]:
    keys = [SigningKey.from_secret_bytes(i.to_bytes(32, "big")) for i in range(start, start + count)]
    return [Member(f"site {start + i}", key.verify_key.raw, ("site",)) for i, key in enumerate(keys)]


def build(members: list[Member], **settings: Any) -> Roster:
    defaults: dict[str, Any] = {"graph_seed": bytes(32), "valid_from": 0, "valid_until": 10}
    return Roster.create("trial", members, **(defaults | settings))


def test_known_answers(vectors: Any) -> None:
    """Pins the signed format and the hash; the rival, stranger's and mutated rosters are the bad half in test_book."""
    case = vectors("roster")
    for which in ("first", "second"):
        signed = SignedRoster.decode(bytes.fromhex(case[which]))
        roster = signed.verify(VerifyKey(bytes.fromhex(case["authority"])))
        assert roster.hash.hex() == case[f"{which}_hash"]
        assert signed.encode().hex() == case[which]


def test_a_roster_is_sorted_whatever_the_order() -> None:
    """Members in any order give one roster, one hash; ids rise."""
    members = sites(6)
    roster = build(members)
    assert build(members[::-1]).hash == roster.hash
    assert list(roster.site_ids) == sorted(roster.site_ids)
    assert roster.committee_ids == roster.site_ids


@pytest.mark.parametrize(
    ("n", "c", "c_L", "t", "complete_t", "minimum"),
    [(3, 1, 1, 3, 2, 3), (4, 1, 1, 3, 2, 3), (10, 3, 3, 7, 4, 7), (64, 21, 21, 43, 22, 43)],
)
def test_defaults_follow_the_number_of_sites(n: int, c: int, c_L: int, t: int, complete_t: int, minimum: int) -> None:
    """Only members with role site count, not coordinator, officer or auditor."""
    others = [
        Member("c", sites(1, 900)[0].verify_key, ("coordinator",)),
        Member("o", sites(1, 901)[0].verify_key, ("auditor", "compliance")),
    ]
    roster = build([*sites(n), *others])
    assert (roster.corrupt_bound, roster.committee_corrupt) == (c, c_L)
    assert (roster.threshold(complete=False), roster.threshold(complete=True)) == (t, complete_t)
    assert roster.default_min_survivors == minimum
    assert [m.name for m in roster.holding("coordinator")] == ["c"]


def test_no_collusion_has_to_be_said_by_name() -> None:
    """c = 0 needs the words, the words stay in the roster, and they fit nothing but c = 0."""
    with pytest.raises(Misuse, match=NO_SITE_COLLUDES):
        build(sites(2))
    with pytest.raises(Misuse, match=NO_SITE_COLLUDES):
        build(sites(4), corrupt_bound=0)
    roster = build(sites(2), corrupt_bound=NO_SITE_COLLUDES)
    assert (roster.corrupt_bound, roster.assumption, roster.threshold(complete=True)) == (0, NO_SITE_COLLUDES, 2)
    assert NO_SITE_COLLUDES.encode() in roster.encode()
    for change in ({"assumption": ""}, {"assumption": "trust us"}):
        with pytest.raises(Misuse):
            replace(roster, **change)  # type: ignore[arg-type]
    with pytest.raises(Misuse):
        replace(build(sites(4)), assumption=NO_SITE_COLLUDES)


def test_the_bound_leaves_two_honest_sites() -> None:
    """c + 2 ≤ N, for any way of asking; never negative."""
    assert build(sites(5), corrupt_bound=3).threshold(complete=False) == 5
    for n, c in ((5, 4), (3, 2), (4, 3), (5, -1)):
        with pytest.raises(Misuse, match="fewer than two honest"):
            build(sites(n), corrupt_bound=c)


def test_committees_of_large_rosters() -> None:
    """Up to 64 everyone sits; above, the authority names the seats and c_L defaults to ⌊(L − 1)/3⌋."""
    members = sites(65)
    ids = [member.site_id for member in members]
    with pytest.raises(Misuse, match="committee"):
        build(members)
    roster = build(members, committee=ids[:20])
    assert list(roster.committee_ids) == sorted(ids[:20])
    assert (roster.committee_size, roster.committee_corrupt, roster.threshold(complete=False)) == (20, 6, 14)
    with pytest.raises(Misuse, match="stays empty"):
        build(members[:64], committee=ids[:20])
    for seats in (ids[:20] + ids[:1], [*ids[:19], bytes(32)], ids[:3]):
        with pytest.raises(Misuse):
            build(members, committee=seats)
    for c_L in (0, 20, 22):
        with pytest.raises(Misuse):
            build(members, committee=ids[:20], committee_corrupt=c_L)


def test_sybils_are_refused() -> None:
    """One key under two names, one name on two keys, also in another case, and a revoked key."""
    members = sites(4)
    twin = Member("twin", members[0].verify_key, ("site",))
    shouted = Member("SITE 0", sites(1, 50)[0].verify_key, ("site",))
    for bad in ([*members, twin], [*members, shouted], [*members, members[0]]):
        with pytest.raises(Misuse):
            build(bad)
    with pytest.raises(Misuse, match="revoked"):
        build(members, revoked=[members[0].site_id])


@pytest.mark.parametrize(
    "change",
    [
        {"valid_until": 0},
        {"valid_from": 10},
        {"version": 2},
        {"previous": bytes([1]) * 32},
        {"federation": " "},
        {"committee_corrupt": 0},
        {"corrupt_bound": 2},
        {"revoked": (b"b" * 32, b"a" * 32)},
        {"revoked": (b"a" * 32, b"a" * 32)},
    ],
)
def test_broken_rules_blame_the_right_side(change: dict[str, Any]) -> None:
    """Building such a roster is Misuse; receiving the same, in canonical bytes, is Unverified."""
    roster = build(sites(4))
    with pytest.raises(Misuse):
        replace(roster, **change)
    names = [field.name for field in fields(Roster)]
    value = list(roster.to_value())
    for name, content in change.items():
        value[1 + names.index(name)] = content
    with pytest.raises(Unverified, match="refused"):
        Roster.decode(encode(tuple(value)))


def test_received_members_out_of_order_are_refused() -> None:
    """The order of members is canonical, so one membership has one hash."""
    roster = build(sites(4))
    value = list(roster.to_value())
    value[3] = tuple(reversed(value[3]))  # type: ignore[arg-type]
    with pytest.raises(Unverified, match="sorted"):
        Roster.decode(encode(tuple(value)))


def test_unsound_member_keys_are_refused() -> None:
    """A small-order identity or sealing key cannot be enrolled, and neither decodes."""
    with pytest.raises(Unverified):
        Member("weak", b"\x01" + bytes(31), ("site",))
    good = Member("auditor", sites(1)[0].verify_key, ("auditor",), SealingKey(bytes(96)).public.raw)
    assert Member.decode(good.encode()) == good
    with pytest.raises(Unverified):
        replace(good, sealing_key=good.sealing_key[:1184] + bytes(32))  # type: ignore[index]
    with pytest.raises(Misuse):
        replace(good, roles=("site",))


def test_lookups_raise_for_strangers(federation: Any) -> None:
    """Unknown and revoked ids, and members without the role, are Unverified by name."""
    roster, site = federation.first, federation.sites[0]
    assert roster.require(site.site_id, "site") == site.verify_key
    with pytest.raises(Unverified, match="role coordinator"):
        roster.require(site.site_id, "coordinator")
    with pytest.raises(Unverified, match="is not in"):
        roster.member(bytes(32))
    after = federation.step(roster, revoke=[site.site_id])
    with pytest.raises(Unverified, match="was revoked in"):
        after.require(site.site_id, "site")


def test_validity_is_half_open() -> None:
    """valid_from is included, valid_until is not; the message says which side was missed."""
    roster = build(sites(4), valid_from=5, valid_until=10)
    for now in (5, 9):
        roster.check_validity(now)
    with pytest.raises(Unverified, match="not valid yet"):
        roster.check_validity(4)
    with pytest.raises(Unverified, match="expired"):
        roster.check_validity(10)


def test_only_the_authority_signs(federation: Any) -> None:
    """Another key, another label, a changed roster or an authority among the members do not verify."""
    signed = federation.signed(federation.first)
    authority = federation.authority.verify_key
    assert signed.verify(authority) is signed.roster
    with pytest.raises(Unverified):
        signed.verify(federation.coordinator.verify_key)
    other = replace(federation.first, graph_seed=bytes(32))
    forged = federation.authority.sign(Label.ROSTER, other.hash)
    for bad in (SignedRoster(other, signed.signature), SignedRoster(other, forged)):
        with pytest.raises(Unverified):
            bad.verify(authority)


def test_the_authority_is_no_member() -> None:
    """Refused when signing, and when such a roster arrives all the same."""
    authority = SigningKey.from_secret_bytes((0).to_bytes(32, "big"))
    roster = build(sites(4))
    with pytest.raises(Misuse, match="offline"):
        roster.sign(authority)
    with pytest.raises(Unverified, match="own authority"):
        SignedRoster(roster, authority.sign(Label.ROSTER_SIGNED, roster.hash)).verify(authority.verify_key)


@pytest.mark.parametrize("change", [{"valid_until": 2**64}, {"graph_seed": bytes(31)}, {"valid_from": True}])
def test_nothing_is_signed_that_no_site_could_load(change: dict[str, Any]) -> None:
    """Fields outside their bounds or of a near type are found before the signature."""
    with pytest.raises(Misuse, match="roster"):
        replace(build(sites(4)), **change).sign(SigningKey.from_secret_bytes(b"a" * 32))


def test_succession_keeps_what_must_stay(federation: Any, entropy: Any) -> None:
    """The next version counts up, points back, accumulates revocations and renews bounds."""
    first, gone = federation.first, federation.sites[1]
    after, proof = federation.sites[0].rotate(entropy, 5)
    second = federation.step(first, rotations=[proof], revoke=[gone.site_id])
    assert (second.version, second.previous) == (2, first.hash)
    assert set(second.revoked) == {gone.site_id, federation.sites[0].site_id}
    assert second.member(after.site_id).name == "site 0"
    assert (len(second.site_ids), second.corrupt_bound) == (4, 1)
    new = Identity.generate("site 9", entropy)
    third = federation.step(second, members=[*second.members, Member("site 9", new.verify_key.raw, ("site",))])
    assert set(third.revoked) == set(second.revoked)
    with pytest.raises(Misuse, match="no member"):
        federation.step(first, revoke=[bytes(32)])
    with pytest.raises(Unverified):
        federation.step(first, rotations=[replace(proof, rotated_at=6)])


def test_other_records_are_malformed() -> None:
    """A roster's bytes are no member's, and the reverse."""
    roster = build(sites(4))
    with pytest.raises(Malformed):
        Member.decode(roster.encode())
    with pytest.raises(Malformed):
        SignedRoster.decode(roster.encode())
