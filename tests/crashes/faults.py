"""Ways to break a site on purpose, inside a child of a crash campaign; the product has no switch for them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks._crash_child import Child
from privfl.budget.ledger import Ledger
from privfl.runtime.site import SiteNode
from privfl.runtime.site_process import SiteProcess
from privfl.runtime.store import DurableSiteStore
from privfl.wires import Envelope
from privfl.wires.folder import FolderMailbox

STATE = ("state.db", "state.db-wal", "state.key")


def _blind() -> None:
    """The state is not held against the ledger at a start, nor the ledger against a repeated upload."""
    SiteProcess._check_age = lambda *_: None  # type: ignore[method-assign, assignment]
    SiteNode._close = lambda *_: None  # type: ignore[method-assign, assignment]


def nothing_durable_before_sending(child: Child) -> None:
    """Neither used(H0) nor the outbox is stored while a slot is answered; a restart computes it anew."""
    _blind()
    save, announce = DurableSiteStore.save, SiteNode._announce
    answering: list[bool] = []

    def announced(node: SiteNode, received: Any) -> Any:
        answering.append(True)
        try:
            return announce(node, received)
        finally:
            answering.pop()

    SiteNode._announce = announced  # type: ignore[method-assign]
    DurableSiteStore.save = lambda store, dump: None if answering else save(store, dump)  # type: ignore[method-assign]
    DurableSiteStore.save_outbox = lambda *_: None  # type: ignore[method-assign, assignment]


def charged_after_sending(child: Child) -> None:
    """The reservation is entered once the upload is on its way."""
    reserve, send = Ledger.reserve, FolderMailbox.send
    due: list[tuple[Ledger, Any, int]] = []

    def later(ledger: Ledger, charge: Any, now: int) -> bytes:
        due.append((ledger, charge, now))
        return ledger.head

    def sending(mailbox: FolderMailbox, recipient: bytes, data: bytes) -> None:
        send(mailbox, recipient, data)
        if Envelope.decode(data).kind.startswith("upload"):
            while due:
                ledger, charge, now = due.pop()
                reserve(ledger, charge, now)

    Ledger.reserve = later  # type: ignore[method-assign]
    Ledger.settle = lambda *_: None  # type: ignore[method-assign, assignment]
    FolderMailbox.send = sending  # type: ignore[method-assign]


def refunds_after_every_start(child: Child) -> None:
    """What a crash left open is refunded, whether it was used or not."""
    _blind()
    recover = Ledger.recover
    Ledger.recover = lambda ledger, accepted, stored, now: recover(ledger, None, None, now)  # type: ignore[method-assign]


def votes_not_stored(child: Child) -> None:
    """A vote is sent, and stored some time later or never."""
    abort = SiteNode._abort

    def voted(node: SiteNode, received: Any) -> Any:
        saved, node._saved = node._saved, lambda: None  # type: ignore[method-assign]
        try:
            return vote(node, received)
        finally:
            node._saved = saved  # type: ignore[method-assign]

    def asked(node: SiteNode, received: Any) -> Any:
        child.point("asked to abort")
        return abort(node, received)

    vote, SiteNode._vote = SiteNode._vote, voted  # type: ignore[method-assign]
    SiteNode._abort = asked  # type: ignore[method-assign]


def releases_not_stored(child: Child) -> None:
    """A release is sent and not stored."""
    release = SiteNode._release

    def released(node: SiteNode, received: Any) -> Any:
        saved, node._saved = node._saved, lambda: None  # type: ignore[method-assign]
        try:
            return release(node, received)
        finally:
            node._saved = saved  # type: ignore[method-assign]

    SiteNode._release = released  # type: ignore[method-assign]


def copy_within_a_slot(child: Child) -> None:
    """A restart finds the state of just before the first slot, and does not look at the ledger."""
    _blind()
    copy_of(1, child)


def copy_of(which: int, child: Child) -> None:
    """The state is copied when slot number ``which`` of a process is reserved; a restart finds that copy in place."""
    copy = child.folder.parent.parent / f"{child.who}.copy"
    if copy.is_dir():
        for name in STATE:
            Path(child.folder, name).unlink(missing_ok=True)
            if (copy / name).exists():
                shutil.copyfile(copy / name, child.folder / name)
        shutil.rmtree(copy)
        return
    reserve = Ledger.reserve
    count: list[int] = []

    def reserved(ledger: Ledger, charge: Any, now: int) -> bytes:
        head = reserve(ledger, charge, now)
        count.append(1)
        if len(count) == which:
            copy.mkdir()
            for name in STATE:
                if Path(child.folder, name).exists():
                    shutil.copyfile(child.folder / name, copy / name)
        return head

    Ledger.reserve = reserved  # type: ignore[method-assign]
