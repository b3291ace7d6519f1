"""Between a site's process and its app's: the same bits as within one, and whatever else happens counts for nothing."""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privfl.codec import encode
from privfl.dp import LocalReport
from privfl.errors import DataError, Misuse, WireError
from privfl.homes import app_socket
from privfl.homes.app_socket import FOLDER, READY, AppCaller, AppPort
from privfl.learn.app_calls import FAULTS
from privfl.learn.update_data import Answer, AppData, Fault, Function
from privfl.learn.update_inputs import Arrays, Ask
from privfl.tasks import SiteData
from tests.forking import end_with_parent
from tests.learn.support import SeededEntropy
from tests.learn.update_support import EVALUATE, SCHEMA, TRAIN, arrays_of, question

FINE = {"num-examples": 3, "loss": 1.0, "acc": 0.5}
LIMIT_S = 30.0  # no call of a test that goes well takes so long


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Deeper than a socket's path may be long."""
    made = tmp_path / ("a long name of a folder " * 6) / "site"
    (made / "flower").mkdir(parents=True)
    return made


def shifted(ask: Ask, arrays: Arrays) -> Answer:
    return Answer({name: array + np.float32(0.25) for name, array in arrays.items()}, FINE)


@contextmanager
def serving(home: Path, function: Function = shifted) -> Iterator[AppPort]:
    """An app in a thread of this process."""
    port, over = AppPort(home, function), threading.Event()

    def serve() -> None:
        while not over.is_set():
            port.serve(0.02)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        over.set()
        thread.join(LIMIT_S)
        port.close()


@contextmanager
def child(home: Path, function: Function) -> Iterator[int]:
    """An app in a process of its own; its id."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        end_with_parent()
        with suppress(BaseException):
            port = AppPort(home, function)
            os.write(told, b"x")
            while True:
                port.serve(1.0)
        os._exit(71)
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def gone(call: AppCaller, home: Path, left: int) -> None:
    """Nobody is at hand, and soon (a killed process closes one socket after the other) only so many files are left."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        with pytest.raises(WireError):
            call.present()
        if len(sockets(home)) == left:
            return
    raise AssertionError(sockets(home))


def caller(home: Path, wait_s: float = 0.1, ms: int = int(LIMIT_S * 1000)) -> AppCaller:
    made = AppCaller(home, wait_s)
    made.within(ms)
    return made


def sockets(home: Path) -> list[str]:
    return sorted(os.listdir(home / FOLDER))


TYPES = ("<f2", "<f4", "<f8", ">f4", ">i8", "|i1", "<u8", "|b1", "<f16")
ANSWERS: dict[str, Callable[[Arrays], Any]] = {
    **{dtype: lambda arrays, dtype=dtype: {"w": np.arange(6).astype(dtype)} for dtype in TYPES},
    "strided": lambda arrays: {"w": np.arange(12.0)[::2]},
    "other names": lambda arrays: {"v": arrays["w"]},
    "none": lambda arrays: {},
    "one more": lambda arrays: {**arrays, "v": arrays["w"]},
    "shape": lambda arrays: {"w": arrays["w"][:3]},
    "rank": lambda arrays: {"w": arrays["w"].reshape(2, 3)},
    "complex": lambda arrays: {"w": np.ones(6, complex)},
    "text": lambda arrays: {"w": np.array(["a"] * 6)},
    "nan": lambda arrays: {"w": np.full(6, np.nan)},
    "object": lambda arrays: {"w": np.array([None] * 6)},
    "no array": lambda arrays: {"w": None},
}  # fmt: skip
METRICS: tuple[dict[Any, Any], ...] = (
    FINE, {}, {**FINE, "loss": float("nan")}, {**FINE, "num-examples": 10**400}, {**FINE, "acc": True},
    {**FINE, "num-examples": [3]}, {**FINE, 7: 1}, {**FINE, "\ud800": 1.0}, {**FINE, "x" * 600: 1.0},
    {**FINE, "loss": "1"},
    {**FINE, "num-examples": -0.0, "loss": np.float16(2), "acc": np.int64(1)},
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_call_over_the_socket_makes_the_same_vector_bit_for_bit(home: Path) -> None:
    """Every type and kind of answer, and every kind of metric, gives what it gives within one process."""
    asked = question()
    inputs, now = asked.encode_inputs(1, arrays_of(), TRAIN, EVALUATE), list[Any]()

    def call(ask: Ask, arrays: Arrays) -> Answer:
        return Answer(now[0](arrays), now[1])

    with serving(home, call):
        far = AppData(SCHEMA, caller(home))
        cases = [(make, FINE) for make in ANSWERS.values()] + [(ANSWERS["<f4"], one) for one in METRICS[1:]]
        for now[:] in cases:
            here, there = (
                asked.contribution(inputs, data, SeededEntropy(3), report=LocalReport())
                for data in (AppData(SCHEMA, call), far)
            )
            if "\ud800" in now[1]:  # a name that nothing can encode: the whole answer counts for nothing
                assert not there.any()
            else:
                np.testing.assert_array_equal(here, there)


def test_odd_models_arrive_as_they_are(home: Path) -> None:
    """Arrays without a number, of no dimension, and of every type that is averaged."""
    arrays: Arrays = {"a": np.zeros((0, 3), "<f4"), "b": np.array(3.5), "c": np.arange(4, dtype="|u1").reshape(2, 2)}
    with serving(home, lambda ask, got: Answer(dict(reversed(got.items())), {"n": 1})):
        found = caller(home)(TRAIN, arrays)
    assert list(found.arrays) == list(arrays)
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)
    assert found.metrics == {"n": 1.0}


def ended(ask: Ask, arrays: Arrays) -> Answer:
    os._exit(3)


def killed(ask: Ask, arrays: Arrays) -> Answer:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.mark.parametrize("function", [ended, killed])
def test_a_process_that_ends_in_a_call_counts_for_nothing_and_is_not_called_again(
    home: Path, function: Function
) -> None:
    """At once, not at the deadline; and what it leaves is tidied away by the next look."""
    with child(home, function):
        call = caller(home)
        call.present()
        with pytest.raises(Fault, match="ended"):
            call(TRAIN, arrays_of())
        gone(call, home, 0)
        with pytest.raises(Fault, match="no app"):
            call(EVALUATE, arrays_of())


@pytest.mark.parametrize("error", [SystemExit(0), RuntimeError("patient 4711"), MemoryError(), Fault("of its own")])
def test_a_function_that_raises_is_told_by_a_word(
    home: Path, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Its text stays where it was; the process goes on, and answers the next call."""

    def call(ask: Ask, arrays: Arrays) -> Answer:
        if ask.kind == "train":
            raise error
        return Answer({}, FINE)

    with caplog.at_level(logging.DEBUG), serving(home, call):
        with pytest.raises(Fault) as found:
            caller(home)(TRAIN, arrays_of())
        assert str(found.value) in FAULTS.values()
        assert caller(home)(EVALUATE, arrays_of()).metrics == FINE
    assert "4711" not in caplog.text


def test_a_child_that_a_function_forked_neither_answers_nor_listens(home: Path) -> None:
    """One answer comes, of the parent; the child is gone before that."""
    pids = list[int]()

    def call(ask: Ask, arrays: Arrays) -> Answer:
        pid = os.fork()
        if pid:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 70
            return Answer(arrays, {"pid": 1})
        return Answer(arrays, {"pid": 0})

    with child(home, call) as pid:
        pids.append(pid)
        assert caller(home)(TRAIN, arrays_of()).metrics == {"pid": 1.0}
        assert caller(home)(TRAIN, arrays_of()).metrics == {"pid": 1.0}


def test_a_function_that_hangs_counts_for_nothing_in_time(home: Path) -> None:
    """The site still has time for noise and masks; what the function says later is for nobody."""
    over = threading.Event()

    def call(ask: Ask, arrays: Arrays) -> Answer:
        over.wait(LIMIT_S)
        return shifted(ask, arrays)

    with serving(home, call):
        began = time.monotonic()
        with pytest.raises(Fault, match="deadline"):
            caller(home, ms=700)(TRAIN, arrays_of())
        assert time.monotonic() - began < LIMIT_S / 2
        over.set()
        assert caller(home, wait_s=LIMIT_S)(TRAIN, arrays_of()).metrics == FINE


def test_the_newest_app_is_called_and_then_the_older_one(home: Path) -> None:
    """Two messages at one node: either can answer, and a process that went is passed over."""
    with serving(home, lambda ask, arrays: Answer(arrays, {"n": 1})):
        with serving(home, lambda ask, arrays: Answer(arrays, {"n": 2})):
            assert caller(home)(TRAIN, arrays_of()).metrics == {"n": 2.0}
            with child(home, lambda ask, arrays: Answer(arrays, {"n": 3})):
                assert caller(home)(TRAIN, arrays_of()).metrics == {"n": 3.0}
            assert caller(home)(TRAIN, arrays_of()).metrics == {"n": 2.0}
        assert caller(home)(TRAIN, arrays_of()).metrics == {"n": 1.0}
    assert sockets(home) == []


def test_a_charged_call_waits_for_an_app_that_comes_back(home: Path) -> None:
    """Its process went between charge and call; the courier's next message brings another."""
    found = list[Answer]()
    thread = threading.Thread(target=lambda: found.append(caller(home, LIMIT_S)(TRAIN, arrays_of())))
    thread.start()
    with serving(home):
        thread.join(LIMIT_S)
    assert [one.metrics for one in found] == [FINE]


def test_a_question_waits_for_its_app_and_a_table_says_what_to_do(home: Path) -> None:
    """Before the charge: WireError keeps the invitation in its box; a site with a table tells its operator more."""
    asked, data = question(), AppData(SCHEMA, caller(home), caller(home).present)
    with pytest.raises(WireError, match="no private app"):
        asked.check(data)
    with serving(home):
        asked.check(data)
    with pytest.raises(DataError, match="site run HOME --app"):
        asked.check(SiteData(SCHEMA, None))


# -- hostile ------------------------------------------------------------------------------------------------


@contextmanager
def speaking(home: Path, data: bytes, greeting: bytes = READY) -> Iterator[None]:
    """A process in the app's place that says ``data`` whatever it is asked."""
    (home / FOLDER).mkdir(mode=0o700, exist_ok=True)
    listener, folder = socket.socket(socket.AF_UNIX), os.open(home / FOLDER, os.O_RDONLY)
    name = f"{time.time_ns():020d}-1-1"
    listener.bind(f"/proc/self/fd/{folder}/{name}")
    listener.listen(4)
    over = threading.Event()

    def serve() -> None:
        listener.settimeout(0.05)
        while not over.is_set():
            with suppress(OSError):
                peer = listener.accept()[0]
                with peer:
                    peer.settimeout(5)
                    peer.sendall(greeting)
                    peer.recv(1 << 20)
                    peer.sendall(data)
                    peer.shutdown(socket.SHUT_WR)
                    while peer.recv(1 << 16):
                        pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)
        listener.close()
        os.unlink(name, dir_fd=folder)
        os.close(folder)


def head(*value: Any, size: int | None = None) -> bytes:
    data = encode(value)
    return struct.pack("<I", len(data) if size is None else size) + data


BODY = np.zeros(6, "<f4").tobytes()
ONE = ("loss", struct.pack("<d", 1.0))
HOSTILE = {
    "nothing": b"",
    "garbage": bytes(range(256)),
    "endless head": struct.pack("<I", 2**32 - 1) + bytes(1000),
    "shorter than told": head("app answer", ("<f4",), (ONE,), size=500),
    "of another kind": head("app call", "train", ()),
    "a fault of its own words": head("app fault", "patient 4711"),
    "no array": head("app answer", (), (ONE,)),
    "two arrays": head("app answer", ("<f4", "<f4"), (ONE,)) + 2 * BODY,
    "half an array": head("app answer", ("<f4",), (ONE,)) + BODY[:12],
    "objects": head("app answer", ("|O",), (ONE,)) + BODY,
    "a type that is none": head("app answer", (7,), (ONE,)) + BODY,
    "a shape": head("app answer", ("(9999999)f8",), (ONE,)) + BODY,
    "nan": head("app answer", ("<f4",), (("loss", struct.pack("<d", float("nan"))),)) + BODY,
    "long number": head("app answer", ("<f4",), (("loss", bytes(16)),)) + BODY,
    "nameless": head("app answer", ("<f4",), ((1, bytes(8)),)) + BODY,
    "many metrics": head("app answer", ("<f4",), tuple((f"m{n}", bytes(8)) for n in range(10_001))) + BODY,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_answer_counts_for_nothing(home: Path, data: bytes) -> None:
    """The app's process may say anything: it is told as one of a few faults, and never in its own words."""
    with speaking(home, data), pytest.raises(Fault) as found:
        caller(home)(TRAIN, arrays_of())
    assert "4711" not in str(found.value)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_no_bytes_make_a_call_fail_in_another_way(home: Path, data: bytes) -> None:
    """Any bytes, also behind a length that fits them."""
    for said in (data, struct.pack("<I", len(data)) + data):
        with speaking(home, said), pytest.raises(Fault):
            caller(home)(TRAIN, arrays_of())


def test_who_does_not_say_that_it_is_ready_is_not_at_hand(home: Path) -> None:
    """A listener that says something else is passed over before the model is told to it."""
    with speaking(home, b"", greeting=b"\0"):
        with pytest.raises(WireError):
            caller(home).present()
        with pytest.raises(Fault, match="no app"):
            caller(home)(TRAIN, arrays_of())


def test_a_process_of_another_user_is_neither_called_nor_answered(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system tells whose process the other end is."""
    with serving(home):
        caller(home).present()
        monkeypatch.setattr(app_socket, "_own_user", lambda peer: False)
        with pytest.raises(WireError):
            caller(home).present()


def test_a_folder_that_others_may_write_is_not_used(home: Path, tmp_path: Path) -> None:
    """Whoever can put a socket there could take the model, or answer in the app's place."""
    os.mkdir(home / FOLDER)
    os.chmod(home / FOLDER, 0o777)
    with pytest.raises(Misuse, match="alone"):
        AppPort(home, shifted)
    with pytest.raises(Misuse, match="alone"):
        caller(home).present()
    os.rmdir(home / FOLDER)
    os.mkdir(tmp_path / "theirs", 0o700)
    os.symlink(tmp_path / "theirs", home / FOLDER)
    with pytest.raises(Misuse, match="remove it"):
        AppPort(home, shifted)
    with pytest.raises(Misuse):
        caller(home).present()


def test_links_files_and_stale_sockets_are_passed_over(home: Path, tmp_path: Path) -> None:
    """Only a socket itself is called; one that nobody listens at goes."""
    (tmp_path / "other" / "flower").mkdir(parents=True)
    with serving(tmp_path / "other") as port:
        os.mkdir(home / FOLDER, 0o700)
        os.symlink(tmp_path / "other" / FOLDER / port._name, home / FOLDER / f"{9:020d}-1-1")
        (home / FOLDER / f"{8:020d}-1-1").write_bytes(b"x")
        with pytest.raises(WireError):
            caller(home).present()
        with child(home, shifted) as pid:
            assert len(sockets(home)) == 3
            os.kill(pid, signal.SIGKILL)
        gone(caller(home), home, 2)
