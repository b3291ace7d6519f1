"""Everything that leaves a site, is logged, shown, raised or saved is searched for everything that must not."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import SGDClassifier

from privfl.entropy import Entropy
from privfl.errors import PrivflError
from privfl.learn import Averaging, BoundData, Task
from privfl.ring import pack, to_words
from privfl.runtime import Federation, Fit, Kill
from privfl.runtime.store import MemorySiteStore
from privfl.secagg import site as site_rules
from privfl.secagg.site_machine import SiteState
from privfl.wires import MemoryWire
from tests.runtime.support import QUICK, SCHEMA, SPEC, federation, table, tables


def forms(secret: bytes) -> Iterator[bytes]:
    """The ways in which bytes could be written down: raw, hex, base64 at any alignment."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for shift in range(3):
        padded = bytes(shift) + secret
        for coder in (base64.b64encode, base64.urlsafe_b64encode):
            whole = coder(padded).rstrip(b"=")
            yield whole[(0, 2, 3)[shift] : len(whole) - (len(padded) % 3 != 0)]


def numbers(values: Iterable[float]) -> Iterator[bytes]:
    """Floats as bytes in both orders and as decimal text of ten characters."""
    for value in values:
        yield from forms(np.array(value, "<f8").tobytes())
        yield from forms(np.array(value, ">f8").tobytes())
        yield repr(float(value))[:10].encode()


def vector(values: np.ndarray[Any, Any]) -> Iterator[bytes]:
    """An integer vector as bytes of either width and order, and as text; from its first three coordinates on."""
    head = values[:3]
    for kind in ("<i8", ">i8", "<i4", ">i4"):
        yield from forms(head.astype(kind).tobytes())
    for gap in (", ", ",", " "):
        yield gap.join(str(int(value)) for value in head).encode()


class Catch:
    """Collects what is secret and what is said, over one or more runs."""

    def __init__(self) -> None:
        self.secrets: dict[str, set[bytes]] = {}
        self.said: dict[str, list[bytes]] = {}

    def secret(self, kind: str, patterns: Iterable[bytes]) -> None:
        """Remember patterns that nobody may see."""
        kept = self.secrets.setdefault(kind, set())
        kept.update(patterns)
        assert all(len(pattern) >= 8 for pattern in kept), kind

    def say(self, where: str, what: object) -> None:
        """Remember bytes or text that somebody can see."""
        data = what if isinstance(what, bytes) else str(what).encode()
        self.said.setdefault(where, []).append(data)

    def check(self) -> None:
        """No secret occurs in anything said."""
        everything = {where: b"\x00".join(found) for where, found in self.said.items()}
        found = [
            f"{kind} in {where}: {pattern[:24]!r}"
            for kind, patterns in self.secrets.items()
            for pattern in patterns
            for where, text in everything.items()
            if pattern in text
        ]
        assert not found, found[:5]


@pytest.fixture
def catch(monkeypatch: pytest.MonkeyPatch) -> Catch:
    """Listens to the wire, the sites' stores, the seeds, and the vectors before noise and before masks."""
    out = Catch()
    contribution, upload, make = Task.contribution, Task.upload, site_rules._Seeds.make
    save, post, store = MemorySiteStore.save, MemoryWire.post, MemoryWire.store

    def clean(task: Task, model: bytes, bound: BoundData, entropy: Entropy, **named: Any) -> Any:
        exact = contribution(task, model, bound, entropy, **named)
        out.secret("a vector without noise", vector(exact))
        out.secret("a vector without noise", forms(pack(to_words(exact, task.ring), task.ring)))
        return exact

    def noisy(task: Task, model: bytes, bound: BoundData, entropy: Entropy, **named: Any) -> Any:
        kept: list[Any] = []
        original = Task.contribution

        def keep(*args: Any, **more: Any) -> Any:
            kept.append(original(*args, **more))
            return kept[-1]

        monkeypatch.setattr(Task, "contribution", keep)
        sent = upload(task, model, bound, entropy, **named)
        monkeypatch.setattr(Task, "contribution", original)
        out.secret("a vector before its masks", vector(sent))
        if task.release is not None:
            out.secret("noise", vector(sent - kept[0]))
        return sent

    def seeds(*args: Any) -> Any:
        made = make(*args)
        for value in (*made.values, *made.plus, *made.minus):
            out.secret("a seed", forms(value))
        return made

    def saved(own: MemorySiteStore, dump: bytes) -> None:
        epoch = SiteState.decode(dump).epoch
        if epoch is not None:
            for key in (epoch.secret, *(one for pair in epoch.pairs for one in (pair.key, pair.fresh))):
                out.secret("an epoch key", forms(key) if key else ())
        save(own, dump)

    def posted(wire: MemoryWire, sender: bytes, recipient: bytes, data: bytes) -> None:
        out.say("a message", data)
        post(wire, sender, recipient, data)

    def stored(wire: MemoryWire, sender: bytes, name: bytes, data: bytes) -> None:
        out.say("a body", data)
        store(wire, sender, name, data)

    monkeypatch.setattr(Task, "contribution", clean)
    monkeypatch.setattr(Task, "upload", noisy)
    monkeypatch.setattr(site_rules._Seeds, "make", staticmethod(seeds))
    monkeypatch.setattr(MemorySiteStore, "save", saved)
    monkeypatch.setattr(MemoryWire, "post", posted)
    monkeypatch.setattr(MemoryWire, "store", stored)
    return out


def listen_to_rows(catch: Catch, frames: dict[str, pd.DataFrame], fed: Federation) -> None:
    """Every value of every row as given and as bound, the labels of a site together, and the identity keys."""
    for frame in frames.values():
        for name in ("dose", "age"):
            catch.secret("a row", numbers(value for value in frame[name] if np.isfinite(value)))
        truth = frame["ill"].to_numpy().astype(bool)
        for kind in ("?", "<i8", "<f8"):
            catch.secret("labels", forms(truth.astype(kind).tobytes()))
        catch.secret("labels", (str(truth.tolist()).encode(), str(truth.astype(int).tolist()).encode()))
    for site in fed._sites.values():
        catch.secret("a bound row", numbers(site.data.bound.values[:, 0]))
        catch.secret("an identity key", forms(site.key.secret_bytes()))
    catch.secret("an identity key", forms(fed._coordinator.machine.party.key.secret_bytes()))


def shown(fed: Federation, fit: Fit) -> Iterator[object]:
    """Every object that a data scientist or operator may print, notebook forms included."""
    objects: list[object] = [fed, fit, fit.model, fit.history, fit.privacy, fit.transcript, fit.task, fit.held_out]
    objects += [*fit.transcript, *fit.transcript.verify(), fed._coordinator, fed._coordinator.machine, fed.roster]
    objects += [fed._coordinator.machine.slot, fed._coordinator.machine._state, fed._wire, fed._shelf]
    for site in fed._sites.values():
        assert site.node is not None
        machine = site.node.machine
        objects += [site, site.data, site.data.bound, site.data.bound.report, site.key, site.store, site.account]
        objects += [site.node, machine]
        objects += [machine._state, machine._state.epoch, machine._state.slot, machine._state.member, site.node.report]
    for one in objects:
        yield repr(one)
        yield str(one)
        if hasattr(one, "_repr_html_"):
            yield one._repr_html_()
    yield fit.history.to_frame().to_string()
    yield fit.transcript.to_frame().to_string()


def saved_files(fit: Fit, folder: Path) -> Iterator[bytes]:
    """Every file of a saved run, and the transcripts' own bytes."""
    for path in sorted(fit.save(folder).rglob("*")):
        if path.is_file():
            yield path.read_bytes()


@pytest.mark.parametrize(
    "spec", [SPEC, Averaging(label="ill", estimator=SGDClassifier(loss="log_loss"))], ids=["records", "sites"]
)
def test_nothing_secret_is_said_anywhere(
    spec: Any, catch: Catch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A run with deaths and refusals: messages, bodies, logs, reprs, reasons and files tell no secret."""
    caplog.set_level(logging.DEBUG)
    frames = tables(5, rows=24)
    fed = Federation.local(frames, SCHEMA)
    listen_to_rows(catch, frames, fed)
    kills = [Kill("east", 2, "computed"), Kill("west", 3, "stored")]
    fit = fed.train(spec, **{**QUICK, "epsilon": 40.0, "rounds": 4}, kills=kills, held_out=table(30, 99))
    for text in shown(fed, fit):
        catch.say("a repr", text)
    for data in saved_files(fit, tmp_path):
        catch.say("a file", data)
    for record in caplog.records:
        catch.say("a log", record.getMessage())
        catch.say("a log", repr(record.args))
    assert set(catch.said) == {"a message", "a body", "a repr", "a file", "a log"}
    assert {"a row", "a seed", "noise", "a vector without noise", "an epoch key"} <= set(catch.secrets)
    catch.check()


PROVOKED: dict[str, Callable[[pd.DataFrame], Any]] = {
    "numbers as text": lambda rows: SCHEMA.bind(rows.assign(dose=rows["dose"].astype(str))),
    "numbers as complex": lambda rows: SCHEMA.bind(rows.assign(dose=rows["dose"].to_numpy() + 1j)),
    "a column missing": lambda rows: SCHEMA.bind(rows.drop(columns="age")),
    "a column twice": lambda rows: SCHEMA.bind(pd.concat([rows, rows[["age"]]], axis=1)),
    "labels as numbers with fractions": lambda rows: SCHEMA.bind(rows.assign(ill=rows["dose"].astype(str))),
    "not a frame": lambda rows: SCHEMA.bind(rows.to_dict()),  # type: ignore[arg-type]
    "two bad sites": lambda rows: Federation.local(
        {"a": rows.drop(columns="age"), "b": rows, "c": rows.assign(dose="x" + rows["dose"].astype(str))}, SCHEMA
    ),
    "a held-out table without labels": lambda rows: federation(3).train(SPEC, **QUICK, held_out=rows.assign(ill=None)),
    "a task for other columns": lambda rows: SPEC.compile(
        SCHEMA, epsilon=8, delta=1e-5, sites=3, min_survivors=3
    ).check(SCHEMA.model_copy(update={"version": 9}).bind(rows)),
}


@pytest.mark.parametrize("case", PROVOKED)
def test_errors_name_columns_and_never_values(case: str) -> None:
    """What is wrong with a table is said without quoting it."""
    rows, catch = table(24, 5), Catch()
    catch.secret("a row", numbers([*rows["dose"], *rows["age"]]))
    with pytest.raises(PrivflError) as caught:
        PROVOKED[case](rows)
    error: BaseException | None = caught.value
    while error is not None:
        catch.say("an error", str(error))
        catch.say("an error", repr(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    catch.check()


@pytest.mark.parametrize("at", range(12))
def test_the_search_finds_what_is_planted(at: int) -> None:
    """Each form, wherever it stands in a text, is found: the silence above is not deafness."""
    secret = bytes(range(101, 133))
    text = b"x" * (at % 5) + secret + b"tail" * at
    written = [text, text.hex().encode(), text.hex().upper().encode()]
    written += [base64.b64encode(text), base64.urlsafe_b64encode(text)]
    for data in written:
        catch = Catch()
        catch.secret("planted", forms(secret))
        catch.say("a message", data)
        with pytest.raises(AssertionError, match="planted in a message"):
            catch.check()
    catch = Catch()
    catch.secret("planted", numbers([0.12573022 + at]))
    catch.say("a log", f"the value is {0.12573022 + at}")
    with pytest.raises(AssertionError, match="planted in a log"):
        catch.check()
