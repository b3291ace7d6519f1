"""What a comparison with a profile found."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import pandas as pd

from privfl_analytics.answer import Answer, Row
from privfl_analytics.monitor.thresholds import MEASURES, PERFORMANCE

__all__ = ["EXIT_CODES", "DriftReport", "Finding", "Status"]

Status: TypeAlias = Literal["ok", "warn", "drift", "unresolved"]
#: For schedulers; apart from those of errors.
EXIT_CODES: Mapping[str, int] = {"ok": 0, "warn": 10, "drift": 11, "unresolved": 12}
_WORDS = {"drift": "drift in", "warn": "a change worth a look in", "unresolved": "too noisy to judge:"}
_WORST: tuple[Status, ...] = ("drift", "warn", "unresolved", "ok")


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure of one column, for all people (``group`` empty) or one group.

    Attributes:
        value: the measure as it is, noise included; None where it is not resolved.
        null_mean: what noise and chance make of it without drift.
        null_reach: how far above ``null_mean`` they take it in all but a ``level`` of cases.
        excess: the part above ``null_mean`` (for measures with a sign: the distance from it); the limits hold for it.
        p: of the null. p_adjusted: after Holm's correction over all that is judged; None where nothing is judged.
        warn, alert: the limits, None for none. judged: whether there are any.
    """

    column: str
    group: str
    measure: str
    value: float | None
    null_mean: float | None = None
    null_reach: float | None = None
    excess: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    warn: float | None = None
    alert: float | None = None
    status: Status = "ok"
    judged: bool = True
    unit: str = ""
    note: str = ""

    @property
    def family(self) -> str:
        """Measures of one family say the same in other words: it is resolved if one of them is."""
        return self.measure if self.measure in (*PERFORMANCE, "missing") else "distribution"


@dataclass(frozen=True)
class DriftReport:
    """Every finding, and what to do about it.

    Attributes:
        reference: the first half of the profile's hash. model: as the profile names it.
        made, compared: when the profile and the later counts were made, milliseconds since 1970.
        sites: in the later sums. level: of false alarms. epsilon: what the later counts cost.
    """

    findings: tuple[Finding, ...]
    reference: str
    model: str
    made: int
    compared: int
    sites: int
    level: float
    epsilon: float | None = None

    @property
    def columns(self) -> dict[str, Status]:
        """The worst finding of each column; ``unresolved`` where noise hides a whole family of its measures.

        A group that is too small to be judged does not make its column unresolved.
        """
        found: dict[str, Status] = {}
        for name in dict.fromkeys(one.column for one in self.findings):
            own = [one for one in self.findings if one.column == name and one.judged]
            families: dict[str, list[Status]] = {}
            for one in own:
                if not one.group:
                    families.setdefault(one.family, []).append(one.status)
            hidden = any(set(statuses) == {"unresolved"} for statuses in families.values())
            worst = {one.status for one in own if one.status in ("drift", "warn")}
            found[name] = "drift" if "drift" in worst else "warn" if worst else "unresolved" if hidden else "ok"
        return found

    @property
    def status(self) -> Status:
        """The worst of all columns: drift, warn, unresolved, ok."""
        found = set(self.columns.values())
        return next((one for one in _WORST if one in found), "ok")

    @property
    def exit_code(self) -> int:
        """For schedulers: 0 ok, 10 warn, 11 drift, 12 not resolved."""
        return EXIT_CODES[self.status]

    def to_frame(self) -> pd.DataFrame:
        """One line per finding."""
        return pd.DataFrame([asdict(one) for one in self.findings], columns=list(Finding.__dataclass_fields__))

    def to_value(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **asdict(self),
            "findings": [asdict(one) for one in self.findings],
            "status": self.status,
            "columns": self.columns,
            "exit_code": self.exit_code,
        }

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_value())

    def words(self) -> str:
        """The outcome in one sentence."""
        named = {status: [name for name, one in self.columns.items() if one == status] for status in _WORST}
        said = [f"{_WORDS[status]} {', '.join(named[status])}" for status in _WORST[:3] if named[status]]
        return "; ".join(said) if said else f"no drift in {', '.join(named['ok'])}"

    def answer(self) -> Answer:
        """The report as an answer with a drift panel."""
        rows = tuple(
            Row(
                one.measure,
                one.value,
                {"column": one.column, **({"group": one.group} if one.group else {})},
                None,
                unit=one.unit,
                note=one.note or ("" if one.status == "ok" else one.status),
            )
            for one in self.findings
        )
        notes = (
            self.words(),
            f"A limit holds for what is left above noise and chance; at most {self.level:.0%} of comparisons without "
            "drift raise any alarm.",
        )
        details = {"findings": [asdict(one) for one in self.findings], "columns": self.columns, "status": self.status}
        title = f"drift since {_day(self.made)}"
        return Answer(title, "drift", rows, "drift", 1 - self.level, "population", notes, details, self.sites)

    def plot(self, axes: Any = None) -> Any:
        """Draw the drift panel; raises Misuse where matplotlib is missing."""
        return self.answer().plot(axes)

    def __repr__(self) -> str:
        return f"DriftReport({self.status}: {self.words()})"

    def _repr_html_(self) -> str:
        shown = self.to_frame()[self.to_frame()["judged"]]
        shown = shown.assign(measure=[MEASURES[one] for one in shown["measure"]])
        columns = [
            "column",
            "group",
            "measure",
            "value",
            "null_mean",
            "excess",
            "p_adjusted",
            "warn",
            "alert",
            "status",
        ]
        table = shown[[*columns, "note"]].to_html(
            index=False, na_rep="–", float_format=lambda value: "–" if math.isnan(value) else f"{value:.3g}"
        )
        return f"<p><b>{html.escape(self.status)}</b>: {html.escape(self.words())}</p>{table}"


def _day(made: int) -> str:
    return datetime.fromtimestamp(made / 1000, UTC).date().isoformat()
