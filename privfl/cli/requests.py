"""``privfl site requests``, ``show``, ``approve`` and ``refuse``: what the operator is asked, and his answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from privfl.cli.roles import AsJson, Folder, PassphraseFile, now, passphrase, quoted, tell
from privfl.errors import Misuse, PrivflError, Refused

if TYPE_CHECKING:
    from privfl.cli.requests_desk import Desk
    from privfl.cli.requests_show import Shown
    from privfl.homes.requests import Answer, Request
    from privfl.tasks import Question, SiteData

__all__ = ["add_to_site"]

Id = Annotated[str, typer.Argument(metavar="ID", help="The request, as privfl site requests lists it.")]


def add_to_site(app: typer.Typer) -> None:
    """Give ``privfl site`` its commands ``requests``, ``show``, ``approve`` and ``refuse``."""
    app.command(epilog="Example: privfl site requests north")(requests)
    app.command(epilog="Example: privfl site show north 3fa91c --own")(show)
    app.command(epilog="Example: privfl site approve north 3fa91c")(approve)
    app.command(epilog="Example: privfl site refuse north 3fa91c --why 'not covered by the protocol'")(refuse)


def requests(folder: Folder, as_json: AsJson = False) -> None:
    """List what this site's operator was asked: what, by whom, for which purpose, at what cost, and his answer.

    Only what the signed policy allows is listed. Works while the site runs, and without its passphrase.
    """
    desk = _desk(folder)
    found, unread = [], list[str]()
    for request in desk.book.all():
        try:
            found.append(desk.shown(request))
        except Misuse as error:  # of a kind that was installed here and is no longer
            unread.append(str(error))
    if unread:
        from privfl.runtime.plain import visible  # noqa: PLC0415 - loaded when a command runs

        typer.echo("\n".join(map(visible, unread)), err=True)
    if as_json:
        tell(True, {"requests": [one.fields() for one in found]})
        return
    waiting = sum(one.state == "pending" for one in found)
    table = Table(title=f"{len(found)} request(s), {waiting} waiting for you", title_justify="left")
    table.add_column("id", no_wrap=True)  # to be copied
    for heading in ("what", "who", "purpose", "epsilon", "state"):
        table.add_column(heading, overflow="fold")
    for one in found:
        table.add_row(*(Text(words) for words in one.row()))
    Console(file=sys.stdout).print(table)
    if waiting:
        typer.echo(f"Next: privfl site show {quoted(folder)} ID")


def show(
    folder: Folder,
    id: Id,
    own: Annotated[
        bool, typer.Option("--own", help="After your approval: also this site's own exact answer, on this terminal.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what the request ID asks, of which rows, what would leave, its cost, and what the ledger has left after it.

    --own reads this site's rows and shows its exact answer to you alone: nothing leaves, nothing is spent, and
    nothing of it is written down but that you looked.
    """
    desk = _desk(folder)
    found = desk.book.find(id)
    one = desk.shown(found)
    desk.book.looked_at(found)
    if own:
        _own(desk, one, as_json, passphrase_file)
        return
    if as_json:
        tell(True, one.details())
        return
    tell(False, {}, *one.lines(), *_next(folder, one))


def _next(folder: Path, one: Shown) -> list[str]:
    name, where = one.id[:12], quoted(folder)
    if one.state == "pending":
        return [f"Next: privfl site approve {where} {name}, or privfl site refuse {where} {name} --why TEXT"]
    return [f"Next: privfl site show {where} {name} --own"] if one.state == "approved" else []


def approve(folder: Folder, id: Id, passphrase_file: PassphraseFile = None, as_json: AsJson = False) -> None:
    """Approve the request ID: this very question, for one run, within what the policy and the ledger allow.

    It can be changed later by privfl site refuse, for whatever has not left by then.
    """
    from privfl.homes.requests import Answer  # noqa: PLC0415 - loaded when a command runs

    _decided(folder, id, Answer.APPROVE, "", passphrase_file, as_json)


def refuse(
    folder: Folder,
    id: Id,
    why: Annotated[str, typer.Option(help="For this site's ledger; nobody else is sent it.")],
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Refuse the request ID: its coordinator learns that, not why. It can be approved later.

    After --own has been shown, the ledger marks the refusal as decided after seeing the data: that this site is
    missing then says something about its rows, which no promise covers.
    """
    from privfl.homes.requests import Answer  # noqa: PLC0415

    if not why.strip():
        raise Misuse("--why is empty; write in a few words why this site does not take part")
    _decided(folder, id, Answer.REFUSE, why, passphrase_file, as_json)


def _desk(folder: Path) -> Desk:
    from privfl.cli.requests_desk import Desk  # noqa: PLC0415

    return Desk.open(folder)


def _decided(folder: Path, prefix: str, answer: Answer, why: str, file: Path | None, as_json: bool) -> None:
    desk = _desk(folder)
    found = desk.book.find(prefix)
    noted = _decide(desk, found, answer, why, file)
    one = _desk(folder).shown(found)
    mark = ["Decided after seeing the data: the ledger marks this as outside the guarantee"] if one.outside else []
    when = "noted in the ledger" if noted else "signed; the site notes it in the ledger before it answers anything"
    tell(as_json, {**one.fields(), "noted": noted}, f"{one.title}: {one.state}, {when}", *mark, *_next(folder, one))


def _decide(desk: Desk, request: Request, answer: Answer, why: str, file: Path | None) -> bool:
    """Sign and keep a decision; returns whether the ledger shows it already."""
    from privfl.homes.folder import open_store  # noqa: PLC0415
    from privfl.homes.requests import NOTHING  # noqa: PLC0415
    from privfl.runtime.consent import note_decisions  # noqa: PLC0415

    word, known = passphrase(desk.folder, file), desk.noted.get(request.id, NOTHING)
    with open_store(desk.folder, word) as (_, identity):
        desk.book.decide(identity.key, request, answer, now(), why=why, known=known)
    return note_decisions(desk.folder, word, now())


def _own(desk: Desk, one: Shown, as_json: bool, file: Path | None) -> None:
    """This site's own answer, on the operator's terminal; that he looked is durable before it is computed."""
    from privfl.homes.requests import Answer, State  # noqa: PLC0415

    if one.standing.state is not State.APPROVED:
        raise Refused(
            f"this site's own answer is shown after your approval only, and the request is {one.state}: to decide "
            "after seeing the data is outside the guarantee. Approve it first: "
            f"privfl site approve {quoted(desk.folder)} {one.id[:12]}"
        )
    if as_json or not _terminal():
        raise Misuse("this site's own answer is shown on a terminal only, never into a file, a pipe or JSON")
    preview = getattr(one.question, "preview", None)
    if preview is None:
        raise Misuse(f"{one.title} has no answer of one site to look at; only studies have")
    data = _rows(desk, one.question)
    _decide(desk, one.request, Answer.PREVIEW, "", file)
    try:
        answer = preview(data)
    except PrivflError:
        raise
    except Exception as error:  # its text could hold a value, and a traceback is often pasted elsewhere
        raise Misuse(f"this site's own answer cannot be computed ({type(error).__name__})") from None
    tell(
        False,
        {},
        *one.lines(),
        "",
        "This site's own exact answer, without noise. For you alone: nothing left, nothing was spent, nothing of it "
        "is kept; the ledger notes that you looked.",
        *str(answer).splitlines(),
        f"If you refuse now, the ledger marks it: privfl site refuse {quoted(desk.folder)} {one.id[:12]} --why TEXT",
    )


def _terminal() -> bool:
    return sys.stdout.isatty()


def _rows(desk: Desk, question: Question) -> SiteData:
    """The bound table of the folder, while the site may be running."""
    from privfl.homes import data  # noqa: PLC0415

    rows = data.load(desk.folder, desk.config, None)
    question.check(rows)
    return rows
