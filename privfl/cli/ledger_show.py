"""How a ledger is shown: entries, totals, ε over time; as a table for people and as values for programs."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from privfl.budget import Book, Entry, LedgerReport
    from privfl.dp import Cost

__all__ = ["ask_to_compare", "show", "show_verified", "shown_json"]

_LONG = re.compile(r"[0-9a-f]{64}")  # a whole digest, which nobody reads in a table


def show(path: Path, book: Book, last: int) -> None:
    """Print one ledger: its ``last`` entries (0 for all), totals, and a plot."""
    from privfl.budget import text_plot  # noqa: PLC0415
    from privfl.budget.ledger_entries import moment  # noqa: PLC0415

    console, opening = Console(), book.opening
    title = (
        f"Ledger of {_plain(opening.population)} in {_plain(opening.federation)}, site {book.key.site_id.hex()[:16]}"
    )
    console.print(Text(f"{title}\n{path}: {len(book.entries)} entries, verified. Head {book.head.hex()[:16]}."))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("#", "time, UTC", "kind", "what", "mu^2", "delta'", "epsilon"):
        words = heading in ("time, UTC", "kind", "what")
        table.add_column(heading, justify="left" if words else "right", overflow="fold", no_wrap=heading != "what")
    entries = book.entries[-last:] if last else book.entries
    so_far = _epsilons(book, entries)
    for entry in entries:
        what = _LONG.sub(
            lambda found: found[0][:12] + "…", ": ".join(word for word in (_who(entry), _words(entry)) if word)
        )
        cells = (str(entry.seq), moment(entry.time)[:16], entry.kind, what, *_cost_words(book, entry))
        table.add_row(*(Text(cell) for cell in (*cells, _number(so_far.get(entry.seq)))))
    console.print(table)
    _show_totals(console, book)
    width = max(36, min(60, console.width - 9))  # below that the two dates do not fit
    console.print(Text(f"\nEpsilon over time (* spent, - budget)\n{text_plot(book, width)}"))


def _show_totals(console: Console, book: Book) -> None:
    from privfl.budget import Purpose  # noqa: PLC0415

    limits = book.limits
    if limits is None or limits.budget is None:
        words = (
            "No policy is in force." if limits is None else "The policy in force has no budget: nothing is protected."
        )
        console.print(words, markup=False)
        return
    table = Table(title=f"\nSpent per {limits.unit}, for life", title_justify="left")
    for heading in ("on", "mu^2", f"epsilon at delta {limits.budget.delta:g}"):
        table.add_column(heading, justify="left" if heading == "on" else "right")
    rows: list[tuple[str, Cost | None]] = [(purpose.value, book.spent(purpose=purpose)) for purpose in Purpose]
    rows += [(f"analyst {_plain(name)}", book.spent(analyst=name)) for name in book.tally.life.analysts() if name]
    for name, cost in [*rows, ("everything", book.spent())]:
        mu2 = "no finite cost" if cost is None else f"{float(cost.mu2):.4g}"
        table.add_row(Text(name), mu2, _number(_epsilon(book, cost)))
    console.print(table)
    words = f"Budget: epsilon {limits.budget.epsilon:g}, mu^2 {float(limits.budget.mu2):.4g}"
    if limits.window_ms is not None and limits.lifetime is not None:
        recent = _epsilon(book, book.spent(now=_now()))
        words += (
            f" in any {limits.window_ms / 86_400_000:.4g} days (spent in the last: epsilon {_number(recent)}); "
            f"for life epsilon {limits.lifetime.epsilon:g}"
        )
    console.print(words + ".", markup=False, highlight=False)


def _now() -> int:
    from privfl.clock import SystemClock  # noqa: PLC0415

    return SystemClock().now()


def shown_json(path: Path, book: Book, last: int) -> dict[str, Any]:
    """The same as plain values; what is infinite is None."""
    from privfl.budget import LedgerReport  # noqa: PLC0415

    limits = book.limits
    budget = limits.budget if limits else None
    entries = book.entries[-last:] if last else book.entries
    so_far = _epsilons(book, entries)
    return {
        "file": str(path),
        **LedgerReport(book).summary(),
        "epsilon": _finite(_epsilon(book, book.spent())),
        "delta": budget.delta if budget else None,
        "budget_epsilon": budget.epsilon if budget else None,
        "ledger": [
            {
                "seq": entry.seq,
                "time": entry.time,
                "kind": entry.kind,
                "purpose": entry.purpose or None,
                "analyst": entry.analyst or None,
                "what": _words(entry),
                "reference": entry.reference.hex() or None,
                "costs": {unit: [mu2, delta] for unit, mu2, delta in entry.costs},
                "epsilon": _finite(so_far.get(entry.seq)),
            }
            for entry in entries
        ],
    }


def _epsilons(book: Book, entries: list[Entry]) -> dict[int, float]:
    """ε after each of these entries, where it changed; in the window, if there is one."""
    from privfl.budget import epsilon_at, history  # noqa: PLC0415

    first = entries[0].seq if entries else 0
    budget = book.limits.budget if book.limits else None
    if budget is None:
        return {}
    return {point.seq: epsilon_at(point.spent, budget.delta) for point in history(book) if point.seq >= first}


def _epsilon(book: Book, cost: Cost | None) -> float | None:
    from privfl.budget import epsilon_at  # noqa: PLC0415

    budget = book.limits.budget if book.limits else None
    return None if budget is None else epsilon_at(cost, budget.delta)


def _cost_words(book: Book, entry: Entry) -> tuple[str, str]:
    unit = str(book.limits.unit) if book.limits else "record"
    for name, mu2, delta in entry.costs:
        if name == unit:
            return f"{float(mu2):.4g}", f"{float(delta):.3g}"
    return ("none", "") if entry.kind == "reserve" else ("", "")


def _who(entry: Entry) -> str:
    return ", ".join(_plain(word) for word in (entry.purpose, entry.analyst) if word)


def _words(entry: Entry) -> str:
    from privfl.budget.ledger_entries import Opening, Stated  # noqa: PLC0415

    if entry.kind == "policy":
        stated = Stated.decode(entry.detail)
        numbers = f"epsilon {stated.budget[0]}, delta {stated.budget[1]}" if stated.budget else "no budget"
        return f"version {stated.version}, {entry.policy.hex()[:16]}: {numbers} per {stated.unit}"
    if entry.kind == "open":
        return _plain(Opening.decode(entry.detail).population)
    return _plain(entry.what)


def _plain(text: str) -> str:
    """Words from a file, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if value < math.inf else "no limit"


def _finite(value: float | None) -> float | None:
    return None if value is None or value == math.inf else value


def show_verified(done: list[tuple[Path, LedgerReport, int]], matched: bool) -> None:
    """Print what verified; ``matched`` where uploads were looked for too."""
    table = Table(title=f"{len(done)} ledger(s) verified", title_justify="left")
    for heading in ("file", "population", "entries", "head", "open", *(["uploads charged"] if matched else [])):
        table.add_column(heading, overflow="fold")
    for path, report, count in done:
        facts = report.summary()
        words = [str(path), _plain(facts["population"]), str(facts["entries"]), facts["head"][:16], str(facts["open"])]
        table.add_row(*(Text(word) for word in (*words, *([str(count)] if matched else []))))
    Console().print(table)


def ask_to_compare(reports: list[LedgerReport]) -> None:
    """Say that a key that came with the ledger proves nothing until someone compares it."""
    from privfl_keys import fingerprint  # noqa: PLC0415

    typer.echo("The key came from the ledger itself. Compare its fingerprint with the roster's:", err=True)
    for words in sorted({fingerprint(report.book.key) for report in reports}):
        typer.echo(f"  {words}", err=True)
