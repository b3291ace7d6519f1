"""Short cuts say what the plain way says: disputes as one array, seeds from a kept prefix, hashes in parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from privfl_keys import Label, context, derive, digest

from privfl.secagg.messages import Header, join, split
from privfl.secagg.slot import commitment, disputes, mask_key

IDS = sorted(hashlib.sha256(bytes([at])).digest() for at in range(9))


def plain(headers: Sequence[Header]) -> list[tuple[bytes, bytes]]:
    """One pair after the other, in a dictionary."""
    seen: dict[tuple[bytes, bytes], bytes] = {}
    found = []
    for header in headers:
        for at, peer in enumerate(split(header.neighbours), start=1):
            low, high = sorted((header.site, peer))
            commit = header.commits[32 * at : 32 * at + 32]
            if seen.setdefault((low, high), commit) != commit:
                found.append((low, high))
    return found


@st.composite
def signed_headers(draw: st.DrawFn) -> list[Header]:
    """Some sites' headers over a random graph, in which some ends state another commitment, by one bit or wholly."""
    pairs = [(low, high) for low in IDS for high in IDS if low < high]
    edges = set(draw(st.lists(st.sampled_from(pairs), unique=True)))
    wrong = draw(st.sets(st.tuples(st.sampled_from(IDS), st.sampled_from(IDS))))
    headers = []
    for site in draw(st.lists(st.sampled_from(IDS), unique=True).map(sorted)):
        near = [peer for peer in IDS if (min(site, peer), max(site, peer)) in edges]
        commits = [bytes(32)]
        for peer in near:
            agreed = hashlib.sha256(min(site, peer) + max(site, peer)).digest()
            commits.append(agreed[:31] + bytes([agreed[31] ^ 1]) if (site, peer) in wrong else agreed)
        headers.append(
            Header(bytes(32), site, bytes(32), join(near), join(commits), b"", b"", bytes(32), bytes(32), bytes(64))
        )
    return headers


@given(signed_headers())
def test_disputes_are_those_of_a_plain_walk_in_its_order(headers: list[Header]) -> None:
    """Every disputed pair inside, none with an end outside, in the same order; no headers give none."""
    assert disputes(headers) == plain(headers)


@given(st.binary(min_size=32, max_size=32), *[st.sampled_from(IDS)] * 3)
def test_kept_prefixes_derive_what_whole_contexts_derive(seed: bytes, h0: bytes, low: bytes, high: bytes) -> None:
    """Commitment and mask key are HKDF under the labelled tuple, for pairs and for a site's own mask."""
    assert commitment(seed, h0, low, high) == derive(seed, Label.COMMIT, h0, low, high)
    assert mask_key(seed, h0, low, high) == derive(seed, Label.MASK, h0, low, high)
    assert commitment(seed, h0, low) == derive(seed, Label.COMMIT, h0, low, "self")
    assert mask_key(seed, h0, low) == derive(seed, Label.MASK, h0, low, "self")


@given(st.lists(st.binary(max_size=4), max_size=3).map(tuple), st.sampled_from([0, 1, 60, 124, 127, 128, 129, 400]))
def test_hashes_in_parts_are_hashes_of_the_whole(few: tuple[bytes, ...], many: int) -> None:
    """However many pieces an encoding has, its digest is SHA-256 of the context's bytes."""
    parts = (few, *(bytes([at % 256]) for at in range(many)))
    assert digest(Label.TRANSCRIPT, *parts) == hashlib.sha256(context(Label.TRANSCRIPT, *parts)).digest()
