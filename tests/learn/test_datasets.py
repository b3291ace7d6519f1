"""The tables of demo and benchmark, and the benchmark itself on one split."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from benchmarks import utility
from privfl.errors import Misuse
from privfl.learn.datasets import (
    breast_cancer_frame,
    breast_cancer_schema,
    breast_cancer_sites,
    digits_frame,
    digits_schema,
    digits_sites,
)


def test_hospitals_share_all_training_rows_in_equal_parts() -> None:
    """Named parts within one row of each other, disjoint from the held-out rows; the seed decides."""
    parts, schema, held = breast_cancer_sites(5, seed=1)
    assert list(parts) == ["north", "south", "east", "west", "central"]
    sizes = [len(part) for part in parts.values()]
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == schema.records == 569 - len(held)
    whole = pd.concat([*parts.values(), held]).sort_values(list(held.columns)).reset_index(drop=True)
    expected = breast_cancer_frame().sort_values(list(held.columns)).reset_index(drop=True)
    pd.testing.assert_frame_equal(whole, expected)
    again, other = breast_cancer_sites(5, seed=1)[0], breast_cancer_sites(5, seed=2)[0]
    pd.testing.assert_frame_equal(parts["north"], again["north"])
    assert not parts["north"].equals(other["north"])
    assert list(digits_sites(12)[0])[-2:] == ["hospital11", "hospital12"]


def test_schemas_fit_their_tables() -> None:
    """Every published bound holds its column: binding finds no odd value."""
    for schema, frame in ((breast_cancer_schema(569), breast_cancer_frame()), (digits_schema(1797), digits_frame())):
        report = schema.bind(frame).report
        assert all(counts.clean for counts in report.columns.values())


def test_impossible_splits_are_misuse() -> None:
    """One site, or nothing held out, is refused."""
    for bad in ({"sites": 1}, {"sites": 21}, {"test": 0.0}):
        with pytest.raises(Misuse):
            breast_cancer_sites(**bad)  # type: ignore[arg-type]


def test_the_utility_benchmark_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    """Keys are table, ε and trust; even one split comes near the figures to reach."""
    utility.main(["--seeds", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"breast_cancer", "digits"}
    for name, table in found.items():
        assert list(table) == ["8", "4", "2", "1"]
        for place, cell in enumerate(table.values()):
            assert set(cell) == {"distributed", "local"}
            for trust, value in cell.items():
                # one split of 114 rows scatters by 2 points, and noise by as much again
                assert value >= utility.GOALS[name, utility.Trust(trust)][place] - 8
