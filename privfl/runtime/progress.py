"""The progress of a training run, in a terminal or a notebook."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from privfl.learn import TaskState

__all__ = ["TrainingProgress"]


class TrainingProgress:
    """A bar with the noisy score of the round; silent where standard error is no terminal and no notebook."""

    def __init__(self, rounds: int) -> None:
        from rich.console import Console  # noqa: PLC0415 - drawn only when a bar is wanted
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        console = Console(file=sys.stderr)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
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

    def update(self, state: TaskState, dropped: tuple[str, ...], held_out: float | None) -> None:
        """Show a finished round."""
        found = state.history.smoothed()
        parts = []
        if held_out is not None:
            parts.append(f"held-out {held_out:.3f}")
        elif found is not None:
            parts.append(f"score {found[0]:.3f} ± {found[1]:.3f}")
        if dropped:
            parts.append(f"without {', '.join(dropped)}")
        self._bar.update(self._task, completed=state.round, note="  ".join(parts))
