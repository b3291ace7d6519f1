"""The courier brings every letter to its site and every answer back, however the nodes and the way behave."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privfl.flower.records import BODIES, LOAD, array_of, packed, unpacked
from privfl.wires.flower_carry import Load
from tests.flower.town import STRANGER, Site, Town, site_id


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


def replying(content: RecordDict) -> Any:
    """A node that answers everything with the same."""
    return lambda message, context: Message(content, reply_to=message)


def test_mail_goes_both_ways_in_one_message_per_node(town: Town) -> None:
    """Three letters with a body each take one message there, and their answers its reply; then nothing is left."""
    town.step(times=2)  # who are you?
    bodies = [os.urandom(100_000) for _ in range(3)]
    for body in bodies:
        town.send("north", b"take this", body)
    pushed = town.courier.pushed
    town.until(lambda: len(town.sites["north"].got) == 3)
    assert town.read() == [b"take this"] * 3
    assert town.courier.pushed == pushed + 1
    assert [one.body() for one in town.got] == bodies
    assert town.waiting("north") == 0
    town.step(11, times=3)  # the next poll confirms the answers
    assert town.sites["north"].carrier.waiting(town.courier._carrier.own) == []
    assert town.courier.problems == {}


def test_a_body_travels_as_its_bytes_and_once(town: Town) -> None:
    """The same model for all sites is one object of Flower's, with its own bytes and little around them."""
    town.step(times=2)
    body, seen = os.urandom(300_000), []
    town.grid.seen = lambda node, message: seen.append((node, message.content[BODIES], message.content[LOAD]))
    for name in town.sites:
        town.send(name, b"model", body)
    town.step(times=2)
    there = {node: arrays for node, arrays, _ in seen[::2]}
    assert {node: [array.data for array in arrays.values()] for node, arrays in there.items()} == {1: [body], 2: [body]}
    assert len({arrays.object_id for arrays in there.values()}) == 1
    assert all(len(head["load"]) < 2000 for _, _, head in seen)


def test_a_node_that_is_no_site_of_the_roster_gets_no_mail(
    town: Town, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, no letter, and its replies reach nobody."""
    town.grid.add(7, {}, Site(tmp_path / "stranger", STRANGER))
    town.send("north")
    with caplog.at_level(logging.WARNING):
        town.step(1, times=20)
    assert [one.message for one in caplog.records if "no site of the roster" in one.message][1:] == []
    assert "node 7" in town.courier.problems
    assert town.courier.sites == {"north": [1], "south": [2]}
    assert town.read() == [b"ping"]


def test_an_error_is_followed_by_another_try(town: Town) -> None:
    """After Flower's errors the letter goes again, each time a little later, and the reason is shown meanwhile."""
    town.step(times=2)
    site, tries = town.sites["north"], []

    def moody(message: Message, context: Context) -> Message:
        tries.append(town.now)
        return Message(Error(2, "moody\x1b[31m"), reply_to=message) if len(tries) < 4 else site(message, context)

    town.grid._nodes[1].app = moody
    town.send("north")
    town.until(lambda: len(tries) == 3)
    town.step(0.0)
    assert "moody\\x1b[31m" in town.courier.problems["north"]
    town.until(lambda: town.sites["north"].got == [b"ping"])
    gaps = [late - early for early, late in pairwise(tries)]
    assert gaps == sorted(gaps)
    town.step(times=2)
    assert (town.read(), town.courier.problems) == ([b"ping"], {})


def test_an_app_that_was_not_made_private_is_told_apart(town: Town) -> None:
    """What Flower says of an app that knows nothing of privfl is put into words that help."""
    town.grid._nodes[1].app = ClientApp()
    town.step(times=3)
    assert "private(app)" in town.courier.problems["node 1"]
    assert "north" not in town.courier.sites


def test_a_message_without_reply_is_repeated_after_the_patience(town: Town) -> None:
    """A reply that never comes costs the patience; one that comes late is taken all the same."""
    town.step(times=2)
    keep = town.grid._keep
    town.grid._keep = lambda *lost: None  # type: ignore[method-assign]
    town.send("north")
    town.step(1, times=30)
    town.grid._keep = keep  # type: ignore[method-assign]
    town.step(1, times=28)
    assert (town.sites["north"].got, town.read()) == ([b"ping"], [])
    town.step(1, times=6)
    assert (town.sites["north"].got, town.read()) == ([b"ping"], [b"ping"])


def test_a_node_that_was_away_is_asked_at_once(town: Town) -> None:
    """A SuperNode that died with a message comes back, under its own id or another, and gets it again."""
    town.step(times=2)
    for back in (1, 9):
        was = 1 if 1 in town.grid._nodes else 9
        town.grid._keep, keep = (lambda *lost: None), town.grid._keep  # type: ignore[method-assign]
        town.sites["north"].lazy = True
        town.send("north", str(back).encode())
        town.step(times=3)
        town.grid._keep = keep  # type: ignore[method-assign]
        town.grid.take_away(was)
        town.step(1.1)
        town.sites["north"].lazy = False
        town.grid.add(back, {}, town.sites["north"])
        town.until(lambda back=back: str(back).encode() in town.sites["north"].got, most=30)  # type: ignore[misc]
    town.step(times=3)
    assert town.read() == [b"1", b"9"]


def test_a_site_at_work_is_asked_again_soon(town: Town) -> None:
    """Its answer does not wait for the next poll."""
    town.step(times=2)
    town.sites["north"].lazy = True
    town.send("north")
    town.step(times=2)
    before = town.courier.pushed
    town.step(times=20)
    assert town.courier.pushed >= before + 3
    town.sites["north"].lazy = False
    town.step(times=10)
    assert town.read() == [b"ping"]


def liar(of: str, *, takes: bool) -> Any:
    """A node that says it is another's site; it confirms all its mail, or none."""

    def app(message: Message, context: Context) -> Message:
        load, _ = unpacked(message.content)
        names = tuple(name for name, _ in load.letters) if takes else ()
        return Message(packed(Load(site_id(of), load.own, taken=names), ()), reply_to=message)

    return app


@pytest.mark.parametrize("takes", [False, True])
def test_a_node_that_claims_anothers_id_silences_nobody(town: Town, takes: bool) -> None:
    """Both get the mail, whoever was there first; what the liar confirms the honest site gets all the same."""
    town.grid.add(0, {}, liar("north", takes=takes))
    town.grid._nodes = dict(sorted(town.grid._nodes.items()))
    for at in range(3):
        town.send("north", bytes([at]))
        town.until(lambda at=at: bytes([at]) in town.sites["north"].got, most=60)  # type: ignore[misc]
    town.until(lambda: len(town.got) + len(town.read()) >= 3)
    assert town.sites["north"].got == [b"\0", b"\1", b"\2"]
    assert "0, 1" in town.courier.problems["north"]
    assert (town.waiting("north") == 0) == takes
    town.grid.take_away(0)
    town.step(1, times=4)
    assert (town.waiting("north"), town.courier.problems) == (0, {})


def test_a_letter_waits_while_a_node_has_not_said_who_it_is(town: Town) -> None:
    """A liar that answers first cannot have a letter deleted before the honest node has spoken; time settles it."""
    town.grid.take_away(1)
    town.grid.add(5, {}, liar("north", takes=True))
    town.step(1.1, times=3)
    town.grid.add(1, {}, town.sites["north"])
    keep = town.grid._keep
    town.grid._keep = lambda name, reply, held: keep(name, reply, 0.0) if reply.metadata.src_node_id != 1 else None  # type: ignore[method-assign]
    town.send("north")
    town.step(1.1, times=4)
    assert town.waiting("north") == 1  # the liar has confirmed it, the honest node is not heard yet
    town.grid._keep = keep  # type: ignore[method-assign]
    town.until(lambda: town.sites["north"].got == [b"ping"], seconds=5)
    town.step(1, times=4)
    assert town.waiting("north") == 0


def test_a_letter_for_another_is_not_taken(town: Town) -> None:
    """A node whose site has changed takes nothing that is not its own, and says who it is now."""
    town.step(times=2)
    town.grid._nodes[1].app = town.sites["south"]
    town.send("north")
    town.step(1, times=5)
    assert town.sites["south"].got == []
    assert town.courier.sites == {"south": [1, 2]}
    assert town.waiting("north") == 1


def test_too_much_at_once_goes_one_by_one(town: Town) -> None:
    """Where the SuperLink takes no large request, messages go singly, and letters too."""
    town.step(times=2)
    push = town.grid.push_messages

    def picky(messages: Any) -> Any:
        loads = [unpacked(message.content)[0] for message in messages]
        return push(messages) if len(loads) == 1 and len(loads[0].letters) <= 1 else []

    town.grid.push_messages = picky  # type: ignore[method-assign]
    for name in town.sites:
        for at in range(3):
            town.send(name, bytes([at]))
    town.until(lambda: all(len(site.got) == 3 for site in town.sites.values()))
    town.step(times=3)
    assert sorted(town.read()) == sorted([b"\0", b"\1", b"\2"] * 2)


def test_another_courier_goes_on_with_the_same_spool(town: Town) -> None:
    """A ServerApp that is stopped forgets who is who; no letter and no answer is lost or shown twice."""
    town.step(times=2)
    for at in range(6):
        town.send("north", bytes([at]))
        town.step(times=at % 4)
        town.courier = town.new_courier()
    town.until(lambda: len(town.got) + len(town.read()) >= 6)
    assert sorted(one.payload for one in town.got) == [bytes([at]) for at in range(6)]
    assert town.sites["north"].got == [bytes([at]) for at in range(6)]


def test_a_reply_that_flower_itself_cannot_unpack_hurts_its_node_alone(town: Town) -> None:
    """Whatever a node's bytes do to Flower's decoder, the others' replies of the same moment are read."""
    pull, replies = town.grid.pull_messages, town.grid._replies

    def pulled(ids: Any) -> Any:
        list(pull([]))  # the nodes work
        if any(name in replies and replies[name][1].metadata.src_node_id == 1 for name in ids):
            raise ValueError("a tree without its objects")
        return pull(ids)

    town.grid.pull_messages = pulled  # type: ignore[method-assign]
    town.send("south")
    town.until(lambda: town.sites["south"].got == [b"ping"], most=40)
    town.step(times=3)
    assert town.read() == [b"ping"]
    assert "ValueError" in town.courier.problems["node 1"]


def test_the_thread_outlives_trouble_and_ends_with_the_run(town: Town) -> None:
    """A SuperLink that is away is shown and tried again; when Flower ends the run the courier says so and stops."""
    town.courier._clock = time.monotonic
    town.courier._tick, look, away = 0.005, town.grid.get_node_ids, [True]
    done = threading.Event()

    class Ended(BaseException):
        pass

    def looked() -> Any:
        if done.is_set():
            raise Ended
        if away[0]:
            raise ConnectionRefusedError("nobody there")
        return look()

    town.grid.get_node_ids = looked  # type: ignore[method-assign]
    town.courier._look_s = 0.0
    until = time.monotonic() + 30
    with town.courier:
        while "Flower" not in town.courier.problems and time.monotonic() < until:
            time.sleep(0.005)
        assert town.courier.problems == {"Flower": "the SuperLink does not answer (ConnectionRefusedError)"}
        away[0] = False
        town.send("north")
        while town.sites["north"].got != [b"ping"] and time.monotonic() < until:
            time.sleep(0.005)
        assert town.courier.problems == {}
        done.set()
        while not town.courier.ended and time.monotonic() < until:
            time.sleep(0.005)
    assert "has ended" in town.courier.ended


# -- hostile replies ----------------------------------------------------------------------------------------

ARRAYS = st.builds(
    Array,
    dtype=st.sampled_from(["uint8", "float32", "x" * 50]),
    shape=st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
    stype=st.sampled_from(["privfl.bytes", "numpy.ndarray"]),
    data=st.binary(max_size=100),
)
SCALARS = st.one_of(st.integers(-(2**60), 2**60), st.floats(), st.binary(max_size=200), st.text(max_size=20))
NAMES = st.one_of(st.sampled_from([LOAD, BODIES, "load", "a" * 64]), st.text(max_size=10))
RECORDS = st.one_of(
    st.dictionaries(NAMES, SCALARS, max_size=3).map(ConfigRecord),
    st.dictionaries(NAMES, ARRAYS, max_size=3).map(ArrayRecord),
    st.dictionaries(NAMES, st.integers(), max_size=2).map(MetricRecord),
)
LOADS = st.builds(
    Load,
    own=st.sampled_from([site_id("north"), site_id("south"), b"", bytes(32), b"x"]),
    to=st.binary(max_size=32),
    letters=st.lists(st.tuples(st.text(max_size=60), st.binary(max_size=80)), max_size=3).map(tuple),
    taken=st.lists(st.text(max_size=60), max_size=3).map(tuple),
    working=st.booleans(),
    more=st.booleans(),
    problem=st.text(alphabet=st.characters(codec="utf-8"), max_size=400),
)


def content(load: Load, arrays: dict[str, Array]) -> RecordDict:
    return RecordDict({LOAD: ConfigRecord({"load": load.encode()}), BODIES: ArrayRecord(arrays)})


CONTENTS = st.one_of(
    st.dictionaries(NAMES, RECORDS, max_size=3).map(RecordDict),
    st.builds(content, LOADS, st.dictionaries(st.one_of(st.just("a" * 64), st.text(max_size=5)), ARRAYS, max_size=2)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(told=CONTENTS)
def test_no_reply_breaks_the_courier_or_keeps_the_others_waiting(town: Town, told: RecordDict) -> None:
    """Records of any kind and content from one node are refused or harmless; another node's mail comes and goes."""
    town.grid._nodes[1].app = replying(told)
    town.sites["south"].got.clear()
    town.send("south")
    town.step(61, times=3)
    assert town.sites["south"].got == [b"ping"]
    assert town.read() == [b"ping"]
    assert "Flower" not in town.courier.problems
    assert all(words.isprintable() for words in town.courier.problems.values())


def test_a_letter_that_no_member_has_signed_does_not_get_in(town: Town, tmp_path: Path) -> None:
    """Neither into the box nor, with its body, onto the disk: a stranger's node fills nothing."""
    forger, own = Site(tmp_path / "forger", STRANGER), town.courier._carrier.own
    body = os.urandom(50_000)
    sha256 = hashlib.sha256(body).digest()
    forger.post.send(own, "pong", b"forged", bodies=[body])
    found, _ = forger.carrier.letters(own, forger.carrier.waiting(own))
    letters = tuple((one.name, one.data) for one in found)

    def forge(message: Message, context: Context) -> Message:
        return Message(packed(Load(site_id("north"), b"", letters), [(sha256, array_of(body))]), reply_to=message)

    town.grid._nodes[1].app = forge
    town.step(1, times=4)
    assert town.read() == []
    assert town.courier.refused >= 1
    assert not town.spool.bodies.has(sha256)
