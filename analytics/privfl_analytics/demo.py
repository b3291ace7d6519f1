"""``privfl demo analytics``: five hospitals answer a study before training, each operator having said yes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from privfl.cli.demo_children import Children, raised_again
from privfl.cli.demo_folder import drawn_passphrase
from privfl.cli.demo_outcome import Carried, read_ledgers
from privfl.cli.demo_wires import DemoWire, Scene, wire_seen
from privfl.clock import SystemClock
from privfl.errors import WireError

if TYPE_CHECKING:
    import pandas as pd

    from privfl.homes.trial import Trial
    from privfl.runtime.jobs import Job
    from privfl_analytics.result import StudyResult
    from privfl_analytics.study import Study

__all__ = ["AnalyticsDemo", "pre_training_study", "run_demo"]

DELTA = 1e-6
PATIENTS = 6000


def pre_training_study() -> Study:
    """What a data scientist asks before training: how many, how spread, how different, how related, how long until."""
    from privfl_analytics.datasets import RISK  # noqa: PLC0415 - brings numpy
    from privfl_analytics.study import Study  # noqa: PLC0415

    text = """
study: pre-training
description: Is the cohort of admissions fit for a model of readmission?
queries:
  - {count: rows, name: patients, by: [ward]}
  - {missing: hba1c, name: missing HbA1c}
  - {mean: age, name: mean age, by: [sex]}
  - {sd: bmi, name: spread of BMI}
  - {histogram: age, bins: 16, name: ages}
  - {quantiles: systolic, name: blood pressure}
  - {values: readmitted, name: label balance}
  - {correlation: [age, bmi, systolic], name: related}
  - {survival: months, event: event, bins: 18, by: [treatment], name: time to event}
  - {roc: risk, label: readmitted, positive: true, name: old score}
"""
    return replace(Study.from_yaml(text), scores=(RISK,))


@dataclass(frozen=True)
class Known:
    """A number of the pooled rows, which only a demonstration can see: the query, which row of its answer, and it."""

    query: str
    what: str
    at: Mapping[str, str]
    exact: float


def known_truths(frames: Mapping[str, pd.DataFrame]) -> list[Known]:
    """Some of the pooled answers, by pandas and scikit-learn."""
    import numpy as np  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415

    from privfl_analytics.datasets import RISK  # noqa: PLC0415

    pooled = pd.concat(list(frames.values()), ignore_index=True)
    pooled["systolic"] = pooled["systolic"].where(pooled["systolic"] != 999)
    whole = pooled.dropna(subset=list(RISK.weights))
    logit = sum(weight * whole[name] for name, weight in RISK.weights.items()) + RISK.intercept
    auc = roc_auc_score(whole["readmitted"], 1 / (1 + np.exp(-logit)))
    related = pooled[["age", "bmi", "systolic"]].dropna().corr()
    return [
        Known("patients", "count", {"ward": "surgery"}, float((pooled["ward"] == "surgery").sum())),
        Known("missing HbA1c", "missing", {}, float(pooled["hba1c"].isna().sum())),
        Known("mean age", "mean", {"sex": "f"}, float(pooled.loc[pooled["sex"] == "f", "age"].mean())),
        Known("spread of BMI", "sd", {}, float(pooled["bmi"].std())),
        Known("related", "correlation", {"column": "age", "other": "systolic"}, float(related.to_numpy()[0, 2])),
        Known("old score", "auc", {}, float(auc)),
    ]


class AnalyticsDemo:
    """The demo's tables, study and policy, made before anything is written; raises Misuse and BudgetExceeded.

    Args:
        epsilon: price of the study. sites, seed: of the made-up hospitals. quiet: say nothing on the way.
    """

    def __init__(self, console: Console, epsilon: float, sites: int, seed: int, *, quiet: bool) -> None:
        from privfl.budget import Policy  # noqa: PLC0415 - a wrong argument is answered before these load
        from privfl.cli.roles import now  # noqa: PLC0415
        from privfl.homes.trial import policy_for  # noqa: PLC0415
        from privfl_analytics.datasets import hospital_schema, hospital_tables  # noqa: PLC0415

        self.console, self.epsilon, self.quiet = console, epsilon, quiet
        self.frames, self.schema = hospital_tables(sites, seed, PATIENTS), hospital_schema(PATIENTS)
        self.study = pre_training_study()
        self.question = self.study.compile(self.schema, epsilon=epsilon, delta=DELTA, sites=sites, unit="subject")
        changes: dict[str, Any] = {
            "federation": "demo",
            "unit": "subject",
            "epsilon": 2 * epsilon,
            "delta": DELTA,
            "shares": {"analytics": 0.75, "monitoring": 0.25},
            "colluders": max(1, (sites - 1) // 3),
            "tasks": {},
            "statistics": list(self.study.statistics),
            "approval": ["analytics"],
            "schema_digest": self.schema.digest.hex(),
        }
        self.policy = Policy(**policy_for(self.schema.model_dump(mode="json"), now(), **changes))
        self._say(f"{sites} hospitals hold {PATIENTS} declared patients: {', '.join(self.frames)}.")
        self._say(f"A data scientist asks the study {self.study.name!r}: {len(self.study.queries)} queries, one round.")

    def _say(self, words: str) -> None:
        if not self.quiet:
            self.console.print(words, markup=False, highlight=False)

    def run(self, place: Path, wire: DemoWire) -> dict[str, Any]:
        """Found the federation below ``place``, ask over ``wire``, approve at every site, check what is left; for JSON.

        Raises:
            PrivflError: what a process ended with, or what does not verify at the end.
        """
        started = time.perf_counter()
        passphrase = drawn_passphrase(place)
        trial, job = self._founded(place, passphrase)
        with wire.running(place):
            wire.join(trial, passphrase, SystemClock().now())
            began = time.monotonic()
            approved = self._asked(trial, job, passphrase, wire)
            carried = Carried.of(wire.kind, wire_seen(trial), time.monotonic() - began)
        found = self._checked(trial, job)
        found["approved_by"], found["wire"] = approved, asdict(carried)
        found["seconds"] = round(time.perf_counter() - started, 2)
        return found

    def _founded(self, place: Path, passphrase: str) -> tuple[Trial, Job]:
        from privfl_keys import ScryptCost  # noqa: PLC0415

        from privfl.cli.roles import now  # noqa: PLC0415
        from privfl.dp import Unit  # noqa: PLC0415
        from privfl.homes.trial import dump_schema, found_trial  # noqa: PLC0415
        from privfl.runtime.jobs import submit  # noqa: PLC0415
        from privfl_analytics.jobs import RunSettings, asked_of  # noqa: PLC0415

        rows = place / "rows"
        rows.mkdir(parents=True, mode=0o700)
        paths = {}
        for at, (name, frame) in enumerate(self.frames.items()):  # each hospital keeps its table in its own way
            paths[name] = rows / f"{name}{'.parquet' if at % 2 else '.csv'}"
            (frame.to_parquet if at % 2 else frame.to_csv)(paths[name], index=False)
        dump_schema(self.schema.model_dump(mode="json", exclude_none=True), rows / "schema.yaml")
        cost, home = ScryptCost(log_n=14), place / "federation"
        trial = found_trial(
            home, paths, rows / "schema.yaml", self.policy, passphrase, now(), federation="demo", cost=cost
        )
        settings = RunSettings(epsilon=self.epsilon, delta=DELTA, unit=Unit.SUBJECT, mode="voted")
        return trial, submit(trial.coordinator, asked_of(self.study, self.schema, settings), now())

    def _asked(self, trial: Trial, job: Job, passphrase: str, wire: DemoWire) -> list[str]:
        """Start everybody, answer as the operators, wait for the job, end everybody; names of who approved."""
        errors = trial.folder / "errors"
        errors.mkdir(mode=0o700)
        approved: list[str] = []
        with Children(errors, passphrase, wire.environment, wire.removed) as children:
            scene = Scene(trial, children, passphrase)
            wire.start(scene)
            while not (state := job.state()).over:
                wire.check_running(scene, may_end={"coordinator": 0})
                for name in self._operators(trial, passphrase):
                    approved.append(name)
                    self._say(f"the operator of {name} read what would leave, and approved")
                time.sleep(0.05)
            if state.state == "failed":
                raise raised_again(state.kind, state.error, state.exit_code)
            wire.finished(scene)
        return approved

    def _operators(self, trial: Trial, passphrase: str) -> Iterator[str]:
        """What ``privfl site approve`` does, at every site with a request that waits."""
        from privfl.cli.requests_desk import Desk  # noqa: PLC0415
        from privfl.cli.roles import now  # noqa: PLC0415
        from privfl.homes.folder import open_store  # noqa: PLC0415
        from privfl.homes.requests import NOTHING, Answer, State  # noqa: PLC0415

        for name, folder in trial.sites.items():
            desk = Desk.open(folder)
            for request in desk.book.all():
                known = desk.noted.get(request.id, NOTHING)
                if desk.book.standing(request, known).state is not State.PENDING:
                    continue
                with open_store(folder, passphrase) as (_, identity):
                    desk.book.decide(identity.key, request, Answer.APPROVE, now(), known=known)
                yield name

    def _checked(self, trial: Trial, job: Job) -> dict[str, Any]:
        """Read and verify everything that the processes left; nothing is taken from their memory."""
        from privfl_keys import VerifyKey  # noqa: PLC0415

        from privfl.secagg import read_transcript, verify_transcript  # noqa: PLC0415
        from privfl_analytics.result import StudyResult  # noqa: PLC0415

        try:
            figures = json.loads((job.result / "summary.json").read_text(encoding="utf-8"))
            self.result: StudyResult = StudyResult.load(job.result)
        except (OSError, ValueError):
            raise WireError("the coordinator ended without a result that can be read; try another --dir") from None
        authority = VerifyKey(bytes.fromhex((trial.authority / "authority.pub").read_text(encoding="ascii").strip()))
        paths = sorted((job.result / "transcripts").glob("*.transcript"))
        transcripts = [(path.name, read_transcript(path.read_bytes())) for path in paths]
        verified = [verify_transcript(one, authority) for _, one in transcripts]
        ledgers = read_ledgers(trial, transcripts)
        self.truths = known_truths(self.frames)
        inside = sum(self._inside(one) for one in self.truths)
        self.folder = job.result
        return {
            **figures,
            "sites": len(trial.sites),
            "queries": len(self.study.queries),
            "answers": {name: answer.to_value() for name, answer in self.result.answers.items()},
            "truths_inside": inside,
            "truths": len(self.truths),
            "transcripts_verified": len(verified),
            "ledgers_verified": len(ledgers),
            "spent": {one.site: one.epsilon for one in ledgers},
        }

    def _inside(self, known: Known) -> bool:
        row = self._row(known)
        return row.lower is not None and row.upper is not None and row.lower <= known.exact <= row.upper

    def _row(self, known: Known) -> Any:
        rows = self.result[known.query].rows
        return next(row for row in rows if row.what == known.what and dict(row.at) == dict(known.at))

    def show(self, figures: Mapping[str, Any]) -> None:
        """Answers beside what the pooled rows would have said, what it cost, and the proof."""
        table = Table(title=f"{self.study.name}: {len(self.study.queries)} queries in one upload", title_justify="left")
        for heading in ("query", "of", "private answer", "95 % interval", "pooled rows"):
            table.add_column(heading, justify="left" if heading in ("query", "of") else "right")
        for known in self.truths:
            row = self._row(known)
            interval = "" if row.lower is None else f"{_short(row.lower)} to {_short(row.upper)}"
            of = ", ".join(known.at.values())
            table.add_row(known.query, of, _short(row.value), interval, _short(known.exact))
        table.caption = (
            "the last column is known to this demonstration only; intervals are for the population, noise included"
        )
        self.console.print(table)
        self.console.print(f"Privacy: {self.result.privacy}.", markup=False, highlight=False, soft_wrap=True)
        spent = max(figures["spent"].values())
        self.console.print(
            f"Each of {figures['ledgers_verified']} ledgers verifies and shows epsilon {spent:.3f} spent; "
            f"{figures['transcripts_verified']} transcript(s) verify with the authority's key alone; "
            f"{len(figures['approved_by'])} operators said yes before anything was charged.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        self.console.print(f"Done in {figures['seconds']:.1f} s.", highlight=False)


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def run_demo(
    console: Console, epsilon: float, sites: int, seed: int, place: Path, wire: DemoWire, *, quiet: bool
) -> dict[str, Any]:
    """Carry the demo out and show it; returns what ``--json`` prints."""
    demo = AnalyticsDemo(console, epsilon, sites, seed, quiet=quiet)
    if not quiet and wire.told():
        console.print(wire.told(), highlight=False)
    found = demo.run(place, wire)
    if not quiet:
        demo.show(found)
    return found
