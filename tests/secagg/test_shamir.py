"""Shamir sharing: exact against integer interpolation, uniform, hiding below t, wrong shares found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privfl import errors
from privfl.entropy import Keystream
from privfl.errors import Malformed, Misuse, Unverified
from privfl.secagg import shamir
from privfl.secagg.shamir import LIMBS, PRIME, X_MAX, recover, recover_checked, split

KAT = json.loads((Path(__file__).parents[1] / "vectors" / "secagg_prim_shamir.json").read_text())


class Fixed:
    """Entropy that gives one 32-byte key, once."""

    def __init__(self, key: bytes) -> None:
        self.keys = [key]

    def draw(self, size: int) -> bytes:
        key = self.keys.pop()
        assert len(key) == size
        return key


def fixed(number: int) -> Fixed:
    return Fixed(number.to_bytes(32, "big"))


def limbs_of(secret: bytes) -> list[int]:
    return [int.from_bytes(secret, "little") >> 30 * j & (2**30 - 1) for j in range(LIMBS)]


def interpolate(xs: list[int], ys: list[int], at: int) -> int:
    """Lagrange over GF(p) in plain integers: the oracle."""
    total = 0
    for i, xi in enumerate(xs):
        term = ys[i]
        for j, xj in enumerate(xs):
            if i != j:
                term = term * (at - xj) % PRIME * pow(xi - xj, -1, PRIME) % PRIME
        total += term
    return total % PRIME


def array(secrets: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(secrets), np.uint8).reshape(len(secrets), 32)


@pytest.mark.parametrize("case", KAT["good"])
def test_known_answers(case: dict) -> None:
    """Shares for given coefficients are those of plain integer arithmetic; the order of draws is fixed."""
    secrets = [bytes.fromhex(secret) for secret in case["secrets"]]
    shares = split(array(secrets), case["xs"], case["threshold"], Fixed(bytes.fromhex(case["entropy"])))
    assert shares.dtype == np.uint32
    assert shares.tolist() == case["shares"]


@pytest.mark.parametrize("case", KAT["bad"], ids=lambda case: case["what"])
def test_bad_shares_known_answers(case: dict) -> None:
    """Values outside the field, limbs out of range and impossible points each raise their own type."""
    shares = np.array(case["shares"], dtype=np.uint32)
    with pytest.raises(getattr(errors, case["error"])):
        recover(case["xs"], shares)
    if case["error"] != "Misuse":
        secrets, valid = recover_checked(case["xs"], shares)
        assert not valid.any()
        assert not secrets.any()


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_any_t_of_l_recover(data: st.DataObject) -> None:
    """Any t shares, in any order, give every secret back, the extreme ones included."""
    holders = data.draw(st.integers(2, 12))
    threshold = data.draw(st.integers(2, holders))
    xs = data.draw(st.lists(st.integers(1, X_MAX), min_size=holders, max_size=holders, unique=True))
    secrets = data.draw(
        st.lists(st.binary(min_size=32, max_size=32) | st.sampled_from([bytes(32), b"\xff" * 32]), max_size=4)
    )
    shares = split(array(secrets), xs, threshold, fixed(data.draw(st.integers(0, 99))))
    assert shares.shape == (holders, len(secrets), LIMBS)
    assert (shares < PRIME).all()
    chosen = data.draw(st.permutations(range(holders)))[:threshold]
    again = recover([xs[r] for r in chosen], shares[chosen])
    assert [row.tobytes() for row in again] == secrets


@pytest.mark.parametrize(("holders", "threshold"), [(2, 2), (64, 64), (130, 127), (130, 128), (300, 255), (1000, 1000)])
def test_large_committees_against_the_oracle(holders: int, threshold: int) -> None:
    """Exact at and beyond the sizes where one float64 product would not be: shares and secrets match integers."""
    secrets = [b"\xff" * 32, bytes(range(32))]
    xs = [X_MAX - i for i in range(holders)]
    shares = split(array(secrets), xs, threshold, fixed(threshold))
    words = Keystream(fixed(threshold)).words((threshold - 1) * LIMBS)  # two 32-bit draws a word, two secrets
    draws = (words.astype("<u8").view("<u4") & PRIME).astype(object).reshape(threshold - 1, 2, LIMBS)
    for r in (0, holders - 1):
        powers = [pow(xs[r], j, PRIME) for j in range(1, threshold)]
        for k, secret in enumerate(secrets):
            for limb in (0, 8):
                value = limbs_of(secret)[limb] + sum(int(c) * x for c, x in zip(draws[:, k, limb], powers, strict=True))
                assert int(shares[r, k, limb]) == value % PRIME
    subset = slice(holders - threshold, None)
    assert [row.tobytes() for row in recover(xs[subset], shares[subset])] == secrets


def test_extreme_field_elements_stay_exact() -> None:
    """The product is exact where every factor is as large as it gets, on both sides of the centre."""
    rng = np.random.default_rng(5)
    for terms in (1, 2, 127, 128, 500):
        public = rng.choice([0, 1, 0xFFFF, 0x7FFF0000, 0x7FFEFFFF, 2**30, PRIME - 1], size=(3, terms)).astype(np.int64)
        public[0], public[1] = PRIME - 1, 0x7FFEFFFF
        values = rng.choice([0, 1, 2**30, PRIME - 2, PRIME - 1], size=(terms, 6)).astype(np.uint32)
        values[:, 0], values[:, 1], values[:, 2] = PRIME - 1, 0, PRIME - 2
        values[0, 2] = 2**30 + 2
        expected = public.astype(object) @ values.astype(object) % PRIME
        assert shamir._product(public, values).tolist() == expected.tolist()


def test_residues_at_the_edges() -> None:
    """Reduction is right at 0, at multiples of p and next to them, up to the largest product of two residues."""
    edges = [k * PRIME + d for k in (0, 1, 2, 2**30, PRIME - 3, PRIME - 2) for d in (-1, 0, 1)] + [(PRIME - 1) ** 2]
    edges = [value for value in edges if 0 <= value <= (PRIME - 1) ** 2]
    assert shamir._canonical(np.array(edges)).tolist() == [value % PRIME for value in edges]


def test_many_secrets_cross_the_tiles() -> None:
    """Nothing is lost where one tile of columns ends and the next begins."""
    secrets = np.frombuffer(Keystream(fixed(8)).draw(32 * 1000), np.uint8).reshape(1000, 32)
    shares = split(secrets, range(1, 71), 47, fixed(9))
    assert (recover(range(20, 67), shares[19:66]) == secrets).all()


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.integers(2, 6), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_fewer_than_t_shares_fit_every_secret(secret: bytes, other: bytes, threshold: int, number: int) -> None:
    """For any t − 1 shares and any other secret a polynomial of degree below t runs through both (attack 18)."""
    xs = list(range(1, threshold + 2))
    shares = split(array([secret]), xs, threshold, fixed(number))
    for limb, value in enumerate(limbs_of(other)):
        seen = [int(shares[r, 0, limb]) for r in range(threshold - 1)]
        points, values = [0, *xs[: threshold - 1]], [value, *seen]
        completion = [interpolate(points, values, x) for x in xs]
        assert completion[: threshold - 1] == seen  # the same view,
        assert interpolate(xs[:threshold], completion[:threshold], 0) == value  # and it decodes to the other secret


def test_every_share_is_uniform() -> None:
    """Each holder's share of a fixed secret is uniform in its high and low bits; false alarm 1e-6 in all."""
    count, rejects = 4000, []
    for secret in (bytes(32), b"\xff" * 32):
        shares = split(array([secret] * count), [1, 2, 1000], 3, fixed(secret[0]))
        for row in shares:
            for bins in (row >> 23, row & 0xFF):
                rejects.append(stats.chisquare(np.bincount(bins.ravel(), minlength=256)).pvalue)
        pairs = (shares[0] >> 27).astype(int) * 16 + (shares[1] >> 27)
        rejects.append(stats.chisquare(np.bincount(pairs.ravel(), minlength=256)).pvalue)
    assert min(rejects) > 1e-6 / len(rejects)


def test_two_sharings_of_one_secret_have_nothing_in_common() -> None:
    """Coefficients come from the entropy alone: other entropy gives other shares, the same gives the same."""
    secret = array([bytes(32)])
    first, second, again = (split(secret, [1, 2, 3], 2, fixed(seed)) for seed in (1, 2, 1))
    assert (first == again).all()
    assert not (first == second).any()


def test_draws_equal_to_p_are_rejected() -> None:
    """A 31-bit draw of p is drawn again, also twice running, so coefficients are exactly uniform in GF(p)."""

    class Scripted:
        def __init__(self, *values: int) -> None:
            self.values = list(values)

        def words(self, count: int) -> np.ndarray:
            taken, self.values = self.values[: 2 * count], self.values[2 * count :]
            return np.array(taken, dtype="<u4").view("<u8")

    top = 1 << 31  # the highest bit is not part of a draw
    source = Scripted(5, PRIME, PRIME + top, 7 + top, PRIME, 9, PRIME - 1, 99)
    assert shamir._uniform(source, 4).tolist() == [5, PRIME - 1, 9, 7]
    assert source.values == []


def test_a_corrupted_share_is_found_or_changes_the_secret() -> None:
    """One wrong value never yields the right secret; checked recovery marks what left the range, and only that."""
    secrets = np.frombuffer(Keystream(fixed(3)).draw(32 * 200), np.uint8).reshape(200, 32)
    xs = [1, 2, 3, 4]
    shares = split(secrets, xs, 4, fixed(4))
    wrong = shares.copy()
    wrong[2, ::2, 8] = (wrong[2, ::2, 8] + np.uint32(123456789)) % np.uint32(PRIME)
    result, valid = recover_checked(xs, wrong)
    assert valid[1::2].all()
    assert (result[1::2] == secrets[1::2]).all()
    assert not (result[::2] == secrets[::2]).all(axis=1).any()
    assert not valid[::2].any()  # the top limb has 16 of 31 bits: an error of this size leaves the range
    assert not result[::2].any()
    with pytest.raises(Unverified, match="100 of 200"):
        recover(xs, wrong)


def test_values_outside_the_field_are_erased() -> None:
    """p, p + 1 and 2^32 − 1 invalidate their own secret only; they are not reduced in silence."""
    secrets = array([bytes([i]) * 32 for i in range(4)])
    shares = split(secrets, [1, 2], 2, fixed(6))
    for k, value in enumerate((PRIME, PRIME + 1, 2**32 - 1)):
        shares[1, k, k] = value
    result, valid = recover_checked([1, 2], shares)
    assert valid.tolist() == [False, False, False, True]
    assert result[3].tobytes() == b"\x03" * 32
    with pytest.raises(Malformed):
        recover([1, 2], shares)
    aliased = split(secrets, [1, 2], 2, fixed(6))
    column = np.argwhere(aliased[1] <= 2**32 - 1 - PRIME)[0]
    aliased[1, column[0], column[1]] += np.uint32(PRIME)  # congruent, yet another encoding of the same share
    assert recover_checked([1, 2], aliased)[1].tolist() == [k != column[0] for k in range(4)]


@pytest.mark.parametrize(
    ("xs", "threshold"),
    [([], 2), ([1], 1), ([1, 2], 1), ([1, 2], 3), ([1, 1], 2), ([0, 1], 2), ([-1, 1], 2), ([1, X_MAX + 1], 2)],
)
def test_impossible_committees_are_refused(xs: list[int], threshold: int) -> None:
    """Points are distinct in 1..2^20 and 2 ≤ t ≤ L (attacks 7 and 30); nothing is drawn otherwise."""
    entropy = fixed(0)
    with pytest.raises(Misuse):
        split(array([bytes(32)]), xs, threshold, entropy)
    assert entropy.keys


def test_wrong_shapes_and_types_are_refused() -> None:
    """Arrays of another shape or type are the caller's mistake."""
    for secrets in (np.zeros((2, 31), np.uint8), np.zeros(32, np.uint8), np.zeros((2, 32), np.int64)):
        with pytest.raises(Misuse):
            split(secrets, [1, 2], 2, fixed(0))
    shapes = ((3, 1, 9), (2, 1, 8), (2, 9))
    for shares in (*(np.zeros(shape, np.uint32) for shape in shapes), np.zeros((2, 1, 9), np.int64)):
        with pytest.raises(Misuse):
            recover_checked([1, 2], shares)


def test_inputs_are_left_alone() -> None:
    """Neither secrets nor shares are changed, and read-only or strided arrays do."""
    secrets = np.frombuffer(bytes(range(128)), np.uint8).reshape(2, 64)[:, ::2]
    shares = split(secrets, [1, 2, 3], 2, fixed(1))
    shares.flags.writeable = False
    assert (recover([3, 1], shares[::-2]) == secrets).all()
