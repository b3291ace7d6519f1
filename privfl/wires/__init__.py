"""How messages travel: signed envelopes through mailboxes that may lose, repeat, reorder and lie."""

from privfl.wires.envelope import INLINE_LIMIT, BodyRef, Envelope, check_body, open_envelope, seal_envelope
from privfl.wires.folder import FolderMailbox, FolderWire
from privfl.wires.mailbox import Delivery, Mailbox
from privfl.wires.memory import Faults, MemoryWire
from privfl.wires.parcel import Packed, Unpacked, pack, unpack

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
    "Packed",
    "Unpacked",
    "check_body",
    "open_envelope",
    "pack",
    "seal_envelope",
    "unpack",
]
