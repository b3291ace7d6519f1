"""How a demo is shown: four tables and what to look at next."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from privfl.cli.demo_folder import WORD_FILE
from privfl.cli.demo_outcome import LedgerFound, Outcome
from privfl.cli.roles import quoted

__all__ = ["show", "show_next", "show_sites"]


def show(console: Console, outcome: Outcome, result: dict[str, Any]) -> None:
    """Print how good the model is, what it cost, what the sites' ledgers say, what the coordinator saw."""
    score = outcome.accuracy["distributed"]
    error = 100 * (score * (1 - score) / max(1, outcome.held)) ** 0.5
    title = f"\nHow good is the model? (one run, {outcome.held} held-out patients)"
    table = Table(title=title, title_justify="left")
    table.add_column("trained as")
    table.add_column(f"accuracy, ± {error:.1f}", justify="right")
    for name, words in (
        ("pooled", "all rows in one place, no privacy"),
        ("distributed", "privfl, noise shared among the sites"),
        ("local", "privfl, every site noises for itself"),
        ("alone", "one site alone at the same epsilon (mean of all)"),
    ):
        table.add_row(words, f"{100 * outcome.accuracy[name]:.1f} %", style="bold" if name == "distributed" else "")
    console.print(table)
    _show_cost(console, outcome, result)
    if outcome.ledgers:
        _show_ledgers(console, outcome)
    _show_proof(console, outcome)
    console.print(f"\n{_carried(outcome)}", markup=False)
    console.print(f"\nDone in {result['seconds']:.1f} s.")


def _show_cost(console: Console, outcome: Outcome, result: dict[str, Any]) -> None:
    privacy, release = outcome.privacy, outcome.release
    cost = Table(title="\nWhat did it cost?", title_justify="left", show_header=False)
    cost.add_row(
        "epsilon, delta", f"{privacy.epsilon:.3f}, {privacy.delta:g} per patient record ({outcome.rounds} rounds)"
    )
    cost.add_row("what it rests on", f"noise of {release.honest} honest sites, {release.colluders} colluding")
    cost.add_row("if all other sites collude", f"epsilon {privacy.fallback_epsilon:.3f}")
    if not outcome.ledgers:
        spent = ", ".join(f"{name} {epsilon:.3f}" for name, epsilon in outcome.spent.items())
        cost.add_row("each site's own account", spent)
    cost.add_row(
        "upload", f"{outcome.upload_bytes:.0f} B per round, {result['upload_bytes_per_parameter']} B per parameter"
    )
    console.print(cost)


def _show_ledgers(console: Console, outcome: Outcome) -> None:
    title = f"\nWhat do the sites' own ledgers say? ({len(outcome.ledgers)} verified)"
    table = Table(title=title, title_justify="left")
    for heading in ("site", "entries", "uploads opened", "charged", "epsilon spent"):
        table.add_column(heading, justify="left" if heading == "site" else "right")
    for one in outcome.ledgers:
        table.add_row(one.site, str(one.entries), str(one.uploads), _charged(one), f"{one.epsilon:.3f}")
    console.print(table)
    death = outcome.death
    if death is not None:
        (ledger,) = (one for one in outcome.ledgers if one.site == death.site)
        console.print(f"[dim]{_fate(ledger, death.round)}[/dim]")


def _carried(outcome: Outcome) -> str:
    """Which wire, and what went over it."""
    carried = outcome.carried
    if carried is None or carried.messages is None or carried.bytes is None:
        return "Wire: memory; nothing left this process."
    return (
        f"Wire: {carried.kind}; {carried.messages} messages and {carried.bytes / 1e6:.1f} MB at the coordinator's end, "
        f"{outcome.rounds} rounds in {carried.seconds:.1f} s, start and end of all processes included."
    )


def _charged(ledger: LedgerFound) -> str:
    return f"{ledger.settled + ledger.burnt}" + (f", {ledger.burnt} burnt" if ledger.burnt else "")


def _fate(ledger: LedgerFound, number: int) -> str:
    """What the killed site's ledger says of the round in which it died."""
    words = f"{ledger.site} was killed in round {number} with its charge reserved. When it started again, that charge "
    if ledger.burnt:
        words += "was burnt: rows may have been read, so it stays spent."
    elif ledger.refunded:
        words += "was refunded: the slot had not been accepted, so nothing can have left."
    else:
        words += "was settled: the noised and masked upload was already stored."
    late = ledger.settled - ledger.uploads
    return words + (" An upload that came too late for its sum stays charged." if late > 0 else "")


def _show_proof(console: Console, outcome: Outcome) -> None:
    seen = outcome.seen
    proof = Table(title="\nWhat did the coordinator see?", title_justify="left", show_header=False)
    proof.add_row("masked vectors", f"{seen.vectors}, bytes uniform with p = {seen.uniformity():.2f}")
    if seen.example is not None:
        site, body, total = seen.example
        proof.add_row("such a vector begins", f"{body.hex(' ', 8)} … (site {site[:8]})")
        proof.add_row("and the opened sum", ", ".join(str(value) for value in total) + " …")
    proof.add_row("sums opened", f"{outcome.rounds}, one per round")
    for number, names in outcome.dropped.items():
        plural = len(names) > 1
        words = "their vectors are" if plural else "its vector is"
        proof.add_row("who dropped", f"{', '.join(names)} in round {number}; {words} in no sum")
    proof.add_row("transcripts verified", f"{outcome.verified} of {outcome.rounds}, with the authority's key alone")
    console.print(proof)


def show_next(console: Console, outcome: Outcome, folder: Path) -> None:
    """Print what can be looked at in ``folder``."""
    command = "privfl" if shutil.which("privfl") else sys.argv[0]
    console.print("Check it yourself, without any secret:")
    steps = [f"transcript verify {folder}/transcripts/*.transcript"]
    if outcome.ledgers:
        who = outcome.death.site if outcome.death else outcome.ledgers[0].site
        steps += [
            f"ledger verify {folder}/federation/{who} --transcripts {folder}/transcripts",
            f"ledger show {folder}/federation/{who}",
            f"policy explain {folder}/federation/policy.signed",
            f"site status {folder}/federation/{who}",
        ]
    for step in steps:
        console.print(f"  {command} {step}", soft_wrap=True, markup=False)
    if outcome.ledgers:
        site, back = f"{folder}/federation/{who}", f"folder:{folder}/federation/wire"
        own = outcome.carried is None or outcome.carried.kind == "folder"  # what carried the others has ended
        _show_keys(console, folder, [*([] if own else [f"site join {site} --wire {back}"]), f"site run {site}"])


def show_sites(console: Console, folder: Path) -> None:
    """Print how the sites that a study was asked of can be looked at and operated further."""
    command, site = "privfl" if shutil.which("privfl") else sys.argv[0], f"{folder}/federation/north"
    console.print("Look around, without any secret:")
    for step in (f"site requests {site}", f"ledger show {site}"):
        console.print(f"  {command} {step}", soft_wrap=True, markup=False)
    _show_keys(console, folder, [f"site run {site}", f"coordinator run {folder}/federation/coordinator"])


def _show_keys(console: Console, folder: Path, steps: list[str]) -> None:
    """Print where the passphrase lies, and what can be done with it."""
    command = "privfl" if shutil.which("privfl") else sys.argv[0]
    console.print(
        "Go on as an operator; this demo's keys are made up, so their passphrase lies beside them:", soft_wrap=True
    )
    console.print(f'  export PRIVFL_PASSPHRASE="$(cat {quoted(folder / WORD_FILE)})"', soft_wrap=True, markup=False)
    for step in steps:
        console.print(f"  {command} {step}", soft_wrap=True, markup=False)
