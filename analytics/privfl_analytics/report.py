"""A study's result as one HTML file that needs nothing else: for people who were not there when it was asked."""

from __future__ import annotations

import importlib.metadata
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from privfl.errors import Misuse, StorageError
from privfl_analytics.answer import Answer
from privfl_analytics.report_parts import picture_of, plots_missing, table_of

__all__ = ["Reported", "html_report", "write_report"]

_BEGIN = b"<!DOCTYPE html>"
#: Tables longer than this are folded on the screen; they print whole.
FOLDED = 12
#: Above it the promise is called weak.
WEAK = 10.0
_OWN_NOISE = "Where single sites are shown or compared, each of their numbers carries the whole noise of its site."


class Reported(Protocol):
    """What of a study's result is read here; :class:`privfl_analytics.result.StudyResult` is one."""

    @property
    def study(self) -> Any:
        """With ``name``, ``description`` and ``query(name)`` whose ``words()`` say what is asked."""

    @property
    def answers(self) -> Mapping[str, Answer]:
        """By name."""

    @property
    def privacy(self) -> Any:
        """With the attributes of :class:`privfl_analytics.result.PrivacyReport`."""

    @property
    def survivors(self) -> tuple[int, ...]:
        """Sites in each stage's sum."""


def html_report(result: Reported, path: str | Path | None = None) -> str:
    """The report as HTML text: pictures and style are inside, nothing is fetched, every text is escaped.

    Args:
        result: of a study. path: where to write it, too.

    Raises:
        Misuse: Jinja2 is not installed (the extra ``analytics``). StorageError: ``path`` cannot be written.
    """
    try:
        import jinja2  # noqa: PLC0415 - an extra
    except ImportError:
        raise Misuse("reports need Jinja2: pip install 'privfl[analytics]'") from None
    loader = jinja2.PackageLoader("privfl_analytics", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    text = environment.get_template("report.html.j2").render(**_content(result))
    if path is not None:
        _write(Path(path), text)
    return text


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and only over another report."""
    from privfl.homes.files import write_file  # noqa: PLC0415 - needed here only

    if path.exists() and not path.is_file():
        raise StorageError(f"{path} cannot be written (it is no file); choose another place")
    try:
        with path.open("rb") as stream:
            begin = stream.read(len(_BEGIN))
        if begin and begin != _BEGIN:
            raise Misuse(f"{path} is there already and is no report; choose another name")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror}); choose another place") from None
    if not path.parent.is_dir():
        raise StorageError(f"{path} cannot be written (there is no folder {path.parent}); choose another place")
    write_file(path, text.encode(), mode=0o644)


def write_report(result: Reported, path: str | Path) -> Path:
    """Write :func:`html_report` to ``path`` and return it."""
    html_report(result, path)
    return Path(path)


def _content(result: Reported) -> dict[str, Any]:
    shown = [_answer(result, at, name, answer) for at, (name, answer) in enumerate(result.answers.items(), 1)]
    missing = "" if all(one["picture"] for one in shown) else plots_missing()
    return {
        "title": f"Study: {result.study.name}",
        "description": str(getattr(result.study, "description", "") or ""),
        "cards": _cards(result),
        "answers": shown,
        "promise": _promise(result),
        "lost": [{"anchor": one["anchor"], "name": one["name"], "words": one["lost"]} for one in shown if one["lost"]],
        "checks": _CHECKS,
        "commands": ("privfl transcript verify TRANSCRIPTS", "privfl ledger verify SITE --transcripts TRANSCRIPTS"),
        "plots_missing": missing,
        "version": importlib.metadata.version("privfl"),
    }


_CHECKS = (
    "Every opened sum left a transcript: which sites signed, what was asked of them, and the sum itself. It needs no "
    "secret to verify: replace TRANSCRIPTS by the folder that the coordinator keeps beside this result.",
    "Every site's own ledger names the same uploads and what they were charged; a site compares the two so:",
)


def _cards(result: Reported) -> list[tuple[str, str]]:
    privacy = result.privacy
    cards = [(str(len(result.answers)), "questions" if len(result.answers) != 1 else "question")]
    if privacy.epsilon is not None:
        cards.append((f"{privacy.epsilon:.3g}", f"epsilon spent, per {privacy.unit}"))
        cards.append((f"{privacy.delta:g}", "delta"))
    if result.survivors:
        cards.append((_sites(result.survivors), "sites in the sums"))
    records = max((answer.records for answer in result.answers.values()), default=0)
    if records:
        cards.append((f"{records:,}".replace(",", " "), "records declared"))
    return cards


def _sites(survivors: tuple[int, ...]) -> str:
    low, high = min(survivors), max(survivors)
    return str(low) if low == high else f"{low} to {high}"


def _promise(result: Reported) -> list[str]:
    """Cost and guarantee in plain sentences."""
    privacy = result.privacy
    if privacy.epsilon is None or privacy.delta is None:
        return ["No noise was added: these answers have no differential privacy, and are fit for tests alone."]
    whom = {
        "record": "one record (one row of one site's table)",
        "subject": "one person (all rows with this person's id at a site)",
        "site": "one site",
    }.get(privacy.unit, privacy.unit)
    odds = math.exp(min(privacy.epsilon, 700.0))
    said = [
        f"What is protected: {whom}. Whether it was in the data changes the odds of anything concluded from "
        f"this report by a factor of at most e^{privacy.epsilon:.3g} = {odds:.3g} (epsilon {privacy.epsilon:.4g}), "
        f"but for a probability of {privacy.delta:g} (delta). This includes {privacy.uploads} "
        f"upload{'s' if privacy.uploads != 1 else ''} of every site, repeated attempts among them."
    ]
    if privacy.epsilon > WEAK:
        said.append(f"An epsilon above {WEAK:g} promises little to the one whose row it is.")
    said.append(_trust(privacy))
    if result.survivors:
        said.append(
            f"The sums hold {_sites(result.survivors)} sites, and the intervals contain the noise of exactly these. "
            + (_OWN_NOISE if privacy.trust == "local" else "No site's own numbers were opened.")
        )
    said.append(
        "The charge stands in every site's ledger and counts together with everything else that was asked of the same "
        "people, training included."
    )
    return said


def _trust(privacy: Any) -> str:
    if privacy.trust == "local":
        return "Each site added all of the noise itself: the promise needs no trust in other sites or the coordinator."
    said = (
        "The noise is shared among the sites, and sums are opened under secure aggregation: the promise holds against "
        "the coordinator, against everyone who reads the results, and against as many colluding sites as were allowed "
        "for."
    )
    if privacy.fallback_epsilon is None:
        return said
    return f"{said} If all other sites colluded, epsilon would be {privacy.fallback_epsilon:.3g} for a site's records."


def _answer(result: Reported, at: int, name: str, answer: Answer) -> dict[str, Any]:
    columns, rows = table_of(answer)
    try:
        asked = str(result.study.query(name).words())
    except (AttributeError, KeyError, Misuse):
        asked = answer.title
    return {
        "anchor": f"answer-{at}",
        "name": name,
        "asked": asked[:1].upper() + asked[1:],
        "title": answer.title[:1].upper() + answer.title[1:],
        "picture": picture_of(answer),
        "alt": f"Plot: {answer.title}. The numbers are in the table.",
        "columns": columns,
        "rows": rows,
        "long": len(rows) > FOLDED,
        "meaning": _meaning(answer),
        "notes": answer.notes,
        "lost": _lost(answer),
    }


def _lost(answer: Answer) -> str:
    """Why numbers are not there, with how many of each kind."""
    why = Counter((row.note or "not resolved at this budget") for row in answer.rows if row.value is None)
    return "; ".join(f"{count} of {len(answer.rows)} numbers {note}" for note, count in why.items())


def _meaning(answer: Answer) -> str:
    """What an interval of this answer covers."""
    if not any(row.lower is not None for row in answer.rows):
        return "These numbers have no interval."
    if answer.interval == "rows":
        return (
            f"Lower and upper: {answer.confidence:.0%} intervals for what these very rows would have given without "
            "noise. They say nothing about how other rows would differ."
        )
    return (
        f"Lower and upper: {answer.confidence:.0%} intervals for the population that the rows were drawn from. They "
        "contain chance in the rows and the noise that was added; clipping to the declared bounds is outside them."
    )
