"""Attacks on the masked vector itself: 1, 13, 14, 18, 21, 26, 27."""

from __future__ import annotations

import hashlib
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.errors import Misuse, Refused, Unverified
from privfl.ring import Ring
from privfl.secagg import TooFewShares, shamir
from privfl.secagg.masks import expand
from privfl.secagg.slot import commitment, mask_key
from tests.attacks._tools_a import (
    Slot,
    forged,
    pair_keys,
    pair_seed,
    ready,
    refused,
    uniform,
    upload,
    without_pair_masks,
)
from tests.harness import LEDGER, NOW, SeededEntropy

LENGTH = 1 << 16
U8: TypeAlias = npt.NDArray[np.uint8]
U32: TypeAlias = npt.NDArray[np.uint32]


@pytest.mark.parametrize(("bits", "word"), [(32, 32), (20, 32), (11, 16), (57, 64)])
def test_attack_01_one_upload_is_indistinguishable_from_uniform(bits: int, word: int) -> None:
    """An observer of single uploads with equal q, at every width b ≤ w, sees uniform values and nothing shared.

    Every site uploads the same constant, negative so that its sign bits fill the word; each upload and each
    difference of two uploads passes a chi-square test in its low, middle and high bits (false alarm < 1e-8),
    and no bit above b leaves the site.
    """
    h = ready(3, entropy=SeededEntropy(f"uniform {bits}"))
    a = h.coordinator.announce(h.plan(length=LENGTH, bits=bits, word=word), (1, 0))
    vector = np.full(LENGTH, -3, np.int64)
    slot = Slot(h, a, {site: upload(h, site, a, vector) for site in h.ids}, dict.fromkeys(h.ids, vector))
    assert all(len(slot.out[site].body) == LENGTH * bits // 8 for site in h.ids)
    seen = [slot.words(site) for site in h.ids]
    assert not uniform(slot.plain_words(h.ids[0]), bits)  # the statistic does tell the plain vector apart
    for at, words in enumerate(seen):
        assert uniform(words, bits)
        difference = (words - seen[at - 1]) & words.dtype.type((1 << bits) - 1)
        assert uniform(difference, bits)


def test_attack_01_two_slots_with_the_same_vector_share_no_mask() -> None:
    """The coordinator asks one site for the same vector in two slots: the difference of both uploads is uniform."""
    h = ready(3, entropy=SeededEntropy("two slots"))
    vector, seen = np.arange(LENGTH, dtype=np.int64), []
    for number in (1, 2):
        a = h.coordinator.announce(h.plan(length=LENGTH), (number, 0))
        slot = Slot(h, a, {site: upload(h, site, a, vector) for site in h.ids}, {})
        seen.append(slot.words(h.ids[0]))
        h.coordinator.abandon()
    assert uniform(seen[0] - seen[1], 32)


def test_attack_13_no_second_vector_under_one_seed() -> None:
    """A driver (or a crash) asks a site to mask a second vector for one H0: refused from every state after accept."""
    h = ready(4)
    site, vector = h.ids[1], np.arange(8, dtype=np.int64)
    a = h.coordinator.announce(h.plan(), (1, 0))
    machine = h.sites[site]
    machine.accept(a, now=NOW, ledger_head=LEDGER)
    accepted = machine.dump()
    machine.upload(a, vector, now=NOW)
    refused(machine, Refused, "upload", machine.upload, a, vector + 1, now=NOW)
    refused(machine, Refused, "not after", machine.accept, a, now=NOW, ledger_head=LEDGER)
    for stored in (accepted, machine.dump()):  # a crash before, and after, the upload was durable
        back = h.reload(site, stored, restarted=True)
        refused(back, Refused, "upload", back.upload, a, vector + 1, now=NOW)
        refused(back, Refused, "not after", back.accept, a, now=NOW, ledger_head=LEDGER)


def test_attack_13_every_slot_has_its_own_seeds() -> None:
    """Replayed pair keys do not bring a seed back: all commitments and all mask keys differ from slot to slot."""
    h = ready(4)
    commits: list[bytes] = []
    for number in (1, 2, 3):
        slot = Slot.run(h, (number, 0))
        for header in slot.headers(h.ids):
            own = header.commits
            commits += [own[at : at + 32] for at in range(0, len(own), 32)]
        h.coordinator.abandon()
    per_slot = 4 + 4 * 3 // 2  # own seeds and one per pair, which both ends commit to
    assert len(set(commits)) == 3 * per_slot


def test_attack_14_late_upload_of_a_dropped_site_stays_hidden() -> None:
    """The coordinator drops a site, gets *all* its pair seeds (here: from every other site), then its late upload.

    Taking out every pair mask leaves q + PRG(b), still uniform; no release holds a share of that b; the honest
    coordinator's machine does not take the late vector either.
    """
    h = ready(4, entropy=SeededEntropy("late"))
    victim, others = h.ids[2], [site for site in h.ids if site != h.ids[2]]
    a = h.coordinator.announce(h.plan(length=LENGTH), (1, 0))
    seeds, out, vectors = {}, {}, {}
    for site in h.ids:
        h.sites[site].accept(a, now=NOW, ledger_head=LEDGER)
    for site in others:  # colluders read their own state before it is erased
        seeds[site] = pair_seed(pair_keys(h.sites[site])[victim], a.h0, site, victim)
    for site in h.ids:
        vectors[site] = np.full(LENGTH, 7, np.int64)
        out[site] = h.sites[site].upload(a, vectors[site], now=NOW)
    slot = Slot(h, a, out, vectors)
    header = out[victim].message.header
    for at, peer in enumerate(others, start=1):  # the attacker's seeds are the real ones
        assert commitment(seeds[peer], a.h0, *sorted((peer, victim))) == header.commits[32 * at : 32 * at + 32]
    left = without_pair_masks(slot, victim, seeds)
    assert uniform(left, 32)
    votes = slot.votes(others, others)
    layout = slot.layout(others)
    asked = {layout.pair_of(dealer, int(row)) for dealer, rows in enumerate(layout.rows) for row in rows}
    assert (victim, None) not in asked
    for member in others:
        slot.release(member, others, votes)
        refused(h.sites[member], Unverified, "another survivor set", slot.release, member, h.ids, votes)
    for site in others:
        h.coordinator.receive(out[site].message, out[site].body)
    h.coordinator.close()
    before = h.coordinator.dump()
    with pytest.raises(Refused, match="upload"):
        h.coordinator.receive(out[victim].message, out[victim].body)
    assert h.coordinator.dump() == before


def test_attack_18_one_share_less_than_t_opens_nothing_and_t_opens_exactly() -> None:
    """With t − 1 releases the sum cannot be opened, whatever the coordinator tries; the t-th opens it exactly."""
    h = ready(7)
    a = h.coordinator.announce(h.plan(), (1, 0))
    vectors = h.vectors(a)
    for site in h.ids:
        h.upload(a, site, vectors[site])
    h.coordinator.close()
    for member, ask in h.asks().items():
        h.coordinator.receive_vote(h.sites[member].vote(ask, now=NOW))
    asks, t = h.asks(), a.threshold
    for member in h.ids[: t - 1]:
        h.coordinator.receive_release(h.sites[member].release(asks[member], now=NOW))
        with pytest.raises(TooFewShares):
            h.coordinator.finish()
        h.coordinator.receive_release(h.sites[member].release(asks[member], now=NOW))  # repeated: counts once
    assert len(h.coordinator.slot.releases) == t - 1
    h.coordinator.receive_release(h.sites[h.ids[t - 1]].release(asks[h.ids[t - 1]], now=NOW))
    assert np.array_equal(h.coordinator.finish()[0].array(), sum(vectors.values()))


def test_attack_18_t_minus_1_shares_fit_every_secret() -> None:
    """c_L colluding members hold t − 1 shares: for *any* secret they can think of there is a t-th share that gives it.

    The t − 1 real shares of one secret are completed to three others; recovery follows, so they carry no
    information. Two sharings of one secret have t − 1 uniform shares.
    """
    t, xs = 5, [1, 2, 3, 4, 5, 6, 7]
    secrets = np.frombuffer(hashlib.shake_256(b"secrets").digest(64), np.uint8).reshape(2, 32)
    real, other = shamir.split(secrets, xs, t, SeededEntropy(1)), shamir.split(secrets[::-1], xs, t, SeededEntropy(2))
    lie = shamir.split(np.zeros((2, 32), np.uint8), xs, t, SeededEntropy(3))
    for target in (other, lie):
        # both polynomials minus a common one through the t - 1 shares: add the difference's value at the t-th point
        wanted = shamir.recover(xs[:t], target[:t])
        shift = _share_that_gives(xs[:t], real[: t - 1], wanted)
        assert np.array_equal(shamir.recover(xs[:t], np.concatenate([real[: t - 1], shift[None]])), wanted)
    assert np.array_equal(shamir.recover(xs[2:], real[2:]), secrets)
    many = shamir.split(np.zeros((20_000, 32), np.uint8), xs, t, SeededEntropy(4))[: t - 1]
    assert all(uniform(many[at].reshape(-1) & 0xFFFFFF, 24) for at in range(t - 1))


def _share_that_gives(xs: list[int], known: U32, secrets: U8) -> U32:
    """The last share, per limb, that makes ``known`` and it recover ``secrets``; in plain integers."""
    p, out = shamir.PRIME, np.empty(known.shape[1:], np.uint32)
    weights: list[int] = []
    for x in xs:
        weight = 1
        for z in xs:
            if z != x:
                weight = weight * z * pow(z - x, -1, p) % p
        weights.append(weight)
    for row in range(known.shape[1]):
        value = int.from_bytes(secrets[row].tobytes(), "little")
        for limb in range(shamir.LIMBS):
            want = value >> (30 * limb) & ((1 << 30) - 1)
            have = sum(weight * int(share) for weight, share in zip(weights, known[:, row, limb], strict=False))
            out[row, limb] = (want - have) * pow(weights[-1], -1, p) % p
    return out


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("n", "x_max"), [(3, 5), (5, 2**20), (4, 2**40)])
def test_attack_21_the_ring_never_wraps_at_full_saturation(n: int, x_max: int, sign: int) -> None:
    """Sites all send ±x_max: in the fitted ring the sum is exact, and one bit less would have wrapped it."""
    ring = Ring.fit(n, x_max, 0)
    # two's complement reaches one further down than up: only the positive end is tight at a power of two
    for bits, exact in ((ring.bits, True), (ring.bits - 1, False))[: 2 if sign > 0 else 1]:
        h = ready(n)
        plan = h.plan(length=4, bits=bits, word=Ring.of(bits).word)
        a = h.coordinator.announce(plan, (1, 0))
        vector = np.full(4, sign * x_max, np.int64)
        for site in h.ids:
            h.upload(a, site, vector)
        h.coordinator.close()
        total = h.vote_and_release()[0].array()
        assert bool((total == n * sign * x_max).all()) is exact


def test_attack_21_impossible_rings_are_refused_and_a_tiny_ring_stays_masked() -> None:
    """The coordinator announces b > w, an unknown word or a huge length: refused; a ring of one bit leaks nothing."""
    h = ready(3, entropy=SeededEntropy("tiny"))
    base = h.coordinator.announce(h.plan(length=LENGTH, bits=1, word=16), (1, 0))
    machine = h.sites[h.ids[0]]
    bad: tuple[dict[str, Any], ...] = (
        {"bits": 33, "word": 32},
        {"word": 24, "bits": 8},
        {"bits": 64, "word": 64, "length": 2**33},
    )
    for changes in bad:
        wrong = forged(h, base, **changes)
        refused(machine, Refused, "ring", machine.accept, wrong, now=NOW, ledger_head=LEDGER)
    vector = np.ones(LENGTH, np.int64)
    machine.accept(base, now=NOW, ledger_head=LEDGER)
    refused(machine, Misuse, "int64", machine.upload, base, vector.astype(np.float64), now=NOW)
    refused(machine, Misuse, "shape", machine.upload, base, vector[1:], now=NOW)
    slot = Slot(h, base, {h.ids[0]: machine.upload(base, vector, now=NOW)}, {})
    ones = int(slot.words(h.ids[0]).sum())
    assert abs(ones - LENGTH // 2) < 6 * (LENGTH / 4) ** 0.5


@settings(max_examples=20, deadline=None)
@given(data=st.data(), n=st.integers(3, 6), length=st.integers(1, 70), bits=st.integers(1, 64), complete=st.booleans())
def test_attack_26_the_sum_is_bit_exact_against_plain_integers(
    data: st.DataObject, n: int, length: int, bits: int, complete: bool
) -> None:
    """Any vectors, widths, dropouts and crashes of the coordinator: the sum is that of Python integers mod 2^b."""
    h = ready(n, entropy=SeededEntropy(n))
    missing = 0 if complete else data.draw(st.integers(0, n - h.rules.min_survivors))
    plan = h.plan(length=length, bits=bits, word=Ring.of(bits).word, complete=complete)
    a = h.coordinator.announce(plan, (1, 0))
    element = st.integers(-(2**63), 2**63 - 1)
    vectors = {
        site: np.array(data.draw(st.lists(element, min_size=length, max_size=length)), np.int64) for site in h.ids
    }
    alive = data.draw(st.permutations(h.ids))[missing:]
    for site in alive:
        h.upload(a, site, vectors[site])
        if data.draw(st.booleans()):
            h.reload_coordinator()
    h.coordinator.close()
    total = h.vote_and_release()[0].array().tolist()
    half, modulus = 1 << (bits - 1), 1 << bits
    expected = [(sum(int(vectors[site][at]) for site in alive) + half) % modulus - half for at in range(length)]
    assert total == expected


def test_attack_27_masks_depend_on_all_256_seed_bits() -> None:
    """flwrlabs/flower#7522: a seed folded to 32 bits lets anyone try all masks. Here each of 256 bits counts."""
    seed, h0, low, high = bytes(range(32)), b"h" * 32, b"a" * 32, b"b" * 32
    base = np.unpackbits(np.frombuffer(expand(mask_key(seed, h0, low, high), 32, 512).tobytes(), np.uint8))
    seen = {base.tobytes()}
    for bit in range(256):
        flipped = (int.from_bytes(seed, "little") ^ 1 << bit).to_bytes(32, "little")
        stream = np.unpackbits(np.frombuffer(expand(mask_key(flipped, h0, low, high), 32, 512).tobytes(), np.uint8))
        assert abs(int((stream ^ base).sum()) - base.size // 2) < 6 * (base.size / 4) ** 0.5
        seen.add(stream.tobytes())
    assert len(seen) == 257


def test_attack_27_masks_are_aes_256_ctr_and_no_mersenne_twister() -> None:
    """The upload minus AES-256-CTR streams under the full keys is q; minus a folded Mersenne Twister it is noise."""
    h = ready(3, entropy=SeededEntropy("twister"))
    a = h.coordinator.announce(h.plan(length=LENGTH, complete=True), (1, 0))
    site, peers = h.ids[1], [h.ids[0], h.ids[2]]
    h.sites[site].accept(a, now=NOW, ledger_head=LEDGER)
    seeds = {peer: pair_seed(pair_keys(h.sites[site])[peer], a.h0, site, peer) for peer in peers}
    vector = np.full(LENGTH, 5, np.int64)
    slot = Slot(h, a, {site: h.sites[site].upload(a, vector, now=NOW)}, {site: vector})
    masked, twisted = slot.words(site).copy(), slot.words(site).copy()
    for peer, seed in seeds.items():
        key = mask_key(seed, a.h0, *sorted((site, peer)))
        stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(4 * LENGTH))
        folded = np.random.RandomState(int.from_bytes(seed, "little") & 0xFFFFFFFF)
        twister = folded.randint(0, 2**32, LENGTH, dtype=np.uint32)
        if site < peer:
            masked, twisted = masked - np.frombuffer(stream, "<u4"), twisted - twister
        else:
            masked, twisted = masked + np.frombuffer(stream, "<u4"), twisted + twister
    assert uniform(masked, 32)  # b_i still covers it
    for peer in peers:
        h.sites[peer].accept(a, now=NOW, ledger_head=LEDGER)
        slot.out[peer] = h.sites[peer].upload(a, vector, now=NOW)
    opened = [slot.opened(slot.release(member, h.ids), h.ids) for member in h.ids[:2]]
    at = int(slot.layout(h.ids).starts[1])
    stack = np.stack([one.shares[at : at + 1] for one in opened])
    b = shamir.recover([one.x for one in opened], stack)[0].tobytes()
    own = Cipher(algorithms.AES256(mask_key(b, a.h0, site)), modes.CTR(bytes(16))).encryptor().update(bytes(4 * LENGTH))
    assert np.array_equal(masked - np.frombuffer(own, "<u4"), vector.astype(np.uint32))
    assert uniform(twisted - np.frombuffer(own, "<u4"), 32)


def test_attack_27_seeds_recovered_by_the_committee_keep_all_256_bits() -> None:
    """Sharing narrows nothing: the b recovered from shares matches its commitment, and other high bits do not."""
    slot = Slot.run(ready(4))
    h, a = slot.h, slot.a
    votes = slot.votes(h.ids, h.ids)
    opened = [slot.opened(slot.release(member, h.ids, votes), h.ids) for member in h.ids[: a.threshold]]
    starts = slot.layout(h.ids).starts
    for dealer, site in enumerate(h.ids):
        at = int(starts[dealer])
        stack = np.stack([one.shares[at : at + 1] for one in opened])
        b = shamir.recover([one.x for one in opened], stack)[0].tobytes()
        commit = slot.out[site].message.header.commits[:32]
        assert commitment(b, a.h0, site) == commit
        assert commitment(b[:4] + bytes(28), a.h0, site) != commit
