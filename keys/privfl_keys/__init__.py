"""Who is who, and what is sealed to whom: the public face of privfl's keys.

Identities and rosters by Ed25519, sealing by hybrid HPKE, one canonical encoding, one list of
labels, one error tree. ``keys/README.md`` has the threat model and the key ceremony.
"""

from __future__ import annotations

from privfl_keys.book import Equivocation, RosterBook
from privfl_keys.checked import Checked
from privfl_keys.derive import derive, extract_and_derive
from privfl_keys.encoding import Bounds, Bytes32, Bytes64, Record, Uint32, Uint64, Value, decode, encode
from privfl_keys.enrolment import EnrolmentRequest
from privfl_keys.entropy import SYSTEM, Entropy, SystemEntropy
from privfl_keys.errors import (
    KeyStoreError,
    Malformed,
    Misuse,
    PrivflError,
    Refused,
    Theirs,
    Unverified,
    WireError,
)
from privfl_keys.identity import Identity, Rotation, check_fingerprint, check_name, fingerprint
from privfl_keys.labels import VERSION, Label, content_digest, context, digest
from privfl_keys.member import ROLES, Member
from privfl_keys.quorum import (
    NO_SITE_COLLUDES,
    check_min_survivors,
    committee_risk,
    complete_threshold,
    default_committee_corrupt,
    default_corrupt_bound,
    default_min_survivors,
    equivocation_bound,
    voted_threshold,
)
from privfl_keys.roster import GENESIS, Roster, SignedRoster
from privfl_keys.sealing import SEAL_OVERHEAD, SEALING_KEY_BYTES, SealingKey, SealingPublicKey
from privfl_keys.secret import Redacted, Secret, SecretBytes
from privfl_keys.signing import SigningKey, VerifyKey
from privfl_keys.store import INSECURE_TEST_COST, FileKeyStore, KeyStore, ScryptCost

__all__ = [
    "GENESIS",
    "INSECURE_TEST_COST",
    "NO_SITE_COLLUDES",
    "ROLES",
    "SEALING_KEY_BYTES",
    "SEAL_OVERHEAD",
    "SYSTEM",
    "VERSION",
    "Bounds",
    "Bytes32",
    "Bytes64",
    "Checked",
    "EnrolmentRequest",
    "Entropy",
    "Equivocation",
    "FileKeyStore",
    "Identity",
    "KeyStore",
    "KeyStoreError",
    "Label",
    "Malformed",
    "Member",
    "Misuse",
    "PrivflError",
    "Record",
    "Redacted",
    "Refused",
    "Roster",
    "RosterBook",
    "Rotation",
    "ScryptCost",
    "SealingKey",
    "SealingPublicKey",
    "Secret",
    "SecretBytes",
    "SignedRoster",
    "SigningKey",
    "SystemEntropy",
    "Theirs",
    "Uint32",
    "Uint64",
    "Unverified",
    "Value",
    "VerifyKey",
    "WireError",
    "check_fingerprint",
    "check_min_survivors",
    "check_name",
    "committee_risk",
    "complete_threshold",
    "content_digest",
    "context",
    "decode",
    "default_committee_corrupt",
    "default_corrupt_bound",
    "default_min_survivors",
    "derive",
    "digest",
    "encode",
    "equivocation_bound",
    "extract_and_derive",
    "fingerprint",
    "voted_threshold",
]
