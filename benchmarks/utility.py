"""What the noise costs in accuracy: ``python -m benchmarks.utility [--seeds 20] [--json]``.

Five equal sites train one logistic regression at a total (ε, δ = 1e-5), with the real integer mechanisms and
exact noise: clipped sums in integers, every site's share of discrete Gaussian noise, addition in the
ring. Masks are left out, since they cancel in the sum to the last bit.

Every constant is public and printed with the table. The recipe (clip, rounds, memory, averaging, the rule of
the rate) was chosen once, for both tables and all ε together, by validation inside training parts only
(seeds 1000 and up, a fifth of the training rows held back); no split's test rows had a say in its result.
As with any small table, a row that tests one split trains another, and the published reference ranges of the
breast-cancer features summarise, without labels, all its rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from privfl.dp import Trust
from privfl.entropy import SYSTEM
from privfl.learn import BoundData, Logistic, Schema, Task
from privfl.learn.datasets import (
    breast_cancer_frame,
    breast_cancer_schema,
    dealt,
    digits_frame,
    digits_schema,
)
from privfl.ring import centred, to_words

EPSILONS = (8.0, 4.0, 2.0, 1.0)
DELTA = 1e-5
SITES = 5
ROUNDS = 30
FOLDS = 5
COLLUDERS = 1
SOURCES = {
    "breast_cancer": (breast_cancer_frame, breast_cancer_schema, "malignant"),
    "digits": (digits_frame, digits_schema, "digit"),
}
#: Mean test accuracy to reach within 0.7, in percent, by ε from 8 to 1.
GOALS = {
    ("breast_cancer", Trust.DISTRIBUTED): (97.1, 96.7, 95.4, 93.8),
    ("breast_cancer", Trust.LOCAL): (96.4, 95.0, 93.4, 90.7),
    ("digits", Trust.DISTRIBUTED): (94.4, 93.6, 89.7, 81.2),
    ("digits", Trust.LOCAL): (93.3, 89.0, 79.9, 67.1),
}
TOLERANCE = 0.7


class Split(NamedTuple):
    """One seed's split, bound once and used for every ε and trust."""

    tasks: dict[tuple[float, Trust], Task]
    sites: list[BoundData]
    held: pd.DataFrame
    label: str
    pooled: float


def compiled(spec: Logistic, schema: Schema, epsilon: float, trust: Trust) -> Task:
    """Complete mode: all five sites must arrive, so four honest shares of noise remain beside one colluder."""
    return spec.compile(
        schema,
        epsilon=epsilon,
        delta=DELTA,
        sites=SITES,
        rounds=ROUNDS,
        trust=trust,
        min_survivors=SITES,
        colluders=COLLUDERS,
    )


def prepare(name: str, seed: int) -> Split:
    """Split, bind and compile for one seed; also the accuracy of pooling all rows without privacy.

    Five seeds share a shuffle and hold out one stratified fifth each, so that every row tests equally often.
    """
    frame, schema_for, label = SOURCES[name][0](), SOURCES[name][1], SOURCES[name][2]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed // FOLDS)
    train, test = list(folds.split(frame, frame[label]))[seed % FOLDS]
    schema, held = schema_for(len(train)), frame.iloc[test]
    parts = dealt(frame.iloc[train], SITES, seed)
    spec = Logistic(label=label)
    tasks = {(epsilon, trust): compiled(spec, schema, epsilon, trust) for epsilon in EPSILONS for trust in Trust}
    sites = [schema.bind(frame) for frame in parts.values()]
    features = np.vstack([site.values for site in sites])
    truth = np.concatenate([site.label(label)[0] for site in sites])
    other = schema.bind(held)
    pooled = LogisticRegression(max_iter=2000).fit(features, truth).score(other.values, other.label(label)[0])
    return Split(tasks, sites, held, label, 100.0 * float(pooled))


def accuracy(split: Split, task: Task) -> float:
    """Train through the noised ring sum and score the finished scikit-learn model on raw held-out rows, in percent."""
    state = task.initial_state()
    while task.done(state) is None:
        model = task.model_bytes(state)
        total = np.zeros(task.length, dtype=task.ring.dtype)
        for site in split.sites:
            total += to_words(task.upload(model, site, SYSTEM), task.ring)
        state = task.update(state, centred(total, task.ring), SITES)
    said = task.finish(state).predict(split.held[list(task.features)])
    return 100.0 * float(np.mean(said == split.held[split.label].to_numpy()))


def measure(seeds: int, console: Console) -> tuple[dict[tuple[str, float, Trust], list[float]], dict[str, list[float]]]:
    """Accuracies by table, ε and trust, one per seed; and those of pooling without privacy."""
    found: dict[tuple[str, float, Trust], list[float]] = {}
    pooled: dict[str, list[float]] = {name: [] for name in SOURCES}
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("training", total=seeds * len(SOURCES) * len(EPSILONS) * len(Trust))
        for name in SOURCES:
            for seed in range(seeds):
                split = prepare(name, seed)
                pooled[name].append(split.pooled)
                for (epsilon, trust), task in split.tasks.items():
                    found.setdefault((name, epsilon, trust), []).append(accuracy(split, task))
                    progress.advance(bar)
    return found, pooled


def constants() -> dict[str, object]:
    """Everything a run of this benchmark depends on besides seed and noise."""
    spec = Logistic(label="label")
    chosen = spec.model_dump(exclude={"kind", "label", "features", "target", "rate", "loss_cap"})
    return {
        **chosen,
        "rate": "classes * min(signal/noise, 100) / (rounds * clip); signal/noise from records, sigma and length",
        "rounds": ROUNDS,
        "sites": SITES,
        "delta": DELTA,
        "held_out": "1/5, stratified, by turns",
        "min_survivors": SITES,
        "colluders": COLLUDERS,
        "digits": "pixels 0 to 16, center 5, scale 6",
        "breast_cancer": "bounds, mean and deviation of each published feature, two digits: privfl/learn/datasets.py",
    }


def show(
    console: Console, found: dict[tuple[str, float, Trust], list[float]], pooled: dict[str, list[float]], seeds: int
) -> None:
    """Print the constants and the table, goal beside result."""
    for key, value in constants().items():
        console.print(f"  {key}: {value}", style="dim", highlight=False)
    table = Table(title=f"mean test accuracy, % (± standard error of {seeds} splits); goal in brackets")
    for heading in ("table", "epsilon", "distributed", "local"):
        table.add_column(heading)
    for name in SOURCES:
        table.add_row(name, "none", f"{statistics.fmean(pooled[name]):.1f} (pooled)", "")
        for place, epsilon in enumerate(EPSILONS):
            cells = [
                _cell(found[name, epsilon, trust], GOALS[name, trust][place])
                for trust in (Trust.DISTRIBUTED, Trust.LOCAL)
            ]
            table.add_row("", f"{epsilon:g}", *cells)
    console.print(table)


def _cell(values: list[float], goal: float) -> str:
    mean = statistics.fmean(values)
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    verdict = "" if mean >= goal - TOLERANCE else "  BELOW"
    return f"{mean:.1f} ± {error:.1f} ({goal}){verdict}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.utility", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20, help="splits to average over")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    found, pooled = measure(options.seeds, Console(stderr=True))
    if not options.json:
        show(Console(), found, pooled, options.seeds)
        return
    tables = {
        name: {
            f"{epsilon:g}": {str(trust): round(statistics.fmean(found[name, epsilon, trust]), 2) for trust in Trust}
            for epsilon in EPSILONS
        }
        for name in SOURCES
    }
    print(json.dumps(tables))


if __name__ == "__main__":
    main()
