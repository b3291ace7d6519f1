"""The handler in the ClientApp: it carries, never raises, tells no secret, and may be killed at any point."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from privfl_keys.signing import VerifyKey

from privfl.flower.client import AT_FAULT, Work, Worked, add_to, carrier_of, exchange, handler, site_app
from privfl.flower.local_grid import LocalGrid
from privfl.flower.records import array_of, packed, unpacked
from privfl.flower.resident import Resident, own_id
from privfl.homes.lock import Lock, holder
from privfl.wires.flower import spool_of
from privfl.wires.flower_carry import Load
from privfl.wires.flower_peers import PEERS, Peers
from tests.flower.carried import Carried, carried
from tests.flower.town import OWN, Site, Town, site_id
from tests.forking import end_with_parent
from tests.runtime.realm import PASSPHRASE


@pytest.fixture(autouse=True)
def _grid() -> None:
    LocalGrid(site_app, {})  # messages need a run to belong to


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Carried]:
    with carried(tmp_path / "world", 3) as made:
        yield made


def courier(home: Path | str | None) -> bytes:
    """Whose courier this site's node answers."""
    known = Path(str(home)) / PEERS
    return VerifyKey(Peers.decode(known.read_bytes()).keys[0]).site_id if known.is_file() else OWN


def asked(home: Path | str | None, load: Load | None = None, content: RecordDict | None = None) -> Load:
    """What a node's handler replies."""
    message = Message(packed(load or Load(courier(home)), ()) if content is None else content, 1, "query.privfl")
    config: dict[str, Any] = {} if home is None else {"privfl-site": str(home)}
    return unpacked(handler(message, Context(1, 1, config, RecordDict(), {})).content)[0]


def test_the_app_answers_to_its_name(world: Carried) -> None:
    """``query.privfl`` is what couriers ask; an app with functions of its own can take it in."""
    assert isinstance(site_app, ClientApp)
    context = Context(1, 1, {"privfl-site": str(world.site("north"))}, RecordDict(), {})
    for app in (site_app, add_to(ClientApp())):
        message = Message(packed(Load(OWN), ()), 1, "query.privfl")
        assert len(unpacked(app(message, context).content)[0].own) == 32


def without(home: Path, name: str) -> Path:
    (home / name).unlink()
    return home


BROKEN: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no site named": (lambda home: None, "this node names no site", "PRIVFL_SITE"),
    "no such folder": (lambda home: home / "nowhere", AT_FAULT, "has no site.yaml"),
    "another wire": (
        lambda home: (home / "site.yaml").write_text("wire: folder:/tmp/x\n") and home,
        AT_FAULT,
        "kind folder",
    ),
    "no wire": (lambda home: (home / "site.yaml").write_text("role: site\n") and home, AT_FAULT, "names no wire"),
    "no YAML": (lambda home: (home / "site.yaml").write_bytes(b"\xff\0") and home, AT_FAULT, "names no wire"),
    "no request": (lambda home: without(home, "request"), AT_FAULT, "privfl site request"),
    "damaged request": (lambda home: (home / "request").write_bytes(b"x") and home, AT_FAULT, "privfl site request"),
    "no coordinator known": (lambda home: without(home, PEERS), AT_FAULT, "privfl site join"),
    "spool in the way": (
        lambda home: (home / "flower").write_text("a file") and home,
        AT_FAULT,
        "no wire folder can be made",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_at_a_node_is_told_to_its_operator(
    world: Carried, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the reason and what to do; the other side learns that something is wrong, and no path."""
    break_it, told, logged = BROKEN[case]
    home = world.site("north")
    with caplog.at_level(logging.ERROR):
        reply = asked(break_it(home))  # type: ignore[arg-type]
    assert told in reply.problem
    assert str(home) not in reply.problem
    assert (reply.own, reply.letters) == (b"", ())
    assert logged in caplog.text


@pytest.mark.parametrize(
    "content",
    [RecordDict(), RecordDict({"privfl": ConfigRecord({"load": b"x"})}), packed(Load(), ()), packed(Load(b"x"), ())],
)
def test_a_message_that_is_no_couriers_is_answered_with_a_problem(world: Carried, content: RecordDict) -> None:
    """Nothing raises: Flower would send the exception's text on."""
    assert asked(world.site("north"), content=content).problem == AT_FAULT


def test_a_courier_cannot_pass_for_the_site_itself(tmp_path: Path) -> None:
    """Or its confirmations would delete what the site has not read yet."""
    site = Site(tmp_path / "north", next(iter(Town(tmp_path / "town").sites.values())).key)
    with pytest.raises(Exception, match="no courier"):
        exchange(Message(packed(Load(site.id), ()), 1, "query.privfl"), site.carrier, site.work)


def test_without_a_passphrase_no_site_is_started(
    world: Carried, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The letter waits in the spool, and the operator is told which variable to set."""
    monkeypatch.delenv("PRIVFL_PASSPHRASE", raising=False)
    monkeypatch.delenv("PRIVFL_PASSPHRASE_FILE", raising=False)
    home = world.site("north")
    _put(home)
    with caplog.at_level(logging.ERROR):
        reply = asked(home)
    assert "PRIVFL_PASSPHRASE" in caplog.text
    assert "operator" in reply.problem
    assert len(_boxed(home)) == 1


def _put(home: Path) -> None:
    """Any letter, so that the site has something to do; it will find that nobody has signed it."""
    spool_of(home).mailbox(own_id(home)).send(own_id(home), b"no envelope")


def _boxed(home: Path) -> list[str]:
    return carrier_of(home).unread()


def test_a_site_that_does_not_start_says_that_and_no_more(world: Carried, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong passphrase: its own words stay in the folder's log, the coordinator reads a kind of reason."""
    monkeypatch.setenv("PRIVFL_PASSPHRASE", "a wrong passphrase altogether")
    home = world.site("north")
    _put(home)
    worked = Resident(home, 5)(carrier_of(home), 60.0, False)
    assert not worked.working
    assert "does not start (exit " in worked.problem
    assert "passphrase altogether" not in worked.problem + (home / "site-start.log").read_text()
    assert "privfl" in (home / "site-start.log").read_text()


def test_a_site_that_takes_long_is_reported_at_work(world: Carried) -> None:
    """Somebody holds the folder and does not get done: the reply goes after the hold, and asks to be asked again."""
    home = world.site("north")
    _put(home)
    with Lock(home):
        assert Resident(home, 5)(carrier_of(home), 0.05, False) == Worked(working=True)


def test_mail_that_comes_while_a_site_is_opened_twice_is_worked_once(
    world: Carried, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two messages at one node at once: one opens the site, the other waits for it; neither fails."""
    monkeypatch.setenv("PRIVFL_PASSPHRASE", PASSPHRASE)
    home, replies = world.site("north"), list[Load]()
    for _ in range(3):
        _put(home)
    threads = [threading.Thread(target=lambda: replies.append(asked(home))) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert [one.problem for one in replies] == [""] * 3
    assert _boxed(home) == []
    assert holder(home) is None


def test_the_carrier_loads_little() -> None:
    """Flower starts a process for each message: neither tables nor models nor validation are loaded to carry mail."""
    code = (
        "import sys, flwr.clientapp, flwr.app; before = set(sys.modules)\n"
        "import privfl.flower.client, privfl.flower.resident\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new & {'pandas', 'sklearn', 'scipy', 'pydantic', 'typer', 'torch', 'boto3', 'privfl_analytics'}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.strip() == "[]"


# -- killed -------------------------------------------------------------------------------------------------

STEPS = ("rename", "link", "unlink", "fsync")


def dying(site: Site, plan: list[int | None], work: Work) -> Callable[[Message, Context], Message]:
    """A node whose handler runs in a process of its own, killed before the next planned step of the file system."""

    def app(message: Message, context: Context) -> Message:
        at = plan.pop(0) if plan and unpacked(message.content)[0].letters else None
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            end_with_parent()
            try:
                if at is not None:
                    _die_at(at)
                load, bodies = unpacked(exchange(message, site.carrier, work).content)
                with os.fdopen(into, "wb") as stream:
                    pickle.dump((load.encode(), bodies), stream)
            finally:
                os._exit(0)
        os.close(into)
        with os.fdopen(out, "rb") as stream:
            data = stream.read()
        os.waitpid(child, 0)
        if not data:
            site.deaths += 1
            raise RuntimeError("killed")
        encoded, bodies = pickle.loads(data)  # from this test's own child
        return Message(
            packed(Load.decode(encoded), [(key, array_of(one)) for key, one in bodies.items()]), reply_to=message
        )

    return app


def _die_at(at: int) -> None:
    left = [at]

    def stepping(real: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **named: Any) -> Any:
            if not left[0]:
                os._exit(9)
            left[0] -= 1
            return real(*args, **named)

        return stepped

    for step in STEPS:
        setattr(os, step, stepping(getattr(os, step)))


def test_a_handler_killed_at_any_step_loses_nothing(tmp_path: Path) -> None:
    """Before each step on the disk in turn: every letter is answered, with its body, and at most twice."""
    town = Town(tmp_path, ("north",), poll=1.0)
    site = town.sites["north"]
    plan: list[int | None] = []
    town.grid._nodes[1].app = dying(site, plan, site.work)
    town.step(times=2)
    for at in range(60):
        payload, body, deaths = str(at).encode(), os.urandom(3000), site.deaths
        plan.append(at)
        town.send("north", payload, body)
        answers: list[bytes] = []
        town.until(lambda answers=answers, payload=payload: answers.extend(town.read()) or payload in answers, 0.6)  # type: ignore[misc]
        town.step(1.1, times=3)
        answers += town.read()
        assert answers.count(payload) <= 2
        assert next(one for one in town.got if one.payload == payload).body() == body
        assert plan == []
        if site.deaths == deaths:
            break
    assert site.deaths == at > 8
    town.step(1.1, times=3)
    assert town.waiting("north") == 0
    assert site.carrier.waiting(OWN) == []


def test_a_site_whose_mail_comes_in_a_fresh_process_each_time_goes_on(tmp_path: Path) -> None:
    """What a restarted SuperNode is: nothing is kept but the folder."""
    town = Town(tmp_path, ("north",))
    town.grid._nodes[1].app = dying(town.sites["north"], [], town.sites["north"].work)
    for at in range(3):
        town.send("north", bytes([at]))
        town.until(lambda: len(town.read()) > 0)
        town.grid.take_away(1)
        town.step(1.1)
        site = Site(tmp_path / "north", town.sites["north"].key)
        town.grid.add(1, {}, dying(site, [], site.work))
    assert [one.payload for one in town.got] == [b"\0", b"\1", b"\2"]
    assert site_id("north") == town.sites["north"].id
