"""The courier in the ServerApp: a thread that takes the coordinator's mail to the sites' nodes, and brings theirs.

One message per node is under way at most, and everything for a node goes in it; its reply brings everything that the
site has to say. Which node is which site is only claimed, and only decides the way a letter takes: every letter is
signed, and where two nodes claim to be one site both get its mail until both, or time, have confirmed it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from flwr.app import Array, Message
from flwr.serverapp import Grid
from privfl_keys import Roster

from privfl.errors import PrivflError, WireError
from privfl.flower.courier_grid import Broken, batches, kind_of, pulled, pushed
from privfl.flower.courier_nodes import Node, Nodes, Sent, words_of
from privfl.flower.records import array_of, packed, unpacked
from privfl.wires.flower import Spool
from privfl.wires.flower_carry import MAX_LETTERS, MAX_NAMES, Carrier, Load

__all__ = ["MESSAGE_TYPE", "Courier"]

log = logging.getLogger("privfl.flower")

MESSAGE_TYPE = "query.privfl"
MOST_SENT = 4  # messages to one node whose replies are looked for
MOST_NODES = 10_000
KEEP_S = 600.0  # how long a letter waits for all of several nodes that claim to be its site
FOREIGN_S = 60.0  # until a node that is no site of this federation is asked again
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.5, 30.0
SWEEP_S = 60.0


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
        self._nodes = Nodes(self._names)
        self._looked = self._swept = -float("inf")
        self._usual = 0
        self._halt = threading.Event()
        self._thread: threading.Thread | None = None
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

    @property
    def sites(self) -> dict[str, list[int]]:
        """Which nodes say that they are which site, by the site's name."""
        return {self._names[site]: nodes for site, nodes in self._nodes.of_sites().items()}

    @property
    def problems(self) -> dict[str, str]:
        """What keeps mail from a site or node, in words, by name."""
        return self._nodes.problems

    @property
    def notes(self) -> list[str]:
        """How many nodes there are and which sites are at one, and what keeps mail, in words."""
        return self._nodes.notes

    def _work(self) -> None:
        pause, back_off = self._tick, FIRST_BACKOFF_S
        while not self._halt.wait(pause):
            try:
                self.step()
                self._nodes.trouble = ""
                self._say()
                pause, back_off = self._tick, FIRST_BACKOFF_S
            except Exception as error:
                own = isinstance(error, PrivflError)
                words = str(error) if own else f"the SuperLink does not answer ({kind_of(error)})"
                if words != self._nodes.trouble:
                    log.warning("%s", words)
                self._nodes.trouble = words
                self._say()
                pause, back_off = back_off, min(2 * back_off, LAST_BACKOFF_S)
            except BaseException as error:  # Flower says so when the run is over
                self.ended = f"the Flower run has ended ({type(error).__name__})"
                log.warning("%s", self.ended)
                return

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
            self._carrier.spool.sweep()
            self._swept = now

    # -- nodes --------------------------------------------------------------------------------------

    def _look(self) -> None:
        here = set(list(self._grid.get_node_ids())[:MOST_NODES])
        for gone in self._nodes.keys() - here:
            log.info("%s has gone", self._nodes.name(self._nodes[gone]))
            del self._nodes[gone]  # what was under way is sent again when it, or its site, is back
        for new in here - self._nodes.keys():
            self._nodes[new] = Node(new)

    # -- replies ------------------------------------------------------------------------------------

    def _pull(self) -> None:
        under_way = {name: node for node in self._nodes.values() for name in node.sent}
        for names in batches(under_way, self._usual):
            for reply in pulled(self._grid, names):
                name = reply.name if isinstance(reply, Broken) else reply.metadata.reply_to_message_id
                node = under_way.get(name)
                sent = None if node is None else node.sent.pop(name, None)
                if node is not None and sent is not None:
                    self._replied(node, sent, reply)
                del reply

    def _replied(self, node: Node, sent: Sent, reply: Message | Broken) -> None:
        if isinstance(reply, Broken):
            self._failed(node, f"a reply that cannot be read ({reply.kind})")
            return
        if reply.has_error():
            error = reply.error
            said = words_of(error.reason)
            if "No query function registered" in said:
                said = "its app has no place for privfl's mail: wrap its ClientApp with privfl.flower.private(app)"
            self._failed(node, f"Flower error {error.code}: {said}", refused=False)
            return
        try:
            load, bodies = unpacked(reply.content)
        except Exception as error:
            self._failed(node, f"a reply that is none of privfl's ({kind_of(error)})")
            return
        now, size = self._clock(), sum(map(len, bodies.values()))
        node.answered, node.largest = True, max(node.largest, size)
        if load.own not in self._names:
            node.site = None
            node.due = node.rest = now + (self._poll if load.problem else FOREIGN_S)
            why = (
                words_of(load.problem) or f"it is no site of the roster ({load.own.hex()[:8]}); its mail is not carried"
            )
            self._nodes.problem(node, why)
            return
        node.site = load.own
        for name in sent.confirms:
            node.owed.pop(name, None)
        node.has.update(set(load.taken).intersection(sent.names))
        if sent.names and not node.has.intersection(sent.names):
            self._failed(node, words_of(load.problem) or "the site took none of its letters", refused=False)
            return
        taken = self._carrier.take(load.own, load, bodies)
        if taken.new:  # signed by the site: what others of its kind may send as well
            self._usual = max(self._usual, size)
        node.owed.update(dict.fromkeys(taken.names))
        self.refused += taken.refused
        node.failures, node.rest, node.most = 0, 0.0, MAX_LETTERS
        node.due = now + (self._again if load.working or load.more else self._poll)
        self._nodes.problem(node, words_of(load.problem))

    def _failed(self, node: Node, why: str, *, refused: bool = True) -> None:
        self.refused += refused
        node.failures += 1
        node.rest = self._clock() + min(FIRST_BACKOFF_S * 2 ** min(node.failures - 1, 10), LAST_BACKOFF_S)
        node.due = node.rest
        self._nodes.problem(node, f"{why}; it is asked again")

    # -- mail ---------------------------------------------------------------------------------------

    def _push(self) -> None:
        now, arrays = self._clock(), dict[bytes, Array]()
        batch = [(node, *made) for node in self._nodes.values() if (made := self._made(node, now, arrays)) is not None]
        if not batch:
            return
        names = pushed(self._grid, [message for _, _, message in batch])
        for (node, sent, _), name in zip(batch, names, strict=True):
            if name:
                node.sent[name] = sent
                self.pushed += 1
            else:
                node.most = 1
                self._failed(node, "the SuperLink does not take a message for it", refused=False)

    def _made(self, node: Node, now: float, arrays: dict[bytes, Array]) -> tuple[Sent, Message] | None:
        """The message that is due for a node, if one is."""
        if now < node.rest or any(now - sent.at < self._patience for sent in node.sent.values()):
            return None
        names: list[str] = []
        if node.site is not None:
            names = [name for name in self._carrier.waiting(node.site) if name not in node.has]
        if not names and now < node.due:
            return None
        recent = list(node.sent.items())[1 - MOST_SENT :]
        node.sent = {name: sent for name, sent in recent if now - sent.at < self._ttl}
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
        return Sent(now, tuple(letter.name for letter in letters), confirms), message

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
