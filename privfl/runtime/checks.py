"""One finding of ``privfl doctor`` as a value; a check that raises is a finding too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from privfl.errors import PrivflError
from privfl.runtime.plain import escaped, told

__all__ = ["Check", "Finding", "Verdict", "carried_out", "fail", "ok", "skipped", "warn"]


class Verdict(StrEnum):
    """How a check came out; only FAIL makes the doctor's exit code 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """What a check found, and the next step where there is one."""

    verdict: Verdict
    found: str
    step: str = ""


@dataclass(frozen=True)
class Check:
    """A finding under the name of its check. ``step`` is empty when nothing is to be done."""

    name: str
    verdict: Verdict
    found: str
    step: str = ""


def ok(found: str) -> Finding:
    """Nothing to do."""
    return Finding(Verdict.OK, found)


def warn(found: str, step: str) -> Finding:
    """It works, but not for long or not well."""
    return Finding(Verdict.WARN, found, step)


def fail(found: str, step: str) -> Finding:
    """It does not work."""
    return Finding(Verdict.FAIL, found, step)


def skipped(found: str, step: str = "") -> Finding:
    """It was not looked at, and why."""
    return Finding(Verdict.SKIPPED, found, step)


def carried_out(checks: Iterator[tuple[str, Callable[[], Finding]]]) -> Iterator[Check]:
    """Carry out one check after the other; what one raises is its finding, with the message where privfl wrote it."""
    for name, check in checks:
        try:
            finding = check()
        except PrivflError as error:  # its message names cause and next step already
            finding = fail(str(error), "as it says")
        except Exception as error:  # noqa: BLE001, RUF100 - the doctor has an answer to everything
            finding = fail(told(error), "this is unforeseen; the check before it may say why")
        yield Check(name, finding.verdict, escaped(finding.found), escaped(finding.step))
