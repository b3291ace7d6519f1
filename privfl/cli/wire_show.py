"""``privfl wire show`` and ``privfl wire example``: which wire a federation speaks over, and whether it can be used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from privfl.errors import Misuse, PrivflError, WireError

if TYPE_CHECKING:
    from privfl.wires.settings import WireSettings

__all__ = ["add_to"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class Kind(StrEnum):
    """What wires there are between machines."""

    FOLDER = "folder"
    AWS = "aws"
    FLOWER = "flower"


def add_to(app: typer.Typer) -> None:
    """Put the commands into the app of ``privfl wire``."""
    app.command(epilog="Example: privfl wire show north; or: privfl wire show federation.yaml")(show)
    app.command(epilog="Example: privfl wire example aws --federation trial > federation.yaml")(example)


@dataclass(frozen=True)
class _Named:
    """A wire and where it is named; ``home`` is a member's folder, None for a bare ``federation.yaml``."""

    federation: str
    wire: WireSettings
    named_in: Path
    home: Path | None


def show(
    what: Annotated[Path, typer.Argument(help="A federation.yaml, or the folder of a site or coordinator.")],
    as_json: Json = False,
) -> None:
    """Show which wire is named, where it is, what it needs, and try it.

    To try aws or flower give a member's folder; of the file alone only its fields are looked at.

    Exits with 0 if it can be used, 2 if its settings or credentials will not do, 4 if it cannot be reached now.
    """
    found = _named(what)
    trouble: PrivflError | None = None
    try:
        state = _tried(found)
    except (Misuse, WireError) as error:
        trouble, state = error, str(error)
    if as_json:
        facts = {"federation": found.federation, "named_in": str(found.named_in), "usable": trouble is None}
        typer.echo(json.dumps({**facts, "found": state, **_fields(found.wire), "needs": found.wire.NEEDS}))
    else:
        _print(found, "cannot be used, see below" if trouble else f"can be used: {state}")
    if trouble is not None:
        raise trouble


def example(
    kind: Annotated[Kind, typer.Argument(help="Which kind of wire.")],
    federation: Annotated[str, typer.Option(help="Name of the federation.")] = "trial",
) -> None:
    """Print a federation.yaml of KIND with every field and what it means."""
    from privfl_keys import check_name  # noqa: PLC0415

    from privfl.wires.settings_examples import example as text_of  # noqa: PLC0415

    typer.echo(text_of(kind.value, check_name(federation)), nl=False)


def _named(what: Path) -> _Named:
    from privfl.homes.config import CoordinatorConfig, SiteConfig, role_of  # noqa: PLC0415
    from privfl.wires.settings import read_federation  # noqa: PLC0415

    if not what.is_dir():
        read = read_federation(what)
        return _Named(read.federation, read.wire, what, None)
    kind = role_of(what)
    if kind not in (SiteConfig, CoordinatorConfig):
        raise Misuse(f"{what} is no folder of a site or coordinator; give one, or a federation.yaml")
    config: Any = kind.read(what)
    if config.wire is None:
        raise Misuse(f"{what / kind.FILE} names no wire yet; join with --wire, giving folder:PATH or a federation.yaml")
    return _Named(config.federation, config.wire, what / kind.FILE, what.absolute())


def _tried(found: _Named) -> str:
    """What trying the wire has shown; raises Misuse or WireError."""
    found.wire.check()
    if found.home is None and found.wire.kind != "folder":  # who would be trying?
        return "the file is right; each member's part is tried with: privfl wire show FOLDER"
    return found.wire.probe(found.home if found.home is not None else found.named_in.absolute().parent)


def _fields(wire: WireSettings) -> dict[str, Any]:
    fields: dict[str, Any] = wire.model_dump(mode="json", exclude_none=True)
    return {
        "kind": wire.kind,
        "where": str(wire),
        "settings": {k: v for k, v in fields.items() if k != "kind" and v != {}},
    }


def _print(found: _Named, state: str) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=Text(f"the wire of {found.federation}"), title_justify="left", show_header=False)
    shown = _fields(found.wire)
    for name, value in (("kind", shown["kind"]), ("where", shown["where"]), ("named in", found.named_in)):
        table.add_row(name, Text(str(value), overflow="fold"))
    for name, value in shown["settings"].items():
        said = str(value).lower() if isinstance(value, bool) else str(value)
        table.add_row(f"  {name}", Text(said, overflow="fold"))
    table.add_row("needs", Text(found.wire.NEEDS, overflow="fold"))
    table.add_row("now", Text(state, style="red" if state.startswith("cannot") else "green", overflow="fold"))
    Console().print(table)
