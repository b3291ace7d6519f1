"""What ``privfl profile`` and ``privfl monitor`` need behind their options: a run, a score, a signer, a roster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from privfl.cli.roles import now, passphrase
from privfl.cli.running import carry_out
from privfl.cli.serve import LogLevel
from privfl.dp import Trust, Unit
from privfl.errors import Misuse
from privfl_analytics.cli_explain import show_explanation

if TYPE_CHECKING:
    from privfl_keys import Roster

    from privfl.tasks import Schema
    from privfl_analytics.monitor import DriftReport, Profile
    from privfl_analytics.monitor.drift import Finding
    from privfl_analytics.result import StudyResult
    from privfl_analytics.study import Study
    from privfl_analytics.view import Score, View

__all__ = ["Asking", "class_named", "federation_of", "read_schema", "read_score", "render", "roster_of", "signed"]

_STYLES = {"ok": "green", "warn": "yellow", "drift": "bold red", "unresolved": "dim"}
_NEVER = "–"
_SHORT = {"jensen_shannon": "JS", "total_variation": "TV", "calibration": "calib.", "calibration_error": "cal. err."}
_ENDLESS = Console(width=10_000)


def render(report: DriftReport, width: int | None = None) -> Table:
    """The findings that are judged as a table for a terminal: of groups only those that stand out.

    Args:
        width: of the terminal; where the table would not fit, its headings and measures are abbreviated, limits share
            a column, and notes go below. Nothing is ever cut off.
    """
    shown = [one for one in report.findings if one.judged and (not one.group or one.status in ("warn", "drift"))]
    made = _wide(shown)
    found = made, "excess: what is left above noise and chance; the limits hold for it."
    if width is not None and Measurement.get(_ENDLESS, _ENDLESS.options, made).maximum > width:
        found = _narrow(shown)
    table, words = found
    table.title = escape(f"{report.words()} (exit code {report.exit_code})")
    table.caption = f"{words} At most {report.level:.0%} of comparisons without drift raise any alarm."
    table.title_justify = table.caption_justify = "left"
    return table


def _wide(shown: Sequence[Finding]) -> Table:
    table, grouped = Table(), any(one.group for one in shown)
    for heading in ("column", *(("group",) if grouped else ())):
        table.add_column(heading, overflow="fold")
    table.add_column("measure", no_wrap=True)
    for heading in ("value", "without drift", "excess", "p (Holm)", "warn", "alert"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("status", overflow="fold")
    for one in shown:
        numbers = (one.value, one.null_mean, one.excess, one.p_adjusted, one.warn, one.alert)
        status = _status(one) + (f": {escape(one.note)}" if one.note else "")
        places = (one.column, one.group) if grouped else (one.column,)
        table.add_row(*map(escape, places), one.measure.replace("_", " "), *map(_short, numbers), status)
    return table


def _narrow(shown: Sequence[Finding]) -> tuple[Table, str]:
    """The same for eighty columns, and what its abbreviations stand for."""
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("column", overflow="fold")
    table.add_column("measure", no_wrap=True)
    for heading in ("value", "null", "excess", "p", "limits"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    notes: dict[str, list[str]] = {}
    for one in shown:
        place, measure = one.column + (f" of {one.group}" if one.group else ""), _SHORT.get(one.measure, one.measure)
        numbers = map(_short, (one.value, one.null_mean, one.excess, one.p_adjusted))
        limits = f"{_short(one.warn)}, {_short(one.alert)}"
        table.add_row(escape(place), measure, *numbers, limits, _status(one))
        if one.note:
            notes.setdefault(one.note, []).append(f"{place} {measure}")
    used = {one.measure for one in shown}
    spelt = [f"{short}: {name.replace('_', ' ')}" for name, short in _SHORT.items() if name in used]
    words = [
        *(escape(f"{', '.join(places)}: {note}.") for note, places in notes.items()),
        *([f"{'; '.join(spelt)}."] if spelt else []),
        "null: the value to expect without drift; excess: what is left above noise and chance; limits (warn, alert): "
        "for the excess; p: after Holm.",
    ]
    return table, " ".join(words)


def _status(one: Finding) -> str:
    return f"[{_STYLES[one.status]}]{one.status}[/]"


def _short(value: float | None) -> str:
    """Three decimals or significant digits, as the limits have: what is smaller is no drift."""
    if value is None:
        return _NEVER
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{round(value, 3) + 0.0:g}"


class Asking:
    """What both commands do alike: price a study, or ask it as the coordinator."""

    def __init__(
        self,
        coordinator: Path,
        epsilon: float,
        delta: float,
        trust: Trust,
        unit: Unit | None,
        attempts: int,
        mandate: Path | None,
        pace: tuple[float, ...],
        log_level: LogLevel,
        passphrase_file: Path | None,
        as_json: bool,
    ) -> None:
        from privfl_analytics.jobs import RunSettings  # noqa: PLC0415 - loaded when a command runs

        self.settings = RunSettings().with_options(
            epsilon=epsilon, delta=delta, trust=trust, unit=unit, attempts=attempts
        )
        self.coordinator, self.mandate, self.pace, self.log_level = coordinator, mandate, pace, log_level
        self.passphrase_file, self.as_json = passphrase_file, as_json

    def explain(self, study: Study, schema: Schema, sites: int) -> None:
        """What it asks, leaves and costs."""
        show_explanation(study, schema, self.settings, sites, (), self.as_json)

    def ask(self, study: Study, schema: Schema) -> StudyResult:
        """The result; raises what ended it."""
        from privfl_analytics.jobs import asked_of  # noqa: PLC0415 - loaded when a command runs
        from privfl_analytics.result import StudyResult  # noqa: PLC0415

        job = carry_out(asked_of(study, schema, self.settings), "study", self.coordinator, self.mandate, self.pace,
                        self.log_level, False, self.passphrase_file, self.as_json)  # fmt: skip
        assert job is not None  # it was not detached
        return StudyResult.load(job.result)


def read_schema(path: Path) -> Schema:
    from privfl.tasks import Schema  # noqa: PLC0415 - loaded when a command runs

    if not path.is_file():
        raise Misuse(f"there is no schema {path}; pass the file that the consortium agreed on with --schema")
    try:
        return Schema.from_yaml(path)
    except Misuse as error:
        raise Misuse(f"{path}: {error}") from None


def read_score(text: str) -> Score | str:
    """A score from a YAML file; a column's name stays one."""
    path = Path(text)
    if path.suffix not in (".yaml", ".yml", ".json"):
        return text
    from privfl.budget.policy_file import FileKind, read_document  # noqa: PLC0415 - loaded when a command runs
    from privfl_analytics.view import Score  # noqa: PLC0415

    document = read_document(path, FileKind("score", "name: risk", 3))
    try:
        found = Score(**dict(document.fields))
    except Misuse as error:
        raise Misuse(f"{path}: {error}") from None
    if document.faults:
        raise Misuse("; ".join(fault.words(str(path)) for fault in document.located([])))
    return found


def class_named(view: View, label: str, positive: str) -> object:
    """The class of this text; the text itself where there is none, which is then refused by name."""
    return next((one for one in view.category(label).classes if str(one).lower() == positive.lower()), positive)


def federation_of(coordinator: Path) -> str:
    from privfl.homes.config import CoordinatorConfig  # noqa: PLC0415 - loaded when a command runs

    return CoordinatorConfig.read(coordinator).federation


def signed(made: Profile, folder: Path, word: str) -> Any:
    """Sign with the key of an analyst's or the coordinator's folder."""
    from privfl.homes.folder import open_store  # noqa: PLC0415 - loaded when a command runs

    with open_store(folder, word) as (_, identity):
        return made.sign(identity.key)


def roster_of(coordinator: Path, rosters: Path | None, authority: str | None, passphrase_file: Path | None) -> Roster:
    """The roster that profiles are verified by: of a file and a pinned authority, or the coordinator's own."""
    if rosters is not None:
        from privfl_keys import RosterBook  # noqa: PLC0415 - loaded when a command runs

        from privfl.homes.rosters import accept_chain, read_authority, read_rosters  # noqa: PLC0415

        chain, book = read_rosters(rosters), RosterBook()
        book.pin(chain[0].roster.federation, read_authority(authority, rosters.parent))
        return accept_chain(book, chain, now())
    from privfl.homes.coordinator import CoordinatorHome  # noqa: PLC0415 - loaded when a command runs
    from privfl.homes.lock import holder  # noqa: PLC0415

    if holder(coordinator) is not None:
        raise Misuse(
            f"a coordinator runs on {coordinator} and holds its roster; give the authority's file with --roster, and "
            "--authority"
        )
    with CoordinatorHome.open(coordinator, passphrase(coordinator, passphrase_file), now()) as home:
        return home.party.roster
