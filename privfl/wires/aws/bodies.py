"""Bodies in the bucket: written once, by parts where they are long, and read into one buffer of their size.

S3 is asked to refuse a second write of a key (``If-None-Match: *``) and bytes that are not what their name says
(``x-amz-checksum-sha256``). Both are manners, not trust: the bucket is its owner's, and a reader holds what it gets
against the hash in a signed envelope.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Any

from botocore.exceptions import IncompleteReadError

from privfl.errors import Misuse, WireError
from privfl.wires.aws.errors import Absent, Denied, Passing, Present, speaking
from privfl.wires.aws.names import body_key
from privfl.wires.aws.retry import persist
from privfl.wires.aws.session import Clients, account_of

__all__ = ["Bodies"]

log = logging.getLogger(__name__)
MIB = 2**20
PART = 16 * MIB  # of a long body, both ways
PIECE = MIB  # read from a socket at once
AT_ONCE = 6  # parts on their way
LONGEST_UNSIZED = 2**30  # nobody said how long it should be
LONGEST_COPY = 5 * 2**30  # S3's own bound of one copy
COPIED_ABOVE = 64 * 1024  # a shorter body is as quickly sent again
REMEMBERED = 4096  # names of bodies that were written or read
_RANGE = re.compile(r"bytes \d{1,15}-\d{1,15}/(\d{1,15})")


class Bodies:
    """What one member puts into the bucket, reads from it and lets go; threads may share it."""

    def __init__(self, clients: Clients, federation: str, own: bytes, closed: Event | None = None) -> None:
        self._clients, self._federation, self._own = clients, federation, own
        settings = clients.settings
        self._closed, self._lock = closed, Lock()
        self._keys: OrderedDict[bytes, list[str]] = OrderedDict()  # hash → keys, the first written by this member
        self._copies = True
        self._bucket: dict[str, Any] = {"Bucket": settings.bucket}
        if account := account_of(settings):
            self._bucket["ExpectedBucketOwner"] = account
        self._sealed: dict[str, Any] = {}
        if settings.kms_key:
            self._sealed = {
                "ServerSideEncryption": "aws:kms",
                "SSEKMSKeyId": settings.kms_key,
                "BucketKeyEnabled": True,
            }

    def put(self, sha256: bytes, data: bytes | memoryview, recipient: bytes | None) -> None:
        """Store a body for ``recipient``; if it is there already, nothing happens.

        Raises:
            Misuse: no recipient is named. WireError: it cannot be stored.
        """
        if recipient is None:
            raise Misuse("over SQS and S3 a body is for one member; say which (recipient)")
        key, view = body_key(self._federation, recipient, self._own, sha256), memoryview(data).cast("B")
        copied = len(view) > COPIED_ABOVE and self._copied(sha256, key, len(view))
        if not copied:
            with contextlib.suppress(Present):
                if len(view) > self._clients.settings.part_mib * MIB:
                    self._put_parts(key, view)
                else:
                    self._put_whole(key, sha256, data if isinstance(data, bytes) else bytes(view))
        self._remember(sha256, key)

    def get(self, sha256: bytes, size: int | None, sender: bytes | None) -> bytes:
        """Read what ``sender`` wrote for this member, in memory of its size once.

        Raises:
            WireError: it is not there, or has another size; then nothing of it was read.
        """
        if sender is not None:
            key = body_key(self._federation, self._own, sender, sha256)
        else:
            with self._lock:
                key = next(iter(self._keys.get(sha256, ())), "")
            if not key:
                raise WireError("over SQS and S3 a body is read from one member; say which (sender)")
        if size is None:
            size = self._size(key)
        found = self._filled(key, size)
        self._remember(sha256, key)
        return found

    def drop(self, sha256: bytes) -> None:
        """Delete what this member wrote or read by that name, as far as it remembers and may.

        Where it did both, what it read goes and what it wrote stays until it is dropped once more: or a site could put
        something else under the name of a body that all others are still to read, and have that deleted as false.
        """
        with self._lock:
            keys = self._keys.pop(sha256, [])
            read = [key for key in keys if key.split("/")[2] != self._own.hex()]
            if read and len(read) < len(keys):
                self._keys[sha256], keys = [key for key in keys if key not in read], read
        for key in keys:
            try:
                with speaking("s3", self._arn(key)):
                    self._clients.s3.delete_object(**self._bucket, Key=key)
            except (WireError, Misuse) as error:
                log.debug("a body stays until the bucket's own rule removes it: %s", error)

    # -- writing ------------------------------------------------------------------------------------

    def _put_whole(self, key: str, sha256: bytes, data: bytes) -> None:
        def put() -> None:
            self._clients.s3.put_object(
                **self._bucket, **self._sealed, Key=key, Body=data, IfNoneMatch="*", ChecksumSHA256=_text(sha256)
            )

        self._try(key, put)

    def _put_parts(self, key: str, view: memoryview) -> None:
        part = min(PART, self._clients.settings.part_mib * MIB)
        begun = self._try(
            key,
            lambda: self._clients.s3.create_multipart_upload(
                **self._bucket, **self._sealed, Key=key, ChecksumAlgorithm="SHA256"
            )["UploadId"],
        )

        def put(number: int) -> dict[str, Any]:
            data = bytes(view[(number - 1) * part : number * part])
            checksum = _text(hashlib.sha256(data).digest())
            etag = self._try(
                key,
                lambda: self._clients.s3.upload_part(
                    **self._bucket, Key=key, UploadId=begun, PartNumber=number, Body=data, ChecksumSHA256=checksum
                )["ETag"],
            )
            return {"PartNumber": number, "ETag": etag, "ChecksumSHA256": checksum}

        try:
            parts = _at_once(put, range(1, -(-len(view) // part) + 1))
            whole: Any = {"Parts": parts}
            self._try(
                key,
                lambda: self._clients.s3.complete_multipart_upload(
                    **self._bucket, Key=key, UploadId=begun, MultipartUpload=whole, IfNoneMatch="*"
                ),
            )
        except BaseException:
            with contextlib.suppress(WireError, Misuse), speaking("s3", self._arn(key)):
                self._clients.s3.abort_multipart_upload(**self._bucket, Key=key, UploadId=begun)
            raise

    def _copied(self, sha256: bytes, key: str, size: int) -> bool:
        """Whether S3 has copied a body that this member wrote for another: then its bytes need not travel again."""
        with self._lock:
            source = next(iter(self._keys.get(sha256, ())), None) if self._copies else None
        if source is None or source == key or size > LONGEST_COPY or source.split("/")[2] != self._own.hex():
            return False

        def copy() -> None:
            self._clients.s3.copy_object(
                **self._bucket,
                **self._sealed,
                Key=key,
                CopySource={"Bucket": self._bucket["Bucket"], "Key": source},
                IfNoneMatch="*",
                ChecksumAlgorithm="SHA256",
            )

        try:
            self._try(key, copy)
        except Present:
            return True
        except (Absent, Denied) as error:  # dropped meanwhile, or writers may not read here
            self._copies = not isinstance(error, Denied)
            return False
        return True

    # -- reading ------------------------------------------------------------------------------------

    def _size(self, key: str) -> int:
        size: int = self._try(key, lambda: int(self._clients.s3.head_object(**self._bucket, Key=key)["ContentLength"]))
        if not 0 <= size <= LONGEST_UNSIZED:
            raise WireError(f"a body on the wire has {size} bytes; nobody said that it is so long")
        return size

    def _filled(self, key: str, size: int) -> bytes:
        """The body's bytes; the buffer that they are read into becomes the result without being copied."""
        first = min(size, PART)
        whole, held = io.BytesIO(), {"etag": ""}

        def begin() -> None:
            answer = self._asked(key, 0, first, size, None)
            held["etag"] = answer["ETag"]
            with contextlib.closing(answer["Body"]) as body:
                if size:
                    whole.seek(size - 1)  # only now: a wrong body costs no memory
                    whole.write(b"\0")
                with whole.getbuffer() as room:
                    _read(body, room[:first])

        def further(start: int) -> None:
            stop = min(start + PART, size)

            def read() -> None:
                answer = self._asked(key, start, stop, size, held["etag"])
                with contextlib.closing(answer["Body"]) as body, whole.getbuffer() as room:
                    _read(body, room[start:stop])

            self._try(key, read)

        self._try(key, begin)
        try:
            _at_once(further, range(first, size, PART))
        except Present:
            raise WireError("a body was replaced while it was read; it is fetched again") from None
        return whole.getvalue()

    def _asked(self, key: str, start: int, stop: int, size: int, etag: str | None) -> Any:
        """Bytes ``start`` to ``stop`` of an object of ``size``, not read yet; raises WireError if it is another."""
        asked: dict[str, Any] = {} if (start, stop) == (0, size) else {"Range": f"bytes={start}-{stop - 1}"}
        if etag is not None:
            asked["IfMatch"] = etag
        answer = self._clients.s3.get_object(**self._bucket, Key=key, **asked)
        length, ranged = int(answer["ContentLength"]), _RANGE.fullmatch(answer.get("ContentRange", ""))
        whole = int(ranged[1]) if ranged else length
        if whole != size or length != stop - start:
            answer["Body"].close()  # unread
            raise WireError(f"a body on the wire has {whole} bytes and not {size}; ask its sender to repeat it")
        return answer

    # -- both ---------------------------------------------------------------------------------------

    def _try(self, key: str, action: Callable[[], Any]) -> Any:
        def attempt() -> Any:
            try:
                with speaking("s3", self._arn(key)):
                    return action()
            except Absent:
                raise Absent("a body is not on the wire (yet); ask its sender to repeat it") from None
            except Denied as error:
                if "s3:GetObject" not in str(error):
                    raise
                raise Denied(
                    f"a body is not on the wire (yet), or these credentials may not read it: {error}"
                ) from None  # whoever may not list a bucket is not told which

        return persist(attempt, self._clients, closed=self._closed)

    def _arn(self, key: str) -> str:
        return f"arn:aws:s3:::{self._bucket['Bucket']}/{key}"

    def _remember(self, sha256: bytes, key: str) -> None:
        with self._lock:
            known = self._keys.setdefault(sha256, [])
            if key not in known:
                known.append(key)
            self._keys.move_to_end(sha256)
            while len(self._keys) > REMEMBERED:
                self._keys.popitem(last=False)


def _text(sha256: bytes) -> str:
    return base64.b64encode(sha256).decode()


def _read(body: Any, room: memoryview) -> None:
    """Fill ``room`` from a body; raises Passing if it ends before."""
    at = 0
    while at < len(room):
        try:
            count = body.readinto(room[at : at + PIECE])
        except IncompleteReadError:
            count = 0
        if not count:
            raise Passing("a body on the wire ends before its time; fetched again")
        at += count


def _at_once(work: Callable[[int], Any], parts: range) -> list[Any]:
    """Do ``work`` for all parts, a few at once; the first failure ends it."""
    if len(parts) == 0:
        return []
    with ThreadPoolExecutor(min(AT_ONCE, len(parts)), "privfl-body") as pool:
        try:
            return list(pool.map(work, parts))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
