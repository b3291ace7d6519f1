"""What the demo's ServerApp runs: the coordinator of a privfl federation, with someone looking over its shoulder."""

from __future__ import annotations

import os
from pathlib import Path

from privfl.cli.demo_coordinator import looking
from privfl.flower.server import coordinator_app
from privfl.runtime.coordinator_process import Pace

__all__ = ["PAUSE", "SEEN", "app"]

SEEN, PAUSE = "PRIVFL_DEMO_SEEN", "PRIVFL_DEMO_PAUSE"

#: Nobody is far away here: what a killed node has lost is sent again soon, and a round does not wait for it long.
app = coordinator_app(
    pace=Pace(gather=90_000, patience=300_000, grace=3_000),
    after_round=looking(Path(os.environ.get(SEEN, os.devnull)), Path(os.environ.get(PAUSE, "/nonexistent"))),
    patience=12.0,
    look=1.0,
)
