"""``--explain`` on the command line: prices for persons where the schema knows whose row it is, and asks nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from privfl_analytics import cli
from privfl_analytics.datasets import hospital_schema
from typer.testing import CliRunner

from privfl.homes.trial import dump_schema

root = typer.Typer()
cli.add_to(root)


def explained(place: Path, *options: str, subject: bool = True) -> dict[str, Any]:
    """What ``privfl query --explain --json`` says of a mean, at three rows per person."""
    fields = hospital_schema(6000, max_rows=3).model_dump(mode="json", exclude_none=True)
    if not subject:
        fields = {**{name: field for name, field in fields.items() if name != "subject"}, "max_rows": 1}
    dump_schema(fields, place / "schema.yaml")
    line = ["query", "mean age", "--schema", str(place / "schema.yaml"), "--explain", "--json", *options]
    done = CliRunner().invoke(root, line)
    assert done.exit_code == 0, (done.output, done.exception)
    found: dict[str, Any] = json.loads(done.output)["explanation"]
    return found


@pytest.mark.parametrize(
    ("options", "subject", "unit", "sensitivity"),
    [
        ((), True, "subject", 3 * 3**0.5),
        (("--unit", "record"), True, "record", 3**0.5),
        ((), False, "record", 3**0.5),
    ],
)
def test_whose_price(options: tuple[str, ...], subject: bool, unit: str, sensitivity: float, tmp_path: Path) -> None:
    """Persons where the schema names them, unless told otherwise: all of a person's rows count then."""
    found = explained(tmp_path, *options, subject=subject)
    assert found["unit"] == unit
    assert found["blocks"][0]["sensitivity"] == pytest.approx(sensitivity, rel=1e-3)


def test_a_study_protects_rows_or_persons(tmp_path: Path) -> None:
    """A site as a whole is no choice of the option."""
    done = CliRunner().invoke(root, ["query", "mean age", "--unit", "site"])
    assert done.exit_code == 2
    assert "record" in done.output
    assert "subject" in done.output


def test_budgets(tmp_path: Path) -> None:
    """Several to choose from, or the one that was named."""
    assert list(explained(tmp_path)["errors"]["mean age"]) == [f"{one:g}" for one in cli.BUDGETS]
    assert list(explained(tmp_path, "--epsilon", "3")["errors"]["mean age"]) == ["3"]
