"""``privfl authority``: the folder that decides who belongs to a federation."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from privfl.cli.roles import (
    AsJson,
    Federation,
    Folder,
    Kms,
    KmsEndpoint,
    KmsProfile,
    KmsRegion,
    PassphraseFile,
    federation_named,
    kept_by,
    now,
    passphrase,
    quoted,
    tell,
)
from privfl.errors import Misuse, PrivflError

if TYPE_CHECKING:
    from privfl_keys import EnrolmentRequest, Roster

    from privfl.homes.authority import AuthorityHome

__all__ = ["app"]

app = typer.Typer(help="Decide who belongs to a federation: approve, revoke, sign rosters.", no_args_is_help=True)


def _opened(folder: Path, file: Path | None) -> AuthorityHome:
    from privfl.homes.authority import AuthorityHome  # noqa: PLC0415 - loaded when a command runs

    return AuthorityHome.open(folder, passphrase(folder, file))


@app.command(epilog="Example: privfl authority init authority --federation trial")
def init(
    folder: Folder,
    federation: Federation,
    kms: Kms = None,
    kms_region: KmsRegion = None,
    kms_endpoint: KmsEndpoint = None,
    kms_profile: KmsProfile = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make the authority's FOLDER with the key that signs every roster; best on a machine that stays offline.

    Running it again finishes what was interrupted. With --kms a key of AWS KMS keeps the keys, and no passphrase is
    asked for, now or later.
    """
    from privfl.homes.authority import AuthorityHome  # noqa: PLC0415

    federation, _ = federation_named(federation)
    keeper = kept_by(kms, kms_region, kms_endpoint, kms_profile)
    word = "" if keeper else passphrase(folder, passphrase_file, found=True)
    config = AuthorityHome.init(folder, federation, word, kms=keeper)
    public = folder / "authority.pub"
    tell(
        as_json,
        {"federation": federation, "fingerprint": config.fingerprint, "public_key": str(public)},
        f"The authority of {federation}: its key is in {folder}, the public half in {public}",
        f"Fingerprint: {config.fingerprint}",
        "Next: publish this fingerprint where members can check it (a letter, a contract, a meeting), then approve "
        f"their requests with: privfl authority approve {quoted(folder)} REQUEST...",
    )


@app.command(epilog="Example: privfl authority approve authority north/request south/request")
def approve(
    folder: Folder,
    requests: Annotated[list[Path], typer.Argument(help="Request files, as they arrived.")],
    spoken: Annotated[
        list[str] | None,
        typer.Option("--fingerprint", help="As read aloud on the telephone, once per request in the same order."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """File REQUESTS for the next roster, each with the fingerprint that its operator read aloud.

    Call at a number that you had before the request came. Nothing is filed unless every fingerprint fits.
    """
    from privfl.homes.authority import read_request  # noqa: PLC0415

    read = [(path, read_request(path)) for path in requests]
    with _opened(folder, passphrase_file) as home:
        told = _spoken([request for _, request in read], spoken)
        for (path, request), words in zip(read, told, strict=True):
            try:
                request.admit(home.config.federation, words)
            except PrivflError as error:
                raise type(error)(f"{path}: {error}") from None
        members = [home.approve(request, words, now()) for (_, request), words in zip(read, told, strict=True)]
    tell(
        as_json,
        {"approved": [{"name": member.name, "roles": list(member.roles)} for member in members]},
        *(f"approved: {member.name} ({', '.join(member.roles)})" for member in members),
        f"Next: when all are approved, sign a roster with: privfl authority roster {quoted(folder)}",
    )


def _spoken(requests: list[EnrolmentRequest], given: list[str] | None) -> list[str]:
    """What was read aloud, per request; never taken from the request."""
    if given:
        if len(given) != len(requests):
            raise Misuse(f"there are {len(requests)} request(s) and {len(given)} fingerprint(s); give one for each")
        return given
    if not sys.stdin.isatty():
        raise Misuse(
            "the fingerprints are missing: run the command on a terminal and type them, or give --fingerprint once "
            "per request, as each operator read it aloud"
        )
    return [
        typer.prompt(f"Fingerprint that {request.name!r} ({', '.join(request.roles)}) read aloud", err=True)
        for request in requests
    ]


@app.command(epilog='Example: privfl authority revoke authority north --why "laptop stolen"')
def revoke(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="Of the member.")],
    why: Annotated[str, typer.Option(help="The reason, for those who ask later.")],
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Strike NAME off: it leaves with the next roster, for good."""
    with _opened(folder, passphrase_file) as home:
        member = home.revoke(name, why, now())
    tell(
        as_json,
        {"revoked": member.name, "why": why},
        f"revoked: {member.name}",
        f"Next: sign a roster within the day with: privfl authority roster {quoted(folder)}, and hand it to everyone",
    )


@app.command(epilog="Example: privfl authority roster authority --days 365")
def roster(
    folder: Folder,
    days: Annotated[int, typer.Option(help="How long it is valid.")] = 365,
    colluders: Annotated[
        str | None,
        typer.Option(help='How many sites may collude; "no site colludes" for none. Default: a third, at least 1.'),
    ] = None,
    committee: Annotated[
        int | None, typer.Option(help="Seats, drawn at random; needed above 64 sites, and only there.")
    ] = None,
    committee_corrupt: Annotated[int | None, typer.Option(help="How many seats may collude.")] = None,
    degree: Annotated[int, typer.Option(help="Neighbours per site on a sparse graph; 0: all pairs.")] = 0,
    renew: Annotated[bool, typer.Option("--renew", help="Sign a new version although only the dates change.")] = False,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Sign the next roster from who is approved and revoked, and write FOLDER/rosters."""
    from privfl.homes.drafting import RosterTerms  # noqa: PLC0415

    terms = RosterTerms(days, _colluders(colluders), committee, committee_corrupt, degree)
    with _opened(folder, passphrase_file) as home:
        signed, new = home.sign_roster(now(), terms, renew=renew)
        fields = {**_numbers(signed), "new": new, "file": str(folder / "rosters"), "authority": home.config.fingerprint}
    missing = [role for role in ("coordinator", "compliance") if not signed.holding(role)]
    tell(
        as_json,
        fields,
        f"roster version {signed.version} of {signed.federation}: {len(signed.site_ids)} sites, of which "
        f"{signed.corrupt_bound} may collude; valid until {fields['valid_until']}",
        *([] if new else ["Nothing but the dates would change, so no new version was signed; --renew signs one."]),
        *(f"It lists nobody for {role} yet." for role in missing),
        *_risk(signed),
        f"Next: hand {folder / 'rosters'} and {folder / 'authority.pub'} to every member; each joins with the "
        "fingerprint that you published.",
    )


def _colluders(text: str | None) -> Any:
    from privfl_keys import NO_SITE_COLLUDES  # noqa: PLC0415

    if text is None or text == NO_SITE_COLLUDES:
        return text
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise Misuse(
        f'--colluders is a number from 1, or "{NO_SITE_COLLUDES}" if you accept that any collusion reveals all'
    )


def _numbers(signed: Roster) -> dict[str, Any]:
    from datetime import UTC, datetime  # noqa: PLC0415

    until = datetime.fromtimestamp(signed.valid_until / 1000, UTC)
    return {
        "federation": signed.federation,
        "version": signed.version,
        "members": {member.name: list(member.roles) for member in signed.members},
        "sites": len(signed.site_ids),
        "colluders": signed.corrupt_bound,
        "committee": signed.committee_size,
        "committee_corrupt": signed.committee_corrupt,
        "degree": signed.degree,
        "valid_until": f"{until:%Y-%m-%d}",
        "hash": signed.hash.hex(),
    }


def _risk(signed: Roster) -> list[str]:
    if not signed.committee:
        return []
    from privfl_keys import committee_risk  # noqa: PLC0415

    sites, seats = len(signed.site_ids), signed.committee_size
    risk = committee_risk(sites, signed.corrupt_bound, seats, signed.committee_corrupt)
    return [
        f"Committee: {seats} of {sites} sites, of which {signed.committee_corrupt} may collude; a random draw breaks "
        f"this with probability {float(risk):.2g}. Raise --committee, or lower --colluders, if that is too much."
    ]


@app.command(epilog="Example: privfl authority status authority")
def status(folder: Folder, passphrase_file: PassphraseFile = None, as_json: AsJson = False) -> None:
    """List everyone who is approved, in the roster, or revoked."""
    with _opened(folder, passphrase_file) as home:
        listed, latest, config = home.status(), home.latest, home.config
    if as_json:
        members = [{**asdict(one), "roles": list(one.roles)} for one in listed]
        current = None if latest is None else _numbers(latest)
        tell(
            True,
            {"federation": config.federation, "fingerprint": config.fingerprint, "members": members}
            | {"roster": current},
        )
        return
    title = f"{config.federation}: " + (f"roster version {latest.version}" if latest else "no roster signed yet")
    table = Table(title=escape(title), title_justify="left")
    for heading in ("name", "roles", "standing", "fingerprint"):
        table.add_column(heading)
    for one in listed:
        table.add_row(escape(one.name), ", ".join(one.roles), escape(one.standing), one.fingerprint)
    Console().print(table)
