"""A look at the wire from a member's folder, without its key: who AWS takes it for, and whether its queue is there."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml
from privfl_keys import VerifyKey
from privfl_keys.enrolment import EnrolmentRequest

from privfl.errors import Misuse, PrivflError, WireError
from privfl.wires.aws.errors import Absent, Denied, Expired, Passing, speaking
from privfl.wires.aws.mailbox import OPENING_S, own_queue
from privfl.wires.aws.names import PLANTED, body_prefixes
from privfl.wires.aws.retry import persist
from privfl.wires.aws.session import Clients, account_of, clients
from privfl.wires.settings import AwsSettings, Place

__all__ = ["place_of", "probed"]

LONGEST = 1 << 20


def probed(settings: AwsSettings, home: Path) -> str:
    """What was found, in words; nothing is sent, received or written.

    Raises:
        Misuse: credentials, clock, certificate, queue or bucket are not as they must be. WireError: AWS is away.
    """
    place = place_of(home)
    made = clients(settings, place.name)
    try:
        who = persist(lambda: _caller(made), made, patience=OPENING_S)
        url = own_queue(made, place)
        bucket = persist(lambda: _bucket(made, place), made, patience=OPENING_S)
        waiting = _waiting(made, url)
    finally:
        made.close()
    return f"AWS knows this member as {who}; its queue is there{waiting}, and the bucket {settings.bucket} {bucket}"


def place_of(home: Path) -> Place:
    """Whose folder this is, by what in it is no secret."""
    for role, name in (("site", "site.yaml"), ("coordinator", "coordinator.yaml")):
        with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError, PrivflError):
            fields = yaml.safe_load((home / name).read_bytes()[:LONGEST].decode())
            request = EnrolmentRequest.decode((home / "request").read_bytes()[:LONGEST])
            return Place(
                VerifyKey(request.verify_key).site_id, str(fields["name"]), role, str(fields["federation"]), home
            )
    raise Misuse(f"{home} is no folder of a site or coordinator with its request; restore these files")


def _caller(made: Clients) -> str:
    with speaking("sts", "AWS", opening=True):
        return made.sts.get_caller_identity()["Arn"]


def _bucket(made: Clients, place: Place) -> str:
    """Read what ``privfl wire aws init`` has laid there to be read by this member. Whoever may not list a bucket is
    denied also what is not there."""
    key, bucket = body_prefixes(place.federation, place.own).inbox + PLANTED, made.settings.bucket
    account = account_of(made.settings)
    owner: dict[str, Any] = {"ExpectedBucketOwner": account} if account else {}
    try:
        with speaking("s3", f"arn:aws:s3:::{bucket}/{key}"):
            made.s3.get_object(Bucket=bucket, Key=key, **owner)["Body"].close()
    except Absent:
        return "answers"  # made by hand, without that object
    except Denied as error:
        raise Misuse(f"{error}; or what this reads was removed: then run privfl wire aws init again") from None
    except (Passing, Expired):
        raise
    except WireError as error:
        raise Misuse(str(error)) from None
    return "can be read"


def _waiting(made: Clients, url: str) -> str:
    with contextlib.suppress(PrivflError), speaking("sqs", url):
        asked = made.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
        return f" with {int(asked['Attributes']['ApproximateNumberOfMessages'])} messages waiting"
    return ""
