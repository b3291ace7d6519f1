"""Opening the wire with wrong credentials, places, clocks or certificates ends in words; roles are assumed as told."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from privfl_keys import INSECURE_TEST_COST

from privfl.clock import SystemClock
from privfl.errors import Misuse, WireError
from privfl.homes.site import SiteHome
from privfl.wires.aws import lease, open_mailbox, probe
from privfl.wires.aws import mailbox as module
from privfl.wires.aws.emulator import Emulator
from privfl.wires.aws.errors import Absent, Denied, Expired, Missing, Passing, Present, speaking
from privfl.wires.aws.lease import Lease
from privfl.wires.aws.mailbox import AwsMailbox
from privfl.wires.aws.names import PLANTED, body_prefixes
from privfl.wires.aws.probing import place_of
from privfl.wires.aws.session import asked, clients
from privfl.wires.settings import AwsSettings
from tests.wires.aws.cloud import Cloud
from tests.wires.aws.proxy import Asked, Proxy, Said, no, proxied
from tests.wires.mailbox_contract import NORTH, SOUTH

ROLE = {
    "role": "arn:aws:iam::123456789012:role/privfl/site-{name}",
    "external_id": "trial-7",
    "session_tags": {"privfl:member": "{name}", "project": "trial"},
}


@pytest.fixture
def proxy(aws: Cloud) -> Iterator[Proxy]:
    """A proxy before the emulator."""
    with proxied(aws.emulator.endpoint) as found:
        yield found


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPENING_S", 0.2)
    monkeypatch.setattr(lease, "SHORTEST_S", 5.0)


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        ("privfl:federation", "other", "belongs to another federation ('other', not 'trial-"),
        ("privfl:member", SOUTH.hex(), "belongs to another member"),
    ],
)
def test_a_queue_of_another_is_refused(aws: Cloud, tag: str, value: str, words: str) -> None:
    """By its tags, before anything is read from it."""
    aws.queue(NORTH, **{tag: value})
    with pytest.raises(Misuse) as told:
        aws.open(NORTH)
    assert words in str(told.value)
    assert "check federation.yaml" in str(told.value)


def test_a_queue_without_tags_is_refused(aws: Cloud) -> None:
    """It is none that privfl has made."""
    url = aws.queue(NORTH)
    aws.raw.sqs.untag_queue(QueueUrl=url, TagKeys=["privfl:federation", "privfl:member"])
    with pytest.raises(Misuse, match="has no tag privfl:federation"):
        aws.open(NORTH)


def test_what_is_not_there_is_named(aws: Cloud) -> None:
    """A queue that was never made, and a bucket."""
    with pytest.raises(Misuse, match=r"the queue privfl-trial-.* does not exist in this account and region"):
        open_mailbox(aws.settings, aws.place(NORTH))
    north = aws.open(NORTH, bucket="nobody-has-this-bucket")
    with pytest.raises(WireError, match=r"nobody-has-this-bucket/.* does not exist"):
        north.put_body(bytes(32), b"", recipient=SOUTH)
    with pytest.raises(Misuse, match="nobody-has-this-bucket"):
        aws.open(NORTH, acting="coordinator", bucket="nobody-has-this-bucket")
    with pytest.raises(WireError, match=r"privfl-trial-.* does not exist"):
        aws.open(NORTH).send(b"z" * 32, b"to nobody")


def test_an_endpoint_where_nobody_listens(aws: Cloud) -> None:
    """Tried for a while, then told as what it may be: a wrong address, or no network."""
    settings = AwsSettings(**{**aws.settings.model_dump(), "endpoint": "http://127.0.0.1:9"})
    with pytest.raises(WireError, match="cannot be reached; check endpoint and region") as told:
        open_mailbox(settings, aws.place(NORTH))
    assert told.value.exit_code == 4


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("AccessDenied", 403, r"AWS denies sqs:GetQueueUrl on the queue privfl-"),
        ("RequestTimeTooSkewed", 403, r"clock is off by \d+ seconds \(ahead\); set the clock"),
        ("SignatureDoesNotMatch", 403, r"clock is off by \d+ seconds \(ahead\)"),
        ("ExpiredToken", 403, "credentials have expired .* renew"),
        ("InvalidClientTokenId", 403, "does not take these credentials"),
    ],
)
def test_what_aws_refuses_is_told(aws: Cloud, proxy: Proxy, code: str, status: int, words: str) -> None:
    """Permission, clock, expiry, unknown keys: each with what to do; nothing secret in any of them."""
    aws.queue(NORTH)
    proxy.before = lambda asked: no(asked, code, status, Date="Mon, 01 Jan 2024 00:00:00 GMT")
    with pytest.raises((Misuse, WireError), match=words) as told:
        aws.open(NORTH, endpoint=proxy.endpoint)
    assert told.value.exit_code in (2, 4)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert aws.emulator.environment[name] not in str(told.value)


def test_a_wrong_secret_is_not_taken_for_a_wrong_clock(aws: Cloud, proxy: Proxy) -> None:
    """With a date like ours the signature is wrong for another reason."""
    aws.queue(NORTH)
    proxy.before = lambda asked: no(asked, "SignatureDoesNotMatch", 403)
    with pytest.raises(Misuse, match="check the secret access key"):
        aws.open(NORTH, endpoint=proxy.endpoint)


def test_no_credentials_and_no_profile(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to be found in the standard chain, and a profile that nobody has."""
    with pytest.raises(Misuse, match="no AWS profile 'nobody'"):
        aws.open(NORTH, profile="nobody")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Misuse, match="there are no AWS credentials here"):
        open_mailbox(aws.settings, aws.place(NORTH))


@contextlib.contextmanager
def tls_for(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """A server on loopback with a certificate for another host; its address, and the certificate."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    both, public = folder / "both.pem", folder / "public.pem"
    public.write_bytes(made.public_bytes(pem))
    both.write_bytes(key.private_bytes(pem, *plain) + made.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: Any, address: Any) -> None:
            """The client does not like the certificate."""

    server = Server(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}", public
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_certificate_that_does_not_match(aws: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed by nobody known, or known and for another host: refused, with where to look."""
    with tls_for("queue.example", tmp_path) as (endpoint, public):
        settings = AwsSettings(**{**aws.settings.model_dump(), "endpoint": endpoint})
        with pytest.raises(Misuse, match=r"does not verify \(it is not signed by anybody known here\).*AWS_CA_BUNDLE"):
            open_mailbox(settings, aws.place(NORTH))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(public))
        with pytest.raises(Misuse, match=r"does not verify \(it is for another host\); check endpoint"):
            open_mailbox(settings, aws.place(NORTH))


def test_a_role_is_assumed_with_external_id_and_tags(aws: Cloud, proxy: Proxy) -> None:
    """STS is asked for the member's own role, by its name; everything after that is signed by the role's keys."""
    north = aws.open(NORTH, endpoint=proxy.endpoint, **ROLE)
    north.send(NORTH, b"as the role")
    fields = [urllib.parse.parse_qs(one.body.decode()) for one in proxy.seen if one.action == "AssumeRole"]
    assert len(fields) == 1
    assert fields[0]["RoleArn"] == ["arn:aws:iam::123456789012:role/privfl/site-north"]
    assert fields[0]["ExternalId"] == ["trial-7"]
    assert fields[0]["RoleSessionName"] == ["privfl-north"]
    tags = {fields[0][f"Tags.member.{n}.Key"][0]: fields[0][f"Tags.member.{n}.Value"][0] for n in (1, 2)}
    assert tags == {"privfl:member": "north", "project": "trial"}
    own = aws.emulator.environment["AWS_ACCESS_KEY_ID"]
    for one in proxy.seen:
        assert (own in one.headers["Authorization"]) == (one.action == "AssumeRole")


def test_a_role_is_assumed_again_before_it_ends(aws: Cloud, proxy: Proxy) -> None:
    """Credentials that end in a minute are renewed with the next request, without anybody's help."""

    def brief(asked: Asked, said: Said) -> Said:
        if asked.action != "AssumeRole":
            return said
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
        head, _, rest = said.body.partition(b"<Expiration>")
        text = head + b"<Expiration>" + ends.strftime("%Y-%m-%dT%H:%M:%SZ").encode() + rest[rest.index(b"</Exp") :]
        return Said(said.status, said.headers, text)

    proxy.after = brief
    north = aws.open(NORTH, endpoint=proxy.endpoint, **ROLE)
    before = proxy.count("AssumeRole")
    north.send(NORTH, b"renewed")
    assert proxy.count("AssumeRole") > before


def test_a_role_that_is_denied_names_the_trust_policy(aws: Cloud, proxy: Proxy) -> None:
    """The wrong ExternalId, or no right to assume it."""
    aws.queue(NORTH)
    proxy.before = lambda asked: no(asked, "AccessDenied", 403) if asked.action == "AssumeRole" else None
    with pytest.raises(Misuse, match=r"denies sts:AssumeRole on .*trust policy must name you and the ExternalId"):
        aws.open(NORTH, endpoint=proxy.endpoint, **ROLE)


def test_names_of_roles_are_made_of_the_member_s_name() -> None:
    """A name with characters that STS does not take still has a session."""
    settings = AwsSettings(region="eu-central-1", bucket="bodies", **ROLE)
    assert asked(settings, "St. Anna's Höfe")["RoleSessionName"] == "privfl-St.-Anna-s-H-fe"


def test_clients_say_nothing_secret(aws: Cloud) -> None:
    """Neither they nor the emulator show a key."""
    shown = repr(aws.open(NORTH)) + repr(aws.emulator) + repr(clients(aws.settings, "north"))
    assert aws.emulator.environment["AWS_SECRET_ACCESS_KEY"] not in shown


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NoSuchKey", Absent), ("PreconditionFailed", Present), ("SlowDown", Passing), ("KmsNotFound", Missing),
        ("KMS.NotFoundException", Missing), ("ThrottlingException", Passing),
        ("ExpiredTokenException", Expired), ("KmsThrottled", Passing),
        ("AWS.SimpleQueueService.NonExistentQueue", Missing), ("AccessDeniedException", Denied), ("Odd", WireError),
        ("InvalidSignatureException", WireError), ("PermanentRedirect", WireError), ("BadDigest", Passing),
    ],
)  # fmt: skip
def test_every_kind_of_answer_has_its_error(code: str, kind: type[WireError]) -> None:
    """Once the mailbox is open nothing is fatal: every one is the wire's error, of the kind that says what helps."""
    from botocore.exceptions import ClientError

    with pytest.raises(WireError) as told, speaking("s3", "arn:aws:s3:::b/k"):
        raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "PutObject")  # type: ignore[typeddict-item]
    assert type(told.value) is kind


# -- the coordinator's lease ---------------------------------------------------------------------------------


def test_a_second_coordinator_is_told_who_works(aws: Cloud, tmp_path: Path) -> None:
    """From a copy of the folder, while the first one lives; when that has stopped, it may."""
    first = aws.open(NORTH, acting="coordinator")
    (tmp_path / "copy").mkdir()
    home, aws.home = aws.home, tmp_path / "copy"
    with pytest.raises(Misuse, match="another coordinator of this federation is at work, on "):
        aws.open(NORTH, acting="coordinator")
    first.send(NORTH, b"goes on")
    first.close()
    second = aws.open(NORTH, acting="coordinator")
    second.close()
    assert aws.objects() == []
    aws.home = home


def test_a_killed_coordinator_s_lease_runs_out(aws: Cloud, tmp_path: Path) -> None:
    """Nobody renews it: the next one, elsewhere, waits for its end and takes it; the first, if it wakes, is told."""
    made = clients(aws.settings, "hub")
    dead = Lease(made, aws.federation, tmp_path / "dead")
    assert dead._put({"IfNoneMatch": "*"})
    second = aws.open(NORTH, acting="coordinator")
    dead._thread = threading.current_thread()
    renewing = threading.Thread(target=dead._renew, daemon=True)
    renewing.start()
    renewing.join(30)
    with pytest.raises(Misuse, match="another coordinator"):
        AwsMailbox(made, aws.place(NORTH), aws.queue(NORTH), dead).send(NORTH, b"too late")
    second.send(NORTH, b"works")
    made.close()


def test_the_same_folder_takes_its_own_lease_at_once(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed and started again there, it need not wait; what still runs from the same folder goes on too."""
    first = aws.open(NORTH, acting="coordinator", visibility=3)
    assert first._lease is not None
    again = aws.open(NORTH, acting="coordinator", visibility=3)
    end, etag = time.monotonic() + 30, first._lease._etag
    while first._lease._etag == etag and time.monotonic() < end:
        time.sleep(0.05)
    first.send(NORTH, b"goes on")
    again.send(NORTH, b"goes on as well")


# -- a look from outside -------------------------------------------------------------------------------------


def test_probe_tells_who_one_is(aws: Cloud, proxy: Proxy, tmp_path: Path) -> None:
    """A member's folder is enough: account, queue and bucket are found, or the first of them that is not right."""
    home, aws.federation = tmp_path / "north", "trial"
    SiteHome.init(home, "north", "trial", "a passphrase for tests", SystemClock().now(), cost=INSECURE_TEST_COST)
    settings = AwsSettings(**{**aws.settings.model_dump(), "prefix": aws.settings.bucket[-20:]})
    aws.settings = settings
    with pytest.raises(Misuse, match="does not exist"):
        probe(settings, home)
    aws.queue(place_of(home).own)
    assert "123456789012" in (said := probe(settings, home))
    assert "0 messages waiting" in said
    proxy.before = lambda asked: no(asked, "AccessDenied", 403) if asked.method == "GET" else None
    denied = AwsSettings(**{**settings.model_dump(), "endpoint": proxy.endpoint})
    with pytest.raises(Misuse, match=r"s3:GetObject on .*/probe/planted.*run privfl wire aws init again"):
        probe(denied, home)
    assert probe(settings, home).endswith("answers")
    planted = body_prefixes("trial", place_of(home).own).inbox + PLANTED
    aws.raw.s3.put_object(Bucket=settings.bucket, Key=planted, Body=b"+")
    assert probe(settings, home).endswith("can be read")
    with pytest.raises(Misuse, match=r"nobody-has-this-bucket.* does not exist"):
        probe(AwsSettings(**{**settings.model_dump(), "bucket": "nobody-has-this-bucket"}), home)
    with pytest.raises(Misuse, match="no folder of a site or coordinator"):
        probe(settings, tmp_path)


def test_an_emulator_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    from privfl.wires.aws import emulator

    monkeypatch.setattr(emulator.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Misuse, match=r"privfl\[bench\]"), emulator.emulator():
        pass


def test_real_credentials_never_reach_the_emulator(emulated: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment holds is out of sight meanwhile, and back afterwards."""
    import os

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREAL")
    monkeypatch.setenv("AWS_PROFILE", "real")
    with emulated.at_hand():
        assert os.environ["AWS_ACCESS_KEY_ID"] == emulated.environment["AWS_ACCESS_KEY_ID"]
        assert "AWS_PROFILE" not in os.environ
    assert (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_PROFILE"]) == ("AKIAREAL", "real")


def test_what_is_not_there_is_denied_to_whoever_may_not_list(aws: Cloud, proxy: Proxy, tmp_path: Path) -> None:
    """Least privilege: S3 says 403 for absent objects. A body may come yet, and a lease that vanished is taken anew."""

    def unlisted(asked: Asked, said: Said) -> Said:
        return no(asked, "AccessDenied", 403) if said.status == 404 and not asked.sqs else said

    proxy.after = unlisted
    hub = aws.open(NORTH, acting="coordinator", endpoint=proxy.endpoint)
    with pytest.raises(WireError, match=r"not on the wire \(yet\), or .* may not read it"):
        hub.get_body(bytes(32), size=5, sender=SOUTH)
    aws.raw.s3.delete_object(Bucket=aws.settings.bucket, Key=aws.objects()[0])
    end = time.monotonic() + 30
    while not aws.objects() and time.monotonic() < end:
        time.sleep(0.05)
    assert len(aws.objects()) == 1
    hub.send(NORTH, b"goes on")
