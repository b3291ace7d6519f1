"""What may be shown of a value in a log or a status: plain words and numbers, never bytes, arrays or tables."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath

from privfl.errors import PrivflError

__all__ = ["escaped", "shown", "told", "visible"]

_MOST_ITEMS = 20


def escaped(text: str) -> str:
    r"""``text`` on one line: whatever is not printable, and the backslash, as an escape.

    >>> escaped("a\nb")
    'a\\x0ab'
    """
    return "".join(_escape(char) if char == "\\" or not char.isprintable() else char for char in text)


def visible(text: str) -> str:
    """``text`` without control characters, which a terminal would obey; they are written as escapes."""
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(char: str) -> str:
    if char == "\\":
        return "\\\\"
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def shown(value: object, depth: int = 2) -> object:
    """What may be written of an argument: itself if it is plain, else a word about it."""
    kind = type(value)
    if value is None or kind in (str, bool, float):
        return value
    if isinstance(value, int) and kind is int:
        return value if abs(value) < 2**64 else "<int>"  # a longer one is a key or a sum
    if isinstance(value, Enum):
        return shown(value.value, 0)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, BaseException):
        return told(value)
    if depth and isinstance(value, tuple | list | set | frozenset):
        return f"[{_listed([str(shown(item, depth - 1)) for item in list(value)[:_MOST_ITEMS]], len(value))}]"
    if depth and isinstance(value, Mapping):
        pairs = [f"{shown(key, 0)}: {shown(item, depth - 1)}" for key, item in list(value.items())[:_MOST_ITEMS]]
        return f"{{{_listed(pairs, len(value))}}}"
    return f"<{kind.__name__}>"


def _listed(items: list[str], total: int) -> str:
    return ", ".join(items) + (f", … {total - len(items)} more" if total > len(items) else "")


def told(error: BaseException) -> str:
    """Type of ``error``, and its message where privfl or the operating system wrote it."""
    if isinstance(error, PrivflError):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return type(error).__name__
