"""What every leak is tested with: tables, an ear on everything that sites compute and say, and the checks.

A check raises AssertionError where it finds its leak; tests call it on the package as it is, and again on a package
that was broken on purpose, where it must raise.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from privfl_analytics import Query, Study
from privfl_analytics.opened import History
from privfl_analytics.question import StudyQuestion
from privfl_analytics.run import Findings

import privfl
from privfl.entropy import SYSTEM, Entropy
from privfl.ring import pack, to_words
from privfl.tasks import FrameSource, Schema, SiteData
from privfl.wires import MemoryWire
from tests.runtime.test_nothing_leaks import Catch, forms

Int64s = npt.NDArray[np.int64]

SCHEMA = Schema(
    records=400,
    subject="patient",
    max_rows=2,
    columns={
        "age": {"lower": 0, "upper": 100, "unit": "years", "missing": [999]},
        "months": {"lower": 0, "upper": 60},
        "event": {"classes": [False, True]},
        "ward": {"classes": ["surgery", "oncology", "burns"]},
        "code": {"max_length": 4, "alphabet": "ABCDEFGH"},
    },
)
#: One of everything that has leaked somewhere.
QUERIES = (
    "count by ward", "mean age by ward", "sd age", "range age", "values ward", "histogram age bins=8",
    "survival months, event bins=6", "missing age", "covariance age, months", "heavy_hitters code size=4",
    "distinct code",
)  # fmt: skip


def table(rows: int, seed: int) -> pd.DataFrame:
    """Rows whose numbers have many digits, so that each can be told wherever it stands; few burns, one odd ward."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "patient": [f"patient-{seed}-{at}" for at in range(rows)],
            "age": rng.uniform(20, 95, rows),
            "months": rng.uniform(0, 60, rows),
            "event": rng.random(rows) < 0.4,
            "ward": rng.choice(["surgery", "oncology", "burns", "ward-17-infectious"], rows, p=[0.6, 0.3, 0.05, 0.05]),
            "code": rng.choice(["AB", "CDE", "F", "NOT-DECLARED"], rows),
        }
    )


TABLES = {name: table(60 + 7 * at, at + 1) for at, name in enumerate(("north", "south", "east", "west"))}
ODD = TABLES["north"].assign(age=np.inf, ward="nowhere", months=np.nan, code="\0☃" * 9)


def data_of(frame: pd.DataFrame, schema: Schema = SCHEMA) -> SiteData:
    """A table as a site has it."""
    return SiteData(schema, FrameSource(frame))


def question_of(*queries: str | Query, epsilon: float = 4.0, **options: Any) -> StudyQuestion:
    """A study compiled for four sites."""
    named = {"sites": 4, "min_survivors": 3, "colluders": 1, "delta": 1e-6, **options}
    return Study("leaks", queries).compile(SCHEMA, epsilon=epsilon, **named)  # type: ignore[arg-type]


def first(question: StudyQuestion) -> bytes:
    """Inputs of the first stage."""
    inputs = question.next_inputs(History())
    assert inputs is not None
    return inputs


def uploaded(question: StudyQuestion, frame: pd.DataFrame | SiteData, entropy: Entropy = SYSTEM) -> Int64s:
    """A site's noised vector of the first stage."""
    data = frame if isinstance(frame, SiteData) else data_of(frame)
    return question.upload(first(question), data, entropy)


def exact(question: StudyQuestion, frame: pd.DataFrame) -> Int64s:
    """The same without noise."""
    return question.contribution(first(question), data_of(frame), SYSTEM)


def spans(question: StudyQuestion) -> Iterator[tuple[Any, Any, slice]]:
    """Part, block and place of every block of the first stage."""
    begin = 0
    for part, block in zip(question.plan[0].parts, question.releases[0].blocks, strict=True):
        yield part, block, slice(begin, begin + block.length)
        begin += block.length


def windows(vector: Int64s) -> Iterator[bytes]:
    """Three coordinates in a row, in several ways of writing them, at places all over the vector that are not zero."""
    places = [at for at in range(len(vector) - 2) if np.count_nonzero(vector[at : at + 3]) >= 2]
    for at in places[:: max(1, len(places) // 24)]:
        head = vector[at : at + 3]
        raw = head.astype("<i8").tobytes()
        yield from (raw, raw.hex().encode(), head.astype(">i8").tobytes())
        for gap in (", ", ",", " "):
            text = gap.join(str(int(value)) for value in head).encode()
            if len(text) >= 8:  # a shorter one could be anybody's
                yield text


def digits(values: Iterable[float]) -> Iterator[bytes]:
    """Numbers as text of twelve characters and as bytes; those of few digits could be anybody's."""
    for value in values:
        text = repr(float(value))
        if np.isfinite(value) and len(text) >= 12:
            yield text[:12].encode()
            yield np.array(value, "<f8").tobytes()


@dataclass
class Heard:
    """Everything that was secret and everything that was said while federations were asked."""

    catch: Catch = field(default_factory=Catch)
    sent: list[tuple[int, int]] = field(default_factory=list)  # bytes of payload and body of each upload
    vectors: list[Int64s] = field(default_factory=list)

    def listen(self, monkeypatch: pytest.MonkeyPatch) -> Heard:
        """Catch exact vectors, noised ones, messages and bodies."""
        contribution, leaving = StudyQuestion.contribution, StudyQuestion._leaving
        post, store, catch = MemoryWire.post, MemoryWire.store, self.catch

        def clean(question: StudyQuestion, inputs: bytes, *rest: Any, **named: Any) -> Int64s:
            found = contribution(question, inputs, *rest, **named)
            catch.secret("a site's exact vector", windows(found))
            return found

        def noisy(question: StudyQuestion, *rest: Any) -> Int64s:
            found = leaving(question, *rest)
            self.vectors.append(found.copy())
            catch.secret("a site's vector before its mask", windows(found))
            ring = question.sum_at(0).ring
            catch.secret("a site's vector before its mask", forms(pack(to_words(found, ring), ring)[:64]))
            return found

        def posted(wire: MemoryWire, sender: bytes, recipient: bytes, data: bytes) -> None:
            catch.say("a message", data)
            post(wire, sender, recipient, data)

        def stored(wire: MemoryWire, sender: bytes, name: bytes, data: bytes) -> None:
            catch.say("a body", data)
            self.sent.append((len(name), len(data)))
            store(wire, sender, name, data)

        monkeypatch.setattr(StudyQuestion, "contribution", clean)
        monkeypatch.setattr(StudyQuestion, "_leaving", noisy)
        monkeypatch.setattr(MemoryWire, "post", posted)
        monkeypatch.setattr(MemoryWire, "store", stored)
        return self

    def of(self, tables: Mapping[str, pd.DataFrame]) -> Heard:
        """What nobody may learn of some tables: rows, extremes, sums and means of sites, names of undeclared values."""
        catch = self.catch
        for frame in tables.values():
            for name in ("age", "months"):
                values = frame[name].to_numpy(float)
                catch.secret("a row", digits(values))
                catch.secret("an extreme", digits([values.min(), values.max()]))
                catch.secret("a sum", digits([values.sum(), (values**2).sum()]))
                catch.secret("a mean of one site", digits([values.mean(), values.std(), values.std(ddof=1)]))
                by = frame.groupby("ward")[name]
                catch.secret("a mean of one site's group", digits([*by.mean(), *by.sum()]))
            catch.secret("a person", (name.encode() for name in frame["patient"]))
        catch.secret("an undeclared class", [b"ward-17-infectious", b"NOT-DECLARED"])
        pooled = pd.concat(tables.values())
        for name in ("age", "months"):
            values = pooled[name].to_numpy(float)
            figures = [values.min(), values.max(), values.sum(), (values**2).sum(), values.mean(), values.std(ddof=1)]
            catch.secret("an exact figure of all rows", digits(figures))
        return self

    def seen(
        self, found: Findings, folder: Path, records: Sequence[logging.LogRecord] = (), *, report: bool = True
    ) -> Heard:
        """Everything that a result shows, and what was logged."""
        for one in (found, *found.answers.values()):
            self.catch.say("a repr", repr(one))
            self.catch.say("a repr", one._repr_html_())
        self.catch.say("a table", found.to_frame().to_string())
        if report:
            self.catch.say("a report", found.to_html(folder / "report.html").read_bytes())
        found.save(folder / "result")
        for path in sorted((folder / "result").rglob("*")):
            if path.is_file():
                self.catch.say("a file", path.read_bytes())
        for record in records:
            self.catch.say("a log", record.getMessage())
            self.catch.say("a log", repr(record.args))
        return self

    def check(self) -> None:
        """No secret is in anything said."""
        self.catch.check()


def ask(*queries: str, tables: Mapping[str, pd.DataFrame] = TABLES, epsilon: float = 30.0, **options: Any) -> Findings:
    """A study asked of a federation in one process."""
    fed = options.pop("federation", None) or privfl.Federation.local(tables, SCHEMA)
    named = {"epsilon": epsilon, "delta": 1e-6, "progress": False, **options}
    found: Findings = fed.ask(Study("leaks", queries or QUERIES), **named)  # type: ignore[arg-type]
    return found
