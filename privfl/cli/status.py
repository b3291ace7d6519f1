"""``privfl site status`` and ``privfl coordinator status``: what a process is doing, from its folder, live."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from privfl.clock import SystemClock
from privfl.errors import Misuse

if TYPE_CHECKING:
    from privfl.runtime.status import CoordinatorStatus, SiteStatus

__all__ = ["show_coordinator", "show_site"]

EVERY_S = 0.25
HEAD_LINES = 26  # of a screen that is looked at live; what is left is for sites
FEWEST_ROWS = 5
_ENDS = {"failed": 1, "stopped": 1}  # exit codes; running, done and elsewhere are 0
_COLOURS = {"running": "green", "done": "green", "failed": "red", "stopped": "red", "elsewhere": "yellow"}

_Folder = Annotated[Path, typer.Argument(help="The folder of the process.")]
_Follow = Annotated[
    bool,
    typer.Option(
        "--follow", "--watch", "-f", help="Keep showing it until it ends; Ctrl-C stops looking, with exit code 0."
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True)
class _Look:
    """When it was looked, what the wire's carrier says beside, and how many sites fit on the screen (None: all)."""

    now: int
    notes: tuple[str, ...] = ()
    rows: int | None = None


_Draw = Callable[[Any, str, _Look], RenderableType]


def show_site(folder: _Folder, follow: _Follow = False, as_json: _Json = False) -> None:
    """Show what a site is doing: slot, stage, what it waits for, uploads, refusals, its wire, what it has spent.

    Exits with 0 while it runs and when it ended by itself, 1 when it failed or was killed, 2 without a status.

    Example: privfl site status north --follow
    """
    from privfl.runtime.status import SiteStatus  # noqa: PLC0415 - the help need not wait for it

    _show(folder, SiteStatus, _site, follow, as_json)


def show_coordinator(folder: _Folder, follow: _Follow = False, as_json: _Json = False) -> None:
    """Show what a coordinator is doing: round, deadline, its wire, who has uploaded, who is late, who refused and why.

    Exits with 0 while it runs and when its job is done, 1 when it failed or was killed, 2 without a status.

    Example: privfl coordinator status hub --follow
    """
    from privfl.runtime.status import CoordinatorStatus  # noqa: PLC0415 - the help need not wait for it

    _show(folder, CoordinatorStatus, _coordinator, follow, as_json)


def _show(folder: Path, kind: Any, draw: _Draw, follow: bool, plain: bool) -> None:
    from privfl.runtime import status as statuses  # noqa: PLC0415

    if follow and plain:
        raise Misuse("--follow is for people and --json for programs; choose one, or ask for --json again and again")
    path = folder / statuses.NAME
    clock = SystemClock()

    def look() -> tuple[Any, statuses.Life, tuple[str, ...]]:
        found = statuses.read_status(path, kind)
        return found, statuses.life(found), statuses.read_notes(folder)

    found, life, notes = look()
    if plain:
        typer.echo(json.dumps({"life": life, "now": clock.now(), **statuses.as_json(found), "wire_notes": list(notes)}))
    elif follow:
        life = _follow(look, draw, clock)
    else:
        Console().print(draw(found, life, _Look(clock.now(), notes)))
    raise typer.Exit(_ENDS.get(life, 0))


def _follow(look: Callable[[], tuple[Any, Any, tuple[str, ...]]], draw: _Draw, clock: Any) -> Any:
    """Draw until the process ends, or whoever looks has seen enough."""
    from rich.live import Live  # noqa: PLC0415

    console = Console()

    def drawn() -> tuple[RenderableType, Any]:
        found, life, notes = look()
        rows = max(FEWEST_ROWS, console.height - HEAD_LINES) if console.is_terminal else None
        return draw(found, life, _Look(clock.now(), notes, rows)), life

    picture, life = drawn()
    try:
        with Live(picture, console=console, auto_refresh=False) as live:
            while life in ("running", "elsewhere"):
                time.sleep(EVERY_S)
                picture, life = drawn()
                live.update(picture, refresh=True)
    except KeyboardInterrupt:
        return "running"
    return life


def _words(text: object, style: str = "") -> Text:
    """A peer's words: no markup, no control characters."""
    from privfl.runtime.plain import escaped  # noqa: PLC0415

    return Text(escaped(str(text)), style=style)


def _ago(then: int | None, now: int) -> str:
    """
    >>> _ago(1_000, 62_000), _ago(None, 0), _ago(3_000, 0)
    ('1 min 1 s ago', '–', 'in 3 s')
    """
    if then is None:
        return "–"
    length = _length(abs(now - then))
    return f"in {length}" if then > now else f"{length} ago"


def _length(ms: int) -> str:
    seconds = ms // 1000
    for name, size, less, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size} {name} {seconds % size // part} {less}"
    return f"{seconds} s"


def _date(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "beyond all calendars"


def _bytes(count: int) -> str:
    """
    >>> _bytes(999), _bytes(1_500_000)
    ('999 B', '1.5 MB')
    """
    size, unit = float(count), "B"
    for bigger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, bigger
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def _slot(status: SiteStatus | CoordinatorStatus) -> str:
    names = ("epoch", "round", "attempt")
    return ", ".join(f"{name} {getattr(status, name)}" for name in names if getattr(status, name) is not None) or "–"


def _head(title: str, status: SiteStatus | CoordinatorStatus, life: str, now: int) -> Table:
    table = Table(title=_words(title), title_justify="left", show_header=False)
    process = status.process
    word = {"elsewhere": f"on {process.host}, which cannot be asked from here", "stopped": "stopped: start it again"}
    table.add_row("process", _words(word.get(life, life), _COLOURS[life]))
    table.add_row("", _words(f"pid {process.pid}, began {_ago(process.began, now)}"))
    return table


def _add_wire(table: Table, status: SiteStatus | CoordinatorStatus, life: str, look: _Look) -> None:
    """Whether it can be used, what went through it, and what was wrong with it."""
    wire, now = status.wire, look.now
    if wire is None:
        return
    state, style = "works", "green"
    if life in ("done", "failed", "stopped"):
        state, style = "not in use", ""
    elif wire.since is not None:
        state, style = f"cannot be used, since {_ago(wire.since, now)}; tried {_times(wire.tries)}, and again", "red"
    table.add_row("wire", _words(f"{wire.place or wire.kind}: {state}", style))
    if wire.since is not None:
        table.add_row("", _words(wire.fault, "red"))
    elif wire.faults:
        over = f"was away {_times(wire.faults)}, last until {_ago(wire.ended, now)}: {wire.fault}"
        table.add_row("", _words(over, "yellow"))
    into, out = _bytes(wire.bytes_received), _bytes(wire.bytes_sent)
    table.add_row("in", f"{wire.received} messages, {into} with their bodies")
    table.add_row("out", f"{wire.sent} messages, {out} with their bodies; last passed {_ago(wire.last, now)}")
    for note in look.notes:
        table.add_row("", _words(note))


def _times(count: int) -> str:
    """
    >>> _times(1), _times(3)
    ('once', '3 times')
    """
    return "once" if count == 1 else f"{count} times"


def _site(status: SiteStatus, life: str, look: _Look) -> RenderableType:
    now = look.now
    table = _head(f"site {status.name} in {status.federation}", status, life, now)
    if status.alarm:
        table.add_row("ALARM", _words(status.alarm, "bold red"))
    table.add_row("doing", _words(f"{status.stage}, since {_ago(status.since, now)}"))
    if status.waits_for:
        table.add_row("waits for", _words(status.waits_for))
    table.add_row("at", _slot(status))
    table.add_row("last active", _ago(status.active, now))
    _add_wire(table, status, life, look)
    table.add_row("roster", "–" if status.roster is None else f"version {status.roster}")
    expiry = "" if status.policy_expires is None else f", expires {_date(status.policy_expires)}"
    table.add_row("policy", "–" if status.policy is None else f"version {status.policy}{expiry}")
    table.add_row("uploads", f"{status.uploads}, {_bytes(status.bytes_sent)} sent")
    refused = f"{status.refusals}, last: {status.refusal}" if status.refusals else "0"
    table.add_row("refusals", _words(refused))
    if status.pending:
        table.add_row("requests", _words(f"{status.pending} waiting for you: privfl site requests FOLDER", "yellow"))
    if status.epsilon is not None:
        total = "" if status.epsilon_total is None else f" of {status.epsilon_total:.3f}"
        table.add_row("epsilon spent", f"{status.epsilon:.3f}{total}")
        for purpose, spent in sorted(status.epsilon_by.items()):
            table.add_row("", _words(f"{purpose} {spent:.3f}"))
    if status.error and not (status.wire is not None and status.wire.since is not None):  # or it was shown above
        table.add_row("last error", _words(status.error, "red"))
    return table


def _coordinator(status: CoordinatorStatus, life: str, look: _Look) -> RenderableType:
    now = look.now
    table = _head(f"coordinator of {status.federation}", status, life, now)
    table.add_row("job", _words(f"{status.name or '–'} {status.job[:16]}".strip()))
    table.add_row("doing", _words(f"{status.phase}, since {_ago(status.since, now)}"))
    if status.waits_for:
        table.add_row("waits for", _words(_few(status.waits_for)))
    table.add_row("at", f"round {status.round} of {status.rounds}{_pace(status, now)}")
    table.add_row("", _slot(status))
    table.add_row("deadline", _ago(status.deadline, now))
    _add_wire(table, status, life, look)
    if status.score is not None:
        table.add_row("noisy score", f"{status.score:.3f}")
    if status.aborted:
        table.add_row("last attempt lost", _words(status.aborted, "yellow"))
    if status.error and not (status.wire is not None and status.wire.since is not None):  # or it was shown above
        table.add_row("last error", _words(status.error, "red"))
    return Group(table, *_sites(status, look)) if status.sites else table


def _pace(status: CoordinatorStatus, now: int) -> str:
    began, took = status.round_began, status.last_round_ms
    if began is None or str(status.phase) in ("done", "failed"):
        return ""
    before = "" if took is None else f"; the one before took {took / 1000:.1f} s"
    return f", begun {_ago(began, now)}{before}"


def _few(names: str, most: int = 12) -> str:
    """
    >>> _few("a, b, c", 2)
    'a, b and 1 more'
    """
    found = names.split(", ")
    return names if len(found) <= most else f"{', '.join(found[:most])} and {len(found) - most} more"


def _sites(status: CoordinatorStatus, look: _Look) -> list[RenderableType]:
    """One row per site; where not all fit, those that hold the round up come first."""
    table = Table(title=f"\n{sum(s.uploaded for s in status.sites)} of {len(status.sites)} sites have uploaded")
    table.title_justify = "left"
    for heading in ("site", "this round", "missed", "last seen", "sent", "sent to it"):
        table.add_column(heading)
    shown = list(status.sites)
    if look.rows is not None and len(shown) > look.rows:
        shown = sorted(shown, key=lambda one: (one.uploaded, not one.late, not one.refused))[: look.rows]
    for site in shown:
        word, style = ("uploaded", "green") if site.uploaded else ("late", "red") if site.late else ("waited for", "")
        word, style = (f"refused: {site.refused}", "yellow") if site.refused else (word, style)
        seen, missed = _ago(site.seen, look.now), str(site.missed or "–")
        row = (missed, seen, _bytes(site.bytes_sent), _bytes(site.bytes_to))
        table.add_row(_words(site.name), _words(word, style), *row)
    more = len(status.sites) - len(shown)
    return [table, Text(f"… and {more} more; for all: the same without --follow")] if more else [table]
