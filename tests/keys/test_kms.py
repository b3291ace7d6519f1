"""The key store under a key service: bound to its member, private, whole after a crash, readable when refused."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from privfl_keys import Identity, KeyStore, KeyStoreError, Misuse, SecretBytes
from privfl_keys.kms import AwsKms, DataKey, KmsKeyStore, is_kms_store

from privfl.wires.aws.emulator import Emulator, emulator

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
REGION = "eu-central-1"
WHO = {"federation": "trial", "member": "north"}
FIELDS = ("key_id", "bound", "wrapped", "nonce", "ciphertext", "checksum")


class Vault:
    """A key service that fits in a test: it wraps by remembering, and checks the context as a real one does."""

    def __init__(self) -> None:
        self.kept = dict[bytes, tuple[bytes, dict[str, str]]]()
        self.key = "vault/1"
        self.asked = 0

    def new_data_key(self, context: Mapping[str, str]) -> DataKey:
        key, wrapped = os.urandom(32), os.urandom(40)
        self.kept[wrapped] = key, dict(context)
        return DataKey(SecretBytes(key), wrapped, self.key)

    def unwrap(self, wrapped: bytes, key_id: str, context: Mapping[str, str]) -> SecretBytes:
        self.asked += 1
        found = self.kept.get(wrapped)
        if found is None or found[1] != dict(context):
            raise KeyStoreError("the vault does not unwrap this")
        return SecretBytes(found[0])


@pytest.fixture
def vault() -> Vault:
    return Vault()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def store(path: Path, vault: Vault) -> KmsKeyStore:
    return KmsKeyStore.create(path, vault, **WHO)


def test_entries_survive_reopening(store: KmsKeyStore, path: Path, vault: Vault, entropy: Any) -> None:
    """What was put is there for the next process; the service is asked once to open, and not for each entry."""
    identity = Identity.generate("north", entropy)
    store.put("identity", identity.secret_bytes())
    store.put("empty", b"")
    again: KeyStore = KmsKeyStore.open(path, vault, **WHO)
    assert again.names() == ("empty", "identity")
    assert Identity.from_secret_bytes(again.get("identity").reveal()).site_id == identity.site_id
    again.delete("empty")
    assert store.names() == ("identity",)
    assert vault.asked == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert is_kms_store(path)


def test_nothing_is_overwritten_and_no_secret_is_shown(store: KmsKeyStore, path: Path, vault: Vault) -> None:
    """Neither the file nor an entry is replaced; no key is in the file, in a repr, or readable by others."""
    store.put("state", bytes(range(32)))
    with pytest.raises(KeyStoreError, match="not overwritten"):
        KmsKeyStore.create(path, vault, **WHO)
    with pytest.raises(KeyStoreError, match="never overwritten"):
        store.put("state", bytes(32))
    with pytest.raises(Misuse, match="no entry name"):
        store.put("../x", b"")
    assert bytes(range(32)) not in path.read_bytes()
    assert all(key not in path.read_bytes() for key, _ in vault.kept.values())
    assert "redacted" in repr(store)
    path.chmod(0o640)
    with pytest.raises(KeyStoreError, match="chmod 600"):
        store.names()


def test_bound_to_federation_and_member(store: KmsKeyStore, path: Path, vault: Vault) -> None:
    """Another member's or federation's name is refused before the service is asked."""
    for other in ({**WHO, "member": "south"}, {**WHO, "federation": "other"}):
        with pytest.raises(KeyStoreError, match="is the key store of 'north' in 'trial'"):
            KmsKeyStore.open(path, vault, **other)
    with pytest.raises(Misuse, match="bound to a federation"):
        KmsKeyStore.open(path, vault, federation="", member="north")
    assert vault.asked == 0


def test_a_changed_file_never_opens(store: KmsKeyStore, path: Path, vault: Vault) -> None:
    """Every byte counts: whichever is changed, even with the checksum made right again, the store does not open."""
    store.put("state", b"s" * 32)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(KeyStoreError):
            KmsKeyStore.open(path, vault, **WHO)
    from privfl_keys.kms import _KmsFile

    file = _KmsFile.decode(whole)
    forged = (
        {"key_id": "vault/2"},
        {"ciphertext": bytes([file.ciphertext[0] ^ 1]) + file.ciphertext[1:]},
        {"nonce": bytes(12)},
    )
    for change in forged:
        fields = {name: getattr(file, name) for name in FIELDS} | change
        bare = _KmsFile(**fields)
        path.write_bytes(
            _KmsFile(**fields | {"checksum": hashlib.sha256(bare.header + bare.ciphertext).digest()}).encode()
        )
        with pytest.raises(KeyStoreError, match="someone altered it"):
            KmsKeyStore.open(path, vault, **WHO)
    path.write_bytes(whole[:-5])
    with pytest.raises(KeyStoreError, match="damaged"):
        KmsKeyStore.open(path, vault, **WHO)


def test_another_members_store_under_the_own_name(path: Path, vault: Vault) -> None:
    """A file that claims the own name with another member's data key is refused by the service's own context."""
    theirs = KmsKeyStore.create(path.with_name("theirs"), vault, federation="trial", member="south")
    from privfl_keys.kms import _KmsFile

    file = _KmsFile.decode(path.with_name("theirs").read_bytes())
    fields = {name: getattr(file, name) for name in FIELDS}
    fields["bound"] = tuple(sorted({**dict(file.bound), "member": "north"}.items()))
    bare = _KmsFile(**fields)
    fields["checksum"] = hashlib.sha256(bare.header + bare.ciphertext).digest()
    path.write_bytes(_KmsFile(**fields).encode())
    path.chmod(0o600)
    with pytest.raises(KeyStoreError, match="does not unwrap"):
        KmsKeyStore.open(path, vault, **WHO)
    theirs.close()


def test_rewrap_takes_a_new_data_key(store: KmsKeyStore, path: Path, vault: Vault) -> None:
    """After it nothing of the old file opens it, the entries are the same, and an old handle says what happened."""
    store.put("state", b"s" * 32)
    old, wrapped = KmsKeyStore.open(path, vault, **WHO), set(vault.kept)
    vault.key = "vault/2"
    assert store.rewrap() == "vault/2"
    assert store.get("state").reveal() == b"s" * 32
    for gone in wrapped:
        del vault.kept[gone]
    assert KmsKeyStore.open(path, vault, **WHO).get("state").reveal() == b"s" * 32
    with pytest.raises(KeyStoreError, match="wrapped anew"):
        old.names()


def test_a_failed_rewrap_changes_nothing(
    store: KmsKeyStore, path: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes nothing, or a service that says no, leaves the store as it was and usable."""
    store.put("state", b"s" * 32)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(KeyStoreError, match="No space left"):
            store.rewrap()
    assert path.read_bytes() == before
    assert store.get("state").reveal() == b"s" * 32
    store.close()
    with pytest.raises(Misuse, match="wiped"):
        store.get("state")


@pytest.fixture(scope="module")
def cloud() -> Iterator[Emulator]:
    with emulator() as running, running.at_hand():
        yield running


@pytest.fixture
def key(cloud: Emulator) -> str:
    cloud.reset()
    client = boto3.client("kms", endpoint_url=cloud.endpoint, region_name=REGION)
    made: str = client.create_key()["KeyMetadata"]["KeyId"]
    client.create_alias(AliasName="alias/north", TargetKeyId=made)
    return made


def test_over_kms(cloud: Emulator, key: str, path: Path) -> None:
    """GenerateDataKey and Decrypt over HTTP: made, opened, wrapped anew after the alias moved to another key."""
    service = AwsKms("alias/north", region=REGION, endpoint=cloud.endpoint)
    store = KmsKeyStore.create(path, service, **WHO)
    store.put("state", b"s" * 32)
    assert key in store.key_id
    client = boto3.client("kms", endpoint_url=cloud.endpoint, region_name=REGION)
    second = client.create_key()["KeyMetadata"]["KeyId"]
    client.update_alias(AliasName="alias/north", TargetKeyId=second)
    opened = KmsKeyStore.open(path, AwsKms("alias/north", region=REGION, endpoint=cloud.endpoint), **WHO)
    assert opened.get("state").reveal() == b"s" * 32
    assert second in opened.rewrap()


def test_refusals_of_kms_are_readable(cloud: Emulator, key: str, path: Path) -> None:
    """No such key, wrong region, no endpoint: a KeyStoreError that names the key and what to check."""
    with pytest.raises(KeyStoreError, match="knows no key alias/south"):
        KmsKeyStore.create(path, AwsKms("alias/south", region=REGION, endpoint=cloud.endpoint), **WHO)
    service = AwsKms("alias/north", region=REGION, endpoint=cloud.endpoint)
    KmsKeyStore.create(path, service, **WHO)
    with pytest.raises(KeyStoreError, match=r"denied|knows no key"):
        KmsKeyStore.open(path, AwsKms("alias/north", region="us-east-1", endpoint=cloud.endpoint), **WHO)
    with pytest.raises(KeyStoreError, match="check region, endpoint"):
        KmsKeyStore.open(path, AwsKms("alias/north", region=REGION, profile="nobody"), **WHO)
    assert not path.with_name("other").exists()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("DisabledException", "is disabled or about to be deleted"),
        ("KMSInvalidStateException", "is disabled or about to be deleted"),
        ("AccessDeniedException", "denied to these credentials; allow it for the encryption context federation=trial"),
        ("InvalidCiphertextException", "its file was altered"),
        ("ExpiredTokenException", "check credentials, clock and region"),
    ],
)
def test_every_refusal_says_what_to_do(
    code: str, says: str, cloud: Emulator, key: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What KMS answers is told with key and context, and never with a secret."""
    from botocore.exceptions import ClientError
    from botocore.stub import Stubber

    service = AwsKms("alias/north", region=REGION, endpoint=cloud.endpoint)
    KmsKeyStore.create(path, service, **WHO)
    with Stubber(service._client()) as stub:
        stub.add_client_error("decrypt", code, "no")
        with pytest.raises(KeyStoreError, match=says) as caught:
            KmsKeyStore.open(path, service, **WHO)
    assert not isinstance(caught.value.__cause__, ClientError)
