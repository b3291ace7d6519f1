"""An AWS of one's own on loopback, for demonstrations and tests: moto's server in a child process.

It holds everything in memory and knows nobody; credentials for it are made up, so that no real ones are ever sent.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from privfl.errors import Misuse

__all__ = ["Emulator", "emulator", "serve"]

START_S = 60.0
_LINE = "privfl emulator "
_CHILD = "import sys; from privfl.wires.aws.emulator import serve; serve(int(sys.argv[1]))"
_MADE_UP = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7MADEUP0",
    "AWS_SECRET_ACCESS_KEY": "made-up-for-the-emulator",
    "AWS_SESSION_TOKEN": "",
    "AWS_PROFILE": "",
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ENDPOINT_URL": "",
    "AWS_CA_BUNDLE": "",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}
#: Leading elsewhere, or to somebody: taken out of the environment that speaks with the emulator.
_REMOVED = tuple(name for name, value in _MADE_UP.items() if not value)


@dataclass(frozen=True)
class Emulator:
    """A running emulator.

    Attributes:
        endpoint: ``http://127.0.0.1:port``.
        environment: made-up credentials; whoever speaks with the emulator has these, and none of :attr:`removed`.
    """

    endpoint: str
    environment: Mapping[str, str] = field(
        default_factory=lambda: {name: value for name, value in _MADE_UP.items() if value}, repr=False
    )
    removed: tuple[str, ...] = _REMOVED

    def __str__(self) -> str:
        return self.endpoint

    def reset(self) -> None:
        """Forget everything: queues, buckets, keys, roles."""
        self.post("/moto-api/reset")

    def enforce(self, after: int = 0) -> None:
        """Enforce IAM policies and signatures after so many further requests."""
        self.post("/moto-api/reset-auth", str(after).encode())

    def post(self, path: str, data: bytes = b"") -> bytes:
        """Ask the emulator itself something; returns its answer."""
        plain = {"Content-Type": "text/plain"}  # or it would be taken for a form
        request = urllib.request.Request(self.endpoint + path, data, plain, method="POST")  # noqa: S310 - own loopback
        with _direct().open(request, timeout=START_S) as answer:
            found: bytes = answer.read()
        return found

    @contextlib.contextmanager
    def at_hand(self) -> Iterator[None]:
        """This process and the children it starts meanwhile have the made-up credentials and no others."""
        before = {name: os.environ.pop(name) for name in (*self.environment, *self.removed) if name in os.environ}
        os.environ.update(self.environment)
        try:
            yield
        finally:
            for name in self.environment:
                os.environ.pop(name, None)
            os.environ.update(before)


def _direct() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextlib.contextmanager
def emulator() -> Iterator[Emulator]:
    """Start an emulator on a free port of loopback; it ends with this block, or with this process.

    Raises:
        Misuse: moto is not installed, or does not start.
    """
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        raise Misuse('the AWS emulator is not installed; pip install "privfl[bench]"')
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOTO_"))}
    source = str(Path(__file__).resolve().parents[3])  # a child finds privfl where this process did
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (source, environment.get("PYTHONPATH"))))
    child = subprocess.Popen(  # noqa: S603 - this interpreter, own code
        [sys.executable, "-c", _CHILD, str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment | dict(Emulator("").environment),
    )
    try:
        yield Emulator(f"http://127.0.0.1:{_port(child)}")
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _port(child: subprocess.Popen[bytes]) -> int:
    """The port that the child has bound and listens on; it says so itself, so that nobody can be quicker."""
    slow = threading.Timer(START_S, child.kill)
    slow.daemon = True
    slow.start()
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith(_LINE.encode()):
                return int(line[len(_LINE) :])
    finally:
        slow.cancel()
    raise Misuse('the AWS emulator does not start; pip install --upgrade "privfl[bench]"')


def serve(parent: int) -> None:
    """Serve until ``parent`` is gone: what the child process does."""
    end_with(parent)
    from moto.moto_server import werkzeug_app as moto  # noqa: PLC0415 - an extra
    from werkzeug.serving import make_server  # noqa: PLC0415

    class Quiet(moto.MotoRequestHandler):
        """Logs nothing."""

        def log(self, type: str, message: str, *args: object) -> None:
            pass

    server = make_server(
        "127.0.0.1", 0, moto.DomainDispatcherApplication(moto.create_backend_app), threaded=True, request_handler=Quiet
    )
    print(_LINE, server.server_port, sep="", flush=True)  # bound and listening: whoever connects now is served
    server.serve_forever()


def end_with(parent: int) -> None:
    """End this process when ``parent`` is gone, at once where the system can tell (Linux), else within a second."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL.value)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
