"""Attacks by damage and absence: 19 malformed and swapped shares, 23 disorder and lying stores, 24 dropout."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from privfl_keys import Label, SealingPublicKey

from privfl.errors import Malformed, Misuse, PrivflError, Refused, Theirs, Unverified
from privfl.secagg import Release, Upload, verify_transcript
from privfl.secagg.committee import SHARE_BYTES, _seal_release
from privfl.secagg.coordinator_machine import release_name, shelf_name
from privfl.secagg.messages import Announcement
from privfl.secagg.site import blob_hash, blob_info
from tests.attacks._tools_a import Slot, forged, ready, refused, reply_key, resigned
from tests.harness import LEDGER, NOW, Harness, MemoryShelf

Vectors = dict[bytes, npt.NDArray[np.int64]]


def collected(h: Harness, slot: Slot) -> None:
    """The honest coordinator takes in what the sites sent, and fixes U."""
    for out in slot.out.values():
        h.coordinator.receive(out.message, out.body)
    h.coordinator.close()


def certified(h: Harness, slot: Slot) -> None:
    """And gathers every vote."""
    collected(h, slot)
    for member, ask in h.asks().items():
        h.coordinator.receive_vote(h.sites[member].vote(ask, now=NOW))


# -- 19 -----------------------------------------------------------------------------------------------


def redealt(slot: Slot, dealer: bytes, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """A colluding dealer sends other blobs, and signs them."""
    blobs = tuple(change(list(slot.out[dealer].message.blobs)))
    header = slot.out[dealer].message.header
    header = resigned(slot.h, header, blobs=b"".join(blob_hash(blob) for blob in blobs))
    slot.out[dealer] = slot.out[dealer]._replace(message=Upload(header, blobs))


def resealed(slot: Slot, dealer: bytes, plain: bytes) -> Callable[[list[bytes]], list[bytes]]:
    """Blob 0 is replaced by ``plain``, properly sealed to member 0."""
    record, member = slot.h.coordinator.record, slot.h.coordinator.record.members[0]
    advert = next(advert for advert in record.adverts if advert.site == member)
    info = blob_info(slot.a.h0, dealer, member, 1, advert.digest)
    return lambda blobs: [SealingPublicKey(advert.key).seal(plain, Label.BLOB, *info), *blobs[1:]]


@pytest.mark.parametrize("kind", ["swapped", "truncated", "empty", "random", "short", "off root", "above p"])
def test_attack_19_malformed_shares_of_a_dealer(kind: str) -> None:
    """A dealer swaps two members' blobs, truncates one, or seals shares of another size, off its root or above p:
    the member complains, releases no share of it, t others open the exact sum, and no member is named.
    """
    h = ready(7)
    slot = Slot.run(h)
    dealer, count = h.ids[6], 7
    changes: dict[str, Callable[[list[bytes]], list[bytes]]] = {
        "swapped": lambda blobs: [blobs[1], blobs[0], *blobs[2:]],
        "truncated": lambda blobs: [blobs[0][:-1], *blobs[1:]],
        "empty": lambda blobs: [b"", *blobs[1:]],
        "random": lambda blobs: [bytes(len(blobs[0])), *blobs[1:]],
        "short": resealed(slot, dealer, bytes(32 + (count - 1) * SHARE_BYTES)),
        "off root": resealed(slot, dealer, bytes(32 + count * SHARE_BYTES)),
        "above p": resealed(slot, dealer, b"\xff" * (32 + count * SHARE_BYTES)),
    }
    redealt(slot, dealer, changes[kind])
    collected(h, slot)
    victims = set(h.ids[:2] if kind == "swapped" else h.ids[:1])
    for member, ask in h.asks().items():
        vote = h.sites[member].vote(ask, now=NOW)
        assert vote.complaints == (dealer if member in victims else b"")
        h.coordinator.receive_vote(vote)
    for member, ask in h.asks().items():
        h.coordinator.receive_release(h.sites[member].release(ask, now=NOW))
    opened, transcript = h.coordinator.finish()
    assert np.array_equal(opened.array(), sum(slot.vectors.values()))
    assert all(blame.kind == "dealer" and blame.sites == (dealer,) for blame in transcript.blames)


def test_attack_19_a_blob_longer_than_its_shares_is_not_carried() -> None:
    """A dealer hides other data behind its shares: the coordinator does not take it, a member that is shown it
    complains.
    """
    slot = Slot.run(ready(4))
    h, dealer = slot.h, slot.h.ids[3]
    redealt(slot, dealer, resealed(slot, dealer, bytes(33 + 4 * SHARE_BYTES)))
    out = slot.out[dealer]
    refused(h.coordinator, Unverified, "longer than", h.coordinator.receive, out.message, out.body)
    assert [slot.vote(member, h.ids).complaints for member in h.ids] == [dealer, b"", b"", b""]


def lying(slot: Slot, honest: Release, change: Callable[[bytearray], bytes | bytearray]) -> Release:
    """A colluding member changes the plaintext of its release, and signs and seals it again."""
    a, member = slot.a, honest.member
    info = (a.h0, honest.survivors, member)
    key = reply_key(slot.h)
    plain = key.open(honest.sealed_shares, Label.RELEASE_SEAL, *info, "shares")
    proofs = key.open(honest.sealed_proofs, Label.RELEASE_SEAL, *info, "proofs")
    changed = bytes(change(bytearray(plain)))
    return _seal_release(slot.h.party(member), a, honest.survivors, changed, proofs)


@pytest.mark.parametrize("kind", ["swapped rows", "bit", "above p", "salt", "all zero"])
def test_attack_19_malformed_shares_of_a_member(kind: str) -> None:
    """A member swaps, flips, overflows or blanks shares in its release: it is named, its shares are left out, and the
    sum is exact with another member's.
    """
    h = ready(7)
    slot = Slot.run(h, sites=h.ids[:6])
    certified(h, slot)
    start = 6 * 33

    def change(plain: bytearray) -> bytearray:
        one, two = slice(start, start + SHARE_BYTES), slice(start + SHARE_BYTES, start + 2 * SHARE_BYTES)
        if kind == "swapped rows":
            plain[one], plain[two] = plain[two], plain[one]
        elif kind == "bit":
            plain[start] ^= 1
        elif kind == "above p":
            plain[start : start + 4] = b"\xff\xff\xff\xff"
        elif kind == "salt":  # a wrong share as well, or the salt is never looked at
            plain[6] ^= 1
            plain[start] ^= 1
        else:
            plain[start:] = bytes(len(plain) - start)
        return plain

    asks = h.asks()
    liar = h.ids[0]
    h.coordinator.receive_release(lying(slot, h.sites[liar].release(asks[liar], now=NOW), change))
    for member in h.ids[1:]:
        h.coordinator.receive_release(h.sites[member].release(asks[member], now=NOW))
    opened, transcript = h.coordinator.finish()
    inside = h.ids[:6]
    assert np.array_equal(opened.array(), sum(slot.vectors[site] for site in inside))
    assert [(blame.kind, blame.sites) for blame in transcript.blames] == [("member", (liar,))]


def test_attack_19_truncated_or_misdirected_releases_are_not_taken() -> None:
    """Releases of another size, with presence bytes other than 0 and 1, unsigned or resealed for another member."""
    h = ready(5)
    slot = Slot.run(h)
    certified(h, slot)
    asks = h.asks()
    member, other = h.ids[0], h.ids[1]
    good = h.sites[member].release(asks[member], now=NOW)
    bad = [
        lying(slot, good, lambda plain: plain[:-1]),
        lying(slot, good, lambda plain: b""),
        lying(slot, good, lambda plain: plain + b"\0" * SHARE_BYTES),
        lying(slot, good, lambda plain: b"\x02" + plain[1:]),
        replace(good, signature=bytes(64)),
        replace(good, member=other),
        replace(good, sealed_shares=good.sealed_shares[:-1]),
        replace(good, shares_hash=bytes(32)),
    ]
    stranger = replace(good, member=h.coordinator_key.verify_key.site_id)
    for message in (*bad, stranger):
        refused(h.coordinator, Theirs, None, h.coordinator.receive_release, message)
    with pytest.raises(Malformed):
        Release.decode(good.encode()[:-1])
    assert not h.coordinator.slot.releases


def test_attack_19_the_coordinator_swaps_or_withholds_blobs() -> None:
    """The coordinator hands a member other bytes than the dealer's header names, to make it accuse the dealer: the
    member refuses and complains about nobody.
    """
    slot = Slot.run(ready(5))
    h, member = slot.h, slot.h.ids[0]
    ask = slot.ask(member, h.ids)
    for blobs in (ask.blobs[::-1], (*ask.blobs[:-1], b""), (*ask.blobs[:-1], bytes(len(ask.blobs[-1])))):
        refused(h.sites[member], Refused, "send the right", h.sites[member].vote, replace(ask, blobs=blobs), now=NOW)
    refused(h.sites[member], Unverified, "one blob", h.sites[member].vote, replace(ask, blobs=ask.blobs[:-1]), now=NOW)
    assert h.sites[member].vote(ask, now=NOW).complaints == b""


# -- 23 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_attack_23_reordered_duplicated_early_and_late_messages(seed: int) -> None:
    """Every message of a slot comes twice, in any order within its phase, and once in every wrong phase: what comes
    at the wrong time is refused without a trace, and the sum is exact.
    """
    rng = random.Random(seed)
    h = ready(5)
    slot = Slot.run(h)
    outs = list(slot.out.values()) * 2
    votes_early = slot.votes(h.ids, h.ids)
    releases_early = [slot.release(member, h.ids, votes_early) for member in h.ids]
    rng.shuffle(outs)
    for vote in votes_early:
        refused(h.coordinator, Refused, "vote", h.coordinator.receive_vote, vote)
    for out in outs:
        h.coordinator.receive(out.message, out.body)
        if rng.random() < 0.3:
            h.reload_coordinator()
    refused(h.coordinator, Refused, "finish", h.coordinator.finish)
    h.coordinator.close()
    refused(h.coordinator, Refused, "close", h.coordinator.close)
    votes = list(votes_early) * 2
    rng.shuffle(votes)
    refused(h.coordinator, Refused, "release", h.coordinator.receive_release, releases_early[0])
    for vote in votes:
        h.coordinator.receive_vote(vote)
    releases = releases_early * 2
    rng.shuffle(releases)
    for release in releases:
        h.coordinator.receive_release(release)
    opened, transcript = h.coordinator.finish()
    assert np.array_equal(opened.array(), sum(slot.vectors.values()))
    assert verify_transcript(transcript, h.authority.verify_key).votes == 5
    for out in outs[:2]:
        assert not h.coordinator.receive(out.message, out.body)
    for call in (h.coordinator.close, h.coordinator.finish, h.coordinator.abandon):
        refused(h.coordinator, Refused, None, call)
    refused(h.coordinator, Refused, "release", h.coordinator.receive_release, releases[0])


def test_attack_23_steps_of_the_epoch_out_of_order() -> None:
    """A site is asked for E1, E2, the record or a slot before its turn, or twice: refused, state unchanged."""
    h = Harness.make(4)
    site = h.ids[0]
    machine = h.sites[site]
    refused(machine, Refused, "no epoch", machine.contribute, ())
    refused(machine, Refused, "no epoch", machine.confirm, ())
    adverts = [h.sites[one].advertise(1) for one in h.ids]
    assert machine.advertise(1).encode() == adverts[0].encode()  # asked again, it repeats the one advert
    refused(machine, Refused, "confirm", machine.confirm, ())
    machine.contribute(adverts)
    refused(machine, Refused, "contribute", machine.contribute, adverts)
    refused(machine, Refused, "does not follow", machine.advertise, 1)
    ready_one = ready(4)
    a = ready_one.coordinator.announce(ready_one.plan(), (1, 0))
    refused(machine, Refused, "not active", machine.accept, a, now=NOW, ledger_head=LEDGER)
    refused(machine, Refused, "not active", machine.vote_abort, a)
    machine.close_epoch()
    refused(machine, Refused, "close", machine.close_epoch)


class FailingShelf(MemoryShelf):
    """A store that fails on the n-th write from now."""

    left = -1

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Store a copy, or fail."""
        self.left -= 1
        if self.left == 0:
            raise OSError("disk full")
        super().put(name, data)


@pytest.mark.parametrize("at", [1, 2, 4])
def test_attack_23_a_store_that_fails_while_an_upload_is_taken_in(at: int) -> None:
    """The disk is full at the body or a blob of one upload; the site sends it again: it counts once."""
    h = Harness.make(4)
    h.shelf = h.coordinator._shelf = shelf = FailingShelf()
    h.open_epoch()
    slot = Slot.run(h)
    for site, out in slot.out.items():
        if site == h.ids[2]:
            shelf.left = at
            refused_by_disk(h, out.message, out.body)
        h.coordinator.receive(out.message, out.body)
    h.coordinator.close()
    assert np.array_equal(h.vote_and_release()[0].array(), sum(slot.vectors.values()))


def refused_by_disk(h: Harness, message: Upload, body: bytes) -> None:
    """The upload is not taken in, and the state does not say so."""
    before = h.coordinator.dump()
    with pytest.raises(OSError, match="disk full"):
        h.coordinator.receive(message, body)
    assert h.coordinator.dump() == before


def disputed(slot: Slot, one: bytes, other: bytes) -> None:
    """A corrupt site signs another commitment to the seed of one pair."""
    header = slot.out[one].message.header
    at = 32 * (1 + [header.neighbours[i : i + 32] for i in range(0, len(header.neighbours), 32)].index(other))
    commits = header.commits[:at] + b"\x55" * 32 + header.commits[at + 32 :]
    slot.out[one] = slot.out[one]._replace(
        message=Upload(resigned(slot.h, header, commits=commits), slot.out[one].message.blobs)
    )


@pytest.mark.parametrize("restart", [False, True])
def test_attack_23_overwritten_bodies(restart: bool) -> None:
    """The store returns another body for a site that must be taken out of the sum again, or that is read back after a
    restart: noticed by its hash, nothing is half subtracted, and with the right bytes back the sum is exact.
    """
    h = ready(7)
    slot = Slot.run(h)
    disputed(slot, h.ids[1], h.ids[4])  # both fall out of U: two bodies are subtracted
    for out in slot.out.values():
        h.coordinator.receive(out.message, out.body)
    if restart:
        h.reload_coordinator()
    name = f"{shelf_name(slot.out[h.ids[4]].message.header)}/body"
    for wrong in (h.shelf[f"{shelf_name(slot.out[h.ids[2]].message.header)}/body"], b"", b"\0" * 32):
        right, h.shelf[name] = h.shelf[name], wrong
        for _ in range(2):
            refused(h.coordinator, Unverified, "not the one", h.coordinator.close)
        h.shelf[name] = right
    right = h.shelf.pop(name)
    refused(h.coordinator, Misuse, "lacks", h.coordinator.close)
    h.shelf[name] = right
    assert h.coordinator.close() == (h.ids[1], h.ids[4])
    inside = [site for site in h.ids if site not in (h.ids[1], h.ids[4])]
    opened, transcript = h.vote_and_release()
    assert np.array_equal(opened.array(), sum(slot.vectors[site] for site in inside))
    assert [blame.kind for blame in transcript.blames] == ["pair"]


def test_attack_23_overwritten_releases_and_a_store_that_fails_at_the_end() -> None:
    """The store swaps two members' releases, loses one of the first t, or one beyond them: never another sum."""
    h = ready(5)
    slot = Slot.run(h)
    certified(h, slot)
    asks = h.asks()
    for member in h.ids:
        h.coordinator.receive_release(h.sites[member].release(asks[member], now=NOW))
    names = [release_name(slot.a, note) for note in h.coordinator.slot.releases]
    kept = dict(h.shelf)
    h.shelf[names[0]], h.shelf[names[1]] = kept[names[1]], kept[names[0]]
    refused(h.coordinator, Unverified, "another release", h.coordinator.finish)
    h.shelf.update(kept)
    for name in (names[0], names[4]):  # the last one is read only after the sum is unmasked
        del h.shelf[name]
        refused(h.coordinator, Misuse, "lacks", h.coordinator.finish)
        h.shelf[name] = kept[name]
    assert np.array_equal(h.coordinator.finish()[0].array(), sum(slot.vectors.values()))


def test_attack_23_damaged_bodies_on_the_wire() -> None:
    """A body is truncated, extended, or exchanged on its way: not added; sent again it is, once."""
    h = ready(4)
    slot = Slot.run(h)
    for site, out in slot.out.items():
        other = slot.out[next(one for one in h.ids if one != site)].body
        for body in (out.body[:-1], out.body + b"\0", b"", other, out.body[::-1]):
            refused(h.coordinator, PrivflError, None, h.coordinator.receive, out.message, body)
        assert h.coordinator.receive(out.message, out.body)
        assert not h.coordinator.receive(out.message, out.body)
    h.coordinator.close()
    assert np.array_equal(h.vote_and_release()[0].array(), sum(slot.vectors.values()))


# -- 24 -----------------------------------------------------------------------------------------------

STAGES = ("advert", "contribution", "confirmation", "join", "accept", "upload", "vote", "release")


def run_with_dropout(h: Harness, stage: str, gone: set[bytes]) -> tuple[npt.NDArray[np.int64], Vectors, Announcement]:
    """One epoch and slot in which the ``gone`` sites fall silent at ``stage``, for good."""
    here = set(h.ids)

    def alive(now: str) -> list[bytes]:
        nonlocal here
        if now == stage:
            here -= gone
        return sorted(here)

    c = h.coordinator
    scope = c.start_epoch()
    for site in alive("advert"):
        c.receive_advert(h.sites[site].advertise(scope.epoch))
    for site in alive("contribution"):
        c.receive_contributions(h.sites[site].contribute(c.adverts)[0])
    for site in alive("confirmation"):
        c.receive_confirmations(h.sites[site].confirm(c.contributions_for(site))[0])
    record, confirmations = c.fix_record()
    for site in alive("join"):
        h.sites[site].join(record, confirmations, now=NOW)
    a = c.announce(h.plan(), (1, 0))
    vectors = h.vectors(a)
    for site in alive("accept"):
        h.sites[site].accept(a, now=NOW, ledger_head=LEDGER)
    for site in alive("upload"):
        out = h.sites[site].upload(a, vectors[site], now=NOW)
        c.receive(out.message, out.body)
    c.close()
    for member in alive("vote"):
        c.receive_vote(h.sites[member].vote(c.ask(member), now=NOW))
    for member in alive("release"):
        c.receive_release(h.sites[member].release(c.ask(member), now=NOW))
    opened, transcript = c.finish()
    verify_transcript(transcript, h.authority.verify_key, opened)
    return opened.array(), {header.site: vectors[header.site] for header in transcript.headers}, a


@pytest.mark.parametrize("stage", STAGES)
def test_attack_24_dropout_at_every_stage(stage: str) -> None:
    """Two of seven sites (c) die at each stage in turn: the others finish with the exact sum over whoever uploaded."""
    h = Harness.make(7)
    gone = {h.ids[0], h.ids[5]}
    total, inside, a = run_with_dropout(h, stage, gone)
    early = STAGES.index(stage) < STAGES.index("vote")
    assert set(inside) == (set(h.ids) - gone if early else set(h.ids))
    assert (len(a.sites) == 5) is (stage in STAGES[:3])
    assert np.array_equal(total, sum(inside.values()))


@pytest.mark.parametrize("stage", ["upload", "vote", "release"])
def test_attack_24_one_more_dropout_stops_the_slot_and_opens_nothing(stage: str) -> None:
    """Three of seven die: there is no sum, and no weaker one either."""
    h = Harness.make(7)
    with pytest.raises(PrivflError):
        run_with_dropout(h, stage, {h.ids[0], h.ids[3], h.ids[5]})
    assert h.coordinator.slot.stage != "done"


def test_attack_24_a_site_that_dies_between_accept_and_send_is_silent_and_returns() -> None:
    """A site crashes after used(H0): it sends nothing in this slot, still votes, and takes part in the next."""
    h = ready(4)
    a = h.coordinator.announce(h.plan(), (1, 0))
    vectors, dead = h.vectors(a), h.ids[0]
    h.sites[dead].accept(a, now=NOW, ledger_head=LEDGER)
    back = h.reload(dead)
    refused(back, Refused, "silent", back.upload, a, vectors[dead], now=NOW)
    for site in h.ids[1:]:
        h.upload(a, site, vectors[site])
    h.coordinator.close()
    opened, _ = h.vote_and_release()
    assert np.array_equal(opened.array(), sum(vectors[site] for site in h.ids[1:]))
    assert back.censored == ()
    total, expected, transcript = h.round((2, 0))
    assert np.array_equal(total, expected)
    assert len(transcript.headers) == 4


def test_attack_24_one_site_cannot_stop_the_epoch_of_the_others() -> None:
    """A corrupt site signs confirmations that no one can cut into tags: it is left out, the others go on."""
    h = Harness.make(5)
    c = h.coordinator
    scope = c.start_epoch()
    for site in h.ids:
        c.receive_advert(h.sites[site].advertise(scope.epoch))
    for site in h.ids:
        c.receive_contributions(h.sites[site].contribute(c.adverts)[0])
    corrupt = h.ids[2]
    good = {site: h.sites[site].confirm(c.contributions_for(site))[0] for site in h.ids}
    bent = replace(good[corrupt], peers=good[corrupt].peers + b"x", tags=good[corrupt].tags + b"x")
    bent = replace(bent, signature=h.keys[corrupt].sign(Label.CONFIRMATION, *bent.binding()))
    refused(c, Theirs, None, c.receive_confirmations, bent)
    for site in h.ids:
        if site != corrupt:
            c.receive_confirmations(good[site])
    record, confirmations = c.fix_record()
    assert corrupt not in record.sites
    for site in record.sites:  # a coordinator that passes it on anyway stops nobody
        excluded = h.sites[site].join(record, (*confirmations, bent), now=NOW)
        assert [one for one, _ in excluded] == [corrupt]
    assert forged(h, h.coordinator.announce(h.plan(), (1, 0))).threshold == record.threshold
