"""The same rounds over the memory wire in one process and over a real wire between processes, by turns."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._processes import Processes
from benchmarks._wires_realm import FEDERATION, Realm, Round
from benchmarks._wires_watch import Log, Span, Watched, account, gaps, watch_http
from privfl.runtime.coordinator import CoordinatorNode
from privfl.runtime.shelves import MemoryShelf
from privfl.runtime.store import MemorySiteStore
from privfl.wires import Mailbox, MemoryWire
from privfl.wires.folder import FolderWire
from privfl.wires.settings import AwsSettings, FolderSettings, Place, WireSettings

__all__ = ["Ends", "Memory", "Played", "furnished", "play", "settings_for"]

START_S = 60.0
_STOP = "stop"


@dataclass(frozen=True)
class Ends:
    """Opens the end of each member of a realm, as their own processes would."""

    settings: WireSettings
    realm: Realm
    folder: Path

    def open(self, at: int | None) -> Mailbox:
        """The end of site ``at``, or of the coordinator."""
        own = self.realm.coordinator_id if at is None else self.realm.ids[at]
        name, role = ("coordinator", "coordinator") if at is None else (f"site-{at:03}", "site")
        home = self.folder / name
        home.mkdir(parents=True, exist_ok=True)
        return self.settings.open(Place(own, name, role, FEDERATION, home))


def settings_for(kind: str, folder: Path, endpoint: str = "") -> WireSettings:
    """Of a wire that does not exist yet."""
    if kind == "folder":
        return FolderSettings(path=str(folder / "wire"))
    return AwsSettings(region="eu-central-1", bucket=f"privfl-{folder.name.lower()}", endpoint=endpoint)


def furnished(settings: WireSettings, realm: Realm) -> WireSettings:
    """Make what the wire is made of: a folder, or queues and a bucket."""
    if isinstance(settings, AwsSettings):
        _furnish_aws(settings, [realm.coordinator_id, *realm.ids])
    elif isinstance(settings, FolderSettings):
        FolderWire.create(settings.path)
    return settings


def _furnish_aws(settings: AwsSettings, members: list[bytes]) -> None:
    from privfl.wires.aws import names  # noqa: PLC0415 - an extra
    from privfl.wires.aws.session import clients  # noqa: PLC0415

    with closing(clients(settings, "benchmark")) as made:
        made.s3.create_bucket(
            Bucket=settings.bucket,
            CreateBucketConfiguration={"LocationConstraint": settings.region},  # type: ignore[typeddict-item]
        )
        for member in members:
            made.sqs.create_queue(
                QueueName=names.queue_name(settings, FEDERATION, member),
                Attributes={"VisibilityTimeout": str(settings.visibility)},
                tags=names.tags(FEDERATION, member),
            )


class Memory:
    """A realm over the memory wire, all in this process: what privfl itself computes, one after the other."""

    def __init__(self, realm: Realm) -> None:
        self.realm, self.wire, self._shelf = realm, MemoryWire(), MemoryShelf()
        self.stores = [MemorySiteStore() for _ in realm.ids]
        self.logs = [Log(member.hex()) for member in (realm.coordinator_id, *realm.ids)]
        watched = [Watched(self.wire.mailbox(bytes.fromhex(log.who)), log) for log in self.logs]
        self._sites = [realm.site(at, watched[at + 1], store) for at, store in enumerate(self.stores)]
        self.node = realm.coordinator(watched[0], self._shelf, quiet=True)
        self.phases = count_phases(self.node)
        self.wire.work = self._work
        self.rounds: list[Round] = []
        self._number = 0

    def _work(self) -> None:
        for site in self._sites:
            site.serve()

    def epoch(self) -> float:
        """Set keys up; returns the seconds."""
        began = time.monotonic()
        self.node.open_epoch(self.realm.ids)
        return time.monotonic() - began

    def round(self, *, warm_up: bool = False) -> None:
        """One round more; only one that warms up is not kept."""
        self._number += 1
        one = self.realm.round(self.node, self._number)
        self.rounds += [] if warm_up else [one]
        self._shelf.clear()
        self.wire.forget_bodies()

    def traffic(self) -> dict[str, float]:
        """See :func:`traffic`."""
        spans = [(one.began, one.ended) for one in self.rounds]
        return traffic(self.logs, self.phases, spans, self.realm.coordinator_id.hex())


def count_phases(node: CoordinatorNode) -> list[tuple[str, int, float]]:
    """From now on the (kind, messages, moment) of every request that the coordinator makes of many sites."""
    exchange, found = node.desk.exchange, list[tuple[str, int, float]]()

    def counted(kind: str, requests: Any, *rest: Any, **more: Any) -> dict[bytes, str]:
        found.append((kind, len(requests), time.monotonic()))
        return exchange(kind, requests, *rest, **more)

    node.desk.exchange = counted  # type: ignore[method-assign]
    return found


@dataclass(frozen=True)
class Played:
    """Rounds over one wire, and what every process wrote down."""

    epoch: Span
    rounds: list[Round]
    phases: list[tuple[str, int, float]]
    logs: list[Log]

    def spans(self) -> list[Span]:
        """Of the rounds."""
        return [(one.began, one.ended) for one in self.rounds]

    def shares(self) -> dict[str, float]:
        """Seconds of :func:`account`, means over the rounds, so that they still add up."""
        found = [account(self.logs, span) for span in self.spans()]
        return {name: statistics.fmean(one[name] for one in found) for name in found[0]}

    def gaps(self) -> list[float]:
        """See :func:`gaps`, of all rounds."""
        return [gap for span in self.spans() for gap in gaps(self.logs, span)]

    def traffic(self, coordinator: str) -> dict[str, float]:
        """See :func:`traffic`."""
        return traffic(self.logs, self.phases, self.spans(), coordinator)

    def operations(self) -> dict[str, dict[str, float]]:
        """Requests of one round by operation, means: how many, seconds in all, bytes each way."""
        found: dict[str, dict[str, float]] = {}
        for log in self.logs:
            for name, began, ended, up, down in log.requests:
                if any(a <= began and ended <= b for a, b in self.spans()):
                    one = found.setdefault(name, dict.fromkeys(("count", "seconds", "up", "down"), 0.0))
                    for key, value in zip(one, (1, ended - began, up, down), strict=True):
                        one[key] += value / len(self.rounds)
        return dict(sorted(found.items()))


def traffic(
    logs: Sequence[Log], phases: Sequence[tuple[str, int, float]], spans: Sequence[Span], coordinator: str
) -> dict[str, float]:
    """Of one round, means: phases, messages each way, and bytes (bodies as often as they were handed over)."""
    made = Counter[str]()
    for log in logs:
        way = "down" if log.who == coordinator else "up"
        for name, began, _, size in log.calls:
            if name in ("send", "put_body") and any(a <= began <= b for a, b in spans):
                made[f"messages_{way}"] += name == "send"
                made[f"bytes_{way}"] += size
    asked = sum(any(a <= at <= b for a, b in spans) for _, _, at in phases)
    return {"phases": asked / len(spans), **{name: count / len(spans) for name, count in sorted(made.items())}}


def _site(ends: Ends, at: int, logs: Path, stop: Path) -> None:
    log = Log(ends.realm.ids[at].hex())
    http = watch_http(log) if ends.settings.kind == "aws" else contextlib.nullcontext()
    with http, closing(Watched(ends.open(at), log)) as mailbox:
        node = ends.realm.site(at, mailbox)
        (stop.parent / f"up-{at}").touch()
        parent = os.getppid()
        while not stop.exists() and os.getppid() == parent:
            node.serve(500)
    log.write(logs)


@contextlib.contextmanager
def _sites(ends: Ends) -> Iterator[Path]:
    """Every site as a process of its own, until the block ends; then what they wrote lies in the folder yielded."""
    folder = ends.folder / "processes"
    logs = folder / "logs"
    logs.mkdir(parents=True)
    processes, stop = Processes(folder), folder / _STOP
    try:
        for at in range(ends.realm.sites):
            processes.start(f"site-{at}", lambda at=at: _site(ends, at, logs, stop))  # type: ignore[misc]
        _until(lambda: all((folder / f"up-{at}").exists() for at in range(ends.realm.sites)), processes)
        yield logs
        stop.touch()
        _until(lambda: len(list(logs.glob("*.json"))) == ends.realm.sites, processes)
    finally:
        stop.touch()
        processes.end()


def _until(there: Callable[[], bool], processes: Processes) -> None:
    until = time.monotonic() + START_S
    while not there():
        said = [processes.complaint(who) for who in processes.running]
        if time.monotonic() > until or any(said):
            raise RuntimeError(f"the sites' processes do not come up or end: {'; '.join(filter(None, said))}")
        time.sleep(0.01)


def play(ends: Ends, memory: Memory, rounds: int, say: Callable[[str], None]) -> Played:
    """Open an epoch and run ``rounds`` rounds, each followed by the same round over the memory wire.

    Raises:
        RuntimeError: a sum was wrong, a site was missing, or its process failed.
    """
    realm, shelf = ends.realm, MemoryShelf()
    log = Log(realm.coordinator_id.hex())
    found: list[Round] = []
    with ExitStack() as stack:
        logs = stack.enter_context(_sites(ends))
        if ends.settings.kind == "aws":
            stack.enter_context(watch_http(log))
        mailbox = Watched(ends.open(None), log)
        stack.callback(mailbox.close)
        node = realm.coordinator(mailbox, shelf)
        phases = count_phases(node)
        began = time.monotonic()
        node.open_epoch(realm.ids)
        epoch = began, time.monotonic()
        for number in range(1, rounds + 2):  # the first warms up
            say(f"{ends.settings.kind}, {realm.sites} sites: round {number} of {rounds + 1}")
            one = realm.round(node, number)
            shelf.clear()
            memory.round(warm_up=number == 1)
            found += [one] if number > 1 else []
    return Played(epoch, found, phases, [log, *Log.read(logs)])
