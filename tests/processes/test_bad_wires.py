"""Whatever is wrong with a wire: a readable message with the next step and an exit code; what passes is retried, shown.

Real commands in processes of their own speak over HTTP with the emulator, through a proxy that says no for it.
"""

from __future__ import annotations

import json
import shutil
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from privfl.clock import SystemClock
from privfl.flower.local.certificates import make_certificates
from privfl.homes.site import SiteHome
from privfl.wires.aws import inbox, lease, mailbox, probing
from privfl.wires.aws.emulator import emulator
from privfl.wires.aws.names import FEDERATION_TAG, queue_name, tags
from privfl.wires.aws.probing import place_of
from tests.processes.commands import Commands, Running, tree, whole
from tests.runtime.realm import PASSPHRASE, Realm, realm
from tests.wires.aws.cloud import Cloud, cloud
from tests.wires.aws.proxy import Asked, Fault, Proxy, Said, no, proxied
from tests.wires.aws.test_federation_over_aws import repoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore", "ignore::DeprecationWarning")
IDLE = ("--stop-when-idle", "0.05")


@dataclass
class Town:
    """Three sites and a coordinator whose folders name AWS, through a proxy."""

    world: Realm
    cloud: Cloud
    proxy: Proxy

    @property
    def north(self) -> Path:
        return self.world.trial.sites["north"]

    def status(self, home: Path) -> dict[str, Any]:
        """What ``privfl site status --json`` reads."""
        path = home / "status.json"
        found: dict[str, Any] = json.loads(path.read_text())["status"] if path.exists() else {}
        return found


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Joined by one ``federation.yaml``, with their queues; made once."""
    place = tmp_path_factory.mktemp("town") / "realm"
    with (
        emulator() as emulated,
        emulated.at_hand(),
        cloud(emulated) as aws,
        realm(place, 3) as world,
        proxied(emulated.endpoint) as proxy,
    ):
        repoint(world, aws, proxy.endpoint)
        yield Town(world, aws, proxy)


@pytest.fixture
def town(founded: Town) -> Iterator[Town]:
    """As it was founded, whatever the test did to it."""
    founded.proxy.before, founded.proxy.seen[:] = (lambda asked: None), []
    config = (founded.north / "site.yaml").read_bytes()
    yield founded
    (founded.north / "site.yaml").write_bytes(config)


def hurried() -> None:
    """In a child: what passes by itself is waited for a moment only, and faults are shown at once."""
    mailbox.OPENING_S = probing.OPENING_S = 0.3
    inbox.SHOWN_S = 0.1
    lease.LOOK_S = 0.05


def when(action: str, code: str, status: int = 400, **headers: str) -> Fault:
    """Say no to one action."""

    def before(asked: Asked) -> Said | None:
        return no(asked, code, status, **headers) if asked.action == action else None

    return before


HOUR_AGO = {"Date": "Fri, 20 Nov 2020 10:00:00 GMT"}
OPENING: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "a missing permission": (
        when("GetQueueUrl", "AccessDenied", 403),
        ("AWS denies sqs:GetQueueUrl on the queue", "the policy of these credentials must allow it"),
    ),
    "a clock that is off": (
        when("GetQueueUrl", "RequestExpired", 403, **HOUR_AGO),
        ("its clock is off by", "ahead", "set the clock"),
    ),
    "credentials of yesterday": (
        when("GetQueueUrl", "ExpiredToken", 403),
        ("the AWS credentials have expired", "sqs:GetQueueUrl", "sign in again"),
    ),
    "keys that AWS does not know": (
        when("GetQueueUrl", "InvalidClientTokenId", 403),
        ("AWS does not take these credentials", "check profile, role and keys"),
    ),
    "a queue that is not there": (
        when("GetQueueUrl", "QueueDoesNotExist"),
        ("does not exist in this account and region", "privfl wire aws init"),
    ),
}


@pytest.mark.parametrize("case", OPENING)
def test_a_cloud_that_says_no(case: str, town: Town, commands: Commands) -> None:
    """The site does not start, says which action on which resource, and leaves its folder as it was."""
    before = tree(town.north)
    town.proxy.before, words = OPENING[case]
    commands.run("site", "run", town.north, *IDLE, before=hurried).failed(2, "Misuse:", *words)
    assert tree(town.north) == before
    whole({"north": town.north})


def test_what_was_wrong_is_tried_without_starting(town: Town, commands: Commands) -> None:
    """``privfl wire show`` finds the same, and that all is well afterwards, when the site starts too."""
    town.proxy.before, words = OPENING["a missing permission"]
    shown = commands.run("wire", "show", town.north, before=hurried).failed(2, *words)
    assert "cannot be used" in shown.out
    town.proxy.before = lambda asked: None
    shown = commands.run("wire", "show", town.north)
    assert (shown.code, shown.err) == (0, "")
    assert "its queue is there" in " ".join(shown.out.replace("│", " ").split())
    assert commands.run("site", "run", town.north, *IDLE).code == 0


def test_a_body_that_may_not_be_read(town: Town, commands: Commands) -> None:
    """A bucket's permission is tried as well: action and resource are named."""
    town.proxy.before = when("GET", "AccessDenied", 403)
    ran = commands.run("wire", "show", town.north, before=hurried)
    ran.failed(2, "AWS denies s3:GetObject on", f"arn:aws:s3:::{town.cloud.settings.bucket}/trial/")


def test_an_endpoint_where_nobody_is(town: Town, commands: Commands) -> None:
    """Tried again for a while, then exit 4, for a service manager to start it again."""
    rejoin(town, {"endpoint": "http://127.0.0.1:9"})
    ran = commands.run("site", "run", town.north, *IDLE, before=hurried)
    ran.failed(4, "WireError:", "cannot be reached; check endpoint and region")


def test_a_queue_of_another_federation(town: Town, commands: Commands) -> None:
    """Its tags tell; nothing is read from it."""
    own = place_of(town.north).own
    url = town.cloud.queue(own)
    town.cloud.raw.sqs.tag_queue(QueueUrl=url, Tags={FEDERATION_TAG: "another"})
    ran = commands.run("site", "run", town.north, *IDLE, before=hurried)
    name = queue_name(town.cloud.settings, "trial", own)
    ran.failed(2, f"the queue {name} belongs to another federation ('another', not 'trial')", "check federation.yaml")
    town.cloud.raw.sqs.untag_queue(QueueUrl=url, TagKeys=[FEDERATION_TAG])
    commands.run("site", "run", town.north, *IDLE, before=hurried).failed(2, "none that privfl wire aws init has made")
    town.cloud.raw.sqs.tag_queue(QueueUrl=url, Tags=tags("trial", own))
    assert town.proxy.count("ReceiveMessage") == 0


def rejoin(town: Town, changes: dict[str, Any]) -> None:
    """North joins again, with other settings of the wire."""
    import yaml

    wire = {**town.cloud.settings.stored(), "endpoint": town.proxy.endpoint, **changes}
    path = town.world.trial.folder / "other.yaml"
    path.write_text(yaml.safe_dump({"federation": "trial", "wire": wire}))
    SiteHome.join(town.north, PASSPHRASE, SystemClock().now(), wire=str(path))


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Callable[..., tuple[str, Path]]]:
    """Starts servers with TLS for some host; returns endpoint and the certificate of who has signed theirs."""
    servers: list[ThreadingHTTPServer] = []

    def start(*hosts: str) -> tuple[str, Path]:
        made = make_certificates(tmp_path / f"tls{len(servers)}", hosts)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.server, made.key)

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, address: Any) -> None:
                """A client that did not like the certificate."""

        server = Server(("127.0.0.1", 0), BaseHTTPRequestHandler)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"https://127.0.0.1:{server.server_address[1]}", made.authority

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_certificate_that_does_not_match(
    town: Town, commands: Commands, secure: Callable[..., tuple[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed by nobody known, or for another host: no byte of mail is sent, and the message says which it is."""
    endpoint, _ = secure("127.0.0.1")
    rejoin(town, {"endpoint": endpoint})
    ran = commands.run("site", "run", town.north, *IDLE, before=hurried)
    ran.failed(2, "does not verify (it is not signed by anybody known here)", "AWS_CA_BUNDLE")
    endpoint, authority = secure("cloud.example")
    rejoin(town, {"endpoint": endpoint})
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
    ran = commands.run("site", "run", town.north, *IDLE, before=hurried)
    ran.failed(2, "does not verify (it is for another host)", "check endpoint in federation.yaml")


def until(what: str, holds: Callable[[], Any], running: Running, seconds: float = 60.0) -> Any:
    """Wait until ``holds()``; the command must not end meanwhile."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, (what, running.said)
        time.sleep(0.02)
    return found


def test_two_coordinators(town: Town, commands: Commands, tmp_path: Path) -> None:
    """The second, in a copy of the first one's folder, ends at once and says where the first is; that one goes on."""
    home, copy = town.world.trial.coordinator, tmp_path / "copy"
    first = commands.start("coordinator", "run", home, before=hurried)
    until("it is at work", lambda: town.status(home).get("phase") == "waiting for sites", first)
    shutil.copytree(home, copy, ignore=shutil.ignore_patterns("lock", "status.json", "*.log"))
    commands.run("coordinator", "run", copy, before=hurried).failed(2, "Misuse:", "coordinator")
    assert town.status(home)["phase"] == "waiting for sites"
    first.interrupt(signal.SIGTERM)
    assert first.ended().code == 0
    second = commands.start("coordinator", "run", copy, before=hurried)
    until("it has taken over", lambda: town.status(copy).get("phase") == "waiting for sites", second)
    second.interrupt(signal.SIGTERM)
    assert second.ended().code == 0


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [("ThrottlingException", 400, "AWS throttles sqs:ReceiveMessage"), ("AccessDenied", 403, "AWS denies sqs:Receive")],
)
def test_what_passes_is_retried_and_shown(code: str, status: int, words: str, town: Town, commands: Commands) -> None:
    """A queue that cannot be read for a while: status and log say so, the site waits, goes on, and says that too."""
    site = commands.start("site", "run", town.north, before=hurried)
    until("it waits", lambda: town.proxy.count("ReceiveMessage"), site)
    town.proxy.before = when("ReceiveMessage", code, status)

    def away() -> Any:
        found = town.status(town.north)["wire"]
        return found if found["since"] is not None and found["tries"] > 1 else None

    found = until("it is shown", away, site)
    assert words in found["fault"]
    shown = commands.run("site", "status", town.north)
    flat = " ".join(shown.out.replace("│", " ").split())
    assert shown.code == 0
    assert "waits for the wire" in flat
    assert "cannot be used, since" in flat
    town.proxy.before = lambda asked: None
    until("it goes on", lambda: town.status(town.north)["wire"]["since"] is None, site)
    found = town.status(town.north)
    assert (found["waits_for"], found["error"], found["wire"]["faults"]) == ("the coordinator's next request", "", 1)
    flat = " ".join(commands.run("site", "status", town.north).out.replace("│", " ").split())
    assert "works" in flat
    assert "was away once, last until" in flat
    site.interrupt(signal.SIGTERM)
    assert site.ended().code == 0
    log = (town.north / "site.log").read_text()
    assert words in log
    assert "the wire can be used again" in log
    assert "Traceback" not in log
