"""The ledger as an account: durable before it returns, idempotent, exact, and carried over whatever changes."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from privfl_keys import Label, digest

from privfl.budget import Anchor, Ledger, Limits, Purpose, read_ledger, verify_file
from privfl.budget.ledger_entries import Entry, Kind, Opening, Sealed, Stated
from privfl.budget.ledger_file import create_file
from privfl.dp import Cost, Trust, Unit
from privfl.errors import BudgetExceeded, Malformed, Misuse, Refused, StorageError, Unverified
from tests.budget.ledgers import KEY, NEXT_POLICY, OTHER, POLICY, START, budget, charge, limits, made, stored

MINUTE = 60_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a ledger is made."""
    return tmp_path / "patients.db"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    """A new ledger with a policy of μ² = 1 in force."""
    new = Ledger.create(path, KEY, federation="north", population="patients", now=START)
    new.use(POLICY, 1, limits(), START)
    return new


def test_reserve_settle_and_what_is_left(ledger: Ledger, path: Path) -> None:
    """Every step is in the file when it returns, as another reader sees it; repeats cost nothing."""
    head = ledger.reserve(charge(1), START + 5)
    assert read_ledger(path).head == head == ledger.head
    assert ledger.reserve(charge(1), START + 6) == head
    ledger.settle(charge(1).reference, START + 7)
    ledger.settle(charge(1).reference, START + 8)
    assert ledger.reserve(charge(1), START + 9) == ledger.head != head
    assert [entry.kind for entry in ledger.entries()] == ["open", "policy", "reserve", "settle"]
    assert ledger.anchor == Anchor(3, ledger.head)
    assert ledger.spent() == ledger.spent(Unit.SITE, analyst="ann") == Cost(Fraction(1, 10))
    assert ledger.spent(purpose=Purpose.ANALYTICS) == Cost(0)
    assert (ledger.policy, ledger.limits) == ((1, POLICY), limits())
    assert ledger.opening.population == "patients"


def test_training_and_analytics_meet_in_one_filter(ledger: Ledger) -> None:
    """What one spends the other lacks."""
    for number in range(10):
        ledger.reserve(charge(number, purpose=list(Purpose)[number % 2]), START)
    with pytest.raises(BudgetExceeded, match="next step"):
        ledger.reserve(charge(11), START)
    assert len(ledger.entries()) == 12
    assert ledger.spent() == Cost(1)


def test_everything_is_as_it_was_after_opening_again(ledger: Ledger, path: Path) -> None:
    """Totals, limits in force, open reservations; and one plain file is all there is."""
    ledger.reserve(charge(1), START)
    before = (ledger.head, ledger.spent(), ledger.entries(), ledger.open_reservations())
    ledger.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o077 == 0
    with Ledger.open(path, KEY) as again:
        assert (again.head, again.spent(), again.entries(), again.open_reservations()) == before
        assert again.reserve(charge(1), START) == before[0]
    with pytest.raises(Misuse, match="is closed"):
        again.reserve(charge(2), START)


def test_recovery_closes_what_a_crash_left_open(ledger: Ledger) -> None:
    """Stored is settled, only accepted is burnt, never used is refunded; only that may be reserved anew."""
    for number in (0, 2, 3, 1):
        ledger.reserve(charge(number), START)
    ledger.settle(charge(0).reference, START)
    done = ledger.recover(charge(2).reference, charge(3).reference, START + 1)
    assert [(entry.kind, entry.reference) for entry in done] == [
        ("burn", charge(2).reference),
        ("settle", charge(3).reference),
        ("refund", charge(1).reference),
    ]
    assert ledger.spent() == Cost(Fraction(3, 10))
    assert ledger.recover(None, None, START + 2) == []
    count = len(ledger.entries())
    ledger.reserve(charge(2), START + 2)
    assert len(ledger.entries()) == count
    ledger.reserve(charge(1), START + 2)
    assert len(ledger.entries()) == count + 1
    assert ledger.spent() == Cost(Fraction(4, 10))


def test_what_is_closed_is_never_refunded(ledger: Ledger) -> None:
    """Neither settled nor burnt nor unknown; a refund may be repeated."""
    for number in range(3):
        ledger.reserve(charge(number), START)
    ledger.settle(charge(0).reference, START)
    ledger.burn(charge(1).reference, START)
    ledger.burn(charge(1).reference, START)
    ledger.burn(charge(0).reference, START)  # settled: spent as well
    for number in (0, 1, 7):
        with pytest.raises(Misuse, match="closes an open reservation"):
            ledger.refund(charge(number).reference, START)
    with pytest.raises(Misuse, match="has a burn"):
        ledger.settle(charge(1).reference, START)
    ledger.refund(charge(2).reference, START)
    ledger.refund(charge(2).reference, START)
    assert ledger.spent() == Cost(Fraction(2, 10))


def test_a_new_policy_never_resets_what_is_spent(ledger: Ledger) -> None:
    """A larger budget leaves more, a smaller one nothing; older policies and other ones of a version are refused."""
    ledger.reserve(charge(1, Fraction(9, 10)), START)
    ledger.use(POLICY, 1, limits(), START)
    assert len(ledger.entries()) == 3
    ledger.use(NEXT_POLICY, 2, limits(Fraction(1, 2)), START)
    with pytest.raises(BudgetExceeded, match="already spent"):
        ledger.reserve(charge(2, 0), START)
    for version, name in ((1, POLICY), (2, POLICY)):
        with pytest.raises(Refused, match="version 2 of the policy is in force"):
            ledger.use(name, version, limits(), START)
    ledger.use(POLICY, 3, limits(2), START)
    with pytest.raises(BudgetExceeded):
        ledger.reserve(charge(2, Fraction(12, 10)), START)
    ledger.reserve(charge(2, Fraction(11, 10)), START)
    assert ledger.spent() == Cost(2)


def test_a_new_unit_counts_the_past_in_it(ledger: Ledger) -> None:
    """Where the past has a cost in it; where it has none, everything is refused with that reason."""
    ledger.reserve(charge(1, units=(Unit.RECORD, Unit.SITE)), START)
    ledger.use(NEXT_POLICY, 2, limits(unit=Unit.SITE), START)
    assert ledger.spent() == Cost(Fraction(1, 10))
    ledger.use(POLICY, 3, limits(unit=Unit.SUBJECT), START)
    assert ledger.spent() is None
    with pytest.raises(BudgetExceeded, match="no finite cost per subject"):
        ledger.reserve(charge(2), START)


def test_a_charge_belongs_to_the_policy_in_force(ledger: Ledger) -> None:
    """Permitted by another one, or by none: refused, and nothing is entered."""
    with pytest.raises(Refused, match="another policy"):
        ledger.reserve(replace(charge(1), policy=NEXT_POLICY), START)
    ledger.reserve(replace(charge(1), policy=POLICY), START)
    assert ledger.entries()[-1].policy == POLICY


def test_before_the_first_policy_nothing_is_reserved(path: Path) -> None:
    """There are no limits to hold it against."""
    with Ledger.create(path, KEY, federation="north", population="patients", now=START) as ledger:
        assert ledger.policy is None
        with pytest.raises(Refused, match="no policy is in force"):
            ledger.reserve(charge(1), START)


def test_the_clock(ledger: Ledger) -> None:
    """Within five minutes time stands still; further back everything that spends is refused, closing is not."""
    ledger.reserve(charge(1), START + 10 * MINUTE)
    ledger.reserve(charge(2), START + 5 * MINUTE)
    assert ledger.entries()[-1].time == START + 10 * MINUTE
    with pytest.raises(Refused, match="this machine's clock is 300 s behind"):
        ledger.reserve(charge(3), START + 5 * MINUTE - 1)
    with pytest.raises(Refused, match="clock"):
        ledger.use(NEXT_POLICY, 2, limits(), 0)
    ledger.settle(charge(2).reference, 0)
    assert ledger.entries()[-1].time == START + 10 * MINUTE
    assert ledger.spent() == Cost(Fraction(2, 10))


def test_windows_run_on_the_ledger_s_own_time(path: Path) -> None:
    """The window refreshes, the lifetime does not; so does what the ledger says is spent in it."""
    bounds = Limits(
        Unit.RECORD, budget(Fraction(1, 10)), {Purpose.TRAINING: Fraction(1)}, {}, MINUTE, budget(Fraction(2, 10))
    )
    with Ledger.create(path, KEY, federation="north", population="patients", now=START) as ledger:
        ledger.use(POLICY, 1, bounds, START)
        ledger.reserve(charge(1), START)
        with pytest.raises(BudgetExceeded, match="leaves on 2026-01-01 00:01"):
            ledger.reserve(charge(2), START + MINUTE - 1)
        ledger.reserve(charge(2), START + MINUTE)
        assert ledger.spent(now=START + MINUTE) == Cost(Fraction(1, 10))
        assert ledger.spent() == Cost(Fraction(2, 10))
        with pytest.raises(BudgetExceeded, match="the lifetime budget"):
            ledger.reserve(charge(3), START + 9 * MINUTE)
    assert verify_file(path, KEY.verify_key).book.limits == bounds


def test_notes_are_kept(ledger: Ledger) -> None:
    """Words about a slot, for later readers; too many of them are refused."""
    ledger.note("decided after seeing the data: outside the guarantee", START, charge(1).reference)
    assert ledger.entries()[-1].what.startswith("decided")
    with pytest.raises(Misuse, match="shorten"):
        ledger.note("x" * 2001, START)
    assert ledger.entries()[-1].what.startswith("decided")


def test_wrong_calls(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    """Each named, and nothing done."""
    with pytest.raises(Misuse, match="exists; a ledger is never overwritten"):
        Ledger.create(path, KEY, federation="north", population="patients", now=START)
    with pytest.raises(Misuse, match="does not exist"):
        Ledger.create(tmp_path / "no" / "x.db", KEY, federation="north", population="patients", now=START)
    with pytest.raises(Misuse, match="no ledger at"):
        Ledger.open(tmp_path / "none.db", KEY)
    with pytest.raises(Unverified, match="is the ledger of site"):
        Ledger.open(path, OTHER)
    with pytest.raises(Misuse, match="32 bytes of its H0"):
        ledger.reserve(replace(charge(1), reference=b"short"), START)
    with pytest.raises(Misuse, match="shorten it"):
        ledger.reserve(replace(charge(1), what="x" * 3000), START)
    with pytest.raises(Misuse, match="32 bytes"):
        ledger.use(b"", 2, limits(), START)
    assert len(ledger.entries()) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name]


def test_a_full_disk_changes_nothing(ledger: Ledger, path: Path) -> None:
    """The failure is named with its next step; the ledger goes on as soon as there is room."""
    connection: sqlite3.Connection = ledger._chain._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    ledger.note("x" * 2000, START)
    for _ in range(9):
        with contextlib.suppress(StorageError):
            ledger.note("x" * 2000, START)
    with pytest.raises(StorageError, match="free some space"):
        ledger.note("x" * 2000, START)
    held = ledger.head
    assert read_ledger(path).head == held
    connection.execute("PRAGMA max_page_count = 100000")
    assert ledger.reserve(charge(1), START) == read_ledger(path).head != held


def test_a_read_only_file_is_named(ledger: Ledger) -> None:
    """Nothing is charged."""
    ledger._chain._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageError, match="may not be written"):
        ledger.reserve(charge(1), START)


def test_a_locked_file_is_named(ledger: Ledger, path: Path) -> None:
    """Another process that keeps it is waited for, then named; nothing is charged."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ledger._chain._connection.execute("PRAGMA busy_timeout = 1")
    with pytest.raises(StorageError, match="another process has kept"):
        ledger.reserve(charge(1), START)
    other.close()
    ledger.reserve(charge(1), START)


def test_an_older_copy_is_refused_by_what_is_remembered(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    """Also when the file is swapped under a running site."""
    copy = tmp_path / "copy.db"
    shutil.copyfile(path, copy)
    ledger.reserve(charge(1), START)
    remembered = ledger.anchor
    os.replace(copy, path)
    with pytest.raises(Unverified, match="swapped for another file"):
        ledger.reserve(charge(2), START)
    ledger.close()
    with pytest.raises(Unverified, match="ends with entry 1, and entry 2 of it was seen before"):
        Ledger.open(path, KEY, anchor=remembered)


def test_reading_touches_nothing(tmp_path: Path) -> None:
    """Not beside a running site, and not in a folder that nobody may write."""
    path = made(tmp_path / "patients.db")
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    tmp_path.chmod(0o500)
    try:
        assert verify_file(path, None).summary()["entries"] == 9
    finally:
        tmp_path.chmod(0o700)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [file.name for file in tmp_path.iterdir()] == ["patients.db"]


def test_known_bytes_of_an_entry() -> None:
    """The format is fixed: bytes, hash and signature of one reservation, computed once and kept here."""
    entry = Entry(
        7,
        b"\x11" * 32,
        START,
        Kind.RESERVE.value,
        b"\x22" * 32,
        Purpose.TRAINING.value,
        "ann",
        "logistic, round 3",
        Trust.DISTRIBUTED.value,
        (("record", "0.25", "0"), ("site", "0.5", "0.000000000001")),
        b"\x33" * 32,
    )
    sealed = Sealed.of(entry, KEY)
    assert sealed.body.hex() == KNOWN_BODY
    assert entry.hash.hex() == KNOWN_HASH
    assert entry.hash == digest(Label.LEDGER, *entry.to_value())
    assert sealed.signature.hex() == KNOWN_SIGNATURE
    assert Entry.decode(sealed.body) == entry
    assert entry.charge.costs[Unit.RECORD] == Cost(Fraction(1, 4))
    assert entry.title == "entry 7 (reserve, 2026-01-01 00:00:00 UTC)"


@pytest.mark.parametrize(
    "bounds",
    [
        limits(),
        Limits(Unit.SUBJECT, None, {}, noiseless=True),
        Limits(Unit.SITE, budget(), {Purpose.TRAINING: Fraction(1, 3)}, {"ann": Fraction(0.1)}, 5, budget(3), 2),
    ],
)
def test_limits_are_stated_exactly(bounds: Limits) -> None:
    """What is read back is what was stated, fractions of floats included; other spellings are refused."""
    stated = Stated.of(3, bounds)
    assert Stated.decode(stated.encode()).limits() == bounds
    for wrong in (
        replace(stated, unit="person"),
        replace(stated, shares=(("training", "2/2"),)),
        replace(stated, shares=(("training", "1e9"),)),
        replace(stated, shares=(("training", "1"), ("training", "1"))),
        replace(stated, budget=("nan", "1e-05", "1", "0")),
        replace(stated, budget=("5.0", "0.00001", "1", "0")),
        replace(stated, budget=("5.0",)),
        replace(stated, budget=("5.0", "1.0", "1", "0")),
        replace(stated, budget=("0.0", "1e-05", "1", "0")),
        replace(stated, sites_per_subject=0),
    ):
        with pytest.raises(Malformed):
            wrong.limits()


def test_an_opening_names_its_format(path: Path) -> None:
    """A ledger of a later format is not misread."""
    detail = Opening(2, KEY.verify_key.raw, "north", "patients").encode()
    create_file(path, Sealed.of(Entry(0, bytes(32), START, "open", detail=detail), KEY))
    with pytest.raises(Unverified, match="format 2 and this program reads 1"):
        read_ledger(path)
    assert len(stored(path)) == 1


KNOWN_BODY = (
    "6c0000000d730000000c6c656467657220656e74727969010762000000201111111111111111111111111111111111111111"
    "1111111111111111111111116906019b76daa800730000000772657365727665620000002022222222222222222222222222"
    "222222222222222222222222222222222222227300000008747261696e696e677300000003616e6e73000000116c6f676973"
    "7469632c20726f756e642033730000000b64697374726962757465646c000000026c0000000373000000067265636f726473"
    "00000004302e32357300000001306c000000037300000004736974657300000003302e35730000000e302e30303030303030"
    "3030303031620000002033333333333333333333333333333333333333333333333333333333333333336200000000"
)
KNOWN_HASH = "303353de2fa7e3d9a82d44f2e78c2974f023eb55a383f38ed91d2e9558a1799f"
KNOWN_SIGNATURE = (
    "15afb8f28745276819be68e945268a04d391ebcf3afa399982ce9159c89b8d6b"
    "dec1ece19e8d4155f6e0aa3c6004eee5677870628bbc2f08ac6f41a56120eb0f"
)
