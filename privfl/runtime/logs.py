r"""One line per event, as text or JSON, with who and which slot; never a value.

Messages carry words of peers (names, reasons), so everything unprintable is escaped: no peer starts a line of its
own. Arguments are shown by an allow-list: text, plain numbers, enums, paths and privfl's own errors; whatever else is
passed, bytes, arrays, tables and holders of secrets above all, appears as its type. Of an exception its type and place
are told, its message only where privfl wrote it: a library's message may quote a row.

The libraries that talk to a cloud write requests, headers and credentials into their own logs. Of them warnings alone
are kept, as the fixed text in the library's source and where that is; never an argument, and never a text that was put
together before it was logged.

>>> with where(epoch=2, round=7, attempt=0):
...     record = logging.LogRecord("privfl", 20, "", 0, "%s sent\n%s", ("north", b"key"), None)
...     LineFormatter("south").format(record)[25:]
'INFO    privfl south e2.r7.a0 north sent\\x0a<bytes>'
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Literal

from privfl.errors import Misuse
from privfl.runtime.plain import escaped, shown, told

__all__ = ["JsonFormatter", "LineFormatter", "configure", "where"]

ROOT = "privfl"
LIBRARIES = ("boto3", "botocore", "s3transfer", "urllib3")  # Flower has handlers of its own
FILE_BYTES = 8 * 2**20
KEPT_FILES = 4
LONGEST = 4000
_WIDE = re.compile(r"%[^%a-zA-Z]*(\d{4}|\*)")  # a conversion wide enough to fill the memory


@dataclass(frozen=True)
class _Slot:
    epoch: int | None = None
    round: int | None = None
    attempt: int | None = None


_slot: ContextVar[_Slot] = ContextVar("privfl_slot", default=_Slot())  # noqa: B039 - frozen


@contextmanager
def where(*, epoch: int | None = None, round: int | None = None, attempt: int | None = None) -> Iterator[None]:
    """Name the slot in every line written within; what is not given stays as it is outside."""
    given = {"epoch": epoch, "round": round, "attempt": attempt}
    token = _slot.set(replace(_slot.get(), **{name: value for name, value in given.items() if value is not None}))
    try:
        yield
    finally:
        _slot.reset(token)


def _message(record: logging.LogRecord) -> str:
    text, args = shown(record.msg), record.args
    if not isinstance(text, str):
        return str(text)
    if not args:
        return text
    safe: Any = {k: shown(v) for k, v in args.items()} if isinstance(args, Mapping) else tuple(map(shown, args))
    try:
        if _WIDE.search(text) is None:
            return str(text % safe)
    except Exception:  # noqa: BLE001, S110, RUF100 - %d of what is shown as a word, or a wrong number of arguments
        pass
    return f"{text} {shown(safe)}"


def _own(record: logging.LogRecord) -> bool:
    return record.name == ROOT or record.name.startswith(f"{ROOT}.")


def _worth_it(record: logging.LogRecord) -> bool:
    """Whatever level somebody gave to a library's inner logger."""
    return _own(record) or record.levelno >= logging.WARNING


def _foreign(record: logging.LogRecord) -> str:
    """What a library's record is about: its template, if the values are apart from it, and the line that wrote it."""
    at = f"{record.filename}:{record.lineno} {record.funcName or ''}".strip()
    template = record.msg if record.args and isinstance(record.msg, str) else "a message that is not shown"
    return f"{template} (at {at})"


def _place(record: logging.LogRecord) -> str | None:
    """Type and place of the record's exception: no source line, no local, no foreign message."""
    if not record.exc_info or record.exc_info[1] is None:
        return None
    error = record.exc_info[1]
    frames = traceback.extract_tb(error.__traceback__, limit=-3)
    path = " > ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{told(error)} at {path}" if path else told(error)


class _Formatter(logging.Formatter):
    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the record holds."""
        try:
            message, error = _message(record) if _own(record) else _foreign(record), _place(record)
        except Exception as fault:  # noqa: BLE001, RUF100 - an argument that cannot even be looked at
            message, error = f"<a message that cannot be shown: {type(fault).__name__}>", None
        if len(message) > LONGEST:
            message = f"{message[:LONGEST]}… {len(message) - LONGEST} more characters"
        slot = _slot.get()
        return self._line(
            {
                "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
                "level": str(record.levelname),
                "logger": str(record.name),
                "who": self._who,
                "epoch": slot.epoch,
                "round": slot.round,
                "attempt": slot.attempt,
                "message": message,
                "error": error,
            }
        )

    def _line(self, found: dict[str, Any]) -> str:
        raise NotImplementedError


class LineFormatter(_Formatter):
    """``time level logger who slot message [error]``, all unprintable characters escaped."""

    def _line(self, found: dict[str, Any]) -> str:
        parts = [f"{name[0]}{found[name]}" for name in ("epoch", "round", "attempt") if found[name] is not None]
        line = (
            f"{found['time']} {found['level']:<7} {found['logger']} {found['who']} "
            f"{'.'.join(parts) or '-'} {found['message']}"
        )
        return escaped(f"{line} [{found['error']}]" if found["error"] else line)


class JsonFormatter(_Formatter):
    """One JSON object with the keys time, level, logger, who, epoch, round, attempt, message, error; ASCII."""

    def _line(self, found: dict[str, Any]) -> str:
        return json.dumps(found).replace("\x7f", "\\u007f")


class _Quiet(logging.Handler):
    """A log that cannot be written is told once on standard error and never ends the process."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say why, without the record; logging's own version would print its arguments."""
        if self._told:
            return
        self._told = True
        error = sys.exc_info()[1]
        name = getattr(self, "baseFilename", "on standard error")
        with suppress(Exception):
            sys.stderr.write(f"privfl: the log {escaped(str(name))} cannot be written ({shown(error)}); work goes on\n")


class _Screen(_Quiet, logging.StreamHandler[Any]):
    """To standard error."""


class _File(_Quiet, RotatingFileHandler):
    """Appended line by line, mode 0600, rotated; opened when the first line comes and again after a failure."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path, maxBytes=FILE_BYTES, backupCount=KEPT_FILES, encoding="utf-8", delay=True, errors="backslashreplace"
        )

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        about = os.fstat(descriptor)
        if stat.S_ISREG(about.st_mode):
            with suppress(OSError):  # another's file, made for us
                os.fchmod(descriptor, 0o600)
        size = about.st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a line that a full disk or a kill cut short
            with suppress(OSError):
                os.write(descriptor, b"\n")
        return open(descriptor, "a", buffering=1, encoding=self.encoding, errors=self.errors)

    def doRollover(self) -> None:  # noqa: N802 - logging's name
        """Rotate; where that fails (a read-only folder), the present file grows on."""
        with suppress(OSError):
            super().doRollover()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Tell it once; open the file afresh for the next line."""
        super().handleError(record)
        stream, self.stream = self.stream, None
        with suppress(OSError, ValueError):
            if stream is not None:
                stream.close()


_configuring = threading.Lock()


def configure(
    format: Literal["text", "json"],
    *,
    file: Path | None,
    level: str | int = "INFO",
    who: str,  # noqa: A002, RUF100
) -> None:
    """Send the lines of the logger tree ``privfl`` to ``file``, or to standard error; a second call replaces the first.

    Warnings of the cloud's libraries go the same way, without any value; whatever is below a warning is dropped.

    Args:
        format: ``"text"`` or ``"json"``.
        file: appended to, mode 0600, rotated at 8 MiB, four old files kept. Whether it can be written shows with the
            first line; if not, standard error says so once and the process goes on.
        level: a name or number of the logging module.
        who: the site's or coordinator's name, in every line.

    Raises:
        Misuse: no such format or level.
    """
    formatters: dict[str, type[_Formatter]] = {"text": LineFormatter, "json": JsonFormatter}
    if format not in formatters:
        raise Misuse(f"there is no log format {format!a:.40}; use text or json")
    number = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if number is None:
        raise Misuse(f"there is no log level {level!a:.40}; use debug, info, warning or error")
    handler: logging.Handler = _Screen() if file is None else _File(file)
    handler.setFormatter(formatters[format](who))
    handler.addFilter(_worth_it)
    with _configuring:
        for name in (ROOT, *LIBRARIES):
            logger = logging.getLogger(name)
            for old in logger.handlers[:]:
                if isinstance(old, _Quiet):
                    logger.removeHandler(old)
                    old.close()
            logger.addHandler(handler)
            logger.setLevel(number if name == ROOT else max(number, logging.WARNING))
            logger.propagate = False  # the root's handlers know nothing of the rules above
