"""The local engine: exact integer sums of constructions over a site's own rows, by DuckDB."""

from privfl_analytics.local.engine import sums
from privfl_analytics.local.plan import Asked

__all__ = ["Asked", "sums"]
