"""A proxy on loopback between a mailbox and the emulator that throttles, breaks, cuts, denies, repeats and reorders."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[["Asked"], "Said | None"]


@dataclass
class Asked:
    """A request: ``action`` is SQS's or STS's own name for it, or S3's method."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def action(self) -> str:
        """What is asked for."""
        if "X-Amz-Target" in self.headers:
            return self.headers["X-Amz-Target"].partition(".")[2]
        if self.body.startswith(b"Action="):
            return urllib.parse.parse_qs(self.body.decode())["Action"][0]
        return self.method

    @property
    def sqs(self) -> bool:
        """Whether SQS is asked."""
        return "X-Amz-Target" in self.headers


@dataclass
class Said:
    """An answer; ``cut`` keeps the last bytes back and breaks the connection, as does ``None`` for all of them."""

    status: int
    headers: dict[str, str]
    body: bytes
    cut: int | None = 0


def no(asked: Asked, code: str, status: int = 400, **headers: str) -> Said:
    """An error as the service asked would say it."""
    if asked.sqs:
        body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": code}).encode()
        return Said(status, {"Content-Type": "application/x-amz-json-1.0", **headers}, body)
    if asked.body.startswith(b"Action="):
        text = f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
        return Said(status, {"Content-Type": "text/xml", **headers}, text.encode())
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    body = b"" if asked.method == "HEAD" else text.encode()
    return Said(status, {"Content-Type": "application/xml", **headers}, body)


@dataclass
class Proxy:
    """Stands before the emulator.

    Attributes:
        before: answers a request instead of the emulator, unless it returns None. after: changes an answer.
        seen: what was asked. delivered: how many messages SQS has handed out, repeated ones as often as they came.
    """

    target: str
    endpoint: str = ""
    before: Fault = lambda asked: None
    after: Callable[[Asked, Said], Said] = lambda asked, said: said
    seen: list[Asked] = field(default_factory=list)
    delivered: int = 0

    def count(self, action: str) -> int:
        """How often something was asked for."""
        return sum(one.action == action for one in list(self.seen))

    def answer(self, asked: Asked) -> Said:
        """What to say to a request."""
        self.seen.append(asked)
        found = self.before(asked)
        return found if found is not None else self.after(asked, self.forward(asked))

    def forward(self, asked: Asked) -> Said:
        """What the emulator says."""
        host = urllib.parse.urlsplit(self.target)
        connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=60)
        with contextlib.closing(connection):
            headers = {k: v for k, v in asked.headers.items() if k.lower() not in ("expect", "connection")}
            connection.request(asked.method, asked.path, asked.body, headers)
            got = connection.getresponse()
            own = ("connection", "transfer-encoding", "server", "date")
            kept = {k: v for k, v in got.getheaders() if k.lower() not in own}
            said = Said(got.status, kept, got.read())
        if asked.action == "ReceiveMessage" and said.status == 200:
            self.delivered += len(json.loads(said.body).get("Messages", ()))
        return said


def handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    """Serves one connection after the other for ``proxy``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def handle_one_request(self) -> None:
            with contextlib.suppress(OSError):
                super().handle_one_request()
                return
            self.close_connection = True

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            said = proxy.answer(Asked(self.command, self.path, dict(self.headers.items()), body))
            if said.cut is None:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response_only(said.status)
            length = said.headers.get("Content-Length", str(len(said.body)))
            headers = {k: v for k, v in said.headers.items() if k.lower() != "content-length"}
            for name, value in {"Date": self.date_time_string(), **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(said.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(said.body[: len(said.body) - said.cut])
            if said.cut:
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815 - what http.server calls

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def proxied(target: str) -> Iterator[Proxy]:
    """A proxy before ``target``."""
    proxy = Proxy(target)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: Any, address: Any) -> None:
            """A client that went away."""

    server = Server(("127.0.0.1", 0), handler(proxy))
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Weather:
    """Faults by seed: chances in [0, 1] of each kind, for any request; every one passes by itself."""

    seed: int
    throttled: float = 0.08
    broken: float = 0.05
    lost: float = 0.05
    cut: float = 0.05

    def __post_init__(self) -> None:
        self.chance, self.lock = random.Random(self.seed), threading.Lock()

    def draw(self) -> float:
        """The next number."""
        with self.lock:
            return self.chance.random()

    def before(self, asked: Asked) -> Said | None:
        """Throttle, fail, or take a request and break off before it is served."""
        drawn = self.draw()
        if drawn < self.throttled:
            return no(asked, "ThrottlingException") if asked.sqs else no(asked, "SlowDown", 503)
        if drawn < self.throttled + self.broken:
            return no(asked, "InternalError", 500)
        if drawn < self.throttled + self.broken + self.lost:
            return Said(200, {}, b"", cut=None)
        return None

    def after(self, asked: Asked, said: Said) -> Said:
        """Break off after the request was served, or in the middle of the answer; repeat and reorder messages."""
        if self.draw() < self.cut:
            return Said(said.status, said.headers, said.body, cut=len(said.body) // 2 or None)
        if asked.action == "ReceiveMessage" and said.status == 200:
            return self.mixed(said)
        return said

    def mixed(self, said: Said) -> Said:
        """Deliver messages twice (some under another id, as if sent twice) and in any order."""
        found = json.loads(said.body)
        messages = found.get("Messages", [])
        with self.lock:
            again = [dict(one) for one in messages if self.chance.random() < 0.3]
            for one in again:
                if self.chance.random() < 0.5:
                    one["MessageId"] = f"{self.chance.getrandbits(64):x}"
            messages = [*messages, *again]
            self.chance.shuffle(messages)
        mixed = {**found, "Messages": messages} if messages else found
        return Said(said.status, said.headers, json.dumps(mixed).encode())
