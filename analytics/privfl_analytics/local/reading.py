"""How a value of a declared column is read, in SQL: whatever a row holds has a reading, and none raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from privfl.tasks import Category, Class, Numeric, Text
from privfl_analytics.conditions import All, Any_, Compare, Condition, IsMissing, Not, OneOf
from privfl_analytics.constructions import Prefixes
from privfl_analytics.local.sql import Raw, literal, literals
from privfl_analytics.view import View

__all__ = ["Expressions", "read_category", "read_distinct", "read_number", "read_subject", "read_text"]

#: Text that stands for a missing value in a text file, as pandas reads it when a model is trained on the same file.
_MISSING_WORDS = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
    *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)


def _number(raw: Raw, *, cast: bool) -> str | None:
    """DOUBLE or NULL; text counts as a number where ``cast`` or in a text file."""
    parts = [] if raw.number is None else [raw.number]
    if raw.text is not None and (cast or raw.loose):
        parts.append(f"TRY_CAST({raw.text} AS DOUBLE)")
    return None if not parts else parts[0] if len(parts) == 1 else f"COALESCE({', '.join(parts)})"


def read_number(raw: Raw, column: Numeric) -> str:
    """The number as it stands, not clamped; NULL where it is missing or none. NaN is left to the caller."""
    value = _number(raw, cast=True)
    if value is None:
        return "CAST(NULL AS DOUBLE)"
    return f"CASE WHEN {value} IN {literals(column.missing)} THEN NULL ELSE {value} END" if column.missing else value


def _present(raw: Raw, declared: tuple[Class, ...]) -> str:
    words = [word for word in _MISSING_WORDS if word not in declared]
    return f"({raw.present} AND {raw.text} NOT IN {literals(words)})" if raw.loose else raw.present


def _class_key(raw: Raw, column: Category) -> str | None:
    """What classes are compared with: text with text, numbers and truth values with numbers."""
    if isinstance(column.classes[0], str):
        return raw.text
    value = _number(raw, cast=False)
    if raw.loose and value is not None:
        return f"COALESCE({value}, CASE lower(trim({raw.text})) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 END)"
    return value


def read_category(raw: Raw, column: Category) -> str:
    """SMALLINT or INTEGER: the place of the class, k for another value, k + 1 for a missing one."""
    classes, key, k = column.classes, _class_key(raw, column), len(column.classes)
    whole = "SMALLINT" if k + 1 < 1 << 15 else "INTEGER"  # a code that does not fit would stop the study
    if key is None:
        return f"CAST(CASE WHEN {_present(raw, ())} THEN {k} ELSE {k + 1} END AS {whole})"
    cases = [f"WHEN NOT {_present(raw, (*classes, *column.missing))} THEN {k + 1}"]
    if column.missing:
        cases.append(f"WHEN {key} IN {literals(column.missing)} THEN {k + 1}")
    if isinstance(classes[0], str) and k > 8 and all("\0" not in str(item) for item in classes):
        kind = f"ENUM({', '.join(map(literal, classes))})"
        last = f"COALESCE(enum_code(TRY_CAST({key} AS {kind})), {k})"
    else:
        cases += [f"WHEN {key} = {literal(item)} THEN {at}" for at, item in enumerate(classes)]
        last = str(k)
    return f"CAST(CASE {' '.join(cases)} ELSE {last} END AS {whole})"


def read_text(raw: Raw, column: Text) -> str:
    """VARCHAR of at most the column's length; NULL where it is missing."""
    value = raw.words
    present = _present(raw, column.missing)
    if column.missing:
        present = f"({present} AND {value} NOT IN {literals(column.missing)})"
    return f"CASE WHEN {present} THEN left({value}, {column.max_length}) END"


def read_distinct(raw: Raw, column: Numeric | Category | Text) -> str:
    """What tells values of a column apart, uncut and unclamped; NULL where the value is missing."""
    if isinstance(column, Numeric):
        return read_number(raw, column)
    if isinstance(column, Text):
        present = f"{read_text(raw, column)} IS NOT NULL"
        return f"CASE WHEN {present} THEN {raw.whole} END"
    key = _class_key(raw, column)
    whole = (
        raw.whole
        if key is None or isinstance(column.classes[0], str)
        else f"COALESCE(CAST({key} AS VARCHAR), {raw.whole})"
    )
    return f"CASE WHEN {read_category(raw, column)} <= {len(column.classes)} THEN {whole} END"


def read_subject(raw: Raw) -> str:
    """VARCHAR that tells subjects apart; NULL where a row has none, or blanks only."""
    return f"CASE WHEN {_present(raw, ())} AND trim({raw.whole}) <> '' THEN {raw.whole} END"


class Expressions:
    """Conditions and axes over columns that were read under names of the engine's own.

    Args:
        view: what is declared.
        names: declared column → SQL of its reading: numbers with NULL for missing, codes, or text.
        score: SQL of a score by its name.
    """

    def __init__(self, view: View, names: Mapping[str, str], score: Callable[[str], str]) -> None:
        self._view, self._names, self._score = view, names, score

    def number(self, name: str, *, raw: bool = False) -> str:
        """A number, clamped to its bounds unless ``raw``; NULL where it is missing."""
        if name not in self._names:
            return self._score(name)
        column, value = self._view.numeric(name), self._names[name]
        if raw:
            return value
        lower, upper = literal(column.lower), literal(column.upper)  # least() and greatest() would pass over NULL
        return f"CASE WHEN {value} < {lower} THEN {lower} WHEN {value} > {upper} THEN {upper} ELSE {value} END"

    def condition(self, condition: Condition, *, raw: bool = False) -> str:
        """Three-valued truth, as SQL has it."""
        match condition:
            case IsMissing():
                return self._missing(condition.column)
            case Not():
                return f"(NOT {self.condition(condition.part, raw=raw)})"
            case All():
                return f"({' AND '.join(self.condition(part, raw=raw) for part in condition.parts)})"
            case Any_():
                return f"({' OR '.join(self.condition(part, raw=raw) for part in condition.parts)})"
            case OneOf():
                return self._one_of(condition.column, condition.values)
            case Compare():
                return self._compare(condition, raw)

    def _missing(self, name: str) -> str:
        column = self._view.column(name)
        if isinstance(column, Category):
            return f"({self._names[name]} = {len(column.classes) + 1})"
        value = self.number(name) if isinstance(column, Numeric) else self._names[name]
        return f"({value} IS NULL)"

    def _one_of(self, name: str, values: tuple[Class, ...]) -> str:
        classes, code = self._view.category(name).classes, self._names[name]
        places = [str(at) for at, item in enumerate(classes) if item in values] or ["-1"]
        return f"(CASE WHEN {code} <= {len(classes)} THEN {code} IN ({', '.join(places)}) END)"

    def _compare(self, condition: Compare, raw: bool) -> str:
        if isinstance(self._view.column(condition.column), Category):
            equal = self._one_of(condition.column, (condition.value,))  # type: ignore[arg-type]
            return equal if condition.operator == "==" else f"(NOT {equal})"
        operator = {"==": "=", "!=": "<>"}.get(condition.operator, condition.operator)
        return f"({self.number(condition.column, raw=raw)} {operator} {literal(condition.value)})"

    def met(self, condition: Condition, *, raw: bool) -> str:
        """TINYINT: 0 met, 1 not met, 2 unknown."""
        return f"CAST(COALESCE(1 - CAST({self.condition(condition, raw=raw)} AS TINYINT), 2) AS TINYINT)"

    def prefixed(self, axis: Prefixes) -> str:
        """INTEGER: the cell of an axis of prefixes."""
        alphabet, text = self._view.text(axis.column).alphabet, self._names[axis.column]
        letters = len(alphabet) + 1
        other = axis.size * letters
        if not axis.candidates:
            return f"CAST({other} AS INTEGER)"
        length = len(axis.candidates[0])
        kind = f"ENUM({', '.join(map(literal, axis.candidates))})"
        place = f"CAST(enum_code(TRY_CAST(left({text}, {length}) AS {kind})) AS INTEGER)"
        rest = f"substr({text}, {length + 1}, 1)"
        letter = f"CASE WHEN {rest} = '' THEN {letters - 1} ELSE nullif(strpos({literal(alphabet)}, {rest}), 0) - 1 END"
        return f"CAST(COALESCE({place} * {letters} + {letter}, {other}) AS INTEGER)"
