"""Nothing secret in clear: every message, body, log line, line of output and file of real processes is searched.

A federation of forked processes trains over a folder wire, one site dies by SIGKILL between computing and storing,
and is restarted, a task is refused, and an epoch follows another. Whatever the processes derive, draw or compute is
noted as it comes into being, and then looked for in all that they let out or left lying, in any encoding. What is
planted is found: every kind of secret, in every place, in every encoding.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privfl.codec import encode
from privfl.homes.files import write_file
from privfl.runtime import store
from privfl.runtime.coordinator_process import run_coordinator
from privfl.runtime.logs import configure
from privfl.runtime.site_process import run_site
from tests.processes.scan import ENCODINGS, Patterns, aligned, fresh, numbers, words
from tests.processes.spy import SAID, Spy, patterns_of
from tests.runtime.realm import PASSPHRASE, QUICK, Realm, realm
from tests.runtime.support import SCHEMA, tables

KINDS = {
    "a row",
    "labels",
    "passphrase",
    "identity",
    "bytes of a key store",
    "state key",
    "epoch secret",
    "half of a pair key",
    "pair key",
    "self seed",
    "pair seed",
    "mask key",
    "shares",
    "share coefficients",
    "noise entropy",
    "fixed-point rows",
    "residuals",
    "gradient",
    *(f"{form}vector {kind}" for form in ("", "ringed ", "packed ") for kind in ("without noise", "before its masks")),
}
PLACES = {"a message", "a body", "a log", "output", "a site's file", "a file on the wire", "a coordinator's file"}


def frames(sites: int) -> dict[str, pd.DataFrame]:
    """Tables with a column that nobody declared: a name that occurs nowhere else."""
    return {
        name: frame.assign(patient=[f"Quixote-{name}-{at:03d}-Zebedee" for at in range(len(frame))])
        for name, frame in tables(sites).items()
    }


def secret_rows(found: Patterns, name: str, frame: pd.DataFrame) -> None:
    """What a site's table holds, as given and as bound."""
    bound = SCHEMA.bind(frame)
    columns = [frame["dose"].to_numpy(), frame["age"].to_numpy(), *bound.values.T]
    columns += [frame[["dose", "age"]].to_numpy().reshape(-1), bound.values.reshape(-1)]
    for column in columns:
        found.add("a row", numbers(column))
    for text in frame["patient"]:
        found.add("a row", words(text))
    found.add("a row", words(f"Quixote-{name}"))
    found.add("a row", (line.encode() for line in frame.to_csv(index=False).splitlines()[1:]))
    codes = bound.codes["ill"]
    for kind in ("i1", "<i8", ">i8", "<f8", "<i4"):
        found.add("labels", _runs(codes.astype(kind)))
    for values in (frame["ill"].tolist(), codes.tolist()):
        for gap in (", ", ",", "\n", " "):
            found.add("labels", [gap.join(map(str, values[:24])).encode()])
        found.add("labels", [json.dumps(values)[1:80].encode()])


def _runs(codes: np.ndarray[Any, Any]) -> Iterator[bytes]:
    whole = codes[:24].tobytes()
    yield from (whole, whole.hex().encode(), whole.hex().upper().encode())
    for coder in (base64.b64encode, base64.urlsafe_b64encode):
        yield from (aligned(coder, whole, shift) for shift in range(3))


@dataclass
class Recorded:
    """Everything that came out of a run, by place, and everything that must not have."""

    patterns: Patterns
    examples: dict[str, bytes]
    said: dict[str, dict[bytes, str]] = field(default_factory=dict)  # place → content → name

    def say(self, place: str, data: bytes, name: str = "") -> None:
        """Remember what could be read; the same bytes once."""
        self.said.setdefault(place, {}).setdefault(data, name)

    def leaks(self) -> Counter[tuple[str, str]]:
        """(kind, place and file) of every secret found."""
        seen: set[bytes] = set()
        return Counter(
            (kind, f"{place}: {name}")
            for place, found in self.said.items()
            for data, name in found.items()
            for kind, _ in self.patterns.found((b"\0" * 512).join(fresh(data, seen)))
        )


def look(recorded: Recorded, world: Realm, *, last: bool = False) -> None:
    """Take in every file of the federation as it is at this moment."""
    trial = world.trial
    homes = dict.fromkeys(trial.sites.values(), "a site's file")
    homes[trial.wire] = "a file on the wire"
    if last:
        homes[trial.coordinator] = "a coordinator's file"
    for home, place in homes.items():
        for path in sorted(home.rglob("*")):
            try:
                data = path.read_bytes()
            except (OSError, ValueError):  # gone meanwhile, or a folder
                continue
            where = "a log" if path.suffix == ".log" else place
            recorded.say(where, data, f"{home.name}/{path.relative_to(home)}")


class Loud:
    """Starts processes that log everything as JSON and whose output is kept."""

    def __init__(self, world: Realm, folder: Path) -> None:
        self.world, self.folder = world, folder
        folder.mkdir()

    def site(self, name: str, **options: Any) -> None:
        home = self.world.trial.sites[name]
        work = lambda: run_site(home, PASSPHRASE, stop=lambda: False, **options)  # noqa: E731
        self.world._start(name, self._loud(name, home / "site.log", work))

    def coordinator(self) -> None:
        home = self.world.trial.coordinator
        work = lambda: run_coordinator(home, PASSPHRASE, stop=lambda: False, pace=QUICK, once=True)  # noqa: E731
        self.world._start("coordinator", self._loud("coordinator", home / "coordinator.log", work))

    def _loud(self, who: str, log: Path, work: Callable[[], object]) -> Callable[[], object]:
        def loud() -> None:
            file = os.open(self.folder / who, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1), os.dup2(file, 2)
            configure("json", file=log, level="DEBUG", who=who)
            os.write(1, f"{who} is up\n".encode())
            work()

        return loud


def dies(place: str, number: int) -> Callable[[str, int], None]:
    """A checkpoint at which a process kills itself as hard as can be."""

    def at(name: str, round_: int) -> None:
        if (name, round_) == (place, number):
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def run(world: Realm, loud: Loud, recorded: Recorded) -> None:
    """The federation's day; files are looked at all the time, and right after each death."""
    jobs = [world.submit(rounds=5)]
    for name in world.trial.sites:
        loud.site(name, **({"checkpoint": dies("computed", 2)} if name == "east" else {}))
    loud.coordinator()
    while world.alive("east"):
        time.sleep(0.005)
    look(recorded, world)
    jobs += [world.submit(options={"clip": 0.9}), world.submit(rounds=2)]
    loud.site("east", checkpoint=dies("stored", 4))
    while not all(job.state().over for job in jobs):
        if "east" in world.running and not world.alive("east"):
            look(recorded, world)
            loud.site("east")
        look(recorded, world)
        time.sleep(0.5)
    states = [job.state() for job in jobs]
    assert [one.state for one in states] == ["done", "failed", "done"], states
    assert "clip 0.9" in states[1].error
    for name in world.trial.sites:
        world.kill(name)
    look(recorded, world, last=True)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A run, and everything about it."""
    folder = tmp_path_factory.mktemp("scanned")
    out = Recorded(Patterns(), {})
    rows = frames(4)
    with pytest.MonkeyPatch.context() as monkeypatch:
        spy = Spy(folder / "spy").install(monkeypatch)
        with realm(folder / "realm", frames=rows, policy={"tasks": {"logistic": {"clip": 0.5}}}) as world:
            run(world, Loud(world, folder / "output"), out)
    finished(out, spy, rows, folder / "output")
    return out


def finished(out: Recorded, spy: Spy, rows: dict[str, pd.DataFrame], output: Path) -> None:
    """Sort what was noted into what must not be said and what was."""
    for place, data in spy.records():
        if place in SAID:
            out.say(place, data)
    for path in output.iterdir():
        out.say("output", path.read_bytes(), path.name)
    out.patterns, out.examples = patterns_of(spy)
    for name, frame in rows.items():
        secret_rows(out.patterns, name, frame)
    out.patterns.add("passphrase", words(PASSPHRASE))
    out.examples |= {"passphrase": PASSPHRASE.encode(), "a row": b"Quixote-east-007-Zebedee"}
    out.examples["labels"] = SCHEMA.bind(rows["east"]).codes["ill"].astype("<i8").tobytes()


def test_nothing_secret_is_found(recorded: Recorded) -> None:
    """No row, label, gradient, vector, seed, share or key, in any place or encoding, at any moment."""
    assert recorded.leaks() == {}


def test_everything_was_looked_at(recorded: Recorded) -> None:
    """The silence is not for want of listening: all kinds of secrets, all places, two epochs, deaths and a refusal."""
    assert set(recorded.patterns.kinds) == KINDS
    assert all(recorded.patterns.kinds.values())
    assert set(recorded.said) == PLACES
    assert all(any(found) for found in recorded.said.values())
    names = {name.split("/", 1)[1] for name in recorded.said["a site's file"].values() if name}
    assert {"site.yaml", "keys", "state.db", "state.db-wal", "state.key", "status.json", "lock"} <= names
    assert any(name.startswith("ledger/") for name in names)
    assert any(name.startswith("outbox/") for name in names)
    kinds = Counter(_kind(data) for data in recorded.said["a message"])
    assert {"upload", "refused", "announce", "advert", "confirmations", "vote", "release", "hello"} <= set(kinds), kinds
    assert kinds["open-epoch"] >= 8
    log = b"".join(recorded.said["a log"])
    assert all(isinstance(json.loads(line), dict) for line in log.splitlines() if line.endswith(b"}"))
    assert b"clip 0.9" in log


def _kind(data: bytes) -> str:
    from privfl.wires import Envelope

    return Envelope.decode(data).kind.removesuffix("+")


@pytest.mark.parametrize("place", sorted(PLACES))
def test_what_is_planted_is_found(place: str, recorded: Recorded) -> None:
    """Every kind of secret, written into something that was truly said there, in every encoding."""
    host = max(recorded.said[place], key=len)[:500]
    assert recorded.patterns.found(host) == []
    for kind in sorted(KINDS - {"gradient"}):
        secret = recorded.examples[kind]
        for name, write in ENCODINGS.items():
            if name.startswith("decimal") and kind not in BYTES:
                continue
            for shift in range(3) if "base64" in name else (0,):
                planted = host[: 13 + shift] + write(bytes(shift) + secret, 0) + host[13 + shift :]
                assert kind in {found for found, _ in recorded.patterns.found(planted)}, (kind, name, shift)


#: Secrets that are bytes and nothing else; rows and vectors have their own ways of being written in figures.
BYTES = KINDS - {"a row", "labels", "passphrase", "fixed-point rows", "residuals"}
BYTES -= {kind for kind in KINDS if "vector" in kind}


@pytest.mark.parametrize("place", ["a log", "a message"])
def test_rows_and_vectors_in_figures_are_found(place: str, recorded: Recorded) -> None:
    """A single value in a sentence, a line of the table, a list of integers, an array inside canonical bytes."""
    host = max(recorded.said[place], key=len)[:2000]
    rows = frames(4)["west"]
    ints = np.frombuffer(recorded.examples["vector without noise"], "<i8")
    planted: list[tuple[str, bytes]] = [
        ("a row", f"the dose was {float(rows['dose'].iloc[11])}".encode()),
        ("a row", f"age={rows['age'].iloc[3]!r}".encode()),
        ("a row", rows.to_csv(index=False).splitlines()[9].encode()),
        ("a row", rows["age"].to_numpy()[4:10].astype(">f4").tobytes()),
        ("a row", rows[["dose", "age"]].to_numpy().tobytes()),
        ("a row", str(rows["dose"].tolist()).encode()),
        ("a row", encode(("rows", 1, SCHEMA.bind(rows).values.tobytes()))),
        ("labels", str(rows["ill"].tolist()).encode()),
        ("labels", encode(("labels", SCHEMA.bind(rows).codes["ill"].astype("i1").tobytes()))),
        ("vector without noise", str(ints.tolist()).encode()),
        ("vector without noise", ints.astype(">i8").tobytes()),
        ("vector without noise", json.dumps({"gradient": ints.tolist()}).encode()),
        ("gradient", repr([float(value) for value in ints[:3] / 2.0**20]).encode()),
        ("self seed", encode(("state", 1, recorded.examples["self seed"]))),
    ]
    for kind, data in planted:
        assert kind in {found for found, _ in recorded.patterns.found(host + data + host)}, (kind, data[:60])


def test_a_leak_in_the_product_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that keeps its state unsealed beside the sealed one, and one rounding log line, do not pass."""
    rows = frames(3)
    save = store.DurableSiteStore.save_outbox

    def careless(own: Any, dump: bytes, upload: bytes, body: bytes) -> None:
        write_file(own._outbox.parent / "leftover", dump)
        save(own, dump, upload, body)

    out = Recorded(Patterns(), {})
    spy = Spy(tmp_path / "spy").install(monkeypatch)
    monkeypatch.setattr(store.DurableSiteStore, "save_outbox", careless)
    with realm(tmp_path / "realm", frames=rows) as world:
        loud = Loud(world, tmp_path / "output")
        job = world.submit(rounds=1)
        for name in world.trial.sites:
            loud.site(name)
        loud.coordinator()
        assert world.finished(job).state == "done"
        look(out, world)
    finished(out, spy, rows, tmp_path / "output")
    leaks = out.leaks()
    assert {kind for kind, _ in leaks} >= {"epoch secret", "pair key"}
    assert all(place.endswith("/leftover") for _, place in leaks), leaks
