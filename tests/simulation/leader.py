"""The coordinator's driver: keeps asking until answers come, closes, gives up, tries again, opens new epochs.

Where it stands in a slot is read off the machine's stored state, so a restart loses only impatience:
which epoch phase it was in, who has said that it joined, and since when it has been waiting.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from privfl.errors import PrivflError, RoundAborted
from privfl.secagg import CoordinatorMachine, OpenedSum, SlotPlan, Transcript
from privfl.secagg.coordinator_machine import shelf_name
from privfl.secagg.messages import (
    ABORT,
    Advert,
    Announcement,
    Ask,
    Confirmations,
    Contribution,
    Header,
    Release,
    Upload,
    Vote,
    survivors_hash,
)
from tests.simulation.nodes import COORDINATOR, Disk, Envelope, Send, Step, number, pack

__all__ = ["CoordinatorNode", "Result"]

TICK = 300  # between two looks at the clock
PATIENCE = 1_000  # for one phase
DEADLINE = 4_000  # of a slot, after its announcement
ATTEMPTS_PER_EPOCH = 2
KEPT_DUMPS = 16


@dataclass(frozen=True)
class Result:
    """One opened slot, as it was stored."""

    announcement: Announcement
    opened: OpenedSum
    transcript: Transcript


@dataclass
class Waiting:
    """What is in memory only."""

    since: int = 0
    phase: str = ""
    answered: set[bytes] = field(default_factory=set)


class CoordinatorNode:
    """The coordinator's disk (state, shelf, results) and its machine while it runs."""

    def __init__(
        self,
        disk: Disk,
        load: Callable[[bytes], CoordinatorMachine],
        plan: Callable[[CoordinatorMachine, int, tuple[bytes, ...], int], SlotPlan],
        sites: tuple[bytes, ...],
        rounds: int,
    ) -> None:
        self.disk, self._load, self._plan, self.sites, self.rounds = disk, load, plan, sites, rounds
        self.index, self.skew, self.delay, self.up = COORDINATOR, 0, 0, True
        self.machine = load(disk.dump)
        self.waiting, self.joined = Waiting(), set[bytes]()
        self.results: list[Result] = []  # on disk, as is what follows
        self.lost: set[int] = set()  # rounds without noise that cannot be tried again
        self._notes: list[Result | int] = []  # of the step in hand
        self.announced: list[tuple[int, Announcement]] = []  # for the reader of a run
        self.failures = 0
        self.epoch_wanted = 0
        self.old_dumps: list[bytes] = []
        self.lie: random.Random | None = None
        self.noiseless = False

    # --- life and death ---------------------------------------------------------------------------

    def restart(self) -> Envelope | None:
        """Come up again from the disk; the next tick goes on from there."""
        self.machine, self.up = self._load(self.disk.dump), True
        self.waiting, self.joined, self.failures = Waiting(), set(), 0
        return None

    def reload(self) -> None:
        """Replace the machine by its own dump; the running sum is added up again from the shelf."""
        dump = self.machine.dump()
        self.machine = self._load(dump)
        assert self.machine.dump() == dump, "a state does not survive being dumped and loaded"

    def fork(self, steps: int) -> None:
        """Go back in time by ``steps`` stores: an untrusted coordinator may."""
        if self.old_dumps:
            self.disk.dump = self.old_dumps[max(0, len(self.old_dumps) - steps)]
            self.restart()

    def store(self, step: Step) -> None:
        """One transaction."""
        if step.dump is not None:
            self.old_dumps = [*self.old_dumps, self.disk.dump][-KEPT_DUMPS:]
            self.disk.dump = step.dump
        self.results += [note for note in step.notes if isinstance(note, Result)]
        self.lost |= {note for note in step.notes if isinstance(note, int)}

    @property
    def finished(self) -> bool:
        """Whether every round is opened or, without noise, lost."""
        return len({r.announcement.round for r in self.results} | self.lost) >= self.rounds

    # --- receiving --------------------------------------------------------------------------------

    def step(self, envelope: Envelope, now: int) -> Step:
        """Take one message or tick; then do what can be done now."""
        before, self._notes = self.machine._state, []
        step = Step(notes=self._notes)
        if envelope.kind != "tick":
            try:
                self._take(envelope)
            except PrivflError as error:
                step.refused = error
        sends = [] if envelope.kind != "tick" and not self._ready() else list(self._drive(now, envelope.kind == "tick"))
        # states are values: the same object is the same state
        step.dump, step.sends = None if self.machine._state is before else self.machine.dump(), sends
        return step

    def _take(self, envelope: Envelope) -> None:
        m, parts = self.machine, envelope.parts
        site = self.sites[number(parts[0]) % len(self.sites)] if parts else b""
        match envelope.kind, parts[1:]:
            case "ahead", (epoch,):
                self.epoch_wanted = max(self.epoch_wanted, min(number(epoch), 10_000))
            case "advert", (advert,):
                m.receive_advert(Advert.decode(advert))
            case "contributions", contributions:
                m.receive_contributions([Contribution.decode(one) for one in contributions])
                self.waiting.answered.add(site)
            case "confirmations", (message,):
                m.receive_confirmations(Confirmations.decode(message))
                self.waiting.answered.add(site)
            case "joined", (digest,):
                if m.record.digest == digest:
                    self.joined.add(site)
            case "upload", (message, body):
                m.receive(Upload.decode(message), body)
            case "vote", (vote,):
                m.receive_vote(Vote.decode(vote))
            case "release", (release,):
                m.receive_release(Release.decode(release))

    def _ready(self) -> bool:
        """Whether what was just received lets the next thing happen before the next tick."""
        state = self.machine.slot
        if self.waiting.phase in ("adverts", "contributions", "confirmations"):
            return self._answered(self.waiting.phase) >= self._asked(self.waiting.phase)
        if self.waiting.phase == "joining":
            return self.joined >= set(self.machine.record.sites)
        if state.stage == "collecting":
            return len(state.headers) == len(state.current().sites)
        return state.stage == "releasing"

    # --- acting -----------------------------------------------------------------------------------

    def _enter(self, phase: str, now: int) -> None:
        self.waiting = Waiting(now, phase)

    def _drive(self, now: int, tick: bool) -> Iterable[Send]:
        if self.finished:
            return ()
        if self.waiting.phase in ("adverts", "contributions", "confirmations"):
            return self._epoch_phase(now)
        try:
            record = self.machine.record
        except PrivflError:
            return self._new_epoch(now)
        if self.waiting.phase == "":  # freshly started: say the record again, and learn who is there
            self._enter("joining", now)
        if self.waiting.phase == "joining":
            if not self.joined >= set(record.sites) and now < self.waiting.since + PATIENCE:
                return self._say_record(record.sites)
            if len(self.joined) < self._least():
                return self._new_epoch(now)
            self._enter("slots", now)
        handler: Callable[[int, bool], Iterable[Send]] = getattr(self, f"_when_{self.machine.slot.stage}")
        return handler(now, tick)

    def _least(self) -> int:
        return max(self.machine.party.roster.default_min_survivors, 2)

    def _to(self, sites: Iterable[bytes], kind: str, *parts: object) -> list[Send]:
        return [pack(self.sites.index(site), kind, *parts) for site in sites]  # type: ignore[arg-type]

    def _new_epoch(self, now: int) -> list[Send]:
        last = max(self.machine._state.epoch, self.epoch_wanted)
        if self.machine.slot.stage in ("collecting", "voting", "releasing"):
            self.machine.abandon()
        self.failures, self.joined = 0, set()
        scope = self.machine.start_epoch(last + 1)
        self._enter("adverts", now)
        return self._to(self.sites, "epoch", scope)

    def _asked(self, phase: str) -> set[bytes]:
        return set(self.sites) if phase == "adverts" else {advert.site for advert in self.machine.adverts}

    def _answered(self, phase: str) -> set[bytes]:
        return {advert.site for advert in self.machine.adverts} if phase == "adverts" else self.waiting.answered

    def _epoch_phase(self, now: int) -> list[Send]:
        m, phase = self.machine, self.waiting.phase
        if self.epoch_wanted > m._state.epoch:
            return self._new_epoch(now)
        if self._answered(phase) >= self._asked(phase) or now >= self.waiting.since + PATIENCE:
            if len(m.adverts) < self._least():
                return self._new_epoch(now)
            phase = {"adverts": "contributions", "contributions": "confirmations", "confirmations": "joining"}[phase]
            if phase == "joining":
                try:
                    m.fix_record()
                except PrivflError:
                    return self._new_epoch(now)
            self._enter(phase, now)
        missing = self._asked(phase) - self._answered(phase)
        if phase == "adverts":
            return self._to(missing, "epoch", m._scope())
        if phase == "contributions":
            return self._to(missing, "adverts", *m.adverts)
        if phase == "confirmations":
            return [send for site in missing for send in self._to([site], "inbox", *m.contributions_for(site))]
        return self._say_record(m.record.sites)

    def _say_record(self, sites: Iterable[bytes]) -> list[Send]:
        record, confirmations = self.machine.fix_record()
        return self._to((site for site in sites if site not in self.joined), "record", record, *confirmations)

    # --- slots ------------------------------------------------------------------------------------

    def _when_idle(self, now: int, _: bool) -> list[Send]:
        return self._announce(now)

    def _announce(self, now: int) -> list[Send]:
        m, last = self.machine, self.machine.slot.announcement
        done = {result.announcement.round for result in self.results} | self.lost
        target = next(number for number in range(1, self.rounds + 1) if number not in done)
        attempt = last.attempt + 1 if last is not None and last.round == target else 0
        same_epoch = last is not None and last.record == m.record.digest
        if self.noiseless and attempt and not same_epoch:
            self._notes.append(target)  # an ABORT certificate is of its epoch; the question stays answered
            return []
        here = tuple(site for site in m.record.sites if site in self.joined)
        plan = self._plan(m, target, here, now + DEADLINE)
        try:
            announcement = m.announce(plan, (target, attempt))
        except PrivflError:
            return self._new_epoch(now)
        self.announced.append((now, announcement))
        self._enter("slots", now)
        return self._to(announcement.sites, "announcement", announcement)

    def _when_collecting(self, now: int, _: bool) -> list[Send]:
        m, a = self.machine, self.machine.slot.current()
        here = {header.site for header in m.slot.headers}
        if len(here) == len(a.sites) or now >= self.waiting.since + PATIENCE:
            try:
                m.close()
                return self._ask(now)
            except RoundAborted:
                if now > a.deadline - PATIENCE:
                    return self._give_up(now)
        return self._to((site for site in a.sites if site not in here), "announcement", a)

    def _when_voting(self, now: int, _: bool) -> list[Send]:
        return self._ask(now) if now <= self.machine.slot.current().deadline else self._give_up(now)

    def _ask(self, now: int) -> list[Send]:
        del now
        state = self.machine.slot
        kind = "release" if state.certified else "vote"
        heard = {note.member for note in state.releases} if state.certified else {vote.member for vote in state.votes}
        members = [member for member in self.machine.record.members if member not in heard]
        return [send for member in members for send in self._to([member], kind, self._request(member))]

    def _request(self, member: bytes) -> Ask:
        """What the machine asks of a member, or, lying, the same about another survivor set."""
        ask = self.machine.ask(member)
        if self.lie is None or self.lie.random() < 0.3:
            return ask
        least = ask.announcement.min_survivors
        everyone: list[Header] = list(self.machine.slot.headers)
        size = self.lie.randint(min(least, len(everyone)), len(everyone))
        headers = sorted(self.lie.sample(everyone, size), key=lambda header: header.site)
        choice = survivors_hash(ask.announcement.h0, headers)
        at = self.machine.record.members.index(member)
        blobs = tuple(self.machine._fetch(f"{shelf_name(header)}/blob/{at}") for header in headers)
        votes = tuple(vote for vote in self.machine.slot.votes if vote.choice == choice)
        return Ask(ask.announcement, tuple(headers), blobs, votes or ask.votes)

    def _when_releasing(self, now: int, tick: bool) -> list[Send]:
        m, a = self.machine, self.machine.slot.current()
        if len(m.slot.releases) >= a.threshold:
            try:
                opened, transcript = m.finish()
                self._notes.append(Result(a, opened, transcript))
                return []
            except RoundAborted:
                pass
        if now > a.deadline:
            return self._give_up(now)
        if self.waiting.phase != "releasing":
            self._enter("releasing", now)
            return self._ask(now)
        return self._ask(now) if tick else []

    def _give_up(self, now: int) -> list[Send]:
        self.machine.abandon()
        self.failures += 1
        self._enter("slots", now)
        return []

    def _when_aborted(self, now: int, tick: bool) -> list[Send]:
        m, a = self.machine, self.machine.slot.current()
        if self.noiseless and a.record == m.record.digest and a.round not in self.lost:
            votes = [vote for vote in m.slot.votes if vote.choice == ABORT]
            if len(votes) < m.record.threshold:
                if now >= self.waiting.since + 4 * PATIENCE:
                    self._notes.append(a.round)
                    return []
                heard = {vote.member for vote in m.slot.votes}
                return self._to((one for one in m.record.members if one not in heard), "abort", a) if tick else []
        if self.failures >= ATTEMPTS_PER_EPOCH:
            return self._new_epoch(now)
        return self._announce(now)

    def _when_done(self, now: int, _: bool) -> list[Send]:
        return self._announce(now)
