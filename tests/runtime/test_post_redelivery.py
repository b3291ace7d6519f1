"""A message whose body is late is delivered again, not lost."""

from __future__ import annotations

import pytest
from privfl_keys import Member, Roster, SigningKey

from privfl.entropy import SYSTEM
from privfl.errors import WireError
from privfl.runtime.post import Post, Received
from privfl.secagg.party import Party
from privfl.wires import MemoryWire


def test_a_message_waits_for_its_body() -> None:
    """While the body is not on the wire the message is neither handled nor acknowledged; afterwards it is, once."""
    site, coordinator = SigningKey.generate(SYSTEM), SigningKey.generate(SYSTEM)
    others = [SigningKey.generate(SYSTEM) for _ in range(2)]
    members = [Member(f"s{at}", key.verify_key.raw, ("site",)) for at, key in enumerate([site, *others])]
    members.append(Member("c", coordinator.verify_key.raw, ("coordinator",)))
    roster = Roster.create("f", members, graph_seed=SYSTEM.draw(32), valid_from=0, valid_until=10**15)
    wire = MemoryWire()
    sender = Post(Party(coordinator, roster), wire.mailbox(coordinator.verify_key.site_id), SYSTEM, peer_role="site")
    here = site.verify_key.site_id
    receiver = Post(Party(site, roster), wire.mailbox(here), SYSTEM, peer_role="coordinator")
    sender.send(here, "announce", b"x", bodies=[b"the vector"])
    held, wire._bodies = dict(wire._bodies), {}
    seen: list[bytes] = []

    def handle(received: Received) -> None:
        seen.append(received.body())

    assert receiver.receive(0, handle) == 0
    assert seen == []
    wire._bodies = held
    assert receiver.receive(0, handle) == 1
    assert seen == [b"the vector"]
    assert receiver.receive(0, handle) == 0
    with pytest.raises(WireError):
        wire.load(b"?" * 32)
