"""``privfl transcript``: check the public proof of a round, without any secret."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from privfl_keys import VerifyKey, fingerprint
from rich.console import Console
from rich.table import Table

from privfl.errors import Malformed, Misuse, Unverified
from privfl.secagg import Transcript, Verified, read_transcript, verify_transcript

__all__ = ["app", "check", "found_in", "read_authority", "read_whole"]

app = typer.Typer(help="Check the public transcripts of opened rounds.", no_args_is_help=True)


def read_authority(given: str | None, beside: Path) -> tuple[VerifyKey, bool]:
    """The authority's key from ``--authority`` (hex or a file), else from ``authority.pub`` beside the transcript.

    Returns the key and whether it was given by the caller.
    """
    if given is None:
        source = beside / "authority.pub"
        if not source.is_file():
            raise Misuse(f"there is no authority.pub in {beside}; give the federation's authority key with --authority")
        text = source.read_text(encoding="ascii", errors="replace")
    else:
        text = _content(Path(given)) or given
    try:
        return VerifyKey(bytes.fromhex(text.strip())), given is not None
    except (ValueError, Unverified):
        raise Misuse("the authority key is 32 bytes in hexadecimal, or a file that holds them") from None


def found_in(places: list[Path]) -> list[Path]:
    """The transcript files among ``places``, and those in the folders among them; raises Misuse where there is none."""
    found: list[Path] = []
    for place in places:
        paths = sorted(place.glob("*.transcript")) if place.is_dir() else [place]
        if not paths:
            raise Misuse(f"there is no transcript in {place}; their names end in .transcript")
        found += paths
    if missing := [path for path in found if not path.is_file()]:
        raise Misuse(f"{missing[0]}: there is no such file")
    return found


def read_whole(path: Path) -> Transcript:
    """The transcript in a file; raises Unverified if it is not whole."""
    try:
        return read_transcript(path.read_bytes())
    except (Malformed, Unverified) as error:
        raise Unverified(f"{path} is not a whole transcript ({error}); fetch it again from the coordinator") from None


def check(path: Path, transcript: Transcript, authority: VerifyKey) -> Verified:
    """Verify one transcript; raises Unverified naming the file."""
    try:
        return verify_transcript(transcript, authority)
    except Unverified as error:
        raise Unverified(f"{path} does not verify: {error}") from None


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace") if path.is_file() else None
    except (OSError, ValueError):  # not even a possible name: it was no path that was given
        return None


@app.command(epilog="Example: privfl transcript verify demo-out/transcripts")
def verify(
    files: Annotated[list[Path], typer.Argument(help="Transcript files, or folders of them.")],
    authority: Annotated[
        str | None, typer.Option(help="The authority's public key, in hex or as a file; default: authority.pub beside.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Verify transcript FILES without any secret: roster, epoch, quorum, survivors, agreement of commitments.

    Exits with 3 if any file does not verify.
    """
    done: list[tuple[Path, Verified]] = []
    for path in found_in(files):
        key, given = read_authority(authority, path.parent)
        done.append((path, check(path, read_whole(path), key)))
    if as_json:
        typer.echo(json.dumps({"verified": len(done), "files": [{"file": str(path), **asdict(v)} for path, v in done]}))
        return
    _show(done)
    console = Console(stderr=True)
    if not given:
        console.print(
            f"The authority key came from the folder itself. Compare its fingerprint with the one you were told:\n"
            f"  {fingerprint(key)}",
            highlight=False,
        )


def _show(done: list[tuple[Path, Verified]]) -> None:
    table = Table(title=f"{len(done)} transcript(s) verified", title_justify="left")
    for heading in ("epoch", "round", "attempt", "in the sum", "missing", "opened by", "blamed"):
        table.add_column(heading)
    for _, one in done:
        quorum = f"all, {one.releases} releases" if one.complete else f"{one.votes} votes (needs {one.quorum})"
        table.add_row(
            str(one.epoch),
            str(one.round),
            str(one.attempt),
            f"{len(one.survivors)} of {len(one.cohort)}",
            ", ".join(one.dropped) or "–",
            quorum,
            ", ".join(one.blamed) or "–",
        )
    Console().print(table)
