"""Real processes on one ledger: they serialise, none gets above the budget, and a kill loses no promise."""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import sqlite3
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from privfl.budget import Ledger, read_ledger, verify_file
from privfl.dp import Cost
from privfl.errors import BudgetExceeded, Misuse, StorageError
from tests.budget.ledgers import KEY, POLICY, START, charge, limits, made, stored

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")


def forked(work: Callable[[int], None]) -> tuple[int, int]:
    """Run ``work`` in a child, with the end of a pipe to write to; returns its id and our end of the pipe."""
    ours, theirs = os.pipe()
    with warnings.catch_warnings():  # test runners have threads of their own; none of them is in the child
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        os.close(theirs)
        return child, ours
    os.close(ours)
    code = 1
    try:
        work(theirs)
        code = 0
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def heard(pipe: int) -> bytes:
    """Everything that a child wrote until it ended."""
    said = b""
    while piece := os.read(pipe, 65536):
        said += piece
    os.close(pipe)
    return said


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger whose budget holds sixty charges."""
    path = tmp_path / "patients.db"
    with Ledger.create(path, KEY, federation="north", population="patients", now=START) as ledger:
        ledger.use(POLICY, 1, limits(6), START)
    return path


def test_many_processes_never_get_above_the_budget(path: Path) -> None:
    """Five processes ask twenty times each; sixty are admitted, everyone's heads are in one chain."""

    def work(pipe: int, who: int) -> None:
        with Ledger.open(path, KEY) as ledger:
            for number in range(20):
                one = charge(100 * who + number)
                try:
                    head = ledger.reserve(one, START)
                except BudgetExceeded:
                    continue
                os.write(pipe, one.reference + head)
                if number % 2:
                    ledger.settle(one.reference, START)

    children = [forked(lambda pipe, who=who: work(pipe, who)) for who in range(5)]  # type: ignore[misc]
    said = b"".join(heard(pipe) for _, pipe in children)
    assert all(os.waitpid(child, 0)[1] == 0 for child, _ in children)
    admitted = [(said[at : at + 32], said[at + 32 : at + 64]) for at in range(0, len(said), 64)]
    book = verify_file(path, KEY.verify_key).book
    assert len(admitted) == len(set(admitted)) == 60
    assert book.spent() == Cost(6)
    reserved = {(entry.reference, entry.hash) for entry in book.entries if entry.kind == "reserve"}
    assert reserved == set(admitted)


def test_one_reference_is_charged_once_by_all(path: Path) -> None:
    """Whoever is first; the others get a head that includes it."""

    def work(pipe: int) -> None:
        with Ledger.open(path, KEY) as ledger:
            for number in range(10):
                os.write(pipe, ledger.reserve(charge(number), START))

    children = [forked(work) for _ in range(3)]
    heads = [heard(pipe) for _, pipe in children]
    assert all(os.waitpid(child, 0)[1] == 0 for child, _ in children)
    book = read_ledger(path)
    assert (book.spent(), book.seq) == (Cost(1), 11)
    known = {entry.hash for entry in book.entries}
    assert all(said[at : at + 32] in known for said in heads for at in range(0, 320, 32))


def test_what_was_promised_survives_a_kill_at_any_instant(path: Path) -> None:
    """Forty kills at random instants: each head that was returned is in the chain, and at most one entry more."""
    random_ = random.Random(5)
    promised: list[bytes] = []

    def work(pipe: int) -> None:
        with Ledger.open(path, KEY) as ledger:
            ledger.recover(None, None, START)
            for number in range(10**6):
                one = charge(os.getpid() * 10**6 + number, Fraction(1, 10**6))
                os.write(pipe, ledger.reserve(one, START))
                if number % 3 == 0:
                    ledger.settle(one.reference, START)

    for _ in range(40):
        child, pipe = forked(work)
        select.select([pipe], [], [], 30)  # its first promise
        time.sleep(random_.random() * 0.012)
        os.kill(child, signal.SIGKILL)
        said = heard(pipe)
        os.waitpid(child, 0)
        assert len(said) % 32 == 0
        promised += [said[at : at + 32] for at in range(0, len(said), 32)]
        assert read_ledger(path, KEY.verify_key).head  # as it lies there, before anyone repairs it
    with Ledger.open(path, KEY) as ledger:
        known = {entry.hash for entry in ledger.entries()}
        reserved = sum(entry.kind == "reserve" for entry in ledger.entries())
        ledger.note("the next commit sweeps a journal that was begun", START)
    assert len(promised) >= 40
    assert known >= set(promised)
    assert reserved <= len(promised) + 40
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.fixture
def half_written(tmp_path: Path) -> Path:
    """A ledger whose writer was killed inside a commit: pages are overwritten, their journal lies beside."""
    path = made(tmp_path / "patients.db")

    def work(pipe: int) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        for number in range(9, 300):
            connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (number, b"x" * 3000, b"y"))
        os.kill(os.getpid(), signal.SIGKILL)

    child, pipe = forked(work)
    heard(pipe)
    os.waitpid(child, 0)
    assert Path(f"{path}-journal").stat().st_size > 0
    return path


def test_a_reader_undoes_half_a_commit_in_a_copy(half_written: Path) -> None:
    """It sees the ledger as it was before, and the files stay as they are for the site to repair."""
    before = {file.name: file.read_bytes() for file in half_written.parent.iterdir()}
    assert len(before) == 2
    assert verify_file(half_written, KEY.verify_key).summary()["entries"] == 9
    assert {file.name: file.read_bytes() for file in half_written.parent.iterdir()} == before
    with Ledger.open(half_written, KEY) as ledger:
        assert len(ledger.entries()) == 9
    assert [file.name for file in half_written.parent.iterdir()] == [half_written.name]


def test_a_reader_beside_a_writer(path: Path) -> None:
    """Whenever it looks it sees a whole ledger, and the writer never fails for it."""

    def work(pipe: int) -> None:
        with Ledger.open(path, KEY) as ledger:
            for number in range(60):
                ledger.reserve(charge(number), START)
                os.write(pipe, b".")

    child, pipe = forked(work)
    seen = [read_ledger(path).seq for _ in range(20)]
    assert seen == sorted(seen)
    assert heard(pipe) == b"." * 60
    assert os.waitpid(child, 0)[1] == 0


def test_a_ledger_is_not_shared_with_a_forked_child(path: Path) -> None:
    """Its locks would not be; the child opens it for itself."""
    with Ledger.open(path, KEY) as ledger:

        def work(pipe: int) -> None:
            try:
                ledger.reserve(charge(1), START)
            except Misuse as error:
                os.write(pipe, str(error).encode())

        child, pipe = forked(work)
        assert b"open it there" in heard(pipe)
        os.waitpid(child, 0)
        ledger.reserve(charge(1), START)


def as_nobody(path: Path, work: Callable[[], None]) -> bytes:
    """What ``work`` raised in a process that may not write the file."""

    def child(pipe: int) -> None:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            work()
        except (Misuse, StorageError) as error:
            os.write(pipe, f"{type(error).__name__}: {error}".encode())

    shared = Path(tempfile.gettempdir())
    for folder in path.parents:
        if shared in folder.parents:
            folder.chmod(folder.stat().st_mode | 0o055)
    path.chmod(0o444)
    number, pipe = forked(child)
    said = heard(pipe)
    os.waitpid(number, 0)
    return said


def test_a_file_that_may_only_be_read(path: Path) -> None:
    """Reading works; opening it as an account says what to change, and changes nothing."""
    before = stored(path)
    assert as_nobody(path, lambda: read_ledger(path) and None) == b""
    assert b"StorageError" in as_nobody(path, lambda: Ledger.open(path, KEY).reserve(charge(1), START) and None)
    assert stored(path) == before


def test_a_disk_without_room(path: Path) -> None:
    """As the operating system says it: the entry is refused, and the file is as it was before."""

    def work(pipe: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with Ledger.open(path, KEY) as ledger:
            size = path.stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            for number in range(60):
                try:
                    os.write(pipe, ledger.reserve(charge(number), START))
                except StorageError as error:
                    os.write(pipe, b"!" + str(error).encode())
                    return

    child, pipe = forked(work)
    said, _, reason = heard(pipe).partition(b"!" + str(path).encode())
    assert os.waitpid(child, 0)[1] == 0
    assert b"free some space" in reason
    book = verify_file(path, KEY.verify_key).book
    assert book.seq == 1 + len(said) // 32
    with Ledger.open(path, KEY) as ledger:
        ledger.reserve(charge(99), START)
