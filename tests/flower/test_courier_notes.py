"""What a courier tells those who look at the coordinator's status: nodes, sites, and what keeps the mail."""

from __future__ import annotations

from pathlib import Path

from privfl.flower.courier import Courier
from privfl.runtime.status import read_notes, write_notes
from privfl.wires.flower import spool_of
from tests.runtime.support import federation


class NoGrid:
    """A SuperLink that names its nodes, or does not answer."""

    def __init__(self) -> None:
        self.nodes: list[int] | None = [7, 8]

    def get_node_ids(self) -> list[int]:
        if self.nodes is None:
            raise ConnectionError
        return self.nodes

    def push_messages(self, messages: list[object]) -> list[str]:
        return [f"id-{at}" for at in range(len(messages))]

    def pull_messages(self, ids: list[str]) -> list[object]:
        return []


def test_notes_reach_the_folder_and_change_with_what_they_say(tmp_path: Path) -> None:
    """Nodes without a site, sites without a node; each text is told once, and the folder has the last."""
    made = federation(3)
    told: list[list[str]] = []

    def tell(notes: object) -> None:
        told.append(list(notes))  # type: ignore[call-overload]
        write_notes(tmp_path, told[-1])

    grid = NoGrid()
    roster = made.roster
    own = next(iter(roster.holding("coordinator"))).site_id
    courier = Courier(grid, spool_of(tmp_path), own, roster, look=0.0, tell=tell)  # type: ignore[arg-type]
    for _ in range(3):
        courier._look()
        courier._say()
    names = ", ".join(sorted(member.name for member in roster.holding("site")))
    assert told == [
        [
            "2 SuperNodes are connected; 0 of 3 sites have answered",
            f"not heard of through any node: {names}",
        ]
    ]
    assert list(read_notes(tmp_path)) == told[-1]
    courier._nodes[7].problem = "its site does not start"
    courier._say()
    assert told[-1][-1] == "node 7: its site does not start"
