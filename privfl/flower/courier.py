"""The courier in the ServerApp: a thread that takes the coordinator's mail to the sites' nodes, and brings theirs.

One message per node is under way at most, and everything for a node goes in it; its reply brings everything that the
site has to say. Which node is which site is only claimed, and only decides the way a letter takes: every letter is
signed, and where two nodes claim to be one site both get its mail until both, or time, have confirmed it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Array, Message
from flwr.serverapp import Grid
from privfl_keys import Roster

from privfl.errors import PrivflError, WireError
from privfl.flower.records import array_of, packed, unpacked
from privfl.runtime.plain import visible
from privfl.wires.flower import Spool
from privfl.wires.flower_carry import MAX_LETTERS, MAX_NAMES, Carrier, Load

__all__ = ["MESSAGE_TYPE", "Courier"]

log = logging.getLogger("privfl.flower")

MESSAGE_TYPE = "query.privfl"
PULL_AT_ONCE = 8  # replies in memory at once, each with its bodies
PULL_BYTES = 256 * 2**20  # of bodies, judged by the largest reply so far
MOST_NODES = 10_000
KEEP_S = 600.0  # how long a letter waits for all of several nodes that claim to be its site
FOREIGN_S = 60.0  # until a node that is no site of this federation is asked again
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.5, 30.0
SWEEP_S = 60.0
WORDS = 300
SHOWN = 10  # nodes that are named
_TRANSPORT = ("httpx", "httpcore", "grpc")


@dataclass
class _Sent:
    """A message under way: when it went, the letters in it, and the names that it confirms."""

    at: float
    names: tuple[str, ...]
    confirms: tuple[str, ...]


@dataclass
class _Node:
    """One SuperNode.

    Attributes:
        site: which it says it is. answered: it has said who it is, or is not.
        due: when it is asked although there is no mail. rest: not before that moment.
        most: letters in one message. has: letters still in the spool that it has confirmed.
        owed: names of its letters that are safe here, which it does not know yet.
        sent: messages under way. problem: what keeps its mail, in words.
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
    sent: dict[str, _Sent] = field(default_factory=dict)
    problem: str = ""


class Courier:
    """Carries mail between one spool and the nodes of a Flower run until :meth:`stop`.

    Args:
        grid: the run's; nobody else may use it meanwhile. spool: of the coordinator. own: the coordinator's id.
        roster: whose sites are carried for, and by which a site's letter is verified before it is kept.
        message_type: what the nodes' ClientApp has registered. poll: seconds after which a node is asked although
            there is no mail for it. again: the same where work is in hand. tick: seconds between looks at the spool
            and at replies. look: between looks at the list of nodes. patience: seconds after which a message that got
            no reply is sent again. ttl: seconds after which Flower forgets a message; generous, for clocks differ.
        clock: monotonic, in seconds. tell: called with :attr:`notes` when they have changed, for people who look on.

    Attributes:
        refused: letters and replies that were no
            good. pushed: messages sent. ended: why the courier has ended by itself; empty while it works.
    """

    def __init__(
        self,
        grid: Grid,
        spool: Spool,
        own: bytes,
        roster: Roster,
        *,
        message_type: str = MESSAGE_TYPE,
        poll: float = 15.0,
        again: float = 0.25,
        tick: float = 0.1,
        look: float = 2.0,
        patience: float = 75.0,
        ttl: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[Sequence[str]], None] = lambda notes: None,
    ) -> None:
        self._grid, self._roster, self._type, self._clock = grid, roster, message_type, clock
        self._carrier = Carrier(spool, own, lambda envelope: envelope.verify(roster, "site"))
        self._names = {member.site_id: member.name for member in roster.holding("site")}
        self._poll, self._again, self._tick, self._look_s = poll, again, tick, look
        self._patience, self._ttl = patience, ttl
        self._nodes: dict[int, _Node] = {}
        self._looked = self._swept = -float("inf")
        self._largest = 1
        self._halt = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = ""
        self._tell = tell
        self._told: list[str] = []
        self.refused = self.pushed = 0
        self.ended = ""

    def start(self) -> None:
        """Begin to carry, in a thread of its own."""
        self._halt.clear()
        self._thread = threading.Thread(target=self._work, name="privfl-courier", daemon=True)
        self._thread.start()

    def stop(self, wait_s: float = 10.0) -> None:
        """Carry nothing more; what is under way comes again with the next courier."""
        self._halt.set()
        if self._thread is not None:
            self._thread.join(wait_s)

    def __enter__(self) -> Courier:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _sites(self) -> dict[bytes, list[int]]:
        found: dict[bytes, list[int]] = {}
        for node in list(self._nodes.values()):
            if (site := node.site) is not None:
                found.setdefault(site, []).append(node.id)
        return found

    @property
    def sites(self) -> dict[str, list[int]]:
        """Which nodes say that they are which site, by the site's name."""
        return {self._names[site]: nodes for site, nodes in self._sites().items()}

    def _work(self) -> None:
        pause, back_off = self._tick, FIRST_BACKOFF_S
        while not self._halt.wait(pause):
            try:
                self.step()
                self._trouble = ""
                self._say()
                pause, back_off = self._tick, FIRST_BACKOFF_S
            except Exception as error:
                own = isinstance(error, PrivflError)
                words = str(error) if own else f"the SuperLink does not answer ({_kind(error)})"
                if words != self._trouble:
                    log.warning("%s", words)
                self._trouble = words
                self._say()
                pause, back_off = back_off, min(2 * back_off, LAST_BACKOFF_S)
            except BaseException as error:  # Flower says so when the run is over
                self.ended = f"the Flower run has ended ({type(error).__name__})"
                log.warning("%s", self.ended)
                return

    @property
    def notes(self) -> list[str]:
        """How many nodes there are and which sites are at one, and what keeps mail, in words."""
        nodes, sites = list(self._nodes.values()), self.sites
        said = [f"{len(nodes)} SuperNodes are connected; {len(sites)} of {len(self._names)} sites have answered"]
        missing = sorted(set(self._names.values()).difference(sites))
        if missing:
            said.append(f"not heard of through any node: {', '.join(missing)}")
        return [*said, *(f"{who}: {words}" for who, words in sorted(self.problems.items()))]

    def _say(self) -> None:
        notes = self.notes
        if notes != self._told:
            self._told = notes
            self._tell(notes)

    def step(self) -> None:
        """One look at nodes, replies and mail; for who runs the courier without its thread."""
        now = self._clock()
        if now - self._looked >= self._look_s:
            self._look()
            self._looked = now
        self._pull()
        self._push()
        self._forget()
        if now - self._swept >= SWEEP_S:
            self._carrier.sweep()
            self._swept = now

    # -- nodes --------------------------------------------------------------------------------------

    def _look(self) -> None:
        here = set(list(self._grid.get_node_ids())[:MOST_NODES])
        for gone in self._nodes.keys() - here:
            log.info("%s has gone", self._name(self._nodes[gone]))
            del self._nodes[gone]  # what was under way is sent again when it, or its site, is back
        for new in here - self._nodes.keys():
            self._nodes[new] = _Node(new)

    def _name(self, node: _Node, sites: Mapping[bytes, Sequence[int]] | None = None) -> str:
        site = node.site  # read once: the courier's thread may learn better meanwhile
        if site is None:
            return f"node {node.id}"
        alone = len((self._sites() if sites is None else sites).get(site, ())) <= 1
        return self._names[site] if alone else f"{self._names[site]} (node {node.id})"

    def _problem(self, node: _Node, words: str) -> None:
        if words and words != node.problem:
            log.warning("%s: %s", self._name(node), words)
        node.problem = words

    @property
    def problems(self) -> dict[str, str]:
        """What keeps mail from a site or node, in words, by name."""
        sites = self._sites()
        found = {self._name(node, sites): node.problem for node in list(self._nodes.values()) if node.problem}
        for site, nodes in sites.items():
            if len(nodes) > 1:
                several = f"{', '.join(map(str, sorted(nodes)[:SHOWN]))}{', …' if len(nodes) > SHOWN else ''}"
                found[self._names[site]] = f"nodes {several} all say that they are it; each gets its mail"
        return {**found, "Flower": self._trouble} if self._trouble else found

    # -- replies ------------------------------------------------------------------------------------

    def _pull(self) -> None:
        under_way = {name: node for node in self._nodes.values() for name in node.sent}
        ids = list(under_way)
        while ids:
            few = min(PULL_AT_ONCE, max(1, PULL_BYTES // self._largest))
            replies = self._replies(ids[:few], under_way)
            del ids[:few]
            while replies:
                reply = replies.pop()
                node = under_way.get(reply.metadata.reply_to_message_id)
                if node is not None and reply.metadata.reply_to_message_id in node.sent:
                    self._replied(node, node.sent.pop(reply.metadata.reply_to_message_id), reply)
                del reply

    def _replies(self, ids: list[str], under_way: dict[str, _Node]) -> list[Message]:
        """The replies that are there; a reply that cannot even be unpacked counts as a failure of its node."""
        try:
            return list(self._grid.pull_messages(ids))
        except Exception as error:
            if len(ids) > 1:
                return [reply for one in ids for reply in self._replies([one], under_way)]
            if _transient(error):
                raise
            node = under_way[ids[0]]
            node.sent.pop(ids[0], None)
            self._failed(node, f"a reply that cannot be read ({_kind(error)})")
            return []

    def _replied(self, node: _Node, sent: _Sent, reply: Message) -> None:
        if reply.has_error():
            error = reply.error
            self._failed(node, f"Flower error {error.code}: {_words(error.reason)}", refused=False)
            return
        try:
            load, bodies = unpacked(reply.content)
        except Exception as error:
            self._failed(node, f"a reply that is none of privfl's ({_kind(error)})")
            return
        now = self._clock()
        node.answered = True
        if load.own not in self._names:
            node.site = None
            node.due = node.rest = now + (self._poll if load.problem else FOREIGN_S)
            why = _words(load.problem) or f"it is no site of the roster ({load.own.hex()[:8]}); its mail is not carried"
            self._problem(node, why)
            return
        node.site = load.own
        for name in sent.confirms:
            node.owed.pop(name, None)
        node.has.update(set(load.taken).intersection(sent.names))
        if sent.names and not node.has.intersection(sent.names):
            self._failed(node, _words(load.problem) or "the site took none of its letters", refused=False)
            return
        taken = self._carrier.take(load.own, load, bodies)
        self._largest = max(self._largest, sum(map(len, bodies.values())))
        node.owed.update(dict.fromkeys(taken.names))
        self.refused += taken.refused
        node.failures, node.rest, node.most = 0, 0.0, MAX_LETTERS
        node.due = now + (self._again if load.working or load.more else self._poll)
        self._problem(node, _words(load.problem))

    def _failed(self, node: _Node, why: str, *, refused: bool = True) -> None:
        self.refused += refused
        node.failures += 1
        node.rest = self._clock() + min(FIRST_BACKOFF_S * 2 ** min(node.failures - 1, 10), LAST_BACKOFF_S)
        node.due = node.rest
        self._problem(node, f"{why}; it is asked again")

    # -- mail ---------------------------------------------------------------------------------------

    def _push(self) -> None:
        now, arrays = self._clock(), dict[bytes, Array]()
        batch = [(node, *made) for node in self._nodes.values() if (made := self._made(node, now, arrays)) is not None]
        if not batch:
            return
        ids: list[str | None] = list(self._grid.push_messages([message for _, _, message in batch]))
        if len(batch) > 1 and len(ids) != len(batch):  # too much at once
            ids = [self._pushed_alone(message) for _, _, message in batch]
        for (node, sent, _), name in zip(batch, ids or [None] * len(batch), strict=True):
            if name:
                node.sent[name] = sent
                self.pushed += 1
            else:
                node.most = 1
                self._failed(node, "the SuperLink does not take a message for it", refused=False)

    def _pushed_alone(self, message: Message) -> str | None:
        return next(iter(self._grid.push_messages([message])), None)

    def _made(self, node: _Node, now: float, arrays: dict[bytes, Array]) -> tuple[_Sent, Message] | None:
        """The message that is due for a node, if one is."""
        if now < node.rest or any(now - sent.at < self._patience for sent in node.sent.values()):
            return None
        names: list[str] = []
        if node.site is not None:
            names = [name for name in self._carrier.waiting(node.site) if name not in node.has]
        if not names and now < node.due:
            return None
        node.sent = {name: sent for name, sent in node.sent.items() if now - sent.at < self._ttl}
        letters, more = ([], False) if node.site is None else self._carrier.letters(node.site, names[: node.most])
        confirms = tuple(node.owed)[:MAX_NAMES]
        try:
            for ref in {ref.sha256: ref for letter in letters for ref in letter.refs}.values():
                if ref.sha256 not in arrays:
                    arrays[ref.sha256] = array_of(self._carrier.spool.bodies.get(ref.sha256, ref.size))
        except WireError:
            return None  # dropped by its writer just now; the next look finds the letter without it
        load = Load(
            self._carrier.own,
            node.site or b"",
            tuple((letter.name, letter.data) for letter in letters),
            confirms,
            more=more,
        )
        carried = {ref.sha256: arrays[ref.sha256] for letter in letters for ref in letter.refs}
        message = Message(packed(load, carried.items()), node.id, self._type, ttl=self._ttl)
        return _Sent(now, tuple(letter.name for letter in letters), confirms), message

    def _forget(self) -> None:
        """Delete letters that every node which claims to be their site has, once no node is left that may be it."""
        unknown = any(node.site is None and not node.answered for node in self._nodes.values())
        for site in {node.site for node in self._nodes.values() if node.site is not None and node.has}:
            claimants = [node for node in self._nodes.values() if node.site == site]
            waiting = self._carrier.waiting(site)
            done = [name for name in waiting if _done(name, [name in node.has for node in claimants], unknown)]
            self._carrier.confirmed(site, done)
            left = set(waiting).difference(done)
            for node in claimants:
                node.has &= left


def _done(name: str, had: list[bool], unknown: bool) -> bool:
    written = int(name[:20]) / 1e9 if name[:20].isdigit() else 0.0
    return any(had) and ((all(had) and not unknown) or time.time() - written > KEEP_S)


def _transient(error: Exception) -> bool:
    """Whether an error is about the way to the SuperLink and not about one message."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and 400 <= status < 500:
        return False
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _TRANSPORT


def _kind(error: BaseException) -> str:
    return type(error).__name__


def _words(text: object) -> str:
    """A stranger's words, short and without control characters."""
    return visible(str(text)[:WORDS]) if text else ""
