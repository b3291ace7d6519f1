"""init, destroy and redrive against the emulator: again and again the same, foreign things untouched, nothing left."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from privfl_keys import SigningKey

from privfl.errors import Misuse, WireError
from privfl.wires.aws.admin import Administrator, Row, Work, compact, make_plan
from privfl.wires.aws.admin_bucket import ensure_policy
from privfl.wires.aws.admin_destroy import destroy
from privfl.wires.aws.admin_redrive import redrive
from privfl.wires.aws.emulator import Emulator, emulator
from privfl.wires.aws.names import FEDERATION_TAG, MEMBER_TAG
from privfl.wires.aws.policies import bucket_policy, key_policy, member_policy
from privfl.wires.aws.policies_plan import Participant
from privfl.wires.aws.session import clients
from privfl.wires.envelope import Envelope, seal_envelope
from tests.wires.aws.admin_cloud import ACCOUNT, Place, founded

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
NOW = 1_900_000_000_000


@pytest.fixture(scope="module")
def emulated() -> Iterator[Emulator]:
    """An emulator of these tests alone: they forget everything that is in it."""
    with emulator() as found, found.at_hand():
        yield found


@pytest.fixture
def place(emulated: Emulator, tmp_path: Path) -> Iterator[Place]:
    made = founded(emulated, tmp_path / "aws", kms_key="alias/trial")
    yield made
    made.own.close()


def outcomes(rows: list[Row]) -> set[str]:
    return {row.outcome for row in rows if row.outcome != "noted"}


def everything(place: Place) -> dict[str, Any]:
    """What is in the account, as AWS tells it."""
    own = place.own
    queues = {}
    for url in own.sqs.list_queues().get("QueueUrls", []):
        attributes: Any = own.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        steady = {k: v for k, v in attributes.items() if "Timestamp" not in k and "Approximate" not in k}
        queues[url] = steady, own.sqs.list_queue_tags(QueueUrl=url).get("Tags")
    roles = {role["RoleName"]: role["AssumeRolePolicyDocument"] for role in own.iam.list_roles()["Roles"]}
    keys = [key["KeyId"] for key in own.kms.list_keys()["Keys"]]
    aliases = [one["AliasName"] for one in own.kms.list_aliases()["Aliases"] if "aws/" not in one["AliasName"]]
    buckets = {}
    for bucket in own.s3.list_buckets()["Buckets"]:
        listed = own.s3.list_objects_v2(Bucket=bucket["Name"]).get("Contents", [])
        buckets[bucket["Name"]] = [one["Key"] for one in listed]
    return {"queues": queues, "roles": roles, "keys": keys, "aliases": aliases, "buckets": buckets}


def test_twice_changes_nothing(place: Place) -> None:
    """The first run makes everything, the second finds it as it should be; a dry run before said the same."""
    dry = place.init(dry=True)
    assert everything(place)["queues"] == {}
    assert not place.out.exists()
    first = place.init()
    assert {(row.kind, row.name) for row in dry if row.kind in ("queue", "role", "key")} == {
        (row.kind, row.name) for row in first if row.kind in ("queue", "role", "key")
    }
    before = everything(place)
    again = place.init()
    assert outcomes(again) == {"kept"}
    assert everything(place) == before
    assert len(before["queues"]) == 7
    assert len(before["keys"]) == len(before["aliases"]) == 1


def test_what_is_made(place: Place) -> None:
    """Queues with dead-letter queues after 20 receptions, encryption, tags and policy; a private encrypted bucket."""
    place.init()
    plan, own = place.plan, place.own
    north = place.member("north")
    url = own.sqs.get_queue_url(QueueName=plan.queue_of(north).rsplit(":", 1)[-1])["QueueUrl"]
    queue: Any = own.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert json.loads(queue["RedrivePolicy"]) == {"deadLetterTargetArn": plan.dlq_of(north), "maxReceiveCount": 20}
    assert (queue["KmsMasterKeyId"], queue["VisibilityTimeout"]) == ("alias/trial", str(plan.settings.visibility))
    assert "DenyStrangersReading" in queue["Policy"]
    assert own.sqs.list_queue_tags(QueueUrl=url)["Tags"] == {
        FEDERATION_TAG: "trial", MEMBER_TAG: north.id.hex(), "privfl:name": "north",
    }  # fmt: skip
    s3: Any = own.s3
    assert all(s3.get_public_access_block(Bucket=place.bucket)["PublicAccessBlockConfiguration"].values())
    rule = s3.get_bucket_encryption(Bucket=place.bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/trial"}
    rules = s3.get_bucket_lifecycle_configuration(Bucket=place.bucket)["Rules"]
    assert [one.get("Expiration", {}).get("Days") for one in rules] == [14, None]
    key = own.kms.describe_key(KeyId="alias/trial")["KeyMetadata"]["KeyId"]
    assert own.kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
    assert json.loads(own.kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"]) == key_policy(plan)
    inline: Any = own.iam.get_role_policy(RoleName="privfl-north", PolicyName="privfl-wire")["PolicyDocument"]
    assert inline == member_policy(plan, north) == json.loads((place.out / "members/north.json").read_text())
    assert "kms" not in json.dumps(inline)  # the key's own policy allows it, under conditions


def test_the_buckets_policy_is_set_over_https_only(place: Place) -> None:
    """At an emulator's plain http it stays a file; where the endpoint has TLS it is put into place, once."""
    place.init()
    with pytest.raises(ClientError, match="NoSuchBucketPolicy"):
        place.own.s3.get_bucket_policy(Bucket=place.bucket)
    tls = replace(place.plan, plain=False)
    for wanted in ("changed", "kept"):
        work = Work(place.own, tls)
        ensure_policy(work, {"Bucket": place.bucket})
        assert [row.outcome for row in work.rows if row.kind == "bucket policy"] == [wanted]
    assert json.loads(place.own.s3.get_bucket_policy(Bucket=place.bucket)["Policy"]) == bucket_policy(tls)


def test_what_somebody_changed_is_put_right(place: Place) -> None:
    """A wider policy, another timeout, a lost rule: named, and set again; so is a lost file."""
    place.init()
    own, plan = place.own, place.plan
    url = own.sqs.get_queue_url(QueueName=plan.queue_of(place.member("south")).rsplit(":", 1)[-1])["QueueUrl"]
    own.sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "1", "Policy": ""})
    own.s3.delete_bucket_lifecycle(Bucket=place.bucket)
    nothing = compact(member_policy(plan, place.member("hub")))
    own.iam.put_role_policy(RoleName="privfl-south", PolicyName="privfl-wire", PolicyDocument=nothing)
    (place.out / "bucket.json").unlink()
    rows = [row for row in place.init() if row.outcome in ("changed", "made")]
    changed = {(row.kind, row.name.rsplit("/", 1)[-1], row.note) for row in rows}
    name = plan.queue_of(place.member("south")).rsplit(":", 1)[-1]
    assert changed == {
        ("queue", name, "Policy, VisibilityTimeout"), ("bucket lifecycle", place.bucket, ""),
        ("role", "privfl-south", ""), ("file", "bucket.json", ""),
    }  # fmt: skip


def test_a_broken_off_init_goes_on(emulated: Emulator, tmp_path: Path) -> None:
    """Broken off at any of its requests, the next run completes it to the same as an unbroken one, with one key."""
    whole = founded(emulated, tmp_path / "whole", kms_key="alias/trial")
    counted = _counting(whole, None)
    whole.init()
    wanted = everything(whole)
    whole.own.close()
    for at in _changes(counted):
        place = founded(emulated, tmp_path / str(at), kms_key="alias/trial")
        _counting(place, at)
        with pytest.raises(WireError):
            place.init()
        found = Place(emulated, founded_clients(place), place.plan, place.out)
        found.init()
        there = everything(found)
        assert [*there["queues"]] == [*wanted["queues"]], at
        assert len(there["keys"]) == len(there["aliases"]) == 1, at
        place.own.close()
        found.own.close()


def founded_clients(place: Place) -> Any:
    """Fresh clients of the same administrator."""
    return clients(place.plan.settings.model_copy(update={"role": None}), "administrator")


def _counting(place: Place, at: int | None) -> list[Any]:
    """Count requests of an administrator's clients; break the connection off at number ``at``."""
    seen: list[Any] = [0]

    def before(model: Any, **_: Any) -> None:
        seen[0] += 1
        seen.append(model.name)
        if seen[0] == at:
            raise EndpointConnectionError(endpoint_url=place.emulator.endpoint)

    for service in ("sqs", "s3", "kms", "iam"):
        getattr(place.own, service).meta.events.register("before-call", before)
    return seen


def _changes(seen: list[Any]) -> list[int]:
    """Numbers of the requests that follow what is made of each kind, where a break hurts most."""
    names = seen[1:]
    after = [names.index(name) + 2 for name in ("CreateKey", "CreateQueue", "CreateBucket", "CreateRole")]
    return [names.index("HeadBucket") + 1, *after]


def test_what_is_foreign_is_refused_and_untouched(place: Place) -> None:
    """A bucket with things in it, a role of something else, a queue of another federation: nothing changes."""
    own, plan = place.own, place.plan
    name = plan.queue_of(place.member("south")).rsplit(":", 1)[-1]

    def refused(words: str) -> None:
        before = everything(place)
        with pytest.raises(Misuse, match=words):
            place.init()
        assert everything(place) == before
        assert not place.out.exists()

    url = own.sqs.create_queue(QueueName=name, tags={FEDERATION_TAG: "other"})["QueueUrl"]
    refused("belongs to the federation 'other'")
    own.sqs.delete_queue(QueueUrl=url)
    own.iam.create_role(RoleName="privfl-south", AssumeRolePolicyDocument="{}")
    refused(r"the role .* belongs to something else")
    own.iam.delete_role(RoleName="privfl-south")
    placed: Any = {"LocationConstraint": "eu-central-1"}
    own.s3.create_bucket(Bucket=place.bucket, CreateBucketConfiguration=placed)
    own.s3.put_object(Bucket=place.bucket, Key="photos/1", Body=b"x")
    refused("belongs to something else")
    work = Work(own, plan)
    with pytest.raises(Misuse, match="belongs to something else"):
        destroy(work)
    assert everything(place)["buckets"] == {place.bucket: ["photos/1"]}
    own.s3.delete_object(Bucket=place.bucket, Key="photos/1")
    assert "made" in outcomes(place.init())  # empty and nobody's: taken


def test_a_bucket_that_only_looks_empty_is_not_taken(place: Place) -> None:
    """Somebody's bucket whose last objects were deleted, with their versions kept: neither marked nor emptied."""
    s3: Any = place.own.s3
    s3.create_bucket(Bucket=place.bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    s3.put_bucket_versioning(Bucket=place.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=place.bucket, Key="thesis", Body=b"the only copy")
    s3.delete_object(Bucket=place.bucket, Key="thesis")
    for work in (place.init, lambda: destroy(Work(place.own, place.plan))):
        with pytest.raises(Misuse, match="belongs to something else"):
            work()
    versions = s3.list_object_versions(Bucket=place.bucket)["Versions"]
    assert [one["Key"] for one in versions] == ["thesis"]


def test_a_key_of_somebody_else_stays_as_it_is(emulated: Emulator, tmp_path: Path) -> None:
    """A key that is there already is used, not changed, not deleted; the members' own policies allow its use."""
    place = founded(emulated, tmp_path / "aws", kms_key="alias/house")
    key = place.own.kms.create_key()["KeyMetadata"]["KeyId"]
    place.own.kms.create_alias(AliasName="alias/house", TargetKeyId=key)
    before = place.own.kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"]
    place.init()
    assert place.own.kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"] == before
    document = json.loads((place.out / "members/north.json").read_text())
    assert [one["Sid"] for one in document["Statement"] if "kms:Decrypt" in one["Action"]] == [
        "UseThroughS3",
        "UseThroughSQS",
    ]
    destroy(Work(place.own, place.plan))
    assert place.own.kms.describe_key(KeyId="alias/house")["KeyMetadata"]["KeyState"] == "Enabled"
    wrong = replace(place.plan, settings=place.plan.settings.model_copy(update={"kms_key": "1234"}))
    with pytest.raises(Misuse, match="there is no key 1234"):
        place.init(plan=wrong)
    place.own.kms.disable_key(KeyId=key)
    with pytest.raises(Misuse, match="is disabled: enable it"):
        place.init()
    place.own.close()


def test_destroy_removes_what_init_made_and_only_that(place: Place) -> None:
    """Bodies in all versions, unfinished uploads, queues, roles, key: gone; a neighbour's stay; twice is harmless."""
    before = everything(place)
    own = place.own
    own.sqs.create_queue(QueueName="privfl-trial-neighbour")
    own.iam.create_role(RoleName="privfl-neighbour", AssumeRolePolicyDocument="{}")
    place.init()
    own.s3.put_bucket_versioning(Bucket=place.bucket, VersioningConfiguration={"Status": "Enabled"})
    for at in range(3):
        own.s3.put_object(Bucket=place.bucket, Key="trial/x/y/z", Body=bytes([at]))
    own.s3.delete_object(Bucket=place.bucket, Key="trial/x/y/z")
    own.s3.create_multipart_upload(Bucket=place.bucket, Key="trial/a/b/c")
    dry = Work(own, place.plan, dry=True)
    destroy(dry)
    assert place.bucket in everything(place)["buckets"]
    work = Work(own, place.plan)
    destroy(work)
    assert [(row.kind, row.name) for row in dry.rows] == [(row.kind, row.name) for row in work.rows]
    note = next(row.note for row in work.rows if row.kind == "bucket")
    assert note == "with 7 object(s) and 1 unfinished upload(s)"  # three planted, three versions, one deletion
    after = everything(place)
    assert [url.rsplit("/", 1)[-1] for url in after["queues"]] == ["privfl-trial-neighbour"]
    assert (set(after["roles"]), after["buckets"], after["aliases"]) == ({"privfl-neighbour"}, {}, before["aliases"])
    key = own.kms.describe_key(KeyId=str(place.plan.key).rsplit("/", 1)[-1])["KeyMetadata"]
    assert key["KeyState"] == "PendingDeletion"
    again = Work(own, place.plan)
    destroy(again)
    assert again.rows == []
    assert "made" in outcomes(place.init())  # and it can be made anew, with a new key


def test_a_member_that_has_left(place: Place) -> None:
    """Its queue is named as left over, nobody else's policy knows it any more, and destroy still finds it."""
    place.init()
    fewer = replace(place.plan, members=tuple(one for one in place.plan.members if one.name != "south"))
    rows = place.init(plan=fewer)
    assert len([row for row in rows if row.outcome == "noted" and "no longer in the roster" in row.note]) == 2
    assert place.member("south").id.hex()[:32] not in (place.out / "members/hub.json").read_text()
    work = Work(place.own, fewer)
    destroy(work)
    assert everything(place)["queues"] == {}
    assert "privfl-south" not in everything(place)["roles"]


def test_wrong_account_and_names(place: Place) -> None:
    """Credentials of another account, roles that cannot be made, an unwritable folder: told before anything is done."""
    other = place.plan.settings.model_copy(update={"account": "999999999999"})
    with pytest.raises(Misuse, match="of account 123456789012 and federation"):
        make_plan(other, "trial", place.plan.members, Administrator(ACCOUNT, ()))
    with pytest.raises(Misuse, match="their ARN has to be known"):
        place.init(plan=replace(place.plan, roles=None))
    with pytest.raises(Misuse, match="no spaces"):
        replace(place.plan, members=(*place.plan.members, Participant("far north", b"\x09" * 32)))
    assert everything(place)["queues"] == {}
    place.out.write_text("a file")
    with pytest.raises(Misuse, match="choose another --dir"):
        place.init()


# -- redrive ----------------------------------------------------------------------------------------


def test_redrive_moves_what_is_the_wires(place: Place) -> None:
    """Messages of the wire go back whole, probes are dropped, anything else stays to be looked at; told either way."""
    place.init()
    plan, sqs = place.plan, place.own.sqs
    north = place.member("north")
    live = sqs.get_queue_url(QueueName=plan.queue_of(north).rsplit(":", 1)[-1])["QueueUrl"]
    dead = live + "-dlq"
    mark: Any = {"privfl": {"DataType": "String", "StringValue": "1"}}
    texts = [base64.b64encode(_envelope(north.id, at)).decode() for at in range(13)]
    for text in texts:
        sqs.send_message(QueueUrl=dead, MessageBody=text, MessageAttributes=mark)
    sqs.send_message(QueueUrl=dead, MessageBody="what?")
    sqs.send_message(QueueUrl=dead, MessageBody="!", MessageAttributes=mark)
    sqs.send_message(
        QueueUrl=dead, MessageBody="x", MessageAttributes={"privfl": {"DataType": "String", "StringValue": "probe"}}
    )
    looked = redrive(Work(place.own, plan, dry=True), "north", NOW)
    assert (len(looked.messages), looked.moved, looked.left) == (16, 0, 16)
    assert sum(one.ours for one in looked.messages) == 13
    done = redrive(Work(place.own, plan), north.id.hex()[:8], NOW)
    assert (done.member, done.moved, done.dropped, done.left) == ("north", 13, 1, 2)
    assert sorted(one.what for one in done.messages if not one.ours) == ["damaged", "foreign", "probe"]
    assert all(one.age_ms > 0 for one in done.messages)
    got = []
    while found := sqs.receive_message(
        QueueUrl=live, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=0
    ).get("Messages", []):
        got += [(one["Body"], one["MessageAttributes"]["privfl"]["StringValue"]) for one in found]
    assert sorted(got) == sorted((text, "1") for text in texts)
    assert redrive(Work(place.own, plan), "north", NOW).moved == 0


def test_redrive_broken_off_loses_nothing(place: Place) -> None:
    """If SQS takes no more in the middle, every message is in one of the two queues."""
    place.init()
    plan, sqs = place.plan, place.own.sqs
    north = place.member("north")
    live = sqs.get_queue_url(QueueName=plan.queue_of(north).rsplit(":", 1)[-1])["QueueUrl"]
    mark: Any = {"privfl": {"DataType": "String", "StringValue": "1"}}
    texts = {base64.b64encode(_envelope(north.id, at)).decode() for at in range(6)}
    for text in texts:
        sqs.send_message(QueueUrl=live + "-dlq", MessageBody=text, MessageAttributes=mark)
    sent = [0]

    def fails(model: Any, **_: Any) -> None:
        sent[0] += model.name == "SendMessage"
        if sent[0] == 4:
            raise EndpointConnectionError(endpoint_url=live)

    sqs.meta.events.register("before-call", fails)
    with pytest.raises(WireError):
        redrive(Work(place.own, plan), "north", NOW)
    sqs.meta.events.unregister("before-call", fails)
    counts = []
    for url in (live, live + "-dlq"):
        names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found: Any = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        counts.append(sum(map(int, found.values())))
    assert counts == [3, 3]


def test_redrive_of_nobody(place: Place) -> None:
    """An unknown member, or the first digits of several, is told with the names there are."""
    place.init()
    with pytest.raises(Misuse, match=r"no member\(s\) 'west' have a queue here; there are: hub, north, south"):
        redrive(Work(place.own, place.plan), "west", NOW)


def _envelope(recipient: bytes, number: int) -> bytes:
    key = SigningKey.from_secret_bytes(bytes(32))
    bare = Envelope(
        "trial", key.verify_key.site_id, recipient, "round", bytes(16), b"", bytes([number]), (), signature=bytes(64)
    )
    return seal_envelope(key, bare).encode()
