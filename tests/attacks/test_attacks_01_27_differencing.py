"""Attacks that difference two sums or isolate one site: 16, 17."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from privfl.errors import Refused, Unverified
from tests.attacks._tools_a import (
    Slot,
    forged,
    noiseless,
    ready,
    refused,
    resigned,
    signed_vote,
    state_of,
    turned_away,
    upload,
)
from tests.harness import LEDGER, NOW, Harness, SeededEntropy

# -- 16 -----------------------------------------------------------------------------------------------


def noiseless_federation(n: int = 5) -> Harness:
    """n sites that agreed to sums without noise."""
    return ready(n, rules=noiseless(n - 1 if n > 3 else 3), min_survivors=n - 1 if n > 3 else 3)


def finish(slot: Slot, sites: list[bytes]) -> None:
    """Open the slot through the machines."""
    h = slot.h
    for out in slot.out.values():
        h.coordinator.receive(out.message, out.body)
    h.coordinator.close()
    h.vote_and_release()
    assert [header.site for header in h.coordinator.slot.inside()] == sites


def test_attack_16_the_same_question_over_a_and_a_without_i() -> None:
    """Without noise, the coordinator opens A and asks it again of A∖{i}: later rounds, attempts, epochs refuse."""
    h = noiseless_federation()
    finish(Slot.run(h), h.ids)
    site, fewer = h.ids[4], h.ids[1:]

    def asked(slot: tuple[int, int], **plan: Any) -> Any:
        return h.coordinator.announce(h.plan(cohort=fewer, **plan), slot)

    machine = h.sites[site]
    refused(machine, Refused, "once per data version", machine.accept, asked((2, 0)), now=NOW, ledger_head=LEDGER)
    h.coordinator.abandon()
    refused(machine, Refused, "ABORT votes", machine.accept, asked((1, 1)), now=NOW, ledger_head=LEDGER)
    h.coordinator.abandon()
    h.open_epoch()
    refused(machine, Refused, "once per data version", machine.accept, asked((1, 0)), now=NOW, ledger_head=LEDGER)
    h.reload(site)
    back, a = h.reload(site), h.coordinator.slot.current()
    refused(back, Refused, "once per data version", back.accept, a, now=NOW, ledger_head=LEDGER)


def aborts(h: Harness, a: Any) -> tuple[Any, ...]:
    """ABORT votes of every honest member, which anybody may ask for."""
    return tuple(h.sites[member].vote_abort(a) for member in h.ids)


def test_attack_16_a_retry_of_another_round_does_not_bring_an_old_question_back() -> None:
    """Round 1 opens question A. Round 2 asks B, is aborted by genuine ABORT votes, and its retry asks A again over
    fewer sites. The retry is certified, but not for A: refused.
    """
    h = noiseless_federation()
    finish(Slot.run(h), h.ids)
    b = h.coordinator.announce(h.plan(task=b"B" * 32), (2, 0))
    for site in h.ids:
        h.sites[site].accept(b, now=NOW, ledger_head=LEDGER)
    votes = aborts(h, b)
    a = forged(h, b, task=b"t" * 32, attempt=1, seq=b.seq + 1, aborts=votes, cohort=b"".join(h.ids[1:]))
    same = forged(h, b, attempt=1, seq=b.seq + 1, aborts=votes, cohort=b"".join(h.ids[1:]))
    for site in h.ids[1:]:
        machine = h.sites[site]
        refused(machine, Refused, "once per data version", machine.accept, a, now=NOW, ledger_head=LEDGER)
        machine.accept(same, now=NOW, ledger_head=LEDGER)  # an honest retry of B is taken


def test_attack_16_a_retry_of_a_round_in_which_a_site_answered_nothing() -> None:
    """Round 1 opens A. Round 2 asks A again, which every site refuses, and members lawfully abort that attempt; its
    certified retry is still the second time that A is asked.
    """
    h = noiseless_federation()
    finish(Slot.run(h), h.ids)
    again = h.coordinator.announce(h.plan(), (2, 0))
    retry = forged(h, again, attempt=1, seq=again.seq + 1, aborts=aborts(h, again), cohort=b"".join(h.ids[1:]))
    for site in h.ids[1:]:
        turned_away(h, site, retry, Refused, "once per data version")


def test_attack_16_an_unlawful_attempt_cannot_be_aborted_into_a_lawful_one() -> None:
    """Attempt 0 is opened. The coordinator announces attempt 1 without certificate only to have it aborted, and
    shows those ABORT votes in attempt 2: members give no ABORT vote for an attempt that was never lawful.
    """
    h = noiseless_federation()
    slot = Slot.run(h)
    finish(slot, h.ids)
    one = forged(h, slot.a, attempt=1, seq=2)
    for member in h.ids:
        refused(h.sites[member], Refused, "ABORT votes", h.sites[member].vote_abort, one)
        refused(h.sites[member], Refused, None, h.sites[member].vote_abort, slot.a)  # voted for U already
    corrupt = [signed_vote(h, member, one) for member in h.ids[:3]]  # below t = 4
    two = forged(h, slot.a, attempt=2, seq=3, aborts=tuple(corrupt), cohort=b"".join(h.ids[1:]))
    machine = h.sites[h.ids[4]]
    refused(machine, Refused, "needs 4 ABORT votes", machine.accept, two, now=NOW, ledger_head=LEDGER)


def test_attack_16_round_zero_of_a_new_epoch_is_no_retry() -> None:
    """A fresh epoch starts at round 0: its attempt 1, with ABORT votes for (0, 0), may not pass as a retry."""
    h = noiseless_federation()
    finish(Slot.run(h), h.ids)
    h.open_epoch()
    zero = h.coordinator.announce(h.plan(), (0, 0))
    again = forged(h, zero, attempt=1, seq=2, aborts=aborts(h, zero), cohort=b"".join(h.ids[1:]))
    machine = h.sites[h.ids[4]]
    refused(machine, Refused, "once per data version", machine.accept, again, now=NOW, ledger_head=LEDGER)


def test_attack_16_complete_mode_is_not_opened_after_an_abort_vote_nor_retried_over_fewer() -> None:
    """In complete mode few members open a slot: one who voted ABORT releases nothing, and since the others may have
    released, a certified retry is taken over the same cohort only, where the sum says nothing new.
    """
    h = noiseless_federation()
    slot = Slot.run(h, complete=True)
    votes = aborts(h, slot.a)[:4]
    for member in h.ids:
        refused(h.sites[member], Refused, "voted to abort", slot.release, member, h.ids)
        h.reload(member)
        refused(h.sites[member], Refused, "voted to abort", slot.release, member, h.ids)
    fewer = {"cohort": b"".join(h.ids[1:]), "min_survivors": 4}
    changes: tuple[dict[str, Any], ...] = (fewer, {**fewer, "complete": False, "threshold": 4}, {"complete": False})
    machine = h.sites[h.ids[4]]
    for change in changes:
        more = {"threshold": 4, "min_survivors": 4} if change == {"complete": False} else {}
        retry = forged(h, slot.a, None, attempt=1, seq=2, aborts=votes, **change, **more)
        refused(machine, Refused, "once per data version", machine.accept, retry, now=NOW, ledger_head=LEDGER)
    machine.accept(forged(h, slot.a, attempt=1, seq=2, aborts=votes), now=NOW, ledger_head=LEDGER)


def test_attack_16_one_slot_gives_no_second_sum() -> None:
    """Within one slot, with noise or without: after U is opened no member gives shares for U∖{i}."""
    slot = Slot.run(ready(4))
    h, fewer = slot.h, slot.h.ids[1:]
    votes = slot.votes(h.ids, h.ids)
    for member in h.ids:
        slot.release(member, h.ids, votes)
    leftover = []
    for member in h.ids:
        with pytest.raises(Refused):
            slot.vote(member, fewer)
        leftover.append(signed_vote(h, member, slot.a, slot.choice(fewer)))
    for member in h.ids:
        refused(h.sites[member], Refused, "already released", slot.release, member, fewer, leftover)


# -- 17 -----------------------------------------------------------------------------------------------


def test_attack_17_isolation_by_cohort_or_missing_neighbours_on_the_complete_graph() -> None:
    """The coordinator announces a victim together with its colluders only, or has a colluder's header skip a pair."""
    h = ready(7)  # c = 2
    victim, colluders = h.ids[3], h.ids[:2]
    base = h.coordinator.announce(h.plan(), (1, 0))
    alone = b"".join(sorted([victim, *colluders]))
    machine = h.sites[victim]
    for least in (3, 4, 2, 1):
        wrong = forged(h, base, cohort=alone, min_survivors=least)
        refused(machine, Refused, "min_survivors", machine.accept, wrong, now=NOW, ledger_head=LEDGER)
        wrong = forged(h, base, cohort=alone, min_survivors=3, threshold=3, complete=True)
        refused(machine, Refused, "min_survivors", machine.accept, wrong, now=NOW, ledger_head=LEDGER)
    slot = Slot.of(h, base)
    skipping = slot.out[colluders[0]].message.header
    bent = resigned(h, skipping, neighbours=skipping.neighbours[32:], commits=skipping.commits[:-32])
    slot.out[colluders[0]] = slot.out[colluders[0]]._replace(
        message=replace(slot.out[colluders[0]].message, header=bent)
    )
    refused(machine, Unverified, "neighbour list", slot.vote, victim, h.ids)


def test_attack_17_isolation_on_the_sparse_graph() -> None:
    """On a sparse graph the coordinator drops a victim's honest neighbours: such a U is neither voted nor released,
    and the honest coordinator prunes the victim out instead.
    """
    h = ready(16, degree=8, corrupt=3, min_survivors=11)
    slot = Slot.run(h)
    topology = h.coordinator.topology()
    victim = h.ids[5]
    dropped = topology.neighbours(victim)[:4]  # keeps 4 of 8; 5 are needed
    rest = [site for site in h.ids if site not in dropped]
    assert len(rest) >= slot.a.min_survivors
    members = [site for site in h.ids if site not in dropped]
    votes = [signed_vote(h, member, slot.a, slot.choice(rest)) for member in h.ids]
    for member in members[:3]:
        refused(h.sites[member], Refused, "neighbours", slot.vote, member, rest)
        refused(h.sites[member], Refused, "neighbours", slot.release, member, rest, votes)
    assert all(len(set(topology.neighbours(site)) & set(h.ids)) == 8 for site in h.ids)


def test_attack_17_a_site_computes_its_neighbours_itself_and_skips_none() -> None:
    """On the sparse graph a neighbour without a confirmed pair key is in the cohort: the site refuses to upload."""
    h = Harness.make(16, degree=8, corrupt=3, min_survivors=11, entropy=SeededEntropy("skip"))
    scope = h.coordinator.start_epoch()
    for site in h.ids:
        h.coordinator.receive_advert(h.sites[site].advertise(scope.epoch))
    sent = {site: h.sites[site].contribute(h.coordinator.adverts)[0] for site in h.ids}
    loner = h.ids[0]
    cut = sent[loner][0].recipient
    for site in h.ids:
        keep = [message for message in sent[site] if (site, message.recipient) != (loner, cut)]
        h.coordinator.receive_contributions(keep)
    for site in h.ids:
        h.coordinator.receive_confirmations(h.sites[site].confirm(h.coordinator.contributions_for(site))[0])
    record, confirmations = h.coordinator.fix_record()
    for site in h.ids:
        h.sites[site].join(record, confirmations, now=NOW)
    a = h.coordinator.announce(h.plan(), (1, 0))
    for site in (loner, cut):
        turned_away(h, site, a, Refused, "no confirmed key")
    upload(h, h.ids[1] if h.ids[1] != cut else h.ids[2], a, np.zeros(8, np.int64))
    assert state_of(h.sites[loner]).slot.h0 == b""
