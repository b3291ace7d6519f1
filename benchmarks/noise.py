"""How fast one core draws exact discrete Gaussian noise, and OpenDP's rate beside it.

Example::

    python -m benchmarks.noise
    python -m benchmarks.noise --json --samples 2000000

Each rate is the median of several runs of one ``sample`` call, with the table of that σ built beforehand; the time of
building it is its own column (a wide σ reuses inner tables already built for a smaller one).
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median

from rich.console import Console
from rich.table import Table

from privfl.dp.samplers import DiscreteGaussian
from privfl.entropy import SYSTEM

SIGMAS = tuple(2**power for power in range(17))
TARGET = 8_000_000
_OPENDP_SIGMA = 256.0


def rate(sigma: float, samples: int, repeats: int) -> tuple[float, float]:
    """Return (samples per second, seconds to build) for one σ."""
    start = time.perf_counter()
    sampler = DiscreteGaussian(sigma)
    built = time.perf_counter() - start
    sampler.sample(samples // 10, SYSTEM)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        sampler.sample(samples, SYSTEM)
        seconds.append(time.perf_counter() - start)
    return samples / median(seconds), built


def opendp_rate(samples: int) -> float | None:
    """Return OpenDP's samples per second, or nothing if it is not installed."""
    try:
        import opendp.prelude as dp  # noqa: PLC0415 - an extra, measured only where it is installed
    except ImportError:
        return None
    dp.enable_features("contrib")
    noise = dp.m.make_gaussian(dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float), _OPENDP_SIGMA)
    zeros = [0] * samples
    noise(zeros[: samples // 10])
    start = time.perf_counter()
    noise(zeros)
    return samples / (time.perf_counter() - start)


def _print(rates: dict[int, tuple[float, float]], opendp: float | None) -> None:
    table = Table(title="Exact discrete Gaussian noise, one core", caption=f"to reach: {TARGET / 1e6:.0f} million/s")
    for heading in ("σ", "million samples/s", "building the table, ms"):
        table.add_column(heading, justify="right")
    for sigma, (per_second, built) in rates.items():
        table.add_row(str(sigma), f"{per_second / 1e6:.1f}", f"{built * 1e3:.1f}")
    theirs = "not installed (pip install opendp)" if opendp is None else f"{opendp / 1e6:.2f}"
    table.add_section()
    table.add_row(f"OpenDP, σ = {_OPENDP_SIGMA:.0f}", theirs, "")
    Console().print(table)


def _count(text: str) -> int:
    value = int(text)
    if value < 1000:
        raise argparse.ArgumentTypeError("at least 1000 samples are needed for a rate")
    return value


def main(arguments: list[str] | None = None) -> None:
    """Measure σ = 1, 2, 4, …, 65536 and print a table, or one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.noise",
        description="Measure the exact discrete Gaussian sampler for σ = 1, 2, 4, …, 65536 on one core.",
        epilog="Example: python -m benchmarks.noise --json --samples 2000000",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--samples", type=_count, default=1_000_000, help="samples in one run (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, choices=range(1, 100), metavar="N", help="runs per σ")
    parser.add_argument("--opendp-samples", type=_count, default=20_000, help="samples of OpenDP (%(default)s)")
    options = parser.parse_args(arguments)
    rates = {sigma: rate(float(sigma), options.samples, options.repeats) for sigma in SIGMAS}
    opendp = opendp_rate(options.opendp_samples)
    if not options.json:
        _print(rates, opendp)
        return
    result: dict[str, object] = {
        "samples_per_s": {str(sigma): round(per_second) for sigma, (per_second, _) in rates.items()},
        "opendp_samples_per_s": None if opendp is None else round(opendp),
    }
    if opendp is None:
        result["opendp_reason"] = "opendp is not installed"
    print(json.dumps(result))


if __name__ == "__main__":
    main()
