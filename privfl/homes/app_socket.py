"""How a site's process and the process of its Flower app find each other: sockets in the site's own folder.

The app's process listens; the site's process calls. Arrays pass from one to the other and rest nowhere. Both ends see
to it that the other one is a process of the same user, and that nobody else can write where the sockets lie.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from privfl.errors import Misuse, PrivflError, WireError
from privfl.learn.app_calls import answer_parts, call_parts, fault_parts, read_answer, read_call
from privfl.learn.update_answers import Answer, Fault, Function, guarded
from privfl.learn.update_inputs import Arrays, Ask, shapes_of

__all__ = ["AppCaller", "AppPort"]

log = logging.getLogger("privfl.site")

FOLDER = Path("flower", "app")
READY = b"\x01"  # the app's process takes a call now
READY_S = 5.0  # it says so within
IDLE_S = 60.0  # neither side waits longer for bytes that are on their way already
WAIT_S = 60.0  # a charged call waits so long for an app whose process went; the courier sends again
LOOK_S = 0.05
MOST = 16  # sockets that are tried
LEAST_MARGIN_S, MOST_MARGIN_S, MARGIN = 0.2, 60.0, 0.15  # of the time to a deadline: noise, masks and the upload
SHORT = 100  # bytes of a path that every system takes for a socket
_NAME = re.compile(r"[0-9]{20}-[0-9]+-[0-9]+")
_count = itertools.count()


class AppPort:
    """The app's end: listens from now on, answers while :meth:`serve` runs.

    Args:
        home: the site's folder, which has its spool.
        function: carries out a call.

    Raises:
        Misuse: others may write where the sockets lie, or the file system takes none.
    """

    def __init__(self, home: Path, function: Function) -> None:
        self._function = function
        path = home / FOLDER
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        self._folder = _opened(path)
        self._name = f"{time.time_ns():020d}-{os.getpid()}-{next(_count)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made = f"{self._name}.new"
            self._socket.bind(_address(path, self._folder, made))
            self._socket.listen(4)
            os.rename(made, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)  # nobody meets it deaf
        except OSError as error:
            self.close()
            raise Misuse(
                f"no socket can be made in {path} ({error.strerror or error}); put the site's folder on a local disk, "
                "or set resident: false in federation.yaml and join again"
            ) from None

    def serve(self, seconds: float) -> float:
        """Wait so long for a call, and carry it out; returns how many seconds a call took, 0 without one."""
        self._socket.settimeout(max(seconds, 0.001))
        try:
            found = self._socket.accept()[0]
        except OSError:
            return 0.0
        began = time.monotonic()
        try:
            with _ended(found) as peer:
                if _own_user(peer):
                    self._answer(peer)
        except (OSError, EOFError, PrivflError) as error:
            log.debug("a call was not answered: %s", type(error).__name__)
        return time.monotonic() - began

    def _answer(self, peer: socket.socket) -> None:
        peer.settimeout(IDLE_S)
        peer.sendall(READY)
        ask, arrays = read_call(_reader(peer, lambda: IDLE_S))
        shapes = shapes_of(arrays)
        try:
            parts = answer_parts(guarded(self._function, ask, arrays), ask, shapes)
            first = next(parts)
        except Fault as fault:
            log.error("the app's %s counts for nothing: %s", ask.kind, fault)
            parts = fault_parts(fault.word)
            first = next(parts)
        except Exception as error:  # an answer that cannot be told
            log.error("the app's %s counts for nothing: %s", ask.kind, type(error).__name__)
            parts = fault_parts("answer")
            first = next(parts)
        peer.sendall(first)
        for part in parts:
            peer.sendall(part)

    def close(self) -> None:
        """Listen no more; twice is harmless."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # also where a child that a function left has it open
        self._socket.close()
        if self._folder >= 0:
            for name in (self._name, f"{self._name}.new"):
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._folder)
            os.close(self._folder)
            self._folder = -1


class AppCaller:
    """The site's end: the :data:`~privfl.learn.update_answers.Function` that the app's process carries out.

    Args:
        wait_s: seconds for which a charged call waits for an app.
    """

    def __init__(self, home: Path, wait_s: float = WAIT_S) -> None:
        self._path, self._wait, self._until, self._missed = home / FOLDER, wait_s, float("inf"), False

    def present(self) -> None:
        """Raise WireError unless an app takes a call now; nothing is charged before."""
        peer = self._connected(READY_S)
        if peer is None:
            if not self._missed:
                log.info("a request waits for the private app, which Flower starts with its next message")
            self._missed = True
            raise WireError("no private app is at hand; the request waits until Flower starts one")
        self._missed = False
        peer.close()

    def within(self, ms: int) -> None:
        """The calls from now on have so long, less what noise, masks and upload need."""
        left = ms / 1000
        self._until = time.monotonic() + left - min(max(MARGIN * left, LEAST_MARGIN_S), MOST_MARGIN_S)

    def __call__(self, ask: Ask, arrays: Arrays) -> Answer:
        """What the app's process says; raises Fault for whatever else happens to it."""
        until = min(self._until, time.monotonic() + self._wait)
        peer = None
        while peer is None:
            left = until - time.monotonic()
            if left <= 0:
                raise Fault("no app came back for it in time")
            peer = self._connected(min(left, READY_S))
            if peer is None:
                time.sleep(min(left, LOOK_S))
        with _ended(peer):
            try:
                return self._asked(peer, ask, arrays)
            except TimeoutError:
                raise Fault("it did not come back before the deadline") from None
            except (OSError, EOFError):
                raise Fault("its process ended in the middle of it") from None

    def _asked(self, peer: socket.socket, ask: Ask, arrays: Arrays) -> Answer:
        def left() -> float | None:
            seconds = self._until - time.monotonic()
            if seconds <= 0:
                raise TimeoutError
            return None if seconds == float("inf") else seconds

        for part in call_parts(ask, arrays):
            peer.settimeout(left())
            peer.sendall(part)
        return read_answer(_reader(peer, left), ask, shapes_of(arrays))

    def _connected(self, seconds: float) -> socket.socket | None:
        """A connection to the newest app that is ready; None if there is none."""
        try:
            folder = _opened(self._path)
        except FileNotFoundError:
            return None
        try:
            names = sorted((name for name in os.listdir(folder) if _NAME.fullmatch(name)), reverse=True)
            found = (self._ready(folder, name, seconds) for name in names[:MOST])
            return next((peer for peer in found if peer is not None), None)
        finally:
            os.close(folder)

    def _ready(self, folder: int, name: str, seconds: float) -> socket.socket | None:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid():
                peer.settimeout(seconds)
                peer.connect(_address(self._path, folder, name))
                if _own_user(peer) and peer.recv(1) == READY:
                    return peer
        except ConnectionRefusedError:  # its process was killed
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
        except OSError:
            pass
        peer.close()
        return None


def _opened(path: Path) -> int:
    """The folder of the sockets; raises Misuse if it is not this user's alone, FileNotFoundError if it is not there."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Misuse(f"{path} cannot be opened ({error.strerror}); remove it, it is made again") from None
    found = os.fstat(folder)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        os.close(folder)
        raise Misuse(f"{path} is not this user's alone; remove it, it is made again")
    return folder


def _address(path: Path, folder: int, name: str) -> str:
    """A path that is short enough for a socket, however deep the site's folder lies."""
    plain = str(path.absolute() / name)
    return plain if len(os.fsencode(plain)) <= SHORT else f"/proc/self/fd/{folder}/{name}"


def _own_user(peer: socket.socket) -> bool:
    """Whether the other end is this user's process, where the system tells; the folder alone says it elsewhere."""
    told = getattr(socket, "SO_PEERCRED", None)
    if told is None:
        return True
    _, user, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, told, struct.calcsize("3i")))
    return bool(user == os.geteuid())


def _reader(peer: socket.socket, seconds: Callable[[], float | None]) -> Callable[[memoryview], None]:
    def read(into: memoryview) -> None:
        at = 0
        while at < len(into):
            peer.settimeout(seconds())
            got = peer.recv_into(into[at:])
            if not got:
                raise EOFError
            at += got

    return read


@contextmanager
def _ended(peer: socket.socket) -> Iterator[socket.socket]:
    """Both ends learn that it is over, also where a child has it open."""
    try:
        yield peer
    finally:
        with suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)
        peer.close()
