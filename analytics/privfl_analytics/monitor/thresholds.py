"""When a difference is worth a warning: public limits per measure, in YAML, with defaults."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from privfl.budget.policy_file import Fault, FileKind, InvalidPolicy, read_document
from privfl.declared import Declared
from privfl.errors import Misuse

__all__ = ["MEASURES", "PERFORMANCE", "SIGNED", "Limit", "Thresholds"]

KIND = FileKind("threshold", "psi: {warn: 0.05, alert: 0.1}", 5)

#: Every measure, with what it says.
MEASURES = {
    "psi": "population stability index",
    "ks": "Kolmogorov–Smirnov distance",
    "jensen_shannon": "Jensen–Shannon divergence, bits",
    "total_variation": "total variation distance",
    "wasserstein": "Wasserstein-1 distance, in the column's unit",
    "missing": "change of the missing share",
    "auc": "change of the AUC",
    "brier": "change of the Brier score",
    "calibration": "change of observed minus predicted rate",
    "calibration_error": "change of the expected calibration error",
}
#: Measures of a score against its label.
PERFORMANCE = ("auc", "brier", "calibration", "calibration_error")
#: Measures with a sign; their size is judged.
SIGNED = ("missing", *PERFORMANCE)


class Limit(Declared):
    """A difference above ``warn`` is worth a look, one above ``alert`` is drift.

    Raises:
        Misuse: not 0 < warn ≤ alert.
    """

    warn: Annotated[float, Field(gt=0)]
    alert: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.warn > self.alert:
            raise ValueError(f"warn {self.warn:g} is above alert {self.alert:g}; exchange them")
        return self


class Thresholds(Declared):
    """Limits of what is left of each measure after the part that noise and chance explain.

    Args:
        level: probability of any false alarm in one comparison, over all columns and measures together (Holm).
        psi … calibration_error: the limit of a measure everywhere; None reports it without judging.
        columns: column → measure → limit, where a column needs its own; Wasserstein's, which has a unit, can only be
            set here.
        draws: simulated comparisons without drift, per table.

    Raises:
        Misuse: an unknown measure, limits out of order, a level outside (0, 0.5].
    """

    DRAWS: ClassVar[int] = 2000

    level: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    draws: Annotated[int, Field(ge=200, le=1_000_000)] = DRAWS
    psi: Limit | None = Limit(warn=0.1, alert=0.2)
    ks: Limit | None = Limit(warn=0.1, alert=0.2)
    jensen_shannon: Limit | None = Limit(warn=0.02, alert=0.04)
    total_variation: Limit | None = Limit(warn=0.1, alert=0.2)
    missing: Limit | None = Limit(warn=0.05, alert=0.1)
    auc: Limit | None = Limit(warn=0.03, alert=0.06)
    brier: Limit | None = Limit(warn=0.02, alert=0.04)
    calibration: Limit | None = Limit(warn=0.05, alert=0.1)
    calibration_error: Limit | None = None
    columns: dict[str, dict[str, Limit | None]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> Self:
        for column, limits in self.columns.items():
            unknown = [name for name in limits if name not in MEASURES]
            if unknown:
                raise ValueError(f"{column}: there is no measure {unknown[0]!r}; there are {', '.join(MEASURES)}")
        return self

    def limit(self, column: str, measure: str) -> Limit | None:
        """The limit that holds for a column; None where the measure is only reported."""
        own = self.columns.get(column, {})
        found: Limit | None = own[measure] if measure in own else getattr(self, measure, None)
        return found

    def check_columns(self, names: tuple[str, ...]) -> None:
        """Raise Misuse if limits are set for a column that the profile does not watch."""
        unknown = [name for name in self.columns if name not in names]
        if unknown:
            raise Misuse(f"thresholds name column {unknown[0]!r}; the profile watches {', '.join(names)}")

    @classmethod
    def from_yaml(cls, source: str | Path) -> Self:
        """Read thresholds from a YAML file (a ``Path``) or from YAML text; ``off`` in quotes stands for no limit.

        Raises:
            Misuse: the file cannot be read or says something else; with the line of each complaint.
        """
        name = str(source) if isinstance(source, Path) else "thresholds"
        try:
            document = read_document(source, KIND)
        except InvalidPolicy as error:
            raise Misuse("; ".join(fault.words(name) for fault in error.faults)) from None
        faults: list[Fault] = []
        fields = _read(dict(document.fields), faults)
        found = None
        try:
            found = cls(**fields)
        except Misuse as error:
            faults.append(_placed(str(error)))
        if found is None or faults or document.faults:
            raise Misuse("; ".join(fault.words(name) for fault in document.located(faults)))
        return found

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(self.model_dump(mode="json"), indent=2)


def _read(fields: dict[str, Any], faults: list[Fault]) -> dict[str, Any]:
    """The fields with limits built, each complaint with its place; what cannot be read is left out."""
    measures = {name for name in MEASURES if name in Thresholds.model_fields}
    known = {*Thresholds.model_fields}
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if name in measures:
            found |= _limit((name,), value, faults)
        elif name == "columns" and isinstance(value, dict):
            found["columns"] = {
                column: _limits(("columns", column), limits, faults) for column, limits in value.items()
            }
        elif name in known:
            found[name] = value
        else:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            faults.append(Fault((name,), f"there is no measure or field of this name; {hint}"))
    return found


def _limits(place: tuple[str, str], value: Any, faults: list[Fault]) -> dict[str, Limit | None]:
    if not isinstance(value, dict):
        faults.append(Fault(place, "write the measures of this column below it, such as psi: {warn: 0.1, alert: 0.2}"))
        return {}
    found: dict[str, Limit | None] = {}
    for name, limit in value.items():
        if name in MEASURES:
            found |= _limit((*place, name), limit, faults)
        else:
            said = f"there is no measure {name!r}; there are {', '.join(sorted(MEASURES))}"
            faults.append(Fault((*place, name), said))
    return found


def _limit(place: tuple[str, ...], value: Any, faults: list[Fault]) -> dict[str, Limit | None]:
    """One limit under its name; nothing where it cannot be read."""
    if value == "off":
        return {place[-1]: None}
    if not isinstance(value, dict):
        faults.append(Fault(place, "write {warn: 0.1, alert: 0.2}, or 'off' in quotes"))
        return {}
    try:
        return {place[-1]: Limit(**value)}
    except Misuse as error:
        faults.append(_placed(str(error), place))
        return {}


def _placed(text: str, place: tuple[str, ...] = ()) -> Fault:
    """The complaint of a model, whose own place is in front of it."""
    own, colon, words = text.partition(": ")
    if colon and all(part.isidentifier() for part in own.split(".")):
        return Fault((*place, *own.split(".")), words)
    return Fault(place, text)
