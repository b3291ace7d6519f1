"""check with IAM enforced by the emulator: right with the policies that init writes, wrong with any other.

The emulator knows nothing of conditions, of queues' and keys' policies, and of strangers' key contexts; nothing here
rests on those. They are tried in test_policies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from privfl.errors import Misuse
from privfl.wires.aws.admin_check import Tried, check_member
from privfl.wires.aws.emulator import emulator
from privfl.wires.aws.policies import member_policy
from privfl.wires.aws.session import Clients, clients
from tests.wires.aws.admin_cloud import Place, founded

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A federation that init has made, with its roles."""
    with emulator() as found, found.at_hand():
        made = founded(found, tmp_path_factory.mktemp("aws"), kms_key="alias/trial")
        made.init()
        yield made
        made.own.close()


@pytest.fixture(scope="module")
def acting(place: Place) -> Iterator[dict[str, Clients]]:
    """Clients of each member, and enforced policies."""
    with pytest.MonkeyPatch.context() as patch:
        found = {}
        for name in ("hub", "north"):
            found[name] = place.credentials(name, patch)
        place.emulator.enforce()
        yield found
        place.emulator.enforce(10**9)
        for one in found.values():
            one.close()


def tried(place: Place, acting: dict[str, Clients], name: str) -> list[Tried]:
    return list(check_member(place.plan, place.member(name), acting[name]))


@pytest.mark.parametrize("name", ["hub", "north"])
def test_right_as_made(place: Place, acting: dict[str, Clients], name: str) -> None:
    """With the roles that init made, what is needed is allowed and all else denied; nothing is left behind."""
    rows = tried(place, acting, name)
    assert [row for row in rows if not row.right] == []
    assert {row.outcome for row in rows if row.must} == {"allowed"}
    assert {row.outcome for row in rows if not row.must} == {"denied"}
    assert len([row for row in rows if not row.must]) >= 10
    with place.free():
        keys = [one["Key"] for one in place.own.s3.list_objects_v2(Bucket=place.bucket)["Contents"]]
    assert all(key.endswith("probe/planted") for key in keys)


def wider(action: str, resource: str) -> Callable[[Place, Any], Any]:
    """One more right than init gave; ``resource`` of the plan."""

    def changed(place: Place, document: Any) -> Any:
        extra = {"Effect": "Allow", "Action": [action], "Resource": [resource.replace("BUCKET", place.bucket)]}
        return {**document, "Statement": [*document["Statement"], extra]}

    return changed


def narrower(action: str) -> Callable[[Place, Any], Any]:
    """One right less."""

    def changed(place: Place, document: Any) -> Any:
        rules = [{**one, "Action": [a for a in one["Action"] if a != action]} for one in document["Statement"]]
        return {**document, "Statement": [one for one in rules if one["Action"]]}

    return changed


@pytest.mark.parametrize(
    ("change", "action", "must"),
    [
        (wider("sqs:ReceiveMessage", "arn:aws:sqs:*"), "sqs:ReceiveMessage", False),
        (wider("sqs:SendMessage", "arn:aws:sqs:*"), "sqs:SendMessage", False),
        (wider("sqs:PurgeQueue", "arn:aws:sqs:*"), "sqs:PurgeQueue", False),
        (wider("sqs:*", "arn:aws:sqs:*"), "sqs:SetQueueAttributes", False),
        (wider("sqs:ListQueues", "*"), "sqs:ListQueues", False),
        (wider("s3:GetObject", "arn:aws:s3:::BUCKET/*"), "s3:GetObject", False),
        (wider("s3:PutObject", "arn:aws:s3:::BUCKET/trial/*"), "s3:PutObject", False),
        (wider("s3:DeleteObject", "arn:aws:s3:::BUCKET/*"), "s3:DeleteObject", False),
        (wider("s3:ListBucket", "arn:aws:s3:::BUCKET"), "s3:ListBucket", False),
        (wider("s3:PutBucketPolicy", "arn:aws:s3:::BUCKET"), "s3:PutBucketPolicy", False),
        (wider("kms:*", "*"), "kms:GenerateDataKey", False),
        (narrower("sqs:SendMessage"), "sqs:SendMessage", True),
        (narrower("sqs:ReceiveMessage"), "sqs:ReceiveMessage", True),
        (narrower("s3:PutObject"), "s3:PutObject", True),
        (narrower("s3:GetObject"), "s3:GetObject", True),
        (narrower("s3:DeleteObject"), "s3:DeleteObject", True),
    ],
)
def test_wrong_where_a_policy_is_wider_or_narrower(
    place: Place, acting: dict[str, Clients], change: Callable[[Place, Any], Any], action: str, must: bool
) -> None:
    """One right more or less in a site's role: the check says which, on what, and what to do."""
    document = member_policy(place.plan, place.member("north"))
    with place.allowed("north", change(place, document)):
        wrong = [row for row in tried(place, acting, "north") if not row.right]
    assert {(row.action, row.must) for row in wrong} >= {(action, must)}
    assert {row.must for row in wrong} == {must}
    assert all(row.note and row.resource.startswith("arn:") for row in wrong)
    if must or action != "sqs:SetQueueAttributes":  # sqs:* is several
        assert {row.action for row in wrong} == {action}


def test_probes_do_no_harm_where_they_succeed(place: Place, acting: dict[str, Clients]) -> None:
    """With every right in the account, all that was there is there afterwards: messages, bodies, settings."""
    north, hub = place.member("north"), place.member("hub")
    with place.free():
        url = place.url(place.member("south"))
        place.own.sqs.send_message(QueueUrl=url, MessageBody="what was there")
        body = place.plan.written(hub, north) + "a" * 64
        place.own.s3.put_object(Bucket=place.bucket, Key=body, Body=b"body")
        before = place.settings()
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    with place.allowed("north", everything):
        rows = tried(place, acting, "north")
    assert {row.outcome for row in rows} == {"allowed"}
    with place.free():
        assert place.settings() == before
        assert place.own.s3.get_object(Bucket=place.bucket, Key=body)["Body"].read() == b"body"
        found: Any = place.own.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=0
        )["Messages"]
        assert "what was there" in [one["Body"] for one in found]
        others = [one["MessageAttributes"] for one in found if one["Body"] != "what was there"]
        assert all(one["privfl"]["StringValue"] == "probe" for one in others)
        place.own.s3.delete_object(Bucket=place.bucket, Key=body)


def test_what_is_missing_is_told_apart_from_what_is_denied(place: Place, acting: dict[str, Clients]) -> None:
    """A removed object that checks read: named, with init as the remedy."""
    key = place.plan.planted(place.member("north"))
    with place.free():
        place.own.s3.delete_object(Bucket=place.bucket, Key=key)
    wrong = [row for row in tried(place, acting, "north") if not row.right]
    assert [(row.action, row.outcome) for row in wrong] == [("s3:GetObject", "absent")]
    assert "privfl wire aws init" in wrong[0].note
    with place.free():
        place.init()
    assert all(row.right for row in tried(place, acting, "north"))


def test_credentials_that_are_not_taken(place: Place, acting: dict[str, Clients], monkeypatch: Any) -> None:
    """A role that these credentials may not assume is told as such, and no row says so for it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODYNOBODY0000")
    made = clients(place.plan.settings, "north")
    with pytest.raises(Misuse, match="sts:AssumeRole"):
        list(check_member(place.plan, place.member("north"), made))
    made.close()
