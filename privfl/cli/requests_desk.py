"""A site's folder as its operator's commands see it: ledger, requests and decisions, all verified, without a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from privfl_keys import fingerprint

from privfl.budget.ledger_book import Book
from privfl.budget.ledger_check import read_ledger
from privfl.cli.requests_show import Shown
from privfl.errors import Misuse, PrivflError, Unverified
from privfl.homes.config import SiteConfig
from privfl.homes.ledgers import LEDGER
from privfl.homes.requests import NOTHING, Known, Request, RequestBook, Standing
from privfl.runtime.consent import decisions_noted
from privfl.runtime.questions import question_from
from privfl.tasks import Question

__all__ = ["Desk"]


@dataclass(frozen=True)
class Desk:
    """A site's folder as its operator's commands see it, without a secret and while the site may be running."""

    folder: Path
    config: SiteConfig
    ledger: Book
    book: RequestBook
    noted: Mapping[bytes, Known]

    @classmethod
    def open(cls, folder: Path) -> Desk:
        """Raises Misuse if it is no site's folder or has not joined, Unverified if its ledger does not verify."""
        config = SiteConfig.read(folder)
        files = sorted((folder / LEDGER).glob("*.db"))
        if len(files) != 1:
            raise Misuse(f"{folder} has no ledger yet; the first join makes it: privfl site join {folder}")
        ledger = read_ledger(files[0])
        if fingerprint(ledger.key) != config.fingerprint:
            raise Unverified(f"{files[0]} is the ledger of another site; put this site's own file back")
        return cls(folder, config, ledger, RequestBook(folder, ledger.key), decisions_noted(ledger.entries))

    def shown(self, request: Request) -> Shown:
        """One request with all that is known of it."""
        try:
            question: Question = question_from(request.question)
        except PrivflError as error:
            raise Misuse(f"request {request.id.hex()[:12]} cannot be read here: {error}") from None
        trouble = ""
        try:
            standing = self.book.standing(request, self.noted.get(request.id, NOTHING))
        except Unverified as error:
            standing, trouble = Standing(request), str(error)
        return Shown(self.ledger, request, question, standing, trouble)
