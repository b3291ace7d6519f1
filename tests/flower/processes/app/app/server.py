"""The coordinator, less patient."""

from privfl.flower.server import coordinator_app
from privfl.runtime.coordinator_process import Pace

__all__ = ["app"]

app = coordinator_app(pace=Pace(gather=600_000, patience=600_000, grace=2_000), patience=20.0)
