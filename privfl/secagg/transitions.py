"""The protocol as tables: which event each machine accepts in which state, and where it goes.

Machines consult these tables before they act, tests walk the full product of states and events,
and the diagram of ``docs/protocol.md`` is generated from them (:func:`mermaid`).
"""

from __future__ import annotations

from collections.abc import Mapping

from privfl.errors import Refused

__all__ = ["COORDINATOR_SLOT", "MEMBER_SLOT", "SITE_EPOCH", "SITE_SLOT", "TABLES", "Table", "advance", "mermaid"]

Table = Mapping[tuple[str, str], str]

SITE_EPOCH: Table = {
    ("new", "advertise"): "advertised",
    ("advertised", "advertise"): "advertised",
    ("advertised", "contribute"): "contributed",
    ("contributed", "confirm"): "confirmed",
    ("confirmed", "join"): "active",
    ("advertised", "close"): "erased",
    ("contributed", "close"): "erased",
    ("confirmed", "close"): "erased",
    ("active", "close"): "erased",
}
SITE_SLOT: Table = {
    ("idle", "accept"): "accepted",
    ("accepted", "upload"): "uploaded",
    ("accepted", "restart"): "silent",
    ("uploaded", "resend"): "uploaded",
    ("uploaded", "restart"): "uploaded",
    ("uploaded", "accept"): "accepted",
    ("silent", "accept"): "accepted",
    ("accepted", "accept"): "accepted",
}
MEMBER_SLOT: Table = {
    ("idle", "vote"): "voted",
    ("idle", "abort"): "voted",
    ("idle", "release"): "released",
    ("voted", "vote"): "voted",
    ("voted", "abort"): "voted",
    ("voted", "release"): "released",
    ("released", "vote"): "released",
    ("released", "release"): "released",
}
COORDINATOR_SLOT: Table = {
    ("idle", "announce"): "collecting",
    ("collecting", "upload"): "collecting",
    ("collecting", "close"): "voting",
    ("collecting", "close complete"): "releasing",
    ("collecting", "abort"): "aborted",
    ("voting", "vote"): "voting",
    ("voting", "certify"): "releasing",
    ("voting", "abort"): "aborted",
    ("releasing", "vote"): "releasing",
    ("releasing", "release"): "releasing",
    ("releasing", "finish"): "done",
    ("releasing", "abort"): "aborted",
    ("done", "announce"): "collecting",
    ("aborted", "vote"): "aborted",
    ("aborted", "announce"): "collecting",
}
TABLES: Mapping[str, Table] = {
    "site, epoch": SITE_EPOCH,
    "site, slot": SITE_SLOT,
    "committee member, slot": MEMBER_SLOT,
    "coordinator, slot": COORDINATOR_SLOT,
}


def advance(table: Table, state: str, event: str) -> str:
    """Return the state after ``event``.

    Raises:
        Refused: the table has no such transition; the machine stays as it was.
    """
    try:
        return table[state, event]
    except KeyError:
        allowed = sorted(name for origin, name in table if origin == state)
        raise Refused(
            f"'{event}' is not possible in state '{state}'; possible: {', '.join(allowed) or 'nothing'}"
        ) from None


def mermaid(table: Table) -> str:
    """Render one table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(table))[0]}"]
    merged: dict[tuple[str, str], list[str]] = {}
    for (origin, event), target in table.items():
        merged.setdefault((origin, target), []).append(event)
    lines += [f"    {origin} --> {target}: {', '.join(events)}" for (origin, target), events in merged.items()]
    return "\n".join(lines)
