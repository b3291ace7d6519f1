"""The SQS and S3 wire: one queue per member, bodies in a bucket. Needs the extra ``privfl[aws]``."""

from __future__ import annotations

from pathlib import Path

from privfl.errors import Misuse
from privfl.wires.mailbox import Mailbox
from privfl.wires.settings import AwsSettings, Place

__all__ = ["open_mailbox", "probe"]


def open_mailbox(settings: AwsSettings, place: Place) -> Mailbox:
    """The own end of the wire.

    Raises:
        Misuse: boto3 is not installed, or what ``federation.yaml`` and the credentials say does not work; the message
            names action and resource. WireError: AWS cannot be reached now.
    """
    _installed()
    from privfl.wires.aws.mailbox import open_checked  # noqa: PLC0415 - an extra

    return open_checked(settings, place)


def probe(settings: AwsSettings, home: Path) -> str:
    """Try credentials, queue and bucket from the member's folder; what was found, in words. Raises as above."""
    _installed()
    from privfl.wires.aws.probing import probed  # noqa: PLC0415 - an extra

    return probed(settings, home)


def _installed() -> None:
    try:
        import botocore  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise Misuse('the SQS and S3 wire needs boto3; pip install "privfl[aws]"') from None
