"""A request as its operator reads it: what is asked, of which rows, what would leave, what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from privfl.budget import Charge, Mandate
from privfl.budget.ledger_book import Book
from privfl.budget.ledger_entries import Mandated, moment
from privfl.clock import SystemClock
from privfl.dp import ZERO_COST, Cost, Trust, Unit, epsilon_of_cost
from privfl.errors import Misuse, Refused
from privfl.homes.requests import Request, Standing, State
from privfl.learn import Task
from privfl.runtime.consent import OUTSIDE, uploads_counted, uploads_under
from privfl.runtime.plain import escaped
from privfl.tasks import Question, Sum

__all__ = ["Shown"]


@dataclass(frozen=True)
class Shown:
    """One request in words and figures; ``trouble`` says why its decisions do not count."""

    ledger: Book
    request: Request
    question: Question
    standing: Standing
    trouble: str = ""

    @property
    def id(self) -> str:
        """In hexadecimal."""
        return self.request.id.hex()

    @property
    def title(self) -> str:
        """What is asked, on one line."""
        return escaped(self.question.title)

    @property
    def state(self) -> str:
        """pending, approved, refused, or used up: all uploads of an approved run were made."""
        used = self.standing.state is State.APPROVED and self.made >= self.question.uploads
        return "used up" if used and not self.request.mandate else self.standing.state.value

    @property
    def made(self) -> int:
        """Uploads that the ledger shows under the approval that counts, or under the request's mandate."""
        entries = self.ledger.entries
        if self.request.mandate:
            under = Mandated(Mandate.decode(self.request.mandate).nonce, self.question.uploads)
            return len(uploads_counted(entries, under))
        if self.standing.state is not State.APPROVED:
            return 0
        return len(uploads_under(entries, self.standing, self.question))

    @property
    def words(self) -> str:
        """The state, and how much of an approval was used."""
        if self.state == "approved" and (made := self.made):
            return f"approved, {made} of {self.question.uploads} uploads made"
        return self.state

    @property
    def outside(self) -> bool:
        """Whether the decision that counts was taken after this site's own answer was looked at."""
        return self.standing.last is not None and self.standing.last.seen

    @property
    def who(self) -> str:
        """Analyst, and the coordinator where it is another."""
        analyst, by = self.request.analyst, self.request.coordinator_name
        return escaped(by if analyst in ("", by) else f"{analyst} via {by}")

    # -- cost ----------------------------------------------------------------------------------------

    def cost(self) -> Cost | None:
        """Of the whole question, nothing repeated, by the policy in force; None where it has no finite cost."""
        limits, total = self.ledger.limits, ZERO_COST
        if limits is None:
            return None
        try:
            for price in self.question.prices():
                total += price.times * limits.price(self._charge(price.costs, price.trust))
        except Refused:
            return None
        return total

    def worst(self) -> Cost | None:
        """Of every upload that one approval allows, each as dear as the dearest: the asker chooses what is repeated."""
        limits = self.ledger.limits
        if limits is None:
            return None
        try:
            each = [limits.price(self._charge(price.costs, price.trust)) for price in self.question.prices()]
            mu2, delta = (max((getattr(cost, name) for cost in each), default=0) for name in ("mu2", "delta"))
            return self.question.uploads * Cost(mu2, delta)
        except (Refused, Misuse):  # no finite cost, or more than any claim
            return None

    def _tries(self) -> int:
        """How often each upload may be made under one approval."""
        times = sum(price.times for price in self.question.prices())
        return -(-self.question.uploads // times) if times else 1

    def _charge(self, costs: Mapping[Unit, Cost], trust: Trust | None) -> Charge:
        return Charge(bytes(32), self.question.purpose, self.request.analyst, costs, trust, self.question.title)

    def epsilon(self) -> float | None:
        """The same at the policy's delta; 0 without noise, where there is no budget to hold it against."""
        cost, limits = self.cost(), self.ledger.limits
        if cost is None or limits is None:
            return None
        return _epsilon(cost, limits.budget.delta) if limits.budget else 0.0

    def left(self) -> tuple[float | None, float | None]:
        """Epsilon that the whole budget has left, before and after this question; None where it does not fit."""
        limits, cost = self.ledger.limits, self.cost()
        now = max(SystemClock().now(), self.ledger.time)
        held = limits.left(self.ledger.tally, now) if limits is not None else None
        if limits is None or limits.budget is None or held is None or cost is None:
            return None, None
        before = _epsilon(Cost(held.mu2, ZERO_COST.delta), limits.budget.delta)
        if cost.mu2 > held.mu2 or cost.delta > held.delta:
            return before, None
        return before, _epsilon(Cost(held.mu2 - cost.mu2, ZERO_COST.delta), limits.budget.delta)

    # -- for people and programs ---------------------------------------------------------------------

    def row(self) -> tuple[str, ...]:
        """Of the table of requests."""
        state = self.words + (" (after seeing the data)" if self.outside else "")
        words = "altered: see show" if self.trouble else state
        return self.id[:12], self.title, self.who, self.request.purpose, _figure(self.epsilon()), words

    def fields(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "id": self.id,
            "question": self.request.question_id.hex(),
            "title": self.title,
            "kind": self.question.kind,
            "analyst": self.request.analyst,
            "coordinator": self.request.coordinator_name,
            "mandate": bool(self.request.mandate),
            "purpose": self.request.purpose,
            "epsilon": self.epsilon(),
            "state": self.state,
            "uploads_made": self.made,
            "outside_guarantee": self.outside,
            "first": self.request.first,
            "trouble": self.trouble,
        }

    def details(self) -> dict[str, Any]:
        """:meth:`fields` with what would leave, what is left, and every decision."""
        before, after = self.left()
        return {
            **self.fields(),
            "columns": list(self.question.columns),
            "uploads": self.question.uploads,
            "blocks": [
                dict(zip(("name", "length", "sensitivity", "noise"), one, strict=True)) for one in self._blocks()
            ],
            "explanation": list(self._explained()),
            "tries": self._tries(),
            "epsilon_left": before,
            "epsilon_left_after": after,
            "decisions": [
                {"number": d.number, "answer": d.answer, "why": d.why, "time": d.time, "after_preview": d.seen}
                for d in self.standing.decisions
            ],
        }

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        request, schema = self.request, self.question.schema
        yield f"{self.title}: {self.words}"
        yield f"  request {self.id[:12]}, first seen {moment(request.first)}"
        yield f"  asked by {self.who}, for {request.purpose}{', under a signed mandate' if request.mandate else ''}"
        yield f"  rows: every row bound here to schema {escaped(schema.name)} version {schema.version}"
        yield f"  columns read: {', '.join(map(escaped, self.question.columns)) or 'none'}"
        yield from (f"  {line}" for line in self._explained())
        yield from self._leaves()
        yield from self._costs()
        if self.trouble:
            yield f"  NOTE: {self.trouble}"
        for one in self.standing.decisions:
            mark = f", {OUTSIDE}" if one.seen and one.answer != "preview" else ""
            why = f": {escaped(one.why)}" if one.why else ""
            yield f"  {moment(one.time)}: {one.answer}{mark}{why}"

    def _explained(self) -> Iterator[str]:
        explain = getattr(self.question, "explain", None)
        if explain is not None:
            yield from (escaped(line) for line in str(explain()).splitlines())

    def _sums(self) -> list[Sum]:
        """What its slots sum, one after another; empty for a kind that only tells it in its explanation."""
        asked: Any = self.question
        if isinstance(asked, Task):
            return [Sum(asked.ring, asked.length, asked.release)]
        return [asked.sum_at(stage) for stage in range(asked.stages)] if hasattr(asked, "sum_at") else []

    def _blocks(self) -> list[tuple[str, int, float, float]]:
        """Name, length, sensitivity and noise of every stretch of what would leave, in the integers that are summed."""
        found = []
        for one in self._sums():
            for block in one.release.blocks if one.release is not None else ():
                found.append((escaped(block.name), block.length, math.sqrt(block.delta2), block.sigma))
        return found

    def _leaves(self) -> Iterator[str]:
        sums, uploads = self._sums(), self.question.uploads
        sizes = " and ".join(str(one.length) for one in sums) or "as many as said above"
        yield f"  leaves this site, whatever its rows are: masked vectors of {sizes} numbers"
        yield f"  how often: up to {uploads} time(s), repeated tries included"
        for name, size, delta, sigma in () if hasattr(self.question, "explain") else self._blocks():
            yield f"    {name}: {size} numbers, sensitivity {delta:.4g}, noise {sigma:.4g} in the opened sum"

    def _costs(self) -> Iterator[str]:
        limits = self.ledger.limits
        if limits is None or limits.noiseless or not self.question.prices():
            yield "  cost: NO NOISE, the policy lets exact sums leave"
            return
        assert limits.budget is not None
        at = f"at delta {limits.budget.delta:g} per {limits.unit}"
        before, after = self.left()
        yield f"  cost: epsilon {_figure(self.epsilon())} {at}, all of it together"
        worst, tries = self.worst(), self._tries()
        if tries > 1 and worst is not None:
            most = _figure(_epsilon(worst, limits.budget.delta))
            yield f"  at most epsilon {most} if the dearest upload is repeated as often as the approval allows"
        if after is None:
            yield f"  the ledger has epsilon {_figure(before)} left: it does not fit, and is refused when that is gone"
        else:
            after_it = f"{_figure(after)} after it (mu2 adds up, epsilon does not)"
            yield f"  the ledger has epsilon {_figure(before)} left, and {after_it}"
        if self.question.purpose not in limits.shares:
            yield f"  the policy gives {self.question.purpose} no share: it would be refused"


def _epsilon(cost: Cost, delta: float) -> float | None:
    if not cost.mu2 and not cost.delta:
        return 0.0
    try:
        return epsilon_of_cost(cost, delta)
    except Misuse:  # delta' alone is above delta
        return None


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
