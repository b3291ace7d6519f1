"""A federation of folders for benchmarks, and forked processes in it: real ones, that can be killed.

Only the start of the interpreter and the imports are shared with the parent; everything else a process does
itself, from opening its folder on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from privfl_keys import INSECURE_TEST_COST

from privfl.clock import SystemClock
from privfl.homes.trial import Trial, dump_schema, found_trial, policy_for

__all__ = ["PASSPHRASE", "Processes", "Shape", "found"]

PASSPHRASE = "a passphrase for benchmarks"  # noqa: S105 - of folders that are made up and removed


@dataclass(frozen=True)
class Shape:
    """What to found: sites, each with so many rows, numeric columns and a label of so many classes."""

    sites: int
    columns: int = 30
    classes: int = 2
    rows: int = 40

    @property
    def names(self) -> list[str]:
        """Of the sites."""
        return [f"site-{at:02d}" for at in range(self.sites)]

    def schema(self) -> dict[str, Any]:
        """The public schema."""
        numeric = {f"x{at}": {"lower": -4, "upper": 4, "center": 0, "scale": 1} for at in range(self.columns)}
        return {
            "name": "made up",
            "version": 1,
            "records": 10_000,
            "columns": {**numeric, "y": {"classes": list(range(self.classes))}},
        }

    def table(self, seed: int) -> pd.DataFrame:
        """Rows whose label follows from the first column."""
        rng = np.random.default_rng(seed)
        numbers = rng.normal(size=(self.rows, self.columns)).clip(-4, 4).round(4)
        frame = pd.DataFrame(numbers, columns=[f"x{at}" for at in range(self.columns)])
        rank = (numbers[:, 0] + 4) / 8 * self.classes
        return frame.assign(y=np.minimum(rank.astype(int), self.classes - 1))


def found(folder: Path, shape: Shape, *, colluders: int | None = None, **policy: Any) -> Trial:
    """Set up every role below ``folder``; ``policy`` changes fields of a plain policy. Scrypt is made cheap."""
    now, rows = SystemClock().now(), folder / "rows"
    rows.mkdir(parents=True)
    paths = {name: rows / f"{name}.csv" for name in shape.names}
    for seed, path in enumerate(paths.values()):
        shape.table(seed).to_csv(path, index=False)
    schema = shape.schema()
    dump_schema(schema, rows / "schema.yaml")
    if colluders is not None:
        policy = {"colluders": colluders, **policy}
    fields = policy_for(schema, now, **policy)
    return found_trial(
        folder / "trial",
        paths,
        rows / "schema.yaml",
        fields,
        PASSPHRASE,
        now,
        colluders=colluders,
        cost=INSECURE_TEST_COST,
    )


@dataclass
class Processes:
    """Forked children by name; what still runs at the end is killed by :meth:`end`."""

    folder: Path
    running: dict[str, int] = field(default_factory=dict)

    def start(self, who: str, work: Callable[[], object]) -> None:
        """Run ``work`` in a child; how it failed, if it does, lies in ``<who>.error`` in the folder."""
        child = os.fork()
        if child:
            self.running[who] = child
            return
        code = 70
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            work()
            code = 0
        except BaseException as error:
            code = getattr(error, "exit_code", 71)
            (self.folder / f"{who}.error").write_text(f"{type(error).__name__}: {error}")
        finally:
            os._exit(code)

    def ended(self) -> list[str]:
        """Names of those that have ended since this was last asked."""
        gone = [who for who, child in self.running.items() if os.waitpid(child, os.WNOHANG)[0]]
        for who in gone:
            del self.running[who]
        return gone

    def complaint(self, who: str) -> str:
        """How a child failed, empty if it did not or was killed."""
        path = self.folder / f"{who}.error"
        return path.read_text() if path.exists() else ""

    def end(self) -> None:
        """Kill what still runs, by its number, and wait until it is gone."""
        for child in self.running.values():
            os.kill(child, signal.SIGKILL)
        until = time.monotonic() + 10
        while self.running and time.monotonic() < until:
            self.ended()
            time.sleep(0.005)
