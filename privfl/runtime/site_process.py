"""A site as a process: it opens its folder, settles what a crash left, and answers until it is told to stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from privfl.budget.ledger_entries import Kind
from privfl.clock import Clock, SystemClock
from privfl.codec import Record
from privfl.dp import epsilon_of_cost
from privfl.entropy import SYSTEM, Entropy
from privfl.errors import Misuse, PrivflError, WireError
from privfl.homes.ledgers import KnownLedger
from privfl.homes.requests import RequestBook
from privfl.homes.site import OpenSite, SiteHome
from privfl.runtime.alive import Process
from privfl.runtime.consent import Consent
from privfl.runtime.logs import where
from privfl.runtime.site import SiteNode
from privfl.runtime.status import NAME, SiteStatus, Stage, StatusFile, show_failed_start
from privfl.runtime.store import DurableSiteStore
from privfl.runtime.terms import PolicyTerms
from privfl.runtime.watched import WatchedMailbox
from privfl.secagg import Upload
from privfl.secagg.messages import SeenHead
from privfl.tasks import SiteData

__all__ = ["ALARM", "SiteProcess", "acknowledge_rollback", "run_site"]

log = logging.getLogger("privfl.site")
ALARM = "alarm"
BEHIND_LEDGER = b"behind the ledger"
FORGIVEN = "forgiven"
WAIT_MS = 500
THE_WIRE = "the wire"
LONGEST_PAUSE = 10.0  # seconds between tries while the wire cannot be used


@dataclass
class SiteProcess:
    """One run of a site; built on an open folder by :func:`run_site`.

    Args:
        checkpoint: called by name after each durable step of a slot; for tests that kill the process there.
        data: what answers, where it is not the table that the site was opened with.
    """

    site: OpenSite
    clock: Clock
    entropy: Entropy
    checkpoint: Callable[[str, int], None] = lambda name, round_: None
    answer_after_ms: int = 0
    data: SiteData | None = None

    def __post_init__(self) -> None:
        site, now = self.site, self.clock.now()
        alarm = site.state.get(ALARM)
        if alarm is not None:
            raise Misuse(
                "this site's store was found to be an older copy: it does not know what this site has signed. "
                "Tell the compliance officer, compare the ledger with the public transcripts "
                f"(privfl ledger verify {site.folder} --transcripts DIR), then: privfl site acknowledge {site.folder}"
            )
        store = DurableSiteStore(site.state, site.folder / "outbox", site.anchor_item)
        wire = site.config.wire
        self.wire = WatchedMailbox(site.mailbox, self.clock, wire.kind, str(wire), self._wire_changed)
        book = RequestBook(site.folder, site.identity.key.verify_key)
        self._consent = Consent(book, site.policy.approval, site.ledger)
        self.node = SiteNode(
            site.party,
            PolicyTerms(site.policy),
            site.ledger,
            site.data if self.data is None else self.data,
            store,
            self.wire,
            self.clock,
            self.entropy,
            self.checkpoint,
            self._show,
            self.answer_after_ms,
            consent=self._consent,
        )
        stored = store.outbox()
        h0 = Upload.decode(stored).header.h0 if stored is not None else None
        self._check_age({self.node.machine.used, h0})
        for entry in site.ledger.recover(self.node.machine.used or None, h0, now):
            log.warning("the last run ended in the middle of a slot: %s", entry.kind)
        self._consent.settle(now)
        site.state.put(site.anchor_item())
        self._epsilon: tuple[bytes, float | None] = (b"", None)
        self._greeted = False
        policy = site.policy
        budget = policy.limits().budget
        self._file = StatusFile(site.folder / NAME)
        self._status = SiteStatus(
            site.name,
            site.config.federation,
            Process.present(now),
            roster=site.party.roster.version,
            policy=policy.version,
            policy_expires=policy.expires_at,
            since=now,
            epsilon_total=None if budget is None else budget.epsilon,
        )
        self._show("")

    def _check_age(self, known: Collection[bytes | None]) -> None:
        """Raise Misuse if the ledger tells of an upload that the sealed state does not know: it is an older copy.

        The state is saved before the ledger settles, so it may lag behind by one entry, never by a slot.
        """
        remembered = KnownLedger.of(self.site.state)
        since = self.site.ledger.entries()[remembered.anchor.seq + 1 :] if remembered is not None else ()
        unknown = {entry.reference for entry in since if entry.kind == Kind.RESERVE}.difference(known)
        if any(entry.kind in (Kind.SETTLE, Kind.BURN) and entry.reference in unknown for entry in since):
            self.site.state.put({ALARM: BEHIND_LEDGER})
            raise Misuse(
                f"the sealed state in {self.site.folder} is older than the ledger: it does not know of an upload that "
                "the ledger shows. This site would contradict itself in public, and does not start. Tell the "
                f"compliance officer; when it is settled: privfl site acknowledge {self.site.folder}"
            )

    def serve(self, stop: Callable[[], bool], idle_ms: int | None = None) -> None:
        """Answer until ``stop()``, or until nothing has come for ``idle_ms``.

        Raises:
            StorageError: the disk does not take what must be durable; nothing was sent that is not recorded.
        """
        self._greet()
        idle_since, pause = time.monotonic(), 0.05
        while not stop():
            began = time.monotonic()
            self._settle()
            if not self._greeted and not self.wire.away:
                self._greet()
            self.node.expire()  # before anything is answered: a coordinator that never pauses keeps no key alive
            try:
                worked = self.node.serve(WAIT_MS)
                pause = 0.05
            except WireError as error:
                level = logging.DEBUG if self._status.error == str(error) else logging.WARNING  # once, not every time
                log.log(level, "the wire cannot be used: %s; trying again", error)
                self._update(error=str(error), stage=Stage.WAITING, waits_for=THE_WIRE, force=True)
                worked, pause = 0, min(2 * pause, LONGEST_PAUSE)
                time.sleep(pause)
            if self.node.rolled_back is not None and not self._forgiven(self.node.rolled_back.head):
                self._alarm(self.node.rolled_back.head)
                return
            now = time.monotonic()
            if worked:
                idle_since = now
                self._show("")
            else:
                self._file.flush()
                if now - began < 0.02:  # something lies there that cannot be answered yet
                    time.sleep(0.02)
            if idle_ms is not None and (now - idle_since) * 1000 > idle_ms:
                log.info("nothing has come for %d s; this site stops", idle_ms // 1000)
                return

    def end(self, error: str = "") -> None:
        """Show how the process ended."""
        stage = Stage.FAILED if error else Stage.DONE
        self._update(stage=stage, error=error, waits_for="", force=True)

    def _settle(self) -> None:
        """Note what the operator has decided meanwhile, and let the coordinator know that it may ask again."""
        if self._consent.settle(self.clock.now()):
            self.site.state.put(self.site.anchor_item())
            self._greet()
            self._show("")

    def _greet(self) -> None:
        try:
            self.node.hello()
            self._greeted = True
        except WireError as error:
            log.warning("the coordinator was not told that this site is up: %s", error)

    def _forgiven(self, head: Record) -> bool:
        """Take up, once, the head of an upload that a loss took and that people have acknowledged by the ledger."""
        known = self.site.state.get(FORGIVEN)
        if known is None or not isinstance(head, SeenHead):
            return False
        hashes = [entry.hash for entry in self.site.ledger.entries()]
        if known not in hashes or head.ledger_head not in hashes[: hashes.index(known) + 1]:
            return False
        self.node.machine.acknowledge(head, leave=False)
        self.site.state.put({FORGIVEN: None, "machine": self.node.machine.dump(), **self.site.anchor_item()})
        self.node.rolled_back = None
        log.warning("the coordinator's last header of this site is one that the loss took; it is known again")
        return True

    def _alarm(self, head: Record) -> None:
        self.site.state.put({ALARM: head.encode()})
        self._update(alarm=str(self.node.rolled_back), stage=Stage.FAILED, force=True)
        raise Misuse(f"{self.node.rolled_back}: privfl site acknowledge {self.site.folder}")

    def _wire_changed(self) -> None:
        """The wire went away, failed again, or came back: say so at once."""
        if not hasattr(self, "_status"):
            return
        if self.wire.away:
            self._update(force=True)
            return
        log.info("the wire can be used again")
        if self._status.waits_for == THE_WIRE:
            self._show("")
        else:
            self._update(force=True)

    def _show(self, doing: str) -> None:
        """Bring the status file up to date; ``doing`` is the kind of request in hand, empty when it is done."""
        node, at = self.node if hasattr(self, "node") else None, self.clock.now()
        if node is None or not hasattr(self, "_status"):
            return
        epoch, round_, attempt = node.at
        stage, waits = _stage(doing, node)
        self._update(
            epoch=epoch or None,
            round=round_ or None,
            attempt=attempt,
            stage=stage,
            waits_for=waits,
            since=at if stage != self._status.stage else self._status.since,
            active=at,
            uploads=node.uploads,
            bytes_sent=node.bytes_sent,
            refusals=node.refused,
            refusal=node.refusals[-1] if node.refusals else "",
            epsilon=self._spent(),
            pending=self._consent.pending,
            error="",
        )

    def _spent(self) -> float | None:
        """ε so far at the policy's δ; solved for again only when the ledger has grown."""
        ledger = self.site.ledger
        if self._epsilon[0] != ledger.head:
            limits, spent, epsilon = ledger.limits, ledger.spent(), None
            if limits is not None and limits.budget is not None and spent is not None:
                try:
                    epsilon = epsilon_of_cost(spent, limits.budget.delta) if spent.mu2 or spent.delta else 0.0
                except Misuse:  # delta' of a longer life, or under an earlier policy, is above this policy's delta
                    epsilon = None
            self._epsilon = ledger.head, epsilon
        return self._epsilon[1]

    def _update(self, *, force: bool = False, **fields: object) -> None:
        self._status = replace(self._status, wire=self.wire.seen, **fields)  # type: ignore[arg-type]
        self._file.write(self._status, force=force)


def _stage(doing: str, node: SiteNode) -> tuple[Stage, str]:
    if doing in ("open-epoch", "adverts", "contributions", "record"):
        return Stage.EPOCH, ""
    if doing == "announce":
        return Stage.COMPUTING, ""
    if doing.startswith("ask-"):
        return Stage.VOTING, ""
    working = node.uploads and node.machine.in_epoch
    return (Stage.UPLOADED if working else Stage.WAITING), "the coordinator's next request"


def run_site(
    folder: Path,
    passphrase: str,
    *,
    stop: Callable[[], bool],
    idle_ms: int | None = None,
    clock: Clock | None = None,
    entropy: Entropy = SYSTEM,
    checkpoint: Callable[[str, int], None] = lambda name, round_: None,
    answer_after_ms: int = 0,
    data: Callable[[OpenSite], SiteData] | None = None,
) -> int:
    """Open a site's folder and serve; returns how many uploads were made.

    Args:
        data: makes what answers in place of the bound table, which then is not read.
        stop: asked between messages. idle_ms: stop by itself when nothing has come for so long.
        answer_after_ms: see :class:`~privfl.runtime.site.SiteNode`.

    Raises:
        PrivflError: what :meth:`privfl.homes.site.SiteHome.open` raises, StorageError while it runs, Misuse for
            a store that was found to be an older copy.
    """
    clock = clock or SystemClock()
    process = None
    try:
        with SiteHome.open(folder, passphrase, clock.now(), data=data is None) as site:
            answers = None if data is None else data(site)
            process = SiteProcess(site, clock, entropy, checkpoint, answer_after_ms, answers)
            try:
                with where(epoch=process.node.machine.epoch):
                    log.info("site %s is up: policy version %d", site.name, site.policy.version)
                process.serve(stop, idle_ms)
            except BaseException as error:
                process.end(str(error) if isinstance(error, Misuse) else type(error).__name__)
                raise
            process.end()
            return process.node.uploads
    except PrivflError as error:
        if process is None:
            show_failed_start(folder, SiteStatus, error, clock.now())
        raise


def acknowledge_rollback(folder: Path, passphrase: str, now: int, why: str, *, entropy: Entropy = SYSTEM) -> str:
    """After people have settled what an older copy of the store lost: know its head from now on, leave the epoch.

    Leaves a note in the ledger. Returns what was acknowledged, in words.

    Raises:
        Misuse: there is nothing to acknowledge.
    """
    with SiteHome.open(folder, passphrase, now, data=False) as site:
        alarm = site.state.get(ALARM)
        if alarm is None:
            raise Misuse(f"there is no alarm in {folder}; nothing needs to be acknowledged")
        head = None if alarm == BEHIND_LEDGER else SeenHead.decode(alarm)
        store = DurableSiteStore(site.state, site.folder / "outbox", site.anchor_item)
        node = SiteNode(
            site.party,
            PolicyTerms(site.policy),
            site.ledger,
            None,
            store,
            site.mailbox,
            SystemClock(),
            entropy,
        )
        if head is not None:
            node.machine.acknowledge(head)
        elif node.machine.in_epoch:
            node.machine.close_epoch()
        lost = "what the ledger shows" if head is None else f"header {head.header.hex()[:16]}"
        site.ledger.note(f"the store was an older copy; {lost} acknowledged: {why}", now)
        forgiven = site.ledger.head if head is None else None  # its header is still to be shown
        site.state.put({ALARM: None, FORGIVEN: forgiven, **site.anchor_item(), "machine": node.machine.dump()})
        site.state.rotate()
        return lost
