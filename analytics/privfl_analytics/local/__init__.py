"""The local engine: exact integer sums of constructions over a site's own rows, by DuckDB."""
