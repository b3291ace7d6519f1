"""Tokens of a line of text, and a reader that points at the place where it stops."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from privfl.errors import Misuse
from privfl.tasks import Class

__all__ = ["KEYWORDS", "WORD", "Reader", "Token"]

MAX_DEPTH = 40
T = TypeVar("T")

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![A-Za-z0-9_.]))
      | (?P<word>[^\W\d]\w*(?:\.\w+)*)
      | (?P<quoted>`(?:[^`]|``)+`)
      | (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
      | (?P<sign><=|>=|==|!=|[<>=()\[\]{},/:])""",
    re.VERBOSE,
)
#: Words of the grammar, which a column's name must not be without backquotes.
KEYWORDS = {"and", "or", "not", "in", "is", "by", "where", "as", "weight", "missing", "true", "false"}
WORD = re.compile(r"[^\W\d]\w*(?:\.\w+)*")


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of the text: its kind, itself, and where it begins."""

    kind: str
    text: str
    at: int


class Reader:
    """One pass over the tokens of a text."""

    def __init__(self, text: str) -> None:
        self.text, self.place, self.depth = text, 0, 0
        self.tokens: list[Token] = []
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._at(at, "this cannot be read; text goes in quotes, odd column names in `backquotes`")
            if match.lastgroup != "space":
                self.tokens.append(Token(str(match.lastgroup), match.group(), at))
            at = match.end()

    # -- tokens --------------------------------------------------------------------------------------

    def _at(self, at: int, why: str) -> Misuse:
        here = self.text[at : at + 20]
        where = f"at {here!r} (character {at + 1})" if here else "at its end"
        shown = self.text if len(self.text) <= 80 else self.text[:77] + "..."
        return Misuse(f"cannot read {shown!r} {where}: {why}")

    def fault(self, why: str) -> Misuse:
        """A complaint that points at the present token."""
        token = self.peek()
        return self._at(token.at if token else len(self.text), why)

    def peek(self, ahead: int = 0) -> Token | None:
        """A token that is still to come, by default the next; None after the last."""
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else None

    def word(self, *words: str, ahead: int = 0) -> bool:
        """Whether one of these keywords comes next."""
        token = self.peek(ahead)
        return token is not None and token.kind == "word" and token.text.lower() in words

    def sign(self, *signs: str) -> bool:
        """Whether one of these signs comes next."""
        token = self.peek()
        return token is not None and token.kind == "sign" and token.text in signs

    def take(self) -> Token:
        """The next token; raises Misuse after the last."""
        token = self.peek()
        if token is None:
            raise self.fault("more is expected")
        self.place += 1
        return token

    def expect(self, sign: str) -> None:
        """Pass over a sign that must come next."""
        if not self.sign(sign):
            raise self.fault(f"{sign!r} is expected")
        self.place += 1

    def end(self) -> None:
        """Raise Misuse unless everything was read."""
        if self.peek() is not None:
            raise self.fault("this is more than fits here")

    # -- names and values ----------------------------------------------------------------------------

    def column(self) -> str:
        """The name of a column."""
        token = self.peek()
        if token is not None and token.kind == "quoted":
            self.place += 1
            return token.text[1:-1].replace("``", "`")
        if token is None or token.kind != "word" or token.text.lower() in KEYWORDS:
            raise self.fault("the name of a column is expected")
        self.place += 1
        return token.text

    def literal(self) -> bool | float | str:
        """A number, a quoted text, true or false."""
        token = self.peek()
        if token is not None and token.kind == "number":
            self.place += 1
            return int(token.text) if re.fullmatch(r"[-+]?[0-9]{1,18}", token.text) else float(token.text)
        if token is not None and token.kind == "text":
            self.place += 1
            quote = token.text[0]
            return token.text[1:-1].replace(quote * 2, quote)
        if self.word("true", "false"):
            return self.take().text.lower() == "true"
        raise self.fault("a number, a text in quotes, true or false is expected")

    def klass(self) -> Class:
        """A class: no number with a fraction."""
        found = self.literal()
        if isinstance(found, float):
            self.place -= 1
            raise self.fault("a class is a whole number, a text in quotes, true or false")
        return found

    def number(self) -> float:
        """A number."""
        token = self.peek()
        if token is None or token.kind != "number":
            raise self.fault("a number is expected")
        return float(self.literal())

    def count(self) -> int:
        """A whole number."""
        token = self.peek()
        if token is None or not re.fullmatch("[0-9]{1,9}", token.text):
            raise self.fault("a whole number is expected")
        self.place += 1
        return int(token.text)

    def nested(self, read: Callable[[], T]) -> T:
        """What ``read`` finds, within one more pair of parentheses."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.fault(f"more than {MAX_DEPTH} parentheses within one another")
        found = read()
        self.depth -= 1
        return found

    def several(self, read: Callable[[], T], close: str) -> list[T]:
        """Items between commas up to ``close``."""
        found: list[T] = []
        while not self.sign(close):
            if found:
                self.expect(",")
            found.append(self.nested(read))
        self.place += 1
        return found
