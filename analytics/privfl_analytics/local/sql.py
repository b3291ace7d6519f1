"""SQL text from names and values: the only place where either becomes part of a statement.

Names come from the signed schema and from the site's own table, values from the schema and from queries. Each is
quoted here by one rule; nothing else in the local engine builds text from what others chose.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from privfl.errors import Misuse

__all__ = ["MISSING_NUMBER", "Raw", "identifier", "literal", "literals"]

#: What a missing number is in an exported column.
MISSING_NUMBER = "CAST('NaN' AS DOUBLE)"


def identifier(name: str) -> str:
    """``name`` as a quoted identifier; raises Misuse for one that no database could carry."""
    if not name or "\0" in name:
        raise Misuse(f"{name!r} is no usable name of a column or table")
    return '"' + _encodable(name).replace('"', '""') + '"'


def literal(value: bool | int | float | str) -> str:
    """``value`` as a literal: numbers as DOUBLE (true and false as 1 and 0), text as VARCHAR.

    A number is written as text in quotes and cast, so that no notation of it can be read as anything else.
    """
    if isinstance(value, str):
        return "'" + _encodable(value).replace("'", "''") + "'"
    return f"CAST('{float(value)!r}' AS DOUBLE)"


def literals(values: Iterable[bool | int | float | str]) -> str:
    """A parenthesised list for IN."""
    return f"({', '.join(literal(value) for value in values)})"


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Misuse("a name or a class has half a surrogate pair in it, which no table can hold; correct it") from None
    return text


@dataclass(frozen=True, slots=True)
class Raw:
    """What one column of a site's table offers, as SQL expressions.

    Attributes:
        number: DOUBLE, NULL where the value is no number; None where the column's type holds none.
        text: VARCHAR, NULL where the value is no text; None where the column's type holds none.
        present: BOOLEAN, never NULL. NaN is not present.
        whole: VARCHAR that tells different values apart.
        words: VARCHAR, the value as it is written.
        loose: everything was written as text (a CSV file), so that text may stand for numbers and truth values.
    """

    number: str | None
    text: str | None
    present: str
    whole: str
    words: str
    loose: bool = False

    @classmethod
    def of_type(cls, name: str, kind: str, *, loose: bool = False) -> Raw:
        """A column ``name`` (already quoted) of DuckDB's type ``kind``."""
        here, kind, words = f"({name} IS NOT NULL)", kind.upper(), f"CAST({name} AS VARCHAR)"
        if kind in ("DOUBLE", "FLOAT"):
            number = f"CAST({name} AS DOUBLE)" if kind == "FLOAT" else name
            whole = f"CAST({name} + 0.0 AS VARCHAR)"  # -0.0 is 0.0
            # one missing number makes pandas keep whole ones as floats, and must not change how the others are written
            even = f"CAST(CASE WHEN trunc({name}) = {name} THEN TRY_CAST({name} AS HUGEINT) END AS VARCHAR)"
            present = f"({name} IS NOT NULL AND NOT isnan({name}))"
            return cls(number, None, present, whole, f"COALESCE({even}, {words})")
        if kind in _WHOLE or kind.startswith("DECIMAL"):
            return cls(f"CAST({name} AS DOUBLE)", None, here, words, words)
        if kind == "VARCHAR" or kind.startswith("ENUM"):
            text = name if kind == "VARCHAR" else words
            return cls(None, text, here, text, text, loose)
        if kind.startswith(_HASHED_BEGIN) or kind.endswith(_HASHED_END):
            words = f"CAST(hash({name}) AS VARCHAR)"
        return cls(None, None, here, words, words)

    @classmethod
    def of_parts(cls, name: str) -> Raw:
        """A column of objects, in three: its numbers, its texts, and how all but text is written."""
        number, text, written = f"{name}n", f"{name}t", f"{name}w"
        # From 2^53 on two whole numbers may be one double: two persons' numbers, say.
        small = f"CASE WHEN abs({number}) < 9007199254740992 THEN 'n' || CAST({number} + 0.0 AS VARCHAR) END"
        whole = f"COALESCE('t' || {text}, {small}, 'w' || {written})"
        words = f"COALESCE({text}, {written})"
        return cls(number, text, f"({words} IS NOT NULL)", whole, words)


#: Types of which some values cannot be written as text without stopping the study, or crash: a time of day beyond
#: 24 hours, broken text within a list. Nothing is ever read from them but which values are alike.
_HASHED_BEGIN, _HASHED_END = ("TIME ", "TIME_", "TIMETZ", "STRUCT", "MAP", "UNION", "VARIANT"), ("]", "TIME")

_WHOLE = frozenset(
    ["BOOLEAN"]
    + [f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")]
    + ["INTEGER", "UINTEGER", "BIGNUM"]
)
