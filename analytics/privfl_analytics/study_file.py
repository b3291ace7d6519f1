"""Studies as YAML files, read strictly and with the line of every complaint.

::

    study: pre-training
    description: Is the cohort fit for the model?
    confidence: 0.95              # also: interval, purpose
    scores:
      - {name: risk, weights: {age: 0.04, bmi: 0.1}, intercept: -4}
    queries:
      - mean age by sex where age >= 50           # one line, see privfl_analytics.parsing
      - histogram: age                            # statistic: its first field
        bins: 20                                  # further options
        by: [sex, bmi/4]
        where: sex in ('f', 'm') and bmi is not missing
        name: ages
        weight: 2
      - quantiles: {column: age}                  # or all its fields

Left out of YAML on purpose: anchors, aliases, tags, merge keys and keys that occur twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from privfl.declared_words import nearest
from privfl.errors import Misuse
from privfl.tasks import Schema
from privfl_analytics.constructions import Bins
from privfl_analytics.making import made, names_of_statistics
from privfl_analytics.parsing import axis_text, condition_text, parse_axis
from privfl_analytics.query import By, Cut, Query, axis_of_value
from privfl_analytics.study import Study
from privfl_analytics.view import Score
from privfl_analytics.yaml_lines import Complaint, InvalidStudy, Lined, Place, read_lined

__all__ = ["InvalidStudy", "read_fields", "read_study", "write_study"]

_TOP = ("study", "description", "purpose", "confidence", "interval", "scores", "queries")
_OWN = ("by", "where", "name", "weight")


def read_study(source: str | Path, schema: Schema | None = None) -> Study:
    """Read a study file (a ``Path``) or its text.

    Args:
        schema: if given, queries are held against it too, so that a wrong column is found with its line.

    Raises:
        InvalidStudy: every complaint, with its line.
        Misuse: the file cannot be read.
    """
    return read_fields(source, schema)[0]


def read_fields(
    source: str | Path,
    schema: Schema | None = None,
    extra: Sequence[str] = (),
    settings: Callable[..., Any] | None = None,
) -> tuple[Study, dict[str, Any]]:
    """As :func:`read_study`, with the further fields at the top that ``extra`` allows (such as ``epsilon``).

    Args:
        settings: takes each further field by itself and raises Misuse for a wrong value, which then gets its line.
    """
    return _Reader(read_lined(source), schema, tuple(extra), settings).study()


class _Reader:
    """Turns plain values into a study; collects complaints."""

    def __init__(
        self, lined: Lined, schema: Schema | None, extra: tuple[str, ...], settings: Callable[..., Any] | None
    ) -> None:
        self.lined, self.schema, self.extra, self.settings = lined, schema, extra, settings
        self.found: list[Complaint] = []

    def complain(self, place: Place, text: str) -> None:
        said = text.removeprefix(f"{place[-1]}: ") if place else text  # the place is named already
        self.found.append(Complaint(self.lined.line(place), place, said))

    def attempt(self, place: Place, make: Any, *arguments: Any, **fields: Any) -> Any:
        """What ``make`` returns, or None and a complaint."""
        try:
            return make(*arguments, **fields)
        except Misuse as error:
            text = str(error)
            keys = self.lined.keys_under(place)
            places = {key: re.search(rf"(?:^|[ :]){re.escape(key)}(?:[:.]| is )", text) for key in keys}
            named = [(match.start(), key) for key, match in places.items() if match]
            self.complain((*place, max(named)[1]) if named else place, text)
            return None

    def study(self) -> tuple[Study, dict[str, Any]]:
        fields = self.lined.fields
        known = (*_TOP, *self.extra)
        for key in fields:
            if key not in known:
                near = nearest(key, known)
                self.complain((key,), f"there is no such field; {_hint(near, known)}")
        for key in self.extra if self.settings is not None else ():
            if key in fields:
                self.attempt((key,), self.settings, **{key: fields[key]})
        name = fields.get("study")
        if not isinstance(name, str):
            self.complain(("study",), "a study needs a name; write 'study: my-study'")
        scores = [score for at, item in enumerate(self._list("scores")) if (score := self.score(at, item)) is not None]
        items = self._list("queries")
        if not items and not any(one.place == ("queries",) for one in self.found):
            self.complain(("queries",), "a study asks at least one query; write them as a list under 'queries:'")
        found = {at: one for at, item in enumerate(items) if (one := self.query(at, item)) is not None}
        self.twice(found)
        if not self.found:
            given = {key: fields[key] for key in ("description", "purpose", "confidence", "interval") if key in fields}
            study = self.attempt((), Study, name, tuple(found.values()), tuple(scores), **given)
            if study is not None and self.schema is not None:
                self.hold(study, self.schema)
            if not self.found:
                return study, {key: fields[key] for key in self.extra if key in fields}
        raise InvalidStudy(self.found, self.lined.name)

    def hold(self, study: Study, schema: Schema) -> None:
        """Check every query against the schema, each with its line."""
        view = self.attempt(("scores",), study.view, schema)
        for at, query in enumerate(study.queries if view is not None else ()):
            self.attempt(("queries", at), query.check, view)

    def _list(self, key: str) -> list[Any]:
        value = self.lined.fields.get(key, [])
        if isinstance(value, list):
            return value
        self.complain((key,), "must be a list; start each item with '- '")
        return []

    def score(self, at: int, item: Any) -> Score | None:
        place = ("scores", at)
        if not isinstance(item, Mapping):
            self.complain(place, "a score is a mapping with name and weights")
            return None
        found: Score | None = self.attempt(place, lambda: Score(**item))
        return found

    def query(self, at: int, item: Any) -> Query | None:
        place: Place = ("queries", at)
        if isinstance(item, str):
            line: Query | None = self.attempt(place, Query.parse, item)
            return line
        if not isinstance(item, Mapping):
            self.complain(place, "a query is one line such as 'mean age', or a mapping such as '{mean: age}'")
            return None
        before = len(self.found)
        statistic = self.statistic(place, item)
        query = Query()
        if "by" in item:
            axes = [self.axis((*place, "by"), one) for one in self._items(item["by"])]
            if None not in axes:
                query = self.attempt((*place, "by"), query.group_by, *axes) or query
        if "where" in item:
            query = self.attempt((*place, "where"), query.where, _text(item["where"])) or query
        if "name" in item:
            query = self.attempt((*place, "name"), query.named, item["name"]) or query
        if "weight" in item:
            query = self.attempt((*place, "weight"), query.weighted, item["weight"]) or query
        if len(self.found) > before or statistic is None:
            return None
        return query.asking(statistic)

    def twice(self, found: Mapping[int, Query]) -> None:
        """Complain of names that two queries were given."""
        first: dict[str, int] = {}
        for at, query in found.items():
            if query.name and first.setdefault(query.name, at) != at:
                text = f"query {first[query.name] + 1} is named {query.name!r} already; give each its own name"
                self.complain(("queries", at, "name"), text)

    def statistic(self, place: Place, item: Mapping[str, Any]) -> Any:
        known = names_of_statistics()
        asked = [key for key in item if key in known and key not in _OWN]
        if len(asked) != 1:
            if asked:
                self.complain((*place, asked[1]), f"a query asks one statistic; {asked[0]} is asked already")
                return None
            other = next((key for key in item if key not in _OWN), None)
            near = nearest(other, known)
            self.complain((*place, other) if other else place, f"no statistic is asked; {_hint(near, known)}")
            return None
        name = asked[0]
        value = item[name]
        options = {key: one for key, one in item.items() if key not in (*_OWN, name)}
        arguments: tuple[Any, ...] = ()
        if isinstance(value, Mapping):
            for key in sorted(set(value) & set(options)):
                self.complain((*place, key), "is given twice; keep one of the two")
            options = {**value, **options}
        elif isinstance(value, list):
            arguments = tuple(value)
        elif value not in ("", True):
            arguments = (value,)
        within = (*place, name) if isinstance(value, Mapping) else place
        return self.attempt(within, made, name, arguments, options)

    @staticmethod
    def _items(value: Any) -> list[Any]:
        return value if isinstance(value, list) else [value]

    def axis(self, place: Place, item: Any) -> By | None:
        found: By | None = self.attempt(place, _axis, item)
        return found


def _axis(item: Any) -> By:
    match item:
        case str():
            # a name that the grammar does not cover may stand as it is: nothing else can be meant
            plain = not re.search(r"[\[\]()/`,]", item)
            return parse_axis(f"`{item}`" if plain and item else item)
        case {"kind": str()}:
            return axis_of_value(item)
        case dict() if len(item) == 1:
            ((column, edges),) = item.items()
            if isinstance(edges, list):
                return Bins(column=column, edges=tuple(edges))
            return Cut(column=column, count=edges)
    raise Misuse("write a column, 'age/5' for bins of equal width, or '{age: [0, 40, 110]}' for bins with edges")


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else str(value)


def _hint(near: str | None, known: Sequence[str]) -> str:
    return f"did you mean {near}?" if near else f"there are {', '.join(known)}"


# -- writing ---------------------------------------------------------------------------------------------


def write_study(study: Study) -> str:
    """A study file that :func:`read_study` reads back as the same study."""
    value: dict[str, Any] = {"study": study.name}
    if study.description:
        value["description"] = study.description
    value |= {"purpose": str(study.purpose), "confidence": float(study.confidence), "interval": study.interval}
    if study.scores:
        value["scores"] = [_bare(score.model_dump(mode="json")) for score in study.scores]
    value["queries"] = [_query_value(query) for query in study.queries]
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def _query_value(query: Query) -> dict[str, Any]:
    statistic = query.asked
    dumped = statistic.model_dump(mode="json")
    options = {
        field: _bare(dumped[field])
        for field, info in type(statistic).model_fields.items()
        if getattr(statistic, field) != info.get_default(call_default_factory=True)
    }
    value: dict[str, Any] = {statistic.name: options}
    if query.by:
        value["by"] = [_axis_value(axis) for axis in query.by]
    if query.condition is not None:
        value["where"] = condition_text(query.condition)
    if query.name:
        value["name"] = query.name
    if query.weight != 1:
        value["weight"] = query.weight
    return value


def _axis_value(axis: By) -> Any:
    text = axis_text(axis)
    return text if text is not None else _bare(axis.model_dump(mode="json"))


def _bare(value: Any) -> Any:
    """Without fields that have no value: they are read back as not given."""
    if isinstance(value, dict):
        return {key: _bare(one) for key, one in value.items() if one is not None}
    return [_bare(one) for one in value] if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    """Quotes every text that could be read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_/-]*(?: [A-Za-z0-9_-]+)*")
_WORDS = {"yes", "no", "on", "off", "y", "n", "true", "false", "null"}


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    style = None if plain else "'" if text.isprintable() and "'" not in text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quoted)
