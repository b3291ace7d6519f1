"""Founding a role's folder, in an order that a crash at any instant leaves something to go on from.

First the key store with the identity, durable; then what is derived from it; the configuration last. A
folder without its configuration is an unfinished one, and the same command finishes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from privfl_keys import EnrolmentRequest, FileKeyStore, Identity, KeyStore, ScryptCost, SecretBytes, check_name
from privfl_keys.kms import KmsKeyStore, is_kms_store
from privfl_keys.store import EntryFile
from privfl_keys.storefile import STANDARD_COST

from privfl.entropy import Entropy
from privfl.errors import Misuse
from privfl.homes.config import Config, KmsConfig, role_of
from privfl.homes.files import private_folder, sweep, write_file
from privfl.homes.lock import Lock
from privfl.homes.state import DATABASE, State

__all__ = [
    "IDENTITY",
    "REQUEST",
    "STATE_KEY",
    "check_founder",
    "found",
    "found_state",
    "open_kms_store",
    "open_state",
    "open_store",
    "under_kms",
    "write_request",
]

KEYS: Final = "keys"
REQUEST: Final = "request"
IDENTITY, STATE_KEY = "identity", "state"
DEFAULT_COST = STANDARD_COST  # looked up at each call, so that tests need not wait for scrypt


def check_founder(folder: Path, kind: type[Config], federation: str, name: str) -> Config | None:
    """What stands in the way of founding ``folder``, and its configuration if it was founded before.

    Raises:
        Misuse: an unusable name, or the folder belongs to another role, name or federation.
    """
    check_name(federation), check_name(name)
    there = role_of(folder)
    if there is None:
        return None
    if there is not kind:
        raise Misuse(f"{folder} has {there.FILE}: it is another role's folder; choose a new one for {kind.INIT}")
    config = kind.read(folder)
    if (config.federation, config.name) != (federation, name):
        raise Misuse(
            f"{folder} is the folder of {config.name!a} in {config.federation!a} already; choose a new folder for "
            f"{name!a} in {federation!a}"
        )
    return config


def under_kms(folder: Path) -> bool:
    """Whether a key service opens the folder's keys, so that there is no passphrase to ask for."""
    return is_kms_store(folder / KEYS)


@contextmanager
def found(
    folder: Path,
    name: str,
    passphrase: str,
    *,
    finished: bool,
    entropy: Entropy,
    cost: ScryptCost | None = None,
    kms: KmsConfig | None = None,
    federation: str = "",
) -> Iterator[tuple[EntryFile, Identity]]:
    """Make ``folder`` and its identity, or go on with those there; the folder is locked meanwhile.

    Args:
        finished: the folder was founded before, so its key must be there and no new one is made.
        kms: what keeps the keys instead of the passphrase; then ``federation`` is needed, which they are bound to.

    Yields:
        The open key store, and the identity, which is durable.

    Raises:
        Misuse: others may read the folder, another process works in it, or it holds an identity of another name.
        KeyStoreError: wrong passphrase, or one too short. StorageError: the disk does not take it.
    """
    if finished:
        _check_keys(folder)
    private_folder(folder)
    with Lock(folder):
        sweep(folder)
        if kms is not None or under_kms(folder):
            store: EntryFile = _kms_store(folder, kms, federation, name, entropy)
        else:
            store = _store(folder, passphrase, entropy, cost)
        if IDENTITY not in store.names():
            store.put(IDENTITY, Identity.generate(name, entropy).secret_bytes())
    try:
        identity = _identity(store)
        if identity.name != name:
            raise Misuse(f"{folder} holds the key of {identity.name!a}; use that name, or choose a new folder")
        yield store, identity
    finally:
        store.close()


@contextmanager
def open_store(folder: Path, passphrase: str) -> Iterator[tuple[EntryFile, Identity]]:
    """The key store of a founded folder and its identity; raises KeyStoreError for a wrong passphrase.

    Where a key service keeps the keys the passphrase is not looked at.
    """
    _check_keys(folder)
    kept = under_kms(folder)
    store: EntryFile = open_kms_store(folder) if kept else FileKeyStore.open(folder / KEYS, passphrase)
    try:
        yield store, _identity(store)
    finally:
        store.close()


def found_state(folder: Path, store: KeyStore, identity: Identity, *, finished: bool, entropy: Entropy) -> None:
    """Make the folder's sealed state unless it is there.

    Raises:
        Misuse: the folder was ``finished`` once and its state is gone.
    """
    if STATE_KEY not in store.names():
        if finished:
            raise Misuse(f"{folder / KEYS} has no state key; restore the file as it was")
        store.put(STATE_KEY, entropy.draw(32))
    if finished and not (folder / DATABASE).exists():
        raise Misuse(_lost(folder))
    with store.get(STATE_KEY) as key:
        make = State.open if (folder / DATABASE).exists() else State.create
        make(folder, key, identity.site_id, entropy=entropy).close()


def open_state(folder: Path, store: KeyStore, identity: Identity) -> State:
    """Open the sealed state of a founded folder, and with it the folder's lock.

    Raises:
        Misuse: the state is missing, or another process works in the folder (its pid is named).
        Unverified: files of another folder.
    """
    if not (folder / DATABASE).exists():
        raise Misuse(_lost(folder))
    with store.get(STATE_KEY) as key:
        state = State.open(folder, SecretBytes(key.reveal()), identity.site_id)
    sweep(folder)
    return state


def write_request(
    folder: Path,
    identity: Identity,
    federation: str,
    role: str,
    now: int,
    sealing_key: bytes | None = None,
) -> EnrolmentRequest:
    """Write the request to be listed; it holds nothing secret and may travel by any channel."""
    request = EnrolmentRequest.create(identity, federation, now, (role,), sealing_key)
    write_file(folder / REQUEST, request.encode(), mode=0o644)
    return request


def open_kms_store(folder: Path) -> KmsKeyStore:
    """The key store of a founded folder that a key service opens.

    Raises:
        Misuse: the folder's keys are under a passphrase, or its configuration does not name the service's key.
        KeyStoreError: the service refuses, or the file is not this member's.
    """
    kind = role_of(folder)
    config = None if kind is None else kind.read(folder)
    if not under_kms(folder):
        raise Misuse(f"the keys in {folder} are under a passphrase, not under a key service")
    if config is None or config.kms is None:
        where = folder / kind.FILE if kind else folder
        raise Misuse(f"the keys in {folder} are under a key service that {where} does not name; restore that file")
    client = config.kms.client()
    return KmsKeyStore.open(folder / KEYS, client, federation=config.federation, member=config.name)


def _kms_store(folder: Path, kms: KmsConfig | None, federation: str, name: str, entropy: Entropy) -> KmsKeyStore:
    path = folder / KEYS
    if kms is None:
        raise Misuse(f"the keys in {folder} are under a key service; give --kms with its key again")
    if not path.exists():
        return KmsKeyStore.create(path, kms.client(), federation=federation, member=name, entropy=entropy)
    if not is_kms_store(path):
        raise Misuse(
            f"the keys in {folder} are under a passphrase, and stay so; leave out --kms, or choose a new folder"
        )
    return KmsKeyStore.open(path, kms.client(), federation=federation, member=name, entropy=entropy)


def _store(folder: Path, passphrase: str, entropy: Entropy, cost: ScryptCost | None) -> FileKeyStore:
    path = folder / KEYS
    if path.exists():
        return FileKeyStore.open(path, passphrase, entropy=entropy)
    return FileKeyStore.create(path, passphrase, entropy=entropy, cost=cost or DEFAULT_COST)


def _check_keys(folder: Path) -> None:
    if not (folder / KEYS).exists():
        raise Misuse(
            f"{folder / KEYS} is missing: nobody else has this key. Put the file back; if it is lost, have the "
            "authority revoke it, make a new folder and enrol under a new name"
        )


def _identity(store: KeyStore) -> Identity:
    with store.get(IDENTITY) as secret:
        return Identity.from_secret_bytes(secret.reveal())


def _lost(folder: Path) -> str:
    return (
        f"{folder / DATABASE} is missing: without it nothing says which rounds were answered. Put the folder back as "
        "it was; if it is lost, make a new folder and enrol under a new name"
    )
