"""A coordinator and some sites whose spools a courier serves over a Grid in this process, on a clock moved by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from privfl_keys import Member, Roster, SigningKey

from privfl.entropy import SYSTEM
from privfl.flower.client import SiteCarrier, Worked, exchange
from privfl.flower.courier import Courier
from privfl.flower.local_grid import LocalGrid
from privfl.runtime.post import Post, Received
from privfl.secagg.party import Party
from privfl.wires.flower import spool_of
from privfl.wires.flower_carry import Carrier
from privfl.wires.flower_peers import Peers
from tests.harness import SeededEntropy

ENTROPY = SeededEntropy("couriers")
COORDINATOR, STRANGER = SigningKey.generate(ENTROPY), SigningKey.generate(ENTROPY)
SITES = {name: SigningKey.generate(ENTROPY) for name in ("north", "south", "east")}
ROSTER = Roster.create(
    "test",
    [Member("coordinator", COORDINATOR.verify_key.raw, ("coordinator",))]
    + [Member(name, key.verify_key.raw, ("site",)) for name, key in SITES.items()],
    graph_seed=bytes(32),
    valid_from=0,
    valid_until=10**15,
)
OWN = COORDINATOR.verify_key.site_id


def site_id(name: str) -> bytes:
    return SITES[name].verify_key.site_id


@dataclass
class Site:
    """A site that answers every letter with ``pong``, the same payload and the same bodies.

    Attributes:
        got: payloads of what it has handled. lazy: it works at nothing; ``worked`` is what is said of it.
    """

    home: Path
    key: SigningKey
    got: list[bytes] = field(default_factory=list)
    lazy: bool = False
    deaths: int = 0

    def __post_init__(self) -> None:
        self.home.mkdir(exist_ok=True)
        self.id = self.key.verify_key.site_id
        self.spool = spool_of(self.home)
        self.carrier = SiteCarrier(self.spool, self.id, Peers.of(ROSTER))
        party = Party(self.key, ROSTER)
        self.post = Post(party, self.spool.mailbox(self.id), SYSTEM, peer_role="coordinator")

    def work(self, carrier: Carrier, hold: float, hello: bool) -> Worked:
        while not self.lazy and carrier.unread():
            self.post.receive(0, self._answer)
        return Worked(working=bool(carrier.unread()))

    def _answer(self, received: Received) -> None:
        self.got.append(received.payload)
        bodies = [received.body(at) for at in range(len(received.refs))]
        self.post.send(received.sender, "pong", received.payload, reply_to=received.id, bodies=bodies)

    def __call__(self, message: Message, context: Context) -> Message:
        return exchange(message, self.carrier, self.work)


class Town:
    """All of it; ``step`` moves the clock and lets the courier look once."""

    def __init__(self, folder: Path, names: tuple[str, ...] = ("north", "south"), **courier: Any) -> None:
        self.now, self.folder = 0.0, folder
        (folder / "coordinator").mkdir(parents=True)
        self.spool = spool_of(folder / "coordinator")
        self.post = Post(Party(COORDINATOR, ROSTER), self.spool.mailbox(OWN), SYSTEM, peer_role="site")
        self.sites = {name: Site(folder / name, SITES[name]) for name in names}
        self.grid = LocalGrid(lambda message, context: message, {})
        for at, name in enumerate(names, 1):
            self.grid.add(at, {}, self.sites[name])
        self.options = {"poll": 10.0, "again": 0.5, "look": 1.0, "patience": 60.0, **courier}
        self.courier = self.new_courier()
        self.got: list[Received] = []

    def new_courier(self) -> Courier:
        return Courier(self.grid, self.spool, OWN, ROSTER, clock=lambda: self.now, **self.options)

    def send(self, name: str, payload: bytes = b"ping", *bodies: bytes) -> None:
        self.post.send(site_id(name), "ping", payload, bodies=bodies)

    def step(self, seconds: float = 0.1, times: int = 1) -> None:
        for _ in range(times):
            self.now += seconds
            self.courier.step()

    def read(self) -> list[bytes]:
        """What the coordinator finds in its box, as payloads."""
        found: list[Received] = []
        while self.post.receive(0, found.append):
            pass
        self.got += found
        return [one.payload for one in found]

    def until(self, done: Callable[[], bool], seconds: float = 0.1, most: int = 1000) -> None:
        for _ in range(most):
            if done():
                return
            self.step(seconds)
        raise AssertionError(f"it did not come about: {self.courier.problems}")

    def waiting(self, name: str) -> int:
        """Letters for a site that are still in the coordinator's spool."""
        return len(Carrier(self.spool, OWN, lambda envelope: None).waiting(site_id(name)))
