"""A private app beside resident sites: as within one process, whatever becomes of the process that answers."""

from __future__ import annotations

import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.serverapp.strategy import FedAvg

from privfl.clock import SystemClock
from privfl.flower import resident
from privfl.flower.client import carrier_of, exchange, site_home
from privfl.flower.local_grid import _through
from privfl.flower.records import array_of, packed, unpacked
from privfl.flower.resident import Resident
from privfl.homes.app_socket import FOLDER, AppCaller
from privfl.homes.lock import holder
from privfl.homes.site import SiteHome
from privfl.learn.update_data import AppData
from privfl.learn.update_schema import app_schema
from privfl.wires.flower_carry import Load
from tests.flower.private_world import EXACT, METRICS, App, World, world
from tests.forking import end_with_parent
from tests.runtime.realm import PASSPHRASE

Handler = Callable[[Message, Context], Message]


def stay(made: World) -> None:
    """Start each site as ``privfl site run HOME --app`` does, in a process that is forked and so starts at once."""
    for name, home in made.carried.realm.trial.sites.items():
        call = AppCaller(home)

        def answers(opened: Any, call: AppCaller = call) -> AppData:
            return AppData(app_schema(opened.policy), call, call.present, call.within)

        made.carried.realm.start_site(name, data=answers)
        until = time.monotonic() + 60
        while holder(home) is None and time.monotonic() < until:
            time.sleep(0.01)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Four sites that stay up."""
    with world(tmp_path_factory.mktemp("resident") / "realm", 4, resident=True, **EXACT) as made:
        stay(made)
        yield made


def rows(home: Path) -> int:
    """Entries of a site's ledger, read beside the process that has it open."""
    (file,) = (home / "ledger").glob("*.db")
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as ledger:
        names = [name for (name,) in ledger.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return sum(ledger.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names)


def matches(found: Any, made: World, rounds: int) -> None:
    """The plain app and strategy come to the same, up to the grain."""
    expected = made.plain(App(), FedAvg(), rounds=rounds)
    for one, other in zip(found.arrays.to_numpy_ndarrays(), expected.arrays.to_numpy_ndarrays(), strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)
    assert [row.survivors for row in found.history[1:]] == [4] * rounds
    assert [row.examples for row in found.history[1:]] == pytest.approx([100.0] * rounds, abs=1e-4)
    for number, metrics in expected.train_metrics_clientapp.items():
        assert found.train_metrics_clientapp[number]["loss"] == pytest.approx(metrics["loss"], abs=1e-4)


@pytest.mark.parametrize("mode", ["voted", "complete"])
def test_a_resident_site_answers_as_one_within_the_process(up: World, mode: str) -> None:
    """Model, weights and metrics are those of the plain app; each function was called once a round at each site."""
    app = App()
    matches(up.start(app, FedAvg(), rounds=2, mode=mode, **METRICS), up, 2)
    assert sorted(app.calls).count(("train", 2)) == 2
    assert all(not list((home / FOLDER).iterdir()) for home in up.carried.realm.trial.sites.values())


def in_a_process(app: Handler) -> Handler:
    """A node whose handler runs in a process of its own, as Flower starts it; killed, the node says so."""

    def handler(message: Message, context: Context) -> Message:
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            end_with_parent()
            try:
                load, bodies = unpacked(app(message, context).content)
                with os.fdopen(into, "wb") as stream:
                    pickle.dump((load.encode(), bodies), stream)
            finally:
                os._exit(0)
        os.close(into)
        with os.fdopen(out, "rb") as stream:
            data = stream.read()
        os.waitpid(child, 0)
        if not data:
            raise RuntimeError("killed")
        encoded, bodies = pickle.loads(data)  # from this test's own child
        found = [(key, array_of(one)) for key, one in bodies.items()]
        return Message(packed(Load.decode(encoded), found), reply_to=message)

    return handler


ENDS: dict[str, Callable[[], Any]] = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exits": lambda: os._exit(3),
    "raises": lambda: 1 / 0,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_function_that_takes_its_process_with_it_counts_for_nothing(up: World, tmp_path: Path, end: str) -> None:
    """In round 1 one site's training ends so: the round opens with zeros of it, and each round was charged once."""
    mark, home = tmp_path / "ended", up.carried.site(up.carried.names[1])

    def spoil(message: Message, context: Context) -> Any:
        if message.metadata.message_type == "train" and not mark.exists():
            mark.touch()
            ENDS[end]()

    before = {name: rows(folder) for name, folder in up.carried.realm.trial.sites.items()}
    found = up.start(App(), FedAvg(), rounds=2, apps={2: in_a_process(App(spoil=spoil).private())}, **METRICS)
    assert mark.exists()
    assert [row.survivors for row in found.history[1:]] == [4, 4]
    assert [row.examples for row in found.history[1:]] == pytest.approx([80.0, 100.0], abs=1e-4)
    grown = {rows(folder) - before[name] for name, folder in up.carried.realm.trial.sites.items()}
    assert len(grown) == 1  # as at the sites where nothing happened
    assert holder(home) == up.carried.realm.running[up.carried.names[1]]


def test_nothing_is_charged_while_no_app_is_at_hand(up: World) -> None:
    """One node carries mail without an app: its site waits, uncharged, and answers once the app is there."""
    home, missed = up.carried.site(up.carried.names[1]), list[int]()
    before, private = rows(home), App().private()

    def handler(message: Message, context: Context) -> Message:
        if len(missed) >= 2:
            return private(message, context)
        own = site_home(context.node_config)
        reply = exchange(message, carrier_of(own), Resident(own, 20), hold=0.5)
        if unpacked(reply.content)[0].working:
            missed.append(rows(home))
        return reply

    matches(up.start(App(), FedAvg(), rounds=1, apps={2: handler}, **METRICS), up, 1)
    assert missed == [before, before]
    assert rows(home) > before


def test_two_handlers_of_one_message_make_one_contribution(up: World) -> None:
    """A repeated message: both carry, one of them answers, and its function is called once."""
    app = App()
    private = app.private()

    def handler(message: Message, context: Context) -> Message:
        replies = list[Message]()
        threads = [
            threading.Thread(target=lambda: replies.append(private(_through(message), context))) for _ in range(2)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join(60)
        return max(replies, key=lambda one: len(unpacked(one.content)[0].letters))

    matches(up.start(app, FedAvg(), rounds=2, apps={2: handler}, **METRICS), up, 2)
    assert app.calls.count(("train", 2)) == 2


def test_the_message_starts_the_site_which_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`privfl site run HOME --app`, with the settings of the node; its passphrase stands in no command line."""
    monkeypatch.setenv("PRIVFL_PASSPHRASE", "of another folder")  # the app's own line names it
    with world(tmp_path / "realm", 3, resident=True, **EXACT) as made:
        nodes = {at: {**config, "privfl-answer-after-ms": 50} for at, config in made.nodes().items()}
        found = made.start(App(), FedAvg(), rounds=1, nodes=nodes, **METRICS)
        assert [row.examples for row in found.history[1:]] == pytest.approx([60.0], abs=1e-4)
        homes = list(made.carried.realm.trial.sites.values())
        pids = [holder(home) for home in homes]
        assert all(pid and os.getsid(pid) == pid for pid in pids)
        for pid in pids:
            line = (Path("/proc") / str(pid) / "cmdline").read_text()
            assert "--app\0" in line
            assert "--answer-after\x000.05\0" in line
            assert PASSPHRASE not in line
        made.start(App(), FedAvg(), rounds=1, nodes=nodes, **METRICS)
        assert [holder(home) for home in homes] == pids
        for home, pid in zip(homes, pids, strict=True):
            assert pid
            os.kill(pid, signal.SIGTERM)
            assert next(child for child in resident._children if child.pid == pid).wait(60) == 0
            with SiteHome.open(home, PASSPHRASE, SystemClock().now(), data=False) as site:
                kinds = [str(entry.kind) for entry in site.ledger.entries()]
                assert kinds.count("reserve") == kinds.count("settle") == 2


def test_an_apps_process_loads_little() -> None:
    """Flower starts one for each message: nothing of tables, models, validation or the site itself is loaded."""
    code = (
        "import sys, flwr.clientapp, flwr.app; before = set(sys.modules)\n"
        "import privfl.flower.private_app, privfl.flower.private_resident, privfl.flower.private_records\n"
        "new = set(sys.modules) - before\n"
        "heavy = {'pandas', 'sklearn', 'scipy', 'pydantic', 'typer', 'torch', 'boto3', 'privfl_analytics'}\n"
        "rooms = {'privfl.runtime', 'privfl.tasks', 'privfl.secagg', 'privfl.dp', 'privfl.homes.site'}\n"
        "print(sorted({name.partition('.')[0] for name in new} & heavy), sorted(new & rooms))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.strip() == "[] []"
