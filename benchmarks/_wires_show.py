"""The figures of ``benchmarks.wires`` as tables, goals beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._wires_aws import GAP_GOAL_MS, REST_GOAL
from benchmarks._wires_memory import goal_mb

__all__ = ["show"]

#: What a round may take over Flower, in plain FedAvg's; and what an upload may, by ring bits, in float32's.
ROUND_GOALS = {"voted": 1.6, "complete": 1.1}
UPLOAD_GOALS = {"32": 1.05, "20": 0.67, "16": 0.55}


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print what was measured."""
    for one in result.get("flower", ()):
        console.print(_flower(one))
    for one in result.get("aws", ()):
        console.print(_aws(one))
    if "memory" in result:
        console.print(_memory(result["memory"]))
    console.print(_traffic(result))
    console.print(f"load of this computer at the end: {result['load']:.1f}", style="dim")


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title)
    for at, heading in enumerate(headings):
        table.add_column(heading, justify="right" if at else "left", no_wrap=not at)
    return table


def met(value: float, goal: float, unit: str = "") -> str:
    """A goal, and whether it is met."""
    return f"≤ {goal:.3g}{unit} {'met' if value <= goal else 'NOT MET'}"


def _flower(one: Mapping[str, Any]) -> Table:
    title = f"Flower: {one['sites']} sites, {one['dim']:,} parameters, {one['rounds']} rounds of each kind"
    table = _table(title, "figure", "measured", "of plain FedAvg", "goal")
    plain = one["plain"]
    table.add_row("plain FedAvg, a round", f"{plain['round_s']:.2f} s")
    for mode, goal in ROUND_GOALS.items():
        ratio = one[f"ratio_{mode}"]
        table.add_row(f"privfl, {mode}, a round", f"{one[mode]['round_s']:.2f} s", f"{ratio:.2f}", met(ratio, goal))
    table.add_row("privfl, keys, once per run", f"{one['voted']['epoch_s']:.2f} s")
    table.add_section()
    table.add_row("plain FedAvg, one site's upload", f"{plain['upload_bytes']:,.0f} B")
    for bits, ratio in one["upload_ratio"].items():
        most = UPLOAD_GOALS.get(bits)
        size = f"{one['upload_bytes'][bits]:,.0f} B"
        table.add_row(f"privfl, {bits} bit", size, f"{ratio:.3f}", met(ratio, most) if most else "")
    table.add_section()
    for mode in ("plain", *ROUND_GOALS):
        made = one[mode]
        name, counts = "plain FedAvg" if mode == "plain" else f"privfl, {mode}", f"{made['messages_per_node']:g}"
        table.add_row(f"{name}: messages to a node", counts, f"{made['messages_before']:g} before" if made else "")
        table.add_row("  processor time of one", f"{made['processor_s_per_message']:.2f} s")
    return table


def _aws(one: Mapping[str, Any]) -> Table:
    title = f"SQS and S3: {one['sites']} sites, {one['dim']:,} parameters, means of {one['rounds']} rounds"
    table = _table(title, "figure", "folder", "SQS and S3", "goal")

    def row(name: str, key: str, sub: str = "", scale: float = 1e3, goal: str = "") -> None:
        found = [one[kind][key][sub] if sub else one[kind][key] for kind in ("folder", "aws")]
        table.add_row(name, *(f"{scale * value:.1f} ms" for value in found), goal)

    row("a round, wall time", "round_s")
    row("  a request with the emulator", "parts_s", "emulator")
    row("  else privfl's own computing", "parts_s", "computing")
    row("  else the wire's own code", "parts_s", "wire")
    row("  nobody at work", "parts_s", "waiting")
    share = one["aws"]["rest_share"]
    both = (f"{100 * one[kind]['rest_share']:.1f} %" for kind in ("folder", "aws"))
    table.add_row("the last two, of the wall time", *both, met(100 * share, 100 * REST_GOAL, " %"))
    row("computing, summed over processes", "over_processes_s", "computing")
    row("the same round over the memory wire", "memory_s")
    row("keys, once per run", "epoch_s")
    table.add_section()
    for name, key in (("a message lies, median", "median"), ("  99th percentile", "p99"), ("  longest", "most")):
        goal = met(one["aws"]["gap_ms"]["most"], GAP_GOAL_MS, " ms") if key == "most" else ""
        row(name, "gap_ms", key, 1.0, goal)
    table.add_section()
    for name, made in one["aws"]["operations"].items():
        table.add_row(name, "", f"{made['count']:.0f} × {1e3 * made['seconds'] / max(made['count'], 1):.1f} ms", "")
    table.add_row("sums equal plain integers", str(one["bit_exact"]), str(one["bit_exact"]), "")
    return table


def _memory(one: Mapping[str, Any]) -> Table:
    goal = goal_mb(one["dim"])
    table = _table(
        f"Memory of a coordinator: {one['sites']} sites, {one['dim']:,} parameters", "MiB", "folder", "S3", "goal"
    )
    both = [one[kind] for kind in ("folder", "aws")]
    table.add_row("the opened wire", *(f"{found['wire_mb']:.1f}" for found in both), "")
    for stage in both[0]["rise_mb"]:
        table.add_row(f"rise: {stage}", *(f"{found['rise_mb'][stage]:.1f}" for found in both), "")
    peaks = [found["peak_mb"] for found in both]
    table.add_row("rise in all", *(f"{peak:.1f}" for peak in peaks), met(peaks[1], goal))
    table.add_row("sum equals plain integers", *(str(one[kind]["bit_exact"]) for kind in ("folder", "aws")), "")
    return table


def _traffic(result: Mapping[str, Any]) -> Table:
    table = _table(
        "One round", "wire", "sites", "phases", "messages to sites", "from sites", "MB to sites", "MB from sites"
    )
    for one in (*result.get("aws", ()), *result.get("flower", ())):
        for wire, made in one["traffic"].items():
            counts = (made["messages_down"], made["messages_up"])
            sizes = (made["bytes_down"] / 1e6, made["bytes_up"] / 1e6)
            table.add_row(
                wire,
                str(one["sites"]),
                f"{made['phases']:g}",
                *(f"{count:g}" for count in counts),
                *(f"{size:.2f}" for size in sizes),
            )
    return table
