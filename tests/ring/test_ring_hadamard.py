"""The rotation is orthonormal, its inverse undoes it, and it flattens what it is promised to flatten."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard

import privfl.ring.hadamard as module
from privfl.errors import Misuse
from privfl.ring import flatness, rotate, unrotate, window

SEED = bytes(range(32))


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 17, 64, 100])
def test_the_matrix_is_orthonormal(length: int) -> None:
    """Rotating the identity gives an orthonormal matrix, also for lengths that are no power of two."""
    matrix = rotate(np.eye(length), SEED)
    assert np.allclose(matrix @ matrix.T, np.eye(length), atol=1e-12)
    assert np.allclose(unrotate(matrix, SEED), np.eye(length), atol=1e-12)


@pytest.mark.parametrize("bits", [0, 1, 3, 6, 11, 12])
def test_the_transform_is_the_walsh_hadamard_matrix(bits: int) -> None:
    """Against scipy's matrix, at sizes of one and of two passes over memory."""
    size = 1 << bits
    x = np.random.default_rng(bits).normal(size=size)
    y = x.copy()
    module._orthonormal(y)
    assert np.allclose(y, hadamard(size) @ x / math.sqrt(size), atol=1e-12)


def test_the_cut_into_passes_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps and strips change the order of work, not the result: bit for bit but for the last scaling."""
    x = np.random.default_rng(1).normal(size=1 << 9)
    expected = rotate(x, SEED)
    for step, strip in ((1, 4), (2, 1), (3, 1000), (4, 7)):
        monkeypatch.setattr(module, "_STEP", step)
        monkeypatch.setattr(module, "_STRIP", strip)
        assert np.array_equal(rotate(x, SEED), expected)


@settings(max_examples=60)
@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.binary(min_size=32, max_size=32))
def test_norms_are_kept_and_the_inverse_undoes(length: int, source: int, seed: bytes) -> None:
    """For any length and seed: ‖rotate(x)‖ = ‖x‖ and unrotate(rotate(x)) = x, up to round-off."""
    x = np.random.default_rng(source).normal(size=length) * 1e3
    y = rotate(x, seed)
    assert y.shape == x.shape
    assert math.isclose(float(np.linalg.norm(y)), float(np.linalg.norm(x)), rel_tol=1e-12)
    assert np.allclose(unrotate(y, seed), x, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("length", [1 << 10, 3000, 4097])
def test_spikes_become_flat(length: int) -> None:
    """A vector with all its norm in one coordinate, wherever it lies, stays under ν; so do the corners of windows."""
    bound = flatness(length)
    assert bound < 1
    places = sorted({0, 1, length // 2, length - window(length), window(length) - 1, length - 1})
    spikes = np.zeros((len(places), length))
    spikes[np.arange(len(places)), places] = 1.0
    for seed in range(20):
        assert float(np.abs(rotate(spikes, bytes([seed]) * 32)).max()) <= bound


def test_the_inverse_is_linear_over_sums() -> None:
    """The coordinator may rotate the sum back: unrotate(Σ rotate(x)) = Σ x."""
    rows = np.random.default_rng(5).normal(size=(6, 777))
    assert np.allclose(unrotate(rotate(rows, SEED).sum(axis=0), SEED), rows.sum(axis=0), atol=1e-12)


def test_seeds_matter_and_only_they() -> None:
    """The same seed gives the same rotation; another gives another; integers are taken as numbers."""
    x = np.arange(100)
    assert np.array_equal(rotate(x, SEED), rotate(x.astype(float), SEED))
    assert not np.allclose(rotate(x, SEED), rotate(x, bytes(32)))
    assert x.dtype == np.int64


def test_a_known_answer_fixes_the_signs() -> None:
    """AES-256-CTR under the zero key begins dc 95: signs of eight coordinates, read from bit 0 up."""
    negative = [bool(0xDC >> place & 1) for place in range(8)]
    x = np.arange(1.0, 9.0)
    signed = np.where(negative, -x, x)
    assert np.allclose(rotate(x, bytes(32)), hadamard(8) @ signed / math.sqrt(8), atol=1e-12)


def test_misuse_is_named() -> None:
    """Seeds of another length, empty vectors and cubes are refused."""
    with pytest.raises(Misuse, match="32 bytes"):
        rotate(np.ones(4), b"short")
    with pytest.raises(Misuse):
        rotate(np.ones(0), SEED)
    with pytest.raises(Misuse):
        unrotate(np.ones((2, 2, 2)), SEED)
    with pytest.raises(Misuse):
        window(0)
