"""The demo's federation of processes: founded below one folder, run over a wire, one site killed.

Coordinator and sites are processes of their own that meet on the wire only. This process sets up the folders, as an
authority, a compliance officer and operators would, looks on, and kills.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privfl.cli.demo_children import Children, raised_again
from privfl.cli.demo_folder import drawn_passphrase
from privfl.cli.demo_outcome import DELTA, Asked, Carried, Outcome, Seen, read_ledgers
from privfl.cli.demo_strike import Strike
from privfl.cli.demo_wires import DemoWire, Scene, wire_seen
from privfl.errors import WireError

if TYPE_CHECKING:
    from privfl.budget import Policy
    from privfl.homes.trial import Trial
    from privfl.learn import Schema, Task
    from privfl.runtime.jobs import Job

__all__ = ["policy_of", "run_world"]

MANY = 20  # rounds, so that one may be let go by


def policy_of(asked: Asked, schema: Schema, clip: float, now: int) -> Policy:
    """What the demo's compliance officer signs: this task, these columns, this ε and no more.

    Raises:
        Misuse: an ε that no policy takes.
    """
    from privfl.budget import Policy  # noqa: PLC0415
    from privfl.homes.trial import policy_for  # noqa: PLC0415

    changes: dict[str, Any] = {
        "federation": "demo",
        "epsilon": asked.epsilon,
        "delta": DELTA,
        "colluders": max(1, (asked.sites - 1) // 3),
        "tasks": {"logistic": {"clip": clip}},
    }
    return Policy(**policy_for(schema.model_dump(mode="json"), now, **changes))


def run_world(
    place: Path,
    asked: Asked,
    data: tuple[Mapping[str, Any], Schema, Any],
    task: Task,
    policy: Policy,
    wire: DemoWire,
    *,
    bar: bool,
) -> Outcome:
    """Found the federation in ``place``, train, end every process, and check what it left behind.

    Args:
        data: a table per site, the schema, held-out rows. task: as the coordinator will compile it, for its figures.
        policy: as :func:`policy_of` makes it. wire: what the parties speak over. bar: show the progress on a terminal.

    Raises:
        PrivflError: what a process ended with, or what does not verify at the end.
    """
    passphrase = drawn_passphrase(place)
    trial, job = _founded(place, asked, data, policy, passphrase)
    from privfl.cli.roles import now  # noqa: PLC0415

    with wire.running(place):
        wire.join(trial, passphrase, now())
        began = time.monotonic()
        strike = _train(trial, job, asked, passphrase, wire, bar=bar)
        took = time.monotonic() - began
    outcome = _collected(trial, job, asked, task, strike, len(data[2]))
    return replace(outcome, carried=Carried.of(wire.kind, wire_seen(trial), took))


def _founded(
    place: Path, asked: Asked, data: tuple[Mapping[str, Any], Schema, Any], policy: Policy, passphrase: str
) -> tuple[Trial, Job]:
    import yaml  # noqa: PLC0415
    from privfl_keys import ScryptCost  # noqa: PLC0415

    from privfl.cli.roles import now  # noqa: PLC0415
    from privfl.homes.trial import dump_schema, found_trial  # noqa: PLC0415
    from privfl.runtime.jobs import submit  # noqa: PLC0415

    frames, schema, held = data
    rows = place / "rows"
    rows.mkdir(parents=True, mode=0o700)
    paths = {name: rows / f"{name}.csv" for name in frames}
    for name, path in paths.items():
        frames[name].to_csv(path, index=False)
    held.to_csv(rows / "held-out.csv", index=False)
    dump_schema(schema.model_dump(mode="json"), rows / "schema.yaml")
    # An eighth of the standard work: enough against a guess at 128 random bits, and a dozen stores open at once.
    cost = ScryptCost(log_n=14)
    home = place / "federation"
    trial = found_trial(home, paths, rows / "schema.yaml", policy, passphrase, now(), federation="demo", cost=cost)
    wanted = {
        "name": "malignant or benign",
        "task": "logistic",
        "label": "malignant",
        "schema": "schema.yaml",
        "epsilon": asked.epsilon,
        "delta": DELTA,
        "rounds": asked.rounds,
        "mode": "voted",
        "held_out": str(rows / "held-out.csv"),
    }
    file = home / "task.yaml"
    file.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    return trial, submit(trial.coordinator, file, now())


def _train(trial: Trial, job: Job, asked: Asked, passphrase: str, wire: DemoWire, *, bar: bool) -> Strike:
    """Start everybody, kill one, wait for the job, end everybody; raises what ended the job or a process."""
    from privfl.runtime.progress import FollowedProgress  # noqa: PLC0415

    errors = trial.folder / "errors"
    errors.mkdir(mode=0o700)
    with Children(errors, passphrase, wire.environment, wire.removed) as children, ExitStack() as stack:
        scene = Scene(trial, children, passphrase)
        wire.start(scene)
        victim = asked.victim(tuple(trial.sites))
        strike = Strike(scene, victim, wire.victim(scene, victim), asked.fatal, sure=asked.rounds >= MANY)
        shown = stack.enter_context(FollowedProgress(trial.coordinator, job)) if bar else None
        looked = 0.0
        while not (state := job.state()).over:
            wire.check_running(scene, may_end={})
            until = time.monotonic() + 0.05
            while time.monotonic() < until:
                time.sleep(strike.step())
            if shown is not None and time.monotonic() - looked > 0.1:
                shown.look()
                looked = time.monotonic()
        strike.rest()
        if state.state == "failed":
            raise raised_again(state.kind, state.error, state.exit_code)
        wire.finished(scene)
    return strike


def _collected(trial: Trial, job: Job, asked: Asked, task: Task, strike: Strike, held: int) -> Outcome:
    """Read and verify everything that the processes left; nothing is taken from their memory."""
    from privfl_keys import VerifyKey  # noqa: PLC0415

    from privfl.runtime.fit import PrivacyReport  # noqa: PLC0415
    from privfl.secagg import read_transcript, verify_transcript  # noqa: PLC0415

    try:
        summary = json.loads((job.result / "summary.json").read_text(encoding="utf-8"))
        seen = Seen.of(json.loads((trial.folder / "seen.json").read_text(encoding="ascii")))
    except (OSError, ValueError):
        raise WireError(
            "the coordinator ended without a result that can be read; try again with another --dir"
        ) from None
    authority = VerifyKey(bytes.fromhex((trial.authority / "authority.pub").read_text(encoding="ascii").strip()))
    paths = sorted((job.result / "transcripts").glob("*.transcript"))
    transcripts = [(path.name, read_transcript(path.read_bytes())) for path in paths]
    verified = [verify_transcript(one, authority) for _, one in transcripts]
    ledgers = tuple(read_ledgers(trial, transcripts))
    spent = {one.site: one.epsilon for one in ledgers}
    assert task.release is not None
    return Outcome(
        sites=asked.sites,
        rounds=summary["rounds"],
        privacy=PrivacyReport.of(task, summary["uploads"], spent),
        release=task.release,
        dropped={int(number): tuple(names) for number, names in summary["dropped"].items()},
        upload_bytes=summary["upload_bytes"],
        parameters=summary["parameters"],
        verified=len(verified),
        seen=seen,
        held=held,
        accuracy={"distributed": summary["held_out"]},
        spent=spent,
        ledgers=ledgers,
        death=strike.death,
        result=job.result,
    )
