"""Long-lived keys under a managed key service: a :class:`~privfl_keys.store.KeyStore` without a passphrase.

Envelope encryption. The entries lie in one local file, sealed by ChaCha20-Poly1305 under a data key; beside them lies
that data key, wrapped by the service. The service binds the wrapping to an *encryption context* (federation, member,
purpose), which its policies can demand and its log shows; the seal is bound to the same context here. So a stolen file
is of no use without the right to decrypt, and a right to decrypt for another member does not open this one.

Whoever may use the service's key for this context and also reads the file has the entries: keep the service's key in
the hands of whoever runs the member, not of whoever runs the federation.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Protocol, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from privfl_keys.encoding import Bounds, Bytes32, Record
from privfl_keys.entropy import SYSTEM, Entropy
from privfl_keys.errors import KeyStoreError, Malformed, Misuse
from privfl_keys.labels import Label, context
from privfl_keys.secret import SecretBytes
from privfl_keys.store import EntryFile
from privfl_keys.storefile import MAX_FILE_BYTES, check_folder, read_private

__all__ = ["AwsKms", "DataKey", "KmsClient", "KmsKeyStore", "is_kms_store"]

PURPOSE: Final = "privfl key store"
KEY_BYTES: Final = 32
_Text = Annotated[str, Bounds(1, 2048)]


@dataclass(frozen=True)
class DataKey:
    """A fresh data key. ``key``: 32 bytes. ``wrapped``: the same, encrypted by the service. ``key_id``: its key."""

    key: SecretBytes
    wrapped: bytes
    key_id: str


class KmsClient(Protocol):
    """What a store asks of a key service; the context has to be the same for both, or unwrapping fails."""

    def new_data_key(self, context: Mapping[str, str]) -> DataKey:
        """Draw a data key and wrap it; raises KeyStoreError in words."""
        ...

    def unwrap(self, wrapped: bytes, key_id: str, context: Mapping[str, str]) -> SecretBytes:
        """Decrypt a wrapped data key of the service's key ``key_id``; raises KeyStoreError in words."""
        ...


@dataclass(frozen=True)
class _KmsFile(Record):
    TAG: ClassVar[str] = "privfl key store under a key service 1"

    key_id: _Text
    bound: Annotated[tuple[tuple[_Text, _Text], ...], Bounds(1, 16)]  # the encryption context, sorted
    wrapped: Annotated[bytes, Bounds(1, 6144)]
    nonce: Annotated[bytes, Bounds(12, 12)]
    ciphertext: Annotated[bytes, Bounds(16, MAX_FILE_BYTES)]
    checksum: Bytes32

    @classmethod
    def seal(cls, data_key: DataKey, bound: tuple[tuple[str, str], ...], nonce: bytes, plain: bytes) -> Self:
        header = context(Label.KEY_STORE, cls.TAG, data_key.key_id, bound, data_key.wrapped, nonce)
        ciphertext = ChaCha20Poly1305(data_key.key.reveal()).encrypt(nonce, plain, header)
        checksum = sha256(header + ciphertext).digest()
        return cls(data_key.key_id, bound, data_key.wrapped, nonce, ciphertext, checksum)

    @property
    def header(self) -> bytes:
        return context(Label.KEY_STORE, self.TAG, self.key_id, self.bound, self.wrapped, self.nonce)

    def open(self, key: SecretBytes) -> bytes:
        return ChaCha20Poly1305(key.reveal()).decrypt(self.nonce, self.ciphertext, self.header)

    def is_whole(self) -> bool:
        return sha256(self.header + self.ciphertext).digest() == self.checksum


class KmsKeyStore(EntryFile):
    """A :class:`~privfl_keys.store.KeyStore` in one file, mode 0600, opened by a key service.

    The data key is asked for once, when the store is opened, and is in memory only, until :meth:`close`.
    """

    __slots__ = ("_bound", "_client", "_data_key")

    def __init__(self, path: Path, client: KmsClient, bound: Mapping[str, str], key: DataKey, entropy: Entropy) -> None:
        """Internal; use :meth:`create` or :meth:`open`."""
        super().__init__(path, entropy)
        self._client, self._bound, self._data_key = client, dict(bound), key

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        client: KmsClient,
        *,
        federation: str,
        member: str,
        entropy: Entropy = SYSTEM,
    ) -> KmsKeyStore:
        """Make an empty store in a new file. An existing file is never overwritten.

        Raises:
            KeyStoreError: the file exists, its folder cannot be written, or the service gives no data key.
        """
        target, bound = Path(path), _bound(federation, member)
        check_folder(target)
        if os.path.lexists(target):
            raise KeyStoreError(f"{target} exists and is not overwritten; open it, or choose another path")
        store = cls(target, client, bound, client.new_data_key(bound), entropy)
        store._make()
        return store

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        client: KmsClient,
        *,
        federation: str,
        member: str,
        entropy: Entropy = SYSTEM,
    ) -> KmsKeyStore:
        """Open an existing store.

        Raises:
            KeyStoreError: no such file, others may read it, damaged, of another member, or the service refuses; the
                message says which and what to do.
        """
        target, bound = Path(path), _bound(federation, member)
        file = _read(target)
        if (whose := dict(file.bound)) != bound:
            raise KeyStoreError(
                f"{target} is the key store of {whose.get('member')!a:.80} in {whose.get('federation')!a:.80}, not of "
                f"{member!a} in {federation!a}; put the right file back"
            )
        key = DataKey(client.unwrap(file.wrapped, file.key_id, bound), file.wrapped, file.key_id)
        store = cls(target, client, bound, key, entropy)
        store._opened(file)
        return store

    @property
    def key_id(self) -> str:
        """The service's key that wraps the data key, as the service names it."""
        return self._data_key.key_id

    def rewrap(self) -> str:
        """Seal everything under a new data key, wrapped by the key that the client names now; returns its id.

        The entries stay the same: if the old data key may have leaked, so may they, and the member has to rotate.
        """
        with self._locked():
            entries, old = self._entries(), self._data_key
            self._data_key = self._client.new_data_key(self._bound)
            try:
                self._replace(entries)
            except BaseException:
                self._data_key = old  # the file is still sealed under it
                raise
            old.key.wipe()
        return self.key_id

    def close(self) -> None:
        """Wipe the data key; the store has to be opened again before it is used."""
        self._data_key.key.wipe()

    def _plain(self) -> bytes:
        file = _read(self._path)
        if file.wrapped != self._data_key.wrapped:
            raise KeyStoreError(f"{self._path} was wrapped anew by another process; run the command again")
        return self._opened(file)

    def _opened(self, file: _KmsFile) -> bytes:
        try:
            return file.open(self._data_key.key)
        except InvalidTag:
            raise KeyStoreError(
                f"{self._path} does not open under its data key: someone altered it; restore it from its backup"
            ) from None

    def _sealed(self, plain: bytes) -> bytes:
        bound = tuple(sorted(self._bound.items()))
        return _KmsFile.seal(self._data_key, bound, self._entropy.draw(12), plain).encode()


class AwsKms:
    """AWS KMS as a :class:`KmsClient`; credentials by the standard chain, or of ``profile``. Needs boto3.

    Args:
        key: id, ARN or ``alias/…``, used to wrap; what was wrapped before opens by the key that its file names.
        region, endpoint, profile: None takes the AWS environment's.
    """

    def __init__(
        self, key: str, *, region: str | None = None, endpoint: str | None = None, profile: str | None = None
    ) -> None:
        self.key, self._region, self._endpoint, self._profile = key, region, endpoint, profile
        self._made: Any = None

    def new_data_key(self, context: Mapping[str, str]) -> DataKey:
        """Ask for a data key; raises KeyStoreError with what to do."""
        found = self._call("GenerateDataKey", self.key, context, KeySpec="AES_256")
        return DataKey(_drawn(found, self.key), found["CiphertextBlob"], found["KeyId"])

    def unwrap(self, wrapped: bytes, key_id: str, context: Mapping[str, str]) -> SecretBytes:
        """Decrypt a data key; raises KeyStoreError with what to do."""
        found = self._call("Decrypt", key_id, context, CiphertextBlob=wrapped)
        return _drawn(found, key_id)

    def __repr__(self) -> str:
        return f"AwsKms({self.key!r})"

    def _client(self) -> Any:
        if self._made is None:
            try:
                import boto3  # noqa: PLC0415 - an extra
                from botocore.config import Config  # noqa: PLC0415
            except ImportError:
                raise KeyStoreError('AWS KMS needs boto3; pip install "privfl[aws]"') from None
            config = Config(connect_timeout=10, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 4})
            session = boto3.session.Session(profile_name=self._profile, region_name=self._region)
            self._made = session.client("kms", endpoint_url=self._endpoint, config=config)
        return self._made

    def _call(self, action: str, key: str, context: Mapping[str, str], **given: Any) -> Any:
        from_name = {"GenerateDataKey": "generate_data_key", "Decrypt": "decrypt"}
        try:
            from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
        except ImportError:
            raise KeyStoreError('AWS KMS needs boto3; pip install "privfl[aws]"') from None
        try:
            call = getattr(self._client(), from_name[action])
            return call(KeyId=key, EncryptionContext=dict(context), **given)
        except ClientError as error:
            raise KeyStoreError(_said(action, key, context, error.response.get("Error", {}))) from None
        except (BotoCoreError, ValueError) as error:
            raise KeyStoreError(
                f"AWS KMS cannot be asked for {key} ({type(error).__name__}: {_bare(error)}); check region, "
                "endpoint, profile and credentials (aws sts get-caller-identity)"
            ) from None


def _drawn(found: Mapping[str, Any], key: str) -> SecretBytes:
    """The data key of an answer; whoever may encrypt by the service's key could have wrapped anything."""
    plain = found.get("Plaintext")
    if not isinstance(plain, bytes) or len(plain) != KEY_BYTES:
        raise KeyStoreError(
            f"what {key} unwraps is no data key of a key store: its file was altered; restore it from its backup"
        )
    return SecretBytes(plain)


def _bare(error: Exception) -> str:
    """An error's words, without what an address may hold before its host."""
    return re.sub(r"//[^/\s]*@", "//", str(error))[:200]


def _said(action: str, key: str, context: Mapping[str, str], error: Mapping[str, Any]) -> str:
    """What a refusal of KMS means, in words."""
    code, told = str(error.get("Code", "")), str(error.get("Message", ""))[:300]
    whole = f"kms:{action} on {key}"
    if code in ("DisabledException", "KMSInvalidStateException"):
        return f"the key {key} is disabled or about to be deleted ({code}); have its administrator enable it"
    if code in ("NotFoundException", "InvalidArnException", "InvalidKeyUsageException"):
        return f"AWS KMS knows no key {key} for this ({code}: {told}); check its name, the region and the account"
    if code in ("InvalidCiphertextException", "IncorrectKeyException"):
        return (
            f"AWS KMS does not unwrap this key store's data key ({code}): its file was altered, or it is another "
            "member's; restore it from its backup"
        )
    if code in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"):
        bound = ", ".join(f"{name}={value}" for name, value in sorted(context.items()))
        return f"{whole} is denied to these credentials; allow it for the encryption context {bound} ({told})"
    return f"{whole} failed ({code}: {told}); check credentials, clock and region, and run the command again"


def is_kms_store(path: Path) -> bool:
    """Whether ``path`` looks like a store under a key service; False if there is none, or it cannot be read."""
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        return _KmsFile.TAG.encode() in stream.read(128)
    return False


def _read(path: Path) -> _KmsFile:
    try:
        file = _KmsFile.decode(read_private(path))
    except Malformed as error:
        raise KeyStoreError(
            f"{path} is damaged or no key store of a key service ({error}); restore it from its backup"
        ) from None
    if not file.is_whole():
        raise KeyStoreError(f"{path} is damaged (its checksum does not fit); restore it from its backup")
    return file


def _bound(federation: str, member: str) -> dict[str, str]:
    if not federation or not member:
        raise Misuse("a key store is bound to a federation and a member; give both names")
    return {"federation": federation, "member": member, "purpose": PURPOSE}
