"""Every comparison that was made, one JSON line each; a crash loses at most the line that was being written."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from privfl.errors import Misuse, StorageError
from privfl_analytics.monitor.drift import EXIT_CODES, DriftReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MonitorHistory", "Run"]

MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Run:
    """One comparison.

    Attributes:
        date: milliseconds since 1970. reference: of the profile. status: overall. epsilon: that it cost.
        columns: status by column.
        measures: column → measure → {"value", "excess", "alert"}, for all people together.
    """

    date: int
    reference: str
    status: str
    epsilon: float | None
    columns: dict[str, str] = field(default_factory=dict)
    measures: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)

    @classmethod
    def of(cls, report: DriftReport) -> Run:
        """The line for a report."""
        found: dict[str, dict[str, dict[str, float | None]]] = {}
        for one in report.findings:
            if not one.group:
                numbers = {"value": one.value, "excess": one.excess, "alert": one.alert}
                found.setdefault(one.column, {})[one.measure] = numbers
        return cls(report.compared, report.reference, report.status, report.epsilon, dict(report.columns), found)


class MonitorHistory:
    """The file of runs; reading it never fails for a line that is torn or foreign.

    Attributes:
        runs: in the order of the file. skipped: lines that are no runs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: tuple[Run, ...] = ()
        self.skipped = 0
        self.reload()

    def reload(self) -> None:
        """Read the file again; one that is not there has no runs.

        Raises:
            Misuse: it cannot be read, or is far too large.
        """
        try:
            with self.path.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise Misuse(
                f"{self.path} cannot be read ({error.strerror}); name the file of a monitor's history"
            ) from None
        if len(data) > MAX_BYTES:
            raise Misuse(f"{self.path} is larger than {MAX_BYTES} bytes; move it away, and a new one is begun")
        lines = [line for line in data.split(b"\n") if line.strip()]
        found = [_run(line) for line in lines]
        self.runs = tuple(one for one in found if one is not None)
        self.skipped = len(lines) - len(self.runs)

    def append(self, report: DriftReport) -> Run:
        """Add a line durably: one write at the end of the file, under a lock.

        Raises:
            StorageError: the disk did not take it.
        """
        run = Run.of(report)
        line = json.dumps(asdict(run), separators=(",", ":")).encode() + b"\n"
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                size = os.fstat(handle).st_size
                torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"  # what a crash left ends here
                _whole(handle, b"\n" + line if torn else line)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise StorageError(
                f"{self.path} could not be written ({error.strerror}); free some space, or choose another file"
            ) from None
        self.reload()
        return run

    def to_frame(self) -> pd.DataFrame:
        """One line per run, column and measure; index the date in UTC."""
        names = ["date", "reference", "overall", "epsilon", "column", "status", "measure", "value", "excess", "alert"]
        lines = [
            {
                "date": datetime.fromtimestamp(run.date / 1000, UTC),
                "reference": run.reference,
                "overall": run.status,
                "epsilon": run.epsilon,
                "column": column,
                "status": run.columns.get(column),
                "measure": measure,
                **numbers,
            }
            for run in self.runs
            for column, measures in run.measures.items()
            for measure, numbers in measures.items()
        ]
        return pd.DataFrame(lines, columns=names).set_index("date")

    def plot(self, measure: str = "psi", columns: Sequence[str] | None = None, axes: Axes | None = None) -> Axes:
        """Draw what is left of a measure above noise and chance, over time, with the alert limit.

        Raises:
            Misuse: matplotlib is missing, or no run has the measure.
        """
        from privfl_analytics.plots import plot_history  # noqa: PLC0415 - heavy, and an extra

        return plot_history(self.to_frame(), measure, columns, axes)

    def __len__(self) -> int:
        return len(self.runs)

    def __repr__(self) -> str:
        last = f", last {self.runs[-1].status}" if self.runs else ""
        skipped = f", {self.skipped} unreadable lines" if self.skipped else ""
        return f"MonitorHistory({len(self.runs)} runs{last}{skipped})"


def _whole(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _run(line: bytes) -> Run | None:
    """The run that a line holds; None for anything else."""
    try:
        fields: Any = json.loads(line)
        run = Run(**fields)
        datetime.fromtimestamp(run.date / 1000, UTC)
        sound = run.status in EXIT_CODES and isinstance(run.columns, dict) and isinstance(run.measures, dict)
        sound = sound and all(
            set(numbers) == {"value", "excess", "alert"}
            for measures in run.measures.values()
            for numbers in measures.values()
        )
    except (ValueError, TypeError, AttributeError, OverflowError, OSError):
        return None
    return run if sound else None
