"""Write secagg_messages.json and secagg_messages_bad.json: every message and derivation of the protocol.

Run from the repository root: ``python tests/vectors/make_secagg_messages.py``.

Provenance: nothing of privfl is imported. The encoding, the labelled tuples, HKDF (RFC 5869, by hmac),
packing and ring arithmetic are written out here from ``docs/protocol.md`` in plain Python integers;
Ed25519, ML-KEM-768 key generation and AES on single blocks come from pyca/cryptography, from fixed
seeds. Sealed fields hold arbitrary bytes: sealing is randomised and has vectors of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

HERE = Path(__file__).parent
VERSION = "privfl/1 MLKEM768-X25519/647A HKDF-SHA256 ChaCha20Poly1305"
FEDERATION, EPOCH = "known answers", 3
Fields = dict[str, Any]


def name(text: str, size: int = 32) -> bytes:
    """Reproducible bytes that look like nothing."""
    return hashlib.shake_256(text.encode()).digest(size)


# --- the encoding, and what hangs on it ---------------------------------------------------------------


class Raw(bytes):
    """Bytes that stand for an encoding already; only bad vectors hold one."""


def encode(value: Any) -> bytes:
    """n t f; i j: a length byte and big-endian; b s: four length bytes; l: four count bytes."""
    if isinstance(value, Raw):
        return bytes(value)
    if value is None:
        return b"n"
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, int):
        tag, magnitude = ("i", value) if value >= 0 else ("j", -1 - value)
        digits = f"{magnitude:x}" if magnitude else ""
        body = bytes.fromhex(digits.zfill(len(digits) + len(digits) % 2))
        return tag.encode() + bytes([len(body)]) + body
    if isinstance(value, (bytes, str)):
        body = value if isinstance(value, bytes) else value.encode()
        return (b"b" if isinstance(value, bytes) else b"s") + len(body).to_bytes(4, "big") + body
    return b"l" + len(value).to_bytes(4, "big") + b"".join(map(encode, value))


def context(label: str, *parts: Any) -> bytes:
    """(label, version, parts...)."""
    return encode((label, VERSION, *parts))


def digest(label: str, *parts: Any) -> bytes:
    """SHA-256 of a context."""
    return hashlib.sha256(context(label, *parts)).digest()


def content_digest(label: str, data: bytes) -> bytes:
    """SHA-256 of a context that ends with the length of ``data``, and then ``data``."""
    return hashlib.sha256(context(label, len(data)) + data).digest()


def expand(key: bytes, label: str, *parts: Any) -> bytes:
    """HKDF-Expand for 32 bytes: one block."""
    return hmac.digest(key, context(label, *parts) + b"\x01", "sha256")


def extract_and_expand(ikm: bytes, label: str, *parts: Any) -> bytes:
    """HKDF with an empty salt, which is a block of zeros."""
    return expand(hmac.digest(bytes(32), ikm, "sha256"), label, *parts)


def words(key: bytes, word: int, count: int) -> list[int]:
    """The first words of a mask stream: AES-256 of the counters 0, 1, …, little-endian."""
    encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    size = count * word // 8
    stream = b"".join(encryptor.update(i.to_bytes(16, "big")) for i in range(size // 16 + 1))
    return [int.from_bytes(stream[i * word // 8 : (i + 1) * word // 8], "little") for i in range(count)]


def pack(values: list[int], bits: int) -> bytes:
    """Coordinate i in bits i·b to (i + 1)·b of a little-endian stream."""
    stream = sum((value % 2**bits) << i * bits for i, value in enumerate(values))
    return stream.to_bytes((len(values) * bits + 7) // 8, "little")


# --- who is there -------------------------------------------------------------------------------------


class Owner:
    """A signing key from a fixed seed."""

    def __init__(self, text: str) -> None:
        self.seed = name(f"signing {text}")
        self.key = Ed25519PrivateKey.from_private_bytes(self.seed)
        self.raw = self.key.public_key().public_bytes_raw()
        self.id = digest("site id", self.raw)

    def sign(self, label: str, *parts: Any) -> bytes:
        return self.key.sign(context(label, *parts))


def sealing_key(text: str) -> bytes:
    """An ML-KEM-768 and an X25519 public key, one after the other."""
    kem = MLKEM768PrivateKey.from_seed_bytes(name(f"kem {text}", 64)).public_key().public_bytes_raw()
    return kem + X25519PrivateKey.from_private_bytes(name(f"x {text}")).public_key().public_bytes_raw()


SITES = sorted((Owner(f"site {i}") for i in range(4)), key=lambda owner: owner.id)
COORDINATOR, AUTHORITY = Owner("coordinator"), Owner("authority")
IDS = [owner.id for owner in SITES]


def member(owner: Owner, title: str, role: str) -> tuple[Any, ...]:
    return ("member", title, owner.raw, (role,), None)


def roster() -> tuple[Any, ...]:
    """Four sites with c = 1, everyone on the committee, the complete graph; version 1."""
    owners = [(owner, f"site-{i}", "site") for i, owner in enumerate(SITES)]
    owners.append((COORDINATOR, "coordinator", "coordinator"))
    members = tuple(member(*each) for each in sorted(owners, key=lambda each: each[0].id))
    numbers = ((), 1, 1, name("graph seed"), 0, 2**50)
    return ("roster", FEDERATION, 1, members, *numbers, (), bytes(32), (), "", 0)


ROSTER_HASH = digest("roster", roster())
SCOPE = ("scope", FEDERATION, ROSTER_HASH, EPOCH)


# --- messages -----------------------------------------------------------------------------------------


def advert(at: int) -> tuple[Any, ...]:
    body = (SCOPE, IDS[at], sealing_key(str(at)))
    return ("advert", *body, SITES[at].sign("advert", digest("advert", *body)))


def advert_digest(at: int) -> bytes:
    return digest("advert", *advert(at)[1:-1])


def contribution(sender: int, to: int) -> tuple[Any, ...]:
    binding = (SCOPE, IDS[sender], IDS[to], advert_digest(sender), advert_digest(to))
    sealed = name(f"sealed {sender} {to}", 1168)
    return ("contribution", *binding, sealed, SITES[sender].sign("contribution, signed", *binding, sealed))


def fresh(sender: int, to: int) -> bytes:
    return name(f"fresh {sender} {to}")


def pair_key(one: int, two: int) -> bytes:
    """From both ends' fresh bytes, the lower id's first; bound to adverts and signed contributions."""
    low, high = sorted((one, two))
    sent = [content_digest("contribution hash", encode(contribution(*ends))) for ends in ((low, high), (high, low))]
    info = (SCOPE, IDS[low], IDS[high], advert_digest(low), advert_digest(high), *sent)
    return extract_and_expand(fresh(low, high) + fresh(high, low), "pair key", *info)


def ratcheted(key: bytes, steps: int) -> bytes:
    for _ in range(steps):
        key = expand(key, "ratchet")
    return key


def confirmations(at: int) -> tuple[Any, ...]:
    peers = [i for i in range(len(IDS)) if i != at]
    tags = b"".join(expand(pair_key(at, peer), "confirm", IDS[at]) for peer in peers)
    binding = (SCOPE, IDS[at], b"".join(IDS[peer] for peer in peers), tags)
    return ("confirmations", *binding, SITES[at].sign("confirmations, signed", *binding))


def record() -> tuple[Any, ...]:
    return ("epoch record", SCOPE, tuple(advert(i) for i in range(4)), b"".join(IDS), 1, 1, 3, 0)


RECORD_HASH = digest("epoch record", record())


def seen_head() -> tuple[Any, ...]:
    header, ledger = name("older header"), name("older ledger")
    return ("seen head", IDS[0], header, ledger, SITES[0].sign("header", header, ledger))


def vote(at: int, h0: bytes, attempt: int, choice: bytes, complaints: bytes = b"") -> tuple[Any, ...]:
    binding = (SCOPE, 7, attempt, h0, IDS[at], choice, complaints)
    return ("vote", *binding, SITES[at].sign("vote", *binding))


def announcement() -> tuple[Any, ...]:
    body = (
        *(SCOPE, RECORD_HASH, COORDINATOR.id, 7, 2, 19, name("nonce"), name("policy"), name("task"), name("inputs")),
        *(20, 32, 5, False, 3, 3, b"".join(IDS), 1_700_000_000_000, sealing_key("reply"), (seen_head(),)),
        tuple(vote(i, name("aborted"), 1, bytes(32)) for i in range(3)),
    )
    h0 = digest("H0", "announcement", *body)
    return ("announcement", *body, COORDINATOR.sign("announcement", h0))


H0 = digest("H0", *announcement()[:-1])


def self_seed(at: int) -> bytes:
    return expand(name(f"drawn {at}"), "self", H0, IDS[at])


def slot_key(one: int, two: int) -> bytes:
    """The pair key at sequence number 19."""
    return ratcheted(pair_key(one, two), 19)


def pair_seed(one: int, two: int) -> bytes:
    low, high = sorted((one, two))
    return expand(slot_key(one, two), "pair", H0, IDS[low], IDS[high])


def commitment(seed: bytes, low: bytes, high: bytes | None) -> bytes:
    return expand(seed, "commit", H0, low, "self" if high is None else high)


def mask_key(seed: bytes, low: bytes, high: bytes | None) -> bytes:
    return expand(seed, "mask", H0, low, "self" if high is None else high)


def masked(at: int, values: list[int], bits: int, word: int) -> bytes:
    """y = q + PRG(b) ± Σ PRG(s) mod 2^w, cut to b bits and packed."""
    total = [value % 2**word for value in values]
    streams = [(1, mask_key(self_seed(at), IDS[at], None))]
    for peer in range(len(IDS)):
        if peer != at:
            low, high = sorted((at, peer))
            streams.append((1 if at == low else -1, mask_key(pair_seed(at, peer), IDS[low], IDS[high])))
    for sign, key in streams:
        total = [(t + sign * m) % 2**word for t, m in zip(total, words(key, word, len(values)), strict=True)]
    return pack(total, bits)


def header(at: int) -> tuple[Any, ...]:
    peers = [i for i in range(len(IDS)) if i != at]
    body = masked(at, [0, 1, -1, 2**18, -(2**18)], 20, 32)
    commits = [commitment(self_seed(at), IDS[at], None)]
    for peer in peers:
        low, high = sorted((at, peer))
        commits.append(commitment(pair_seed(at, peer), IDS[low], IDS[high]))
    contents = (
        *(H0, IDS[at], hashlib.sha256(context("body", H0, IDS[at], len(body)) + body).digest()),
        *(b"".join(IDS[peer] for peer in peers), b"".join(commits)),
        b"".join(content_digest("blob hash", blob(at, to)) for to in range(4)),
        b"".join(name(f"root {at} {to}") for to in range(4)),
        *(name(f"previous {at}"), name(f"ledger {at}")),
    )
    hashed = digest("header hash", "header", *contents)
    return ("header", *contents, SITES[at].sign("header", hashed, name(f"ledger {at}")))


def blob(dealer: int, to: int) -> bytes:
    return name(f"blob {dealer} {to}", 1312)


def header_digest(at: int) -> bytes:
    return digest("header hash", *header(at)[:-1])


SURVIVORS = (0, 1, 3)
CHOICE = digest("H(U)", H0, *(part for i in SURVIVORS for part in (IDS[i], header_digest(i))))


def release(at: int) -> tuple[Any, ...]:
    binding = (H0, CHOICE, IDS[at], name(f"shares {at}"), name(f"proofs {at}"))
    sealed = (name(f"sealed shares {at}", 1200), name(f"sealed proofs {at}", 1150))
    return ("release", *binding, *sealed, SITES[at].sign("release, signed", *binding))


def stub(at: int) -> tuple[Any, ...]:
    whole = release(at)
    return ("release stub", IDS[at], whole[4], whole[5], whole[-1])


def opened_sum() -> tuple[Any, ...]:
    return ("opened sum", name("sum salt"), b"".join(v.to_bytes(8, "little", signed=True) for v in (1, -1, 2**40)))


def sum_commitment() -> bytes:
    return digest("sum commitment", H0, CHOICE, name("sum salt"), content_digest("sum values", opened_sum()[2]))


def transcript() -> tuple[Any, ...]:
    body = (
        ("signed roster", roster(), AUTHORITY.sign("roster, signed", ROSTER_HASH)),
        *(record(), tuple(confirmations(i) for i in range(4)), announcement()),
        *(tuple(header(i) for i in SURVIVORS), tuple(vote(i, H0, 2, CHOICE) for i in SURVIVORS)),
        *(tuple(stub(i) for i in SURVIVORS), name("seeds", 192), sum_commitment(), (), ()),
    )
    return ("transcript", *body, COORDINATOR.sign("transcript", digest("transcript", "transcript", *body)))


MESSAGES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "Scope": lambda: SCOPE,
    "Advert": lambda: advert(0),
    "Contribution": lambda: contribution(0, 1),
    "Confirmations": lambda: confirmations(0),
    "EpochRecord": record,
    "SeenHead": seen_head,
    "Vote": lambda: vote(1, H0, 2, CHOICE, IDS[3]),
    "Announcement": announcement,
    "Header": lambda: header(0),
    "Upload": lambda: ("upload", header(0), tuple(blob(0, to) for to in range(4))),
    "Ask": lambda: (
        *("ask", announcement(), tuple(header(i) for i in SURVIVORS), tuple(blob(i, 2) for i in SURVIVORS)),
        tuple(vote(i, H0, 2, CHOICE) for i in SURVIVORS),
    ),
    "Release": lambda: release(0),
    "ReleaseStub": lambda: stub(0),
    "OpenedSum": opened_sum,
    "Transcript": transcript,
}


# --- derivations ----------------------------------------------------------------------------------------


def derivations() -> Fields:
    b, s = self_seed(0), pair_seed(0, 1)
    low, high = IDS[0], IDS[1]
    key = digest("leaf key", H0, IDS[0], IDS[2], name("leaf salt"))
    share = [0, 1, 2**31 - 2, 3, 4, 5, 6, 7, 8]
    leaf = hashlib.sha256(b"\x00" + key + (5).to_bytes(4, "big") + b"".join(v.to_bytes(4, "little") for v in share))
    rings = [(12, 16), (20, 32), (32, 32), (64, 64)]
    values = {bits: [0, 1, -1, 2 ** (bits - 2), -(2 ** (bits - 2))] for bits, _ in rings}
    return {
        "record_hash": RECORD_HASH,
        "advert_digests": [advert_digest(i) for i in range(4)],
        "contribution_seal_info": context("contribution, sealed", *contribution(0, 1)[1:6]),
        "pair_key": {"low_fresh": fresh(0, 1), "high_fresh": fresh(1, 0), "key": pair_key(0, 1)},
        "confirm_tags": [expand(pair_key(0, 1), "confirm", low), expand(pair_key(0, 1), "confirm", high)],
        "ratchet": [ratcheted(pair_key(0, 1), steps) for steps in range(4)],
        "slot_keys": [slot_key(0, peer) for peer in (1, 2, 3)],
        "h0": H0,
        "self_seed": {"drawn": name("drawn 0"), "seed": b},
        "pair_seed": s,
        "commitments": {"self": commitment(b, low, None), "pair": commitment(s, low, high)},
        "mask_keys": {"self": mask_key(b, low, None), "pair": mask_key(s, low, high)},
        "mask_words": {str(word): words(mask_key(s, low, high), word, 5) for word in (16, 32, 64)},
        "masked": [
            {"bits": bits, "word": word, "values": values[bits], "body": masked(0, values[bits], bits, word)}
            for bits, word in rings
        ],
        "body_hash": {"body": b"\x01\x02", "hash": hashlib.sha256(context("body", H0, low, 2) + b"\x01\x02").digest()},
        "leaf": {"salt": name("leaf salt"), "key": key, "index": 5, "share": share, "leaf": leaf.digest()},
        "blob_info": context("blob", H0, IDS[0], IDS[2], 3, advert_digest(2)),
        "header_digests": [header_digest(i) for i in range(4)],
        "survivors": {"at": list(SURVIVORS), "hash": CHOICE},
        "release_seal_info": [context("release, sealed", H0, CHOICE, IDS[0], part) for part in ("shares", "proofs")],
        "sum_commitment": sum_commitment(),
        "graph_seed": digest("graph", name("graph seed"), EPOCH),
        "transcript_digest": digest("transcript", *transcript()[:-1]),
    }


# --- bad encodings --------------------------------------------------------------------------------------


def bad_records() -> Iterator[tuple[str, str, bytes]]:
    """Per message: cut, grown, mistagged; per field: another type, another length, another number."""
    for kind, make in MESSAGES.items():
        value = make()
        whole = encode(value)
        yield kind, "empty", b""
        yield kind, "cut by one byte", whole[:-1]
        yield kind, "cut in half", whole[: len(whole) // 2]
        yield kind, "one byte more", whole + b"\x00"
        yield kind, "encoded twice over", encode(whole)
        yield kind, "a field more", encode((*value, None))
        yield kind, "a field less", encode(value[:-1])
        yield kind, "another tag", encode(("x" + value[0], *value[1:]))
        yield kind, "tag as bytes", encode((value[0].encode(), *value[1:]))
        yield kind, "count one too large", b"l" + (len(value) + 1).to_bytes(4, "big") + whole[5:]
        yield kind, "count of four billion", b"l\xff\xff\xff\xff" + whole[5:]
        yield kind, "version byte in front", b"\x01" + whole
        for at, field in enumerate(value[1:], start=1):
            for what, other in bad_fields(kind, at, field):
                yield kind, f"field {at}: {what}", encode((*value[:at], other, *value[at + 1 :]))


FREE_LENGTH = {("Upload", 2), ("Ask", 3), ("Release", 6), ("Release", 7), ("OpenedSum", 2), ("Transcript", 8)}


def bad_fields(kind: str, at: int, field: Any) -> Iterator[tuple[str, Any]]:
    yield "nothing", None
    if isinstance(field, bool):
        yield "a number for a bool", 1
        yield "text for a bool", "t"
    elif isinstance(field, int):
        body = encode(field)[2:]
        yield "below zero", -1
        yield "a bool for a number", True
        yield "bytes for a number", body
        yield "2^64", 2**64
        yield "a leading zero", Raw(b"i" + bytes([len(body) + 1]) + b"\x00" + body)
        yield "65 bytes of number", Raw(b"i\x41" + b"\x01" * 65)
        yield "zero with a byte", Raw(b"i\x01\x00")
    elif isinstance(field, bytes):
        yield "text for bytes", Raw(b"s" + encode(field)[1:])
        yield "a number for bytes", 7
        yield "a list for bytes", tuple(field[:3])
        if (kind, at) not in FREE_LENGTH and len(field) in (32, 64, 1216) and fixed(kind, at):
            yield "a byte less", field[:-1]
            yield "a byte more", field + b"\x00"
            yield "no bytes", b""
    elif isinstance(field, str):
        yield "bytes for text", field.encode()
        yield "text that is not UTF-8", Raw(b"s\x00\x00\x00\x02\xc3\x28")
        yield "no text", ""
        yield "201 letters", "x" * 201
    else:
        yield "bytes for a list", b""
        yield "a list around it", (field,)
        if field and isinstance(field[0], (tuple, bytes)):
            yield "a list with a number in it", (7, *field)


def fixed(kind: str, at: int) -> bool:
    """Whether a field has one length only; lists of ids are a multiple of 32 that the machines check."""
    lists = {("Confirmations", 3), ("Confirmations", 4), ("EpochRecord", 3), ("Vote", 7), ("Announcement", 17)}
    lists |= {("Header", at) for at in (4, 5, 6, 7)}
    return (kind, at) not in lists and (kind, at) != ("Contribution", 6)


# --- files ----------------------------------------------------------------------------------------------


def lowered(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: lowered(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [lowered(item) for item in value]
    return value


def main() -> None:
    """Write the two files next to this one."""
    good = {
        "signing_seeds": [owner.seed for owner in SITES],
        "authority": AUTHORITY.raw,
        "ids": IDS,
        "coordinator": COORDINATOR.id,
        "messages": {kind: encode(make()) for kind, make in MESSAGES.items()},
        "parts": {
            "adverts": [encode(advert(i)) for i in range(4)],
            "contributions": {f"{i} {j}": encode(contribution(i, j)) for i, j in ((0, 1), (1, 0))},
            "headers": [encode(header(i)) for i in range(4)],
        },
        "derivations": derivations(),
    }
    # A bad encoding is kept as what it does to the good one: its first five bytes, then how many bytes stay
    # after them, what follows, and how many stay at the end.
    bad = []
    for kind, what, data in bad_records():
        whole, rest = encode(MESSAGES[kind]())[5:], data[5:]
        same = next((i for i, (x, y) in enumerate(zip(whole, rest)) if x != y), min(len(whole), len(rest)))  # noqa: B905
        tail = 0
        while tail < min(len(whole), len(rest)) - same and whole[-1 - tail] == rest[-1 - tail]:
            tail += 1
        bad.append([kind, what, data[:5], same, rest[same : len(rest) - tail], tail])
    for title, content in (("messages", good), ("messages_bad", bad)):
        text = json.dumps(lowered(content), separators=(",", ":"))
        (HERE / f"secagg_{title}.json").write_text(text.replace('],["', '],\n["') + "\n")


if __name__ == "__main__":
    main()
