"""How messages travel: signed envelopes through mailboxes that may lose, repeat, reorder and lie."""

from privfl.wires.envelope import INLINE_LIMIT, BodyRef, Envelope, check_body, open_envelope, seal_envelope
from privfl.wires.folder import FolderMailbox, FolderWire
from privfl.wires.mailbox import Delivery, Mailbox
from privfl.wires.memory import Faults, MemoryWire

__all__ = [
    "INLINE_LIMIT",
    "BodyRef",
    "Delivery",
    "Envelope",
    "Faults",
    "FolderMailbox",
    "FolderWire",
    "Mailbox",
    "MemoryWire",
    "check_body",
    "open_envelope",
    "seal_envelope",
]
