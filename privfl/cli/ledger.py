"""``privfl ledger``: show, verify and export what a site has charged; needs no secret and changes nothing."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from privfl.errors import Malformed, Misuse, Unverified

if TYPE_CHECKING:
    from privfl_keys import VerifyKey

    from privfl.budget import Anchor, Book, Entry, LedgerReport
    from privfl.secagg import Transcript

__all__ = ["app"]

app = typer.Typer(help="Show, verify and export a site's privacy ledger.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Target = Annotated[Path, typer.Argument(help="A site's folder, a ledger file, or an export.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")]


@app.command(epilog="Example: privfl ledger show north --plot epsilon.png")
def show(
    target: Target,
    last: Annotated[int, typer.Option(help="How many entries to list; 0 for all.", min=0)] = 40,
    plot: Annotated[Path | None, typer.Option(help="Also write the plot to this .png or .svg file.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show TARGET: its entries, totals by purpose and analyst, and epsilon over time against the budget.

    The whole ledger is verified first. Works while the site runs, and without its passphrase.
    """
    from privfl.budget import picture  # noqa: PLC0415

    found = [(path, _load(path).book) for path in _files(target)]
    if plot is not None:
        if len(found) > 1:
            raise Misuse(f"{target} holds {len(found)} ledgers and a plot shows one; name the file")
        _write(plot, picture(found[0][1], plot.suffix.lstrip(".").lower()), force)
    if as_json:
        typer.echo(json.dumps({"ledgers": [_shown_json(path, book, last) for path, book in found]}))
        return
    for path, book in found:
        _show(path, book, last)


@app.command(epilog="Example: privfl ledger verify north --transcripts north/transcripts")
def verify(
    targets: Annotated[list[Path], typer.Argument(help="Site folders, ledger files (.db) or exports (.json).")],
    key: Annotated[str | None, typer.Option(help="The site's public key from the roster, in hex or as a file.")] = None,
    anchor: Annotated[str | None, typer.Option(help="What is remembered: NUMBER:HASH of an entry seen before.")] = None,
    transcripts: Annotated[
        list[Path] | None, typer.Option(help="Public transcripts, files or folders: each upload must be charged.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify TARGETS without any secret: the chain, every signature, the limits; names the first bad entry.

    With --transcripts also that every upload of this site was charged before it was made.
    Exits with 3 if anything does not verify.
    """
    from privfl.budget import match_transcripts  # noqa: PLC0415

    known, mark, done = _key(key), _anchor(anchor), []
    rounds = _transcripts(transcripts or [])
    for path in (path for target in targets for path in _files(target)):
        report = _load(path, known, mark)
        try:
            done.append((path, report, match_transcripts(report.book, rounds)))
        except Unverified as error:
            raise Unverified(f"{path}: {error}") from None
    if as_json:
        files = [{"file": str(path), **report.summary(), "matched": matched} for path, report, matched in done]
        typer.echo(json.dumps({"verified": len(done), "files": files}))
        return
    _show_verified(done, bool(rounds))
    if known is None:
        _ask_to_compare([report for _, report, _ in done])


@app.command(epilog="Example: privfl ledger export north --out north-ledger.json")
def export(
    target: Target,
    out: Annotated[Path, typer.Option(help="The JSON file to write.", show_default=False)],
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write TARGET as JSON for an auditor, who can check it with: privfl ledger verify FILE"""
    from privfl.budget import export_json  # noqa: PLC0415

    paths = _files(target)
    if len(paths) > 1:
        raise Misuse(f"{target} holds {len(paths)} ledgers; name one: {', '.join(str(path) for path in paths)}")
    report = _load(paths[0])
    data = export_json(report.book)
    _write(out, data, force)
    if as_json:
        typer.echo(json.dumps({"file": str(out), "bytes": len(data), **report.summary()}))
        return
    typer.echo(f"{out}: {len(report.book.entries)} entries, {len(data)} bytes. It holds no secret.")
    typer.echo(f"Check it with: privfl ledger verify {out}")


def _files(target: Path) -> list[Path]:
    """The ledger files that an operator means: of a site's folder, of a folder of ledgers, or one file."""
    if not target.is_dir():
        if not target.exists():
            raise Misuse(f"there is nothing at {target}; name a site's folder, a ledger file or an export")
        return [target]
    inner = target / "ledger"
    found = sorted((inner if inner.is_dir() else target).glob("*.db"))
    if not found:
        raise Misuse(f"there is no ledger in {target}; a site's folder has one in ledger/ once it has joined")
    return found


def _load(path: Path, key: VerifyKey | None = None, anchor: Anchor | None = None) -> LedgerReport:
    from privfl.budget import verify_export, verify_file  # noqa: PLC0415

    try:
        if path.suffix == ".json":
            try:
                data = path.read_bytes()
            except OSError as error:
                raise Misuse(f"{path} cannot be read ({error.strerror}); check its owner and mode") from None
            return verify_export(data, key, anchor)
        return verify_file(path, key, anchor)
    except Unverified as error:
        message = str(error)
        raise Unverified(message if message.startswith(str(path)) else f"{path}: {message}") from None


def _write(path: Path, data: bytes, force: bool) -> None:
    from privfl.homes.files import write_file  # noqa: PLC0415

    if os.path.lexists(path) and not force:
        raise Misuse(f"{path} exists and is not overwritten; choose another name, or add --force")
    write_file(path, data, mode=0o644)


def _key(given: str | None) -> VerifyKey | None:
    from privfl_keys import VerifyKey  # noqa: PLC0415

    if given is None:
        return None
    try:
        path = Path(given)
        text = path.read_text(encoding="ascii") if path.is_file() else given
        return VerifyKey(bytes.fromhex(text.strip()))
    except (OSError, ValueError, Unverified):
        raise Misuse("a site's public key is 32 bytes in hexadecimal, or a file that holds them") from None


def _anchor(given: str | None) -> Anchor | None:
    from privfl.budget import Anchor  # noqa: PLC0415

    if given is None:
        return None
    number, _, head = given.partition(":")
    try:
        anchor = Anchor(int(number), bytes.fromhex(head))
        return Anchor.decode(anchor.encode())
    except (ValueError, Malformed):
        raise Misuse("an anchor is NUMBER:HASH, as: 17: and then the 64 digits of that entry's hash") from None


def _transcripts(given: list[Path]) -> list[tuple[str, Transcript]]:
    from privfl.secagg import read_transcript  # noqa: PLC0415

    found: list[tuple[str, Transcript]] = []
    for place in given:
        paths = sorted(place.glob("*.transcript")) if place.is_dir() else [place]
        if not paths:
            raise Misuse(f"there is no transcript in {place}; their names end in .transcript")
        for path in paths:
            if not path.is_file():
                raise Misuse(f"{path}: there is no such file")
            try:
                found.append((str(path), read_transcript(path.read_bytes())))
            except Malformed as error:
                raise Unverified(f"{path} is not a whole transcript ({error}); fetch it again") from None
    return found


def _show(path: Path, book: Book, last: int) -> None:
    from privfl.budget import text_plot  # noqa: PLC0415
    from privfl.budget.ledger_entries import moment  # noqa: PLC0415

    console, opening = Console(), book.opening
    title = (
        f"Ledger of {_plain(opening.population)} in {_plain(opening.federation)}, site {book.key.site_id.hex()[:16]}"
    )
    console.print(Text(f"{title}\n{path}: {len(book.entries)} entries, verified. Head {book.head.hex()[:16]}."))
    table = Table()
    for heading in ("#", "time", "kind", "for", "what", "mu^2", "delta'", "epsilon so far"):
        table.add_column(heading, justify="right" if heading in ("#", "mu^2", "delta'", "epsilon so far") else "left")
    entries = book.entries[-last:] if last else book.entries
    so_far = _epsilons(book, entries)
    for entry in entries:
        who = ", ".join(_plain(word) for word in (entry.purpose, entry.analyst) if word)
        mu2, delta = _cost_words(book, entry)
        words = (str(entry.seq), moment(entry.time)[:19], entry.kind, who, _words(entry), mu2, delta)
        table.add_row(*(Text(word) for word in (*words, _number(so_far.get(entry.seq)))))
    console.print(table)
    _show_totals(console, book)
    console.print(Text(f"\nEpsilon over time (* spent, - budget)\n{text_plot(book)}"))


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
    rows: list[tuple[str, Any]] = [(purpose.value, book.spent(purpose=purpose)) for purpose in Purpose]
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


def _shown_json(path: Path, book: Book, last: int) -> dict[str, Any]:
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


def _epsilon(book: Book, cost: Any) -> float | None:
    from privfl.budget import epsilon_at  # noqa: PLC0415

    budget = book.limits.budget if book.limits else None
    return None if budget is None else epsilon_at(cost, budget.delta)


def _cost_words(book: Book, entry: Entry) -> tuple[str, str]:
    unit = str(book.limits.unit) if book.limits else "record"
    for name, mu2, delta in entry.costs:
        if name == unit:
            return f"{float(mu2):.4g}", f"{float(delta):.3g}"
    return ("none", "") if entry.kind == "reserve" else ("", "")


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


def _show_verified(done: list[tuple[Path, LedgerReport, int]], matched: bool) -> None:
    table = Table(title=f"{len(done)} ledger(s) verified", title_justify="left")
    for heading in ("file", "population", "entries", "head", "open", *(["uploads charged"] if matched else [])):
        table.add_column(heading)
    for path, report, count in done:
        facts = report.summary()
        words = [str(path), _plain(facts["population"]), str(facts["entries"]), facts["head"][:16], str(facts["open"])]
        table.add_row(*(Text(word) for word in (*words, *([str(count)] if matched else []))))
    Console().print(table)


def _ask_to_compare(reports: list[LedgerReport]) -> None:
    from privfl_keys import fingerprint  # noqa: PLC0415

    typer.echo("The key came from the ledger itself. Compare its fingerprint with the roster's:", err=True)
    for words in sorted({fingerprint(report.book.key) for report in reports}):
        typer.echo(f"  {words}", err=True)
