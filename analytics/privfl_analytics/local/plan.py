"""One statement that reads, filters and bounds the rows that a study needs, and what its columns mean."""

# ruff: noqa: S608 - identifiers and values are quoted in sql and reading, and nothing else becomes part of a statement
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from privfl.errors import Misuse
from privfl.tasks import Category, Numeric, Text
from privfl_analytics.conditions import Condition, columns_of
from privfl_analytics.constructions import Axis, Construction, Meets, Prefixes, Tally
from privfl_analytics.local.batch import score_of
from privfl_analytics.local.reading import (
    Expressions,
    read_category,
    read_distinct,
    read_number,
    read_subject,
    read_text,
)
from privfl_analytics.local.sql import MISSING_NUMBER
from privfl_analytics.local.tables import Table
from privfl_analytics.view import Score, View

__all__ = ["Asked", "Choice", "Plan"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A construction over the rows that a filter selects."""

    construction: Construction
    where: Condition | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows count: those of a filter, all kept ones of a subject or just one."""

    where: Condition | None
    once: bool = False

    @classmethod
    def of(cls, asked: Asked) -> Choice:
        """The rows of what is asked."""
        return cls(asked.where, isinstance(asked.construction, Tally) and asked.construction.subjects)


def axes_of(asked: Construction) -> tuple[Axis, ...]:
    """All axes of a construction."""
    return (*asked.by, *(asked.axes if isinstance(asked, Tally) else ()))


class Plan:
    """Names what must be read for some constructions, and builds the statement.

    Args:
        rows: rows that are kept of each subject; None for all rows.
        key: of the order in which a subject's rows are kept.
    """

    def __init__(self, view: View, asked: Sequence[Asked], rows: int | None, key: int) -> None:
        self.view, self.asked, self.rows, self.key = view, asked, rows, key
        self.choices = tuple(dict.fromkeys(Choice.of(one) for one in asked))
        self.subject = view.schema.subject
        if self.subject is None and (rows is not None or any(choice.once for choice in self.choices)):
            raise Misuse("rows are bounded per person only where the schema names its subject column")
        if rows is not None and rows < 1:
            raise Misuse("at least one row of a subject must be kept")
        if rows is None and any(Choice.of(one).once and axes_of(one.construction) for one in asked):
            raise Misuse("persons can be counted by cells only where the unit of privacy is the subject; give rows")
        filters = [choice.where for choice in self.choices if choice.where is not None]
        axes = dict.fromkeys(axis for one in asked for axis in axes_of(one.construction))
        self.made = tuple(axis for axis in axes if isinstance(axis, Meets | Prefixes))
        met = [axis.condition for axis in axes if isinstance(axis, Meets)]
        self.compared = view.read(tuple(name for condition in (*filters, *met) for name in columns_of(condition)))
        self.used = view.read(tuple(name for one in asked for name in one.construction.names()))
        self.exported = view.read(tuple(name for one in asked for name in _kernel_names(one.construction)))
        self.read = tuple(dict.fromkeys([*self.used, *self.compared]))

    @property
    def wanted(self) -> tuple[str, ...]:
        """Columns of the table that are read."""
        bounded = self.rows is not None or any(choice.once for choice in self.choices)
        return (*self.read, *([self.subject] if bounded and self.subject is not None else []))

    def statement(self, table: Table) -> tuple[str, list[object]]:
        """(the statement, what each of its columns is: a name, an axis or a choice)."""
        names, expressions = self._names(table)
        base, masks = self._base(table, names, expressions, [])
        outer = self._exports(names, expressions)
        outer |= {choice: f"CAST({sql} AS TINYINT)" for choice, sql in masks.items() if sql}
        some = f" WHERE {' OR '.join(masks.values())}" if all(masks.values()) else ""
        columns = ", ".join(f"{sql} AS e{at}" for at, sql in enumerate(outer.values()))
        return f"SELECT {columns or '1 AS nothing'} FROM ({base}){some}", list(outer)

    def counting(self, table: Table, *, values: bool = False) -> str:
        """How many different values the one construction's column has, or with ``values`` each with its count.

        Values are those of :func:`read_distinct`; with ``values`` the column is text, cut at its length.
        """
        names, expressions = self._names(table)
        (name,) = self.asked[0].construction.own_names()
        column = self.view.column(name)
        if name not in table.raws:
            own, told = [], expressions.number(name)
        else:
            reading = self.reading(table, name) if values else read_distinct(table.raws[name], column)
            own, told = [f"{reading} AS told"], "told"
        base, masks = self._base(table, names, expressions, own)
        (mask,) = masks.values()
        where = f" WHERE {mask}" if mask else ""
        if values:
            return f"SELECT told, count(*) FROM ({base}){where} GROUP BY told HAVING told IS NOT NULL"
        told = f"CASE WHEN isnan({told}) THEN NULL ELSE {told} END" if isinstance(column, Numeric) else told
        return f"SELECT count(DISTINCT {told}) FROM ({base}){where}"

    def _names(self, table: Table) -> tuple[dict[str, str], Expressions]:
        names = {name: f"v{at}" for at, name in enumerate(self.read)}
        return names, Expressions(self.view, names, lambda name: _score(self.view, table, name, names))

    def _base(
        self, table: Table, names: Mapping[str, str], expressions: Expressions, own: Sequence[str]
    ) -> tuple[str, dict[Choice, str]]:
        """(rows as read, filtered and numbered; choice → SQL of whether a row counts, empty where every row does)."""
        bounded = len(self.wanted) > len(self.read)
        inner = [*(f"{self.reading(table, name)} AS {short}" for name, short in names.items()), *own]
        if bounded:
            inner.append(f"{read_subject(table.raws[str(self.subject)])} AS who")
        wheres = dict.fromkeys(choice.where for choice in self.choices)
        flags = {where: f"f{at}" for at, where in enumerate(wheres) if where is not None}
        middle = ["*", *(f"COALESCE({expressions.condition(where)}, FALSE) AS {flag}" for where, flag in flags.items())]
        base = f"SELECT {', '.join(inner) or '1 AS nothing'} FROM {table.scan()}"
        base = f"SELECT {', '.join(middle)} FROM ({base})" + (" WHERE who IS NOT NULL" if self.rows is not None else "")
        if bounded:
            base = self._ranked(base, flags, [*names.values(), *(["told"] if own else [])])
        return base, {choice: self._mask(choice, flags) for choice in self.choices}

    def reading(self, table: Table, name: str) -> str:
        """SQL of a column as it is read; numbers that conditions need without NaN."""
        column, raw = self.view.schema.columns[name], table.raws[name]
        if isinstance(column, Numeric):
            value = read_number(raw, column)
            if name in self.compared:
                return f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END"
            return value
        return read_category(raw, column) if isinstance(column, Category) else read_text(raw, column)

    def _ranked(self, base: str, flags: Mapping[Condition, str], held: Sequence[str]) -> str:
        """Number the rows of each subject that each filter selects, in a keyed order of what the rows themselves hold.

        Rows with the same hash follow each other by what they hold, so that no other row ever decides. DuckDB joins
        the hashes of several values by exclusive or, which favours some rows under every key; hashed once more it
        does not.
        """
        order = ", ".join([f"hash(hash({', '.join([f'CAST({self.key} AS UBIGINT)', *held])}))", *held])
        windows = []
        for at, where in enumerate(dict.fromkeys(choice.where for choice in self.choices)):
            part = "who" if where is None else f"who, {flags[where]}"
            windows.append(f"row_number() OVER (PARTITION BY {part} ORDER BY {order}) AS r{at}")
        return f"SELECT *, {', '.join(windows)} FROM ({base})"

    def _mask(self, choice: Choice, flags: Mapping[Condition, str]) -> str:
        """SQL of whether a row counts; empty where every row does."""
        at = list(dict.fromkeys(one.where for one in self.choices)).index(choice.where)
        parts = [] if choice.where is None else [flags[choice.where]]
        if choice.once:
            parts.append(f"r{at} = 1 AND who IS NOT NULL")
        elif self.rows is not None:
            parts.append(f"r{at} <= {self.rows}")
        return f"({' AND '.join(parts)})" if parts else ""

    def _exports(self, names: Mapping[str, str], expressions: Expressions) -> dict[object, str]:
        out: dict[object, str] = {}
        for name in self.exported:
            column, short = self.view.schema.columns[name], names[name]
            if isinstance(column, Numeric):
                out[name] = f"COALESCE({short}, {MISSING_NUMBER})"
            else:
                out[name] = f"CAST({short} IS NULL AS TINYINT)" if isinstance(column, Text) else short
        for axis in self.made:
            made = (
                expressions.met(axis.condition, raw=axis.raw) if isinstance(axis, Meets) else expressions.prefixed(axis)
            )
            out[axis] = made
        return out


def _kernel_names(asked: Construction) -> tuple[str, ...]:
    """Columns that kernels look at themselves; the cells of the other axes come from SQL."""
    own = () if isinstance(asked, Tally) else asked.own_names()
    axes = (axis for axis in axes_of(asked) if not isinstance(axis, Meets | Prefixes))
    return (*(name for axis in axes for name in axis.names()), *own)


def _score(view: View, table: Table, name: str, names: Mapping[str, str]) -> str:
    """SQL of a score: the function that also the kernels use, so that both see the same number."""
    at, score = next((at, one) for at, one in enumerate(view.scores) if one.name == name)
    function = f"score_{at}"
    if function not in table.functions:
        _register(table.connection, function, view, score)
        table.functions.add(function)
    return f"{function}(list_value({', '.join(names[one] for one in score.weights)}))"


def _register(connection: duckdb.DuckDBPyConnection, function: str, view: View, score: Score) -> None:
    bounds = [view.numeric(name) for name in score.weights]
    lower, upper = (np.array([getattr(one, end) for one in bounds]) for end in ("lower", "upper"))

    def compute(lists: Any) -> pa.Array:
        whole = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
        table = whole.flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(whole), len(bounds))
        found = dict(zip(score.weights, np.clip(table, lower, upper).T, strict=True))
        return pa.array(score_of(score, found.__getitem__), from_pandas=True)

    connection.create_function(  # type: ignore[call-overload]
        function, compute, [duckdb.list_type("DOUBLE")], "DOUBLE", type="arrow", null_handling="special"
    )
