"""The tables are what the machines do: every state meets every event, and the diagrams are drawn from them.

Each event is tried with everything else lawful, so that only the state can forbid it. Where the table
has no entry, the machine must refuse and stay as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from privfl_keys import quorum

from privfl.errors import Misuse, Refused
from privfl.secagg import TABLES, Announcement, CoordinatorMachine, SiteMachine, mermaid
from privfl.secagg.party import Party
from privfl.secagg.transitions import COORDINATOR_SLOT, MEMBER_SLOT, SITE_EPOCH, SITE_SLOT, Table, advance
from tests.harness import LEDGER, NOW, Harness, MemoryShelf, SeededEntropy
from tests.secagg.scene import resign

DOCS = Path(__file__).parents[2] / "docs" / "protocol.md"


def states(table: Table) -> list[str]:
    """All states of a table, in the order in which they appear."""
    return list(dict.fromkeys([name for (origin, _), target in table.items() for name in (origin, target)]))


def events(table: Table) -> list[str]:
    """All events of a table."""
    return list(dict.fromkeys(event for _, event in table))


def squares(table: Table) -> list[tuple[str, str]]:
    """The full product of states and events."""
    return list(product(states(table), events(table)))


# --- the tables themselves ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(TABLES))
def test_advance_follows_the_table_and_refuses_the_rest(name: str) -> None:
    """The whole square: the target where there is an entry, Refused with the possible events where not."""
    table = TABLES[name]
    for state, event in squares(table):
        if (state, event) in table:
            assert advance(table, state, event) == table[state, event]
            continue
        with pytest.raises(Refused, match=f"'{event}' is not possible in state '{state}'") as caught:
            advance(table, state, event)
        possible = [other for origin, other in table if origin == state]
        assert all(other in str(caught.value) for other in possible or ["nothing"])


@pytest.mark.parametrize("name", list(TABLES))
def test_every_state_is_reached_from_the_first(name: str) -> None:
    """No entry is dead."""
    table = TABLES[name]
    reached = {next(iter(table))[0]}
    for _ in table:
        reached |= {target for (origin, _), target in table.items() if origin in reached}
    assert reached == set(states(table))


@pytest.mark.parametrize("name", list(TABLES))
def test_the_documentation_shows_the_tables(name: str) -> None:
    """docs/protocol.md holds the diagram that the table gives; on failure, paste the one printed here."""
    block = f"```mermaid\n{mermaid(TABLES[name])}\n```"
    assert block in DOCS.read_text(), f"the diagram of '{name}' is out of date; it should be\n{block}"


def test_the_documentation_shows_the_numbers_that_the_roster_rules_give() -> None:
    """The table of N, c, t, silent members, colluders, min_survivors and honest vectors, recomputed row by row."""
    rows = [line.strip("| ").split(" | ") for line in DOCS.read_text().splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == 6
    for first, *rest in rows:
        complete, n = "complete" in first, int(first.split()[0])
        c, t, silent, breaks, least, honest = map(int, rest)
        assert c == quorum.default_corrupt_bound(n)
        assert t == (quorum.complete_threshold if complete else quorum.voted_threshold)(n, c)
        assert silent == n - t
        assert breaks == (t if complete else quorum.equivocation_bound(n, t))
        assert least == (n if complete else quorum.default_min_survivors(n, c))
        assert honest == least - c


# --- one slot, kept at every stage ---------------------------------------------------------------------

Dump = bytes
Stored = tuple[bytes, dict[str, bytes]]  # a dump of the coordinator, and its shelf at that moment


class Stages:
    """One voted slot of four sites by hand: dumps of the second site and of the coordinator in every state.

    The fourth site uploads too, but its upload reaches no machine, so that it can play what comes late.
    """

    def __init__(self) -> None:
        self.h = Harness.make(4, entropy=SeededEntropy("stages"))
        self.me = self.h.ids[1]
        self.epoch: dict[str, Dump] = {}
        self.slot: dict[str, Dump] = {}
        self.member: dict[str, Dump] = {}
        self.leader: dict[str, Stored] = {}
        self._set_up()
        self._collect()
        self._open()

    def site(self, dump: Dump, at: int = 1, *, restarted: bool = False) -> SiteMachine:
        """A copy of a site in a stored state."""
        h = self.h
        return SiteMachine.load(h.party(h.ids[at]), h.rules, h.entropy, dump, restarted=restarted)

    def copy(self, at: int = 1) -> SiteMachine:
        """A copy of a site as it is now."""
        return self.site(self.h.sites[self.h.ids[at]].dump(), at)

    def coordinator(self, state: str) -> CoordinatorMachine:
        """A copy of the coordinator in a state."""
        dump, shelf = self.leader[state]
        party = Party(self.h.coordinator_key, self.h.roster)
        return CoordinatorMachine.load(party, self.h.signed, self.h.entropy, MemoryShelf(shelf), dump)

    def _keep(self, state: str) -> None:
        self.leader[state] = (self.h.coordinator.dump(), dict(self.h.shelf))

    def _set_up(self) -> None:
        h, me = self.h, self.h.sites[self.me]
        self.epoch["new"] = me.dump()
        number = h.coordinator.start_epoch().epoch
        for site in h.ids:
            h.coordinator.receive_advert(h.sites[site].advertise(number))
        self.epoch["advertised"], self.adverts = me.dump(), h.coordinator.adverts
        for site in h.ids:
            h.coordinator.receive_contributions(h.sites[site].contribute(self.adverts)[0])
        self.epoch["contributed"], self.inbox = me.dump(), h.coordinator.contributions_for(self.me)
        for site in h.ids:
            h.coordinator.receive_confirmations(h.sites[site].confirm(h.coordinator.contributions_for(site))[0])
        self.epoch["confirmed"], self.record = me.dump(), h.coordinator.fix_record()
        for site in h.ids:
            h.sites[site].join(*self.record, now=NOW)
        self.epoch["active"] = self.slot["idle"] = me.dump()
        self.joined = [h.sites[site].dump() for site in h.ids]
        closed = self.copy()
        closed.close_epoch()
        self.epoch["erased"] = closed.dump()
        self._keep("idle")

    def _collect(self) -> None:
        h, me = self.h, self.h.sites[self.me]
        self.first = h.coordinator.announce(h.plan(), (1, 0))
        vectors = h.vectors(self.first)
        for site in h.ids:
            h.sites[site].accept(self.first, now=NOW, ledger_head=LEDGER)
            if site == self.me:
                self.slot["accepted"] = me.dump()
                self.slot["silent"] = self.site(me.dump(), restarted=True).dump()
            out = h.sites[site].upload(self.first, vectors[site], now=NOW)
            if site == self.me:
                self.slot["uploaded"], self.sent = me.dump(), out.message
            if site == h.ids[3]:
                self.late = out
            else:
                h.coordinator.receive(out.message, out.body)
        self._keep("collecting")
        self.member["idle"] = me.dump()
        self.aborts = [self.copy(at).vote_abort(self.first) for at in range(4)]
        refuser = self.copy()
        refuser.vote_abort(self.first)
        self.member["voted ABORT"] = refuser.dump()

    def _open(self) -> None:
        h, me = self.h, self.h.sites[self.me]
        h.coordinator.close()
        self._keep("voting")
        self.ask = h.coordinator.ask(self.me)
        self.votes = [h.sites[site].vote(ask, now=NOW) for site, ask in h.asks().items()]
        self.member["voted"] = me.dump()
        for vote in self.votes[:3]:
            h.coordinator.receive_vote(vote)
        self._keep("releasing")
        self.certified = h.coordinator.ask(self.me)
        self.releases = [h.sites[site].release(ask, now=NOW) for site, ask in h.asks().items()]
        self.member["released"] = me.dump()
        for release in self.releases[:3]:
            h.coordinator.receive_release(release)
        self._keep("releasing, t releases")
        h.coordinator.finish()
        self._keep("done")
        given_up = self.coordinator("voting")
        given_up.abandon()
        self.leader["aborted"] = (given_up.dump(), dict(h.shelf))
        later = h.coordinator.announce(h.plan(), (2, 0))
        # without seen heads: in some states the watched site has not sent the header that the coordinator saw
        bare = resign(replace(later, seen=()), h)
        assert isinstance(bare, Announcement)
        self.later = bare


@cache
def stages() -> Stages:
    """Made once."""
    return Stages()


def refused(machine: SiteMachine | CoordinatorMachine, act: Callable[[], object]) -> None:
    """The act is refused by name, and the state is the same as before."""
    before = machine.dump()
    with pytest.raises((Refused, Misuse)):
        act()
    assert machine.dump() == before


# --- a site's epoch ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "event"), squares(SITE_EPOCH))
def test_a_sites_epoch(state: str, event: str) -> None:
    """advertise, contribute, confirm, join and close of one epoch, in every state."""
    s = stages()
    machine = s.site(s.epoch[state])
    acts: Mapping[str, Callable[[], object]] = {
        "advertise": lambda: machine.advertise(1),
        "contribute": lambda: machine.contribute(s.adverts),
        "confirm": lambda: machine.confirm(s.inbox),
        "join": lambda: machine.join(*s.record, now=NOW),
        "close": machine.close_epoch,
    }
    if (state, event) not in SITE_EPOCH:
        return refused(machine, acts[event])
    acts[event]()
    epoch = machine._state.epoch
    assert epoch is not None
    assert epoch.stage == SITE_EPOCH[state, event]
    if epoch.stage == "erased":
        assert not epoch.secret
        assert not epoch.pairs
    return None


@pytest.mark.parametrize("state", states(SITE_EPOCH))
def test_the_next_epoch_starts_the_table_anew(state: str) -> None:
    """advertise with the next number is possible in every state, forgets the old keys, and numbers only rise."""
    s = stages()
    machine = s.site(s.epoch[state])
    advert = machine.advertise(2)
    epoch = machine._state.epoch
    assert epoch is not None
    assert (epoch.stage, epoch.pairs) == ("advertised", ())
    assert machine.advertise(2) == advert
    refused(machine, lambda: machine.advertise(1))
    refused(machine, lambda: machine.advertise(2 + 1025))


# --- a site's slot -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "event"), squares(SITE_SLOT))
def test_a_sites_slot(state: str, event: str) -> None:
    """accept (of the next slot), upload, resend and restart, in every state; a restart is never refused."""
    s = stages()
    machine = s.site(s.slot[state])
    target = SITE_SLOT.get((state, event))
    if event == "restart":
        restarted = s.site(s.slot[state], restarted=True)
        assert restarted._state.slot.stage == (target or state)
        return None
    vector = s.h.vectors(s.first)[s.me]
    acts: Mapping[str, Callable[[], object]] = {
        "accept": lambda: machine.accept(s.later, now=NOW, ledger_head=LEDGER),
        "upload": lambda: machine.upload(s.first, vector, now=NOW),
        "resend": lambda: machine.check_resend(s.sent),
    }
    if target is None:
        return refused(machine, acts[event])
    acts[event]()
    assert machine._state.slot.stage == target
    return None


# --- a committee member's slot -------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "event"), squares(MEMBER_SLOT))
def test_a_members_slot(state: str, event: str) -> None:
    """vote and release for one U, and ABORT, in every state; in "voted" the same vote as before."""
    s = stages()
    dump = s.member["voted ABORT" if (state, event) == ("voted", "abort") else state]
    machine = s.site(dump)
    acts: Mapping[str, Callable[[], object]] = {
        "vote": lambda: machine.vote(s.ask, now=NOW),
        "abort": lambda: machine.vote_abort(s.first),
        "release": lambda: machine.release(s.certified, now=NOW),
    }
    if (state, event) not in MEMBER_SLOT:
        return refused(machine, acts[event])
    acts[event]()
    assert machine._state.member.ballots[-1].stage == MEMBER_SLOT[state, event]
    if state != "idle" and event == state.replace("voted", "vote").replace("released", "release"):
        assert machine.dump() == dump  # a repeat: the same bytes go out, and nothing moves
    return None


def test_one_vote_is_one_vote() -> None:
    """Whoever voted for U does not vote ABORT, whoever voted ABORT does not vote for U, in any order."""
    s = stages()
    for_u, against = s.site(s.member["voted"]), s.site(s.member["voted ABORT"])
    refused(for_u, lambda: for_u.vote_abort(s.first))
    refused(against, lambda: against.vote(s.ask, now=NOW))
    against.release(s.certified, now=NOW)  # a certificate outweighs the member's own vote
    assert against._state.member.ballots[-1].stage == "released"


def test_a_member_that_released_first_still_has_its_vote() -> None:
    """A certificate may come before the ask; the late vote is for the same U and moves nothing on."""
    s = stages()
    machine = s.site(s.member["idle"])
    machine.release(s.certified, now=NOW)
    assert machine.vote(s.ask, now=NOW).choice == s.votes[0].choice
    assert machine._state.member.ballots[-1].stage == MEMBER_SLOT["released", "vote"]


# --- the coordinator's slot ----------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "event"), squares(COORDINATOR_SLOT))
def test_the_coordinators_slot(state: str, event: str) -> None:
    """Every event in every state; "certify" is the vote that completes the quorum and has no other cause."""
    s = stages()
    machine = s.coordinator("releasing, t releases" if (state, event) == ("releasing", "finish") else state)
    target = COORDINATOR_SLOT.get((state, event))
    if event == "certify":
        if target is None:
            return None
        machine.receive_vote(s.votes[0])
        machine.receive_vote(s.votes[1])
        assert machine.slot.stage == "voting"
    if event == "close complete":
        return close_complete(state)
    vote = s.aborts[3] if state == "aborted" else s.votes[2 if event == "certify" else 3]
    acts: Mapping[str, Callable[[], object]] = {
        "announce": lambda: machine.announce(s.h.plan(), (2, 0)),
        "upload": lambda: machine.receive(s.late.message, s.late.body),
        "close": machine.close,
        "abort": machine.abandon,
        "vote": lambda: machine.receive_vote(vote),
        "certify": lambda: machine.receive_vote(vote),
        "release": lambda: machine.receive_release(s.releases[0]),
        "finish": machine.finish,
    }
    if target is None:
        return refused(machine, acts[event])
    acts[event]()
    assert machine.slot.stage == target
    return None


def close_complete(state: str) -> None:
    """Complete mode goes from collecting straight to releasing; in every other state close is refused."""
    s = stages()
    if state != "collecting":
        machine = s.coordinator(state)
        return refused(machine, machine.close)
    machine = s.coordinator("idle")
    a = machine.announce(s.h.plan(complete=True), (1, 0))
    for at, site in enumerate(a.sites):
        one = s.site(s.joined[at], at)
        one.accept(a, now=NOW, ledger_head=LEDGER)
        out = one.upload(a, s.h.vectors(a)[site], now=NOW)
        machine.receive(out.message, out.body)
    machine.close()
    assert machine.slot.stage == COORDINATOR_SLOT["collecting", "close complete"]
    return None


def test_repeats_of_known_messages_change_nothing_in_any_state() -> None:
    """A header, a vote or a release that is known already is answered, not counted."""
    s = stages()
    for state in ("voting", "releasing", "done"):
        machine = s.coordinator(state)
        before = machine.dump()
        assert machine.receive(s.sent, b"ignored: the header is known") is False
        if state != "voting":
            machine.receive_vote(s.votes[0])
        assert machine.dump() == before
    machine = s.coordinator("releasing, t releases")
    before = machine.dump()
    assert machine.receive_release(s.releases[0])
    assert machine.dump() == before
