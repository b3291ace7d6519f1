"""Writes samplers.json: known answers of the exact samplers, from a second, slow implementation.

Run ``python tests/vectors/samplers_generate.py > tests/vectors/samplers.json``. Nothing of privfl is imported: the
distribution functions come from mpmath at 400 bits, the bits from pyca's AES-256-CTR, one sample at a time. What
both sides share is this rule:

* the entropy's first 32 bytes key a root stream; each table of a sum, widest first, takes from it three keys of
  32 bytes, for its lanes *cells*, *refinements*, *ties*;
* a sample takes 16 bits (little-endian) from *cells*; if a threshold floor(P(X ≤ x)·2^192) begins with the same
  16 bits, it takes a 64-bit word from *refinements*, drops the low 16, and appends the rest;
* the value is the number of thresholds not above it, less M. (No tie occurs in these vectors; the generator says so.)
* Gaussian sums: while σ² > 512², k = 2^min(8, (bits of ⌊σ²⌋ + 1) div 4), an inner table σ₁ = 2k, and σ² becomes
  σ²/k² - 4. Laplace sums: while t > 64, an inner table of digit differences in base 1024 at scale t, and t
  becomes t/1024.
"""

from __future__ import annotations

import hashlib
import json
import struct
from bisect import bisect_right
from fractions import Fraction

import mpmath
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

COUNT = 3000
CASES = [
    ("gaussian", "0.3"),
    ("gaussian", "1"),
    ("gaussian", "4.75"),
    ("gaussian", "40"),
    ("gaussian", "512"),
    ("gaussian", "700.5"),
    ("gaussian", "65536"),
    ("gaussian", "1099511627776"),
    ("laplace", "0.5"),
    ("laplace", "9.25"),
    ("laplace", "64"),
    ("laplace", "5000"),
    ("laplace", "1099511627776"),
]


class Stream:
    """AES-256-CTR from block zero under ``key``."""

    def __init__(self, key: bytes) -> None:
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def take(self, size: int) -> bytes:
        return self._encryptor.update(bytes(size))


def thresholds(weights: list[mpmath.mpf]) -> list[int]:
    """Return floor(P(X ≤ x)·2^192) for negative x, mirrored for the others; ``weights`` for |x| = 0 … M."""
    total = 2 * mpmath.fsum(weights[1:]) + weights[0]
    low, mass = [], mpmath.mpf(0)
    for weight in reversed(weights[1:]):
        mass += weight
        low.append(max(1, int(mpmath.floor(mpmath.ldexp(mass, 192) / total))))
    return low + [2**192 - value for value in reversed(low)]


def real(value: Fraction) -> mpmath.mpf:
    return mpmath.mpf(value.numerator) / value.denominator


def gaussian(sigma2: Fraction) -> list[int]:
    last = int(mpmath.floor(mpmath.sqrt(mpmath.floor(169 * real(sigma2))))) + 1
    return thresholds([mpmath.exp(-x * x / (2 * real(sigma2))) for x in range(last + 1)])


def laplace(scale: Fraction) -> list[int]:
    last = int(mpmath.ceil(80 * real(scale)))
    return thresholds([mpmath.exp(-x / real(scale)) for x in range(last + 1)])


def digit(scale: Fraction) -> list[int]:
    t = real(scale)
    return thresholds(
        [mpmath.exp(-d / t) * mpmath.expm1(-2 * (1024 - d) / t) / mpmath.expm1(-2 / t) for d in range(1024)]
    )


def sums(kind: str, parameter: Fraction) -> list[tuple[int, list[int]]]:
    inner = []
    if kind == "gaussian":
        variance = parameter**2
        while variance > 512**2:
            k = 2 ** min(8, (int(variance).bit_length() + 1) // 4)
            inner.append((k, gaussian(Fraction(4 * k * k))))
            variance = variance / k**2 - 4
        return [(1, gaussian(variance)), *reversed(inner)]
    while parameter > 64:
        inner.append((1024, digit(parameter)))
        parameter /= 1024
    return [(1, laplace(parameter)), *reversed(inner)]


def inverted(table: list[int], root: Stream) -> list[int]:
    cells, refinements, _ties = (Stream(root.take(32)) for _ in range(3))
    leading = [value >> 128 for value in table]
    straddled = {value >> 48 for value in leading}
    out = []
    for _ in range(COUNT):
        (cell,) = struct.unpack("<H", cells.take(2))
        point = cell << 48
        if cell in straddled:
            point |= struct.unpack("<Q", refinements.take(8))[0] >> 16
            assert point not in leading, "a tie: take another key"
        out.append(bisect_right(leading, point) - len(table) // 2)
    return out


def case(kind: str, parameter: str) -> dict[str, object]:
    """Return one vector: parameter, key, the first eight samples and a hash of all, as little-endian int64."""
    key = hashlib.sha256(f"{kind} {parameter}".encode()).digest()
    root = Stream(key)
    samples = [0] * COUNT
    for factor, table in sums(kind, Fraction(parameter)):
        samples = [sample * factor + add for sample, add in zip(samples, inverted(table, root), strict=True)]
    packed = struct.pack(f"<{COUNT}q", *samples)
    return {
        "kind": kind,
        "parameter": parameter,
        "key": key.hex(),
        "count": COUNT,
        "first": samples[:8],
        "sha256": hashlib.sha256(packed).hexdigest(),
    }


def main() -> None:
    mpmath.mp.prec = 400
    origin = "tests/vectors/samplers_generate.py, mpmath and pyca only"
    print(json.dumps({"origin": origin, "cases": [case(*each) for each in CASES]}, indent=1))


if __name__ == "__main__":
    main()
