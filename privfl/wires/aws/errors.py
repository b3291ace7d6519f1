"""What botocore raises, in privfl's words: who is to blame, which action on which resource, and what to do.

An error's class says whether trying again can help: :class:`Passing` is repeated, everything else is not.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
from collections.abc import Iterator
from typing import Any

import botocore.exceptions as aws
import urllib3.exceptions
from botocore.exceptions import BotoCoreError, ClientError

from privfl.errors import Misuse, PrivflError, WireError

__all__ = ["Absent", "Denied", "Expired", "Missing", "Passing", "Present", "permission", "speaking", "translated"]


class Passing(WireError):
    """Throttled, broken off, out of order on the other side: the same request may succeed soon."""


class Expired(WireError):
    """The credentials are of the past; new ones help."""


class Denied(WireError):
    """The credentials do not allow it."""


class Missing(WireError):
    """There is no such queue, bucket or key of encryption."""


class Absent(WireError):
    """There is no such object (yet)."""


class Present(WireError):
    """There is such an object already, or it is no longer the one that was expected."""


_THROTTLED = {
    "BandwidthLimitExceeded", "EC2ThrottledException", "KmsThrottled", "KMS.ThrottlingException", "OverLimit",
    "PriorRequestNotComplete", "ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestThrottled",
    "RequestThrottledException", "SlowDown", "ThrottledException", "Throttling", "ThrottlingException",
    "TooManyRequestsException", "TransactionInProgressException",
}  # fmt: skip
_BROKEN = {
    "ConditionalRequestConflict", "IncompleteBody", "InternalError", "InternalFailure", "InternalServerError",
    "BadDigest", "XAmzContentChecksumMismatch", "OperationAborted", "RequestTimeout", "RequestTimeoutException",
    "ServiceUnavailable", "ServiceUnavailableException", "IDPCommunicationError",
}  # fmt: skip
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_DENIED = {
    "403", "AccessDenied", "AccessDeniedException", "AccessDeniedFault", "AccountProblem", "AllAccessDisabled",
    "AuthorizationError", "Forbidden", "KMS.AccessDeniedException", "KmsAccessDenied", "UnauthorizedOperation",
}  # fmt: skip
_MISSING = {
    "AWS.SimpleQueueService.NonExistentQueue", "KMS.NotFoundException", "KmsNotFound", "NoSuchBucket",
    "NotFoundException", "QueueDoesNotExist", "KMS.DisabledException", "KmsDisabled", "KmsInvalidState",
}  # fmt: skip
_ABSENT = {"404", "NoSuchKey", "NotFound"}
_PRESENT = {"412", "PreconditionFailed"}
_CLOCK = {
    "InvalidSignatureException", "RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}  # fmt: skip
_KEYS = {
    "AuthFailure", "IncompleteSignature", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken",
    "MissingAuthenticationToken", "UnrecognizedClientException", "NotSignedUp",
}  # fmt: skip
#: Operations whose permission has another name.
_PERMISSIONS = {
    "HeadObject": "GetObject", "CopyObject": "PutObject", "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject", "CompleteMultipartUpload": "PutObject", "ListObjectsV2": "ListBucket",
    "HeadBucket": "ListBucket", "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
    "DeleteMessageBatch": "DeleteMessage", "SendMessageBatch": "SendMessage", "DeleteObjects": "DeleteObject",
    "ListObjectVersions": "ListBucketVersions", "ListMultipartUploads": "ListBucketMultipartUploads",
    "GetBucketEncryption": "GetEncryptionConfiguration", "PutBucketEncryption": "PutEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock", "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
}  # fmt: skip
SERIOUS_SKEW_S = 60
_RENEW = "sign in again ('aws sso login', 'aws configure') or renew what the profile or environment holds"


@contextlib.contextmanager
def speaking(service: str, resource: str, *, opening: bool = False) -> Iterator[None]:
    """Translate what botocore raises within.

    Args:
        service: ``s3``, ``sqs``, ``kms``, ``sts``, ``iam``: whose permission a denied action is.
        resource: ARN, URL or name of what is acted on, for the message.
        opening: what does not pass by itself is then the user's mistake, to be corrected before anything starts.

    Raises:
        Misuse: only if ``opening``.
        WireError: one of this module's.
    """
    try:
        yield
    except PrivflError:
        raise
    except (BotoCoreError, ClientError) as error:
        raise translated(error, service, resource, opening=opening) from None
    except _RUBBISH as error:  # fields that have to be there are not, a length is no number, TLS ends within a body
        raise Passing(
            f"what AWS answers about {resource} cannot be understood ({type(error).__name__}); tried again later"
        ) from None


_RUBBISH = (LookupError, TypeError, ValueError, AttributeError, RecursionError, OSError, urllib3.exceptions.HTTPError)


def permission(service: str, operation: str) -> str:
    """What a policy calls the right to an operation of botocore's."""
    return f"{service}:{_PERMISSIONS.get(operation, operation)}"


def translated(error: BotoCoreError | ClientError, service: str, resource: str, *, opening: bool) -> Misuse | WireError:
    """The error to raise for one of botocore's; see :func:`speaking`."""
    found = _answered(error, service, resource) if isinstance(error, ClientError) else _unanswered(error, resource)
    if opening and not isinstance(found, Passing | Absent | Present):
        return found if isinstance(found, Misuse) else Misuse(str(found))
    return WireError(str(found)) if isinstance(found, Misuse) else found


def _answered(error: ClientError, service: str, resource: str) -> Misuse | WireError:
    """Of an answer of AWS's that says no."""
    code = str(error.response.get("Error", {}).get("Code", ""))[:100]
    meta: Any = error.response.get("ResponseMetadata", {})
    status, operation = int(meta.get("HTTPStatusCode") or 0), error.operation_name
    assuming = operation.startswith("AssumeRole")
    asked = permission("sts" if assuming else service, operation)
    if assuming:
        resource = "the role that federation.yaml names"
    if code in _THROTTLED or status == 429 or (status == 503 and code in ("503", "")):
        return Passing(f"AWS throttles {asked} on {resource}; tried again later")
    if code in _EXPIRED:
        return Expired(f"the AWS credentials have expired ({asked} on {resource}); {_RENEW}")
    if code in _CLOCK:
        return _skewed(code, meta, asked, resource)
    if code in _KEYS or (assuming and code not in _DENIED | _BROKEN and status < 500):
        return Misuse(
            f"AWS does not take these credentials ({code}, {asked} on {resource}); check profile, role and keys"
        )
    if code in _DENIED:
        return _denied(asked, resource)
    if code in _MISSING:
        return Missing(f"{resource} does not exist in this account and region ({asked}); check federation.yaml, or "
                       "make it: privfl wire aws init")  # fmt: skip
    if code in _ABSENT:
        return Absent(f"{resource} is not there")
    if code in _PRESENT:
        return Present(f"{resource} is there already, or was changed")
    if code in _BROKEN or status >= 500:
        return Passing(f"AWS cannot serve {asked} on {resource} now ({code or status}); tried again later")
    if code in ("301", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        return Misuse(f"{resource} lies in another region than the one named; correct region in federation.yaml")
    return WireError(f"AWS refuses {asked} on {resource} ({code or status})")


def _denied(asked: str, resource: str) -> WireError:
    if asked.startswith("sts:AssumeRole"):
        return Denied(f"AWS denies {asked} on {resource}: the role's trust policy must name you and the ExternalId of "
                      "federation.yaml, and your own policy must allow it")  # fmt: skip
    return Denied(f"AWS denies {asked} on {resource}: the policy of these credentials must allow it; compare it with "
                  "the one that privfl wire aws init wrote, and with the key's policy")  # fmt: skip


def _skewed(code: str, meta: Any, asked: str, resource: str) -> WireError | Misuse:
    """A clock that is off breaks every signature; so does a wrong secret key."""
    date = (meta.get("HTTPHeaders") or {}).get("date", "")
    try:
        there = email.utils.parsedate_to_datetime(str(date)[:100])
        off = (datetime.datetime.now(datetime.UTC) - there).total_seconds()
    except (TypeError, ValueError):
        off = 0.0
    if code in ("SignatureDoesNotMatch", "InvalidSignatureException") and date and abs(off) < SERIOUS_SKEW_S:
        return Misuse(f"AWS does not take the signature of {asked} on {resource}; check the secret access key")
    way = f" by {abs(off):.0f} seconds ({'ahead' if off > 0 else 'behind'})" if abs(off) >= SERIOUS_SKEW_S else ""
    return Misuse(f"AWS does not take signatures of this computer ({code}): its clock is off{way}; set the clock (NTP)")


def _unanswered(error: BotoCoreError | ClientError, resource: str) -> Misuse | WireError:
    """Of what failed before AWS answered."""
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return Misuse("there are no AWS credentials here; give a profile in federation.yaml, or " + _RENEW)
    if isinstance(error, aws.ProfileNotFound):
        return Misuse(f"{str(error)[:200]}; check profile in federation.yaml against ~/.aws/config")
    if isinstance(error, aws.SSOError | aws.TokenRetrievalError):
        return Expired(f"the AWS sign-in is over; {_RENEW}")
    if isinstance(error, aws.CredentialRetrievalError):
        return Passing(f"AWS credentials cannot be had now; if that stays, {_RENEW}")
    if isinstance(error, aws.SSLError):
        return Misuse(f"the certificate of the endpoint for {resource} does not verify ({_reason(error)}); check "
                      "endpoint in federation.yaml, and AWS_CA_BUNDLE for a private one")  # fmt: skip
    if isinstance(error, aws.HTTPClientError | aws.ConnectionError | aws.ResponseStreamingError):
        where = "; check endpoint and region in federation.yaml, and the network"
        kept = isinstance(error, aws.EndpointConnectionError | aws.ConnectTimeoutError | aws.ProxyConnectionError)
        what = "cannot be reached" if kept else "broke off"
        return Passing(f"the endpoint for {resource} {what}{where if kept else ''}; tried again later")
    if isinstance(error, aws.ParamValidationError | aws.NoRegionError | aws.InvalidRegionError):
        return Misuse(f"AWS's client does not take what federation.yaml says ({str(error)[:200]}); correct it")
    return Passing(f"AWS's client failed on {resource} ({type(error).__name__}); tried again later")


def _reason(error: BotoCoreError) -> str:
    text = str(error.kwargs.get("error", error)).lower()
    if "hostname" in text or "doesn't match" in text or "not valid for" in text:
        return "it is for another host"
    if "expired" in text:
        return "it has expired"
    return "it is not signed by anybody known here" if "verify failed" in text else "TLS failed"
