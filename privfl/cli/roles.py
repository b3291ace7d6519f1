"""What the commands of all roles share: their arguments, the passphrase, and how they say what comes next."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from privfl.clock import SystemClock

if TYPE_CHECKING:
    from privfl.homes.config import KmsConfig

__all__ = [
    "AsJson",
    "Authority",
    "Federation",
    "Folder",
    "Kms",
    "KmsEndpoint",
    "KmsProfile",
    "KmsRegion",
    "Name",
    "PassphraseFile",
    "Policy",
    "Rosters",
    "federation_named",
    "kept_by",
    "named",
    "now",
    "passphrase",
    "quoted",
    "tell",
]

Folder = Annotated[Path, typer.Argument(help="The role's folder, for this user alone.")]
Federation = Annotated[str, typer.Option(help="Name of the federation to take part in, or its federation.yaml.")]
Name = Annotated[str | None, typer.Option(help="Name in the roster; default: the folder's name.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="File with the passphrase in its first line; default: PRIVFL_PASSPHRASE, or typed."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object.")]
Rosters = Annotated[Path | None, typer.Option("--roster", help="The file of rosters that the authority handed out.")]
Authority = Annotated[
    str | None,
    typer.Option(
        help="The authority's fingerprint as you were told it (its authority.pub lies beside the roster file), "
        "or its key in hex, or its .pub file."
    ),
]
Kms = Annotated[
    str | None,
    typer.Option(help="Key of AWS KMS (alias/NAME, id or ARN) that keeps the folder's keys, instead of a passphrase."),
]
KmsRegion = Annotated[str | None, typer.Option(help="Its region; default: the AWS environment's.")]
KmsEndpoint = Annotated[str | None, typer.Option(help="Its endpoint, of an emulator or a private link.")]
KmsProfile = Annotated[str | None, typer.Option(help="Profile of the local AWS configuration to ask it with.")]
Policy = Annotated[Path | None, typer.Option(help="The policy that the compliance officer signed.")]


def now() -> int:
    """Milliseconds since 1970, by this machine's clock."""
    return SystemClock().now()


def federation_named(text: str) -> tuple[str, str | None]:
    """The name behind ``--federation``, and the path of the federation.yaml if that was given instead.

    Raises:
        Misuse: the file cannot be read or is none.
    """
    if not text.endswith((".yaml", ".yml")):
        return text, None
    from privfl.wires.settings import read_federation  # noqa: PLC0415 - where a file was given

    return read_federation(Path(text).expanduser()).federation, text


def named(name: str | None, folder: Path) -> str:
    """``--name``, or what the folder is called."""
    return folder.absolute().name if name is None else name


def passphrase(folder: Path, file: Path | None, *, found: bool = False) -> str:
    """The passphrase of ``folder``; with ``found`` a key store may be made, and a typed one is asked for twice.

    Where there is nothing to open none is asked for: what is missing is said first.
    """
    from privfl.homes.folder import KEYS  # noqa: PLC0415 - loaded when a command runs
    from privfl.homes.passphrase import ask_passphrase  # noqa: PLC0415

    new = not (folder / KEYS).exists()
    return "" if new and not found else ask_passphrase(file, new=new, folder=folder)


def kept_by(key: str | None, region: str | None, endpoint: str | None, profile: str | None) -> KmsConfig | None:
    """The key service that was named; None without ``--kms``."""
    from privfl.errors import Misuse  # noqa: PLC0415
    from privfl.homes.config import KmsConfig  # noqa: PLC0415

    if key is None:
        if region or endpoint or profile:
            raise Misuse("--kms-region, --kms-endpoint and --kms-profile go with --kms")
        return None
    return KmsConfig(key=key, region=region, endpoint=endpoint, profile=profile)


def quoted(path: object) -> str:
    """A path as it can be pasted into a shell; only one with a space or the like changes."""
    return shlex.quote(str(path))


def tell(as_json: bool, fields: dict[str, Any], *lines: str) -> None:
    """Print one JSON object, or lines for people; the last says what comes next."""
    if as_json:
        typer.echo(json.dumps(fields))
        return
    console = Console(file=sys.stdout)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
