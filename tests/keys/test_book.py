"""The roster book: no rollback, no fork, no forgotten revocation, no key change without proof."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from privfl_keys import (
    Equivocation,
    Identity,
    Malformed,
    Member,
    Misuse,
    Roster,
    RosterBook,
    SignedRoster,
    SigningKey,
    Unverified,
    VerifyKey,
)

NOW = 500


@pytest.fixture
def book(federation: Any) -> RosterBook:
    book = RosterBook()
    book.pin("trial", federation.authority.verify_key)
    book.accept(federation.signed(federation.first), now=NOW)
    return book


def refuses(book: RosterBook, *signed: SignedRoster, match: str, now: int = NOW) -> None:
    """The book raises, and its rosters are what they were."""
    before = book.current("trial", NOW)
    with pytest.raises(Unverified, match=match):
        book.accept(*signed, now=now)
    assert book.current("trial", NOW) is before


def test_vectors_both_good_and_bad(vectors: Any) -> None:
    """The pinned chain is accepted; the pinned rival is equivocation, the stranger's is refused."""
    case = vectors("roster")
    rosters = {
        name: SignedRoster.decode(bytes.fromhex(case[name]))
        for name in ("first", "second", "rival_second", "second_by_a_stranger")
    }
    book = RosterBook()
    book.pin("vector", VerifyKey(bytes.fromhex(case["authority"])))
    assert book.accept(rosters["first"], rosters["second"], now=1_600).version == 2
    for name in ("rival_second", "second_by_a_stranger"):
        with pytest.raises(Unverified):
            book.accept(rosters[name], now=1_600)
    assert len(book.evidence) == 1


def test_the_next_version_is_accepted_once_or_again(book: RosterBook, federation: Any) -> None:
    """Version 2 follows version 1; a resend of version 2 changes nothing."""
    second = federation.signed(federation.step(federation.first))
    assert book.accept(second, now=NOW).version == 2
    assert book.accept(second, now=NOW).version == 2
    assert book.current("trial", NOW).version == 2
    assert book.evidence == ()


def test_rollback_is_refused(book: RosterBook, federation: Any) -> None:
    """After version 2, version 1 is history, also for a book that was dumped and loaded."""
    book.accept(federation.signed(federation.step(federation.first)), now=NOW)
    for again in (book, RosterBook.load(book.dump())):
        refuses(again, federation.signed(federation.first), match="older than 2")


def test_equivocation_is_kept_as_evidence(book: RosterBook, federation: Any) -> None:
    """Two rosters of one version: refused, both kept, proof checks for anyone and survives a dump."""
    rival = federation.signed(replace(federation.first, graph_seed=b"r" * 32))
    refuses(book, rival, match="two rosters with version 1")
    refuses(book, rival, match="two rosters with version 1")
    (proof,) = RosterBook.load(book.dump()).evidence
    assert proof == Equivocation(federation.signed(federation.first), rival)
    Equivocation.decode(proof.encode()).verify(federation.authority.verify_key)


def test_nobody_is_framed_by_false_evidence(book: RosterBook, federation: Any) -> None:
    """Equal rosters, consecutive ones, or another signer's prove nothing."""
    first, second = federation.signed(federation.first), federation.signed(federation.step(federation.first))
    stranger = SigningKey.from_secret_bytes(bytes(32))
    rival = replace(federation.first, graph_seed=b"r" * 32).sign(stranger)
    for proof in (Equivocation(first, first), Equivocation(first, second), Equivocation(first, rival)):
        with pytest.raises(Unverified):
            proof.verify(federation.authority.verify_key)


def test_gaps_and_forks_are_refused(book: RosterBook, federation: Any) -> None:
    """Version 3 without 2, and a version 2 that continues another version 1."""
    second = federation.step(federation.first)
    third = federation.step(second)
    refuses(book, federation.signed(third), match="2 to 2 are missing")
    rival = federation.step(replace(federation.first, graph_seed=b"r" * 32))
    refuses(book, federation.signed(rival), match="does not continue")
    refuses(book, federation.signed(rival), federation.signed(third), match="does not continue")


def test_a_run_is_accepted_whole_or_not_at_all(book: RosterBook, federation: Any) -> None:
    """Catching up takes every missing version; intermediate ones may have expired, the last may not."""
    second = federation.step(federation.first, valid_until=1)
    third = federation.step(second)
    fourth = federation.step(third, valid_until=1)
    run = [federation.signed(roster) for roster in (second, third)]
    refuses(book, *run, federation.signed(fourth), match="expired")
    refuses(book, *reversed(run), match="missing")
    assert book.accept(*run, now=NOW).version == 3
    with pytest.raises(Misuse):
        book.accept(now=NOW)


def test_validity_is_checked_at_every_use(book: RosterBook, federation: Any) -> None:
    """Expired or not yet valid rosters are refused on arrival and when read later."""
    refuses(book, federation.signed(federation.step(federation.first, valid_from=600)), match="not valid yet")
    refuses(book, federation.signed(federation.step(federation.first, valid_until=500)), match="expired")
    with pytest.raises(Unverified, match="expired"):
        book.current("trial", 1_000)


def test_only_the_pinned_authority_counts(book: RosterBook, federation: Any) -> None:
    """Another signer, an unknown federation, another federation's roster; a pin cannot be replaced."""
    stranger = SigningKey.from_secret_bytes(bytes(32))
    refuses(book, federation.step(federation.first).sign(stranger), match="is not by")
    elsewhere = federation.signed(replace(federation.first, federation="elsewhere"))
    refuses(book, elsewhere, match="no authority is pinned")
    refuses(book, federation.signed(federation.step(federation.first)), elsewhere, match="not of 'trial'")
    with pytest.raises(Misuse, match="another authority"):
        book.pin("trial", stranger.verify_key)
    book.pin("trial", federation.authority.verify_key)
    assert book.authority("trial") == federation.authority.verify_key


def test_federations_do_not_mix(book: RosterBook, federation: Any) -> None:
    """One book, two federations, one highest version each."""
    other = replace(federation.first, federation="other")
    book.pin("other", federation.authority.verify_key)
    with pytest.raises(Unverified, match="no roster of 'other'"):
        book.current("other", NOW)
    book.accept(federation.signed(other), now=NOW)
    book.accept(federation.signed(federation.step(federation.first)), now=NOW)
    again = RosterBook.load(book.dump())
    assert [again.current(name, NOW).version for name in ("trial", "other")] == [2, 1]


def test_revocations_are_never_forgotten(book: RosterBook, federation: Any) -> None:
    """A successor with a shorter list is refused, so a revoked key cannot come back."""
    gone = federation.sites[0].site_id
    second = federation.step(federation.first, revoke=[gone])
    book.accept(federation.signed(second), now=NOW)
    third = federation.step(second)
    forgetful = replace(third, revoked=())
    back = replace(forgetful, members=federation.first.members)
    refuses(book, federation.signed(forgetful), match="forgets a revocation")
    refuses(book, federation.signed(back), match="forgets a revocation")
    assert book.accept(federation.signed(third), now=NOW).revoked == (gone,)


def test_graph_seeds_are_fresh(book: RosterBook, federation: Any) -> None:
    """Members must not be chosen after the seed is known, so it changes with every version."""
    stale = federation.step(federation.first, graph_seed=federation.first.graph_seed)
    refuses(book, federation.signed(stale), match="graph seed")


def swapped(federation: Any, key: Identity, *, revoke: bool = True, **changes: Any) -> Roster:
    """Version 2 with another key under the name of site 0."""
    old = federation.sites[0]
    members = [m for m in federation.first.members if m.name != old.name]
    members.append(Member(old.name, key.verify_key.raw, ("site",)))
    return federation.step(federation.first, members=members, revoke=[old.site_id] if revoke else [], **changes)


def test_rotation_with_proof_is_accepted(book: RosterBook, federation: Any, entropy: Any) -> None:
    """The name moves to the new key, and from there on to a third."""
    after, proof = federation.sites[0].rotate(entropy, 5)
    second = federation.step(federation.first, rotations=[proof])
    assert book.accept(federation.signed(second), now=NOW).require(after.site_id, "site") == after.verify_key
    last, proof = after.rotate(entropy, 6)
    third = federation.step(second, rotations=[proof])
    assert book.accept(federation.signed(third), now=NOW).require(last.site_id, "site") == last.verify_key
    with pytest.raises(Unverified):
        book.current("trial", NOW).member(after.site_id)


def test_rotation_without_proof_is_refused(book: RosterBook, federation: Any, entropy: Any) -> None:
    """Another key under a known name needs both signatures; the authority alone cannot move a name."""
    after, proof = federation.sites[0].rotate(entropy, 5)
    refuses(book, federation.signed(swapped(federation, after)), match="no rotation proves it")
    refuses(book, federation.signed(swapped(federation, after, revoke=False)), match="no rotation proves it")
    forged = replace(proof, rotated_at=6)
    with_forged = replace(swapped(federation, after), rotations=(forged,))
    refuses(book, federation.signed(with_forged), match="is not by")
    kept = replace(swapped(federation, after, revoke=False), rotations=(proof,))
    refuses(book, federation.signed(kept), match="not carried out")
    _, other = federation.sites[1].rotate(entropy, 5)
    refuses(
        book,
        federation.signed(replace(swapped(federation, after), rotations=(other,))),
        match="not carried out|is not in",
    )


def test_a_proof_is_for_one_name(book: RosterBook, federation: Any, entropy: Any) -> None:
    """A key that rotated as site 0 cannot be listed as somebody new on the strength of that proof."""
    after, proof = federation.sites[0].rotate(entropy, 5)
    members = [*federation.first.members, Member("fresh face", after.verify_key.raw, ("site",))]
    second = federation.step(federation.first, members=members, revoke=[federation.sites[0].site_id])
    refuses(book, federation.signed(replace(second, rotations=(proof,))), match="not carried out")


def test_names_stay_with_their_keys_over_gaps(book: RosterBook, federation: Any, entropy: Any) -> None:
    """A site that left or was revoked leaves its name behind; a stranger cannot take it up later."""
    second = federation.step(federation.first, revoke=[federation.sites[0].site_id])
    book.accept(federation.signed(second), now=NOW)
    stranger = Identity.generate("Site 0", entropy)
    third = federation.step(second, members=[*second.members, Member("Site 0", stranger.verify_key.raw, ("site",))])
    refuses(book, federation.signed(third), match="no rotation proves it")
    refuses(RosterBook.load(book.dump()), federation.signed(third), match="no rotation proves it")


def test_a_key_keeps_its_name(book: RosterBook, federation: Any) -> None:
    """One key does not reappear under a second name, also after an absence."""
    leaver = federation.sites[0]
    others = [m for m in federation.first.members if m.name != leaver.name]
    second = federation.step(federation.first, members=others)
    renamed = Member("fresh face", leaver.verify_key.raw, ("site",))
    third = federation.step(second, members=[*others, renamed])
    refuses(book, federation.signed(second), federation.signed(third), match="another name before")


def test_a_stolen_revoked_key_cannot_rotate(book: RosterBook, federation: Any, entropy: Any) -> None:
    """Whoever holds a revoked key cannot hand its name to a new one."""
    thief, proof = federation.sites[0].rotate(entropy, 5)
    second = federation.step(federation.first, revoke=[federation.sites[0].site_id])
    book.accept(federation.signed(second), now=NOW)
    member = Member("site 0", thief.verify_key.raw, ("site",))
    third = replace(federation.step(second, members=[*second.members, member]), rotations=(proof,))
    refuses(book, federation.signed(third), match="revoked before it rotated")


def test_a_new_book_may_start_late(federation: Any) -> None:
    """A site that joins at version 3 takes the authority's word for the history before."""
    third = federation.step(federation.step(federation.first))
    book = RosterBook()
    book.pin("trial", federation.authority.verify_key)
    assert book.accept(federation.signed(third), now=NOW).version == 3
    refuses(book, federation.signed(federation.first), match="older")


def test_books_survive_a_dump_and_refuse_tampering(book: RosterBook, federation: Any) -> None:
    """dump ∘ load is the identity; a flipped byte never loads as another roster."""
    raw = book.dump()
    assert RosterBook.load(raw).dump() == raw
    for at in range(0, len(raw), 7):
        mutated = bytearray(raw)
        mutated[at] ^= 1
        try:
            other = RosterBook.load(bytes(mutated))
            assert other.current("trial", NOW) == federation.first
        except (Malformed, Unverified):
            continue


def test_books_with_doubled_pages_are_refused(book: RosterBook) -> None:
    """Pages are canonical: sorted, one per federation."""
    from privfl_keys.book import _Book

    stored = _Book.decode(book.dump())
    with pytest.raises(Malformed, match="twice or out of order"):
        RosterBook.load(replace(stored, pages=stored.pages * 2).encode())
