"""``privfl demo``: five hospitals train one model, one of them dies in the middle of a round."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from privfl.errors import Misuse

__all__ = ["demo"]

ROUNDS = 30
DELTA = 1e-5
MARKER = "privfl-demo.json"


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


def demo(
    epsilon: Annotated[float, typer.Option(help="Total privacy budget of the run, at delta 1e-5.")] = 2.0,
    sites: Annotated[int, typer.Option(help="Number of hospitals, 4 to 20.")] = 5,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Who gets which rows, and who dies when; never the noise.")
    ] = 1,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Write model, history, privacy report and transcripts here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON object.")] = False,
) -> None:
    """Watch hospitals train one private model; one dies in the middle of a round.

    Scikit-learn's breast-cancer table is split among them. Every upload is noised and masked at its site;
    the coordinator opens one sum per round. Ends with how good the model is, what it cost, and the proof.

    Example: privfl demo --epsilon 1 --sites 7 --dir demo-out
    """
    started = time.perf_counter()
    if not 4 <= sites <= 20:
        raise Misuse(
            f"--sites {sites}: the demo needs 4 to 20, so that one may die and a sum of the rest still hide each"
        )
    if folder is not None:
        check_folder(folder)
    console = Console(stderr=as_json, highlight=False)
    with errors_only():
        outcome = _run(console, epsilon, sites, seed, quiet=as_json)
    result = outcome.summary(time.perf_counter() - started)
    if folder is not None:
        write_folder(folder, outcome.fit, result)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _show(console, outcome, result, folder)


@contextmanager
def errors_only() -> Iterator[None]:
    """Keep the expected warnings (a site dies, votes that came too late) off the screen while the demo runs."""
    logger = logging.getLogger("privfl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def check_folder(folder: Path) -> None:
    """Raise Misuse unless ``folder`` can be written and holds nothing but an earlier demo; changes nothing."""
    try:
        if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
            raise Misuse(f"{folder} is not empty and holds no earlier demo; choose another --dir")
        at = folder.absolute()
        while not at.exists():
            at = at.parent
        with tempfile.TemporaryDirectory(dir=at, prefix=".privfl-"):
            pass  # a probe: permissions alone do not tell
    except OSError as error:
        raise Misuse(f"cannot write to {folder}: {error.strerror}; choose a writable --dir") from None


def write_folder(folder: Path, fit: Any, result: Mapping[str, Any]) -> None:
    """Put the results into ``folder``, in place of an earlier demo's; raises Misuse."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise Misuse(f"cannot write to {folder}: {error.strerror}; choose a writable --dir") from None
    fit.save(folder)


@dataclass
class Outcome:
    """Everything the demo shows."""

    fit: Any
    sites: int
    victim: str
    round: int
    accuracy: dict[str, float]
    verified: int
    seen: Seen
    held: int

    def summary(self, seconds: float) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        fit = self.fit
        return {
            "sites": self.sites,
            "dropped": [{"round": number, "sites": list(names)} for number, names in fit.dropped.items()],
            "rounds": fit.rounds,
            "epsilon": fit.privacy.epsilon,
            "delta": fit.privacy.delta,
            "accuracy": {name: round(value, 4) for name, value in self.accuracy.items()},
            "upload_bytes_per_parameter": round(fit.upload_bytes / fit.parameters, 1),
            "transcripts_verified": self.verified,
            "seconds": round(seconds, 2),
        }


def _run(console: Console, epsilon: float, sites: int, seed: int, *, quiet: bool) -> Outcome:
    from privfl.learn import Logistic  # noqa: PLC0415 - a wrong argument is answered before these load
    from privfl.learn.datasets import breast_cancer_sites  # noqa: PLC0415
    from privfl.runtime import Federation, Kill  # noqa: PLC0415

    frames, schema, held = breast_cancer_sites(sites, seed)
    spec = Logistic(label="malignant")
    federation = Federation.local(frames, schema)
    victim, number = federation.names[seed % sites], 1 + ROUNDS // 3 + seed % 5
    if not quiet:
        console.print(f"{sites} hospitals share {schema.records} patients: {', '.join(federation.names)}.")
        console.print(f"{victim} will be killed in round {number}, between accepting and uploading.\n")
    seen = Seen()
    options: dict[str, Any] = {"epsilon": epsilon, "delta": DELTA, "rounds": ROUNDS, "held_out": held}
    fit = federation.train(
        spec,
        **options,
        progress=not quiet,
        kills=[Kill(victim, number, "accepted")],
        observer=seen.observe,
        mode="voted",
    )
    verified = len(fit.transcript.verify())
    if not quiet:
        console.print(
            f"[dim]round {number}: {victim} died, the other {sites - 1} went on; it was back in the next.[/dim]"
        )
        console.print("[dim]for comparison: every site noising for itself, one site alone, and no privacy …[/dim]")
    local = federation.train(spec, **options, trust="local", progress=not quiet, mode="voted")
    accuracy = {
        "pooled": pooled_accuracy(frames, schema, held),
        "distributed": float(fit.held_out["score"].iloc[-1]),
        "local": float(local.held_out["score"].iloc[-1]),
        "alone": alone_accuracy(spec, frames, schema, held, epsilon),
    }
    return Outcome(fit, sites, victim, number, accuracy, verified, seen, len(held))


def pooled_accuracy(frames: Mapping[str, Any], schema: Any, held: Any) -> float:
    """Accuracy of the same kind of model on all rows in one place, without privacy."""
    import numpy as np  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    parts, test = [schema.bind(frame) for frame in frames.values()], schema.bind(held)
    rows = np.vstack([part.values for part in parts])
    labels = np.concatenate([part.label("malignant")[0] for part in parts])
    return float(LogisticRegression(max_iter=2000).fit(rows, labels).score(test.values, test.label("malignant")[0]))


def alone_accuracy(spec: Any, frames: Mapping[str, Any], schema: Any, held: Any, epsilon: float) -> float:
    """Mean accuracy of each site training on its own rows at the same ε, with its own full noise."""
    from privfl.entropy import SYSTEM  # noqa: PLC0415

    own = schema.model_copy(update={"records": max(1, schema.records // len(frames))})
    scores = []
    for frame in frames.values():
        task = spec.compile(own, epsilon=epsilon, delta=DELTA, rounds=ROUNDS, trust="local", sites=1)
        bound, state = own.bind(frame), task.initial_state()
        while task.done(state) is None:
            state = task.update(state, task.upload(task.model_bytes(state), bound, SYSTEM), 1)
        scores.append(task.evaluate(state, held)["score"])
    return float(sum(scores) / len(scores))


def _show(console: Console, outcome: Outcome, result: dict[str, Any], folder: Path | None) -> None:
    fit, privacy = outcome.fit, outcome.fit.privacy
    score = outcome.accuracy["distributed"]
    error = 100 * (score * (1 - score) / max(1, outcome.held)) ** 0.5
    title = f"\nHow good is the model? (one run, {outcome.held} held-out patients)"
    table = Table(title=title, title_justify="left")
    table.add_column("trained as")
    table.add_column(f"accuracy, ± {error:.1f}", justify="right")
    for name, words in (
        ("pooled", "all rows in one place, no privacy"),
        ("distributed", "privfl, noise shared among the sites"),
        ("local", "privfl, every site noises for itself"),
        ("alone", "one site alone at the same epsilon (mean of all)"),
    ):
        table.add_row(words, f"{100 * outcome.accuracy[name]:.1f} %", style="bold" if name == "distributed" else "")
    console.print(table)
    cost = Table(title="\nWhat did it cost?", title_justify="left", show_header=False)
    cost.add_row("epsilon, delta", f"{privacy.epsilon:.3f}, {privacy.delta:g} per patient record ({fit.rounds} rounds)")
    cost.add_row(
        "what it rests on", f"noise of {fit.task.release.honest} honest sites, {fit.task.release.colluders} colluding"
    )
    cost.add_row("if all other sites collude", f"epsilon {privacy.fallback_epsilon:.3f}")
    cost.add_row("each site's own account", ", ".join(f"{name} {spent:.3f}" for name, spent in privacy.spent.items()))
    cost.add_row(
        "upload", f"{fit.upload_bytes:.0f} B per round, {result['upload_bytes_per_parameter']} B per parameter"
    )
    console.print(cost)
    _show_proof(console, outcome)
    console.print(f"\nDone in {result['seconds']:.1f} s.")
    if folder is not None:
        command = "privfl" if shutil.which("privfl") else sys.argv[0]
        console.print("Check it yourself, without any secret:")
        console.print(f"  {command} transcript verify {folder}/transcripts/*.transcript", soft_wrap=True)


def _show_proof(console: Console, outcome: Outcome) -> None:
    fit, seen = outcome.fit, outcome.seen
    proof = Table(title="\nWhat did the coordinator see?", title_justify="left", show_header=False)
    proof.add_row("masked vectors", f"{seen.vectors}, bytes uniform with p = {seen.uniformity():.2f}")
    if seen.example is not None:
        site, body, total = seen.example
        proof.add_row("such a vector begins", f"{body.hex(' ', 8)} … (site {site[:8]})")
        proof.add_row("and the opened sum", ", ".join(str(value) for value in total) + " …")
    proof.add_row("sums opened", f"{fit.rounds}, one per round")
    for number, names in fit.dropped.items():
        proof.add_row("who dropped", f"{', '.join(names)} in round {number}; its vector is in no sum")
    proof.add_row("transcripts verified", f"{outcome.verified} of {fit.rounds}, with the authority's public key alone")
    console.print(proof)
