"""``privfl ledger``: show, verify and export what a site has charged; needs no secret and changes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from privfl.cli import ledger_show
from privfl.cli.roles import quoted
from privfl.errors import Malformed, Misuse, Unverified

if TYPE_CHECKING:
    from privfl_keys import VerifyKey

    from privfl.budget import Anchor, Book, LedgerReport
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
        typer.echo(json.dumps({"ledgers": [ledger_show.shown_json(path, book, last) for path, book in found]}))
        return
    for path, book in found:
        ledger_show.show(path, book, last)


@app.command(epilog="Example: privfl ledger verify north --transcripts result/transcripts --authority authority.pub")
def verify(
    targets: Annotated[list[Path], typer.Argument(help="Site folders, ledger files (.db) or exports (.json).")],
    key: Annotated[str | None, typer.Option(help="The site's public key from the roster, in hex or as a file.")] = None,
    anchor: Annotated[str | None, typer.Option(help="What is remembered: NUMBER:HASH of an entry seen before.")] = None,
    transcripts: Annotated[
        list[Path] | None, typer.Option(help="Public transcripts, files or folders: each upload must be charged.")
    ] = None,
    authority: Annotated[
        str | None,
        typer.Option(help="The authority's public key, in hex or as a file: verifies the transcripts too."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify TARGETS without any secret: the chain, every signature, the limits; names the first bad entry.

    With --transcripts also that every upload of this site was charged before it was made; with --authority also
    the transcripts themselves, and that their roster lists the ledger's key. Exits with 3 if anything does not verify.
    """
    from privfl.budget import match_transcripts  # noqa: PLC0415

    known, mark, done = _key(key), _anchor(anchor), []
    root = _root(authority, transcripts)
    rounds = _transcripts(transcripts or [], root)
    for path in (path for target in targets for path in _files(target)):
        report = _load(path, known, mark)
        try:
            if root is not None:
                _check_listed(report.book, rounds)
            done.append((path, report, match_transcripts(report.book, rounds)))
        except Unverified as error:
            raise Unverified(f"{path}: {error}") from None
    if as_json:
        files = [{"file": str(path), **report.summary(), "matched": matched} for path, report, matched in done]
        proven = {} if root is None else {"transcripts": len(rounds)}
        typer.echo(json.dumps({"verified": len(done), "files": files, **proven}))
        return
    ledger_show.show_verified(done, bool(rounds))
    if root is not None:
        typer.echo(f"{len(rounds)} transcript(s) verified; their roster lists the key of every ledger here.")
    elif known is None:
        ledger_show.ask_to_compare([report for _, report, _ in done])


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
    typer.echo(f"Check it with: privfl ledger verify {quoted(out)}")


def _files(target: Path) -> list[Path]:
    """The ledger files that an operator means: of a site's folder, of a folder of ledgers, or one file."""
    if not target.is_dir():
        if not target.exists():
            raise Misuse(f"there is nothing at {target}; name a site's folder, a ledger file or an export")
        if target.name == "state.db":  # also a database, and nothing that is said of a damaged ledger may be done to it
            raise Misuse(f"{target} is sealed state and no ledger; leave it alone, and name the site's folder")
        return [target]
    if any((target / f"{role}.yaml").exists() for role in ("coordinator", "officer", "authority")):
        raise Misuse(f"{target} is no site's folder; only sites keep a ledger: name one of theirs, or an export")
    inner, site = target / "ledger", (target / "site.yaml").exists()
    found = sorted((inner if site or inner.is_dir() else target).glob("*.db"))
    if found:
        return found
    if site:
        raise Misuse(f"{target} has no ledger yet; the first join makes it: privfl site join {quoted(target)}")
    if any(target.glob("*.transcript")):
        raise Misuse(f"{target} holds transcripts and no ledger; give --transcripts before each such folder")
    raise Misuse(f"there is no ledger in {target}; a site's folder has one in ledger/ once it has joined")


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


def _root(given: str | None, transcripts: list[Path] | None) -> VerifyKey | None:
    from privfl.cli.transcript import read_authority  # noqa: PLC0415

    if given is None:
        return None
    if not transcripts:
        raise Misuse("--authority is what transcripts are verified by; give --transcripts as well")
    return read_authority(given, Path())[0]


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


def _transcripts(given: list[Path], authority: VerifyKey | None) -> list[tuple[str, Transcript]]:
    """What lies at these places; with the authority's key each is verified in whole."""
    from privfl.cli.transcript import check, found_in, read_whole  # noqa: PLC0415

    found = [(path, read_whole(path)) for path in found_in(given)]
    if authority is not None:
        for path, transcript in found:
            check(path, transcript, authority)
    return [(str(path), transcript) for path, transcript in found]


def _check_listed(book: Book, rounds: list[tuple[str, Transcript]]) -> None:
    """That a ledger's key is a site's in the rosters of verified transcripts; raises Unverified."""
    for _, transcript in rounds:
        transcript.signed_roster.roster.require(book.key.site_id, "site")
