"""The same pre-training study end to end: five sites, each with its own Parquet file, through the whole protocol."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import _analytics_work as work

__all__ = ["end_to_end"]

SITES = ("north", "south", "east", "west", "central")


def end_to_end(folder: Path, rows: int, epsilon: float = 1.0) -> dict[str, float]:
    """Seconds and bytes of the study over five sites of ``rows / 5`` rows each, rounds included.

    All sites share this process and take their turns one after another, so the seconds are those of five sites' work
    on one machine; ``site_s`` is what one of them computes.
    """
    from privfl_analytics import Query, Study  # noqa: PLC0415

    import privfl  # noqa: PLC0415
    from privfl.tasks import FileSource, Schema, SiteData  # noqa: PLC0415

    alone, _ = work.study()
    schema = Schema(**{**alone.model_dump(), "records": rows})
    sites = {}
    for at, name in enumerate(SITES):
        path = folder / f"{name}.parquet"
        work.make(path, rows // len(SITES), seed=at)
        sites[name] = SiteData(schema, FileSource(path, "parquet"))
    queries = [Query.parse("count")]
    queries += [Query().missing(name) for name in (*work.NUMBERS, *work.CLASSES)]
    queries += [Query().variance(name, kurtosis=3.0) for name in work.NUMBERS]
    queries += [Query().histogram(name, bins=work.BINS) for name in work.NUMBERS]
    queries += [Query().crosstab(one, other) for one, other in work.TABLES]
    queries.append(Query().covariance(work.NUMBERS))
    study = Study("pre-training", tuple(queries))
    began = time.perf_counter()
    question = study.compile(schema, epsilon=epsilon, delta=1e-7, sites=len(SITES), min_survivors=4)
    planned = time.perf_counter() - began
    began = time.perf_counter()
    question.upload(question.inputs(0, [None] * len(queries)), sites["north"], privfl.entropy.SYSTEM)
    site = time.perf_counter() - began
    federation = privfl.Federation(sites, schema)
    began = time.perf_counter()
    found = federation.ask(study, epsilon=epsilon, delta=1e-7, progress=False)
    return {
        "end_to_end_s": round(time.perf_counter() - began, 3),
        "site_s": round(site, 3),
        "plan_s": round(planned, 3),
        "queries": len(queries),
        "numbers": question.sum_at(0).length,
        "upload_bytes": round(found.upload_bytes),
        "total_bytes": round(found.upload_bytes * found.survivors[0]),
    }
