"""Sites in one process that answer the same requests, some in memory and some on disk, each with its meter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from privfl_keys import Label, Roster, SigningKey, digest

from benchmarks._processes import PASSPHRASE, Shape, found
from privfl.budget import Charge, MemoryAccount, Purpose
from privfl.budget.ledger_chain import Chain
from privfl.budget.ledger_entries import Kind, cost_rows
from privfl.clock import SystemClock
from privfl.entropy import SYSTEM
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.site import OpenSite, SiteHome
from privfl.homes.state import State
from privfl.homes.trial import Trial
from privfl.learn import Schema, Task
from privfl.runtime.coordinator import CoordinatorNode
from privfl.runtime.jobs import TaskFile
from privfl.runtime.shelves import MemoryShelf
from privfl.runtime.site import SiteNode
from privfl.runtime.site_process import SiteProcess
from privfl.runtime.store import MemorySiteStore
from privfl.runtime.terms import Terms, costs_of
from privfl.runtime.training_jobs import compile_task
from privfl.secagg import Announcement, Rules
from privfl.tasks import Question
from privfl.wires import MemoryWire

__all__ = ["Meter", "Seat", "World", "fill", "seated"]

PARTS = ("policy", "reserve", "settle", "state", "outbox", "status")
UPLOADS = 20_000  # the budget is spread over so many, that no run of this benchmark uses it up
TASK = TaskFile(label="y", schema="schema.yaml", epsilon=4.0, delta=1e-5, rounds=UPLOADS, mode="voted")


@dataclass
class Meter:
    """Seconds of one site's turns in a round, and in which parts of them."""

    turns: float = 0.0
    processor: float = 0.0  # of the same, without training, noise and masking
    work: float = 0.0  # training, noise and masking: between two checkpoints
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    saves: int = 0
    _marks: dict[str, float] = field(default_factory=dict)

    def checkpoint(self, name: str) -> None:
        """A step of the slot is done."""
        now, busy = time.perf_counter(), time.process_time()
        if name == "accepted":
            self._marks = {name: now, "busy": busy}
        elif name == "computed":
            self.processor -= busy - self._marks["busy"]
            self.work += now - self._marks["accepted"]
            self._marks[name] = now - self.parts["state"]
        elif name == "stored":  # what is left of it when the put of the sealed state is taken off
            self.parts["outbox"] += now - self.parts["state"] - self._marks["computed"]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is done inside to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.parts[name] += time.perf_counter() - start

    @property
    def beside(self) -> float:
        """Seconds beside training, noise and masking."""
        return self.turns - self.work


class Timed:
    """Something whose named methods are counted to parts of a meter."""

    def __init__(self, inner: object, seat: Seat, **parts: str) -> None:
        self._inner, self._seat, self._parts = inner, seat, parts

    def __getattr__(self, name: str) -> Any:
        value, part = getattr(self._inner, name), self._parts.get(name)
        if part is None:
            return value

        def timed(*args: Any, **named: Any) -> Any:
            self._seat.meter.saves += part == "state"
            with self._seat.meter.part(part):
                return value(*args, **named)

        return timed


class Named:
    """Plain terms under the hash of the policy that the coordinator's announcements name."""

    def __init__(self, terms: Terms, policy: bytes) -> None:
        self._terms, self._policy = terms, policy

    def rules(self) -> Rules:
        """As the terms, of the policy."""
        return replace(self._terms.rules(), policy=self._policy)

    def permit(
        self, roster: Roster, announcement: Announcement, question: Question, inputs: bytes, mandate: bytes, now: int
    ) -> Charge:
        """As the terms."""
        return self._terms.permit(roster, announcement, question, inputs, mandate, now)


class Seat:
    """One site of the federation: its node, and the meter of the round that runs."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.node: SiteNode
        self.shown: Callable[[str], None] | None = None

    def turn(self) -> None:
        """Answer what has come, as :meth:`SiteProcess.serve` does."""
        start, busy = time.perf_counter(), time.process_time()
        if self.node.serve() and self.shown is not None:
            self.shown("")
        self.meter.turns += time.perf_counter() - start
        self.meter.processor += time.process_time() - busy

    def checkpoint(self, name: str, round_: int) -> None:
        """As :class:`SiteNode` calls it."""
        self.meter.checkpoint(name)


class _Process(SiteProcess):
    """A site process that shows its status on the meter of a seat."""

    seat: Seat | None = None

    def _show(self, doing: str) -> None:
        if self.seat is None:
            super()._show(doing)
            return
        with self.seat.meter.part("status"):
            super()._show(doing)


@dataclass
class World:
    """A coordinator and its sites over a memory wire; ``plain``, ``durable`` and perhaps ``full`` are measured."""

    coordinator: CoordinatorNode
    present: tuple[bytes, ...]
    policy: bytes
    task: Task
    least: int
    seats: dict[str, Seat]
    start_s: dict[str, float]


def fill(path: Path, key: SigningKey, charge: Charge, entries: int, now: int) -> None:
    """Bring a ledger to ``entries`` or one less by settled reservations, signed and checked, in one transaction."""
    chain = Chain(path, key)
    with chain.transaction() as book:
        at = 0
        while book.seq + 2 < entries:
            reference, at = digest(Label.INPUTS, b"past", at), at + 1
            chain.enter(
                book,
                Kind.RESERVE,
                now,
                reference=reference,
                purpose=charge.purpose.value,
                analyst=charge.analyst,
                what=charge.what,
                trust=charge.trust.value if charge.trust else "",
                costs=cost_rows(charge.costs),
            )
            chain.enter(book, Kind.SETTLE, now, reference=reference)
    chain.close()


@contextmanager
def seated(folder: Path, shape: Shape, entries: int) -> Iterator[World]:
    """Found a federation below ``folder`` and seat it.

    The first site is in memory, the second on disk as a real process has it, the third as well with ``entries``
    entries in its ledger (0: there is none such), the others in memory.
    """
    now = SystemClock().now()
    trial = found(folder, shape)
    wire = MemoryWire()
    with ExitStack() as stack:
        home = stack.enter_context(CoordinatorHome.open(trial.coordinator, PASSPHRASE, now))
        mailbox = wire.mailbox(home.party.id)
        node = CoordinatorNode(
            home.party, home.signed_roster, mailbox, MemoryShelf(), SystemClock(), SYSTEM, quiet=True
        )
        task, _, least = compile_task(TASK, Schema.from_yaml(trial.schema), home.party.roster, home.policy)
        world = World(node, home.party.roster.site_ids, home.policy.hash, task, least, {}, {})
        for at, name in enumerate(shape.names):
            kind = ("plain", "durable", "full" if entries else "other 2", f"other {at}")[min(at, 3)]
            if kind == "full":
                _filled(trial, name, task, entries)
            start = time.perf_counter()
            site = stack.enter_context(SiteHome.open(trial.sites[name], PASSPHRASE, SystemClock().now()))
            world.start_s[kind] = time.perf_counter() - start
            site.mailbox = wire.mailbox(site.party.id)
            world.seats[kind] = _on_disk(site) if kind in ("durable", "full") else _in_memory(site, least)
        turns = list(world.seats.values())

        def work() -> None:
            for seat in turns:
                seat.turn()
            turns.append(turns.pop(0))  # each time another one begins

        wire.work = work
        yield world


def _filled(trial: Trial, name: str, task: Task, entries: int) -> None:
    with SiteHome.open(trial.sites[name], PASSPHRASE, SystemClock().now(), data=False) as site:
        assert task.release is not None
        costs, policy = costs_of(task.release), site.policy.hash
        charge = Charge(bytes(32), Purpose.TRAINING, "coordinator", costs, task.release.trust, "past", policy)
        fill(site.ledger.path, site.identity.key, charge, entries - 1, SystemClock().now())
        while len(site.ledger.entries()) < entries:
            site.ledger.note("filled", SystemClock().now())  # only now does it know of the others' entries
        site.state.put(site.anchor_item())


def _on_disk(site: OpenSite) -> Seat:
    seat = Seat()
    site.state = cast("State", Timed(site.state, seat, put="state"))
    process = _Process(site, SystemClock(), SYSTEM, seat.checkpoint)
    process.seat, seat.node, seat.shown = seat, process.node, process._show
    process.node.terms = Timed(process.node.terms, seat, permit="policy")
    process.node.account = Timed(process.node.account, seat, reserve="reserve", settle="settle")
    return seat


def _in_memory(site: OpenSite, least: int) -> Seat:
    seat, policy = Seat(), site.policy
    terms = Terms(repr(policy.epsilon), repr(policy.delta), str(policy.unit), str(policy.trust), least, True, True)
    seat.node = SiteNode(
        site.party,
        Named(terms, policy.hash),
        MemoryAccount(terms.limits()),
        site.bound,
        MemorySiteStore(),
        site.mailbox,
        SystemClock(),
        SYSTEM,
        seat.checkpoint,
    )
    return seat
