"""Regressions of a security review of the Flower wire: what strangers, liars and bad moments must not be able to do."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from privfl_keys import SigningKey

from privfl.errors import Misuse, PrivflError
from privfl.flower import resident
from privfl.flower.client import SiteCarrier, Worked, exchange, handler, site_app
from privfl.flower.courier import MOST_SENT
from privfl.flower.courier_grid import PULL_AT_ONCE, PULL_BYTES, batches
from privfl.flower.courier_nodes import Nodes
from privfl.flower.local_grid import LocalGrid
from privfl.flower.records import array_of, packed, unpacked
from privfl.homes.lock import Lock, holder
from privfl.wires import Envelope
from privfl.wires.envelope import BodyRef, check_body, seal_envelope
from privfl.wires.flower_carry import BOX_MOST, MAX_LETTERS, Carrier, Load
from privfl.wires.flower_peers import PEERS, Peers
from tests.cli.support import Ran, called
from tests.flower.carried import Carried, carried
from tests.flower.town import COORDINATOR, OWN, SITES, STRANGER, Site, Town, site_id

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:flwr")


@pytest.fixture(autouse=True)
def _grid() -> None:
    LocalGrid(site_app, {})  # messages need a run to belong to


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carried]:
    with carried(tmp_path_factory.mktemp("world") / "world", 3) as made:
        yield made


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "north", SITES["north"])


def name(at: int) -> str:
    return f"01700000000000000000-{at:08d}-0123456789abcdef"


def letter(
    key: SigningKey, *bodies: bytes, to: bytes = site_id("north"), sender: bytes | None = None, federation: str = "test"
) -> bytes:
    refs = tuple(BodyRef.of(body) for body in bodies)
    own = key.verify_key.site_id if sender is None else sender
    bare = Envelope(federation, own, to, "ping", os.urandom(16), b"", b"hi", refs, bytes(64))
    return seal_envelope(key, bare).encode()


def told(carrier: SiteCarrier, load: Load, *bodies: bytes) -> tuple[Load, list[bool]]:
    """What the site's node answers, and each time it let its site work whether that was a hello."""
    woken: list[bool] = []

    def work(carrier: Carrier, hold: float, hello: bool) -> Worked:
        woken.append(hello)
        return Worked()

    arrays = [(hashlib.sha256(body).digest(), array_of(body)) for body in bodies]
    return unpacked(exchange(Message(packed(load, arrays), 1, "query.privfl"), carrier, work).content)[0], woken


def files(home: Path) -> int:
    """Bytes of all that lies in a spool, but for what says which folder it is."""
    return sum(
        path.stat().st_size for path in (home / "flower").rglob("*") if path.is_file() and path.suffix != ".json"
    )


# -- a hostile SuperLink --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "sender", "federation"),
    [
        (STRANGER, OWN, "test"),  # signed by nobody in the name of the coordinator
        (SITES["south"], OWN, "test"),  # by another site in its name
        (COORDINATOR, OWN, "another"),  # by the coordinator, for another federation
    ],
)
def test_nothing_is_kept_at_a_site_that_no_coordinator_has_signed(
    site: Site, key: SigningKey, sender: bytes, federation: str
) -> None:
    """Not a byte of letters or bodies comes onto the site's disk, however many and large they are."""
    body = os.urandom(200_000)
    letters = tuple((name(at), letter(key, body, sender=sender, federation=federation)) for at in range(5))
    told(site.carrier, Load(OWN, site.id, letters), body)
    assert files(site.home) == 0
    assert site.carrier.unread() == []


def test_a_stranger_wakes_no_site_and_takes_no_letter(site: Site) -> None:
    """Who is no coordinator of the roster learns whose node it is, as every courier must, and nothing happens."""
    site.post.send(OWN, "pong", b"for the coordinator")
    stranger = STRANGER.verify_key.site_id
    for load in (Load(stranger), Load(site_id("south")), Load(stranger, site.id, ((name(1), letter(STRANGER)),))):
        reply, woken = told(site.carrier, load)
        assert (reply.own, reply.letters, woken) == (site.id, (), [])
    assert len(site.carrier.waiting(OWN)) == 1


def test_a_replayed_letter_fills_no_disk(site: Site) -> None:
    """A genuine letter under ever new names, which nobody has signed, is bounded in number; its body lies once."""
    body = os.urandom(50_000)
    genuine = letter(COORDINATOR, body)
    for start in range(0, 2 * BOX_MOST, MAX_LETTERS):
        load = Load(OWN, site.id, tuple((name(at), genuine) for at in range(start, start + MAX_LETTERS)))
        told(site.carrier, load, body)
    assert len(site.carrier.unread()) == BOX_MOST
    assert files(site.home) < BOX_MOST * len(genuine) + len(body) + 1


def test_a_coordinator_fills_no_disk_with_bodies(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a letter is not taken, and not confirmed either: it comes again when there is room."""
    monkeypatch.setattr(site.carrier, "_most", 250_000)
    bodies = [os.urandom(100_000) for _ in range(4)]
    letters = tuple((name(at), letter(COORDINATOR, body)) for at, body in enumerate(bodies))
    reply, _ = told(site.carrier, Load(OWN, site.id, letters), *bodies)
    assert reply.taken == (name(0), name(1))
    site.work(site.carrier, 0, False)
    assert len(site.got) == 2
    site.spool.bodies.drop(hashlib.sha256(bodies[0]).digest())
    assert told(site.carrier, Load(OWN, site.id, letters[2:]), *bodies[2:])[0].taken == (name(2),)


def test_names_of_letters_lead_nowhere(site: Site) -> None:
    """Neither a confirmed name nor a letter's reaches a file outside its box."""
    victim = site.home / "victim"
    victim.write_bytes(b"here")
    names = (
        "../../../../victim",
        str(victim),
        "../here",
        ".",
        "",
        "\0",
        "n\u00fcl",
        name(1) + "/../../x",
        name(1) + "\n",
    )
    site.post.send(OWN, "pong", b"stays")
    load = Load(OWN, site.id, tuple((one, letter(COORDINATOR)) for one in names), taken=names)
    reply, _ = told(site.carrier, load)
    assert victim.read_bytes() == b"here"
    assert (reply.taken, site.carrier.unread()) == ((), [])
    assert len(site.carrier.waiting(OWN)) == 1


def test_a_box_that_is_a_link_is_not_followed(site: Site, tmp_path: Path) -> None:
    """Somebody who could once write into the spool cannot lead the carrier out of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / name(1)).write_bytes(b"not to be deleted, not to be sent")
    box = site.home / "flower" / "boxes" / OWN.hex()
    box.mkdir(exist_ok=True)
    (box / "new").symlink_to(outside)
    with pytest.raises(PrivflError):
        told(site.carrier, Load(OWN, site.id, taken=(name(1),)))
    assert (outside / name(1)).exists()


def test_a_site_without_the_copy_says_what_to_do(world: Carried, caplog: pytest.LogCaptureFixture) -> None:
    """Its operator reads the command; the coordinator learns that something is wrong, and no path."""
    home = world.site("north") if "north" in world.names else next(iter(world.realm.trial.sites.values()))
    kept = (home / PEERS).read_bytes()
    assert Peers.decode(kept).keys == Peers.read(home).keys != ()
    try:
        for damaged in (b"", b"x" * 100):
            (home / PEERS).write_bytes(damaged)
            message = Message(packed(Load(OWN), ()), 1, "query.privfl")
            reply = unpacked(handler(message, Context(1, 1, {"privfl-site": str(home)}, RecordDict(), {})).content)[0]
            assert f"privfl site join {home}" in caplog.text
            assert str(home) not in reply.problem != ""
    finally:
        (home / PEERS).write_bytes(kept)


# -- hostile nodes --------------------------------------------------------------------------------------------


def test_one_site_s_letters_do_not_fill_the_coordinator_s_box_for_the_others(tmp_path: Path) -> None:
    """A member that floods is stopped at its own bound, and another's letter is taken all the same."""
    town = Town(tmp_path)
    carrier = town.courier._carrier
    loud, quiet = site_id("north"), site_id("south")
    for start in range(0, 2 * BOX_MOST, MAX_LETTERS):
        letters = ((name(at), letter(SITES["north"], to=OWN)) for at in range(start, start + MAX_LETTERS))
        carrier.take(loud, Load(loud, letters=tuple(letters)), {})
    assert len(carrier.unread()) == BOX_MOST
    assert carrier.take(quiet, Load(quiet, letters=((name(1), letter(SITES["south"], to=OWN)),)), {}).names == [name(1)]


def test_a_body_that_many_letters_name_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member cannot keep the courier busy for minutes by naming one large body in every place of every letter."""
    town, body, looks = Town(tmp_path), os.urandom(1000), [0]

    def counted(ref: BodyRef, data: bytes) -> bytes:
        looks[0] += 1
        return check_body(ref, data)

    monkeypatch.setattr("privfl.wires.flower_carry.check_body", counted)
    own = site_id("north")
    letters = tuple((name(at), letter(SITES["north"], *[body] * 8, to=OWN)) for at in range(MAX_LETTERS))
    taken = town.courier._carrier.take(own, Load(own, letters=letters), {hashlib.sha256(body).digest(): body})
    assert (taken.new, looks[0]) == (MAX_LETTERS, 1)


def test_thousands_of_nodes_cost_little_to_look_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told of nodes takes one look at each, not one at all of them for each."""
    town = Town(tmp_path)
    town.step(times=2)
    looks, real = [0], Nodes.of_sites

    def counted(nodes: Nodes) -> dict[bytes, list[int]]:
        looks[0] += 1
        return real(nodes)

    monkeypatch.setattr(Nodes, "of_sites", counted)
    for node in town.courier._nodes.values():
        node.problem = "of some kind"
    assert len(town.courier.problems) == 2
    assert looks[0] == 1


def test_replies_that_lie_in_memory_at_once_are_bounded(tmp_path: Path) -> None:
    """By bytes as well as by number; a stranger that sends much is asked for alone, and slows nobody else's mail."""
    town = Town(tmp_path, ("north", "south", "east"))
    town.step(times=2)
    courier = town.courier
    under_way = {f"{at}": courier._nodes[1 + at % 2] for at in range(3 * PULL_AT_ONCE)}
    assert [len(one) for one in batches(under_way, courier._usual)] == [PULL_AT_ONCE] * 3
    big = os.urandom(1000)

    def boastful(message: Message, context: Context) -> Message:
        bodies = [(hashlib.sha256(big).digest(), array_of(big))]
        return Message(packed(Load(bytes(32)), bodies), reply_to=message)

    town.grid.add(9, {}, boastful)
    town.step(61, times=3)
    assert (courier._nodes[9].largest, courier._usual) == (1000, 0)
    courier._nodes[9].largest = 2 * PULL_BYTES
    found = batches({**under_way, "x": courier._nodes[9], "y": courier._nodes[1]}, courier._usual)
    assert [len(one) for one in found] == [PULL_AT_ONCE] * 3 + [1, 1]
    town.send("east", b"upload", big)
    town.until(lambda: courier._usual == len(big))  # a member's reply tells what others may send
    courier._usual = PULL_BYTES // 2
    assert {len(one) for one in batches(under_way, courier._usual)} == {2}


def test_a_node_that_answers_nothing_has_few_messages_under_way(tmp_path: Path) -> None:
    """It cannot hold replies back, to have them all read at one moment."""
    town = Town(tmp_path, ("north",), patience=1.0)
    town.grid._keep = lambda *lost: None  # type: ignore[method-assign]
    town.step(2.0, times=30)
    assert town.courier.pushed > 2 * MOST_SENT
    assert len(town.courier._nodes[1].sent) == MOST_SENT


# -- bad moments ----------------------------------------------------------------------------------------------


def test_a_look_at_who_holds_a_folder_keeps_nobody_from_it(tmp_path: Path) -> None:
    """A handler asks ten times a second who has the folder; the site that starts meanwhile is not turned away."""
    (tmp_path / "lock").touch()
    look = os.open(tmp_path / "lock", os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    timer = threading.Timer(0.02, os.close, [look])
    timer.start()
    with Lock(tmp_path):
        assert holder(tmp_path) == os.getpid()
        with pytest.raises(Misuse, match=f"pid {os.getpid()}"):
            Lock(tmp_path)
    timer.join()


def test_a_body_that_comes_again_is_not_swept_before_its_letter(site: Site) -> None:
    """Two nodes on one folder: a body that one has just taken in again is young for the other's broom."""
    body = os.urandom(1000)
    sha256 = hashlib.sha256(body).digest()
    site.spool.bodies.put(sha256, body)
    file = site.home / "flower" / "bodies" / sha256.hex()[:2] / sha256.hex()
    os.utime(file, (1, 1))
    site.carrier.take(OWN, Load(OWN, letters=((name(1), letter(COORDINATOR, body)),)), {sha256: body})
    assert file.stat().st_mtime > 1


def test_a_site_that_has_ended_unasked_about_is_started_again(site: Site) -> None:
    """In a container whose first process asks after nobody, an ended site stays in the table of processes."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    mark = site.home / "flower" / resident.MARK
    mark.write_text(str(child))
    until = time.monotonic() + 30
    starting = resident.Resident(site.home, 1)._starting
    while starting() and time.monotonic() < until:
        time.sleep(0.01)
    assert not starting()
    mark.write_text(str(os.getpid()))
    assert starting()
    os.waitpid(child, 0)


def test_a_passphrase_from_a_file_comes_into_no_environment(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resident site is told where the file is, from wherever it was named; its content is in no process's list."""
    (tmp_path / "secret").write_text("a long secret passphrase\n")
    (tmp_path / "secret").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIVFL_PASSPHRASE", raising=False)
    monkeypatch.setenv("PRIVFL_PASSPHRASE_FILE", "secret")
    started: list[tuple[list[str], dict[str, Any]]] = []

    class Started:
        pid = 1

        def __init__(self, command: list[str], **options: Any) -> None:
            started.append((command, options))

        def poll(self) -> int:
            return 0

    monkeypatch.setattr("privfl.flower.resident.subprocess.Popen", Started)
    resident.Resident(site.home, 1)._start()
    ((command, options),) = started
    assert str(tmp_path / "secret") == command[command.index("--passphrase-file") + 1]
    assert "a long secret passphrase" not in " ".join(command) + repr(options)
    assert (site.home / resident.LOG).stat().st_mode & 0o777 == 0o600


# -- a command that could only wait ---------------------------------------------------------------------------


def test_commands_that_no_site_would_hear_say_what_to_run(
    world: Carried, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over Flower the app is the coordinator: nothing is queued, nothing waits for ever, and the way out is named."""
    hub, task = world.coordinator, world.realm.task(rounds=1, epsilon=1.0)
    before = sorted((hub / "jobs").glob("*"))

    def command(*args: str | Path) -> Ran:
        return called(capfd, monkeypatch, *args)

    command("coordinator", "run", hub).failed(2, "flwr run", "--detach")
    command("train", task, "--coordinator", hub).failed(2, "flwr run", "--detach")
    assert sorted((hub / "jobs").glob("*")) == before
    ran = command("train", task, "--coordinator", hub, "--detach")
    assert ran.code == 0
    assert "flwr run" in ran.out
