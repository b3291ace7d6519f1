"""Every statistic says of itself what it takes, means and sends: on the command line, in Python, in its class."""

from __future__ import annotations

import inspect
import json
import re

import pytest
import typer
from privfl_analytics import Query, cli
from privfl_analytics.making import names_of_statistics, statistic_class
from privfl_analytics.reference import meanings, reference
from privfl_analytics.view import Score
from typer.testing import CliRunner

from privfl.errors import Misuse

app = typer.Typer()
cli.add_to(app)


@pytest.mark.parametrize("name", names_of_statistics())
def test_every_field_is_explained(name: str) -> None:
    """The docstrings explain exactly the fields that there are, each with a type in words, and an example reads."""
    kind, said = statistic_class(name), reference(name)
    assert {field for field, text in meanings(kind).items() if text} == set(kind.model_fields)
    assert all(one.type and (one.default is None) == kind.model_fields[one.name].is_required() for one in said.fields)
    for one in kind.__mro__:  # what an Args section names is a field
        named = re.findall(r"^    (\w+(?:, \w+)*): ", _section(one), re.MULTILINE)
        assert {word for words in named for word in words.split(", ")} <= set(kind.model_fields)
    assert Query.parse(kind.example).asked.name == name
    assert said.leaves
    assert ":class:" not in str(said)
    assert str(said).endswith(f"In policies: {name}")


def _section(kind: type) -> str:
    """The Args of a statistic's class."""
    own = kind.__module__.startswith("privfl_analytics.statistics.")
    text = inspect.cleandoc(vars(kind).get("__doc__") or "") if own else ""
    return text.partition("\nArgs:\n")[2].partition("\n\n")[0]


def test_help_in_python_is_the_same_text() -> None:
    """On the class and on a query, with the fields as parameters."""
    for made in (Query.quantiles, Query().quantiles):
        assert made.__doc__ == str(reference("quantiles"))
        assert {"column", "q", "levels", "refine"} <= set(inspect.signature(made).parameters)
    assert Query.mean(Query(), "age") == Query().mean("age")


def test_the_command_shows_one() -> None:
    """For people and as JSON; another name gets the nearest."""
    shown = CliRunner().invoke(app, ["study", "statistics", "quantiles"])
    assert shown.exit_code == 0
    assert str(reference("quantiles")) in shown.output
    value = json.loads(CliRunner().invoke(app, ["study", "statistics", "quantiles", "--json"]).output)
    assert value["fields"]["levels"]["default"] == "10"
    assert value["policy"] == "quantiles"
    with pytest.raises(Misuse, match="did you mean quantiles"):
        reference("Quantile")


def test_fields_are_given_by_name() -> None:
    """Positional values are a mistake of the user's, not a traceback."""
    with pytest.raises(Misuse, match=r"write Score\(name=\.\.\., weights=\.\.\.\)"):
        Score("risk", {"age": 0.04})
