"""A coordinator written by an attacker: it holds the real key and speaks the folder wire honestly, but asks for more.

It stands on the coordinator's own folder and machine, so that its envelopes, its epoch and its announcements are
those of the real one. What it asks of a site is in the test's hands, and so is every byte that the site answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from privfl_keys import Label, SigningKey, VerifyKey

from privfl.budget.ledger_check import read_ledger
from privfl.budget.ledger_entries import Entry
from privfl.clock import Clock
from privfl.entropy import SYSTEM
from privfl.homes.authority import read_request
from privfl.homes.coordinator import CoordinatorHome, OpenCoordinator
from privfl.learn import Schema, Spec, Task
from privfl.runtime.coordinator import CoordinatorNode
from privfl.runtime.post import Invitation, Received, Refusal
from privfl.runtime.shelves import FolderShelf
from privfl.runtime.site import inputs_hash
from privfl.secagg import Announcement, SlotPlan
from privfl.wires import Delivery, open_envelope
from tests.runtime.realm import PASSPHRASE, Realm

DEADLINE = 600_000


@dataclass
class Tapped:
    """The coordinator's mailbox: lets the sites work before it looks, and keeps what came in."""

    inner: Any
    work: Callable[[], object]
    came: list[bytes] = field(default_factory=list)

    def receive(self, wait_ms: int) -> list[Delivery]:
        """See the mailbox's contract."""
        self.work()
        found: list[Delivery] = self.inner.receive(wait_ms)
        self.came += [delivery.data for delivery in found]
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@dataclass(frozen=True)
class Reply:
    """What one site answered: opened, and as it crossed the wire."""

    received: Received
    data: bytes

    @property
    def kind(self) -> str:
        """Kind of message."""
        return self.received.kind

    @property
    def reason(self) -> str:
        """Of a refusal."""
        return Refusal.decode(self.received.payload).reason


def spent_at(home: Path) -> tuple[Entry, ...]:
    """The ledger's entries, read and verified without any secret, against the key that the site enrolled with."""
    (path,) = (home / "ledger").glob("*.db")
    key = VerifyKey(read_request(home / "request").verify_key)
    return tuple(read_ledger(path, key).entries)


@dataclass
class Attacker:
    """An epoch of honest sites, and the coordinator's key, post and machine in the test's hands.

    Args:
        work: lets sites that live in this process answer; nothing where they are processes of their own.
        wait_ms: how long an answer is waited for.
    """

    world: Realm
    clock: Clock
    work: Callable[[], object] = lambda: None
    wait_ms: int = 0

    def __post_init__(self) -> None:
        self.home: OpenCoordinator = CoordinatorHome.open(self.world.trial.coordinator, PASSPHRASE, self.clock.now())
        self.tap = Tapped(self.home.mailbox, self.work)
        self.node = CoordinatorNode(
            self.home.party,
            self.home.signed_roster,
            self.tap,
            FolderShelf(self.home.folder / "shelf"),
            self.clock,
            SYSTEM,
            quiet=not self.wait_ms,
        )
        self.roster = self.home.party.roster
        self.names = {member.name: member.site_id for member in self.roster.holding("site")}
        self.round = 0

    def open_epoch(self) -> None:
        """Set up an epoch with every site, as the real coordinator does."""
        assert self.node.open_epoch(self.roster.site_ids) == {}

    @property
    def key(self) -> SigningKey:
        """The coordinator's identity key."""
        return self.home.party.key

    def compiled(self, spec: Spec, schema: Schema, **options: Any) -> Task:
        """A consistent task; ``options`` win over honest defaults."""
        honest: dict[str, Any] = {
            "epsilon": 4.0,
            "delta": 1e-5,
            "rounds": 4,
            "sites": len(self.names),
            "min_survivors": self.roster.default_min_survivors,
            "colluders": self.roster.corrupt_bound,
        }
        return spec.compile(schema, **{**honest, **options})

    def announce(
        self, task: Task, policy: bytes, slot: tuple[int, int] | None = None, /, **changes: Any
    ) -> Announcement:
        """Announce a task through the real machine, in the next round unless a slot is given."""
        machine = self.node.machine
        if machine.slot.stage in ("collecting", "voting", "releasing"):
            machine.abandon()
        if slot is None:
            self.round += 1
            slot = (self.round, 0)
        self.round = max(self.round, slot[0])
        honest = SlotPlan(
            task.id,
            inputs_hash(self.model(task)),
            policy,
            task.ring.bits,
            task.ring.word,
            task.length,
            machine.record.sites,
            False,
            self.roster.default_min_survivors,
            self.clock.now() + DEADLINE,
        )
        return machine.announce(replace(honest, **changes), slot)

    @staticmethod
    def model(task: Task) -> bytes:
        """The first model of a task."""
        return task.model_bytes(task.initial_state())

    def forge(self, announcement: Announcement, key: SigningKey | None = None, **changes: Any) -> Announcement:
        """Change an announcement behind the machine's back and sign it again."""
        body = replace(announcement, **changes)
        return replace(body, signature=(key or self.key).sign(Label.ANNOUNCEMENT, body.h0))

    def invite(self, name: str, announcement: Announcement, task: bytes, model: bytes, mandate: bytes = b"") -> Reply:
        """Send an invitation to one site and return its reply."""
        return self.ask(name, "announce", Invitation(announcement, task, model, mandate).encode())

    def ask(self, name: str, kind: str, payload: bytes) -> Reply:
        """Send a request of any kind to one site and return its reply."""
        before = len(self.tap.came)
        sent = self.node._post.send(self.names[name], kind, payload)
        found: list[Received] = []
        until = self.clock.now() + self.wait_ms
        while not found:
            self.node._post.receive(
                min(self.wait_ms, 200), lambda one: found.append(one) if one.reply_to == sent else None
            )
            if self.clock.now() >= until:
                break
        (received,) = found
        raw = [data for data in self.tap.came[before:] if self._opened(data).id == received.id]
        assert len({*raw}) == 1
        return Reply(received, raw[0])

    def _opened(self, data: bytes) -> Any:
        """Verified once more, under the site's key in the roster."""
        return open_envelope(data, self.roster, self.home.party.id, "site")

    def bodies(self) -> int:
        """How many bodies lie on the wire."""
        return sum(1 for path in (self.world.trial.wire / "bodies").rglob("*") if path.is_file())

    def refused(self, name: str, *words: str, reply: Callable[[], Reply]) -> str:
        """The reason of a signed refusal that names all ``words``, after checking that nothing was spent or left."""
        home = self.world.trial.sites[name]
        entries, bodies, came = spent_at(home), self.bodies(), len(self.tap.came)
        got = reply()
        assert got.kind == "refused", f"the site answered with {got.kind}"
        assert got.received.sender == self.names[name]
        envelope = self._opened(got.data)
        assert (envelope.sender, envelope.kind, envelope.bodies) == (self.names[name], "refused", ())
        assert {*self.tap.came[came:]} == {got.data}, "something else than the refusal crossed the wire"
        assert self.bodies() == bodies, "a refusal left a body on the wire"
        assert spent_at(home) == entries, "a refusal is in the ledger"
        told = got.reason
        assert all(word in told for word in words), told
        harmless(told, self.world)
        return told

    def close(self) -> None:
        """Let the folder go."""
        self.home.close()


def harmless(reason: str, world: Realm) -> None:
    """A reason that travels names no path of the site and is short."""
    assert 0 < len(reason) <= 2000
    assert str(world.trial.folder) not in reason
    assert "/" not in reason.replace("and/or", "")
    assert ".csv" not in reason
    assert ".db" not in reason
