"""Clients of AWS's services by what ``federation.yaml`` says: whose credentials, where, how long, how often.

Credentials come from the standard chain (environment, profile, single sign-on, the role of the machine), and from there
by AssumeRole if a role is named; they renew themselves. None is kept, shown or written by privfl.
"""

from __future__ import annotations

import re
import threading
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.config import Config
from botocore.credentials import CredentialProvider, DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader, create_loader

from privfl.errors import Misuse
from privfl.wires.aws.errors import speaking, translated
from privfl.wires.settings import AwsSettings

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

__all__ = ["Clients", "account_of", "clients", "queue_address"]

CONNECT_S, READ_S = 5, 60  # the longest poll is 20 s
ATTEMPTS = 4
CONNECTIONS = 32
RENEWAL_S = 1.0  # between two looks for credentials, at least
KEPT = 6  # clients with credentials of before: a poll may still be on its way
ROLE_S = 3600  # what chained roles may have at most


def clients(settings: AwsSettings, name: str) -> Clients:
    """Clients for the member ``name`` (for the role's ``{name}`` and its session); nothing is asked of AWS yet.

    Raises:
        Misuse: there is no such profile, or no such region or endpoint can be.
    """
    found = Clients(settings, name)
    with speaking("sts", "AWS", opening=True):
        found.renew()
    return found


def account_of(settings: AwsSettings) -> str | None:
    """Whose the wire is, if ``federation.yaml`` says so: itself, or by the role, which is of that account."""
    if settings.account is not None:
        return settings.account
    return None if settings.role is None else settings.role.split(":")[4]


def queue_address(made: Clients, account: str, name: str) -> str:
    """The URL of a queue, without asking for it; of an endpoint by the environment, too, without user and password."""
    endpoint = re.sub(r"//[^/]*@", "//", made.sqs.meta.endpoint_url)
    return "/".join((endpoint.rstrip("/"), account, name))


class Clients:
    """One client per service, made when first used; threads may share them."""

    def __init__(self, settings: AwsSettings, name: str) -> None:
        self.settings, self.name = settings, name
        self._lock, self._made = threading.RLock(), dict[str, Any]()
        self._old: list[Any] = []
        self._renewed = 0.0
        self._session: botocore.session.Session | None = None

    @property
    def s3(self) -> S3Client:
        """S3."""
        return self._client("s3")  # type: ignore[no-any-return]

    @property
    def sqs(self) -> SQSClient:
        """SQS."""
        return self._client("sqs")  # type: ignore[no-any-return]

    @property
    def kms(self) -> KMSClient:
        """KMS."""
        return self._client("kms")  # type: ignore[no-any-return]

    @property
    def sts(self) -> STSClient:
        """STS, as whoever the other clients are."""
        return self._client("sts")  # type: ignore[no-any-return]

    @property
    def iam(self) -> IAMClient:
        """IAM."""
        return self._client("iam")  # type: ignore[no-any-return]

    def renew(self) -> None:
        """Look for credentials anew, as after someone has signed in again; clients in use finish with the old."""
        with self._lock:
            if self._session is not None and time.monotonic() - self._renewed < RENEWAL_S:
                return  # by another thread, for the same reason
            self._session, self._renewed = _session(self.settings, self.name), time.monotonic()
            self._old += self._made.values()
            self._made.clear()
            done, self._old = self._old[:-KEPT], self._old[-KEPT:]
        for client in done:
            client.close()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            made = [*self._made.values(), *self._old]
            self._made.clear()
            self._old.clear()
        for client in made:
            client.close()

    def _client(self, service: str) -> Any:
        with self._lock:
            if service not in self._made:
                if self._session is None:
                    self._session = _session(self.settings, self.name)
                try:
                    make: Any = self._session.create_client
                    made = make(service, **_where(self.settings))
                except (BotoCoreError, ValueError) as error:
                    if isinstance(error, BotoCoreError):
                        raise translated(error, service, service.upper(), opening=True) from None
                    raise Misuse("AWS's client does not take the endpoint of federation.yaml; correct it") from None
                self._made[service] = made
            return self._made[service]


def _config(settings: AwsSettings) -> Config:
    return Config(
        region_name=settings.region,
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},  # full jitter, and a quota for repeats
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        user_agent_extra="privfl",
        s3={"addressing_style": "path" if settings.endpoint else "auto"},
        request_checksum_calculation="when_required",  # given by privfl, of SHA-256
        response_checksum_validation="when_required",  # whoever asked checks the whole
        parameter_validation=True,
    )


def _where(settings: AwsSettings) -> dict[str, Any]:
    """What every client is made with."""
    return {"region_name": settings.region, "endpoint_url": settings.endpoint, "config": _config(settings)}


@cache
def _loader() -> Loader:
    """Reads the services' descriptions, once per process: that is nine tenths of what making a client costs."""
    return create_loader()


def _session(settings: AwsSettings, name: str) -> botocore.session.Session:
    """A session of botocore's own chain, with the role in front if there is one."""
    base = botocore.session.Session(profile=settings.profile)
    base.register_component("data_loader", _loader())
    if settings.profile is not None and settings.profile not in base.available_profiles:
        raise Misuse(f"there is no AWS profile {settings.profile!r} here; check profile in federation.yaml")
    if settings.role is None:
        return base
    session = botocore.session.Session()
    session.register_component("data_loader", _loader())
    session.get_component("credential_provider").insert_before("env", _Role(base, settings, name))
    return session


class _Role(CredentialProvider):
    """Credentials of a role that is assumed when they are first needed, and again before they expire."""

    METHOD = "privfl-assume-role"
    CANONICAL_NAME = None

    def __init__(self, base: botocore.session.Session, settings: AwsSettings, name: str) -> None:
        super().__init__()
        self._base, self._settings = base, settings
        self._asked = asked(settings, name)

    def load(self) -> DeferredRefreshableCredentials:
        """See botocore."""
        return DeferredRefreshableCredentials(self._refresh, self.METHOD)

    def _refresh(self) -> dict[str, str]:
        client: Any = self._base.create_client("sts", **_where(self._settings))
        try:
            given = client.assume_role(**self._asked)["Credentials"]
        finally:
            client.close()
        return {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": given["Expiration"].isoformat(),
        }


def asked(settings: AwsSettings, name: str) -> dict[str, Any]:
    """What AssumeRole is asked: role, session's name, ExternalId, session tags; ``{name}`` is the member's name."""

    def named(text: str) -> str:
        return text.replace("{name}", name)

    found: dict[str, Any] = {
        "RoleArn": named(settings.role or ""),
        "RoleSessionName": "privfl-" + (re.sub(r"[^\w+=,.@-]", "-", name, flags=re.ASCII) or "member")[:50],
        "DurationSeconds": ROLE_S,
    }
    if settings.external_id is not None:
        found["ExternalId"] = named(settings.external_id)
    if settings.session_tags:
        found["Tags"] = [{"Key": key, "Value": named(text)} for key, text in sorted(settings.session_tags.items())]
    return found
