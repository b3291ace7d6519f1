"""Real transcripts of rounds in which one site's uploads carry the heads of its ledger."""

from __future__ import annotations

from pathlib import Path

from privfl_keys import SigningKey

from privfl.budget import Ledger
from privfl.secagg import Transcript
from tests.budget.ledgers import POLICY, START, charge, limits
from tests.harness import LEDGER, NOW, Harness


def rounds(
    path: Path, count: int = 2, *, reserve: bool = True, harness: Harness | None = None
) -> tuple[SigningKey, list[Transcript]]:
    """A ledger at ``path`` and ``count`` opened rounds; returns the site's key and the transcripts.

    Without ``reserve`` the site charges nothing and signs its newest head all the same.
    """
    harness = harness or Harness.make(3, min_survivors=3)
    harness.open_epoch()
    site = harness.ids[0]
    key, transcripts = harness.keys[site], []
    with Ledger.create(path, key, federation="test", population="patients", now=START) as ledger:
        ledger.use(POLICY, 1, limits(100), START)
        for number in range(1, count + 1):
            a = harness.coordinator.announce(harness.plan(), (number, 0))
            one = charge(number)
            one = type(one)(a.h0, one.purpose, one.analyst, one.costs, one.trust, one.what)
            head = ledger.reserve(one, START + number) if reserve else ledger.head
            for member, vector in harness.vectors(a).items():
                machine = harness.sites[member]
                machine.accept(a, now=NOW, ledger_head=head if member == site else LEDGER)
                out = machine.upload(a, vector, now=NOW)
                harness.coordinator.receive(out.message, out.body)
            if reserve:
                ledger.settle(a.h0, START + number)
            harness.coordinator.close()
            transcripts.append(harness.vote_and_release()[1])
    return key, transcripts
