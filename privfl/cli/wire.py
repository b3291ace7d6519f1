"""``privfl wire``: show what is named; make a wire folder, see what waits in it, carry it over an air gap."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from privfl.cli import wire_aws, wire_show
from privfl.clock import SystemClock
from privfl.errors import Misuse
from privfl.wires import FolderWire, pack, unpack
from privfl.wires.folder_survey import WireView, find_box, survey

__all__ = ["app"]

app = typer.Typer(help="Look after the wires that carry the federation's messages.", no_args_is_help=True)
folder = typer.Typer(help="A shared directory as a wire; over an air gap by parcels.", no_args_is_help=True)
wire_show.add_to(app)
app.add_typer(folder, name="folder")
app.add_typer(wire_aws.app, name="aws")
app.command(epilog="Example: privfl wire redrive federation.yaml --member north")(wire_aws.redrive)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Wire = Annotated[Path, typer.Argument(help="The wire folder.")]


@folder.command(epilog="Example: privfl wire folder create /srv/federation/wire --group")
def create(
    path: Annotated[Path, typer.Argument(help="A new or empty folder; an existing one keeps its permissions.")],
    group: Annotated[bool, typer.Option("--group", help="The folder's group takes part too (mode 2770).")] = False,
    as_json: Json = False,
) -> None:
    """Make a wire folder at PATH.

    What is written into it later gets the folder's own permissions: by default those of one user (mode 700).
    """
    wire = FolderWire.create(path, mode=0o2770 if group else 0o700)
    if as_json:
        typer.echo(json.dumps({"wire": str(wire.path)}))
        return
    typer.echo(f"Made the wire folder {wire.path}. Each participant names it as its wire. Whoever may read it sees")
    typer.echo("what passes (models, masked updates); whoever may write to it can hold it up, but forge nothing.")


@folder.command(epilog="Example: privfl wire folder status /srv/federation/wire")
def status(wire: Wire, as_json: Json = False) -> None:
    """Show what waits in WIRE: boxes, messages and their age, bodies."""
    view, now = survey(FolderWire(wire)), SystemClock().now()
    if as_json:
        typer.echo(json.dumps({"wire": str(wire), "now": now, **asdict(view)}))
        return
    _show(view, now)


@folder.command("pack", epilog="Example: privfl wire folder pack ./wire --for 3fa4c1 --out /media/stick/north.parcel")
def pack_(
    wire: Wire,
    out: Annotated[Path, typer.Option(help="The parcel to write; never overwritten.")],
    for_: Annotated[
        list[str] | None,
        typer.Option("--for", help="A recipient's id, or 6 digits or more of it; default: all that do not read WIRE."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also what left in parcels of the last 30 days.")] = False,
    as_json: Json = False,
) -> None:
    """Write the waiting messages of WIRE, with their bodies, into a parcel to be carried to another wire folder.

    What was taken is not taken again. If nothing waits no parcel is written.
    """
    here = FolderWire(wire)
    chosen = None if for_ in (None, [], ["all"]) else for_
    if chosen and "all" in chosen:
        raise Misuse("--for all stands alone; give ids, or all")
    boxes = [find_box(here, one) for one in chosen] if chosen else None
    done = pack(here, out, boxes, again=again)
    if as_json:
        typer.echo(json.dumps({"parcel": str(out) if done.messages else None, **asdict(done)}))
        return
    if done.messages:
        typer.echo(f"Packed {done.messages} message(s) and {done.bodies} body(ies), {_size(done.bytes)}, into {out}.")
        typer.echo(f"On the other side: privfl wire folder unpack {out.name} WIRE")
    else:
        typer.echo("Nothing waits that could be carried; no parcel was written.")
    if done.left:
        typer.echo(f"{done.left} message(s) stayed: no envelope, or a body is not there or not whole.")
    if done.read_here:
        typer.echo(f"{done.read_here} box(es) are read in {wire} itself and were passed over; name them with --for.")


@folder.command("unpack", epilog="Example: privfl wire folder unpack /media/stick/north.parcel ./wire")
def unpack_(
    parcel: Annotated[Path, typer.Argument(help="The parcel.")],
    wire: Wire,
    again: Annotated[bool, typer.Option("--again", help="Even if it was unpacked here before.")] = False,
    as_json: Json = False,
) -> None:
    """Put the messages of PARCEL into WIRE. A parcel that is not whole is refused and changes nothing (exit 3)."""
    done = unpack(parcel, FolderWire(wire), again=again)
    if as_json:
        typer.echo(json.dumps({"parcel": str(parcel), **asdict(done)}))
    elif done.already:
        typer.echo(f"{parcel} was unpacked or packed in {wire} before; nothing was done. Repeat it with --again.")
    else:
        typer.echo(f"Unpacked {done.messages} message(s) and {done.bodies} body(ies) into {wire}.")


def _show(view: WireView, now: int) -> None:
    console = Console()
    table = Table(title=f"{len(view.boxes)} box(es)", title_justify="left")
    for heading in ("box", "waiting", "bytes", "oldest", "packed", "odd", "read here"):
        table.add_column(heading, justify="left" if heading in ("box", "read here") else "right")
    for box in view.boxes:
        age = "–" if box.oldest is None else _age(now - box.oldest)
        row = (box.id[:12], box.waiting, _size(box.bytes), age, box.packed, box.odd, "yes" if box.here else "no")
        table.add_row(*map(str, row))
    console.print(table)
    console.print(f"{view.bodies} body(ies), {_size(view.body_bytes)}; {view.parcels} parcel(s) known", highlight=False)
    if view.unfinished or view.strange:
        console.print(f"{view.unfinished} unfinished file(s), {view.strange} thing(s) among the boxes that are none")
    if any(box.odd for box in view.boxes):
        console.print("odd: no readable files; see boxes/ID/odd, check the writers' permissions, then delete them")


def _age(ms: int) -> str:
    seconds = max(ms, 0) // 1000
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _size(count: int) -> str:
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.1f} {units[0]}" if units[0] != "B" else f"{count} B"
