"""What a training run leaves behind: the model, its history, what it cost, and the proof of who saw what."""

from __future__ import annotations

import html
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privfl_keys import VerifyKey

from privfl.dp import Release, Trust, Unit
from privfl.errors import Misuse
from privfl.learn import History, Task, save_model
from privfl.runtime.run import STOPPED_EARLY
from privfl.secagg import Transcript, Verified, verify_transcript

if TYPE_CHECKING:
    import pandas as pd

    from privfl.dp import Cost

__all__ = ["Fit", "PrivacyReport", "Transcripts", "replace_results", "transcript_name"]


def transcript_name(transcript: Transcript) -> str:
    """The file name of a round's transcript, which sorts by epoch and round."""
    a = transcript.announcement
    return f"epoch-{a.scope.epoch:03d}-round-{a.round:03d}-attempt-{a.attempt}.transcript"


def replace_results(target: Path, write: Callable[[Path], None]) -> Path:
    """Have ``write`` fill a folder, and put what it wrote in place of an earlier run's results all at once.

    Raises:
        Misuse: the folder cannot be written.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".privfl-") as staged:
            write(Path(staged))
            for old in (target / "transcripts").glob("*.transcript"):
                old.unlink()
            for path in sorted(path for path in Path(staged).rglob("*") if path.is_file()):
                place = target / path.relative_to(staged)
                place.parent.mkdir(exist_ok=True)
                path.replace(place)
    except OSError as error:
        raise Misuse(f"cannot write to {target}: {error.strerror}; choose a writable folder") from None
    return target


class Transcripts(Sequence[Transcript]):
    """The public transcripts of a run, one per opened round, with the key they are verified against."""

    def __init__(self, transcripts: Sequence[Transcript], authority: VerifyKey) -> None:
        self._all, self.authority = tuple(transcripts), authority

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Transcript]:
        return iter(self._all)

    def __getitem__(self, at):  # type: ignore[no-untyped-def]
        return Transcripts(self._all[at], self.authority) if isinstance(at, slice) else self._all[at]

    def verify(self) -> list[Verified]:
        """Verify every transcript without any secret; raises Unverified for the first that fails."""
        return [verify_transcript(one, self.authority) for one in self._all]

    def to_frame(self) -> pd.DataFrame:
        """One row per verified round: survivors, dropped, quorum, releases."""
        import pandas as pd  # noqa: PLC0415 - slow to load, and seldom needed

        rows = [
            {
                "round": one.round,
                "attempt": one.attempt,
                "survivors": len(one.survivors),
                "dropped": ", ".join(one.dropped),
                "votes": one.votes,
                "quorum": one.quorum,
                "releases": one.releases,
                "blamed": ", ".join(one.blamed),
            }
            for one in self.verify()
        ]
        return pd.DataFrame(rows, columns=list(rows[0]) if rows else None)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``round-NNN-A.transcript`` files and ``authority.pub``; returns the transcripts' paths."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        (target / "authority.pub").write_text(self.authority.raw.hex() + "\n", encoding="ascii")
        paths = []
        for one in self._all:
            path = target / transcript_name(one)
            path.write_bytes(one.encode())
            paths.append(path)
        return paths

    def __repr__(self) -> str:
        return f"Transcripts({len(self._all)} rounds; verify() checks them without any secret)"


@dataclass(frozen=True)
class PrivacyReport:
    """What a run cost and on which assumptions the figure rests.

    Attributes:
        epsilon, delta: of everything that was asked for, aborted and refused attempts included, so never less than
            what any site was charged; its own ledger has the exact figure. Infinite without noise.
        uploads: asked for per site. planned: what the budget was calibrated for.
        fallback_epsilon: if every other site colludes with the coordinator.
        spent: ε by site, from each site's own account of this run.
        runs, lifetime_epsilon: runs of the federation on these tables so far, this one included, and the ε of all
            of them together at the same δ, in the smallest unit that any of them protected.
    """

    epsilon: float
    delta: float
    uploads: int
    planned: int
    unit: str
    trust: str
    mu: float
    fallback_epsilon: float
    spent: Mapping[str, float]
    words: str
    runs: int = 1
    lifetime_epsilon: float = math.inf

    @classmethod
    def of(
        cls,
        task: Task,
        uploads: int,
        spent: Mapping[str, float],
        past: Sequence[tuple[Release | None, int]] = (),
        sites_per_subject: int = 1,
    ) -> PrivacyReport:
        """The report of ``uploads`` charged uploads of ``task``, after earlier runs' releases and uploads."""
        release, delta = task.release, task.plan.delta
        if release is None or delta is None:
            text = "No noise was added: the result itself carries no differential privacy."
            runs = 1 + len(past)
            return cls(math.inf, 0.0, uploads, task.plan.rounds, "none", "none", math.inf, math.inf, spent, text, runs)
        from privfl.dp import Cost, epsilon_of_cost  # noqa: PLC0415 - SciPy is loaded when a figure is asked for

        charged = max(1, uploads)
        fallback = Cost(charged * Fraction(release.fallback_mu) ** 2, charged * release.delta)
        words, lifetime = release.words(delta, charged), task.epsilon_after(charged)
        if past:
            lifetime, unit = _lifetime([*past, (release, charged)], delta)
            words += f"\nAll {1 + len(past)} runs on these tables together: "
            words += f"epsilon {lifetime:.3f} at delta {delta:g} per {unit}."
        words += several_sites(charged * release.cost, release.trust, delta, sites_per_subject)
        return cls(
            task.epsilon_after(charged),
            delta,
            uploads,
            task.plan.rounds,
            str(release.unit),
            str(release.trust),
            release.mu * math.sqrt(charged),
            epsilon_of_cost(fallback, delta),
            spent,
            words,
            1 + len(past),
            lifetime,
        )

    def __repr__(self) -> str:
        return (
            f"PrivacyReport(epsilon {self.epsilon:.3f} at delta {self.delta:g} per {self.unit}, trust {self.trust}, "
            f"{self.uploads} of {self.planned} uploads; {self.fallback_epsilon:.3f} if all others collude"
            + (f"; {self.lifetime_epsilon:.3f} over all {self.runs} runs)" if self.runs > 1 else ")")
        )

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.words)}</pre>"


def several_sites(total: Cost, trust: Trust, delta: float, k: int) -> str:
    """What a policy's assumption that a subject's rows may be at ``k`` sites makes of a run's cost; nothing for 1.

    As the ledgers charge it (:meth:`privfl.budget.Limits.price`): k sites' own noises compose, and where noise is
    shared a subject moves one sum k times as far.
    """
    if k == 1:
        return ""
    from privfl.dp import Cost, epsilon_of_cost  # noqa: PLC0415 - SciPy is loaded when a figure is asked for

    whole = Cost(total.mu2 * (k if trust is Trust.LOCAL else k * k), total.delta * k)
    epsilon = epsilon_of_cost(whole, delta) if whole.delta < Fraction(delta) else math.inf
    return (
        f"\nThe policy expects one subject's rows at up to {k} sites: for such a subject epsilon is {epsilon:.3f}, "
        "which is what the ledgers are charged."
    )


def _lifetime(runs: Sequence[tuple[Release | None, int]], delta: float) -> tuple[float, Unit]:
    """ε of all runs together, counted in the smallest of their units; infinite after a run without noise."""
    from privfl.dp import ZERO_COST, epsilon_of_cost  # noqa: PLC0415 - as above

    releases = [(release, uploads) for release, uploads in runs if release is not None]
    unit = next(unit for unit in Unit if any(release.unit is unit for release, _ in releases))
    if len(releases) < len(runs):
        return math.inf, unit
    total = ZERO_COST
    for release, uploads in releases:
        total += uploads * release.cost_in(unit)
    return (epsilon_of_cost(total, delta) if total.delta < Fraction(delta) else math.inf), unit


@dataclass(frozen=True)
class Fit:
    """The result of :meth:`privfl.Federation.train`.

    Attributes:
        model: a fitted scikit-learn estimator on raw columns.
        history: noisy metrics per round. privacy: what it cost. transcript: proof of every round.
        held_out: exact score and loss per round on rows the coordinator holds itself; empty without.
        dropped: round → names of sites missing from its sum.
        stopped: why the run ended. seconds: wall time.
        upload_bytes: mean bytes of one upload, everything included. parameters: coordinates of the model.
        coordinates: length of one upload.
    """

    model: Any
    history: History
    privacy: PrivacyReport
    transcript: Transcripts
    task: Task
    held_out: pd.DataFrame
    dropped: Mapping[int, tuple[str, ...]]
    stopped: str
    seconds: float
    upload_bytes: float
    parameters: int

    @property
    def rounds(self) -> int:
        """Rounds whose sum was opened."""
        return len(self.transcript)

    def figures(self, name: str) -> dict[str, Any]:
        """The run in a few public figures."""
        score = self.history.smoothed()
        return {
            "name": name,
            "rounds": self.rounds,
            "stopped": self.stopped,
            "stopped_early": self.stopped.startswith(STOPPED_EARLY),
            "dropped": {str(number): list(names) for number, names in self.dropped.items()},
            "score": None if score is None else score[0],
            "score_sd": None if score is None else score[1],
            "held_out": None if self.held_out.empty else float(self.held_out["score"].iloc[-1]),
            "seconds": round(self.seconds, 3),
            "upload_bytes": self.upload_bytes,
            "parameters": self.parameters,
            "uploads": self.privacy.uploads,
        }

    def save(self, folder: str | Path) -> Path:
        """Write model, history, privacy report and transcripts into ``folder``, without pickle.

        Results of an earlier run there are replaced, once all of the new ones are written.

        Raises:
            Misuse: the folder cannot be written.
        """
        return replace_results(Path(folder), self._write)

    def _write(self, target: Path) -> None:
        save_model(self.model, target / "model.json")
        self.history.to_frame().to_csv(target / "history.csv")
        report = {
            "epsilon": self.privacy.epsilon if math.isfinite(self.privacy.epsilon) else None,
            "delta": self.privacy.delta,
            "uploads": self.privacy.uploads,
            "unit": self.privacy.unit,
            "trust": self.privacy.trust,
            "words": self.privacy.words,
            "runs": self.privacy.runs,
            "lifetime_epsilon": self.privacy.lifetime_epsilon if math.isfinite(self.privacy.lifetime_epsilon) else None,
        }
        (target / "privacy.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        self.transcript.save(target / "transcripts")

    def __repr__(self) -> str:
        lines = [
            f"Fit({type(self.model).__name__} after {self.rounds} rounds in {self.seconds:.1f} s; {self.stopped})",
            f"  {self.history!r}",
            f"  {self.privacy!r}",
            f"  {self.transcript!r}",
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"
