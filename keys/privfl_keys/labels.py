"""Every domain-separation label, and the one way to put a label in front of data.

A label is used for one purpose only. The KEM inside HPKE comes from drafts, so its code point is
part of the version: bytes sealed under another draft never open by accident.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum, unique

from privfl_keys.encoding import encode, pieces

__all__ = ["VERSION", "Label", "content_digest", "context", "digest"]

VERSION = "privfl/1 MLKEM768-X25519/647A HKDF-SHA256 ChaCha20Poly1305"
_AT_ONCE = 256  # pieces of an encoding that are hashed together


@unique
class Label(StrEnum):
    """What the bytes that follow are for."""

    # identities and rosters
    SITE_ID = "site id"
    FINGERPRINT = "fingerprint"
    ENROLMENT = "enrolment request"
    ROSTER = "roster"
    ROSTER_SIGNED = "roster, signed"
    ROTATION_OLD = "rotation, signed by the old key"
    ROTATION_NEW = "rotation, signed by the new key"
    KEY_STORE = "key store"
    PROBE = "sealing probe"
    # epoch
    ADVERT = "advert"
    CONTRIBUTION_SEAL = "contribution, sealed"
    CONTRIBUTION = "contribution, signed"
    CONTRIBUTION_HASH = "contribution hash"
    PAIR_KEY = "pair key"
    CONFIRM = "confirm"
    CONFIRMATION = "confirmations, signed"
    EPOCH_RECORD = "epoch record"
    RATCHET = "ratchet"
    GRAPH = "graph"
    # slot
    ANNOUNCEMENT = "announcement"
    H0 = "H0"
    SELF_SEED = "self"
    DEALING = "dealing"
    NOISE = "noise"
    PAIR_SEED = "pair"
    COMMIT = "commit"
    MASK = "mask"
    BODY = "body"
    BLOB = "blob"
    BLOB_HASH = "blob hash"
    UPLOAD_HASH = "upload hash"
    LEAF_KEY = "leaf key"
    HEADER = "header"
    HEADER_HASH = "header hash"
    SURVIVORS = "H(U)"
    VOTE = "vote"
    RELEASE_SEAL = "release, sealed"
    RELEASE = "release, signed"
    RELEASE_PART = "release part"
    SEED_HASH = "seed hash"
    SUM = "sum commitment"
    SUM_VALUES = "sum values"
    TRANSCRIPT = "transcript"
    ROTATION_SEED = "Hadamard seed"
    # policy and tasks
    POLICY = "policy"
    POLICY_SIGNED = "policy, signed"
    MANDATE = "mandate"
    TASK = "task"
    INPUTS = "inputs"
    QUESTION = "question"
    COHORT = "cohort"
    LEDGER = "ledger"
    LEDGER_ENTRY = "ledger entry, signed"
    REQUEST = "request"
    DECISION = "decision"
    DECISION_SIGNED = "decision, signed"
    STATE = "state"
    ENVELOPE = "envelope"
    # monitoring
    COLUMN = "column declaration"
    PROFILE = "reference profile"
    PROFILE_SIGNED = "reference profile, signed"


def context(label: Label, *parts: object) -> bytes:
    """Return the canonical tuple (label, protocol version, parts...) as bytes.

    Every hash, HPKE ``info``, HKDF ``info`` and signature input of privfl is one of these.
    """
    return encode((str(label), VERSION, *parts))


def digest(label: Label, *parts: object) -> bytes:
    """SHA-256 of :func:`context`; 32 bytes."""
    hasher, encoded = hashlib.sha256(), pieces((str(label), VERSION, *parts))
    for at in range(0, len(encoded), _AT_ONCE):  # a transcript of a thousand sites is never in memory twice
        hasher.update(b"".join(encoded[at : at + _AT_ONCE]))
    return hasher.digest()


def content_digest(label: Label, data: bytes | memoryview, *parts: object) -> bytes:
    """SHA-256 of context(label, parts..., length) followed by ``data``; 32 bytes, without copying ``data``."""
    state = hashlib.sha256(context(label, *parts, len(data)))
    state.update(data)
    return state.digest()
