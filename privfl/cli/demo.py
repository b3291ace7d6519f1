"""``privfl demo``: five hospitals train one model, one of them dies in the middle of a round."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from privfl.cli.demo_children import ending_on
from privfl.cli.demo_folder import MARKER, check_folder, passing_folder, put_results, users_folder
from privfl.cli.demo_outcome import DELTA, Asked, Carried, Death, Outcome, Seen
from privfl.cli.demo_show import show, show_next, show_sites
from privfl.errors import Misuse
from privfl.tasks.plugins import plugin

if TYPE_CHECKING:
    from privfl.cli.demo_wires import DemoWire
    from privfl.learn import Logistic, Task
    from privfl.runtime import Federation

__all__ = ["demo"]

ROUNDS = 30


class What(StrEnum):
    """What there is to watch."""

    TRAINING = "training"
    ANALYTICS = "analytics"


class Wire(StrEnum):
    """What the parties speak over."""

    FOLDER = "folder"
    MEMORY = "memory"
    AWS = "aws"
    FLOWER = "flower"


def demo_wire(wire: Wire) -> DemoWire:
    """What carries the mail of a demo whose parties are processes."""
    from privfl.cli.demo_wires import FolderDemo  # noqa: PLC0415 - after the arguments

    if wire is Wire.AWS:
        from privfl.cli.demo_aws import AwsDemo  # noqa: PLC0415

        return AwsDemo()
    if wire is Wire.FLOWER:
        from privfl.cli.demo_flower import FlowerDemo  # noqa: PLC0415

        return FlowerDemo()
    return FolderDemo()


def demo(
    what: Annotated[
        What, typer.Argument(help="training: one private model; analytics: a study before training.")
    ] = What.TRAINING,
    epsilon: Annotated[float, typer.Option(help="Total privacy budget of the run, at delta 1e-5.")] = 2.0,
    sites: Annotated[int, typer.Option(help="Number of hospitals, 4 to 20.")] = 5,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Who gets which rows, and who dies when; never the noise.")
    ] = 1,
    wire: Annotated[
        Wire,
        typer.Option(
            help="folder: every party a process, over a shared folder; aws: over SQS and S3 of an emulator; flower: "
            "over a SuperLink and SuperNodes on this computer; memory: all in this process."
        ),
    ] = Wire.FOLDER,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Leave model, history, privacy report, transcripts and all folders here."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="The same in a temporary folder, whose name is told.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON object.")] = False,
) -> None:
    """Watch hospitals train one private model, or answer a study, each a process of its own.

    training: scikit-learn's breast-cancer table is split among them; one dies in the middle of a round. analytics:
    ten queries about made-up admissions, in one round, after every operator said yes. Every hospital and the
    coordinator has its folder, its keys, its signed policy and its ledger. Every upload is charged, noised and
    masked at its site; the coordinator opens one sum per round. Ends with what came out, what it cost, and the proof.

    Example: privfl demo analytics --epsilon 1 --dir demo-out
    """
    started = time.perf_counter()
    if not 4 <= sites <= 20:
        raise Misuse(
            f"--sites {sites}: the demo needs 4 to 20, so that one may die and a sum of the rest still hide each"
        )
    carrier = None if wire is Wire.MEMORY else demo_wire(wire)
    if carrier is not None:
        carrier.check()
    if folder is not None:
        check_folder(folder)
    console = Console(stderr=as_json, highlight=False)
    if what is What.ANALYTICS:
        if carrier is None:
            raise Misuse("--wire memory: the study's parties are processes; choose --wire folder, aws or flower")
        _analytics(console, (epsilon, sites, seed), carrier, folder, keep, as_json)
        return
    rounds = ROUNDS if carrier is None else min(ROUNDS, carrier.most_rounds)
    asked, kept = Asked(epsilon, sites, seed, rounds), keep or folder is not None
    with ExitStack() as stack:
        stack.enter_context(errors_only())
        stack.enter_context(ending_on(signal.SIGTERM, signal.SIGHUP))
        stage = _Stage(console, asked, quiet=as_json)
        place = stack.enter_context(users_folder(folder) if folder else passing_folder(keep=keep))
        outcome = stage.memory(place / "result") if carrier is None else stage.processes(place, carrier)
        result = outcome.summary(time.perf_counter() - started)
        if kept:
            put_results(place, outcome.result, result)
            stage.tidy(place)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        show(console, outcome, result)
    if kept and not (as_json and folder):
        show_next(console, outcome, folder or place)


def _analytics(
    console: Console,
    asked: tuple[float, int, int],
    wire: DemoWire,
    folder: Path | None,
    keep: bool,
    as_json: bool,
) -> None:
    run_demo = plugin("privfl.demos", "analytics")
    with ExitStack() as stack:
        stack.enter_context(errors_only())
        stack.enter_context(ending_on(signal.SIGTERM, signal.SIGHUP))
        place = stack.enter_context(users_folder(folder) if folder else passing_folder(keep=keep))
        result = run_demo(console, *asked, place, wire, quiet=as_json)
        if folder is not None or keep:
            (place / MARKER).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(result))
    elif folder is not None or keep:
        show_sites(console, folder or place)


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


class _Stage:
    """The demo's tables, task and policy, made before anything is written; raises Misuse and BudgetExceeded."""

    def __init__(self, console: Console, asked: Asked, *, quiet: bool) -> None:
        from privfl.cli.demo_world import policy_of  # noqa: PLC0415 - a wrong argument is answered before these load
        from privfl.cli.roles import now  # noqa: PLC0415
        from privfl.learn import Logistic  # noqa: PLC0415
        from privfl.learn.datasets import breast_cancer_sites  # noqa: PLC0415
        from privfl.runtime import Federation  # noqa: PLC0415

        self.console, self.asked, self.quiet = console, asked, quiet
        self.frames, self.schema, self.held = breast_cancer_sites(asked.sites, asked.seed)
        self.spec: Logistic = Logistic(label="malignant")
        self.federation: Federation = Federation.local(self.frames, self.schema)
        roster = self.federation.roster
        self.task: Task = self.spec.compile(
            self.schema,
            epsilon=asked.epsilon,
            delta=DELTA,
            rounds=asked.rounds,
            trust="distributed",
            sites=asked.sites,
            min_survivors=roster.default_min_survivors,
            colluders=roster.corrupt_bound,
        )
        self.policy = policy_of(asked, self.schema, self.spec.clip, now())
        self._say(f"{asked.sites} hospitals share {self.schema.records} patients: {', '.join(self.frames)}.")

    def _say(self, words: str) -> None:
        if not self.quiet:
            self.console.print(words)

    def processes(self, place: Path, wire: DemoWire) -> Outcome:
        """Every party a process of its own, over a wire between them."""
        from privfl.cli.demo_world import run_world  # noqa: PLC0415

        victim, number = self.asked.victim(tuple(self.frames)), self.asked.fatal
        self._say(
            f"Each of them and the coordinator is a process; {victim} will be killed in the middle of round {number} "
            f"of {self.asked.rounds}, or soon after."
        )
        self._say(f"{wire.told()}\n" if wire.told() else "")
        data = self.frames, self.schema, self.held
        outcome = run_world(place, self.asked, data, self.task, self.policy, wire, bar=not self.quiet)
        self._say(f"[dim]{_told(victim, outcome)}[/dim]")
        return self._compared(outcome)

    def memory(self, result: Path) -> Outcome:
        """All in this process, over the memory wire."""
        from privfl.runtime import Kill  # noqa: PLC0415

        victim, number = self.asked.victim(tuple(self.frames)), self.asked.fatal
        self._say(f"{victim} will be killed in round {number}, between accepting and uploading.\n")
        seen, began = Seen(), time.monotonic()
        fit = self.federation.train(
            self.spec,
            epsilon=self.asked.epsilon,
            delta=DELTA,
            rounds=self.asked.rounds,
            held_out=self.held,
            progress=not self.quiet,
            kills=[Kill(victim, number, "accepted")],
            observer=seen.observe,
            mode="voted",
        )
        fit.save(result)
        assert fit.task.release is not None
        outcome = Outcome(
            sites=self.asked.sites,
            rounds=fit.rounds,
            privacy=fit.privacy,
            release=fit.task.release,
            dropped=fit.dropped,
            upload_bytes=fit.upload_bytes,
            parameters=fit.parameters,
            verified=len(fit.transcript.verify()),
            seen=seen,
            held=len(self.held),
            accuracy={"distributed": float(fit.held_out["score"].iloc[-1])},
            spent=fit.privacy.spent,
            ledgers=(),
            death=Death(victim, number) if number in fit.dropped else None,
            result=result,
            carried=Carried("memory", None, None, round(time.monotonic() - began, 2)),
        )
        self._say(f"[dim]{_told(victim, outcome)}[/dim]")
        return self._compared(outcome)

    def _compared(self, outcome: Outcome) -> Outcome:
        from privfl.cli.demo_compare import compared  # noqa: PLC0415

        self._say("[dim]for comparison: every site noising for itself, one site alone, and no privacy …[/dim]")
        others = compared(self.asked, self.federation, self.spec, self.frames, self.held, bar=not self.quiet)
        order: Mapping[str, Any] = {"pooled": 0, **outcome.accuracy, **others}
        return replace(outcome, accuracy=order)

    def tidy(self, place: Path) -> None:
        """Remove what served the demo only."""
        import shutil  # noqa: PLC0415

        shutil.rmtree(place / "result", ignore_errors=True)
        for name in ("seen.json", "pause"):
            (place / "federation" / name).unlink(missing_ok=True)
        shutil.rmtree(place / "federation" / "errors", ignore_errors=True)


def _told(victim: str, outcome: Outcome) -> str:
    """What became of the victim, as transcripts and ledger have it."""
    death, others = outcome.death, outcome.sites - 1
    if death is None:
        return f"{victim} was not killed: the run was over before it was caught in the middle of a round."
    missed = [number for number, names in outcome.dropped.items() if victim in names and number >= death.round]
    if death.round not in missed:
        return f"round {death.round}: {victim} died, and its upload had left before; the other {others} went on."
    back = next(number for number in range(death.round, outcome.rounds + 2) if number not in missed)
    again = "it was not back before the end" if back > outcome.rounds else f"it was back in round {back}"
    return f"round {death.round}: {victim} died, the other {others} went on; {again}."
