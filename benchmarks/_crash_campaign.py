"""A crash campaign: chapters of deaths, each in a federation of its own, each held to everything that was promised."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks._crash_checks import Evidence, Finding
from benchmarks._crash_child import read_tap
from benchmarks._crash_outcome import Chapter, Outcome
from benchmarks._crash_plan import AT_RANDOM, Doom, Plan, plain
from benchmarks._crash_world import COORDINATOR, World, founded
from privfl.budget.ledger_check import match_transcripts, read_ledger
from privfl.dp import Unit
from privfl.errors import PrivflError
from privfl.secagg import read_transcript, verify_transcript

__all__ = ["run_chapter"]

#: Seconds after which a doomed process that has not come to its point dies where it is.
OVERDUE, OVERDUE_SELDOM = 4.0, 8.0
LAST_ROUNDS = 4
STUCK = 60.0  # seconds without a death after which a chapter is given up


class _Run:
    """One chapter under way."""

    def __init__(self, chapter: Chapter, world: World, say: Callable[[int], None]) -> None:
        self.chapter, self.world, self._say = chapter, world, say
        self.outcome = Outcome()
        victims = [who for who in world.names if who != COORDINATOR]
        coordinator = COORDINATOR if chapter.coordinator else ""
        self.plan = Plan(chapter.seed, victims, coordinator, chapter.script, chapter.wanted)
        self._doomed: dict[str, tuple[Doom, float]] = {}  # and when a death at a random instant, or overdue, comes
        self._back: dict[str, float] = {}  # the dead: when they are started again
        self._last = time.monotonic()
        self._submitted = 0

    def begin(self) -> None:
        """Start everybody; and one undisturbed job, so that the plan knows what is passed without a death."""
        for who in self.world.names:
            self.world.start(who)
        if not self.chapter.rehearsed:
            return
        job = self.world.submit(LAST_ROUNDS)
        self._until(lambda: job.state().over, self.chapter.patience)
        if job.state().state != "done":
            self.outcome.stopped.append(f"the first job did not finish: {job.state().error}")
        self._learn()

    def kill(self) -> None:
        """Let processes die and come back until there were enough deaths."""
        self._last = time.monotonic()
        while not self._enough():
            self._jobs()
            for _ in range(20):
                if self._enough():
                    break
                self._bury()
                self._revive()
                self._strike()
                self._doom()
                time.sleep(0.005)
            if time.monotonic() - self._last > STUCK:
                self.outcome.stopped.append(f"nobody could be killed any more; down: {', '.join(self._back)}")
                break
        for fuse in self.world.fuses.values():
            fuse.disarm()
        self._doomed.clear()

    def recover(self) -> None:
        """Nobody dies any more: everything that was asked and one more job must come to its end."""
        self._back = dict.fromkeys(self._back, 0.0)
        self._bury()
        self._revive()
        job = self.world.submit(LAST_ROUNDS)
        over = self._until(lambda: all(one.state().over for one in self.world.jobs()), self.chapter.patience)
        done = len(list((job.result / "transcripts").glob("*.transcript"))) if over else 0
        self.outcome.finished = over and job.state().state == "done" and done == LAST_ROUNDS
        if not self.outcome.finished:
            self.outcome.stopped.append(f"the last job: {job.state().state} {job.state().error}, {done} rounds")

    def judge(self) -> None:
        """Stop everything, and hold all that was sent against the ledgers."""
        world, outcome = self.world, self.outcome
        world.end()
        ids = {member.name: member.site_id for member in world.roster.members}
        evidence = Evidence(world.roster, Unit(world.policy.unit))
        for who, tap in world.taps():
            evidence.take(ids[who], read_tap(tap))
        books = {}
        for site in world.trial.sites:
            try:
                books[ids[site]] = read_ledger(world.ledger(site), world.roster.member(ids[site]).key)
            except PrivflError as error:
                outcome.stopped.append(f"the ledger of {site} does not verify: {error}")
        found = sorted(world.trial.coordinator.glob("jobs/*/transcripts/*.transcript"))
        transcripts = [(path.name, read_transcript(path.read_bytes())) for path in found]
        for _, transcript in transcripts:
            verify_transcript(transcript, world.authority)
            evidence.opened(transcript)
        outcome.findings += evidence.judge(books)
        for id_, book in books.items():
            try:
                match_transcripts(book, transcripts)
            except PrivflError as error:
                outcome.findings.append(Finding("unaccounted", world.roster.member(id_).name, str(error)))
        outcome.rounds, outcome.uploads = len(transcripts), len(evidence.left)
        outcome.messages, outcome.restarts = evidence.messages, world.starts - len(world.names)

    # -- one turn of the loop -----------------------------------------------------------------------

    def _enough(self) -> bool:
        if self.outcome.kills < self.chapter.kills:
            return False
        return self.outcome.kills >= 2 * self.chapter.kills or not (self.chapter.wanted and self.plan.missing)

    def _jobs(self) -> None:
        """Rounds go on all the time; every fourth job demands all sites."""
        if all(job.state().over for job in self.world.jobs()[-2:-1]):  # the last one may not have been begun
            self._submitted += 1
            complete = self._submitted % 4 == 0
            self.world.submit(self.chapter.rounds, **({"mode": "complete", "min_survivors": None} if complete else {}))

    def _bury(self) -> None:
        """Note who has died, and hold the ledger that is left to what was promised of it."""
        for end in self.world.ended():
            self._buried(end.who, end.point, end.killed, end.error)

    def _buried(self, who: str, point: str, killed: bool, error: str) -> None:
        doom, _ = self._doomed.pop(who, (Doom(who), 0.0))
        self._last = time.monotonic()
        if not killed:
            line = f"{who} stopped by itself: {error}"
            if line not in self.outcome.stopped:  # twice for the same reason: it stays away
                self.outcome.stopped.append(line)
                self._back[who] = time.monotonic()
            return
        self.outcome.deaths[plain(point) or AT_RANDOM] += 1
        self.outcome.coordinator_kills += who == COORDINATOR
        self.plan.dead(who, point)
        self._back[who] = time.monotonic() + doom.absence
        self._say(self.outcome.kills)
        if who != COORDINATOR:
            try:
                read_ledger(self.world.ledger(who))
            except PrivflError as broken:
                self.outcome.stopped.append(f"the ledger of {who} does not verify after {point or 'a kill'}: {broken}")

    def _revive(self) -> None:
        now = time.monotonic()
        for who in [who for who, at in self._back.items() if at <= now]:
            del self._back[who]
            self.world.start(who)

    def _strike(self) -> None:
        """Kill from outside those whose random instant has come, or who did not come to their point in time."""
        now = time.monotonic()
        for who in [who for who, (_, at) in self._doomed.items() if at <= now and who in self.world.running]:
            self.outcome.overdue += bool(self._doomed[who][0].point)
            end = self.world.kill(who)
            self._buried(who, end.point, end.killed, end.error)

    def _doom(self) -> None:
        while len(self._doomed) + len(self._back) < max(2, self.chapter.sites - 2):  # the others see the rounds through
            free = [who for who in self.world.running if who not in self._doomed]
            doom = self.plan.next(free)
            if doom is None:
                return
            if doom.who not in free:
                continue
            now = time.monotonic()
            patience = OVERDUE if doom.often else OVERDUE_SELDOM
            self._doomed[doom.who] = (doom, now + (patience if doom.point else doom.wait))
            if not doom.point:
                continue
            if doom.at_start:  # which a running process has behind it
                end = self.world.kill(doom.who)
                self._buried(end.who, end.point, end.killed, end.error)
                del self._back[doom.who]
                self._doomed[doom.who] = (doom, now + patience)
            self.world.fuses[doom.who].arm(doom.point, doom.count)
            if doom.at_start:
                self.world.start(doom.who)
            self._learn()

    def _learn(self) -> None:
        for who in self.world.names:
            self.plan.learn(who, self.world.points(who))

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return True
            self._bury()
            self._revive()
            time.sleep(0.02)
        return condition()


def run_chapter(
    chapter: Chapter, folder: Path | None = None, say: Callable[[int], None] = lambda kills: None
) -> Outcome:
    """Run one chapter in a temporary folder below ``folder``; ``say`` is told the number of deaths so far."""
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="privfl-crashes-") as scratch,
        founded(Path(scratch), chapter.sites, chapter.faults, chapter.pace) as world,
    ):
        run = _Run(chapter, world, say)
        run.begin()
        run.kill()
        run.recover()
        run.judge()
        return run.outcome
