"""Regressions of a security review of analytics: what strangers and operators must not be able to do to each other."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import privfl_analytics.local.tables as tables_module
from privfl.entropy import SYSTEM
from privfl.tasks import Schema, SiteData
from privfl.tasks.data import FrameSource
from privfl_analytics.constructions import COUNT_SCALE, Presence, Tally
from privfl_analytics.local import Asked, sums
from privfl_analytics.view import View

MARK = b"MARKEDPATIENT"


def test_rows_that_do_not_fit_into_memory_spill_encrypted_and_nothing_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Bounding more rows than memory holds gives the exact sums; files show no value, others may not open them."""
    monkeypatch.setattr(tables_module, "MEMORY", "60MB")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    n = 400_000
    schema = Schema(records=n, columns={"t": {"max_length": 64}}, subject="who", max_rows=2)  # type: ignore[arg-type]
    texts = [f"{MARK.decode()}{at:051d}" for at in range(n)]
    source = FrameSource(pd.DataFrame({"t": texts, "who": np.arange(n) // 4}))
    modes, sizes, marks, over = set[int](), [0], [0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            for path in tmp_path.glob("privfl-*/**/*"):
                try:
                    data = path.read_bytes()
                    modes.add(path.parent.stat().st_mode & 0o777)
                except OSError:
                    continue
                sizes.append(len(data))
                marks.append(data.count(MARK))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        asked = [Asked(Tally()), Asked(Tally(axes=(Presence(column="t"),)))]
        found = sums(SiteData(schema, source), View(schema), asked, rows=2, entropy=SYSTEM)
    finally:
        over.set()
        watcher.join()
    assert [one.tolist() for one in found] == [[n // 2 * COUNT_SCALE], [n // 2 * COUNT_SCALE, 0]]
    assert max(sizes) > 10**6, "it did not spill"
    assert max(marks) == 0
    assert modes == {0o700}
    assert not list(tmp_path.iterdir())
