"""The ``privfl`` command and how its failures end.

Exit codes: 0 done · 2 wrong call or input · 3 something does not verify · 4 wire · 5 refused by policy or
budget · 6 round aborted · 130 interrupted · 1 anything else.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

import privfl
from privfl.cli import (
    authority,
    coordinator,
    demo,
    doctor,
    ledger,
    officer,
    policy,
    requests,
    serve,
    site,
    train,
    transcript,
    wire,
)
from privfl.errors import PrivflError, WireError
from privfl.tasks.plugins import names, plugin

__all__ = ["app", "run"]

app = typer.Typer(
    name="privfl",
    help="Privacy-hardened federated learning. Start with: privfl demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(authority.app, name="authority")
app.add_typer(coordinator.app, name="coordinator")
app.add_typer(ledger.app, name="ledger")
app.command("mandate")(train.sign_mandate)
officer.add_to(policy.app)
requests.add_to_site(site.app)
serve.add_to_site(site.app)
serve.add_to_coordinator(coordinator.app)
app.add_typer(policy.app, name="policy")
app.add_typer(site.app, name="site")
app.command("train")(train.train)
app.add_typer(transcript.app, name="transcript")
app.add_typer(wire.app, name="wire")
for _name in names("privfl.commands"):  # of distributions installed beside this one
    plugin("privfl.commands", _name)(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"privfl {privfl.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Privacy-hardened federated learning. Start with: privfl demo"""


def run() -> None:
    """Run the command; a mistake is one screen on standard error, never a traceback."""
    console = Console(stderr=True)
    try:
        app()
    except PrivflError as error:
        kind = WireError if isinstance(error, WireError) else type(error)  # each wire has finer ones for itself
        console.print(f"[red]privfl:[/red] {kind.__name__}: ", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)  # a command in it can be copied
        sys.exit(error.exit_code)
    except SystemExit as ending:
        if (interrupt := _interrupted(ending)) is not None:  # typer ends in silence here
            raise KeyboardInterrupt(*interrupt.args) from None
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        console.print(
            f"privfl: {error.strerror or error}: {error.filename or ''}", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(2)


def _interrupted(ending: BaseException | None) -> KeyboardInterrupt | None:
    while ending is not None:
        if isinstance(ending, KeyboardInterrupt):
            return ending
        ending = ending.__cause__ or ending.__context__
    return None
