"""Attacks that once succeeded against the machines or the runtime; each must stay defeated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from privfl_keys import Label, content_digest

from privfl import Federation, Logistic
from privfl.errors import Malformed, Refused, Unverified
from privfl.runtime.post import Post
from privfl.runtime.site import SiteNode
from privfl.runtime.store import MemorySiteStore
from privfl.secagg import RolledBack, SiteMachine, SlotEntropy, Upload, check_degree
from privfl.secagg import epoch as epoch_module
from privfl.secagg import site as site_module
from privfl.secagg.party import Party
from privfl.wires import BodyRef, Envelope, MemoryWire, seal_envelope
from privfl.wires.envelope import MAX_BODIES, MAX_ENVELOPE
from tests.harness import LEDGER, NOW, Harness, SeededEntropy


def test_no_site_files_contributions_under_another_name() -> None:
    """A malicious site that is quicker than its victims does not push them out of the epoch."""
    h = Harness.make(5, entropy=SeededEntropy("filed"))
    scope = h.coordinator.start_epoch()
    for site in h.ids:
        h.coordinator.receive_advert(h.sites[site].advertise(scope.epoch))
    sent = {site: h.sites[site].contribute(h.coordinator.adverts)[0] for site in h.ids}
    mallory, victim = h.ids[0], h.ids[1]
    rubbish = [replace(sent[mallory][0], sender=victim, recipient=peer) for peer in h.ids if peer != victim]
    adverts = {advert.site: advert.digest for advert in h.coordinator.adverts}
    named = [replace(one, sender_advert=adverts[victim], recipient_advert=adverts[one.recipient]) for one in rubbish]
    before = h.coordinator.dump()
    for forged in (rubbish, named, [*sent[mallory], *named]):
        with pytest.raises(Unverified):
            h.coordinator.receive_contributions(forged)
        assert h.coordinator.dump() == before
    for site in h.ids:
        h.coordinator.receive_contributions(sent[site])
        h.coordinator.receive_contributions(sent[site])
    for site in h.ids:
        h.coordinator.receive_confirmations(h.sites[site].confirm(h.coordinator.contributions_for(site))[0])
    assert h.coordinator.fix_record()[0].sites == tuple(h.ids)


def test_the_coordinator_files_contributions_of_neighbours_only() -> None:
    """Nobody fills the coordinator's store with contributions that no slot can need."""
    h = Harness.make(12, degree=6, entropy=SeededEntropy("near"))
    scope = h.coordinator.start_epoch()
    for site in h.ids:
        h.coordinator.receive_advert(h.sites[site].advertise(scope.epoch))
    adverts = {advert.site: advert.digest for advert in h.coordinator.adverts}
    sender = h.ids[0]
    one = h.sites[sender].contribute(h.coordinator.adverts)[0][0]
    near = {m.recipient for m in h.sites[h.ids[1]].contribute(h.coordinator.adverts)[0]}
    assert len(near) == 6
    for recipient in h.ids:
        bare = replace(one, recipient=recipient, recipient_advert=adverts[recipient])
        signed = replace(bare, signature=h.keys[sender].sign(Label.CONTRIBUTION, *bare.binding(), bare.sealed))
        try:
            h.coordinator.receive_contributions([signed])
        except Unverified:
            continue
    assert sum(bool(h.coordinator.contributions_for(site)) for site in h.ids) == 6


def test_a_dealer_cannot_make_others_carry_more_than_shares() -> None:
    """A sealed blob longer than the shares it should hold is refused with the whole upload."""
    h = Harness.make(5, entropy=SeededEntropy("fat"))
    h.open_epoch()
    a = h.coordinator.announce(h.plan(), (1, 0))
    site = h.ids[0]
    h.sites[site].accept(a, now=NOW, ledger_head=LEDGER)
    out = h.sites[site].upload(a, h.vectors(a)[site], now=NOW)
    blobs = (out.message.blobs[0], out.message.blobs[1] + b"\0", *out.message.blobs[2:])
    bare = replace(out.message.header, blobs=b"".join(content_digest(Label.BLOB_HASH, blob) for blob in blobs))
    header = replace(bare, signature=h.keys[site].sign(Label.HEADER, bare.digest, bare.ledger_head))
    with pytest.raises(Unverified, match="longer than its shares"):
        h.coordinator.receive(Upload(header, blobs), out.body)
    assert h.coordinator.receive(out.message, out.body)


def test_a_member_cannot_send_more_proof_than_there_are_trees() -> None:
    """The part of a release that is opened only in a dispute is bounded before it is stored."""
    h = Harness.make(5, entropy=SeededEntropy("proofs"))
    h.open_epoch()
    a = h.coordinator.announce(h.plan(), (1, 0))
    vectors = h.vectors(a)
    for site in h.ids[:4]:
        h.upload(a, site, vectors[site])
    h.coordinator.close()
    for member, ask in h.asks().items():
        h.coordinator.receive_vote(h.sites[member].vote(ask, now=NOW))
    member = h.ids[0]
    release = h.sites[member].release(h.asks()[member], now=NOW)
    with pytest.raises(Malformed, match="proofs are longer"):
        h.coordinator.receive_release(replace(release, sealed_proofs=bytes(100_000)))
    h.coordinator.receive_release(release)


def test_what_is_longer_than_an_envelope_is_not_even_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can put bytes into a box cannot make its owner decode them for minutes."""
    h = Harness.make(3, entropy=SeededEntropy("box"))
    wire = MemoryWire()
    party = h.party(h.ids[0])
    post = Post(party, wire.mailbox(party.id), h.entropy, peer_role="coordinator")

    def never(data: bytes) -> Any:
        raise AssertionError("decoded")

    wire.post(b"anyone", party.id, b"l" + bytes(MAX_ENVELOPE))
    with monkeypatch.context() as patch:
        patch.setattr(Envelope, "decode", never)
        assert post.receive(0, never) == 1
    assert post.rejected == 1


def test_a_body_of_the_wrong_size_is_not_read() -> None:
    """A peer that names a huge body does not make the receiver load it."""
    h = Harness.make(3, entropy=SeededEntropy("body"))
    wire = MemoryWire()
    party = h.party(h.ids[0])
    post = Post(party, wire.mailbox(party.id), h.entropy, peer_role="coordinator")
    huge, got = BodyRef(bytes(32), 2**34), list[Any]()

    def deliver(kind: str, count: int) -> None:
        sender = h.coordinator_key.verify_key.site_id
        bare = Envelope("test", sender, party.id, kind, bytes(16), b"", b"", (huge,) * count, bytes(64))
        wire.post(sender, party.id, seal_envelope(h.coordinator_key, bare).encode())
        post.receive(0, got.append)

    deliver("announce", 1)
    with pytest.raises(Unverified, match="another size"):
        got[0].body(size=100)
    deliver("announce+", 1)
    deliver("announce", MAX_BODIES + 1)
    assert (len(got), post.rejected) == (1, 2)


def test_a_site_that_lost_its_store_can_come_back() -> None:
    """The alarm for an old store is not for ever: once people have settled it, the site joins the next epoch."""
    h = Harness.make(5, entropy=SeededEntropy("lost"))
    h.open_epoch()
    h.round()
    lost, dump = h.ids[0], h.sites[h.ids[0]].dump()
    h.sites[lost] = SiteMachine(h.party(lost), h.rules, h.entropy)
    h.open_epoch()
    a = h.coordinator.announce(h.plan(), (1, 0))
    with pytest.raises(RolledBack, match="acknowledge") as caught:
        h.sites[lost].accept(a, now=NOW, ledger_head=LEDGER)
    head = next(head for head in a.seen if head.site == lost)
    assert caught.value.head == head
    with pytest.raises(Unverified):
        h.sites[lost].acknowledge(next(other for other in a.seen if other.site != lost))
    h.sites[lost].acknowledge(head)
    with pytest.raises(Refused, match="erased"):
        h.sites[lost].accept(a, now=NOW, ledger_head=LEDGER)
    h.coordinator.abandon()
    h.open_epoch()
    opened, expected, transcript = h.round()
    assert np.array_equal(opened, expected)
    assert lost in {header.site for header in transcript.headers}
    h.reload(lost, dump).close_epoch()
    h.sites[lost].acknowledge(head)


def test_a_site_that_confirms_with_few_silences_nobody_on_a_sparse_graph() -> None:
    """The coordinator can tell whom to leave out of the cohort so that every other site uploads."""
    h = Harness.make(16, degree=8, corrupt=3, min_survivors=11, entropy=SeededEntropy("few"))
    scope, mallory = h.coordinator.start_epoch(), h.ids[0]
    for site in h.ids:
        h.coordinator.receive_advert(h.sites[site].advertise(scope.epoch))
    for site in h.ids:
        out, _ = h.sites[site].contribute(h.coordinator.adverts)
        h.coordinator.receive_contributions(out[:1] if site == mallory else out)
    for site in h.ids:
        h.coordinator.receive_confirmations(h.sites[site].confirm(h.coordinator.contributions_for(site))[0])
    record, confirmations = h.coordinator.fix_record()
    for site in record.sites:
        h.sites[site].join(record, confirmations, now=NOW)
    assert h.coordinator.usable == tuple(h.ids[1:])
    opened, expected, _ = h.round(cohort=h.coordinator.usable)
    assert np.array_equal(opened, expected)


def test_no_site_serves_a_graph_that_is_too_sparse() -> None:
    """Degree 4 with a third corrupt leaves some honest site among corrupt neighbours in every few epochs: refused."""
    for n, corrupt, degree in ((60, 19, 4), (300, 15, 42), (300, 30, 64), (300, 99, 140), (1000, 200, 138)):
        with pytest.raises(Refused, match="authority"):
            check_degree(n, corrupt, degree)
    for n, corrupt, degree in ((60, 19, 0), (300, 15, 44), (300, 30, 66), (1000, 200, 140), (1000, 333, 0)):
        check_degree(n, corrupt, degree)
    roster = Harness.make(12, degree=6, entropy=SeededEntropy("sparse")).roster
    fed = federation()
    site = next(iter(fed._sites.values()))
    party, nothing = Party(site.key, roster), Any
    with pytest.raises(Refused, match="complete graph"):
        SiteNode(party, nothing, site.account, site.data.bound, site.store, nothing, fed._clock, fed._entropy)  # type: ignore[arg-type]


def federation() -> Federation:
    """Five sites with sixty rows each."""
    rng = np.random.default_rng(5)
    schema = {"records": 60, "columns": {"x": {"lower": 0, "upper": 1}, "ill": {"classes": [False, True]}}}
    tables = {name: pd.DataFrame({"x": rng.random(60), "ill": rng.random(60) > 0.5}) for name in "abcde"}
    return Federation.local(tables, schema=schema)


def test_false_confirmations_cost_no_honest_site_its_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator cannot see that one site's tags are rubbish; the others say so, and that site is left out."""
    fed = federation()
    bad = next(iter(fed._sites))
    honest = epoch_module.confirm

    def confirm(party: Any, *rest: Any) -> Any:
        moved, said, excluded = honest(party, *rest)
        if party.id == bad:
            said = replace(said, tags=bytes(len(said.tags)))
            said = replace(said, signature=party.key.sign(Label.CONFIRMATION, *said.binding()))
        return moved, said, excluded

    monkeypatch.setattr(epoch_module, "confirm", confirm)
    fit = fed.train(Logistic(label="ill"), epsilon=5, rounds=2, progress=False)
    assert fit.rounds == 2
    assert {len(one.record.sites) for one in fit.transcript} == {4}
    assert all(bad not in one.record.sites for one in fit.transcript)


def test_one_inconsistent_dealer_does_not_stop_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site whose shares contradict its header spoils one attempt; the next goes on without it."""
    fed = federation()
    bad = next(iter(fed._sites))
    honest = site_module._deal

    def deal(party: Any, *rest: Any) -> Any:
        with monkeypatch.context() as patch:
            if party.id == bad:
                split = site_module.shamir.split

                def twisted(*args: Any) -> Any:
                    shares = split(*args)
                    shares[:, :, 0] ^= np.uint32(1)
                    return shares

                patch.setattr(site_module.shamir, "split", twisted)
            return honest(party, *rest)

    monkeypatch.setattr(site_module, "_deal", deal)
    fit = fed.train(Logistic(label="ill"), epsilon=5, rounds=4, progress=False)
    assert fit.rounds == 3
    assert {len(one.headers) for one in fit.transcript} == {4}
    assert set(fed._coordinator.convicted) == {bad}


def test_a_site_resends_nothing_after_the_deadline() -> None:
    """What was stored but not sent before the deadline is never sent: before it the upload, after it nothing."""
    fed, asked = federation(), list[Any]()
    fed.train(Logistic(label="ill"), epsilon=5, rounds=1, progress=False, observer=lambda *told: asked.append(told[1]))
    node = next(iter(fed._sites.values())).node
    assert node is not None
    a = asked[0].transcript.announcement
    assert node._repeat(a, a.deadline) is not None
    with pytest.raises(Refused, match="deadline"):
        node._repeat(a, a.deadline + 1)


def test_a_site_with_an_old_store_stops() -> None:
    """The alarm is heard: the node answers no request any more, a vote least of all."""
    fed = federation()
    spec = Logistic(label="ill")
    fed.train(spec, epsilon=5, rounds=1, progress=False)
    site = next(iter(fed._sites.values()))
    site.store = MemorySiteStore()
    fit = fed.train(spec, epsilon=5, rounds=1, progress=False)
    assert fit.dropped == {1: (site.name,)}
    assert site.node is not None
    assert isinstance(site.node.rolled_back, RolledBack)


def test_a_replayed_source_repeats_no_noise_across_slots() -> None:
    """The same entropy twice gives other noise in another slot, so that it does not cancel between two sums."""
    first, second = (SlotEntropy(SeededEntropy("twice"), Label.NOISE, h0, b"s" * 32).draw(32) for h0 in (b"a", b"b"))
    again = SlotEntropy(SeededEntropy("twice"), Label.NOISE, b"a", b"s" * 32).draw(32)
    assert first == again != second


def test_an_announcement_far_ahead_does_not_mute_a_member() -> None:
    """A coordinator shows a member a slot in the far future: refused, and the member still votes in this one."""
    h = Harness.make(4)
    h.open_epoch()
    member = h.ids[0]
    far = h.coordinator.announce(h.plan(), (2**31, 0))
    with pytest.raises(Refused, match="ahead"):
        h.sites[member].vote_abort(far)
    h.coordinator.abandon()
    total, expected, _ = h.round((1, 0))
    assert np.array_equal(total, expected)
