"""The commands that stay: ``privfl site run`` and ``privfl coordinator run``, with what shows and mends them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from privfl.cli import status
from privfl.cli.roles import AsJson, Folder, PassphraseFile, now, passphrase, quoted, tell
from privfl.errors import Misuse

if TYPE_CHECKING:
    from privfl.homes.site import OpenSite
    from privfl.tasks import SiteData

__all__ = [
    "FLOWER_RUN",
    "LogFormat",
    "LogLevel",
    "Stop",
    "add_to_coordinator",
    "add_to_site",
    "check_own_wire",
    "logging_to",
    "next_run",
]

FLOWER_RUN = "flwr run APP CONNECTION (docs/flower.md)"


class LogFormat(StrEnum):
    """How a line of the log looks."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """What is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


Format = Annotated[LogFormat, typer.Option("--log-format", help="Lines of text, or one JSON object per line.")]
Level = Annotated[LogLevel, typer.Option("--log-level", help="Least level that is logged.")]
File = Annotated[Path | None, typer.Option("--log-file", help="Default: a file in FOLDER; - for standard error.")]
Idle = Annotated[float | None, typer.Option("--stop-when-idle", help="Seconds without a request, then end.", min=0)]
Patience = Annotated[float, typer.Option(help="Seconds a phase waits for the last sites.", min=0.1)]
Grace = Annotated[float, typer.Option(help="Seconds the others get once enough sites have answered.", min=0)]
Gather = Annotated[float, typer.Option(help="Seconds to wait for sites to come up.", min=0)]
Wait = Annotated[float | None, typer.Option(help="Seconds to wait for operators whose own yes is needed.", min=0)]


class Stop:
    """Whether SIGTERM has asked this process to end; it then finishes what it has in hand."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def __call__(self) -> bool:
        return self.asked


def logging_to(folder: Path, name: str, form: LogFormat, level: LogLevel, file: Path | None = None) -> None:
    """Log to ``file`` (``-`` is standard error), by default to the folder's own file."""
    from privfl.runtime.logs import configure  # noqa: PLC0415 - loaded when a command runs

    target = None if str(file) == "-" else file or folder / f"{name}.log"
    configure(form.value, file=target, level=level.value.upper(), who=folder.resolve().name)


def next_run(coordinator: Path) -> str:
    """The command that runs what waits in the coordinator's queue."""
    from privfl.homes.config import CoordinatorConfig  # noqa: PLC0415 - loaded when a command runs

    wire = CoordinatorConfig.read(coordinator).wire
    return FLOWER_RUN if wire is not None and wire.kind == "flower" else f"privfl coordinator run {quoted(coordinator)}"


def check_own_wire(coordinator: Path) -> None:
    """Raise Misuse where only a Flower app can carry the coordinator's mail: no site would ever be heard here."""
    if next_run(coordinator) == FLOWER_RUN:
        raise Misuse(
            f"the coordinator in {coordinator} speaks over Flower, and reaches its sites only from within the Flower "
            f"app: queue tasks with --detach, and run them with: {FLOWER_RUN}"
        )


def add_to_site(app: typer.Typer) -> None:
    """Give ``privfl site`` its commands ``run``, ``status`` and ``acknowledge``."""
    app.command("run", epilog="Example: privfl site run north --log-format json")(_run_site)
    app.command("status")(status.show_site)
    app.command(epilog="Example: privfl site acknowledge north --why 'restored after a disk failure'")(acknowledge)


def add_to_coordinator(app: typer.Typer) -> None:
    """Give ``privfl coordinator`` its commands ``run``, ``status``, ``jobs`` and ``cancel``."""
    app.command("run", epilog="Example: privfl coordinator run coordinator --patience 30")(_run_coordinator)
    app.command("status")(status.show_coordinator)
    app.command(epilog="Example: privfl coordinator jobs coordinator")(jobs)
    app.command(epilog="Example: privfl coordinator cancel coordinator 20261120-101500-0a1b2c")(cancel)


def _run_site(
    folder: Folder,
    idle: Idle = None,
    answer_after: Annotated[
        float,
        typer.Option(min=0, help="Seconds after an announcement at which every upload leaves, however long it took."),
    ] = 0.0,
    app: Annotated[
        bool,
        typer.Option("--app", help="Answer with a private Flower app, whose process calls in, not with a bound table."),
    ] = False,
    app_schema: Annotated[
        Path | None, typer.Option(help="With --app: the schema that the policy pins, by default FOLDER/schema.yaml.")
    ] = None,
    log_format: Format = LogFormat.TEXT,
    log_level: Level = LogLevel.INFO,
    log_file: File = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Serve the site in FOLDER: answer the coordinator, each request after this site's own checks and charges.

    Ends at Ctrl-C (exit 130) or SIGTERM (exit 0) after the request in hand; started again it goes on where it
    was. Whatever a crash leaves open is settled in the ledger at the next start.
    """
    from privfl.runtime.site_process import run_site  # noqa: PLC0415

    stop, word = Stop(), passphrase(folder, passphrase_file)
    logging_to(folder, "site", log_format, log_level, log_file)
    idle_ms = None if idle is None else int(idle * 1000)
    data = _app_data(folder, app_schema) if app or app_schema else None
    uploads = run_site(folder, word, stop=stop, idle_ms=idle_ms, answer_after_ms=int(answer_after * 1000), data=data)
    tell(as_json, {"uploads": uploads}, f"{folder}: stopped after {uploads} uploads; everything is settled")


def _app_data(folder: Path, pinned: Path | None) -> Callable[[OpenSite], SiteData]:
    """What answers in place of a bound table: the functions of the app whose process listens in the folder."""
    from privfl.homes.app_socket import AppCaller  # noqa: PLC0415 - and below: loaded when a command runs
    from privfl.learn.update_data import AppData  # noqa: PLC0415
    from privfl.learn.update_schema import app_schema  # noqa: PLC0415

    calls = AppCaller(folder)
    schema = folder / "schema.yaml" if pinned is None else pinned
    return lambda site: AppData(app_schema(site.policy, schema), calls, calls.present, calls.within)


def _run_coordinator(
    folder: Folder,
    once: Annotated[bool, typer.Option("--once", help="End when no task is waiting.")] = False,
    patience: Patience = 60.0,
    grace: Grace = 2.0,
    gather: Gather = 30.0,
    wait: Wait = None,
    log_format: Format = LogFormat.TEXT,
    log_level: Level = LogLevel.INFO,
    log_file: File = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Run the tasks that privfl train has put into FOLDER, one after the other, and wait for more.

    Stopped and started again, it goes on in the round where it was. A site that is slow or gone stalls nobody:
    once enough have answered, the rest get --grace. A task that needs the yes of sites' operators waits for them, by
    default for ever, while others go first.
    """
    from privfl.runtime.coordinator_process import Pace, run_coordinator  # noqa: PLC0415

    check_own_wire(folder)
    stop, word = Stop(), passphrase(folder, passphrase_file)
    logging_to(folder, "coordinator", log_format, log_level, log_file)
    approval = None if wait is None else int(wait * 1000)
    pace = Pace(int(gather * 1000), int(patience * 1000), int(grace * 1000), approval=approval)
    run_coordinator(folder, word, stop=stop, pace=pace, once=once)
    tell(as_json, {"stopped": True}, f"{folder}: stopped; start it again to go on")


def acknowledge(
    folder: Folder,
    why: Annotated[str, typer.Option(help="What happened and who decided, for the ledger.")],
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """After the alarm that the store in FOLDER is an older copy: go on from the next epoch.

    Do this only when compliance has compared the ledger with the public transcripts. A note stays in the ledger.
    """
    from privfl.runtime.site_process import acknowledge_rollback  # noqa: PLC0415

    lost = acknowledge_rollback(folder, passphrase(folder, passphrase_file), now(), why)
    tell(
        as_json,
        {"acknowledged": lost},
        f"acknowledged: {lost}; this site takes part again from the next epoch",
        f"Next: privfl site run {quoted(folder)}",
    )


def jobs(folder: Folder, as_json: AsJson = False) -> None:
    """List the tasks in FOLDER, oldest first: what is asked, and how far each is."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from privfl.runtime.jobs import jobs_of  # noqa: PLC0415

    found = [(job, job.state()) for job in jobs_of(folder)]
    if as_json:
        rows = [{"job": job.id, "name": job.name, "state": state.state, "error": state.error} for job, state in found]
        tell(True, {"jobs": rows})
        return
    table = Table(title=f"{len(found)} task(s) in {folder}", title_justify="left")
    for heading in ("job", "name", "rounds", "epsilon", "state"):
        table.add_column(heading)
    for job, state in found:
        epsilon = job.fields.get("epsilon")
        cost = "none" if epsilon is None else f"{epsilon:g}"
        table.add_row(job.id, escape(job.name), str(job.rounds), cost, escape(f"{state.state} {state.error}".strip()))
    Console().print(table)


def cancel(
    folder: Folder,
    job: Annotated[str, typer.Argument(help="The job, as privfl coordinator jobs lists it.")],
    as_json: AsJson = False,
) -> None:
    """Take a task out of the queue of FOLDER, or give up one that was interrupted; what is charged stays charged."""
    from privfl.runtime.jobs import cancel_job  # noqa: PLC0415

    cancel_job(folder, job)
    tell(as_json, {"cancelled": job}, f"task {job} is cancelled; what its sites were charged stays charged")
