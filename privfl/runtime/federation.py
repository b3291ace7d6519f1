"""The data scientist's face: a federation of sites in one process, trained through the real protocol.

Every site has its own keys, account and store and speaks to the coordinator over a wire only; nothing
is short-cut because they share a process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from privfl_keys import Member, Roster, SigningKey

from privfl.budget import MemoryAccount
from privfl.clock import Clock, SystemClock
from privfl.dp import ZERO_COST, Release, Trust, Unit, epsilon_of_cost
from privfl.entropy import SYSTEM, Entropy
from privfl.errors import DataError, Misuse
from privfl.learn import BoundData, Schema, Spec, Task
from privfl.runtime.coordinator import CoordinatorNode
from privfl.runtime.fit import Fit
from privfl.runtime.progress import RunProgress
from privfl.runtime.run import Observer, Outcome, Run, Setting, Stage
from privfl.runtime.shelves import MemoryShelf
from privfl.runtime.site import SiteNode
from privfl.runtime.store import MemorySiteStore
from privfl.runtime.terms import Terms
from privfl.runtime.training import TrainingRun
from privfl.secagg.party import Party
from privfl.tasks import FrameSource, Price, SiteData
from privfl.wires import Faults, MemoryWire

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Federation", "Kill", "Observer"]

log = logging.getLogger("privfl.federation")
VALIDITY_MS = 365 * 24 * 3600 * 1000


O = TypeVar("O", bound=Outcome)  # noqa: E741 - an outcome
O_co = TypeVar("O_co", bound=Outcome, covariant=True)


class Runnable(Protocol[O_co]):
    """A question that can be run by itself, such as a compiled study."""

    @property
    def stages(self) -> int:
        """Rounds it takes if nothing is repeated."""
        ...

    @property
    def releases(self) -> Sequence[Release]:
        """What one upload of each stage reveals, those of the widest trust first; empty without noise."""
        ...

    def prices(self) -> Sequence[Price]:
        """See :class:`privfl.tasks.Question`."""
        ...

    def check(self, data: SiteData) -> None:
        """See :class:`privfl.tasks.Question`."""
        ...

    def begin(self, stage: Stage, setting: Setting, observer: Observer | None = None) -> Run[O_co]:
        """A run from its beginning."""
        ...


class Askable(Protocol[O_co]):
    """What :meth:`Federation.ask` takes."""

    def compile(
        self,
        schema: Schema,
        *,
        epsilon: float | None,
        delta: float | None,
        sites: int,
        trust: Trust | str,
        unit: Unit | str | None,
        min_survivors: int | None,
        colluders: int,
        attempts: int,
    ) -> Runnable[O_co]:
        """Fix every public number."""
        ...


@dataclass(frozen=True)
class Kill:
    """End a site's process in the middle of a round; it restarts from its store before the next attempt.

    ``at`` is where: after its budget is ``reserved``, the slot ``accepted``, the vector ``computed``, or
    the upload ``stored`` but not sent.
    """

    site: str
    round: int
    at: Literal["reserved", "accepted", "computed", "stored"] = "accepted"


class _Killed(BaseException):
    """The process is gone: nothing of the protocol may catch this."""


@dataclass
class _Site:
    """What survives of a site when its node is killed: key, data, store, account."""

    name: str
    key: SigningKey
    data: SiteData
    store: MemorySiteStore = field(default_factory=MemorySiteStore)
    account: MemoryAccount | None = None  # opened by each run
    node: SiteNode | None = None


class Federation:
    """Sites that train one model together; build one with :meth:`local`."""

    def __init__(
        self,
        sites: Mapping[str, SiteData | BoundData],
        schema: Schema,
        *,
        colluders: int | Literal["no site colludes"] | None = None,
        entropy: Entropy = SYSTEM,
        clock: Clock | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.schema, self._entropy, self._clock = schema, entropy, clock or SystemClock()
        self._wire, self._shelf = MemoryWire(faults), MemoryShelf()
        self._authority, coordinator = SigningKey.generate(entropy), SigningKey.generate(entropy)
        made = [
            _Site(name, SigningKey.generate(entropy), SiteData.of(rows) if isinstance(rows, BoundData) else rows)
            for name, rows in sites.items()
        ]
        self._sites = {site.key.verify_key.site_id: site for site in made}
        now = self._clock.now()
        members = [Member(site.name, site.key.verify_key.raw, ("site",)) for site in made]
        members.append(Member("coordinator", coordinator.verify_key.raw, ("coordinator",)))
        self.roster = Roster.create(
            "local",
            members,
            graph_seed=entropy.draw(32),
            valid_from=now,
            valid_until=now + VALIDITY_MS,
            corrupt_bound=colluders,
        )
        party = Party(coordinator, self.roster)
        self._coordinator = CoordinatorNode(
            party,
            self.roster.sign(self._authority),
            self._wire.mailbox(party.id),
            self._shelf,
            self._clock,
            entropy,
            quiet=True,
        )
        self._kills: list[Kill] = []
        self._past: list[tuple[Release | None, int]] = []  # what earlier runs released, and how often
        self._wire.work = self._work

    @classmethod
    def local(
        cls,
        sites: Mapping[str, pd.DataFrame] | Iterable[tuple[str, pd.DataFrame]],
        schema: Schema | Mapping[str, Any] | str | Path,
        *,
        colluders: int | Literal["no site colludes"] | None = None,
        entropy: Entropy = SYSTEM,
        faults: Faults | None = None,
    ) -> Federation:
        """Bind one table per site and enrol the sites under a fresh authority, all in this process.

        Args:
            sites: name → table, or pairs.
            schema: the public schema, or a mapping or YAML file that describes it.
            colluders: c, how many sites may collude with the coordinator; by default ⌊(N − 1)/3⌋, at least 1.
            entropy, faults: for tests.

        Raises:
            Misuse: fewer than three sites, or two of one name. DataError: a table does not fit the schema.

        >>> import privfl, pandas as pd
        >>> schema = {"records": 6, "columns": {"x": {"lower": 0, "upper": 1}, "ill": {"classes": [False, True]}}}
        >>> table = pd.DataFrame({"x": [0.1, 0.9], "ill": [False, True]})
        >>> privfl.Federation.local({"north": table, "south": table, "east": table}, schema=schema)
        Federation(3 sites: north, south, east; up to 1 may collude)
        """
        pairs = list(sites.items() if isinstance(sites, Mapping) else sites)
        check_names([name for name, _ in pairs])
        if len(pairs) == 2 and colluders is None:
            raise Misuse(
                "two sites only: each could take its own vector out of the sum and read the other's; enrol a third, "
                "or pass colluders='no site colludes' and trust='local' if both accept that"
            )
        found = _schema(schema)
        bound: dict[str, SiteData | BoundData] = {}
        complaints = []
        for name, table in pairs:
            try:
                bound[name] = SiteData.of(found.bind(table), FrameSource(table))
            except DataError as error:
                complaints.append(f"site {name}: {error}")
        if complaints:
            raise DataError("\n".join(complaints))
        return cls(bound, found, colluders=colluders, entropy=entropy, faults=faults)

    @property
    def names(self) -> tuple[str, ...]:
        """The sites' names, in the order given."""
        return tuple(site.name for site in self._sites.values())

    def train(
        self,
        spec: Spec,
        *,
        epsilon: float | None,
        delta: float | None = 1e-5,
        rounds: int = 30,
        trust: Trust | str = Trust.DISTRIBUTED,
        unit: Unit | str | None = None,
        mode: Literal["auto", "voted", "complete"] = "auto",
        min_survivors: int | None = None,
        attempts: int = 3,
        held_out: pd.DataFrame | None = None,
        bits: int | None = None,
        progress: bool = True,
        kills: Sequence[Kill] = (),
        observer: Observer | None = None,
    ) -> Fit:
        """Train one model under secure aggregation and noise.

        Args:
            spec: what to train, e.g. ``privfl.Logistic(label="malignant")``.
            epsilon, delta: the whole run's promise; None only for a specification that runs unprotected by name.
                Runs on the same tables add up: ``privacy.lifetime_epsilon`` of the result says to how much.
            rounds: uploads per site that the budget is spread over, repeated attempts included.
            trust: ``distributed`` (noise shared among the sites) or ``local`` (each site's own noise suffices).
            unit: of privacy; by default the specification's own, ``subject`` where the schema names the subject.
            mode: ``complete`` opens the sum of all sites or none; ``voted`` survives missing sites; ``auto`` is
                complete for three sites.
            min_survivors: least sites in a sum; by default the roster's (complete mode: all).
            attempts: tries per round, each charged.
            held_out: rows the caller holds itself, evaluated each round without noise.
            progress: show a progress bar, in a terminal or notebook.

        Raises:
            Misuse, Refused, BudgetExceeded, DataError: before anything is spent, with the next step.
            RoundAborted: the first round could not be opened. Later ones end the run instead.
        """
        complete, least = self._mode(mode, min_survivors, attempts)
        task = spec.compile(
            self.schema,
            epsilon=epsilon,
            delta=delta,
            rounds=rounds,
            trust=trust,
            unit=unit,
            sites=len(self._sites),
            min_survivors=least,
            colluders=self.roster.corrupt_bound,
            bits=bits,
        )
        for site in self._sites.values():
            task.check(site.data)
        if held_out is not None:
            task.evaluate(task.initial_state(), held_out)
        terms = self._terms(task, least, complete)
        setting = Setting(terms.hash, complete, least, attempts)
        run = TrainingRun(self._stage(terms), task, setting, held_out, observer)
        self._kills = list(kills)
        for kill in kills:
            if kill.site not in self.names:
                raise Misuse(f"there is no site {kill.site!r} to kill; sites are {', '.join(self.names)}")
        return self._carried_out(run, RunProgress(rounds) if progress else None)

    def ask(
        self,
        asked: Askable[O],
        *,
        epsilon: float | None,
        delta: float | None = 1e-5,
        trust: Trust | str = Trust.DISTRIBUTED,
        unit: Unit | str | None = None,
        mode: Literal["auto", "voted", "complete"] = "auto",
        min_survivors: int | None = None,
        attempts: int = 3,
        progress: bool = True,
        observer: Observer | None = None,
    ) -> O:
        """Ask a study of all sites under secure aggregation and noise.

        Args:
            asked: what to ask, e.g. a ``privfl_analytics.Study``.
            epsilon, delta: the promise for the whole study; a stage that has to be repeated is charged again.
            trust, unit, mode, min_survivors, attempts, progress: as for :meth:`train`.

        Returns:
            the study's result: an answer with an interval for each query, and what they cost.

        Raises:
            Misuse, Refused, BudgetExceeded, DataError: before anything is spent, with the next step.
            RoundAborted: the first round could not be opened.
        """
        if isinstance(asked, str | bytes | list | tuple) or not callable(getattr(type(asked), "compile", None)):
            raise Misuse("ask a study: federation.ask(Study('my-study', ('mean age', 'count by sex')), epsilon=...)")
        complete, least = self._mode(mode, min_survivors, attempts)
        question = asked.compile(
            self.schema,
            epsilon=epsilon,
            delta=delta,
            sites=len(self._sites),
            trust=trust,
            unit=unit,
            min_survivors=least,
            colluders=self.roster.corrupt_bound,
            attempts=attempts,
        )
        for site in self._sites.values():
            question.check(site.data)
        priced = question.prices()
        most = None  # the sites here agree to every repetition that was asked for
        if priced and delta is not None:
            own = Unit(question.releases[0].unit)
            total = sum((attempts * price.times * price.costs[own] for price in priced), ZERO_COST)
            most = epsilon_of_cost(total, delta)
        release = question.releases[0] if question.releases else None
        terms = _terms_of(most, delta, release, least, complete)
        setting = Setting(terms.hash, complete, least, attempts)
        run = question.begin(self._stage(terms), setting, observer)
        self._kills = []
        return self._carried_out(run, RunProgress(question.stages, "asking") if progress else None)

    def _carried_out(self, run: Run[O], shown: RunProgress | None) -> O:
        try:
            with shown or nullcontext() as bar:
                return run.run(bar)
        finally:  # an aborted run has spent as well
            self._past += [(release, times) for release, times in run.released() if times]

    def _mode(self, mode: str, min_survivors: int | None, attempts: int) -> tuple[bool, int]:
        complete = mode == "complete" or (mode == "auto" and len(self._sites) == 3)
        if mode not in ("auto", "voted", "complete"):
            raise Misuse(f"mode is {mode!r}; choose auto, voted or complete")
        if attempts < 1:
            raise Misuse("attempts must be at least 1")
        least = len(self._sites) if complete else (min_survivors or self.roster.default_min_survivors)
        self._check_least(least)
        return complete, least

    def _stage(self, terms: Terms) -> Stage:
        def tidy() -> None:
            self._shelf.clear()
            self._wire.forget_bodies()

        return Stage(
            self._coordinator,
            self._authority.verify_key,
            {key: site.name for key, site in self._sites.items()},
            self.spent,
            self._past,
            lambda: self._start_nodes(terms),
            lambda: self._revive(terms),
            self._shelf.bodies,
            tidy,
        )

    def _check_least(self, least: int) -> None:
        low, high = self.roster.corrupt_bound + 2, len(self._sites)
        if not low <= least <= high:
            raise Misuse(
                f"min_survivors {least} is outside [{low}, {high}]: at least two honest sites beyond "
                f"{self.roster.corrupt_bound} colluding ones must be in every sum, and no more than there are"
            )

    def _terms(self, task: Task, least: int, complete: bool) -> Terms:
        return _terms_of(task.plan.epsilon, task.plan.delta, task.release, least, complete)

    # -- the sites' side of the process ---------------------------------------------------------------

    def _start_nodes(self, terms: Terms) -> None:
        for site in self._sites.values():
            site.account = MemoryAccount(terms.limits())
            self._start(site, terms)

    def _start(self, site: _Site, terms: Terms) -> None:
        def checkpoint(name: str, round_: int) -> None:
            kill = Kill(site.name, round_, name)  # type: ignore[arg-type]
            if kill in self._kills:
                self._kills.remove(kill)  # a process dies once; what it does after its restart is another matter
                raise _Killed

        party = Party(site.key, self.roster)
        assert site.account is not None
        site.node = SiteNode(
            party,
            terms,
            site.account,
            site.data,
            site.store,
            self._wire.mailbox(party.id),
            self._clock,
            self._entropy,
            checkpoint,
        )

    def _work(self) -> None:
        """Let every living site take its turn."""
        for site in self._sites.values():
            if site.node is None:
                continue
            try:
                site.node.serve()
            except _Killed:
                site.node = None
                log.warning("site %s was killed", site.name)

    def _revive(self, terms: Terms) -> list[str]:
        dead = [site for site in self._sites.values() if site.node is None]
        for site in dead:
            self._start(site, terms)
        return [site.name for site in dead]

    def name_of(self, site: bytes) -> str:
        """The name of a site id."""
        return self._sites[site].name

    def spent(self) -> dict[str, float]:
        """ε that each site's own account shows for the last run, at the run's δ."""
        return {site.name: site.account.spent_epsilon() if site.account else 0.0 for site in self._sites.values()}

    def __repr__(self) -> str:
        return (
            f"Federation({len(self._sites)} sites: {', '.join(self.names)}; "
            f"up to {self.roster.corrupt_bound} may collude)"
        )


def _terms_of(epsilon: float | None, delta: float | None, release: Release | None, least: int, complete: bool) -> Terms:
    return Terms(
        "" if epsilon is None else repr(float(epsilon)),
        "" if delta is None or epsilon is None else repr(float(delta)),
        str(release.unit) if release else "site",
        str(release.trust) if release else "distributed",
        least,
        not complete,
        complete,
    )


def _schema(given: Schema | Mapping[str, Any] | str | Path) -> Schema:
    if isinstance(given, Schema):
        return given
    return Schema.from_dict(given) if isinstance(given, Mapping) else Schema.from_yaml(given)


def check_names(names: Sequence[str]) -> None:
    """Raise Misuse unless there are enough sites and every name is its own."""
    if any(not isinstance(name, str) for name in names):
        raise Misuse("a site's name is text; give every site a name, as in {'north': table}")
    folded = [name.casefold() for name in names]
    twice = sorted({name for name in names if folded.count(name.casefold()) > 1})
    if twice:
        raise Misuse(f"two sites are called {twice[0]!r}; give every site its own name")
    if len(names) < 2:
        what = "one site only" if names else "no sites"
        raise Misuse(f"{what}: a federation needs at least three, or there is nothing to hide a sum in")
