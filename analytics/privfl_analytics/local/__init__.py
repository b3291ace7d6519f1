"""The local engine: exact integer sums of constructions over a site's own rows, by DuckDB."""

from privfl_analytics.local.differences import columns_of_source, differences
from privfl_analytics.local.engine import sums
from privfl_analytics.local.frequent import frequent
from privfl_analytics.local.plan import Asked

__all__ = ["Asked", "columns_of_source", "differences", "frequent", "sums"]
