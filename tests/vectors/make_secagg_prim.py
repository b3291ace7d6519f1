"""Write secagg_prim_*.json: known answers for mask streams, Shamir sharing, Merkle trees and graphs.

Run from the repository root: ``python tests/vectors/make_secagg_prim.py``.

Provenance: every value is computed here by plain Python integers, hashlib and AES on single blocks
(pyca's ECB), from the definitions in the modules' docstrings; nothing of ``privfl.secagg`` is imported.
Only the labelled digests come from ``privfl_keys``, which has vectors of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from privfl_keys.labels import Label, digest

HERE = Path(__file__).parent
P = 2**31 - 1


def name(text: str, size: int = 32) -> bytes:
    """Reproducible bytes that look like nothing."""
    return hashlib.shake_256(text.encode()).digest(size)


def stream(key: bytes, start: int, size: int) -> bytes:
    """Bytes ``start .. start + size`` of AES-256-CTR with zero IV, block by block."""
    encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    first, last = start // 16, (start + size + 15) // 16
    blocks = b"".join(encryptor.update(counter.to_bytes(16, "big")) for counter in range(first, last))
    return blocks[start - 16 * first : start - 16 * first + size]


def endless(key: bytes) -> Iterator[int]:
    """The stream's 64-bit little-endian words, one after another."""
    at = 0
    while True:
        chunk = stream(key, at, 8192)
        yield from (int.from_bytes(chunk[i : i + 8], "little") for i in range(0, len(chunk), 8))
        at += len(chunk)


# --- masks ------------------------------------------------------------------------------------


def masks() -> dict[str, Any]:
    streams = [
        {"key": key.hex(), "offset": offset, "bytes": stream(key, offset, size).hex()}
        for key, offset, size in (
            (bytes(32), 0, 64),
            (name("mask 1"), 0, 48),
            (name("mask 1"), 13, 35),
            (name("mask 1"), 16 * 2**24 + 5, 40),
            (name("mask 2"), 2**34 - 33, 33),
        )
    ]
    sums = []
    for word in (16, 32, 64):
        keys = [name(f"sum {word} {i}") for i in range(5)]
        start, length = 7, 6
        acc = [(2**word - 1 - i) * (i % 2) for i in range(length)]
        total = list(acc)
        for sign, key in zip((1, 1, 1, -1, -1), keys, strict=True):
            raw = stream(key, start * word // 8, length * word // 8)
            for i in range(length):
                total[i] += sign * int.from_bytes(raw[i * word // 8 : (i + 1) * word // 8], "little")
        sums.append(
            {
                "word": word,
                "start_word": start,
                "acc": acc,
                "plus": [k.hex() for k in keys[:3]],
                "minus": [k.hex() for k in keys[3:]],
                "result": [value % 2**word for value in total],
            }
        )
    bad = [
        {"what": "key of 31 bytes", "key": bytes(31).hex(), "offset": 0, "size": 1},
        {"what": "key of 16 bytes", "key": bytes(16).hex(), "offset": 0, "size": 1},
        {"what": "offset below zero", "key": bytes(32).hex(), "offset": -1, "size": 1},
        {"what": "start past the end", "key": bytes(32).hex(), "offset": 2**34 + 1, "size": 0},
        {"what": "read past the end", "key": bytes(32).hex(), "offset": 2**34 - 8, "size": 9},
    ]
    return {"streams": streams, "sums": sums, "bad": bad}


# --- shamir -----------------------------------------------------------------------------------


def limbs_of(secret: bytes) -> list[int]:
    value = int.from_bytes(secret, "little")
    return [value >> 30 * j & (2**30 - 1) for j in range(9)]


def shares_of(secrets: list[bytes], xs: list[int], t: int, key: bytes) -> list[list[list[int]]]:
    """Coefficient j of limb column c is draw (j − 1) · columns + c: 31 bits of a 32-bit word, p drawn again."""
    columns = [limb for secret in secrets for limb in limbs_of(secret)]
    raw = stream(key, 0, 4 * ((t - 1) * len(columns)))
    draws = [int.from_bytes(raw[i : i + 4], "little") & P for i in range(0, len(raw), 4)]
    assert P not in draws
    out = []
    for x in xs:
        values = [
            (limb + sum(draws[(j - 1) * len(columns) + c] * pow(x, j, P) for j in range(1, t))) % P
            for c, limb in enumerate(columns)
        ]
        out.append([values[9 * k : 9 * k + 9] for k in range(len(secrets))])
    return out


def at_zero(xs: list[int], ys: list[int]) -> int:
    """Lagrange interpolation at 0."""
    total = 0
    for i, xi in enumerate(xs):
        term = ys[i]
        for j, xj in enumerate(xs):
            if i != j:
                term = term * xj * pow(xj - xi, -1, P) % P
        total += term
    return total % P


def shamir() -> dict[str, Any]:
    good = []
    for count, xs, t in ((1, [1, 2], 2), (2, [1, 2, 3, 4, 5], 3), (3, [7, 2**20, 1, 64, 1000], 5)):
        secrets = [name(f"secret {t} {k}") for k in range(count - 1)] + [b"\xff" * 32]
        key = name(f"coefficients {t}")
        shares = shares_of(secrets, xs, t, key)
        for k, secret in enumerate(secrets):
            assert [at_zero(xs[:t], [shares[r][k][j] for r in range(t)]) for j in range(9)] == limbs_of(secret)
        good.append(
            {"secrets": [s.hex() for s in secrets], "xs": xs, "threshold": t, "entropy": key.hex(), "shares": shares}
        )
    constant = [1] * 9
    bad = [
        {
            "what": "a share equal to p",
            "xs": [1, 2],
            "shares": [[constant], [[*constant[:8], P]]],
            "error": "Malformed",
        },
        {
            "what": "a share of 2^32 - 1",
            "xs": [1, 2],
            "shares": [[constant], [[2**32 - 1, *constant[1:]]]],
            "error": "Malformed",
        },
        {
            "what": "a limb of 2^30",
            "xs": [1, 2],
            "shares": [[[2**30, *constant[1:]]]] * 2,
            "error": "Unverified",
        },
        {
            "what": "a top limb of 2^16",
            "xs": [1, 2],
            "shares": [[[*constant[:8], 2**16]]] * 2,
            "error": "Unverified",
        },
        {"what": "a point twice", "xs": [3, 3], "shares": [[constant]] * 2, "error": "Misuse"},
        {"what": "point zero", "xs": [0, 3], "shares": [[constant]] * 2, "error": "Misuse"},
        {"what": "point beyond 2^20", "xs": [1, 2**20 + 1], "shares": [[constant]] * 2, "error": "Misuse"},
    ]
    return {"good": good, "bad": bad}


# --- merkle -----------------------------------------------------------------------------------


def tree(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, over leaves that are hashed already."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + tree(leaves[:k]) + tree(leaves[k:])).digest()


def audit_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if m < k:
        return [*audit_path(m, leaves[:k]), tree(leaves[k:])]
    return [*audit_path(m - k, leaves[k:]), tree(leaves[:k])]


def merkle() -> dict[str, Any]:
    h0, dealer, member, salt = (name(what) for what in ("H0", "dealer", "member", "salt"))
    key = digest(Label.LEAF_KEY, h0, dealer, member, salt)
    good, bad = [], []
    for count in (1, 2, 3, 5, 8, 13):
        raw = [name(f"share {count} {i}", 36) for i in range(count)]
        shares = [[int.from_bytes(r[j : j + 4], "little") % P for j in range(0, 36, 4)] for r in raw]
        hashed = [
            hashlib.sha256(
                b"\x00" + key + i.to_bytes(4, "big") + b"".join(v.to_bytes(4, "little") for v in share)
            ).digest()
            for i, share in enumerate(shares)
        ]
        top = tree(hashed)
        good.append(
            {
                "shares": shares,
                "leaves": [leaf.hex() for leaf in hashed],
                "root": top.hex(),
                "paths": [[node.hex() for node in audit_path(i, hashed)] for i in range(count)],
            }
        )
        if count == 5:
            way = [node.hex() for node in audit_path(4, hashed)]
            inner = hashlib.sha256(b"\x01" + hashed[0] + hashed[1]).hexdigest()
            pair = [node.hex() for node in audit_path(0, hashed)]
            leaf = hashed[4].hex()
            for what, case in {
                "another leaf": (hashed[3].hex(), 4, 5, way),
                "another index": (leaf, 3, 5, way),
                "another count": (leaf, 4, 8, way),
                "path too short": (leaf, 4, 5, way[:-1]),
                "path too long": (leaf, 4, 5, [*way, leaf]),
                "index beyond the count": (leaf, 5, 5, way),
                "index below zero": (leaf, -1, 5, way),
                "inner node as a leaf": (inner, 0, 5, pair[1:]),
                "leaf of 31 bytes": (leaf[:-2], 4, 5, way),
            }.items():
                bad.append({"what": what, "root": top.hex(), **dict(zip(("leaf", "index", "count", "path"), case))})  # noqa: B905
    ids = {"h0": h0.hex(), "dealer": dealer.hex(), "member": member.hex(), "salt": salt.hex()}
    return {**ids, "key": key.hex(), "good": good, "bad": bad}


# --- graph ------------------------------------------------------------------------------------


def edges_of(n: int, k: int, seed: bytes) -> set[tuple[int, int]]:
    """First attempt only: stubs sorted by their random words and paired; unusable pairs switched away in order."""
    words = endless(digest(Label.GRAPH, seed, "attempt", 0))
    ranked = sorted((next(words), stub) for stub in range(n * k))
    owners = [stub // k for _, stub in ranked]
    present: set[frozenset[int]] = set()
    edges: list[tuple[int, int]] = []
    broken = []
    for u, v in zip(owners[0::2], owners[1::2], strict=True):
        if u == v or frozenset((u, v)) in present:
            broken.append((u, v))
        else:
            present.add(frozenset((u, v)))
            edges.append((u, v))
    for u, v in broken:
        while True:
            which, forward = divmod(next(words) % (2 * len(edges)), 2)
            x, y = edges[which] if forward else edges[which][::-1]
            new = {frozenset((u, x)), frozenset((v, y))}
            if u != x and v != y and not new & present:
                break
        present = present - {frozenset((x, y))} | new
        edges[which] = (u, x)
        edges.append((v, y))
    return {(min(e), max(e)) for e in edges}


def graph() -> dict[str, Any]:
    roster_seed = name("roster")
    seeds = [{"epoch": e, "seed": digest(Label.GRAPH, roster_seed, e).hex()} for e in (0, 1, 2**32)]
    small, large = [], []
    for n, k in ((10, 3), (11, 4), (24, 5)):
        seed = name(f"graph {n} {k}")
        small.append({"n": n, "k": k, "seed": seed.hex(), "edges": sorted(edges_of(n, k, seed))})
    for n, k in ((300, 44), (1000, 52)):
        seed = name(f"graph {n} {k}")
        text = json.dumps(sorted(edges_of(n, k, seed)), separators=(",", ":"))
        large.append({"n": n, "k": k, "seed": seed.hex(), "sha256": hashlib.sha256(text.encode()).hexdigest()})
    return {"roster_seed": roster_seed.hex(), "seeds": seeds, "small": small, "large": large}


def main() -> None:
    """Write the four files next to this one."""
    for title, make in (("masks", masks), ("shamir", shamir), ("merkle", merkle), ("graph", graph)):
        (HERE / f"secagg_prim_{title}.json").write_text(json.dumps(make(), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
