"""A site's rows, wherever they lie, as every kind of question may read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

from privfl.errors import Misuse
from privfl.tasks.schema import Schema

if TYPE_CHECKING:
    import pandas as pd

    from privfl.tasks.binding import BoundData

__all__ = ["DatabaseSource", "FileSource", "FrameSource", "SiteData", "Source", "holds_password"]

T = TypeVar("T")
_SECRET = re.compile(r"(?:^|[?&#\s])[^=&?#]*(?:password|passwd|pwd)\s*=", re.IGNORECASE)
#: A colon that no port follows, and an @: a driver looks for them beyond the characters that end a URL's host.
_USER = re.compile(r"//[^/@]*:(?!\d*(?:[/,]|$))[^@]+@", re.DOTALL)


def holds_password(uri: str) -> bool:
    """Whether an address of a database has a password in it, also one with characters that end a URL's host."""
    try:
        inside = bool(urlsplit(uri).password)
    except ValueError:
        inside = False
    return inside or bool(_USER.search(uri)) or bool(_SECRET.search(unquote(uri)))


@dataclass(frozen=True, eq=False, repr=False)
class FrameSource:
    """A pandas frame in memory."""

    frame: pd.DataFrame

    def __repr__(self) -> str:
        return "FrameSource(rows hidden)"


@dataclass(frozen=True)
class FileSource:
    """A file; ``format`` is one of those of :data:`privfl.homes.tables.FORMATS`."""

    path: Path
    format: str

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class DatabaseSource:
    """A table (or view) of a database, which is only ever read.

    Attributes:
        driver: ``sqlite`` or ``postgresql``.
        uri: where it is: the absolute path of an SQLite file, or ``postgresql://user@host:port/database``; never with
            a password in it, which belongs into the driver's own files or environment.
        table: its name, ``schema.name`` where it has a schema. It is quoted as an identifier, never pasted.
    """

    driver: str
    uri: str
    table: str

    @classmethod
    def of(cls, uri: str, table: str) -> DatabaseSource:
        """Read what an operator wrote; raises Misuse for a password in it, another database, or no usable name."""
        try:
            parts = urlsplit(uri)
        except ValueError:
            raise Misuse("this is no address of a database; write postgresql://user@host/database") from None
        if not uri.isprintable():
            raise Misuse("an address of a database is one line of visible characters")
        if holds_password(uri):
            raise Misuse(
                "an address with a password in it is refused, as it would stand in this site's configuration; leave it "
                "out and set PGPASSWORD, or PGPASSFILE for a file that only this user can read (by default ~/.pgpass)"
            )
        names = table.split(".")
        if len(names) > 2 or not all(names) or not table.isprintable():
            raise Misuse(f"{table!a:.80} is no name of a table; write --table name or --table schema.name")
        if parts.scheme in ("postgresql", "postgres"):
            return cls("postgresql", uri, table)
        if parts.scheme == "sqlite" and not parts.netloc and parts.path.strip("/"):
            return cls("sqlite", "/" + unquote(parts.path).lstrip("/"), table)
        raise Misuse(
            f"{parts.scheme!a:.20} is no database here; write postgresql://user@host/database or "
            "sqlite:///absolute/path (other databases: export the table as Parquet)"
        )

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database; None for a server."""
        return Path(self.uri) if self.driver == "sqlite" else None

    def __str__(self) -> str:
        return f"table {self.table} of {self.uri}"


Source: TypeAlias = FrameSource | FileSource | DatabaseSource


class SiteData:
    """One site's rows under the schema they were bound to.

    Args:
        schema: what the federation agreed on.
        source: where the rows are.
        load: reads them into memory for questions that need them there (training); may be slow. None where the
            table was bound for analytics alone.
    """

    __slots__ = ("_bound", "_load", "_prepared", "schema", "source")
    #: Whether there is a table that privfl reads itself.
    readable = True

    def __init__(
        self,
        schema: Schema,
        source: Source | None,
        load: Callable[[], BoundData] | None = None,
        bound: BoundData | None = None,
    ) -> None:
        self.schema, self.source = schema, source
        self._load, self._bound = load, bound
        self._prepared: dict[object, Any] = {}

    @classmethod
    def of(cls, bound: BoundData, source: Source | None = None) -> SiteData:
        """Rows that are in memory already."""
        return cls(bound.schema, source, bound=bound)

    @property
    def bound(self) -> BoundData:
        """The rows in memory, in public bounds and units.

        Raises:
            Misuse: the table was bound for analytics alone.
            DataError: it can no longer be read, or no longer fits.
        """
        if self._bound is None:
            if self._load is None:
                raise Misuse(
                    "this table was bound for analytics alone; bind it without --analytics-only to train on it"
                )
            self._bound = self._load()
        return self._bound

    def within(self, ms: int) -> None:
        """Told, before a charged slot is computed, how long its announcement leaves; a table need not know."""

    def prepared(self, key: object, make: Callable[[], T]) -> T:
        """What ``make`` returns, kept under ``key``, such as an open connection to the rows."""
        if key not in self._prepared:
            self._prepared[key] = make()
        kept: T = self._prepared[key]
        return kept

    def __repr__(self) -> str:
        return f"SiteData({self.schema!r}, rows hidden)"

    def __reduce__(self) -> str:
        raise Misuse("a site's data stays at its site and is not pickled; bind the table where it is used")
