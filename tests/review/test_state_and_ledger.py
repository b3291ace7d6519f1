"""Attacks on state and ledger that a review found to work once, each held down by the code that stopped it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from privfl_keys import Member, Roster, SecretBytes, SigningKey

from privfl.budget import Charge, Ledger, MemoryAccount, Policy, SignedPolicy
from privfl.budget.ledger_check import read_ledger
from privfl.clock import SystemClock
from privfl.dp import Cost, Trust, Unit
from privfl.entropy import SYSTEM
from privfl.errors import BudgetExceeded, Misuse, StorageError, Unverified
from privfl.homes.officer import OfficerHome
from privfl.homes.site import SiteHome
from privfl.homes.state import MemoryState, State
from privfl.homes.trial import policy_for
from privfl.runtime import post
from privfl.runtime.post import Refusal
from privfl.runtime.site_process import SiteProcess
from privfl.runtime.store import DurableSiteStore
from privfl.secagg.party import Party
from privfl.wires import MemoryWire
from tests.budget.ledgers import KEY, POLICY, START, charge, limits, made, rewrite
from tests.runtime.evil import Evil
from tests.runtime.realm import PASSPHRASE, Realm, realm
from tests.runtime.support import SCHEMA


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty ledger with a budget of 1."""
    made = Ledger.create(tmp_path / "l.db", KEY, federation="north", population="patients", now=START)
    made.use(POLICY, 1, limits(), START)
    return made


def test_what_was_left_open_while_the_site_went_on_is_never_refunded(ledger: Ledger) -> None:
    """A settlement that failed leaves a reservation open although its upload may have left; a later slot hides it."""
    ledger.reserve(charge(1), START)
    ledger.reserve(charge(2), START)
    ledger.reserve(charge(3), START)
    ledger.settle(charge(2).reference, START)
    done = ledger.recover(charge(2).reference, charge(2).reference, START)
    assert [(entry.reference, entry.kind) for entry in done] == [
        (charge(1).reference, "burn"),
        (charge(3).reference, "refund"),  # the newest, and neither accepted nor stored: nothing can have left
    ]
    spent = ledger.spent()
    assert spent is not None
    assert spent.mu2 == Fraction(2, 10)


def test_a_cost_too_large_to_be_written_down_is_over_the_budget_and_no_fault_of_the_ledger(ledger: Ledger) -> None:
    """It made the site's own ledger look broken, so that one announcement stopped the site at every start."""
    costs = {Unit.RECORD: Cost(10**31)}
    asked = Charge(bytes(32), charge(1).purpose, "ann", costs, Trust.DISTRIBUTED, "linear")
    with pytest.raises(BudgetExceeded, match="left"):
        ledger.reserve(asked, START)
    ledger.reserve(charge(1), START)


def test_a_row_put_before_the_first_is_named(tmp_path: Path) -> None:
    """Rows are numbered from 0, and a reader that began there saw nothing of what lay before."""
    path = made(tmp_path / "l.db")
    rewrite(path, lambda rows: [(-1, *rows[0][1:]), *rows])
    with pytest.raises(Unverified, match="moved"):
        read_ledger(path, KEY.verify_key)
    with pytest.raises(Unverified, match="moved"):
        Ledger.open(path, KEY)


class Failing(MemoryAccount):
    """An account that cannot be written for a while: no file descriptor is left, or its file is moved away."""

    broken = False

    def settle(self, reference: bytes, now: int) -> None:
        """See :class:`MemoryAccount`."""
        if self.broken:
            raise Misuse("/srv/north/ledger/patients.db: Too many open files")
        super().settle(reference, now)


def test_a_settlement_that_fails_stops_the_site_before_anything_is_sent() -> None:
    """The site used to go on, sent its upload when asked again, and got the charge back at its next start."""
    evil = Evil.make()
    node = evil.node()
    node.account = account = Failing(evil.terms.limits())
    account.broken = True
    announcement = evil.announce()
    with pytest.raises(StorageError, match="stops"):
        evil.invite(announcement)
    with pytest.raises(StorageError, match="stops"):
        node.serve()  # the message was not acknowledged, and the upload lies in the outbox by now
    account.broken = False
    reply = evil.invite(announcement)
    assert reply is not None
    assert reply.kind == "upload"
    assert account._settled == {announcement.h0: True}


def test_an_upload_is_not_repeated_under_a_policy_that_came_since() -> None:
    """A crash before sending, then a join with another policy: what was computed under the old one stays here."""
    evil = Evil.make()
    announcement = evil.announce()
    first = evil.invite(announcement)
    assert first is not None
    assert first.kind == "upload"
    evil.node().terms = replace(evil.terms, epsilon="0.5")
    reply = evil.invite(announcement)
    assert reply is not None
    assert reply.kind == "refused"
    assert "another policy" in Refusal.decode(reply.payload).reason


def rows_of(folder: Path) -> dict[str, tuple[str, int, bytes]]:
    """The raw rows of a sealed state, as whoever has the file reads them."""
    with closing(sqlite3.connect(folder / "state.db")) as database:
        return {row[0]: row for row in database.execute("SELECT * FROM items")}


@pytest.mark.parametrize("how", ["put back", "removed", "added"])
def test_one_value_of_the_sealed_state_cannot_be_turned_back_alone(tmp_path: Path, how: str) -> None:
    """Every value was sealed by itself: the ledger's anchor could be put back together with an older ledger."""
    key, owner = SecretBytes(bytes(32)), bytes(32)
    with closing(State.create(tmp_path, key, owner)) as state:
        state.put({"ledger": b"entry 2", "machine": b"slot 1", "gone": b"alarm"})
    old = rows_of(tmp_path)
    with closing(State.open(tmp_path, key, owner)) as state:
        state.put({"ledger": b"entry 8", "machine": b"slot 3", "gone": None})
        assert state.get("gone") is None
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        name = "gone" if how == "added" else "ledger"
        database.execute("DELETE FROM items WHERE name = ?", (name,))
        if how != "removed":
            database.execute("INSERT INTO items VALUES (?, ?, ?)", old[name])
        database.commit()
    with closing(State.open(tmp_path, key, owner)) as state:
        assert state.get("machine") == b"slot 3"
        with pytest.raises(Unverified, match="put back"):
            state.get(name)
        with pytest.raises(Unverified, match="put back"):
            state.rotate()  # nor does sealing again make it sound


def test_only_what_a_site_wrote_is_cleared_from_its_outbox(tmp_path: Path) -> None:
    """An outbox that is a link to a folder with room, where other things lie as well, emptied that folder."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "patients.csv").write_text("rows")
    (tmp_path / "outbox").symlink_to(tmp_path / "room")
    store = DurableSiteStore(MemoryState(), tmp_path / "outbox")
    store.save_outbox(b"", b"", b"first")
    store.save_outbox(b"", b"", b"second")
    assert len(list((tmp_path / "room").glob("*.body"))) == 1
    assert store.body() == b"second"
    assert (tmp_path / "room" / "patients.csv").read_text() == "rows"


def test_a_removed_lock_file_lets_no_second_process_in(tmp_path: Path) -> None:
    """Whoever takes the lock file for a stale one and removes it must not get two sites that vote and upload."""
    key, owner = SecretBytes(bytes(32)), bytes(32)
    with closing(State.create(tmp_path, key, owner)):
        (tmp_path / "lock").unlink()
        child = os.fork()
        if child == 0:
            try:
                State.open(tmp_path, SecretBytes(bytes(32)), owner)
            except StorageError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    State.open(tmp_path, SecretBytes(bytes(32)), owner).close()


def test_many_messages_that_name_one_large_body_are_not_all_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One member site could have the coordinator read one body sixty-four times over before it looked at any."""
    monkeypatch.setattr(post, "MAX_HELD", 200_000)
    site, coordinator = (SigningKey.generate(SYSTEM) for _ in range(2))
    others = [SigningKey.generate(SYSTEM) for _ in range(2)]
    members = [Member(f"s{at}", key.verify_key.raw, ("site",)) for at, key in enumerate([site, *others])]
    members.append(Member("c", coordinator.verify_key.raw, ("coordinator",)))
    roster = Roster.create("f", members, graph_seed=SYSTEM.draw(32), valid_from=0, valid_until=10**15)
    wire, here = MemoryWire(), coordinator.verify_key.site_id
    sender = post.Post(Party(site, roster), wire.mailbox(site.verify_key.site_id), SYSTEM, peer_role="coordinator")
    receiver = post.Post(Party(coordinator, roster), wire.mailbox(here), SYSTEM, peer_role="site")
    for _ in range(8):
        sender.send(here, "hello", bytes(100_000))
    batches: list[int] = []
    seen: list[post.Received] = []

    def counted(found: list[post.Received]) -> list[post.Received]:
        batches.append(sum(len(one.payload) for one in found))
        return found

    while receiver.receive(0, seen.append, order=counted):
        pass
    assert len(seen) == 8, "what was not taken in at once comes again"
    assert max(batches) <= 300_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    """Three sites that have joined."""
    with realm(tmp_path_factory.mktemp("realm"), 3) as made:
        yield made


def test_a_coordinator_that_never_pauses_keeps_no_epoch_alive(world: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of an old epoch were erased when the site was idle, so a ping every half second kept them for ever."""
    clock = SystemClock()
    with SiteHome.open(world.trial.sites["north"], PASSPHRASE, clock.now()) as site:
        process = SiteProcess(site, clock, SYSTEM)
        done: list[str] = []
        monkeypatch.setattr(process.node, "expire", lambda: done.append("expire"))
        monkeypatch.setattr(process.node, "serve", lambda wait_ms: done.append("serve") or 1)
        process.serve(lambda: len(done) >= 4)
    assert done == ["expire", "serve", "expire", "serve"]


def test_a_policy_with_a_smaller_delta_does_not_keep_a_site_from_starting(world: Realm) -> None:
    """What was charged before may exceed it: then no epsilon can be shown, and the filter admits nothing."""
    clock, folder = SystemClock(), world.trial.sites["south"]
    now = clock.now()
    with SiteHome.open(folder, PASSPHRASE, now) as site:
        costs = {Unit.RECORD: Cost(Fraction(1, 100), Fraction(1, 10**7))}
        first = charge(1)
        site.ledger.reserve(replace(first, costs=costs), now)
        site.ledger.settle(first.reference, now)
        site.state.put(site.anchor_item())
    fields = policy_for(SCHEMA.model_dump(mode="json"), now, federation="trial", version=2, delta=1e-8)
    officer = OfficerHome.open(world.trial.officer, PASSPHRASE)
    path = world.trial.folder / "policy-2"
    path.write_bytes(SignedPolicy.sign(Policy(**fields), officer.identity.key).encode())
    SiteHome.join(folder, PASSPHRASE, now, policy=path)
    with SiteHome.open(folder, PASSPHRASE, now) as site:
        assert SiteProcess(site, clock, SYSTEM)._spent() is None
        with pytest.raises(BudgetExceeded, match="admits nothing"):
            site.ledger.reserve(charge(2), now)
