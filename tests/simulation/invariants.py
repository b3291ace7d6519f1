"""What must hold whatever happens: checked whenever bytes leave a node or something is stored.

Every check speaks about bytes that left or sums that were stored, never about a machine's own opinion.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from privfl_keys import VerifyKey
from privfl_keys.sealing import SEAL_OVERHEAD

from privfl.secagg import Announcement, Rules, Transcript, verify_transcript
from privfl.secagg.messages import ABORT, Ask, Release, Upload, Vote, survivors_hash
from tests.simulation.leader import Result
from tests.simulation.nodes import COORDINATOR, Envelope

__all__ = ["Observer"]

SHARE_BYTES = 36  # nine limbs of four bytes

SlotName = tuple[int, int, int]  # (epoch, round, attempt)


class Observer:
    """Sees every byte that leaves and every result that is stored; raises AssertionError."""

    def __init__(
        self,
        authority: VerifyKey,
        rules: Rules,
        sites: tuple[bytes, ...],
        vector: Callable[[int, Announcement], npt.NDArray[np.int64]],
    ) -> None:
        self._authority, self._rules, self._sites, self._vector = authority, rules, sites, vector
        self._slots: dict[bytes, Announcement] = {}
        self._uploads: dict[tuple[bytes, SlotName], tuple[bytes, ...]] = {}
        self._votes: dict[tuple[bytes, SlotName], bytes] = {}
        self._releases: dict[tuple[bytes, SlotName], bytes] = {}
        self._survivors: dict[bytes, frozenset[bytes]] = {}
        self._opened: dict[bytes, set[frozenset[bytes]]] = defaultdict(set)  # h0: every U with a release
        self._accepted: dict[int, tuple[int, int, int, int]] = {}
        self._answers: dict[tuple[bytes, bytes], frozenset[bytes]] = {}
        self.seen: Counter[str] = Counter()

    def announced(self, a: Announcement) -> None:
        """A coordinator, honest or forked, signed this; whether it ever leaves is chance."""
        self._slots[a.h0] = a

    def accepted(self, site: int, a: Announcement, now: int) -> None:
        """A site recorded used(H0): slots and sequence numbers strictly rise, and the deadline is not over."""
        new, old = (a.scope.epoch, a.round, a.attempt, a.seq), self._accepted.get(site, (0, 0, -1, 0))
        assert new[:3] > old[:3], f"site {site} accepted {new} after {old}"
        assert new[0] > old[0] or new[3] > old[3], f"site {site}: seq {new[3]} after {old[3]} in one epoch"
        assert now <= a.deadline, f"site {site} accepted after the deadline"
        self._accepted[site] = new
        self.seen["accepted"] += 1

    def left(self, sender: int, envelope: Envelope, now: int) -> None:
        """Bytes leave a node, whether or not they arrive."""
        match envelope.kind, envelope.parts[1:]:
            case "upload", (message, body):
                self._upload(Upload.decode(message), message, body)
            case "vote", (vote,):
                self._vote(Vote.decode(vote), vote)
            case "release", (release,):
                self._release(Release.decode(release), release, now)
            case _:
                pass
        if sender == COORDINATOR and envelope.kind == "release":
            ask = Ask.decode(envelope.parts[0])
            choice = survivors_hash(ask.announcement.h0, ask.headers)
            self._survivors[choice] = frozenset(header.site for header in ask.headers)

    def _upload(self, upload: Upload, message: bytes, body: bytes) -> None:
        site, a = upload.header.site, self._slots[upload.header.h0]
        known = self._uploads.setdefault((site, (a.scope.epoch, *a.slot)), (message, body))
        assert known == (message, body), "two byte strings of one site left in one slot"
        self.seen["uploads sent"] += 1

    def _vote(self, vote: Vote, data: bytes) -> None:
        known = self._votes.setdefault((vote.member, (vote.scope.epoch, vote.round, vote.attempt)), data)
        assert known == data, "a member cast two votes in one slot"
        self.seen["ABORT votes" if vote.choice == ABORT else "votes"] += 1

    def _release(self, release: Release, data: bytes, now: int) -> None:
        a = self._slots[release.h0]
        known = self._releases.setdefault((release.member, (a.scope.epoch, *a.slot)), data)
        assert known == data, "a member released twice in one slot"
        opened = self._opened[release.h0]
        opened.add(self._survivors[release.survivors])
        assert len(opened) == 1, "members released for two survivor sets of one slot"
        # b_u for u in U, pair seeds towards the cohort outside U: no site may stand on both sides
        inside = frozenset[bytes]().union(*opened)
        outside = frozenset[bytes]().union(*(frozenset(a.sites) - survivors for survivors in opened))
        assert not inside & outside, "both seeds that protect one site were released"
        # and no share beyond those: the graph is complete, so every survivor dealt one seed for each absent site
        plain = len(inside) * (33 + SHARE_BYTES * (1 + len(outside)))
        assert len(release.sealed_shares) == plain + SEAL_OVERHEAD, "a release of another size than U gives"
        assert len(inside) >= max(a.min_survivors, self._rules.min_survivors), "too few survivors in a release"
        assert now <= a.deadline + 100, "a release after the deadline"  # 100: the sites' clocks are that far off
        self.seen["releases"] += 1

    def stored(self, result: Result) -> None:
        """A sum was opened: exact, verified, large enough, and without noise the only one of its question."""
        t = Transcript.decode(result.transcript.encode())
        verify_transcript(t, self._authority, result.opened)
        inside = [self._sites.index(header.site) for header in t.headers]
        assert len(inside) >= self._rules.min_survivors, "too few survivors in a sum"
        expected = np.sum([self._vector(site, t.announcement) for site in inside], axis=0)
        assert np.array_equal(result.opened.array(), expected), "the opened sum is not the survivors' sum"
        inside_ids = frozenset(header.site for header in t.headers)
        assert self._opened[t.announcement.h0] == {inside_ids}, "releases for another U than the transcript's"
        assert not t.blames, f"an honest site was named: {t.blames}"
        if self._rules.noiseless:
            question = (t.announcement.task, t.announcement.inputs)
            assert self._answers.setdefault(question, inside_ids) == inside_ids, "a noiseless question was opened twice"
        self.seen["opened"] += 1
