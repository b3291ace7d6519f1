"""Logs: one line per event whatever arrives, no value in them, and no log that ends the process it watches."""

from __future__ import annotations

import enum
import json
import logging
import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from privfl_keys import Redacted, Secret, SecretBytes

from privfl.entropy import SYSTEM
from privfl.errors import Misuse, Unverified
from privfl.runtime import logs
from privfl.runtime.logs import JsonFormatter, LineFormatter, configure, where

Capture = pytest.CaptureFixture[str]
KEYS = ["time", "level", "logger", "who", "epoch", "round", "attempt", "message", "error"]
log = logging.getLogger("privfl.test")


@contextmanager
def untouched() -> Iterator[None]:
    """The loggers that :func:`configure` sets up are afterwards as before."""
    trees = [logging.getLogger(name) for name in ("privfl", *logs.LIBRARIES)]
    before = [(tree.handlers[:], tree.level, tree.propagate) for tree in trees]
    yield
    for tree, found in zip(trees, before, strict=True):
        for handler in tree.handlers:
            if handler not in found[0]:
                handler.close()
        tree.handlers[:], tree.level, tree.propagate = found


@pytest.fixture(autouse=True)
def _afterwards() -> Iterator[None]:
    """Leave the logger tree as it was found."""
    with untouched():
        yield


def record(message: object, *args: object, name: str = "privfl.test", error: Any = None) -> logging.LogRecord:
    """A record as a logger makes it."""
    return logging.LogRecord(name, logging.INFO, "", 0, message, args, error)  # type: ignore[arg-type]


SECRET = b"\x93seventeen secret bytes\xfe"


class Key(Redacted):
    """A holder that would tell everything if it were asked for its attributes."""

    def __init__(self) -> None:
        self.value = SECRET


class Talks:
    """An object whose own words are its secret."""

    def __str__(self) -> str:
        return SECRET.hex()

    __repr__ = __format__ = __str__  # type: ignore[assignment]


class Fails(tuple[int, ...]):
    """A sequence that cannot be looked through."""

    def __iter__(self) -> Any:
        raise RuntimeError(SECRET.hex())


class Colour(enum.Enum):
    """A plain enum, and one that holds bytes."""

    RED = "red"
    KEY = SECRET


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.sampled_from([Colour.KEY]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=6,
)


@given(st.text(), st.lists(anything, max_size=3), st.text(), st.text())
def test_one_line_for_anything(message: str, args: list[object], who: str, name: str) -> None:
    """Any message, arguments, site name and logger name: exactly one line of printable characters."""
    line = LineFormatter(who).format(record(message, *args, name=name))
    assert line.isprintable()
    assert len(line.splitlines()) == 1


@given(st.text(), st.lists(anything, max_size=3), st.text())
def test_one_object_for_anything(message: str, args: list[object], who: str) -> None:
    """The same as JSON: one object, always the same keys, ASCII without control characters."""
    line = JsonFormatter(who).format(record(message, *args))
    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line)
    assert list(found) == KEYS
    assert found["who"] == who
    if not args and len(message) <= logs.LONGEST:
        assert found["message"] == message


@given(st.text(max_size=40), st.text(max_size=40))
def test_escapes_can_be_told_from_what_was_written(first: str, second: str) -> None:
    """Two messages that differ give two lines that differ: a peer cannot write what looks like an escape."""
    lines = {LineFormatter("s").format(_at_zero(text)) for text in (first, second)}
    assert len(lines) == len({first, second})


def _at_zero(text: str) -> logging.LogRecord:
    found = record(text)
    found.created = 0.0
    return found


def test_no_peer_starts_a_line() -> None:
    """Newlines of every alphabet, terminal sequences and reversed text arrive as escapes."""
    evil = "bye\n2026-01-01 INFO all is well\r\x1b[2J\u2028x\x85\u202e\ud800\x00\x7f"
    line = LineFormatter("north").format(record("refused: %s", evil))
    assert line.endswith(
        "refused: bye\\x0a2026-01-01 INFO all is well\\x0d\\x1b[2J\\u2028x\\x85\\u202e\\ud800\\x00\\x7f"
    )


VALUES: list[object] = [
    SECRET,
    bytearray(SECRET),
    memoryview(SECRET),
    np.frombuffer(SECRET[:16], np.uint64),
    np.float64(0.8125),
    np.str_("0.8125"),
    np.bytes_(SECRET),
    pd.DataFrame({"age": [0.8125]}),
    pd.Series([0.8125]),
    pd.Timestamp("2001-02-03"),
    Secret(SECRET),
    SecretBytes(SECRET),
    Key(),
    Talks(),
    Colour.KEY,
    int.from_bytes(SECRET, "big"),
    ValueError("could not convert string to float: '0.8125'"),
    [SECRET, np.float64(0.8125)],
    {"key": SECRET, "more": {"key": SECRET}},
    [[[SECRET]]],
]
TRACES = [SECRET.hex(), repr(SECRET)[2:-1], "seventeen", "0.8125", "2001", str(int.from_bytes(SECRET, "big"))]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("how", ["%s", "%r", "%d", "%(key)s", "no place", None])
def test_no_value_is_shown(value: object, how: str | None) -> None:
    """However it is passed (as message, argument, named argument, or one too many), only its kind is written."""
    made = record(value) if how is None else record(how, {"key": value} if how == "%(key)s" else value)
    for formatter in (LineFormatter("s"), JsonFormatter("s")):
        line = formatter.format(made)
        assert not [trace for trace in TRACES if trace in line], line


def test_an_argument_that_cannot_be_looked_at() -> None:
    """It costs its line the message, nothing else."""
    line = LineFormatter("s").format(record("%s", Fails()))
    assert line.endswith("<a message that cannot be shown: RuntimeError>")


def test_plain_arguments_are_shown() -> None:
    """Numbers keep their formats; enums, paths and privfl's errors are words."""
    line = LineFormatter("s").format(
        record("%d of %.2f %s %s %s", 3, 0.5, Colour.RED, Path("/data/x"), Unverified("no"))
    )
    assert line.endswith("3 of 0.50 red /data/x Unverified: no")
    assert LineFormatter("s").format(record("%s", OSError(28, "No space left"))).endswith("OSError: No space left")


def test_formats_that_would_fill_the_memory() -> None:
    """A width of a gigabyte, written or given, is not carried out."""
    for text, args in (("%999999999d", (1,)), ("%*d", (999999999, 1)), ("%.999999999f", (1.0,))):
        assert len(LineFormatter("s").format(record(text, *args))) < 200


def test_a_long_message_is_cut() -> None:
    """A peer's reason of a megabyte costs four kilobytes."""
    line = LineFormatter("s").format(record("%s", "x" * 10**6))
    assert line.endswith("… 996000 more characters")


def fails_with_locals() -> None:
    """Raise with a secret in a local and a value in the message."""
    hidden = SECRET.hex()
    raise ValueError(f"row 17 holds 0.8125, {hidden}")


def test_an_exception_is_its_type_and_place() -> None:
    """No local, no source line, no foreign message; privfl's own words are kept."""
    try:
        fails_with_locals()
    except ValueError:
        line = LineFormatter("s").format(record("it failed", error=sys.exc_info()))
    assert line.endswith("fails_with_locals]")
    assert "[ValueError at test_logs.py:" in line
    assert not [trace for trace in TRACES if trace in line]
    try:
        raise Unverified("bad\nsignature")
    except Unverified:
        found = json.loads(JsonFormatter("s").format(record("it failed", error=sys.exc_info())))
    assert found["error"].startswith("Unverified: bad\nsignature at test_logs.py:")
    assert json.loads(JsonFormatter("s").format(record("x", error=(None, None, None))))["error"] is None


def test_the_slot_is_named_within() -> None:
    """Nested slots add to the outer one and end with their block; other threads have their own."""

    def now() -> list[object]:
        found = json.loads(JsonFormatter("s").format(record("x")))
        return [found[name] for name in ("epoch", "round", "attempt")]

    with where(epoch=3):
        with where(round=0, attempt=1):
            assert now() == [3, 0, 1]
            other: list[object] = []
            thread = threading.Thread(target=lambda: other.append(now()))
            thread.start()
            thread.join()
            assert other == [[None, None, None]]
        with suppress(RuntimeError), where(round=9):
            raise RuntimeError
        assert now() == [3, None, None]
    assert now() == [None, None, None]


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_file(format: Literal["text", "json"], tmp_path: Path) -> None:
    """Appended, for its owner alone, readable line by line while it is written; a line cut short is ended first."""
    path = tmp_path / "site.log"
    path.write_text("half a li")
    path.chmod(0o644)
    configure(format, file=path, level="info", who="north")
    log.debug("not this")
    with where(epoch=1, round=2, attempt=0):
        log.warning("sent %s", b"x")
    lines = path.read_text().splitlines()
    assert lines[0] == "half a li"
    assert len(lines) == 2
    if format == "json":
        assert {"who": "north", "round": 2, "message": "sent <bytes>"}.items() <= json.loads(lines[1]).items()
    else:
        assert lines[1].endswith("Z WARNING privfl.test north e1.r2.a0 sent <bytes>")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_screen(capsys: Capture) -> None:
    """Standard error; configured twice, each line comes once; the root's handlers are not asked."""
    configure("text", file=None, level="DEBUG", who="a")
    configure("text", file=None, level="DEBUG", who="b")
    log.debug("here")
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[2:] for line in err.splitlines()] == [["privfl.test", "b", "-", "here"]]


def test_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of all files together is limited, and each of them is for its owner alone."""
    monkeypatch.setattr(logs, "FILE_BYTES", 1000)
    configure("text", file=tmp_path / "site.log", level="INFO", who="s")
    for number in range(100):
        log.info("line %d", number)
    found = list(tmp_path.iterdir())
    assert len(found) == 1 + logs.KEPT_FILES
    assert all(path.stat().st_size <= 1000 and stat.S_IMODE(path.stat().st_mode) == 0o600 for path in found)
    assert (tmp_path / "site.log").read_text().endswith("line 99\n")


def test_a_rotation_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Where files cannot be renamed no line is lost."""

    def fails(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(logs, "FILE_BYTES", 200)
    monkeypatch.setattr(os, "rename", fails)
    configure("text", file=tmp_path / "site.log", level="INFO", who="s")
    for number in range(10):
        log.info("line %d", number)
    assert len((tmp_path / "site.log").read_text().splitlines()) == 10
    assert capsys.readouterr().err == ""


def test_a_full_disk(capsys: Capture) -> None:
    """Nothing is raised and nothing repeats: one sentence on standard error, without what was to be logged."""
    mode = os.stat("/dev/full").st_mode
    configure("text", file=Path("/dev/full"), level="INFO", who="s")
    for number in range(20):
        log.info("a private matter %d", number)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "/dev/full cannot be written (OSError: No space left on device)" in err
    assert "private" not in err
    assert os.stat("/dev/full").st_mode == mode


def test_a_disk_that_was_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """When there is room again, lines are written again; so after the folder of the log was missing."""
    path = tmp_path / "later" / "site.log"
    configure("text", file=path, level="INFO", who="s")
    log.info("lost")
    path.parent.mkdir()
    log.info("kept")
    assert path.read_text().endswith("kept\n")
    assert "FileNotFoundError" in capsys.readouterr().err


def test_standard_error_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that went away takes no process with it."""

    class Gone:
        def write(self, _: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    configure("text", file=None, level="INFO", who="s")
    log.info("nobody hears this")


def test_wrong_calls(tmp_path: Path) -> None:
    """Formats and levels that are none."""
    with pytest.raises(Misuse, match="use text or json"):
        configure("xml", file=None, who="s")  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="use debug"):
        configure("text", file=None, level="loud", who="s")


def test_logs_of_a_real_key_are_clean(tmp_path: Path) -> None:
    """What a careless line would do with a fresh key, in the file itself."""
    key = SYSTEM.draw(32)
    configure("json", file=tmp_path / "site.log", level="INFO", who="s")
    log.info("key %s %r", key, SecretBytes(key))
    log.info(key)
    try:
        int(key.hex()[:8] + "z")
    except ValueError:
        log.exception("it failed with %s", {"key": [key]})
    text = (tmp_path / "site.log").read_text()
    assert text.count("\n") == 3
    assert key.hex()[:8] not in text
    assert repr(key)[2:12] not in text
