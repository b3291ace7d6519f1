"""Data quality by rules: how many rows keep each, violate it, or cannot be judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from privfl.errors import Misuse
from privfl.tasks import Category, Numeric
from privfl_analytics.answer import Answer, Row
from privfl_analytics.conditions import All, Compare, Condition, IsMissing, Not, OneOf, check_condition, words_of
from privfl_analytics.constructions import Construction, Meets, Tally
from privfl_analytics.decode import NOT_RESOLVED, count_rows, hidden, number, share_of
from privfl_analytics.predicates import condition_of
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics.binned import answered
from privfl_analytics.view import View

__all__ = ["Quality"]

_CELLS = ("ok", "violated", "unknown")
_MOST = 200


class Quality(Statistic):
    """How many rows keep each of some rules. Numbers are judged as the site has them, before they are clamped.

    Args:
        rules: name → condition that a sound row meets, e.g. ``{"adult": "age >= 18"}``.
        columns: for each also the usual rules: it is present (completeness), a number lies within its declared bounds
            (plausibility), a category is one of its declared classes (conformance).
    """

    name: ClassVar[str] = "quality"
    summary: ClassVar[str] = "rows that keep or violate data-quality rules"
    example: ClassVar[str] = "quality columns=[systolic, ward]"

    rules: Annotated[dict[str, Condition], Field(default_factory=dict, max_length=_MOST)]
    columns: Annotated[tuple[str, ...], Field(max_length=_MOST)] = ()

    @field_validator("rules", mode="before")
    @classmethod
    def _read(cls, rules: Any) -> Any:
        if not isinstance(rules, Mapping):
            raise ValueError("must map names of rules to conditions, such as {'adult': 'age >= 18'}")
        return {name: one if isinstance(one, Mapping) else condition_of(one) for name, one in rules.items()}

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.rules and not self.columns:
            raise ValueError("name at least one rule, or columns for the usual rules")
        if any(not name or len(name) > 100 or not name.isprintable() for name in self.rules):
            raise ValueError("rules: a rule's name has 1 to 100 visible characters")
        return self

    def all_rules(self, view: View) -> dict[str, tuple[str, Condition]]:
        """Name → what the rule is about, and its condition; raises Misuse if two have one name or one does not fit."""
        found: dict[str, tuple[str, Condition]] = {name: ("rule", one) for name, one in self.rules.items()}
        for name in self.columns:
            for label, kind, condition in _usual(view, name):
                if label in found:
                    raise Misuse(f"two rules are called {label!r}; give yours another name, or name a column once")
                found[label] = (kind, condition)
        for label, (_, condition) in found.items():
            try:
                check_condition(condition, view)
            except Misuse as error:
                raise Misuse(f"rule {label!r}: {error}") from None
        return found

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """Three cells per rule, each rule with noise of its own."""
        rules = self.all_rules(view).values()
        return tuple(Tally(axes=(Meets(condition=condition, raw=True),)) for _, condition in rules)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Rows ``ok``, ``violated``, ``unknown`` and ``share violated`` (of those that can be judged) by rule."""
        rows: list[Row] = []
        rules = self.all_rules(view)
        for (name, (kind, _)), found in zip(rules.items(), stages[0], strict=True):
            at: dict[str, str | float] = {"rule": name, "about": kind}
            rows += _judged(found, at, context)
        details = {name: {"about": kind, "condition": words_of(one)} for name, (kind, one) in rules.items()}
        note = "unknown: a value that the rule needs is missing or cannot be read"
        return answered(self, context, rows, picture="table", details={"rules": details}, notes=(note,))

    def words(self) -> str:
        own = [f"{name} ({words_of(one)})" for name, one in self.rules.items()]
        usual = [f"the usual rules for {', '.join(self.columns)}"] if self.columns else []
        return f"how many rows violate {'; '.join(own + usual)}"

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        sd = max(sds[0])
        return f"each count ± {1.96 * sd:.3g}, a share of violations ± {196 * sd / records:.2g} percentage points"


def _judged(found: Noisy, at: dict[str, str | float], context: Context) -> list[Row]:
    """The rows of one rule."""
    counts = found.values
    veiled = hidden(counts, context.min_cell_count, found.sd)
    total = float(counts.clip(0, None).sum())
    rows = [
        row
        for cell, what in enumerate(_CELLS)
        for row in count_rows(
            what, counts[cell : cell + 1], found.sd, [at], context, mask=veiled[cell : cell + 1], total=total
        )
    ]
    shown = rows[0].value is not None and rows[1].value is not None
    share = share_of(counts[:2], 1, found.sd, context) if shown else None
    note = "" if shown else next((row.note for row in rows[:2][::-1] if row.note), NOT_RESOLVED)
    return [*rows, number("share violated", share, at=at, note=note)]


def _usual(view: View, name: str) -> list[tuple[str, str, Condition]]:
    """(label, what it is about, condition) of the usual rules for a column."""
    column = view.column(name)
    found: list[tuple[str, str, Condition]] = [(f"{name} is present", "completeness", Not(part=IsMissing(column=name)))]
    if isinstance(column, Numeric):
        parts = (
            Compare(column=name, operator=">=", value=column.lower),
            Compare(column=name, operator="<=", value=column.upper),
        )
        label = f"{name} lies within [{column.lower:g}, {column.upper:g}]"
        found.append((label, "plausibility", All(parts=parts)))
    elif isinstance(column, Category):
        found.append((f"{name} is a declared class", "conformance", OneOf(column=name, values=column.classes)))
    return found
