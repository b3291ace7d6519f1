"""Thresholds as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from privfl_analytics.monitor import Limit, Thresholds

from privfl.errors import Misuse


def test_defaults_and_what_a_file_changes(tmp_path: Path) -> None:
    """A file says only what differs."""
    file = tmp_path / "thresholds.yaml"
    file.write_text(
        "level: 0.01\npsi: {warn: 0.05, alert: 0.1}\nks: 'off'\n"
        "columns:\n  age:\n    wasserstein: {warn: 2, alert: 5}\n"
    )
    found = Thresholds.from_yaml(file)
    assert found.level == 0.01
    assert found.limit("age", "psi") == found.limit("bmi", "psi") == Limit(warn=0.05, alert=0.1)
    assert found.limit("age", "ks") is None
    assert found.limit("age", "wasserstein") == Limit(warn=2, alert=5)
    assert found.limit("bmi", "wasserstein") is None
    assert found.limit("age", "missing") == Thresholds().missing
    assert Thresholds.from_yaml("{}") == Thresholds()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "level: 0.05\npsy: {warn: 0.1, alert: 0.2}\n",
            r"thresholds:2: psy: .*did you mean psi",
        ),
        ("level: 0.05\nks:\n  warn: 0.3\n  alert: 0.2\n", r"thresholds:2: ks: warn 0.3 is above alert 0.2"),
        ("level: 2\n", r"thresholds:1: level: .*0.5"),
        ("psi: {warn: 0.1}\n", r"thresholds:1: psi.alert: is missing; write a number above 0"),
        ("psi: {warn: much, alert: 0.2}\n", r"thresholds:1: psi.warn: .*number"),
        (
            "columns:\n  age:\n    spread: {warn: 1, alert: 2}\n",
            r"thresholds:3: columns.age.spread: there is no",
        ),
        ("psi: {warn: 0.1, alert: 0.2\n", r"thresholds:\d: not YAML"),
        ("psi: {warn: 0.1, alert: 0.2}\npsi: {warn: 0.1, alert: 0.2}\n", r"thresholds:2: psi: occurs a second time"),
        ("- psi\n", r"must be a list of fields"),
    ],
)
def test_complaints_name_the_line_and_what_to_write(text: str, said: str) -> None:
    """Readable, never a traceback."""
    with pytest.raises(Misuse, match=said):
        Thresholds.from_yaml(text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Its name is in the message."""
    with pytest.raises(Misuse, match=r"none\.yaml"):
        Thresholds.from_yaml(tmp_path / "none.yaml")
