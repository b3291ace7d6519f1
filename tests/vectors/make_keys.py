"""Write the known-answer vectors of the keys package: keys_*.json beside this file.

Provenance. Signing: RFC 8032, section 7.1, tests 1 and 2, and the torsion points of edwards25519
computed here from the curve equation. Sealing: the ciphertext was made once by pyca/cryptography
50 (OpenSSL 3.5) and is kept on later runs; tests/keys/test_sealing.py opens it a second time by
RFC 9180 and the X-Wing combiner written out in hashlib, so it does not rest on one library.
Everything else is made by privfl itself from the fixed seeds below and pins its formats.

Run ``python tests/vectors/make_keys.py``; a changed file is a changed format and wants a new VERSION.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from privfl_keys import (
    INSECURE_TEST_COST,
    EnrolmentRequest,
    FileKeyStore,
    Identity,
    Label,
    Member,
    Roster,
    ScryptCost,
    SealingKey,
    SigningKey,
    context,
    derive,
    encode,
    extract_and_derive,
)
from privfl_keys.storefile import StoreFile

HERE = Path(__file__).parent
P = 2**255 - 19
PASSPHRASE = "known answer passphrase"
D = -121665 * pow(121666, -1, P) % P


class Counted:
    """Entropy that anyone can repeat: SHA-256 of a label and a counter."""

    def __init__(self, label: str) -> None:
        self.label, self.count = label, 0

    def draw(self, size: int) -> bytes:
        out = b""
        while len(out) < size:
            out += hashlib.sha256(f"{self.label} {self.count}".encode()).digest()
            self.count += 1
        return out[:size]


def write(name: str, content: dict[str, Any]) -> None:
    path = HERE / f"keys_{name}.json"
    path.write_text(json.dumps({"made_by": "tests/vectors/make_keys.py", **content}, indent=1) + "\n")


# -- encoding -------------------------------------------------------------------------------------


def tagged(value: Any) -> Any:
    """JSON that keeps bytes, text, ints, bools, None and tuples apart."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, tuple):
        return {"tuple": [tagged(item) for item in value]}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"int": str(value)}
    return value


def encoding() -> None:
    values = [
        None, True, False, 0, 1, -1, 255, 256, -256, -257, 2**63, -(2**64), 2**512 - 1, b"", b"\x00", b"a" * 300,
        "", "é", "名前", (), ((),), ("a", 1, b"x"), (None, (True, (False, -7)), ""),
    ]  # fmt: skip
    bad = {
        "empty": "", "unknown tag": "78", "trailing byte": "6e00", "two values": "6e6e", "int without length": "69",
        "int truncated": "690201", "int with leading zero": "69020001", "zero as one byte": "690100",
        "minus one as one byte": "6a0100", "int of 65 bytes": "6941" + "01" * 65, "bytes length cut": "62000000",
        "bytes truncated": "620000000261", "bytes too long": "62ffffffff61", "text not UTF-8": "7300000001ff",
        "text a lone surrogate": "7300000003eda080", "text over-long": "7300000002c080", "tuple count cut": "6c0000",
        "tuple short of an item": "6c000000026e", "tuple count absurd": "6cffffffff6e", "bad item": "6c0000000178",
        "nested too deep": "6c00000001" * 13 + "6e", "upper-case tag": "4e",
    }  # fmt: skip
    write(
        "encoding",
        {
            "good": [{"value": tagged(value), "hex": encode(value).hex()} for value in values],
            "bad": [{"why": why, "hex": data} for why, data in bad.items()],
        },
    )


# -- signing --------------------------------------------------------------------------------------


def root(square: int) -> int | None:
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return None if (x * x - square) % P else x


def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + product, -1, P) % P
    return x, (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P) % P


def torsion() -> set[tuple[int, int]]:
    """The eight points of order dividing 8: multiply any point by the prime order ℓ."""
    order = 2**252 + 27742317777372353535851937790883648493
    y = 2
    while True:
        y += 1
        x = root((y * y - 1) * pow(D * y * y + 1, -1, P) % P)
        if x is None:
            continue
        total, power, scalar = (0, 1), (x, y), order
        while scalar:
            if scalar & 1:
                total = add(total, power)
            power, scalar = add(power, power), scalar >> 1
        multiples, point = {(0, 1)}, total
        while point != (0, 1):
            multiples.add(point)
            point = add(point, total)
        if len(multiples) == 8:
            return multiples


def compress(x: int, y: int) -> str:
    return (y | (x & 1) << 255).to_bytes(32, "little").hex()


def signing() -> None:
    key = SigningKey.from_secret_bytes(bytes(range(32)))
    parts = ("federation", 7, b"\x01\x02")
    off_curve = [y for y in range(2, 40) if root((y * y - 1) * pow(D * y * y + 1, -1, P) % P) is None]
    write(
        "signing",
        {
            "rfc8032": [
                {
                    "secret": "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                    "public": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                },
                {
                    "secret": "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                    "public": "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                },
            ],
            "good": {
                "secret": bytes(range(32)).hex(),
                "public": key.verify_key.raw.hex(),
                "site_id": key.verify_key.site_id.hex(),
                "fingerprint": Identity("site", key).fingerprint,
                "label": "PROBE",
                "parts": tagged(parts),
                "signature": key.sign(Label.PROBE, *parts).hex(),
                "derived": derive(bytes(range(32)), Label.PROBE, *parts, size=48).hex(),
                "extracted": extract_and_derive(bytes(range(64)), Label.PROBE, *parts).hex(),
            },
            "small_order": sorted(compress(*point) for point in torsion()),
            "non_canonical": [
                (y | sign << 255).to_bytes(32, "little").hex() for y in range(P, 2**255) for sign in (0, 1)
            ]
            + [(y | 1 << 255).to_bytes(32, "little").hex() for y in (1, P - 1)],
            "off_curve": [y.to_bytes(32, "little").hex() for y in off_curve],
        },
    )


# -- sealing --------------------------------------------------------------------------------------


def sealing() -> None:
    key = SealingKey(Counted("sealing").draw(96))
    path = HERE / "keys_sealing.json"
    sealed = json.loads(path.read_text())["sealed"] if path.exists() else None
    sealed = sealed or key.public.seal(b"known answer", Label.PROBE, "vector", 1).hex()
    # Curve25519 is birational to edwards25519 by u = (1 + y)/(1 - y); u = -1 has order 4 on the twist.
    low = {(1 + y) * pow(1 - y, -1, P) % P for _, y in torsion() if y != 1} | {0, P - 1}
    write(
        "sealing",
        {
            "secret": key.secret_bytes().hex(),
            "public": key.public.raw.hex(),
            "label": "PROBE",
            "parts": tagged(("vector", 1)),
            "plaintext": b"known answer".hex(),
            "sealed": sealed,
            "small_order_u": [u.to_bytes(32, "little").hex() for u in sorted(low)],
        },
    )


# -- rosters and stores ---------------------------------------------------------------------------


def roster() -> None:
    sites = [Identity.generate(f"site {i}", Counted(f"site {i}")) for i in range(4)]
    coordinator = Identity.generate("coordinator", Counted("coordinator"))
    authority = SigningKey.generate(Counted("authority"))
    members = [Member(site.name, site.verify_key.raw, ("site",)) for site in sites]
    members.append(Member(coordinator.name, coordinator.verify_key.raw, ("coordinator",)))
    first = Roster.create(
        "vector", members, graph_seed=Counted("graph 1").draw(32), valid_from=1_000, valid_until=2_000
    )
    _, rotation = sites[0].rotate(Counted("site 0, second key"), 1_500)
    second = first.succeed(
        graph_seed=Counted("graph 2").draw(32),
        valid_from=1_500,
        valid_until=3_000,
        rotations=[rotation],
    )
    other = first.succeed(graph_seed=Counted("graph 3").draw(32), valid_from=1_500, valid_until=3_000)
    request = EnrolmentRequest.create(sites[1], "vector", 900)
    write(
        "roster",
        {
            "authority": authority.verify_key.raw.hex(),
            "first": first.sign(authority).encode().hex(),
            "first_hash": first.hash.hex(),
            "second": second.sign(authority).encode().hex(),
            "second_hash": second.hash.hex(),
            "rival_second": other.sign(authority).encode().hex(),
            "second_by_a_stranger": second.sign(SigningKey.generate(Counted("stranger"))).encode().hex(),
            "rotation": rotation.encode().hex(),
            "request": request.encode().hex(),
            "request_fingerprint": request.fingerprint,
        },
    )


def store() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        made = FileKeyStore.create(path, PASSPHRASE, entropy=Counted("store"), cost=INSECURE_TEST_COST)
        made.put("identity", bytes(range(32)))
        whole = path.read_bytes()
    good = StoreFile.decode(whole)
    huge = replace(good, cost=ScryptCost(log_n=20, r=16, p=4))
    altered = replace(good, ciphertext=bytes([good.ciphertext[0] ^ 1]) + good.ciphertext[1:])
    header = altered.encode()
    write(
        "store",
        {
            "passphrase": PASSPHRASE,
            "entries": {"identity": bytes(range(32)).hex()},
            "good": whole.hex(),
            "bad": [
                {"why": "empty", "hex": "", "says": "damaged or no key store"},
                {"why": "truncated", "hex": whole[:-1].hex(), "says": "damaged or no key store"},
                {"why": "trailing byte", "hex": (whole + b"n").hex(), "says": "damaged or no key store"},
                {"why": "ciphertext altered", "hex": header.hex(), "says": "checksum"},
                {"why": "2 GiB to open", "hex": checksummed(huge).encode().hex(), "says": "more than 1 GiB"},
                {"why": "altered, checksum mended", "hex": checksummed(altered).encode().hex(), "says": "passphrase"},
            ],
        },
    )


def checksummed(file: StoreFile) -> StoreFile:
    header = context(Label.KEY_STORE, file.TAG, file.cost.to_value(), file.salt, file.nonce)
    return replace(file, checksum=hashlib.sha256(header + file.ciphertext).digest())


if __name__ == "__main__":
    encoding()
    signing()
    sealing()
    roster()
    store()
