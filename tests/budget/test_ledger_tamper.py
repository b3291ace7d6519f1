"""Whoever changes a ledger's file is found out, and the first bad entry is named."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privfl.budget import Anchor, Book, Ledger, read_ledger, verify_file
from privfl.budget.ledger_entries import Entry, Sealed, Stated
from privfl.errors import Misuse, Theirs, Unverified
from tests.budget.ledgers import KEY, NEXT_POLICY, OTHER, START, charge, limits, made, rewrite, signed, stored

Rows = list[tuple[int, bytes, bytes]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """open, policy, then reserve and settle four times, the last one open: entries 0 to 8."""
    return made(tmp_path_factory.mktemp("original") / "patients.db")


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copyfile(original, tmp_path / "patients.db"))


def found(path: Path, *words: str, anchor: Anchor | None = None) -> None:
    """Both the site and a verifier without secrets refuse the file, with these words."""
    for attempt in (
        lambda: verify_file(path, KEY.verify_key, anchor),
        lambda: Ledger.open(path, KEY, anchor=anchor),
    ):
        with pytest.raises(Unverified) as caught:
            attempt()
        assert all(word in str(caught.value) for word in words), str(caught.value)


def edited(number: int, **fields: Any) -> Callable[[Rows], Rows]:
    """Change fields of one entry and keep its signature."""

    def change(rows: Rows) -> Rows:
        entry = replace(Entry.decode(rows[number][1]), **fields)
        return [*rows[:number], (number, entry.encode(), rows[number][2]), *rows[number + 1 :]]

    return change


EDITS: dict[str, tuple[Callable[[Rows], Rows], str, str]] = {
    "cheaper": (edited(4, costs=(("record", "0", "0"),)), "entry 4 (reserve,", "signature is not this site's"),
    "other time": (edited(5, time=START + 1010), "entry 5 (settle,", "signature"),
    "other words": (edited(2, what="nothing much"), "entry 2 (reserve,", "signature"),
    "other analyst": (edited(8, analyst="bob"), "entry 8 (reserve,", "signature"),
    "other signature": (lambda r: [*r[:3], (3, r[3][1], r[4][2]), *r[4:]], "entry 3 (settle,", "signature"),
    "signed by another": (lambda r: [*r[:3], signed(Entry.decode(r[3][1]), OTHER), *r[4:]], "entry 3 (", "signature"),
    "deleted": (lambda r: r[:4] + r[5:], "entry 5 (settle,", "entry 4 should follow"),
    "deleted, moved up": (lambda r: r[:4] + [(n - 1, b, s) for n, b, s in r[5:]], "entry 4 is", "number 4; entries"),
    "first deleted": (lambda r: r[1:], "entry 1 (policy,", "first entries are missing"),
    "all deleted": (lambda r: [], "its first entry is missing", ""),
    "swapped": (lambda r: [*r[:4], (4, *r[5][1:]), (5, *r[4][1:]), *r[6:]], "entry 5 (settle,", "number 4"),
    "copied": (lambda r: [*r, (9, *r[3][1:])], "entry 3 (settle,", "number 9"),
    "garbage": (lambda r: [*r[:6], (6, b"rubbish", r[6][2]), *r[7:]], "entry 6 is no ledger entry", ""),
    "text": (lambda r: [*r[:6], (6, "text", r[6][2]), *r[7:]], "entry 6 is no ledger entry", "not stored as bytes"),  # type: ignore[list-item]
    "long signature": (lambda r: [*r[:6], (6, r[6][1], r[6][2] * 2), *r[7:]], "entry 6 (reserve,", "signature"),
    "huge": (lambda r: [*r[:6], (6, bytes(5 * 2**20), r[6][2]), *r[7:]], "larger than any ledger entry", ""),
}


@pytest.mark.parametrize("how", EDITS)
def test_edits_of_the_file(how: str, path: Path) -> None:
    """By someone who has the file and not the key."""
    change, *words = EDITS[how]
    if how == "deleted, moved up":
        words = ["entry 5 (settle,", "stored as number 4"]
    rewrite(path, change)
    found(path, *words)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 8), st.integers(1, 2), st.integers(0, 10_000), st.integers(0, 7))
def test_every_flipped_bit_is_found(path: Path, number: int, part: int, at: int, bit: int) -> None:
    """In whatever entry, its bytes or its signature; nothing before it is blamed."""
    rows = stored(path)
    row = list(rows[number])
    data = bytearray(row[part])  # type: ignore[call-overload]
    data[at % len(data)] ^= 1 << bit
    row[part] = bytes(data)
    book = [(n, Sealed(b, s)) for n, b, s in [*rows[:number], tuple(row), *rows[number + 1 :]]]
    with pytest.raises(Unverified, match=rf"^entry {number} " if part == 2 else "^entry"):
        Book.read(book, KEY.verify_key)


def follow(path: Path, **fields: Any) -> None:
    """Append an entry with these fields, in its right place and signed by the site itself."""

    def change(rows: Rows) -> Rows:
        last = Entry.decode(rows[-1][1])
        base = Entry(last.seq + 1, last.hash, last.time, "note", policy=last.policy)
        return [*rows, signed(replace(base, **fields))]

    rewrite(path, change)


OPEN_ONE, SETTLED_ONE = charge(3).reference, charge(0).reference
AGAIN = {
    "kind": "reserve",
    "purpose": "training",
    "analyst": "ann",
    "trust": "distributed",
    "costs": (("record", "0.1", "0"),),
}
NEXT = {"kind": "policy", "policy": NEXT_POLICY}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "refund", "reference": SETTLED_ONE}, "has a settle already"),
        ({"kind": "settle", "reference": bytes(32).replace(b"\0", b"z")}, "was never reserved"),
        ({"kind": "settle"}, "was never reserved"),
        ({"kind": "note", "time": START}, "time never runs backwards"),
        ({"kind": "note", "seq": 12}, "entry 9 should follow"),
        ({"kind": "note", "previous": b"x" * 32}, "does not continue entry 8"),
        ({"kind": "note", "policy": NEXT_POLICY}, "another policy than the one in force"),
        ({"kind": "note", "costs": (("record", "1", "0"),)}, "an entry of this kind has no costs"),
        ({"kind": "gift"}, "no such kind"),
        ({"kind": "open"}, "no such kind"),
        ({**AGAIN, "reference": OPEN_ONE}, "reserved already"),
        ({**AGAIN, "reference": b"n" * 32, "costs": (("record", "99.7", "0"),)}, "breaks the limits in force"),
        ({**AGAIN, "reference": b"n" * 32, "costs": ()}, "no finite cost per record"),
        ({**AGAIN, "reference": b"n" * 32, "costs": (("record", "0.10", "0"),)}, "not a canonical decimal"),
        ({**AGAIN, "reference": b"n" * 32, "costs": (("site", "0", "0"), ("record", "0", "0"))}, "not sorted"),
        ({**AGAIN, "reference": b"n" * 32, "purpose": "fun"}, "not well stated"),
        ({**AGAIN, "reference": b"n" * 31}, "names no slot"),
        ({**NEXT, "detail": Stated.of(0, limits()).encode()}, "and 0 is older"),
        ({**NEXT, "detail": Stated.of(1, limits()).encode()}, "another policy of version 1 is in force"),
        ({**NEXT, "policy": bytes(32), "detail": Stated.of(2, limits()).encode()}, "a policy has a hash"),
        ({**NEXT, "detail": b"?"}, "entry 9 (policy"),
    ],
)
def test_what_the_site_itself_must_not_enter(fields: dict[str, Any], words: str, path: Path) -> None:
    """A site that has its key still cannot extend the ledger against the rules; the entry is named."""
    follow(path, **fields)
    if "seq" in fields:
        found(path, words)
    else:
        found(path, "entry 9 (", words)


def test_a_truncated_end_needs_a_memory(path: Path) -> None:
    """By itself a shortened chain is a chain; the anchor, the site's own or anyone's, knows better."""
    book = read_ledger(path)
    rewrite(path, lambda rows: rows[:-2])
    assert verify_file(path, KEY.verify_key).summary()["entries"] == 7
    found(path, "ends with entry 6, and entry 8 of it was seen before", "older copy", anchor=book.anchor)
    found(path, "ends with entry 6, and entry 7", anchor=Anchor(7, book.entries[7].hash))


def test_another_history_is_named_by_the_anchor(path: Path, tmp_path: Path) -> None:
    """Begun anew by the site itself, with as many entries."""
    other = made(tmp_path / "other.db", mu2=99)
    found(other, "entry 8 (reserve,", "another entry was seen", anchor=read_ledger(path).anchor)


def test_another_site_s_ledger(path: Path) -> None:
    """A whole and sound one, in the wrong place."""
    with pytest.raises(Unverified, match=r"entry 0 .open.*this is the ledger of site"):
        verify_file(path, OTHER.verify_key)


SCHEMAS = {
    "a view in its place": "ALTER TABLE entries RENAME TO e; CREATE VIEW entries AS SELECT * FROM e",
    "a view": "CREATE VIEW more AS SELECT * FROM entries",
    "a table": "CREATE TABLE more (x)",
    "a trigger": "CREATE TRIGGER more AFTER INSERT ON entries BEGIN SELECT 1; END",
    "no trigger": "DROP TRIGGER entries_keep_deleted",
    "an index": "CREATE INDEX more ON entries (body)",
    "a column": "ALTER TABLE entries ADD COLUMN more TEXT",
    "statistics": "ANALYZE",
}


@pytest.mark.parametrize("how", SCHEMAS)
def test_another_schema(how: str, path: Path) -> None:
    """Nothing beside the one table that could show rows that are not there, or change new ones."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMAS[how])
    found(path, "no plain ledger")


def test_a_schema_that_is_altered_under_a_running_site(path: Path) -> None:
    """Every transaction looks again."""
    with Ledger.open(path, KEY) as ledger, closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMAS["a trigger"])
        with pytest.raises(Unverified, match="no plain ledger"):
            ledger.reserve(charge(9), START + 9000)


def test_rows_that_are_altered_under_a_running_site(path: Path) -> None:
    """Its last entry must be where it was."""
    with Ledger.open(path, KEY) as ledger:
        rewrite(path, lambda rows: rows[:-1])
        with pytest.raises(Unverified, match=r"entry 8 .reserve.* is gone or altered"):
            ledger.reserve(charge(9), START + 9000)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = x'00'",
        "DELETE FROM entries WHERE seq = 3",
        "DELETE FROM entries",
        "INSERT OR REPLACE INTO entries VALUES (3, x'00', x'00')",
        "INSERT INTO entries VALUES (12, x'00', x'00')",
        "INSERT INTO entries VALUES (-1, x'00', x'00')",
    ],
)
def test_the_database_itself_only_lets_it_grow(statement: str, path: Path) -> None:
    """A mistake with SQLite's own shell is stopped before it is one."""
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError, match="only grows"):
        connection.execute(statement)
    assert len(stored(path)) == 9


@pytest.mark.parametrize("size", [0, 10, 1000, 5000])
def test_damaged_files(size: int, path: Path) -> None:
    """Cut off, or overwritten with noise from there on."""
    data = path.read_bytes()
    path.write_bytes(data[:size])
    found(path)
    path.write_bytes(data[:size] + bytes(range(256)) * ((len(data) - size) // 256))
    with pytest.raises(Theirs):
        read_ledger(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4))
def test_any_damage_is_named_or_harmless(original: Path, tmp_path: Path, damage: list[tuple[int, int]]) -> None:
    """Bytes anywhere in the file: what is read is the ledger itself, or privfl's own error says that it is not."""
    data = bytearray(original.read_bytes())
    for at, change in damage:
        data[at % len(data)] ^= change
    path = tmp_path / "damaged.db"
    path.write_bytes(data)
    with contextlib.suppress(Theirs, Misuse):
        assert read_ledger(path).anchor in [Anchor(n, e.hash) for n, e in enumerate(read_ledger(original).entries)]


def test_files_that_are_none(path: Path, tmp_path: Path) -> None:
    """A folder, a text, another database, one switched to a write-ahead log."""
    with pytest.raises(Misuse, match="no ledger at"):
        read_ledger(tmp_path)
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.executescript("CREATE TABLE t (x)")
    found(tmp_path / "other.db", "no plain ledger")
    (tmp_path / "text").write_text("seq,body,signature\n" * 9)
    found(tmp_path / "text", "is no ledger")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    found(path, "PRAGMA journal_mode = DELETE")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other.db", "patients.db", "text"]


def test_the_limits_in_force_at_the_time_are_what_counts(tmp_path: Path) -> None:
    """A past that keeps its own limits verifies under a smaller budget that came later."""
    path = made(tmp_path / "patients.db", mu2=1)
    with Ledger.open(path, KEY) as ledger:
        ledger.use(NEXT_POLICY, 2, limits(Fraction(1, 100)), START + 10_000)
    assert verify_file(path, KEY.verify_key).summary()["policy_version"] == 2
