"""The commented file that ``privfl policy new`` writes, and the questions it asks for it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from privfl.errors import Misuse

__all__ = ["QUESTIONS", "Answers", "Question", "default", "draft", "from_schema", "pairs"]

#: YAML text by field.
Answers: TypeAlias = "dict[str, str]"

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.@-]*")
_WORDS = {"yes", "no", "on", "off", "y", "n", "true", "false", "null"}


@dataclass(frozen=True)
class Question:
    """One field: what is asked, and the comment above it in the file. ``fixed`` is the default that never changes."""

    field: str
    asked: str
    comment: str
    fixed: str = ""


QUESTIONS = (
    Question("federation", "Name of the federation", "# What this policy is about"),
    Question("version", "Version of the policy", "# counts up; a site never goes back", "1"),
    Question("valid_from", "Valid from (UTC)", "# dates are midnights in UTC"),
    Question("expires", "Expires (UTC)", ""),
    Question("dataset", "Name of the schema of the data", ""),
    Question("schema_version", "Version of that schema", "", "1"),
    Question("schema_digest", "Digest of that schema", "# this schema and no other"),
    Question("population", "Name of the population", "# whose ids the data use: one ledger per site and population"),
    Question("subjects", "How many people, roughly, in public", "# a public figure; delta must be at most 1/(10 x it)"),
    Question("max_sites_per_subject", "At how many sites can one person's rows be", "", "1"),
    Question("unit", "Who is protected: record, subject or site", "\n# The promise", "record"),
    Question("trust", "Whose noise counts: local or distributed", "", "distributed"),
    Question("epsilon", "Total epsilon", "", "2"),
    Question("delta", "Total delta", ""),
    Question("max_epsilon_per_upload", "Most epsilon for one upload (empty: no cap)", "# least noise of one upload"),
    Question(
        "shares",
        "Shares by purpose",
        "# of the total, at most 1 together",
        "{training: 0.7, analytics: 0.2, monitoring: 0.1}",
    ),
    Question("approval", "Purposes that wait for each site's yes", "# each site's operator is asked every time"),
    Question("analysts", "Caps by analyst, e.g. {dr-jones: 0.5} (empty: anyone)", "# only these may ask"),
    Question("window", "Window, e.g. {days: 90, lifetime_epsilon: 8, lifetime_delta: 1e-6} (empty: none)", ""),
    Question("colluders", "How many sites may collude", "\n# What every round must fulfil", "1"),
    Question("min_survivors", "Fewest sites in an opened sum", ""),
    Question("min_sites", "Fewest sites in a cohort", ""),
    Question("min_committee", "Fewest members of the committee", "", "3"),
    Question("attempts_per_round", "Attempts per round", "# each is charged", "3"),
    Question("modes", "How sums may be opened", "", "[voted, complete]"),
    Question("min_cell_count", "Least noisy count of a cell that is shown", "", "10"),
    Question("tasks", "Tasks with their largest clip", "\n# What may be asked", "{logistic: {clip: 0.3}}"),
    Question("statistics", "Statistics, e.g. [mean, histogram] (empty: none)", ""),
    Question("columns", "Columns, e.g. {age: {lower: 0, upper: 110}}", "# bounds from knowledge, never from the rows"),
)  # fmt: skip
#: Never asked: a digest is not typed, and an empty answer is what most mean. Options and the schema fill them in.
_SILENT = {"schema_digest", "approval"}
_EMPTY = {"max_epsilon_per_upload", "analysts", "window", "statistics"}
_TOTAL = {"epsilon", "delta", "max_epsilon_per_upload", "window"}


def default(question: Question, answers: Mapping[str, str], now: int) -> str | None:
    """What the answer is if nobody gives one: empty for no such line, None where it has to be given."""
    field = question.field
    if field == "tasks" and answers.get("statistics"):
        return ""  # who names statistics and no training is not given training beside them
    if question.fixed:
        return question.fixed
    if field in _EMPTY:
        return ""
    if field in ("valid_from", "expires"):
        start = datetime.fromtimestamp(now / 1000, UTC)
        return f"{start + timedelta(days=365 * (field == 'expires')):%Y-%m-%d}"
    if field == "delta" and (answers.get("subjects") or "").isdigit() and int(answers["subjects"]) > 0:
        from privfl.budget.policy_fields import largest_delta  # noqa: PLC0415

        return largest_delta(int(answers["subjects"]))
    if field == "min_survivors" and answers.get("colluders", "").isdigit():
        return str(max(1, int(answers["colluders"])) + 2)
    known = {"population": "federation", "min_sites": "min_survivors"}.get(field, "")
    return answers.get(known) or None


def asked(answers: Mapping[str, str]) -> list[Question]:
    """The questions that make sense beside ``answers``."""
    without = bool(answers.get("without_noise"))
    left_out = _SILENT | (_TOTAL if without else set())
    return [question for question in QUESTIONS if question.field not in left_out]


def draft(answers: Mapping[str, str]) -> str:
    """The file: every answer on a line of its own, under a comment."""
    lines = [
        "# Policy of a privfl federation. Every field is described in docs/policy.md.",
        "# Next: privfl policy check FILE, privfl policy explain FILE, privfl policy sign FILE.",
        "",
    ]
    for question in QUESTIONS:
        value = answers.get(question.field, "")
        if question.comment and (value or question.comment.startswith("\n")):
            lines += question.comment.split("\n")
        if question.field == "epsilon" and answers.get("without_noise"):
            lines.append(f"without_noise: {answers['without_noise']}")
        if value:
            lines.append(f"{question.field}: {value}".replace(": \n", ":\n"))
    return "\n".join(lines) + "\n"


def scalar(text: str) -> str:
    """``text`` as YAML text, quoted where it could be read as something else."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return scalar(value) if isinstance(value, str) else repr(value)


def pairs(items: list[str], option: str) -> dict[str, str]:
    """``name=value`` options as a mapping, in their order; raises Misuse."""
    found: dict[str, str] = {}
    for item in items:
        name, equals, value = item.rpartition("=")
        if not equals or not name or not value or name in found:
            raise Misuse(f"{option} {item!a:.80}: write NAME=VALUE, each name once")
        found[name] = value
    return found


def mapping(items: Mapping[str, str]) -> str:
    """A YAML mapping on one line; empty for none."""
    return "{" + ", ".join(f"{scalar(name)}: {value}" for name, value in items.items()) + "}" if items else ""


def column(value: str) -> str:
    """``0:110``, ``false,true`` or ``text:8`` as YAML."""
    if value.startswith("text:") and "," not in value:
        return f"{{max_length: {value.removeprefix('text:')}}}"
    low, colon, high = value.partition(":")
    if colon and "," not in value:
        return f"{{lower: {low}, upper: {high}}}"
    return f"{{classes: [{value}]}}"


def columns(items: Mapping[str, str]) -> str:
    """Columns in a YAML block, one a line; empty for none."""
    return "".join(f"\n  {scalar(name)}: {value}" for name, value in items.items())


def from_schema(path: Path) -> Answers:
    """Dataset, version, digest, size and columns from a schema in YAML or JSON; raises Misuse."""
    from privfl.tasks.schema import Schema  # noqa: PLC0415

    if not path.is_file():
        raise Misuse(f"there is no schema file {path}; give the YAML or JSON file that describes the columns")
    schema = Schema.from_yaml(path)
    found = {name: _allowed(one) for name, one in schema.columns.items()}
    return {
        "dataset": scalar(schema.name),
        "schema_version": str(schema.version),
        "schema_digest": json.dumps(schema.digest.hex()),  # quoted, or digits alone would be a number
        "subjects": str(schema.records),
        "columns": columns(found),
    }


def _allowed(one: Any) -> str:
    if one.kind == "numeric":
        return f"{{lower: {one.lower!r}, upper: {one.upper!r}}}"
    if one.kind == "text":
        return f"{{max_length: {one.max_length}}}"
    return f"{{classes: [{', '.join(map(_plain, one.classes))}]}}"
