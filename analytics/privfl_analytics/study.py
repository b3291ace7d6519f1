"""A study: queries that share one vector, one round and one budget, and its compilation into a question."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from privfl.budget import Purpose
from privfl.dp import Trust, Unit
from privfl.errors import BudgetExceeded, Misuse
from privfl.tasks import Schema
from privfl_analytics.conditions import size_of
from privfl_analytics.layout import MAX_LENGTH, Setting, fewest_survivors, stages_of
from privfl_analytics.noise import least_epsilon, plan_releases
from privfl_analytics.query import Query, checked_name
from privfl_analytics.view import Score, View

if TYPE_CHECKING:
    from privfl_analytics.explain import Explanation
    from privfl_analytics.question import StudyQuestion

__all__ = ["Study"]

MAX_QUERIES, MAX_SCORES = 1000, 1000
#: Comparisons in the conditions of all queries: a site's database plans each of them.
MAX_COMPARISONS = 10_000
MAX_ATTEMPTS = 100
#: Beyond it a privacy claim says nothing.
MAX_EPSILON = 1000.0


@dataclass(frozen=True)
class Study:
    """Several queries that are asked together.

    Args:
        name: in reports and the ledger.
        queries: in the order of the answers, each a query or a line of text; a mapping names them.
        scores: numbers that sites compute for each row, which queries may then name as columns.
        confidence: of intervals. interval: ``population`` (what the rows were drawn from) or ``rows`` (these rows).
        purpose: ``analytics`` or ``monitoring``, the share of the budget that pays.
        description: what it is for, for the people who approve it.

    Raises:
        Misuse: no query, two of one name, or a number out of range.

    >>> study = Study("sizes", [Query.parse("count"), Query.parse("count by sex")])  # doctest: +SKIP
    """

    name: str
    queries: tuple[Query, ...]
    scores: tuple[Score, ...] = ()
    confidence: float = 0.95
    interval: Literal["rows", "population"] = "population"
    purpose: Purpose = Purpose.ANALYTICS
    description: str = ""

    if TYPE_CHECKING:  # what the generated one accepts beside the fields' own types

        def __init__(
            self,
            name: str,
            queries: Query | str | Sequence[Query | str] | Mapping[str, Query | str],
            scores: Sequence[Score] = (),
            confidence: float = 0.95,
            interval: Literal["rows", "population"] = "population",
            purpose: Purpose | str = Purpose.ANALYTICS,
            description: str = "",
        ) -> None: ...

    def __post_init__(self) -> None:
        queries: Any = self.queries
        if isinstance(queries, Query | str):
            queries = (queries,)
        elif isinstance(queries, Mapping):
            queries = tuple(_query(query).named(name) for name, query in queries.items())
        queries = tuple(map(_query, queries))
        object.__setattr__(self, "queries", queries)
        object.__setattr__(self, "scores", tuple(self.scores))
        checked_name(self.name)
        if not 1 <= len(queries) <= MAX_QUERIES:
            raise Misuse(f"a study of {len(queries)} queries; ask between 1 and {MAX_QUERIES}")
        for query in queries:
            query.asked  # noqa: B018 - raises where nothing is asked
        named = [query.name for query in queries if query.name]
        twice = next((one for one in named if named.count(one) > 1), None)
        if twice is not None:
            raise Misuse(f"two queries are named {twice!r}; give each its own name")
        self._check_numbers()

    def _check_numbers(self) -> None:
        if self.purpose not in (Purpose.ANALYTICS, Purpose.MONITORING):
            raise Misuse(f"purpose is {self.purpose!r}; choose analytics or monitoring")
        object.__setattr__(self, "purpose", Purpose(self.purpose))
        if self.interval not in ("rows", "population"):
            raise Misuse(f"interval is {self.interval!r}; choose rows or population")
        if not (isinstance(self.confidence, int | float) and 0.5 <= self.confidence <= 0.9999):
            raise Misuse(f"confidence is {self.confidence!r}; write a number between 0.5 and 0.9999, such as 0.95")
        if not isinstance(self.description, str) or len(self.description) > 4000:
            raise Misuse("description is text of at most 4000 characters")
        if len(self.scores) > MAX_SCORES:
            raise Misuse(f"a study of {len(self.scores)} scores; use at most {MAX_SCORES}")
        compared = sum(size_of(query.condition)[1] for query in self.queries if query.condition is not None)
        if compared > MAX_COMPARISONS:
            raise Misuse(f"the conditions make {compared} comparisons; ask for at most {MAX_COMPARISONS} at once")

    # -- what it says --------------------------------------------------------------------------------

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of every query's answer: as given, or made from what is asked, each once."""
        taken = {query.name for query in self.queries if query.name}
        found = []
        for query in self.queries:
            name, count = query.title, 1
            while not query.name and name in taken:
                count += 1
                name = f"{query.title} {count}"
            taken.add(name)
            found.append(name)
        return tuple(found)

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of the statistics, each once, sorted."""
        return tuple(sorted({query.asked.name for query in self.queries}))

    def query(self, name: str) -> Query:
        """The query of this name; raises KeyError for another."""
        return dict(zip(self.names, self.queries, strict=True))[name]

    def view(self, schema: Schema) -> View:
        """The columns that the queries may name."""
        return View(schema, self.scores)

    def columns(self, schema: Schema) -> tuple[str, ...]:
        """Every column of the schema that is read, in the schema's order."""
        view = self.view(schema)
        read = set(view.read(tuple(name for query in self.queries for name in query.names(view))))
        return tuple(name for name in schema.columns if name in read)

    def check(self, schema: Schema) -> None:
        """Raise Misuse unless every query fits the schema."""
        stages_of(self, self.view(schema))

    # -- the question --------------------------------------------------------------------------------

    def compile(
        self,
        schema: Schema,
        *,
        epsilon: float | None,
        delta: float | None,
        sites: int,
        trust: Trust | str = Trust.DISTRIBUTED,
        unit: Unit | str | None = None,
        min_survivors: int | None = None,
        colluders: int = 1,
        attempts: int = 3,
        _without_noise: bool = False,
    ) -> StudyQuestion:
        """Fix every public number.

        Args:
            schema: columns, bounds and the declared size.
            epsilon, delta: the price of one opening of every stage. A repeated attempt costs its stage again.
            sites: how many upload, at most.
            trust: ``distributed`` shares the noise among sites, ``local`` has each site bring all of it.
            unit: ``record`` (default) or ``subject``, all rows of one person.
            min_survivors: fewest sites whose sum may be opened; by default all but one.
            colluders: sites that may side with the coordinator (``distributed``).
            attempts: uploads of one stage at most, for mandates.
            _without_noise: for tests of a federation in one process whose terms are noiseless; a signed policy
                cannot allow it.

        Raises:
            Misuse: a query does not fit the schema, or a number is out of range.
            BudgetExceeded: the budget resolves nothing; the message says which ε would.
            Refused: too few honest shares of noise, or a sum that the ring cannot hold.
        """
        from privfl_analytics.question import StudyQuestion  # noqa: PLC0415 - the question reads studies

        setting = _setting(schema, sites, trust, unit, min_survivors, colluders)
        _check_runs(sites, attempts, setting.trust)
        view = self.view(schema)
        stages = stages_of(self, view)
        for stage in stages:
            length = stage.length(view) * (sites if stage.own else 1)
            if length > MAX_LENGTH:
                raise Misuse(f"{length} numbers are more than the {MAX_LENGTH} that fit one upload; use fewer bins")
        if _without_noise:
            if epsilon is not None or delta is not None:
                raise Misuse("without noise there is no epsilon and no delta: pass None")
            return StudyQuestion(self, schema, setting, attempts, None, None, (), 0.0)
        if epsilon is None or delta is None:
            raise Misuse("a study needs epsilon and delta, such as epsilon=1.0, delta=1e-6")
        if not (isinstance(delta, float) and 0 < delta < 1):
            raise Misuse(f"delta is {delta!r}; it must lie between 0 and 1, such as 1e-6")
        least, worst = least_epsilon(stages, view, setting, delta)
        enough = f"at least {_up(least)} resolves this study" if math.isfinite(least) else "no epsilon resolves it"
        if not (isinstance(epsilon, int | float) and 0 < epsilon <= MAX_EPSILON):
            raise Misuse(f"epsilon is {epsilon!r}; it must be a positive number up to {MAX_EPSILON:g}; {enough}")
        if epsilon < least:
            raise BudgetExceeded(
                f"epsilon {epsilon:g} is too small to resolve {worst.name.rpartition(',')[0]!r}: even if all "
                f"{schema.records} declared records were alike, they would not stand out of the noise; {enough}, "
                f"or give the query a larger weight"
            )
        releases, delta0 = plan_releases(stages, view, setting, float(epsilon), delta)
        return StudyQuestion(self, schema, setting, attempts, float(epsilon), delta, releases, delta0)

    def explain(
        self, schema: Schema | None = None, *, sites: int, epsilons: float | Sequence[float] = (0.5, 1.0, 2.0, 4.0),
        delta: float = 1e-6, **setting: Any,
    ) -> Explanation:  # fmt: skip
        """What the study asks, what leaves a site, and the error to expect at each of several budgets.

        Args:
            schema: by default that of the queries' cohort.
            epsilons: a budget, or several to compare; those too small for the study are shown as such.
            setting: further arguments of :meth:`compile`.
        """
        from privfl_analytics.explain import explain  # noqa: PLC0415 - brings tables

        found = schema if schema is not None else next((one.schema for one in self.queries if one.schema), None)
        if found is None:
            raise Misuse("explaining a study needs the schema; pass it, or start queries with Query(schema)")
        several = (epsilons,) if isinstance(epsilons, int | float) else tuple(epsilons)
        return explain(self, found, sites=sites, epsilons=several, delta=delta, **setting)

    # -- as plain values -----------------------------------------------------------------------------

    def to_value(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "queries": [query.to_value() for query in self.queries],
            "scores": [score.model_dump(mode="json") for score in self.scores],
            "confidence": float(self.confidence),
            "interval": self.interval,
            "purpose": str(self.purpose),
            "description": self.description,
        }

    def to_json(self) -> str:
        """Canonical JSON text."""
        return json.dumps(self.to_value(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_value(cls, value: Any) -> Self:
        """Read back :meth:`to_value`; raises Misuse for anything else."""
        fields = {"name", "queries", "scores", "confidence", "interval", "purpose", "description"}
        if not isinstance(value, Mapping) or set(value) != fields:
            raise Misuse(f"a study is a mapping of {', '.join(sorted(fields))}")
        if not isinstance(value["queries"], list) or not isinstance(value["scores"], list):
            raise Misuse("a study's queries and scores are lists")
        if not all(isinstance(one, Mapping) for one in value["scores"]):
            raise Misuse("a study's scores are mappings")
        queries = tuple(Query.from_value(one) for one in value["queries"])
        return cls(**{**value, "queries": queries, "scores": tuple(Score(**one) for one in value["scores"])})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read back :meth:`to_json`; raises Misuse for anything else."""
        try:
            return cls.from_value(json.loads(text))
        except (ValueError, RecursionError):
            raise Misuse("the study is not JSON of sensible depth; write it with Study.to_json") from None

    @classmethod
    def from_yaml(cls, source: str | Path) -> Study:
        """Read a study file (a ``Path``) or its text; see :mod:`privfl_analytics.study_file`.

        Raises:
            Misuse: every complaint with its line.
        """
        from privfl_analytics.study_file import read_study  # noqa: PLC0415 - only who reads YAML pays for it

        return read_study(source)

    def to_yaml(self) -> str:
        """A study file that reads back as this study."""
        from privfl_analytics.study_file import write_study  # noqa: PLC0415

        return write_study(self)

    def with_queries(self, *queries: Query | str) -> Study:
        """The study with further queries."""
        return replace(self, queries=(*self.queries, *map(_query, queries)))

    def __repr__(self) -> str:
        return f"Study({self.name!r}: {len(self.queries)} queries: {', '.join(self.names[:6])})"


def _query(one: Query | str) -> Query:
    found = Query.parse(one) if isinstance(one, str) else one
    if not isinstance(found, Query):
        raise Misuse(f"{str(one)[:60]!r} is no query; write a line such as 'mean age', or Query().mean('age')")
    return found


def _setting(
    schema: Schema,
    sites: int,
    trust: Trust | str,
    unit: Unit | str | None,
    min_survivors: int | None,
    colluders: int,
) -> Setting:
    try:
        kind = Trust(trust)
    except ValueError:
        raise Misuse(f"trust is {trust!r}; choose {' or '.join(Trust)}") from None
    if unit not in (None, Unit.RECORD, Unit.SUBJECT):
        raise Misuse(f"unit is {unit!r}; a study protects {Unit.RECORD} or {Unit.SUBJECT}")
    who = Unit(unit or Unit.RECORD)
    if who is Unit.SUBJECT and schema.subject is None:
        raise Misuse(f"{schema!r} names no subject column; declare 'subject', or protect records")
    return Setting(sites, kind, who, fewest_survivors(sites, min_survivors, colluders), colluders)


def _check_runs(sites: int, attempts: int, trust: Trust) -> None:
    if sites < (1 if trust is Trust.LOCAL else 2):
        raise Misuse("one site only: a federation needs at least two, or there is nothing to hide a sum in")
    if not 1 <= attempts <= MAX_ATTEMPTS:
        raise Misuse(f"attempts is {attempts}; plan between 1 and {MAX_ATTEMPTS}")


def _up(value: float) -> str:
    """Two significant digits, rounded up."""
    digits = 10 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / digits * (1 + 1e-12)) * digits:.2g}"
