"""What an attacker needs: signing again with keys it holds, dealing and releasing falsely.

Every message starts as the real machines' own; the attacker changes it and signs it with its key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from privfl_keys import Label, SealingPublicKey

from privfl.codec import decode, encode
from privfl.secagg import ABORT, Announcement, Ask, Header, Release, Upload, Vote, merkle
from privfl.secagg import coordinator as coordinator_slot
from privfl.secagg.messages import release_part, survivors_hash
from privfl.secagg.shamir import LIMBS
from privfl.secagg.site import blob_hash, blob_info
from tests.harness import LEDGER, NOW, Harness

Shares = npt.NDArray[np.uint32]


def announced(h: Harness, announcement: Announcement, **changes: Any) -> Announcement:
    """The announcement with ``changes``, signed again by the coordinator."""
    body = replace(announcement, **changes)
    return replace(body, signature=h.coordinator_key.sign(Label.ANNOUNCEMENT, body.h0))


def headed(h: Harness, header: Header, **changes: Any) -> Header:
    """The header with ``changes``, signed again by its site."""
    body = replace(header, **changes)
    return replace(body, signature=h.keys[body.site].sign(Label.HEADER, body.digest, body.ledger_head))


def voted(h: Harness, vote: Vote, **changes: Any) -> Vote:
    """The vote with ``changes``, signed again by its member."""
    body = replace(vote, **changes)
    return replace(body, signature=h.keys[body.member].sign(Label.VOTE, *body.binding()))


def abort_votes(h: Harness, announcement: Announcement, members: Iterable[bytes]) -> tuple[Vote, ...]:
    """What honest members sign when they are asked to give a slot up."""
    return tuple(h.sites[member].vote_abort(announcement) for member in members)


def forged_abort(h: Harness, announcement: Announcement, member: bytes) -> Vote:
    """An ABORT vote of a corrupt member that has done otherwise already."""
    a = announcement
    body = Vote(a.scope, a.round, a.attempt, a.h0, member, ABORT, b"", bytes(64))
    return voted(h, body)


def take(h: Harness, announcement: Announcement, sites: Iterable[bytes], seed: int = 0) -> dict[bytes, Any]:
    """The ``sites`` accept and upload; returns each one's outgoing message, not yet shown to the coordinator."""
    vectors, out = h.vectors(announcement, seed), {}
    for site in sites:
        h.sites[site].accept(announcement, now=NOW, ledger_head=LEDGER)
        out[site] = h.sites[site].upload(announcement, vectors[site], now=NOW)
    return out


def open_blob(h: Harness, header: Header, member: bytes, blob: bytes) -> tuple[bytes, Shares]:
    """Open a blob with its recipient's epoch key, which the tests hold."""
    record = h.coordinator.record
    advert = next(one for one in record.adverts if one.site == member)
    info = blob_info(header.h0, header.site, member, record.members.index(member) + 1, advert.digest)
    epoch = h.sites[member]._state.epoch
    assert epoch is not None
    plain = epoch.sealing_key().open(blob, Label.BLOB, *info)
    return plain[:32], np.frombuffer(plain[32:], "<u4").reshape(-1, LIMBS).astype(np.uint32)


def redeal(
    h: Harness,
    upload: Upload,
    edits: dict[bytes, Callable[[Shares], Shares]],
    *,
    right_root: bool,
    garble: Sequence[bytes] = (),
) -> Upload:
    """A corrupt dealer's upload: other shares for some members, under a root that fits them or not; or no blob at all.

    Args:
        edits: per member, what it gets instead of its honest shares.
        right_root: sign the Merkle root of the changed shares, so that the member's check passes.
        garble: members whose blob is random bytes.
    """
    record, header, blobs = h.coordinator.record, upload.header, list(upload.blobs)
    roots = [header.roots[at : at + 32] for at in range(0, len(header.roots), 32)]
    for at, member in enumerate(record.members):
        if member in garble:
            blobs[at] = bytes(len(blobs[at]))
        elif member in edits:
            salt, shares = open_blob(h, header, member, blobs[at])
            false = edits[member](shares.copy())
            advert = next(one for one in record.adverts if one.site == member)
            info = blob_info(header.h0, header.site, member, at + 1, advert.digest)
            plain = salt + false.astype("<u4").tobytes()
            blobs[at] = SealingPublicKey(advert.key).seal(plain, Label.BLOB, *info)
            if right_root:
                key = merkle.leaf_key(header.h0, header.site, member, salt)
                roots[at] = merkle.root(merkle.leaves(key, false))
    signed = headed(h, header, blobs=b"".join(map(blob_hash, blobs)), roots=b"".join(roots))
    return Upload(signed, tuple(blobs))


def off_by_one(shares: Shares) -> Shares:
    """Every limb of every share one higher, within the field."""
    out: Shares = (shares.astype(np.uint64) + 1).astype(np.uint32) % np.uint32(2**31 - 1)
    return out


def rerelease(
    h: Harness,
    release: Release,
    *,
    shares: Callable[[bytes], bytes] = lambda plain: plain,
    proofs: Callable[[tuple[Any, ...]], object] = lambda value: value,
) -> Release:
    """A corrupt member's release: its own plaintexts changed, sealed and signed again with its key."""
    a, key = h.coordinator.slot.current(), coordinator_slot.reply_key(h.coordinator.slot)
    info = (a.h0, release.survivors, release.member)
    told = shares(key.open(release.sealed_shares, Label.RELEASE_SEAL, *info, "shares"))
    opened = decode(key.open(release.sealed_proofs, Label.RELEASE_SEAL, *info, "proofs"))
    assert isinstance(opened, tuple)
    proved = encode(proofs(opened))
    seal = SealingPublicKey(a.reply_key).seal
    body = replace(
        release,
        shares_hash=release_part(told, "shares"),
        proofs_hash=release_part(proved, "proofs"),
        sealed_shares=seal(told, Label.RELEASE_SEAL, *info, "shares"),
        sealed_proofs=seal(proved, Label.RELEASE_SEAL, *info, "proofs"),
    )
    return replace(body, signature=h.keys[body.member].sign(Label.RELEASE, *body.binding()))


def certified_ask(h: Harness, member: bytes, votes: Sequence[Vote]) -> Ask:
    """What the coordinator would ask of ``member``, with chosen votes."""
    return replace(h.coordinator.ask(member), votes=tuple(votes))


def choice_of(ask: Ask) -> bytes:
    """H(U) of the headers that a request shows."""
    return survivors_hash(ask.announcement.h0, ask.headers)


def noted(error: BaseException) -> str:
    """An error's text and everything it hangs on, for statements about what it does not say."""
    return f"{error} {error.args} {error.__cause__} {error.__context__}"
