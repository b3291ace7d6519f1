"""Before sites are asked to compute anything: do their operators agree to the question?

The coordinator asks each site that is up, and asks those again whose operator has not answered yet. Nothing is
charged for it, and nobody learns why an operator refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from privfl.clock import Clock
from privfl.errors import Malformed, RoundAborted
from privfl.homes.requests import State
from privfl.runtime.consult import Consult, Consulted
from privfl.runtime.desk import Desk
from privfl.runtime.post import Received
from privfl.runtime.words import by_reason

__all__ = ["Consultation"]

log = logging.getLogger("privfl.coordinator")
SOONEST_MS, LATEST_MS = 500, 15_000  # between two questions to the same site


@dataclass
class Consultation:
    """Asks every site for its operator's yes to one question.

    Args:
        consult: what is asked. question: id of the question. names: site id → name.
        enough: approvals that are needed.
        standing: by site, as far as it has answered. refusals: reasons of sites whose policy does not allow it.
    """

    desk: Desk
    clock: Clock
    consult: Consult
    question: bytes
    names: Mapping[bytes, str]
    enough: int
    standing: dict[bytes, State] = field(default_factory=dict)
    refusals: dict[bytes, str] = field(default_factory=dict)

    def approved(self) -> tuple[bytes, ...]:
        """The sites whose operators agree, or need not be asked."""
        return tuple(sorted(site for site, state in self.standing.items() if state is State.APPROVED))

    def pending(self) -> tuple[bytes, ...]:
        """The sites whose operators have not answered."""
        return tuple(sorted(site for site, state in self.standing.items() if state is State.PENDING))

    def ask(self, sites: Sequence[bytes], patience: int | None = None) -> None:
        """Ask ``sites`` once."""

        def take(received: Received) -> bool:
            found = Consulted.decode(received.payload)
            if found.question != self.question or found.state not in tuple(State):
                raise Malformed("the answer is about another question, or none that exists")
            self.standing[received.sender] = State(found.state)
            return False

        requests = dict.fromkeys(sites, self.consult)
        for site, why in self.desk.exchange("consult", requests, take, patience=patience).items():
            self.standing[site], self.refusals[site] = State.REFUSED, why
        for site in sites:
            if self.standing.get(site) is State.REFUSED:
                self.desk.view.refused.setdefault(site, "this site's operator has refused this question")
            else:
                self.desk.view.refused.pop(site, None)
                self.refusals.pop(site, None)

    def wait(
        self, sites: Sequence[bytes], limit_ms: int | None, grace_ms: int, tell: Callable[[tuple[str, ...]], None]
    ) -> tuple[bytes, ...]:
        """Ask until enough operators agree, and a little longer for the others; returns the sites that do.

        Args:
            sites: that are up; those that come up meanwhile are asked as well.
            limit_ms: how long to wait for operators; None: for ever.
            tell: called with the names of those whose operators it waits for; none: for sites that are not up.

        Raises:
            RoundAborted: they are too few, or cannot become enough any more. Nothing was charged.
        """
        began, pause = self.clock.now(), SOONEST_MS
        self.ask(sites)
        enough_since: int | None = None
        while True:
            now, waiting = self.clock.now(), self.pending()
            if len(self.approved()) >= self.enough:
                enough_since = now if enough_since is None else enough_since
                if not waiting or now - enough_since >= grace_ms:
                    return self.approved()
            elif len(self.names) - len(self._against()) < self.enough:
                raise RoundAborted(self._why("and the others are too few"))
            if limit_ms is not None and now - began >= limit_ms:
                if enough_since is not None:
                    return self.approved()
                raise RoundAborted(self._why("in time"))
            tell(tuple(self._named(waiting)))
            again = self._listen(now + (min(pause, grace_ms) if enough_since is not None else pause))
            pause = min(2 * pause, LATEST_MS)
            self.ask(sorted({*waiting, *again} - set(self.approved())))

    def _listen(self, until: int) -> set[bytes]:
        """Take in mail for a while, or until a site says that it is up or that its operator has decided."""
        hello = self.desk.view.hello
        hello.clear()
        while (left := until - self.clock.now()) > 0 and not hello:
            if not self.desk.listen(min(500, left)) and self.desk.quiet:
                break
        return set(hello)

    def _against(self) -> list[bytes]:
        return [site for site, state in self.standing.items() if state is State.REFUSED]

    def _named(self, sites: Sequence[bytes]) -> list[str]:
        return sorted(self.names.get(site, "?") for site in sites)

    def _why(self, how: str) -> str:
        parts = [f"{len(self.approved())} of {self.enough} sites that are needed have approved the question {how}"]
        if refused := [site for site in self._against() if site not in self.refusals]:
            parts.append(f"refused by the operator of {', '.join(self._named(refused))}")
        parts += by_reason({self.names.get(site, "?"): why for site, why in self.refusals.items()})
        if self.pending():
            parts.append(f"not answered by the operator of {', '.join(self._named(self.pending()))}")
        if silent := [site for site in self.names if site not in self.standing]:
            parts.append(f"not up: {', '.join(self._named(silent))}")
        then = "" if len(self.refusals) == len(self.names) else "; ask again when they agree"
        return "; ".join(parts) + f". Nothing was spent{then}"
