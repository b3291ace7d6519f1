"""HKDF against RFC 5869 written out with hmac, and its limits."""

from __future__ import annotations

import hmac
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from privfl_keys import Label, Misuse, context, derive, extract_and_derive


def expand(key: bytes, info: bytes, size: int) -> bytes:
    out, block, count = b"", b"", 1
    while len(out) < size:
        block = hmac.digest(key, block + info + bytes((count,)), "sha256")
        out, count = out + block, count + 1
    return out[:size]


@given(st.binary(min_size=32, max_size=64), st.integers(1, 200), st.lists(st.integers(), max_size=3))
def test_both_forms_are_rfc_5869(key: bytes, size: int, parts: list[int]) -> None:
    """Expand alone, and extract with an empty salt then expand, equal their definitions."""
    info = context(Label.PAIR_KEY, *parts)
    assert derive(key, Label.PAIR_KEY, *parts, size=size) == expand(key, info, size)
    extracted = hmac.digest(bytes(32), key, "sha256")
    assert extract_and_derive(key, Label.PAIR_KEY, *parts, size=size) == expand(extracted, info, size)


def test_labels_and_parts_separate() -> None:
    """One key under two labels, or other parts, gives unrelated bytes; the default size is 32."""
    outputs = {
        derive(bytes(32), Label.COMMIT, 1),
        derive(bytes(32), Label.MASK, 1),
        derive(bytes(32), Label.MASK, 2),
        derive(bytes(32), Label.MASK, 1, 0),
        extract_and_derive(bytes(32), Label.MASK, 1),
    }
    assert len(outputs) == 5
    assert {len(output) for output in outputs} == {32}


@pytest.mark.parametrize("rule", [derive, extract_and_derive])
@pytest.mark.parametrize(("key", "size"), [(31, 32), (0, 32), (32, 0), (32, 255 * 32 + 1), (32, -1)])
def test_short_keys_and_odd_sizes_are_misuse(rule: Callable[..., bytes], key: int, size: int) -> None:
    """Neither a short key nor an impossible size gives output."""
    with pytest.raises(Misuse):
        rule(bytes(key), Label.MASK, size=size)
