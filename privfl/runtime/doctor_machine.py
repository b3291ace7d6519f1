"""Whether a machine can carry privfl: what is installed, randomness, clock, disk, database, terminal."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import privfl
from privfl.clock import Clock
from privfl.entropy import SYSTEM, Entropy, Keystream
from privfl.errors import Unverified
from privfl.runtime.checks import Finding, fail, ok, skipped, warn

__all__ = ["disk", "machine_checks"]

RELEASED = 1_767_225_600_000  # 2026-01-01, before the first commit: no clock that is right shows an earlier time
OLDEST_PYTHON = (3, 11)
OLDEST_SQLITE = (3, 35, 0)
LITTLE, SCARCE = 2**30, 100 * 2**20
_CLAUSE = re.compile(r"(>=|<=|==|!=|<|>)([0-9][0-9.]*)$")
_COMPARED: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": lambda have, want: have >= want,
    "<=": lambda have, want: have <= want,
    "==": lambda have, want: have == want,
    "!=": lambda have, want: have != want,
    "<": lambda have, want: have < want,
    ">": lambda have, want: have > want,
}


def machine_checks(
    folder: Path, clock: Clock, entropy: Entropy = SYSTEM
) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """The checks that need no privfl folder; what is written is written below ``folder`` and removed again."""
    yield "python", python
    yield "packages", packages
    yield "sealing", lambda: sealing(entropy)
    yield "randomness", lambda: randomness(entropy)
    yield "clock", lambda: clock_sanity(folder, clock)
    yield "disk", lambda: disk(folder)
    yield "database", lambda: database(folder)
    yield "terminal", terminal


def python() -> Finding:
    """The interpreter against what privfl asks for."""
    found = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}"
    if tuple(sys.version_info[:2]) < OLDEST_PYTHON:
        return fail(found, "install Python 3.11 or later, and privfl in it")
    return ok(found)


def packages() -> Finding:
    """privfl and the libraries that it needs, against the ranges in its own metadata."""
    try:
        version, wanted = metadata.version("privfl"), metadata.requires("privfl") or []
    except metadata.PackageNotFoundError:
        return warn(f"privfl {privfl.__version__} runs from its source, so no ranges are known", "pip install privfl")
    if version != privfl.__version__:
        return fail(f"privfl {privfl.__version__} runs, {version} is installed", "pip install --force-reinstall privfl")
    bad: list[tuple[str, str | None, str]] = []
    good: list[tuple[str, str | None, str]] = []
    for line in wanted:
        requirement, _, marker = line.partition(";")
        if "extra" in marker:
            continue
        name, clauses = _parts(requirement)
        have = _installed(name)
        (good if have and _fits(have, clauses) else bad).append((name, have, ",".join(clauses)))
    if bad:
        words = ", ".join(f"{name} {have or 'is missing'} (needs {clauses})" for name, have, clauses in bad)
        return fail(words, "install privfl afresh in an environment of its own: pip install privfl")
    return ok(f"privfl {version}; " + ", ".join(f"{name} {have}" for name, have, _ in good))


def _parts(requirement: str) -> tuple[str, list[str]]:
    found = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*\(?([^)]*)\)?", requirement)
    assert found is not None
    return found[1], [clause.strip() for clause in found[2].split(",") if clause.strip()]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(version: str, clauses: list[str]) -> bool:
    """By release numbers alone (PEP 440); a clause of another kind is taken as kept.

    >>> _fits("50.0.2", [">=50", "<51"]), _fits("51.0", ["<51"]), _fits("2.0rc1", [">=2.0.0"])
    (True, False, True)
    """
    for clause in clauses:
        found = _CLAUSE.match(clause)
        if found and not _COMPARED[found[1]](_release(version), _release(found[2])):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"[0-9]+(\.[0-9]+)*", version)
    parts = [int(part) for part in found[0].split(".")] if found else [0]
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return tuple(parts)


def sealing(entropy: Entropy) -> Finding:
    """One message sealed and opened by the hybrid that every secret share travels in, and one refused."""
    from privfl_keys import Label, SealingKey  # noqa: PLC0415 - if it cannot be loaded, that is this check's finding

    step = "install the wheel of cryptography 50 with its own OpenSSL"
    key, message = SealingKey.generate(entropy), entropy.draw(32)
    sealed = key.public.seal(message, Label.PROBE, "doctor")
    if key.open(sealed, Label.PROBE, "doctor") != message:
        return fail("HPKE with MLKEM768_X25519 opens something else than was sealed", step)
    try:
        key.open(sealed, Label.PROBE, "another")
    except Unverified:
        return ok("HPKE with MLKEM768_X25519 seals and opens")
    return fail("HPKE with MLKEM768_X25519 opens under another context", step)


def randomness(entropy: Entropy) -> Finding:
    """The source of every seed and of the noise: ready, and not repeating itself."""
    step = "do not run a site here: without good randomness no noise and no mask protects anyone"
    if hasattr(os, "getrandom"):
        try:
            os.getrandom(32, os.GRND_NONBLOCK)
        except BlockingIOError:
            return fail("the system's random generator is not seeded yet", "wait until the machine has been up longer")
    draws = [entropy.draw(32) for _ in range(64)]
    if len(set(draws)) < len(draws) or not 7000 < sum(byte.bit_count() for draw in draws for byte in draw) < 9400:
        return fail("the system's random bytes repeat or lean to one side", step)
    words = Keystream(entropy).words(1024)
    if len(set(words.tolist())) < len(words):
        return fail("the key stream that the noise is drawn from repeats", step)
    return ok("the operating system's generator, stretched by AES-256-CTR")


def clock_sanity(folder: Path, clock: Clock) -> Finding:
    """The clock against the release of privfl, against time that only goes on, and against the disk's own."""
    before, began = clock.now(), time.monotonic_ns()
    step = "set the clock, best by NTP: policies, rosters and deadlines are told by it"
    if before < RELEASED:
        return fail(f"the clock shows {_day(before)}, before this version of privfl was released", step)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".privfl-doctor-") as file:
        apart = os.fstat(file.fileno()).st_mtime - before / 1000
    time.sleep(0.01)
    passed, told = (time.monotonic_ns() - began) / 1e6, clock.now() - before
    if abs(passed - told) > 1000:
        return fail(f"the clock jumps: {told} ms went by on it while {passed:.0f} ms passed", step)
    if abs(apart) > 300:
        return fail(f"the clock and the one of {folder}'s disk are {abs(apart):.0f} s apart", step)
    if abs(apart) > 5:
        return warn(f"the clock and the one of {folder}'s disk are {abs(apart):.0f} s apart", step)
    return ok(f"{_day(before)} UTC, and it goes on evenly")


def _day(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(max(0, ms) // 1000))


def disk(folder: Path) -> Finding:
    """Room for a round: vectors, transcripts and the database's journal."""
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free for {folder}"
    step = "free some space, or put the folder on another disk"
    if free < SCARCE:
        return fail(found, step)
    return warn(found, step) if free < LITTLE else ok(found)


def database(folder: Path) -> Finding:
    """SQLite's version, and one durable write with fsync where the folder is."""
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        return fail(f"SQLite {version}", "use a Python that is built with SQLite 3.35 or later")
    step = f"let this user write to {folder}, or choose a local disk"
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".privfl-doctor-") as inside:
            path = Path(inside) / "probe.db"
            connection = sqlite3.connect(path, isolation_level=None)
            try:
                connection.executescript("PRAGMA synchronous = FULL; CREATE TABLE probe (n INTEGER)")
                connection.execute("INSERT INTO probe VALUES (7)")
                (found,) = connection.execute("SELECT n FROM probe").fetchone()
            finally:
                connection.close()
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    except (OSError, sqlite3.Error) as error:
        return fail(f"no durable write in {folder}: {getattr(error, 'strerror', None) or error}", step)
    if found != 7:
        return fail(f"SQLite {version} does not read what it wrote in {folder}", step)
    return ok(f"SQLite {version}; writes and fsync work in {folder}")


def terminal() -> Finding:
    """Whether tables can be drawn; a matter of looks only."""
    if not sys.stdout.isatty():
        return skipped("standard output is no terminal; tables are plain and nothing is asked")
    encoding = sys.stdout.encoding or "ascii"
    try:
        "ε – │".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return warn(f"the terminal's encoding is {encoding}", "set LANG to a UTF-8 locale, such as C.UTF-8")
    return ok(f"{encoding}, {shutil.get_terminal_size().columns} columns")
