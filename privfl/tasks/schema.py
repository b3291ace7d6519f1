"""What the federation agrees on in public about a table, and a site's table bound to it.

The schema is the only source of bounds, centres, scales, classes and sizes. Nothing of the kind is
ever computed from rows: a row may change a sum, never the way it is summed.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from privfl.declared import Declared
from privfl.errors import Misuse

if TYPE_CHECKING:
    import pandas as pd

    from privfl.tasks.binding import BoundData

__all__ = ["Category", "Class", "Column", "Numeric", "Schema", "Text"]

_OTHERS = "{classes: [no, yes]} or {max_length: 8}"
_KNOWLEDGE = "write what is public knowledge about the column, never what is read off the rows"
Class: TypeAlias = bool | int | str


class Numeric(Declared):
    """A number with public bounds and a public reference range.

    Args:
        lower, upper: values outside are clamped; they bound what one row can say.
        center, scale: reference mean and spread in the column's unit; features become
            ``(value - center) / scale``. By default the middle and the half width of the bounds.
        unit: free text, for people.
        missing: numbers that stand for a missing value, such as -9 or 999.

    Raises:
        Misuse: bounds out of order, a centre outside them, a scale that is not positive.
    """

    kind: Literal["numeric"] = "numeric"
    lower: float
    upper: float
    center: float
    scale: float
    unit: Annotated[str, Field(max_length=64)] = ""
    missing: Annotated[tuple[float, ...], Field(max_length=64)] = ()

    @model_validator(mode="before")
    @classmethod
    def _reference_range(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and isinstance(fields.get("lower"), int | float):
            lower, upper = fields["lower"], fields.get("upper")
            if isinstance(upper, int | float):
                return {"center": (lower + upper) / 2, "scale": (upper - lower) / 2, **fields}
        return fields

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.lower < self.upper:
            raise ValueError(f"lower {self.lower} is not below upper {self.upper}")
        if not self.lower <= self.center <= self.upper:
            raise ValueError(f"center {self.center} is outside [{self.lower}, {self.upper}]")
        if not (self.scale > 0 and math.isfinite((self.upper - self.lower) / self.scale)):
            raise ValueError(f"scale {self.scale} is not a usable positive number")
        return self


class Category(Declared):
    """A column with declared classes, all bool, all int or all text; other values count as unknown.

    Args:
        classes: in the order in which they are numbered.
        missing: values that stand for a missing one, of the kind of the classes.

    Raises:
        Misuse: fewer than two classes, a class twice, classes of mixed types, or a missing code that is a class.
    """

    kind: Literal["category"] = "category"
    classes: tuple[Class, ...]
    missing: Annotated[tuple[Class, ...], Field(max_length=64)] = ()

    @field_validator("classes", "missing", mode="before")
    @classmethod
    def _plain(cls, classes: Any) -> Any:
        items = classes.tolist() if hasattr(classes, "tolist") else classes
        return tuple(item.item() if hasattr(item, "item") else item for item in items)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError("a category needs two or more distinct classes")
        if len({type(item) for item in self.classes}) != 1:
            raise ValueError("classes must be all true/false, all whole numbers or all text")
        if {type(item) for item in self.missing} - {type(self.classes[0])} or set(self.missing) & set(self.classes):
            raise ValueError("missing codes must be of the kind of the classes, and none of them a class")
        return self


class Text(Declared):
    """Free text over a declared alphabet, such as codes; only its frequent values can ever be asked for.

    Args:
        max_length: characters that are looked at; longer values are cut there.
        alphabet: characters it is made of, each once; another character counts as "other".
        missing: values that stand for a missing one.

    Raises:
        Misuse: an empty alphabet, or a character twice.
    """

    kind: Literal["text"] = "text"
    max_length: Annotated[int, Field(ge=1, le=64)]
    alphabet: Annotated[str, Field(min_length=1, max_length=256)] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_ "
    missing: Annotated[tuple[str, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len(set(self.alphabet)) != len(self.alphabet) or not self.alphabet.isprintable():
            raise ValueError("an alphabet names each visible character once")
        return self


Column: TypeAlias = Numeric | Category | Text


class Schema(Declared):
    """The columns of a federated table and its declared public size.

    Args:
        records: declared public number of records over all sites together. Sums are divided by it;
            the true number stays private. A rough figure is good enough, and it is never checked.
        columns: name to :class:`Numeric`, :class:`Category` or :class:`Text` (or the mapping that describes one).
        name, version: shown in reports and bound into every round.
        subject: the column that tells whose row it is, for the unit of privacy ``subject``; it is no column of
            ``columns`` and is never asked for. None where rows have no persons.
        max_rows: rows of one subject that any question uses at most.

    Raises:
        Misuse: lists every complaint, by column.

    >>> schema = Schema(records=1000, columns={
    ...     "age": {"lower": 0, "upper": 110, "center": 45, "scale": 20, "unit": "years"},
    ...     "ill": {"classes": [False, True]}})
    >>> schema
    Schema('table' v1, 1000 records declared, 1 numeric + 1 category columns)
    """

    name: str = "table"
    version: int = 1
    records: int
    columns: dict[str, Column]
    subject: str | None = None
    max_rows: Annotated[int, Field(ge=1, le=10_000)] = 1

    @field_validator("records", mode="before")
    @classmethod
    def _filled_in(cls, records: Any) -> Any:
        if records is None:
            raise ValueError("not filled in yet; write a rough public number of records over all sites together")
        return records

    @field_validator("columns", mode="before")
    @classmethod
    def _built(cls, columns: Any) -> Any:
        if not isinstance(columns, Mapping):
            raise ValueError("must map column names to their descriptions")
        built, complaints = {}, []
        for name, item in columns.items():
            try:
                built[name] = item if isinstance(item, Numeric | Category | Text) else _column(item)
            except Misuse as error:
                complaints.append(f"column {name!r}: {error}")
        if complaints:
            raise ValueError("; ".join(complaints))
        return built

    @model_validator(mode="after")
    def _sized(self) -> Self:
        if self.records < 1 or not self.columns:
            raise ValueError("a schema declares at least one record and one column")
        if self.subject is not None and (not self.subject or self.subject in self.columns):
            raise ValueError("subject names a column of the table that is none of the schema's columns")
        if self.subject is None and self.max_rows != 1:
            raise ValueError("max_rows needs subject, the column that tells whose row it is")
        return self

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Build a schema from plain mappings; raises Misuse naming every complaint."""
        return cls(**dict(fields))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote; raises Misuse for anything else."""
        try:
            fields = json.loads(text)
        except ValueError:
            raise Misuse("the schema is not JSON; write it with Schema.to_json") from None
        if not isinstance(fields, dict):
            raise Misuse("the schema must be a mapping with records and columns")
        return cls.from_dict(fields)

    @classmethod
    def from_yaml(cls, source: str | Path) -> Self:
        """Read a schema from a YAML file (a ``Path``) or from YAML text.

        Raises:
            Misuse: PyYAML is missing, the file cannot be read, or the content is not a schema.
        """
        try:
            yaml = importlib.import_module("yaml")  # optional: JSON and dictionaries work without it
        except ImportError:
            raise Misuse("reading YAML needs PyYAML (pip install pyyaml); Schema.from_json needs nothing") from None
        try:
            text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
            fields = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise Misuse(f"the schema cannot be read as YAML: {type(error).__name__}") from None
        if not isinstance(fields, dict):
            raise Misuse("the schema must be a mapping with records and columns")
        return cls.from_dict(fields)

    def bind(self, frame: pd.DataFrame) -> BoundData:
        """Check a site's table against the schema and bring it into bounds; see :func:`privfl.tasks.binding.bind`."""
        from privfl.tasks.binding import bind  # noqa: PLC0415 - binding needs the schema

        return bind(self, frame)

    def to_json(self) -> str:
        """The schema as JSON text, columns in their order."""
        return self.model_dump_json(indent=2)

    @property
    def digest(self) -> bytes:
        """SHA-256 of all that the schema says, 32 bytes; equal schemas have equal digests, however they are written."""
        # defaults are left out: what a later version can say and this schema does not say changes nothing
        fields = self.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).digest()

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the numeric columns, in order."""
        return tuple(name for name, column in self.columns.items() if isinstance(column, Numeric))

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that is read of a table: the columns, and the subject column last."""
        return (*self.columns, *(() if self.subject is None else (self.subject,)))

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the text columns, in order."""
        return tuple(name for name, column in self.columns.items() if isinstance(column, Text))

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the category columns, in order."""
        return tuple(name for name, column in self.columns.items() if isinstance(column, Category))

    def __repr__(self) -> str:
        texts = len(self.columns) - len(self.numeric) - len(self.categories)
        text = f" + {texts} text" if texts else ""
        return (
            f"Schema({self.name!r} v{self.version}, {self.records} records declared, "
            f"{len(self.numeric)} numeric + {len(self.categories)} category{text} columns)"
        )

    __str__ = __repr__


def _column(item: Any) -> Column:
    if not isinstance(item, Mapping):
        raise Misuse(f"must be a mapping; write {{lower: 0, upper: 110}}, {_OTHERS}")
    fields = dict(item)
    if empty := [str(name) for name, value in fields.items() if value is None or (name == "classes" and not value)]:
        raise Misuse(f"{' and '.join(empty)} not filled in yet; {_KNOWLEDGE}")
    if not {"classes", "max_length"} & set(fields) and not {"lower", "upper"} <= set(fields):
        raise Misuse(f"has no bounds; write {{lower: 0, upper: 110}}, {_OTHERS}")
    if "classes" in fields:
        return Category(**fields)
    return Text(**fields) if "max_length" in fields or fields.get("kind") == "text" else Numeric(**fields)
