"""One coordinator at a time: an object in the bucket says which, for as long as it renews it.

It is written by S3's conditions alone (``If-None-Match: *``, ``If-Match``), so that of two that start together one
wins. It guards against a second machine started by mistake; two processes in one folder exclude each other there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from privfl.errors import Misuse, WireError
from privfl.wires.aws.errors import Absent, Denied, Present, speaking
from privfl.wires.aws.names import lease_key
from privfl.wires.aws.retry import persist
from privfl.wires.aws.session import Clients, account_of

__all__ = ["Lease"]

log = logging.getLogger(__name__)
LONGEST = 4096
LOOK_S = 0.5
SHORTEST_S = 15.0  # a busy computer or bucket may well take seconds to renew
LONGEST_S = 60.0  # a computer that died is waited for so long, however long messages stay invisible


class Lease:
    """The right to be ``federation``'s coordinator, held from :meth:`take` to :meth:`release`.

    It lasts ``visibility`` seconds (15 to 60) beyond the last renewal, which comes three times as often. Whoever
    could not renew it for so long stops by itself until it can, since another one may have taken it meanwhile.
    """

    def __init__(self, clients: Clients, federation: str, home: Path) -> None:
        self._clients, self._key = clients, lease_key(federation)
        self._lasts = min(max(float(clients.settings.visibility), SHORTEST_S), LONGEST_S)
        self._renewed = _running()
        self._bucket: dict[str, Any] = {"Bucket": clients.settings.bucket}
        if account := account_of(clients.settings):
            self._bucket["ExpectedBucketOwner"] = account
        self._holder = holder(home)
        self._etag = ""
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost: Misuse | None = None

    def take(self) -> None:
        """Become the coordinator at work.

        A lease that is not renewed is waited for until it has run out: its holder was killed.

        Raises:
            Misuse: another one is at work.
        """
        seen, since, unread = "", _running(), 0
        while not self._put({"IfNoneMatch": "*"}):
            found = self._read()
            if found is None:
                unread += 1
                if unread * LOOK_S > self._lasts:
                    raise Misuse(f"AWS lets {self._arn} neither be written nor read; compare the policy of these "
                                 "credentials with the one that privfl wire aws init wrote")  # fmt: skip
                self._ended.wait(LOOK_S)
                continue
            etag, whose = found
            if etag != seen:
                if seen and whose.get("holder") != self._holder:
                    raise self._taken(whose)
                if whose.get("holder") != self._holder:
                    log.info("another coordinator was at work; waiting %.0f s whether it still is", self._lasts)
                seen, since = etag, _running()
            if (whose.get("holder") == self._holder or _running() - since > self._lasts) and self._put(
                {"IfMatch": etag}
            ):
                break
            if self._ended.wait(LOOK_S):
                raise WireError("the mailbox was closed")
        self._thread = threading.Thread(target=self._renew, name="privfl-lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let another one be the coordinator."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(2.0)
        if self._etag and self.lost is None:
            with contextlib.suppress(WireError, Misuse), speaking("s3", self._arn):
                found = self._read()
                if found is not None and found[0] == self._etag:
                    self._clients.s3.delete_object(**self._bucket, Key=self._key)

    def check(self) -> None:
        """Raise Misuse if another coordinator has taken over, WireError while it may have."""
        if self.lost is not None:
            raise Misuse(str(self.lost))
        if self._thread is not None and (late := _running() - self._renewed) > self._lasts:
            raise WireError(
                f"the right to coordinate could not be renewed for {late:.0f} seconds, so another coordinator may "
                "have it; tried again"
            )

    def _renew(self) -> None:
        while not self._ended.wait(self._lasts / 3):
            try:
                if not self._still():
                    return
            except (WireError, Misuse) as error:
                log.warning("the coordinator's lease is not renewed: %s", error)
            except Exception as error:  # whatever S3 may answer, this thread goes on
                log.warning("the coordinator's lease is not renewed (%s)", type(error).__name__)

    def _still(self) -> bool:
        """Renew; whether this is still the coordinator at work, as far as that can be seen."""
        if self._put({"IfMatch": self._etag}):
            return True
        if self._ended.is_set() or self._put({"IfNoneMatch": "*"}):  # it vanished; unless it was just released
            return True
        found = self._read()
        if found is not None and found[1].get("holder") == self._holder:
            self._etag = found[0]  # written by a request that was thought lost, or from the same folder
            self._put({"IfMatch": self._etag})
        elif found is not None:
            self.lost = self._taken(found[1])
            log.error("%s", self.lost)
            return False
        return True

    def _put(self, condition: dict[str, Any]) -> bool:
        """Write the lease under a condition; False if that does not hold."""
        said = {"holder": self._holder, "host": socket.gethostname()[:100], "count": uuid.uuid4().hex}

        def put() -> bool:
            asked = _running()  # it may have been written at once
            try:
                with speaking("s3", self._arn, opening=self._thread is None):
                    etag = self._clients.s3.put_object(
                        **self._bucket, Key=self._key, Body=json.dumps(said).encode(), **condition
                    )["ETag"]
            except (Present, Absent):
                return False
            except Denied:
                if "IfMatch" in condition and self._thread is not None:
                    return False  # it may be gone
                raise
            self._etag, self._renewed = etag, asked
            return True

        return persist(put, self._clients, closed=self._ended)

    def _read(self) -> tuple[str, dict[str, Any]] | None:
        def read() -> tuple[str, dict[str, Any]] | None:
            try:
                with speaking("s3", self._arn, opening=self._thread is None):
                    answer = self._clients.s3.get_object(**self._bucket, Key=self._key)
                    with contextlib.closing(answer["Body"]) as body:
                        etag, data = answer["ETag"], body.read(LONGEST)
            except Absent:
                return None
            except (Denied, Misuse) as error:  # whoever may not list a bucket is told that of what is not there
                if "s3:GetObject" in str(error):
                    return None
                raise
            try:
                found = json.loads(data)
            except (ValueError, RecursionError):
                found = None
            return etag, found if isinstance(found, dict) else {}

        return persist(read, self._clients, closed=self._ended)

    def _taken(self, whose: dict[str, Any]) -> Misuse:
        host = ascii(str(whose.get("host", "?"))[:100])
        return Misuse(
            f"another coordinator of this federation is at work, on {host}; stop it first. If it was killed, "
            f"start again in {self._lasts:.0f} seconds"
        )

    @property
    def _arn(self) -> str:
        return f"arn:aws:s3:::{self._bucket['Bucket']}/{self._key}"


def _running() -> float:
    """Seconds on a clock that nobody sets, and that goes on while the computer sleeps where there is one such."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def holder(home: Path) -> str:
    """What tells this folder on this machine from a copy of it elsewhere; nothing can be read from it."""
    parts = [str(home.resolve()), socket.gethostname(), f"{uuid.getnode():x}"]
    with contextlib.suppress(OSError):
        found = os.stat(home)
        parts += [str(found.st_ino), str(found.st_dev)]
    with contextlib.suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text(encoding="utf-8"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
