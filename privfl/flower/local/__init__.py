"""A Flower federation on this computer alone: SuperLink and SuperNodes as real processes on the loopback address.

For the demo, tests, benchmarks and for trying an app before it goes to real sites. Nothing here is a deployment:
see ``docs/flower.md`` for that.
"""

from __future__ import annotations

from privfl.flower.local.federation import LocalFlower, Node
from privfl.flower.local.runs import Finished, RunFailed

__all__ = ["Finished", "LocalFlower", "Node", "RunFailed"]
