"""Everything that was ever sent, held against every site's ledger, and against itself.

Needs no secret: what the coordinator could see, the public roster, and the ledger files as an auditor opens them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from privfl_keys import Label, Roster

from benchmarks._crash_child import Tapped
from privfl.budget.ledger_book import Book
from privfl.budget.ledger_entries import Entry, Kind
from privfl.dp import Cost, Unit
from privfl.learn import Task
from privfl.runtime.post import Contributions, Invitation
from privfl.secagg import Advert, Announcement, Ask, Confirmations, Header, Release, Transcript, Upload, Vote
from privfl.secagg.messages import split
from privfl.wires import Envelope

__all__ = ["FINDINGS", "Evidence", "Finding"]

FINDINGS = ("unaccounted", "double_votes", "mask_reuse", "double_releases", "equivocations")


@dataclass(frozen=True)
class Finding:
    """One broken promise: of which kind (see :data:`FINDINGS`), by whom, and what it is."""

    kind: str
    who: str
    text: str


@dataclass
class Evidence:
    """All that was sent in one federation.

    Attributes:
        prices: H0 → the cost of one upload, from the task that was announced; None where it names none.
        left: (site, H0) of every upload of which the header or the body has left.
    """

    roster: Roster
    unit: Unit
    prices: dict[bytes, Cost | None] = field(default_factory=dict)
    left: set[tuple[bytes, bytes]] = field(default_factory=set)
    headers: dict[tuple[bytes, bytes], set[Header]] = field(default_factory=lambda: defaultdict(set))
    uploads: dict[tuple[bytes, bytes], set[bytes]] = field(default_factory=lambda: defaultdict(set))
    bodies: dict[tuple[bytes, bytes], set[bytes]] = field(default_factory=lambda: defaultdict(set))
    votes: dict[tuple[object, ...], set[tuple[object, ...]]] = field(default_factory=lambda: defaultdict(set))
    releases: dict[tuple[bytes, bytes], set[bytes]] = field(default_factory=lambda: defaultdict(set))
    epochs: dict[tuple[object, ...], set[bytes]] = field(default_factory=lambda: defaultdict(set))
    messages: int = 0

    def __post_init__(self) -> None:
        self._stored: dict[bytes, bytes] = {}
        self._judged: set[bytes] = set()
        self._readers: dict[str, Callable[[bytes], None]] = {
            "announce": self._invitation,
            "upload": self._upload,
            "vote": lambda data: self._vote(Vote.decode(data)),
            "ask-vote": lambda data: self._ask(Ask.decode(data)),
            "ask-release": lambda data: self._ask(Ask.decode(data)),
            "ask-abort": lambda data: self._announcement(Announcement.decode(data)),
            "release": self._release,
            "advert": self._advert,
            "contributions": self._contributions,
            "confirmations": self._confirmations,
        }

    def take(self, sender: bytes, sent: Iterable[Tapped]) -> None:
        """Take in what one process sent, in its order."""
        self._stored.clear()  # a body goes out before the message that names it, from the same process
        for one in sent:
            self.messages += 1
            if one.kind == b"B":
                name = hashlib.sha256(one.data).digest()
                self._stored[name] = one.data
                if one.about:
                    self.left.add((sender, one.about))
                    self.bodies[sender, one.about].add(name)
                continue
            envelope = Envelope.decode(one.data)
            (role,) = self.roster.member(envelope.sender).roles
            envelope.verify(self.roster, role)
            payload = self._stored[envelope.bodies[0].sha256] if envelope.kind.endswith("+") else envelope.payload
            reader = self._readers.get(envelope.kind.removesuffix("+"))
            if reader is not None and not (role == "coordinator" and envelope.kind.startswith("contributions")):
                reader(payload)

    def opened(self, transcript: Transcript) -> None:
        """Hold an opened round against the tap: a header in it that never passed the tap escaped notice."""
        for header in transcript.headers:
            if header not in self.headers[header.site, header.h0]:
                raise AssertionError("a header was opened that was never seen to leave: the tap is not complete")

    # -- what was said ------------------------------------------------------------------------------

    def _invitation(self, data: bytes) -> None:
        invitation = Invitation.decode(data)
        self._announcement(invitation.announcement)
        if invitation.announcement.h0 not in self.prices:
            release = Task.from_descriptor(invitation.task).release
            self.prices[invitation.announcement.h0] = None if release is None else release.cost_in(self.unit)

    def _announcement(self, a: Announcement) -> None:
        self.epochs["announcement", a.coordinator, a.scope, a.round, a.attempt].add(a.h0)
        for vote in a.aborts:
            self._vote(vote)

    def _ask(self, ask: Ask) -> None:
        self._announcement(ask.announcement)
        for vote in ask.votes:
            self._vote(vote)

    def _upload(self, data: bytes) -> None:
        message = Upload.decode(data)
        header = message.header
        key = (header.site, header.h0)
        self.roster.require(header.site, "site").verify(
            header.signature, Label.HEADER, header.digest, header.ledger_head
        )
        self.left.add(key)
        self.headers[key].add(header)
        self.uploads[key].add(hashlib.sha256(data).digest())

    def _vote(self, vote: Vote) -> None:
        encoded = vote.encode()
        if encoded not in self._judged:
            self.roster.require(vote.member, "site").verify(vote.signature, Label.VOTE, *vote.binding())
            self._judged.add(encoded)
        slot = (vote.member, vote.scope, vote.round, vote.attempt)
        self.votes[slot].add((vote.h0, vote.choice, vote.complaints))

    def _release(self, data: bytes) -> None:
        release = Release.decode(data)
        self.releases[release.member, release.h0].add(data)

    def _advert(self, data: bytes) -> None:
        advert = Advert.decode(data)
        self.epochs["advert", advert.site, advert.scope].add(data)

    def _contributions(self, data: bytes) -> None:
        for one in Contributions.decode(data).contributions:
            self.epochs["contribution", one.sender, one.scope, one.recipient].add(one.encode())

    def _confirmations(self, data: bytes) -> None:
        one = Confirmations.decode(data)
        self.epochs["confirmations", one.site, one.scope].add(data)

    # -- what follows from it -----------------------------------------------------------------------

    def judge(self, books: dict[bytes, Book]) -> list[Finding]:
        """Everything that is wrong, given each site's verified ledger."""
        found = [finding for site, book in books.items() for finding in self._accounts(site, book)]
        found += self._masks()
        several = {"double_votes": self.votes, "double_releases": self.releases, "equivocations": self.epochs}
        for kind, said in several.items():
            for key, variants in said.items():  # type: ignore[attr-defined]
                if len(variants) > 1:
                    who = next(part for part in key if isinstance(part, bytes))
                    found.append(self._finding(kind, who, f"{len(variants)} different ones where one is allowed"))
        return found

    def _finding(self, kind: str, site: bytes, text: str) -> Finding:
        return Finding(kind, self.roster.member(site).name, text)

    def _accounts(self, site: bytes, book: Book) -> list[Finding]:
        found, total = [], Fraction(0)
        numbers = {entry.hash: entry.seq for entry in book.entries}
        reserved = {entry.reference: entry for entry in book.entries if entry.kind == Kind.RESERVE}
        for h0 in (h0 for who, h0 in self.left if who == site):
            if h0 not in self.prices:
                found.append(self._finding("unaccounted", site, f"slot {h0.hex()[:8]} was never announced"))
            price = self.prices.get(h0)
            total += Fraction(price.mu2) if price else 0
            for why in self._unaccounted(book, reserved.get(h0), price, numbers, self.headers.get((site, h0), set())):
                found.append(self._finding("unaccounted", site, f"slot {h0.hex()[:8]}: {why}"))
        spent = book.spent(self.unit)
        if spent is None or spent.mu2 < total:
            found.append(self._finding("unaccounted", site, "the ledger's total is less than what left"))
        return found

    def _unaccounted(
        self, book: Book, entry: Entry | None, price: Cost | None, numbers: dict[bytes, int], headers: set[Header]
    ) -> Iterable[str]:
        if entry is None:
            yield "an upload left that the ledger has no reservation for"
            return
        if book.states[entry.reference] is Kind.REFUND:
            yield "an upload left whose reservation was refunded"
        if price is not None and entry.charge.costs.get(self.unit) != price:
            yield "it was charged at another price than the task's"
        for header in headers:
            seen = numbers.get(header.ledger_head)
            if seen is None:
                yield "its header names a ledger head that is no entry of the ledger"
            elif seen < entry.seq:
                yield "its header was signed before it was charged"

    def _masks(self) -> list[Finding]:
        found = []
        for said, what in ((self.headers, "headers"), (self.uploads, "messages"), (self.bodies, "masked vectors")):
            for (site, _), variants in said.items():
                if len(variants) > 1:
                    found.append(self._finding("mask_reuse", site, f"{len(variants)} different {what} for one slot"))
        used: dict[tuple[bytes, bytes], bytes] = {}
        for (site, h0), headers in self.headers.items():
            for one in {one for header in headers for one in (*split(header.commits), header.body)}:
                if used.setdefault((site, one), h0) != h0:
                    found.append(self._finding("mask_reuse", site, "one seed, or one masked vector, in two slots"))
        return found
