"""The nodes of a Flower run as a courier sees them: who each says it is, what is under way, what people are told."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from privfl.runtime.plain import visible
from privfl.wires.flower_carry import MAX_LETTERS

__all__ = ["Node", "Nodes", "Sent", "words_of"]

log = logging.getLogger("privfl.flower")
WORDS = 300
SHOWN = 10  # nodes that are named


@dataclass
class Sent:
    """A message under way: when it went, the letters in it, and the names that it confirms."""

    at: float
    names: tuple[str, ...]
    confirms: tuple[str, ...]


@dataclass
class Node:
    """One SuperNode.

    Attributes:
        site: which it says it is. answered: it has said who it is, or is not.
        due: when it is asked although there is no mail. rest: not before that moment.
        most: letters in one message. has: letters still in the spool that it has confirmed.
        owed: names of its letters that are safe here, which it does not know yet.
        sent: messages under way. largest: bytes of bodies in a reply. problem: what keeps its mail, in words.
    """

    id: int
    site: bytes | None = None
    answered: bool = False
    due: float = 0.0
    rest: float = 0.0
    failures: int = 0
    most: int = MAX_LETTERS
    has: set[str] = field(default_factory=set)
    owed: dict[str, None] = field(default_factory=dict)
    sent: dict[str, Sent] = field(default_factory=dict)
    largest: int = 0
    problem: str = ""


class Nodes(dict[int, Node]):
    """Nodes by id; read by other threads while the courier changes them.

    Args:
        names: of the roster's sites, by id.
    """

    def __init__(self, names: Mapping[bytes, str]) -> None:
        super().__init__()
        self.names, self.trouble = names, ""

    def of_sites(self) -> dict[bytes, list[int]]:
        """Which nodes say that they are which site."""
        found: dict[bytes, list[int]] = {}
        for node in list(self.values()):
            if (site := node.site) is not None:
                found.setdefault(site, []).append(node.id)
        return found

    def name(self, node: Node, sites: Mapping[bytes, Sequence[int]] | None = None) -> str:
        """For people; ``sites`` as :meth:`of_sites` has just told, if it was asked."""
        site = node.site  # read once: the courier's thread may learn better meanwhile
        if site is None:
            return f"node {node.id}"
        alone = len((self.of_sites() if sites is None else sites).get(site, ())) <= 1
        return self.names[site] if alone else f"{self.names[site]} (node {node.id})"

    def problem(self, node: Node, words: str) -> None:
        """Note what keeps a node's mail, and say so once; empty: nothing does."""
        if words and words != node.problem:
            log.warning("%s: %s", self.name(node), words)
        node.problem = words

    @property
    def problems(self) -> dict[str, str]:
        """What keeps mail from a site or node, in words, by name."""
        sites = self.of_sites()
        found = {self.name(node, sites): node.problem for node in list(self.values()) if node.problem}
        for site, nodes in sites.items():
            if len(nodes) > 1:
                several = f"{', '.join(map(str, sorted(nodes)[:SHOWN]))}{', …' if len(nodes) > SHOWN else ''}"
                found[self.names[site]] = f"nodes {several} all say that they are it; each gets its mail"
        return {**found, "Flower": self.trouble} if self.trouble else found

    @property
    def notes(self) -> list[str]:
        """How many nodes there are and which sites are at one, and what keeps mail, in words."""
        sites = {self.names[site] for site in self.of_sites()}
        said = [f"{len(self)} SuperNodes are connected; {len(sites)} of {len(self.names)} sites have answered"]
        missing = sorted(set(self.names.values()).difference(sites))
        if missing:
            said.append(f"not heard of through any node: {', '.join(missing)}")
        return [*said, *(f"{who}: {words}" for who, words in sorted(self.problems.items()))]


def words_of(text: object) -> str:
    """A stranger's words, short and without control characters."""
    return visible(str(text)[:WORDS]) if text else ""
