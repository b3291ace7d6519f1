"""Two honest slots of four sites, with every machine's state before every step: what fuzzing starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from privfl_keys import Label, SigningKey

from privfl.codec import Record
from privfl.secagg import CoordinatorMachine, OpenedSum, SiteMachine, Transcript
from privfl.secagg.coordinator import ReleaseNote
from privfl.secagg.coordinator_machine import CoordinatorWhole
from privfl.secagg.messages import Advert, Announcement, Ask, Confirmations, Contribution, Header, Release, Vote
from privfl.secagg.party import Party
from privfl.secagg.reconstruct import Blame
from privfl.secagg.site_machine import SiteState
from tests.harness import LEDGER, NOW, Harness, MemoryShelf, SeededEntropy

Call = Callable[[Any, tuple[Any, ...]], Any]


@dataclass(frozen=True)
class Step:
    """Messages on their way into one machine, and the machine's stored state at that moment."""

    name: str
    site: bytes | None  # None: the coordinator
    dump: bytes
    shelf: dict[str, bytes]
    messages: tuple[Record, ...]
    call: Call

    def machine(self, harness: Harness) -> SiteMachine | CoordinatorMachine:
        """A fresh machine in the state before the step."""
        if self.site is not None:
            party = harness.party(self.site)
            return SiteMachine.load(party, harness.rules, harness.entropy, self.dump, restarted=False)
        shelf = MemoryShelf(self.shelf)
        party = Party(harness.coordinator_key, harness.roster)
        return CoordinatorMachine.load(party, harness.signed, harness.entropy, shelf, self.dump)


@dataclass
class Scene:
    """What the run left behind; ``steps`` holds the first of each name at one site and at the coordinator."""

    harness: Harness
    steps: dict[str, Step] = field(default_factory=dict)
    bodies: dict[bytes, bytes] = field(default_factory=dict)
    opened: OpenedSum = None  # type: ignore[assignment]
    transcript: Transcript = None  # type: ignore[assignment]

    def at_site(self, name: str, site: bytes, messages: tuple[Record, ...], call: Call) -> Any:
        """Run one step at a site, and keep it if it is the watched site."""
        machine = self.harness.sites[site]
        if site == self.harness.ids[1]:
            self.steps[name] = Step(name, site, machine.dump(), {}, messages, call)
        return call(machine, messages)

    def at_coordinator(self, name: str, messages: tuple[Record, ...], call: Call) -> Any:
        """Run one step at the coordinator, and keep it."""
        machine = self.harness.coordinator
        self.steps[name] = Step(name, None, machine.dump(), dict(self.harness.shelf), messages, call)
        return call(machine, messages)

    def open_epoch(self) -> None:
        """E0 to the record, at all four sites."""
        h = self.harness
        scope = h.coordinator.start_epoch()
        for site in h.ids:
            advert = h.sites[site].advertise(scope.epoch)
            self.at_coordinator("receive advert", (advert,), lambda m, r: m.receive_advert(r[0]))
        for site in h.ids:
            out, _ = self.at_site("contribute", site, h.coordinator.adverts, lambda m, r: m.contribute(r))
            self.at_coordinator("receive contributions", out, lambda m, r: m.receive_contributions(r))
        before, said = h.coordinator.dump(), list[Record]()
        for site in h.ids:
            message, _ = self.at_site("confirm", site, h.coordinator.contributions_for(site), lambda m, r: m.confirm(r))
            self.at_coordinator("receive confirmations", (message,), lambda m, r: m.receive_confirmations(r[0]))
            said.append(message)
        # the same four messages once more, on a copy, with the record fixed after them
        self.steps["fix record"] = Step("fix record", None, before, {}, tuple(said), receive_and_fix)
        record, confirmations = h.coordinator.fix_record()
        for site in h.ids:
            self.at_site("join", site, (record, *confirmations), lambda m, r: m.join(r[0], r[1:], now=NOW))

    def run_slot(self, slot: tuple[int, int]) -> None:
        """S0 to S4 with the last site absent from the sum."""
        h = self.harness
        a = h.coordinator.announce(h.plan(), slot)
        vectors = h.vectors(a)
        for site in h.ids[:3]:
            self.at_site("accept", site, (a,), lambda m, r: m.accept(r[0], now=NOW, ledger_head=LEDGER))
            vector = vectors[site]
            out = self.at_site("upload", site, (a,), lambda m, r, v=vector: m.upload(r[0], v, now=NOW))  # type: ignore[misc]
            self.bodies[site] = out.body
            self.at_coordinator("receive", (out.message,), lambda m, r, b=out.body: m.receive(r[0], b))  # type: ignore[misc]
        h.coordinator.close()
        for member, ask in h.asks().items():
            vote = self.at_site("vote", member, (ask,), lambda m, r: m.vote(r[0], now=NOW))
            self.at_coordinator("receive vote", (vote,), lambda m, r: m.receive_vote(r[0]))
        for member, ask in h.asks().items():
            release = self.at_site("release", member, (ask,), lambda m, r: m.release(r[0], now=NOW))
            self.at_coordinator("receive release", (release,), lambda m, r: m.receive_release(r[0]))
        self.at_coordinator("finish", (), lambda m, _: m.finish())
        self.opened, self.transcript = Step.machine(self.steps["finish"], h).finish()  # type: ignore[union-attr]

    def records(self) -> dict[str, Record]:
        """One valid record of every kind that is ever decoded."""
        site = SiteState.decode(self.harness.sites[self.harness.ids[1]].dump())
        whole = CoordinatorWhole.decode(self.steps["receive release"].dump)
        early = CoordinatorWhole.decode(self.steps["receive confirmations"].dump)
        ask = self.steps["release"].messages[0]
        assert site.epoch is not None
        assert site.epoch.record is not None
        assert isinstance(ask, Ask)
        found: list[Record] = [
            site,
            site.epoch,
            site.epoch.scope,
            site.epoch.pairs[0],
            site.epoch.record,
            site.epoch.record.adverts[0],
            site.slot,
            site.member,
            site.member.ballots[-1],
            whole,
            whole.slot,
            early.contributions[0],
            early.confirmations[0],
            ReleaseNote(self.harness.ids[0], bytes(32)),
            Blame("pair", (self.harness.ids[0], self.harness.ids[1]), "commitments differ", (b"a", b"b")),
            ask,
            ask.announcement,
            ask.announcement.seen[0],
            ask.headers[0],
            ask.votes[0],
            self.steps["receive"].messages[0],
            self.steps["receive release"].messages[0],
            self.transcript,
            self.transcript.releases[0],
            self.opened,
        ]
        return {type(record).__name__: record for record in found}


def receive_and_fix(machine: CoordinatorMachine, messages: tuple[Any, ...]) -> object:
    """E2 whole at the coordinator."""
    for message in messages:
        machine.receive_confirmations(message)
    return machine.fix_record()


@cache
def scene() -> Scene:
    """The run, made once; the second slot's announcement carries seen heads."""
    made = Scene(Harness.make(4, entropy=SeededEntropy("scene")))
    made.open_epoch()
    for number in (1, 2):
        made.run_slot((number, 0))
    return made


def resign(record: Record, harness: Harness) -> Record:
    """The same record under a fresh valid signature of whom it names, if the harness holds that key."""
    keys = {**harness.keys, harness.coordinator_key.verify_key.site_id: harness.coordinator_key}

    def by(who: bytes, label: Label, *parts: object) -> bytes:
        key: SigningKey | None = keys.get(who)
        return key.sign(label, *parts) if key else bytes(64)

    def put(signature: bytes) -> Record:
        return type(record)(**{**vars_of(record), "signature": signature})

    match record:
        case Advert():
            return put(by(record.site, Label.ADVERT, record.digest))
        case Contribution():
            return put(by(record.sender, Label.CONTRIBUTION, *record.binding(), record.sealed))
        case Confirmations():
            return put(by(record.site, Label.CONFIRMATION, *record.binding()))
        case Vote():
            return put(by(record.member, Label.VOTE, *record.binding()))
        case Announcement():
            return put(by(record.coordinator, Label.ANNOUNCEMENT, record.h0))
        case Header():
            return put(by(record.site, Label.HEADER, record.digest, record.ledger_head))
        case Release():
            return put(by(record.member, Label.RELEASE, *record.binding()))
        case Transcript():
            return record.signed(harness.coordinator_key)
        case _:
            return record


def vars_of(record: Record) -> dict[str, Any]:
    """A record's fields by name, without what it caches."""
    return {each.name: getattr(record, each.name) for each in fields(record)}  # type: ignore[arg-type]


def resign_deep(record: Record, harness: Harness) -> Record:
    """Sign every part of a record again, inside out."""

    def renew(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(renew(item) for item in value)
        return resign_deep(value, harness) if isinstance(value, Record) else value

    fresh = type(record)(**{name: renew(value) for name, value in vars_of(record).items()})
    return resign(fresh, harness)
