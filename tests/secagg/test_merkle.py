"""Merkle trees: RFC 6962 roots and paths, compact proofs, and every mutation refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.errors import Misuse, Unverified
from privfl.secagg.merkle import leaf, leaf_key, leaves, multiproof, path, root, verify, verify_multi

KAT = json.loads((Path(__file__).parents[1] / "vectors" / "secagg_prim_merkle.json").read_text())


def hashes(count: int) -> list[bytes]:
    return [hashlib.sha256(i.to_bytes(4, "big")).digest() for i in range(count)]


def oracle_root(nodes: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, by its recursion."""
    if len(nodes) == 1:
        return nodes[0]
    k = 1
    while 2 * k < len(nodes):
        k *= 2
    return hashlib.sha256(b"\x01" + oracle_root(nodes[:k]) + oracle_root(nodes[k:])).digest()


@pytest.mark.parametrize("case", KAT["good"], ids=lambda case: str(len(case["leaves"])))
def test_known_answers(case: dict) -> None:
    """Leaf key, leaves, root and every path are those of the vectors."""
    key = leaf_key(*(bytes.fromhex(KAT[part]) for part in ("h0", "dealer", "member", "salt")))
    assert key.hex() == KAT["key"]
    shares = np.array(case["shares"], dtype=np.uint32)
    made = leaves(key, shares)
    assert [node.hex() for node in made] == case["leaves"]
    assert root(made).hex() == case["root"]
    for i, share in enumerate(shares):
        assert leaf(key, i, share) == made[i]
        assert [node.hex() for node in path(made, i)] == case["paths"][i]
        verify(root(made), made[i], i, len(made), path(made, i))


@pytest.mark.parametrize("case", KAT["bad"], ids=lambda case: case["what"])
def test_bad_proofs_known_answers(case: dict) -> None:
    """Wrong leaf, index, count, length, and an inner node in a leaf's place are refused."""
    nodes = [bytes.fromhex(node) for node in case["path"]]
    with pytest.raises(Unverified):
        verify(bytes.fromhex(case["root"]), bytes.fromhex(case["leaf"]), case["index"], case["count"], nodes)


def test_roots_match_the_recursive_definition() -> None:
    """Pairing level by level gives RFC 6962's tree for every number of leaves."""
    for count in [*range(1, 70), 127, 128, 129, 255, 1000]:
        nodes = hashes(count)
        assert root(nodes) == oracle_root(nodes)


def test_every_path_verifies_and_is_short() -> None:
    """Every leaf of trees up to 40 has a path of at most ⌈log2 n⌉ nodes that verifies at its own index only."""
    for count in range(1, 41):
        nodes = hashes(count)
        top = root(nodes)
        for i in range(count):
            way = path(nodes, i)
            assert len(way) <= (count - 1).bit_length()
            verify(top, nodes[i], i, count, way)
            for j in range(count):
                if j != i:
                    with pytest.raises(Unverified):
                        verify(top, nodes[i], j, count, way)


@given(st.data())
@settings(deadline=None)
def test_compact_proofs_agree_with_single_paths(data: st.DataObject) -> None:
    """A compact proof accepts exactly what the single paths accept, and is never longer than they are together."""
    count = data.draw(st.integers(1, 60))
    nodes = hashes(count)
    chosen = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    proof = multiproof(nodes, chosen)
    paths = {i: path(nodes, i) for i in chosen}
    verify_multi(root(nodes), count, {i: nodes[i] for i in chosen}, proof)
    assert len(proof) <= sum(len(way) for way in paths.values())
    assert set(proof) <= {node for way in paths.values() for node in way}
    if len(chosen) == 1:
        assert proof == paths[next(iter(chosen))]
    if len(chosen) == count:
        assert proof == ()


@given(st.data())
@settings(deadline=None)
def test_every_mutation_is_refused(data: st.DataObject) -> None:
    """Any change of root, leaf, index set, proof node, order, length or count is refused."""
    count = data.draw(st.integers(2, 40))
    nodes = hashes(count)
    chosen = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
    top, proof = root(nodes), list(multiproof(nodes, chosen))
    known = {i: nodes[i] for i in chosen}
    at = data.draw(st.sampled_from(chosen))
    bit = data.draw(st.integers(0, 255))

    def flip(node: bytes) -> bytes:
        return (int.from_bytes(node, "big") ^ 1 << bit).to_bytes(32, "big")

    mutants: list[tuple[bytes, int, dict[int, bytes], list[bytes]]] = [
        (flip(top), count, known, proof),
        (top, count, {**known, at: flip(nodes[at])}, proof),
        (top, count, {i: node for i, node in known.items() if i != at}, proof),
        (top, count, known, [*proof, nodes[0]]),
        (top, count, {**known, count: nodes[0]}, proof),
        (top, count, {**known, -1: nodes[0]}, proof),
        (top, at, known, proof),
        (top, 0, known, proof),
        (top[:-1], count, known, proof),
        (top, count, {**known, at: nodes[at] + b"\x00"}, proof),
    ]
    absent = sorted(set(range(count)) - set(chosen))
    if absent:
        mutants.append((top, count, {**known, data.draw(st.sampled_from(absent)): nodes[at]}, proof))
    if len(chosen) > 1:
        other = next(i for i in chosen if i != at)
        mutants.append((top, count, {**known, at: nodes[other], other: nodes[at]}, proof))
    if proof:
        spot = data.draw(st.integers(0, len(proof) - 1))
        mutants.append((top, count, known, [flip(node) if j == spot else node for j, node in enumerate(proof)]))
        mutants.append((top, count, known, proof[:spot] + proof[spot + 1 :]))
        mutants.append((top, count, known, [node[:31] if j == spot else node for j, node in enumerate(proof)]))
    if len(proof) > 1:
        mutants.append((top, count, known, proof[1:] + proof[:1]))
    for wrong in mutants:
        with pytest.raises(Unverified):
            verify_multi(*wrong)


def test_no_inner_node_passes_for_a_leaf_and_none_counts_twice() -> None:
    """Second preimages of the naive tree fail: an inner node as a leaf, and the last leaf of an odd tree doubled."""
    nodes = hashes(5)
    inner = [hashlib.sha256(b"\x01" + nodes[i] + nodes[i + 1]).digest() for i in (0, 2)] + [nodes[4]]
    top = root(nodes)
    assert root(inner) == top  # so only the count, which is public, tells the two apart
    for i in range(3):
        with pytest.raises(Unverified):
            verify(top, inner[i], i, 5, path(inner, i))
    assert root([*nodes, nodes[4]]) != top
    assert root(nodes[:3]) != root([*nodes[:3], nodes[2]])


def test_bytes_cannot_move_between_siblings() -> None:
    """Two nodes whose lengths are 33 and 31 hash like the honest pair, and are refused for their lengths."""
    nodes = hashes(2)
    joined = nodes[0] + nodes[1]
    for cut in (0, 31, 33, 64):
        with pytest.raises(Unverified):
            verify(root(nodes), joined[:cut], 0, 2, [joined[cut:]])
        with pytest.raises(Unverified):
            verify_multi(root(nodes), 2, {0: joined[:cut], 1: joined[cut:]}, ())


def test_leaf_bytes_cannot_be_read_as_an_inner_node() -> None:
    """A leaf hashes 73 bytes under prefix 0, an inner node 65 under prefix 1."""
    key, share = bytes(range(32)), np.arange(9, dtype=np.uint32)
    expected = hashlib.sha256(b"\x00" + key + b"\x00\x00\x01\x02" + share.astype("<u4").tobytes())
    assert leaf(key, 0x102, share) == expected.digest()


def test_leaves_depend_on_all_they_should() -> None:
    """Another H0, dealer, member, salt, index or share gives another leaf (attacks 35 and 49)."""
    parts = [bytes([i]) * 32 for i in range(4)]
    shares = np.arange(18, dtype=np.uint32).reshape(2, 9)
    seen = set(leaves(leaf_key(*parts), shares)) | set(leaves(leaf_key(*parts), shares[::-1]))
    for i in range(4):
        seen |= set(leaves(leaf_key(*parts[:i], b"x" * 32, *parts[i + 1 :]), shares))
    seen |= set(leaves(leaf_key(parts[1], parts[0], *parts[2:]), shares))
    assert len(seen) == 2 * 7


def test_wrong_calls_are_refused() -> None:
    """Empty trees, indices outside the tree and arrays of another shape or type are the caller's mistake."""
    share = np.zeros(9, np.uint32)
    for call in (
        lambda: root([]),
        lambda: path(hashes(3), 3),
        lambda: path(hashes(3), -1),
        lambda: multiproof(hashes(3), ()),
        lambda: multiproof([], (0,)),
        lambda: leaves(bytes(31), np.zeros((1, 9), np.uint32)),
        lambda: leaves(bytes(32), np.zeros((1, 8), np.uint32)),
        lambda: leaves(bytes(32), np.zeros((1, 9), np.int64)),
        lambda: leaf(bytes(32), -1, share),
        lambda: leaf(bytes(32), 2**32, share),
        lambda: leaf(bytes(31), 0, share),
        lambda: leaf(bytes(32), 0, share[:8]),
    ):
        with pytest.raises(Misuse):
            call()


def test_no_leaves_prove_nothing() -> None:
    """A proof about no leaves is refused, also when it carries the root itself."""
    nodes = hashes(4)
    for proof in ((), (root(nodes),)):
        with pytest.raises(Unverified):
            verify_multi(root(nodes), 4, {}, proof)
