"""What a demo has to tell at its end, whichever wire it ran over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privfl.errors import Unverified

if TYPE_CHECKING:
    from privfl.dp import Release
    from privfl.homes.trial import Trial
    from privfl.runtime.fit import PrivacyReport
    from privfl.runtime.status import WireSeen
    from privfl.secagg import Transcript

__all__ = ["Asked", "Death", "LedgerFound", "Outcome", "Seen", "read_ledgers"]

DELTA = 1e-5


@dataclass(frozen=True)
class Asked:
    """What the user asked for; the victim and its round follow from the seed."""

    epsilon: float
    sites: int
    seed: int
    rounds: int

    @property
    def fatal(self) -> int:
        """The round in which a site is to die."""
        return 1 + self.rounds // 3 + self.seed % max(1, min(5, self.rounds // 2))

    def victim(self, names: tuple[str, ...]) -> str:
        """The site that is to die."""
        return names[self.seed % self.sites]


@dataclass
class Seen:
    """What passed through the coordinator's hands: every packed vector, and one sum per round."""

    vectors: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * 256)
    example: tuple[str, bytes, list[int]] | None = None

    def observe(self, number: int, result: Any, bodies: Mapping[str, bytes]) -> None:
        """Count the bytes of each masked vector; keep the first as an example beside the opened sum."""
        import numpy as np  # noqa: PLC0415

        for site, body in bodies.items():
            self.vectors += 1
            # the last byte may hold padding, zeros that belong to no mask
            found = np.bincount(np.frombuffer(body, np.uint8)[:-1], minlength=256)
            self.counts = [have + int(more) for have, more in zip(self.counts, found, strict=True)]
            if self.example is None:
                self.example = (site, body[:24], [int(value) for value in result.total[:3]])

    def uniformity(self) -> float:
        """p-value of the hypothesis that the masked bytes are uniform (χ² with 255 degrees of freedom)."""
        from scipy.stats import chisquare  # noqa: PLC0415

        return float(chisquare(self.counts).pvalue)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        example = self.example and (self.example[0], self.example[1].hex(), self.example[2])
        return {"vectors": self.vectors, "counts": self.counts, "example": example}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Seen:
        """What :meth:`plain` made."""
        example = plain["example"]
        return cls(plain["vectors"], plain["counts"], example and (example[0], bytes.fromhex(example[1]), example[2]))


@dataclass(frozen=True)
class Death:
    """A process that was killed: what its ledger said of the round at that instant."""

    site: str
    round: int


@dataclass(frozen=True)
class LedgerFound:
    """A site's ledger, verified without a secret.

    Attributes:
        uploads: of this site in the transcripts, each of which was charged before it was made.
        settled, burnt, refunded: how its reservations ended. epsilon: spent, at the budget's δ.
    """

    site: str
    entries: int
    uploads: int
    settled: int
    burnt: int
    refunded: int
    epsilon: float


def read_ledgers(trial: Trial, transcripts: list[tuple[str, Transcript]]) -> list[LedgerFound]:
    """Verify every site's ledger by the roster's keys, and that it covers every upload in ``transcripts``.

    Raises:
        Unverified: one does not, or misses an upload.
    """
    from privfl.budget import match_transcripts, verify_file  # noqa: PLC0415
    from privfl.dp import epsilon_of_cost  # noqa: PLC0415
    from privfl.homes.rosters import read_rosters  # noqa: PLC0415

    roster = read_rosters(trial.rosters)[-1].roster
    found = []
    members = {member.name: member for member in roster.holding("site")}
    for name, folder in trial.sites.items():
        member = members[name]
        (path,) = (folder / "ledger").glob("*.db")
        book = verify_file(path, member.key).book
        uploads = match_transcripts(book, transcripts)
        made = sum(header.site == member.site_id for _, one in transcripts for header in one.headers)
        spent, limits = book.spent(), book.limits
        if uploads != made or spent is None or limits is None or limits.budget is None:
            raise Unverified(f"{path} covers {uploads} of {made} uploads; the demo's ledgers must cover all")
        kinds = [entry.kind for entry in book.entries]
        ends = [kinds.count(kind) for kind in ("settle", "burn", "refund")]
        epsilon = epsilon_of_cost(spent, limits.budget.delta) if spent.mu2 else 0.0
        found.append(LedgerFound(member.name, len(kinds), uploads, ends[0], ends[1], ends[2], epsilon))
    return found


@dataclass(frozen=True)
class Carried:
    """What the coordinator's end of the wire carried, with its bodies; None where nothing left the process.

    ``seconds``: from the first process to the last.
    """

    kind: str
    messages: int | None
    bytes: int | None
    seconds: float

    @classmethod
    def of(cls, kind: str, wire: WireSeen | None, seconds: float) -> Carried:
        """By a coordinator's status."""
        if wire is None:
            return cls(kind, None, None, round(seconds, 2))
        return cls(kind, wire.sent + wire.received, wire.bytes_sent + wire.bytes_received, round(seconds, 2))


@dataclass(frozen=True)
class Outcome:
    """Everything the demo shows.

    Attributes:
        privacy, release: what the run cost and what that rests on. dropped: round → sites missing from its sum.
        spent: ε by site, by its own account. ledgers: the same from disk, empty where all was in one process.
        accuracy: by way of training, on ``held`` rows that no site has.
        result: folder of model, history, report and transcripts. carried: what the wire had to do.
    """

    sites: int
    rounds: int
    privacy: PrivacyReport
    release: Release
    dropped: Mapping[int, tuple[str, ...]]
    upload_bytes: float
    parameters: int
    verified: int
    seen: Seen
    held: int
    accuracy: Mapping[str, float]
    spent: Mapping[str, float]
    ledgers: tuple[LedgerFound, ...]
    death: Death | None
    result: Path
    carried: Carried | None = None

    def summary(self, seconds: float) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        return {
            "sites": self.sites,
            "dropped": [{"round": number, "sites": list(names)} for number, names in self.dropped.items()],
            "rounds": self.rounds,
            "epsilon": self.privacy.epsilon,
            "delta": self.privacy.delta,
            "accuracy": {name: round(value, 4) for name, value in self.accuracy.items()},
            "upload_bytes_per_parameter": round(self.upload_bytes / self.parameters, 1),
            "transcripts_verified": self.verified,
            "ledgers_verified": len(self.ledgers),
            "spent": dict(self.spent),
            "wire": None if self.carried is None else asdict(self.carried),
            "seconds": round(seconds, 2),
        }
