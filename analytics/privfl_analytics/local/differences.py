"""How a site's table differs from the schema, in plain words for its own operator; never a value of a row."""

# ruff: noqa: S608 - identifiers and values are quoted in sql and reading, and nothing else becomes part of a statement
from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from privfl.tasks import Category, Numeric, Schema, Source, beyond_records
from privfl_analytics.local.engine import careful
from privfl_analytics.local.reading import read_category, read_number, read_text
from privfl_analytics.local.sql import Raw
from privfl_analytics.local.tables import Table, opened

__all__ = ["columns_of_source", "differences"]

_FACTORS = (10, 100, 1000, 1_000_000)


def columns_of_source(source: Source) -> Mapping[str, str]:
    """Names and types of a table's columns, as the file or the database calls them.

    Raises:
        DataError: the table cannot be read.
    """
    with opened(source, None) as table:
        return dict(table.types)


def differences(schema: Schema, source: Source) -> tuple[str, ...]:
    """Where a table does not fit the schema: columns that lack or are of another type, classes, units by magnitude.

    More rows than the schema declares are told with their true number, which belongs on the operator's terminal only.

    Raises:
        DataError: the table cannot be read at all.
    """
    there = columns_of_source(source)
    needed = [*schema.columns, *([schema.subject] if schema.subject is not None else [])]
    found = [_lacking(name, name == schema.subject, there) for name in needed if name not in there]
    names = [name for name in schema.columns if name in there]
    if not names:
        return tuple(found)

    def looked_at(slow: bool) -> list[str]:
        with opened(source, [name for name in needed if name in there], careful=slow) as table:
            return _looked_at(schema, table, names)

    return (*found, *careful(source, looked_at))


def _lacking(name: str, subject: bool, there: Mapping[str, str]) -> str:
    near = [*(one for one in there if one.lower() == name.lower()), *get_close_matches(name, there, 1)]
    hint = f"; there is {near[0]!r}" if near else ""
    return f"the {'subject ' if subject else ''}column {name!r} is missing{hint}"


def _looked_at(schema: Schema, table: Table, names: list[str]) -> list[str]:
    asked = ["count(*)"]
    for name in names:
        column, raw = schema.columns[name], table.raws[name]
        asked.append(f"count(*) FILTER (WHERE {raw.present})")
        if isinstance(column, Numeric):
            value = read_number(raw, column)
            finite = f"CASE WHEN isfinite({value}) THEN {value} END"
            asked += [f"count({value})", f"approx_quantile({finite}, 0.5)"]
        elif isinstance(column, Category):
            code = read_category(raw, column)
            asked += [f"count(*) FILTER (WHERE {code} = {len(column.classes) + place})" for place in (0, 1)]
        else:
            asked += [f"count({read_text(raw, column)})", "0"]
    statement = f"SELECT {', '.join(asked)} FROM {table.scan()}"
    ((rows, *values),) = table.connection.execute(statement).fetchall()
    if not rows:
        return ["the table has no rows"]
    found = [beyond_records(schema, rows)]
    for at, name in enumerate(names):
        column, (present, first, second) = schema.columns[name], values[3 * at : 3 * at + 3]
        if isinstance(column, Numeric):
            found.append(_number(name, column, table, (present, first), second))
        elif isinstance(column, Category):
            found.append(_category(name, column, table.raws[name], table.types[name], (rows, first, second)))
        else:
            found.append(f"column {name!r} is empty" if not first else "")
    return [one for one in found if one]


def _number(name: str, column: Numeric, table: Table, counts: tuple[int, int], middle: float | None) -> str:
    present, numbers = counts
    raw, kind = table.raws[name], table.types[name]
    if raw.number is None and raw.text is None:
        return f"column {name!r} is {kind}, not numbers"
    if not present:
        return f"column {name!r} is empty"
    if not numbers:
        return f"column {name!r} has nothing in it that is a number"
    if middle is not None and not column.lower <= middle <= column.upper:
        return _unit(name, column, middle)
    if numbers < present and not column.missing:
        return f"column {name!r} has values that are no numbers; they count as missing"
    return ""


def _unit(name: str, column: Numeric, middle: float) -> str:
    for factor in _FACTORS:
        for moved, words in ((middle / factor, "large"), (middle * factor, "small")):
            if column.lower <= moved <= column.upper and moved:
                unit = f" (the schema says {column.unit})" if column.unit else ""
                return (
                    f"column {name!r} looks like another unit{unit}: most values are about {factor} times too {words}"
                )
    return f"most values of column {name!r} are outside its declared bounds; is it in another unit?"


def _category(name: str, column: Category, raw: Raw, kind: str, counts: tuple[int, int, int]) -> str:
    rows, other, missing = counts
    if missing == rows:
        return f"column {name!r} is empty"
    words = isinstance(column.classes[0], str)
    if (raw.text if words else raw.number) is None and not raw.loose:
        return f"column {name!r} is {kind}, and its classes are {'text' if words else 'numbers or truth values'}"
    if other == rows - missing:
        return f"column {name!r} has none of the declared classes in it"
    return f"column {name!r} has values that are no declared class; they count as 'other'" if other else ""
