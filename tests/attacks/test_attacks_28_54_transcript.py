"""Attack 54: every single-field change of a transcript is rejected, also when the coordinator signs again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import pytest
from privfl_keys import Label, SealingKey, SigningKey

from privfl.errors import PrivflError, Theirs, Unverified
from privfl.secagg import ABORT, Confirmations, OpenedSum, Transcript, verify_transcript
from privfl.secagg.messages import split
from privfl.secagg.reconstruct import Blame
from privfl.secagg.transcript import ReleaseStub
from tests.attacks._tools_b import headed, take, voted
from tests.harness import NOW, Harness, SeededEntropy

Path = tuple[int, ...]
FIELDS = [field.name for field in fields(Transcript)]


@dataclass(frozen=True)
class Scene:
    """One opened slot, with everything that a transcript can hold."""

    harness: Harness
    transcript: Transcript
    opened: OpenedSum

    def verify(self, transcript: Transcript, *, with_sum: bool = False) -> None:
        """Raise unless the transcript verifies."""
        verify_transcript(transcript, self.harness.authority.verify_key, self.opened if with_sum else None)


@cache
def scene(complete: bool) -> Scene:
    """A slot with an ABORT vote, a fifth release, a dropped site, a blame and evidence; or the plain complete one."""
    h = Harness.make(3 if complete else 5, entropy=SeededEntropy(54))
    h.open_epoch()
    if complete:
        _, _, transcript = h.round(complete=True)
        announcement = h.coordinator.announce(h.plan(complete=True), (2, 0))
        sent = take(h, announcement, h.ids)
    else:
        h.round((1, 0))
        announcement = h.coordinator.announce(h.plan(), (2, 0))
        sent = take(h, announcement, h.ids[1:])
    for out in sent.values():
        h.coordinator.receive(out.message, out.body)
    h.coordinator.close()
    if not complete:
        asks = h.asks()
        for member in h.ids[:4]:
            h.coordinator.receive_vote(h.sites[member].vote(asks[member], now=NOW))
        h.coordinator.receive_vote(h.sites[h.ids[4]].vote_abort(announcement))
    for member, ask in h.asks().items():
        h.coordinator.receive_release(h.sites[member].release(ask, now=NOW))
    opened, transcript = h.coordinator.finish()
    if not complete:
        pair = (transcript.headers[0].encode(), headed(h, transcript.headers[0], body=bytes(32)).encode())
        blame = Blame("member", (h.ids[0],), "a reason", ())
        transcript = replace(transcript, blames=(blame,), evidence=(pair,)).signed(h.coordinator_key)
    return Scene(h, Transcript.decode(transcript.encode()), opened)


def changed(value: Any) -> Iterator[tuple[str, Any]]:
    """Every small change of one node of a decoded tree, with what was done."""
    if isinstance(value, bool):
        yield "flipped", not value
    elif isinstance(value, int):
        yield "one more", value + 1
        yield "one less", value - 1
    elif isinstance(value, str):
        yield "text", value + "x"
        yield "text", value[1:]
    elif isinstance(value, bytes):
        for at in range(0, len(value), 32):
            yield "bit", value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        if value:
            yield "bit", value[:-1] + bytes([value[-1] ^ 128])
            yield "cut", value[:-1]
        yield "longer", value + b"\x00"
        if len(value) >= 64 and len(value) % 32 == 0:
            yield "cut", value[32:]
            yield "longer", value + value[-32:]
            yield "bit", value[32:64] + value[:32] + value[64:]
    elif isinstance(value, tuple):
        for at in range(len(value)):
            yield f"dropped {at}", value[:at] + value[at + 1 :]
            yield f"doubled {at}", value[: at + 1] + value[at:]
        for at in range(len(value) - 1):
            yield f"swapped {at}", (*value[:at], value[at + 1], value[at], *value[at + 2 :])
    else:
        assert value is None


def whole_mutants(value: tuple[Any, ...]) -> Iterator[tuple[Path, str, tuple[Any, ...]]]:
    """The whole tree with one node changed."""

    def put(tree: Any, path: Path, item: Any) -> Any:
        return item if not path else (*tree[: path[0]], put(tree[path[0]], path[1:], item), *tree[path[0] + 1 :])

    def walk(node: Any, path: Path) -> Iterator[tuple[Path, str, tuple[Any, ...]]]:
        for what, other in changed(node):
            if other != node:
                yield path, what, put(value, path, other)
        if isinstance(node, tuple):
            for at, item in enumerate(node):
                yield from walk(item, (*path, at))

    return walk(value, ())


def where(path: Path) -> str:
    """The transcript's field that a path lies in."""
    return FIELDS[path[0] - 1] if path and path[0] else "whole"


@pytest.mark.parametrize("complete", [False, True], ids=["voted", "complete"])
def test_attack_54_every_single_field_change_is_rejected(complete: bool) -> None:
    """Anyone changes any leaf, or drops, doubles or swaps any item of the published tree: always a Theirs error."""
    s = scene(complete)
    s.verify(s.transcript, with_sum=True)
    count = 0
    for path, what, tree in whole_mutants(s.transcript.to_value()):
        try:
            s.verify(Transcript.from_value(tree))
        except Theirs:
            count += 1
            continue
        raise AssertionError(f"accepted: {where(path)} {path} {what}")
    assert count > 500


def resigned(s: Scene, tree: tuple[Any, ...], path: Path) -> Transcript | None:
    """What a dishonest coordinator publishes: the changed tree, with all of its own signatures made again."""
    t = Transcript.from_value(tree)
    if where(path) == "announcement":
        key, a = s.harness.coordinator_key, t.announcement
        t = replace(t, announcement=replace(a, signature=key.sign(Label.ANNOUNCEMENT, a.h0)))
    t = t.signed(s.harness.coordinator_key)
    return None if t == s.transcript else t


def accepted_when_resigned(s: Scene) -> set[str]:
    """Which changes a dishonest coordinator can make and still be believed, by field and kind."""
    out = set()
    for path, what, tree in whole_mutants(s.transcript.to_value()):
        try:
            forged = resigned(s, tree, path)
            if forged is None:
                continue
            s.verify(forged)
        except Theirs:
            continue
        name = where(path)
        out.add(f"{name}: {what if name in ('votes', 'releases') else what.split()[0]}")
        if name == "sum_commitment":  # but whoever holds the sum and its salt is not deceived
            with pytest.raises(Unverified, match="commits"):
                s.verify(forged, with_sum=True)
        else:
            s.verify(forged, with_sum=True)
    return out


# What a dishonest coordinator chooses, because no one else signs it. Hashes of seeds and the commitment
# speak of what only it has seen; blames and evidence are its claims, to be judged by what it can show;
# of more votes and releases than t it may show any t.
FREE = {
    "seeds: bit",
    "sum_commitment: bit",
    *(f"blames: {what}" for what in ("text", "dropped", "doubled")),
    *(f"evidence: {what}" for what in ("bit", "cut", "longer", "dropped", "doubled", "swapped")),
}


def test_attack_54_coordinator_that_signs_again_changes_nothing_but_its_own_claims() -> None:
    """Every change signed again by the coordinator's key: only what it alone asserts passes, listed by name."""
    s = scene(False)
    found = accepted_when_resigned(s)
    abort = next(at for at, vote in enumerate(s.transcript.votes) if vote.choice == ABORT)
    shown = {f"votes: dropped {abort}", *(f"releases: dropped {at}" for at in range(5))}
    assert found <= FREE | shown
    assert found >= {"seeds: bit", "sum_commitment: bit", "blames: dropped", "evidence: dropped"} | shown


def test_attack_54_complete_mode_signed_again_leaves_only_claims_and_superfluous_releases() -> None:
    """Two phases, no votes: nobody can add, drop or exchange anything that a site or member signed."""
    s = scene(True)
    found = accepted_when_resigned(s)
    assert found == {"seeds: bit", "sum_commitment: bit", *(f"releases: dropped {at}" for at in range(3))}


def refused(s: Scene, **changes: Any) -> None:
    """The transcript with ``changes``, signed by the coordinator, does not verify."""
    forged = replace(s.transcript, **changes).signed(s.harness.coordinator_key)
    with pytest.raises(Unverified):
        s.verify(forged)


@pytest.mark.parametrize("complete", [False, True], ids=["voted", "complete"])
def test_attack_54_true_votes_of_other_slots_do_not_fill_a_transcript(complete: bool) -> None:
    """The coordinator adds a member's true vote of another slot or H0 (an ABORT, say) to discredit it: rejected."""
    s = scene(complete)
    h, t = s.harness, s.transcript
    # a true vote by the last member, whose place in the order is free or taken by its own
    vote = replace(scene(False).transcript.votes[0], scope=t.record.scope, member=h.ids[-1])
    rest = tuple(one for one in t.votes if one.member != h.ids[-1])
    here = {"round": t.announcement.round, "attempt": t.announcement.attempt, "h0": t.announcement.h0}
    true = voted(h, vote, choice=ABORT, complaints=b"", **here)
    s.verify(replace(t, votes=(*rest, true)).signed(h.coordinator_key))
    for other in ({"round": 1}, {"attempt": 1}, {"h0": b"\x01" * 32}):
        refused(s, votes=(*rest, voted(h, true, **other)))
    refused(s, votes=(*rest, true, true))
    refused(s, votes=(*rest, true, voted(h, true, choice=b"\x02" * 32)))
    refused(s, votes=(*rest, replace(true, signature=bytes(64))))


def test_attack_54_parts_of_two_slots_or_epochs_do_not_splice() -> None:
    """Each part exchanged for the true one of the slot or epoch before: no combination verifies."""
    h = Harness.make(5, entropy=SeededEntropy(541))
    found = []
    for epoch in (1, 2):
        h.open_epoch()
        found += [h.round((number, 0))[2] for number in ((1, 2) if epoch == 1 else (1,))]
    first, second, third = found
    for t, other in ((second, first), (third, second), (first, third)):
        s = Scene(h, t, OpenedSum(bytes(32), b""))
        s.verify(t)
        for name in ("record", "confirmations", "announcement", "headers", "votes", "releases"):
            if getattr(t, name) != getattr(other, name):
                refused(s, **{name: getattr(other, name)})


@pytest.mark.parametrize("forgery", ["another epoch's", "unsigned"])
def test_attack_54_records_with_foreign_adverts_do_not_verify_even_if_everyone_signed_on(forgery: str) -> None:
    """An advert of another epoch, or that its site never signed, in a record that all later signatures cover."""
    s = scene(False)
    h, t = s.harness, s.transcript
    advert = t.record.adverts[0]
    if forgery == "unsigned":
        false = replace(advert, key=t.record.adverts[1].key)
    else:
        false = replace(advert, scope=replace(t.record.scope, epoch=9))
        false = replace(false, signature=h.keys[false.site].sign(Label.ADVERT, false.digest))
    record = replace(t.record, adverts=(false, *t.record.adverts[1:]))
    a = replace(t.announcement, record=record.digest)
    a = replace(a, signature=h.coordinator_key.sign(Label.ANNOUNCEMENT, a.h0))
    bare = replace(t, record=record, announcement=a, headers=tuple(headed(h, one, h0=a.h0) for one in t.headers))
    choices = {t.survivors: bare.survivors, ABORT: ABORT}
    votes = tuple(voted(h, vote, h0=a.h0, choice=choices[vote.choice]) for vote in t.votes)
    releases = tuple(stubbed(h, bare, stub) for stub in t.releases)
    with pytest.raises(Unverified, match="advert"):
        s.verify(replace(bare, votes=votes, releases=releases).signed(h.coordinator_key))


def stubbed(h: Harness, t: Transcript, stub: ReleaseStub, **changes: Any) -> ReleaseStub:
    """A release's stub with ``changes``, signed by its member for the transcript's survivor set."""
    stub = replace(stub, **changes)
    parts = (t.announcement.h0, t.survivors, stub.member, stub.shares_hash, stub.proofs_hash)
    return replace(stub, signature=h.keys[stub.member].sign(Label.RELEASE, *parts))


def test_attack_54_releases_of_too_few_or_of_an_absent_site_do_not_verify() -> None:
    """Fewer than t releases cannot have opened anything; a site outside the epoch's committee has none to give."""
    h = Harness.make(5, min_survivors=4, entropy=SeededEntropy(542))
    h.open_epoch(h.ids[:4])
    _, _, t = h.round()
    s = Scene(h, t, OpenedSum(bytes(32), b""))
    s.verify(t)
    refused(s, releases=t.releases[:2])
    refused(s, releases=(*t.releases[:2], stubbed(h, t, t.releases[3], member=h.ids[4])))
    refused(s, releases=(*t.releases, stubbed(h, t, t.releases[3], member=h.ids[4])))


def test_attack_54_other_survivors_rosters_keys_or_coordinators_do_not_verify() -> None:
    """One survivor fewer, a roster of another authority, a transcript signed by somebody else, a later reply key."""
    s = scene(False)
    h, t = s.harness, s.transcript
    refused(s, headers=t.headers[1:])
    stranger = SigningKey.generate(SeededEntropy("stranger"))
    refused(s, signed_roster=h.roster.sign(stranger))
    with pytest.raises(Unverified):
        s.verify(t.signed(stranger))
    with pytest.raises(Unverified):
        s.verify(t.signed(h.keys[h.ids[0]]))
    other = SealingKey.generate(SeededEntropy("key")).public.raw
    refused(s, announcement=replace(t.announcement, reply_key=other))


def test_attack_54_errors_of_every_kind_reach_the_reader_as_unverified() -> None:
    """A rule that is broken inside (a Refused, a Malformed) is told as Unverified: one thing to catch."""
    s = scene(False)
    seen = set()
    for path, _, tree in whole_mutants(s.transcript.to_value()):
        if where(path) not in ("record", "announcement", "seeds"):
            continue
        try:
            forged = Transcript.from_value(tree)
        except PrivflError:
            continue
        try:
            s.verify(forged.signed(s.harness.coordinator_key))
        except Unverified as error:
            seen.add(type(error.__cause__).__name__)
    assert {"Refused", "Malformed"} <= seen


def test_attack_54_two_sites_that_never_confirmed_each_other_are_in_no_verified_record() -> None:
    """Both ends sign lists without the other: true signatures, yet no pair key, so the complete graph is not proven."""
    s = scene(False)
    h, t = s.harness, s.transcript
    first, second = (message.site for message in t.confirmations[:2])

    def without(message: Confirmations, other: bytes) -> Confirmations:
        at = split(message.peers).index(other) * 32
        body = replace(
            message,
            peers=message.peers[:at] + message.peers[at + 32 :],
            tags=message.tags[:at] + message.tags[at + 32 :],
        )
        return replace(body, signature=h.keys[body.site].sign(Label.CONFIRMATION, *body.binding()))

    one, two, *rest = t.confirmations
    refused(s, confirmations=(without(one, second), without(two, first), *rest))
    refused(s, confirmations=(without(one, second), two, *rest))
