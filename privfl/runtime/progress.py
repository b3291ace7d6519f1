"""The progress of a run, in a terminal or a notebook."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from privfl.errors import Misuse
from privfl.runtime.jobs import Job
from privfl.runtime.status import NAME, CoordinatorStatus, read_status

__all__ = ["FollowedProgress", "RunProgress", "waiting_for"]


def waiting_for(names: Sequence[str]) -> str:
    """The note of a bar while operators have not answered; none: sites are not up."""
    return f"waits for the yes of {', '.join(names)}" if names else "waits for sites to come up"


class RunProgress:
    """A bar over rounds with a note on the last; silent where standard error is no terminal and no notebook."""

    def __init__(self, rounds: int, title: str = "training") -> None:
        from rich.console import Console  # noqa: PLC0415 - drawn only when a bar is wanted
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415
        from rich.table import Column  # noqa: PLC0415

        console = Console(file=sys.stderr)
        self._bar = Progress(
            TextColumn(title),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", table_column=Column(overflow="fold"), markup=False),  # never cut off
            console=console,
            disable=not (console.is_terminal or console.is_jupyter),
        )
        self._task = self._bar.add_task("rounds", total=rounds, note="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, completed: int, note: str = "") -> None:
        """Show a finished round."""
        self._bar.update(self._task, completed=completed, note=note)


class FollowedProgress(RunProgress):
    """The progress of a job that another process runs, as its status file tells it."""

    def __init__(self, folder: Path, job: Job) -> None:
        super().__init__(job.rounds, job.verb)
        self._file, self._job = folder / NAME, job.id
        self.operators: tuple[str, ...] = ()

    def look(self) -> None:
        """Show what the status file says now; ``operators`` are then those whose yes the job waits for."""
        try:
            status = read_status(self._file, CoordinatorStatus)
        except Misuse:
            return
        self.operators = status.operators if status.job == self._job else ()
        if status.job != self._job:
            self._bar.update(self._task, note="in the queue")
            return
        note = f"{status.phase}" + (f", waiting for {status.waits_for}" if status.waits_for else "")
        note = waiting_for(status.operators) if status.operators else note
        score = "" if status.score is None else f"score {status.score:.3f}  "
        self._bar.update(self._task, completed=max(0, status.round - 1), note=score + note)
