"""Attack 25: looking for secrets and data in everything that is sent, printed, raised or left behind."""

from __future__ import annotations

import base64
import copy
import logging
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from privfl.codec import Record
from privfl.errors import PrivflError
from privfl.ring import pack, to_words
from privfl.secagg import site as site_module
from privfl.secagg.committee import open_blobs
from privfl.secagg.coordinator_machine import CoordinatorWhole
from privfl.secagg.slot import ring_of
from tests.attacks._tools_a import Slot, forged, pair_keys, ready, reply_key, signed_vote, state_of
from tests.harness import LEDGER, NOW, Harness

VECTOR_SEED = 12345


def forms(secret: bytes) -> Iterator[bytes]:
    """A secret as it might be written: raw, hex, base64 at each alignment, repr of bytes, decimal either way round."""
    yield secret
    yield secret[::-1]
    for text in (secret.hex(), secret[::-1].hex()):
        yield text.encode()
        yield text.upper().encode()
    for skip in range(3):
        encoded = base64.b64encode(bytes(skip) + secret)[4 if skip else 0 :]
        yield encoded.rstrip(b"=")[:-1]
        yield encoded.replace(b"+", b"-").replace(b"/", b"_").rstrip(b"=")[:-1]
    yield repr(secret)[2:-1].encode()
    yield repr(list(secret))[1:-1].encode()
    for order in ("little", "big"):
        yield str(int.from_bytes(secret, order)).encode()


@dataclass
class Watch:
    """Gathers secrets as the machines make them, and everything that leaves a machine."""

    secrets: dict[str, bytes] = field(default_factory=dict)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    printed: list[tuple[str, bytes]] = field(default_factory=list)

    def keep(self, name: str, secret: bytes) -> None:
        """Remember a secret of at least 12 bytes: shorter ones occur by chance."""
        assert len(secret) >= 12
        self.secrets[f"{name} {len(self.secrets)}"] = bytes(secret)

    def message(self, name: str, *records: Any) -> None:
        """A message on the wire, and its repr in a log."""
        for one in records:
            self.sent.append((name, one.encode() if isinstance(one, Record) else bytes(one)))
            self.show(name, one)

    def show(self, name: str, thing: Any) -> None:
        """What a log line, an exception or an inspecting human would print of ``thing``."""
        texts = [f"{thing}", f"{thing!r}"]
        if isinstance(thing, BaseException):
            texts += traceback.format_exception(thing)
            texts += [repr(thing.args), repr(vars(thing))]
        self.printed.extend((name, text.encode()) for text in texts)

    def found(self, where: Iterable[tuple[str, bytes]]) -> list[tuple[str, str]]:
        """Every (secret, place) such that some form of the secret occurs there."""
        places = list(where)
        blob = b"\0|\0".join(data for _, data in places)
        hits = []
        for name, secret in self.secrets.items():
            for form in forms(secret):
                if len(form) >= 12 and form in blob:
                    hits += [(name, place) for place, data in places if form in data]
        return hits


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A watch to which the machines' seeds are reported as they are derived."""
    seen = Watch()
    make: Callable[..., Any] = site_module._Seeds.make

    def spied(h0: bytes, own: bytes, near: Any, entropy: Any) -> Any:
        seeds = make(h0, own, near, entropy)
        for secret in seeds.values:
            seen.keep("seed", secret)
        for secret in (*seeds.plus, *seeds.minus):
            seen.keep("mask key", secret)
        for _, key in near:
            seen.keep("pair key", key)
        seen.show("seeds", seeds)
        return seeds

    monkeypatch.setattr(site_module._Seeds, "make", staticmethod(spied))
    return seen


class SpyEntropy:
    """The system's entropy for a site, every draw of which is a secret."""

    def __init__(self, watch: Watch, inner: Any) -> None:
        self.watch, self.inner = watch, inner

    def draw(self, size: int) -> bytes:
        """Draw and report."""
        data: bytes = self.inner.draw(size)
        self.watch.keep("drawn", data)
        return data


def watched(h: Harness, watch: Watch) -> None:
    """Have every site draw through the watch, and report identity keys."""
    for key in (*h.keys.values(), h.coordinator_key, h.authority):
        watch.keep("identity", key.secret_bytes())
        watch.show("identity", key)
    for machine in h.sites.values():
        machine._entropy = SpyEntropy(watch, h.entropy)


def keep_vector(watch: Watch, vector: npt.NDArray[np.int64], a: Any) -> None:
    """A vector as int64, as words, packed, and as text, in pieces that do not occur by chance."""
    ring = ring_of(a)
    packed = pack(to_words(vector, ring), ring)
    for at in range(0, len(vector) - 2, 2):
        watch.keep("row", vector[at : at + 2].tobytes())
        watch.keep("row, big-endian", vector[at : at + 2].astype(">i8").tobytes())
        watch.keep("row, floats", vector[at : at + 2].astype(np.float64).tobytes())
    for start in range(0, len(packed) - 12, 12):
        watch.keep("packed", packed[start : start + 12])
    watch.keep("text", str(vector[:3].tolist())[1:-1].encode())
    watch.keep("text of numpy", repr(vector[:2])[7:-2].encode())
    for value in vector:
        watch.secrets[f"value {value}"] = str(int(value)).encode()


def test_attack_25_no_secret_or_row_is_sent_printed_or_raised(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    """A whole epoch and slots with dropout, crash and every kind of refusal: no message, repr, exception or log line
    holds a key, seed, mask key, drawn byte string or coordinate in any common encoding.
    """
    caplog.set_level(logging.DEBUG)
    h = Harness.make(4)
    watched(h, watch)
    c = h.coordinator
    c.start_epoch()
    for site in h.ids:
        advert = h.sites[site].advertise(1)
        watch.message("advert", advert)
        c.receive_advert(advert)
    for site in h.ids:
        sent, excluded = h.sites[site].contribute(c.adverts)
        watch.message("contribution", *sent)
        watch.show("excluded", excluded)
        c.receive_contributions(sent)
    for site in h.ids:
        confirmations, excluded = h.sites[site].confirm(c.contributions_for(site))
        watch.message("confirmations", confirmations)
        c.receive_confirmations(confirmations)
        for key in pair_keys(h.sites[site]).values():
            watch.keep("pair key", key)
    record, all_confirmations = c.fix_record()
    watch.message("record", record)
    for site in h.ids:
        h.sites[site].join(record, all_confirmations, now=NOW)
    _one_slot(h, watch, 1)
    for site in h.ids:
        machine, state = h.sites[site], state_of(h.sites[site])
        for thing in (machine, state, state.epoch, state.slot, state.member, machine.party, machine.rules):
            watch.show("state", thing)
        assert state.epoch is not None
        for item in (*state.epoch.pairs, *state.member.ballots, state.epoch.sealing_key()):
            watch.show("state", item)
    for held in (c, c.slot, CoordinatorWhole.decode(c.dump())):
        watch.show("coordinator", held)
    watch.printed.append(("log", caplog.text.encode()))
    assert len(watch.secrets) > 200
    assert watch.found(watch.sent) == []
    assert watch.found(watch.printed) == []


def _one_slot(h: Harness, watch: Watch, number: int) -> None:
    """A slot with one site missing and many refusals."""
    c, missing = h.coordinator, h.ids[number]
    a = c.announce(h.plan(length=12), (number, 0))
    watch.keep("reply key", reply_key(h).secret_bytes())
    watch.message("announcement", a)
    rng = np.random.default_rng(VECTOR_SEED + number)
    vectors = {site: rng.integers(10**12, 10**14, 12) for site in h.ids}
    inside = [site for site in h.ids if site != missing]
    out = {}
    for site in h.ids:
        machine = h.sites[site]
        keep_vector(watch, vectors[site], a)
        machine.accept(a, now=NOW, ledger_head=LEDGER)
        for wrong in (vectors[site][1:], vectors[site].astype(np.float64), vectors[site].reshape(3, 4)):
            _fail(watch, machine.upload, a, wrong, now=NOW)
        _fail(watch, machine.upload, a, vectors[site], now=a.deadline + 1)
        out[site] = machine.upload(a, vectors[site], now=NOW)
        _fail(watch, machine.upload, a, vectors[site], now=NOW)
        watch.message("upload", out[site].message, out[site].body)
        watch.show("outgoing", out[site])
    for site in inside:
        _fail(watch, c.receive, out[site].message, out[site].body[:-1])
        c.receive(out[site].message, out[site].body)
    c.close()
    slot = Slot(h, a, out, vectors)
    for phase in ("vote", "release"):
        for member in inside:
            ask = c.ask(member)
            watch.message("ask", ask)
            machine = h.sites[member]
            act = getattr(machine, phase)
            _fail(watch, act, replace(ask, blobs=ask.blobs[::-1]), now=NOW)
            _fail(watch, act, replace(ask, announcement=forged(h, a, task=b"x" * 32)), now=NOW)
            reply = act(ask, now=NOW)
            watch.message(phase, reply)
            (c.receive_vote if phase == "vote" else c.receive_release)(reply)
            state = state_of(machine)
            assert state.epoch is not None
            dealt = open_blobs(h.party(member), state.epoch, c.topology(), a, ask, record_x(h, member))
            watch.show("dealt", dealt)
            for one in dealt:
                assert one is not None
                watch.keep("salt", one.salt)
                watch.keep("share", one.shares[-1].astype("<u4").tobytes())
        if phase == "release":
            watch.show("opened", [slot.opened(slot.release(m, inside, c.slot.votes), inside) for m in inside])
    c.receive_vote(slot.vote(missing, inside))
    _fail(watch, c.receive_vote, signed_vote(h, missing, a))
    opened, transcript = c.finish()
    watch.show("opened sum", opened)
    watch.message("transcript", transcript)
    assert np.array_equal(opened.array(), (sum(vectors[s] for s in inside) + 2**31) % 2**32 - 2**31)


def record_x(h: Harness, member: bytes) -> int:
    """Where a member's shares stand."""
    return h.coordinator.record.members.index(member) + 1


def _fail(watch: Watch, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    with pytest.raises(PrivflError) as caught:
        call(*args, **kwargs)
    watch.show("exception", caught.value)


def test_attack_25_the_watch_finds_what_leaks() -> None:
    """The search itself works: each encoding of a planted secret is found."""
    secret = bytes(range(100, 132))
    watch = Watch({"planted": secret})
    for form in forms(secret):
        assert watch.found([("leak", b"before" + form + b"after")])
    for leak in (f"key={secret!r}", f"{secret.hex()}", f"{base64.b64encode(b'ab' + secret)!r}", str(list(secret))):
        assert watch.found([("leak", leak.encode())])
    assert watch.found([("leak", bytes(32))]) == []


def test_attack_25_after_the_upload_the_store_holds_nothing_of_the_slot(watch: Watch) -> None:
    """A thief takes the store once the upload is durable: neither seeds, mask keys, the pair keys of this slot, nor a
    coordinate are in it; before the upload it holds no vector; after the epoch it holds no key at all.
    """
    h = ready(4)
    a = h.coordinator.announce(h.plan(length=24), (1, 0))
    vector = np.random.default_rng(VECTOR_SEED).integers(10**12, 10**14, 24)
    for site in h.ids:
        h.sites[site].accept(a, now=NOW, ledger_head=LEDGER)
        watch.secrets.clear()  # a pair key is still good at the other end
        keep_vector(watch, vector, a)
        assert watch.found([("accepted", h.sites[site].dump())]) == []
        for key in pair_keys(h.sites[site]).values():
            watch.keep("pair key", key)
        h.sites[site].upload(a, vector, now=NOW)
        assert any(name.startswith("seed") for name in watch.secrets)
        assert watch.found([("uploaded", h.sites[site].dump())]) == []
        state = state_of(h.sites[site])
        assert state.epoch is not None
        watch.keep("epoch secret", state.epoch.secret)
        for key in pair_keys(h.sites[site]).values():
            watch.keep("next pair key", key)
        assert watch.found([("dump", h.sites[site].dump())])  # what must still be there is found
        h.sites[site].close_epoch()
        assert watch.found([("closed", h.sites[site].dump())]) == []


def test_attack_25_contributions_are_forgotten_once_the_pair_key_exists(watch: Watch) -> None:
    """A thief takes the store after E2: the fresh bytes that made the pair keys are gone from it."""
    h = Harness.make(4)
    h.coordinator.start_epoch()
    for site in h.ids:
        h.coordinator.receive_advert(h.sites[site].advertise(1))
    watched(h, watch)
    for site in h.ids:
        h.coordinator.receive_contributions(h.sites[site].contribute(h.coordinator.adverts)[0])
        assert watch.found([("contributed", h.sites[site].dump())])
    for site in h.ids:
        h.sites[site].confirm(h.coordinator.contributions_for(site))
        assert watch.found([("confirmed", h.sites[site].dump())]) == []


def test_attack_25_the_members_store_holds_no_share(watch: Watch) -> None:
    """A thief takes a member's store after vote and release: no dealt share or salt lies open in it."""
    h = ready(4)
    slot = Slot.run(h)
    member = h.ids[0]
    votes = slot.votes(h.ids, h.ids)
    ask = slot.ask(member, h.ids, votes)
    state = state_of(h.sites[member])
    assert state.epoch is not None
    for dealt in open_blobs(h.party(member), state.epoch, h.coordinator.topology(), slot.a, ask, 1):
        assert dealt is not None
        watch.keep("salt", dealt.salt)
        for row in dealt.shares:
            watch.keep("share", row.astype("<u4").tobytes())
    h.sites[member].release(ask, now=NOW)
    assert watch.found([("released", h.sites[member].dump())]) == []


def test_attack_25_secret_states_cannot_be_pickled_or_copied() -> None:
    """No secret state or key slips out through pickle, copy, or a queue that pickles."""
    h = ready(3)
    state = state_of(h.sites[h.ids[0]])
    assert state.epoch is not None
    secrets = (state, state.epoch, state.epoch.pairs[0], state.slot, state.member, h.keys[h.ids[0]])
    for thing in (*secrets, state.epoch.sealing_key(), h.coordinator.slot):
        for way in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises((TypeError, PrivflError)):
                way(thing)
