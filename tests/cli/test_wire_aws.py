"""``privfl wire aws`` and ``privfl wire redrive`` by command: a verified roster, one object on request, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from privfl_keys import INSECURE_TEST_COST

from privfl.clock import SystemClock
from privfl.homes import folder as folders
from privfl.homes.authority import AuthorityHome, read_request
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.drafting import RosterTerms
from privfl.homes.site import SiteHome
from privfl.wires.aws.emulator import Emulator, emulator
from privfl.wires.aws.session import clients
from privfl.wires.settings import AwsSettings
from tests.cli.support import Ran, called

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PASS = "correct horse battery staple"
ROLE = "arn:aws:iam::123456789012:role/privfl-{name}"
USER = "arn:aws:iam::123456789012:user/operator"
Command = Callable[..., Ran]


@pytest.fixture(scope="module")
def cloud() -> Iterator[Emulator]:
    with emulator() as found, found.at_hand():
        yield found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, cloud: Emulator) -> Path:
    """A federation with a roster: authority, coordinator, three sites, and federation.yaml."""
    folder, now = tmp_path_factory.mktemp("trial"), SystemClock().now()
    wire = {"kind": "aws", "region": "eu-central-1", "bucket": "trial-bodies", "endpoint": cloud.endpoint,
            "role": ROLE, "external_id": "trial-{name}"}  # fmt: skip
    (folder / "federation.yaml").write_text(yaml.safe_dump({"federation": "trial", "wire": wire}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "DEFAULT_COST", INSECURE_TEST_COST)
        AuthorityHome.init(folder / "authority", "trial", PASS)
        CoordinatorHome.init(folder / "hub", "hub", "trial", f"folder:{folder / 'wire'}", PASS, now)
        for name in ("north", "south", "east"):
            SiteHome.init(folder / name, name, "trial", PASS, now)
        with AuthorityHome.open(folder / "authority", PASS) as authority:
            for name in ("hub", "north", "south", "east"):
                request = read_request(folder / name / "request")
                authority.approve(request, request.fingerprint, now)
            authority.sign_roster(now, RosterTerms())
    return folder


@pytest.fixture
def wire(
    root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cloud: Emulator
) -> Iterator[Command]:
    """``privfl wire …`` in this process; {roster} stands for the two options that name the roster."""
    monkeypatch.delenv("PRIVFL_PASSPHRASE", raising=False)
    roster = ["--roster", root / "authority/rosters", "--authority", root / "authority/authority.pub"]

    def run(*args: Any) -> Ran:
        given = [part for one in args for part in (roster if one == "{roster}" else [one])]
        return called(capfd, monkeypatch, "wire", *given)

    cloud.reset()
    yield run
    cloud.enforce(10**9)


def test_from_nothing_to_nothing(wire: Command, root: Path, tmp_path: Path) -> None:
    """init twice, destroy without and with --yes, and again: what each says, and how it exits."""
    file, out = root / "federation.yaml", tmp_path / "policies"
    dry = wire("aws", "init", file, "{roster}", "--dir", out, "--dry-run", "--json")
    told = json.loads(dry.out)
    assert (dry.code, told["dry_run"], told["changed"], out.exists()) == (0, True, True, False)
    first = wire("aws", "init", file, "{roster}", "--dir", out)
    assert (first.code, first.err) == (0, "")
    assert "+ queue privfl-trial-" in first.out
    again = json.loads(wire("aws", "init", file, "{roster}", "--dir", out, "--json").out)
    assert (again["changed"], again["account"], again["roster"]) == (False, "123456789012", 1)
    assert {row["outcome"] for row in again["done"]} == {"kept", "noted"}
    assert sorted(path.name for path in (out / "members").iterdir()) == [
        "east.json", "hub.json", "north.json", "south.json",
    ]  # fmt: skip
    wire("aws", "destroy", file, "{roster}").failed(2, "nothing was removed", "--yes")
    gone = wire("aws", "destroy", file, "{roster}", "--yes")
    assert gone.code == 0
    assert "- bucket trial-bodies" in gone.out
    last = wire("aws", "destroy", file, "{roster}", "--yes")
    assert (last.code, last.out.strip()) == (0, "There is nothing of it.")


def test_check_by_roles_and_at_home(
    wire: Command, root: Path, tmp_path: Path, cloud: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With enforced policies every member passes; a wider one makes the check exit with 1 and name the action."""
    file = root / "federation.yaml"
    made = wire("aws", "init", file, "{roster}", "--dir", tmp_path, "--create-roles", "--trust", USER)
    assert made.code == 0
    settings: Any = yaml.safe_load(file.read_text())["wire"]
    own = clients(AwsSettings(**{**settings, "role": None}), "administrator")
    own.iam.create_user(UserName="operator")
    rule = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
    own.iam.put_user_policy(UserName="operator", PolicyName="assume", PolicyDocument=document)
    key = own.iam.create_access_key(UserName="operator")["AccessKey"]
    wide = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::trial-bodies"]}
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        cloud.enforce()
        right = wire("aws", "check", file, "{roster}", "--json")
        told = json.loads(right.out)
        assert (right.code, told["ok"], sorted(told["members"])) == (0, True, ["east", "hub", "north", "south"])
        shown = wire("aws", "check", file, "{roster}", "--home", root / "north")
        assert shown.code == 0
        assert "1 member(s): each can do what it must" in shown.out
        cloud.enforce(10**9)
    inline: Any = own.iam.get_role_policy(RoleName="privfl-north", PolicyName="privfl-wire")["PolicyDocument"]
    wider = json.dumps({**inline, "Statement": [*inline["Statement"], wide]})
    own.iam.put_role_policy(RoleName="privfl-north", PolicyName="privfl-wire", PolicyDocument=wider)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        cloud.enforce()
        wrong = wire("aws", "check", file, "{roster}", "--member", "north")
        cloud.enforce(10**9)
    own.close()
    assert wrong.code == 1
    assert "WRONG" in wrong.out
    assert "WRONG: s3:ListBucket on arn:aws:s3:::trial-bodies: " in wrong.out


def test_redrive(wire: Command, root: Path, tmp_path: Path) -> None:
    """What lies in a dead-letter queue is shown, and what is the wire's moved; an unknown name is told."""
    file = root / "federation.yaml"
    wire("aws", "init", file, "{roster}", "--dir", tmp_path)
    settings: Any = yaml.safe_load(file.read_text())["wire"]
    own = clients(AwsSettings(**{**settings, "role": None}), "administrator")
    urls = own.sqs.list_queues(QueueNamePrefix="privfl-trial-")["QueueUrls"]
    names = {url: own.sqs.list_queue_tags(QueueUrl=url)["Tags"].get("privfl:name") for url in urls}
    dead = next(url for url, name in names.items() if name == "north" and url.endswith("-dlq"))
    own.sqs.send_message(QueueUrl=dead, MessageBody="junk")
    own.close()
    looked = json.loads(wire("redrive", file, "--member", "north", "--dry-run", "--json").out)
    assert (looked["member"], looked["left"], looked["messages"][0]["what"]) == ("north", 1, "foreign")
    done = wire("redrive", file, "--member", "north")
    assert (done.code, "0 moved back" in done.out, "1 left" in done.out) == (0, True, True)
    wire("redrive", file, "--member", "west").failed(2, "there are: east, hub, north, south")


def test_mistakes(wire: Command, root: Path, tmp_path: Path) -> None:
    """Another authority, another federation, another kind of wire, no role: each told in words, exit 2 or 3."""
    file = root / "federation.yaml"
    other = tmp_path / "other.pub"
    other.write_text("aa" * 32)
    rosters = root / "authority/rosters"
    ran = wire("aws", "init", file, "--roster", rosters, "--authority", other)
    assert ran.code in (2, 3)
    assert "Traceback" not in ran.err
    wire("aws", "init", file, "--roster", rosters).failed(2, "give --authority")
    wire("aws", "init", file, "--roster", tmp_path / "none", "--authority", root / "authority/authority.pub").failed(2)
    folder = tmp_path / "folder.yaml"
    folder.write_text(yaml.safe_dump({"federation": "trial", "wire": f"folder:{tmp_path}"}))
    wire("aws", "init", folder, "{roster}").failed(2, "wires of kind aws")
    fields = yaml.safe_load(file.read_text())
    another = tmp_path / "another.yaml"
    another.write_text(yaml.safe_dump({**fields, "federation": "elsewhere"}))
    wire("aws", "init", another, "{roster}").failed(2, "elsewhere")
    wire("aws", "check", file).failed(2, "--home FOLDER")
    wire("aws", "check", file, "{roster}", "--member", "nobody").failed(2, "there are: east, hub, north, south")
    del fields["wire"]["role"]
    another.write_text(yaml.safe_dump(fields))
    wire("aws", "check", another, "{roster}").failed(2, "no role of the members is known")
    wire("aws", "rewrap", root / "north").failed(2, "under a passphrase")
    wire("aws", "rewrap", root / "absent").failed(2, "absent is no folder of a member")


@pytest.mark.parametrize("command", ["init", "check", "destroy"])
def test_without_boto3(wire: Command, root: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra is not installed the user is told which, and sees no traceback."""
    for name in [name for name in sys.modules if name.startswith("privfl.wires.aws.admin")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("boto3", "botocore"):
        monkeypatch.setitem(sys.modules, name, None)
    wire("aws", command, root / "federation.yaml", "{roster}").failed(2, 'pip install "privfl[aws]"')
    wire("redrive", root / "federation.yaml", "--member", "hub").failed(2, 'pip install "privfl[aws]"')


@pytest.mark.parametrize("command", ["init", "check", "destroy", "rewrap"])
def test_help_has_an_example(wire: Command, command: str) -> None:
    """Each command's help shows how it is called."""
    assert f"Example: privfl wire aws {command}" in " ".join(wire("aws", command, "--help").out.split())


def test_a_folder_under_kms_by_command(
    cloud: Emulator, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """site init --kms asks for no passphrase, nor does request; rewrap seals the keys anew."""
    cloud.reset()
    monkeypatch.delenv("PRIVFL_PASSPHRASE", raising=False)
    import boto3

    kms: Any = boto3.client("kms", endpoint_url=cloud.endpoint, region_name="eu-central-1")
    kms.create_alias(AliasName="alias/west", TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    folder, place = tmp_path / "west", ["--kms-region", "eu-central-1", "--kms-endpoint", cloud.endpoint]
    made = called(capfd, monkeypatch, "site", "init", folder, "--federation", "trial", "--kms", "alias/west", *place)
    assert (made.code, made.err) == (0, "")
    assert called(capfd, monkeypatch, "site", "request", folder).code == 0
    before = (folder / "keys").read_bytes()
    told = json.loads(called(capfd, monkeypatch, "wire", "aws", "rewrap", folder, "--json").out)
    assert told["key"].startswith("arn:aws:kms:")
    assert (folder / "keys").read_bytes() != before
    assert called(capfd, monkeypatch, "site", "request", folder).code == 0
    for group, request in (("authority", ()), ("policy", ("request",))):
        given = ("--federation", "trial", "--kms", "alias/west", *place)
        assert called(capfd, monkeypatch, group, "init", tmp_path / group, *given).code == 0
        assert not request or called(capfd, monkeypatch, group, *request, tmp_path / group).code == 0
    lone = called(capfd, monkeypatch, "site", "init", tmp_path / "x", "--federation", "trial", *place)
    lone.failed(2, "go with --kms")
