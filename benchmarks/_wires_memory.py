"""A process that is only the coordinator: what its memory rises by in a round of many sites over a real wire.

Example::

    python -m benchmarks._wires_memory FOLDER

``FOLDER`` holds what :func:`leave` wrote. The sites are real nodes in the process that started this one; they open
their end of the wire one after the other, each for its answer, so that their number costs no polling.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from privfl_keys import SignedRoster, SigningKey

from benchmarks._secagg_memory import _peak_kib, _reset
from benchmarks._wires_realm import Realm
from benchmarks._wires_round import Ends, Memory, furnished, settings_for
from privfl.codec import Record
from privfl.homes.state import MemoryState
from privfl.ring import Ring
from privfl.runtime.coordinator import CoordinatorNode
from privfl.runtime.shelves import FolderShelf
from privfl.runtime.store import MemorySiteStore
from privfl.wires import Delivery, Mailbox
from privfl.wires.settings import WireSettings, parsed

__all__ = ["World", "compare", "goal_mb", "measure"]

ANSWER_S = 300.0
_STAGES = {"ask-vote": "votes", "ask-release": "releases"}


@dataclass
class World:
    """A realm with its epoch: the sites' stores, and the coordinator's state, which each round brings on."""

    realm: Realm
    stores: list[MemorySiteStore]
    dump: bytes
    rounds: int = 0
    members: list[bytes] = field(default_factory=list)

    @classmethod
    def make(cls, sites: int, length: int) -> World:
        """Enrol everyone and set up keys over the memory wire."""
        realm = Realm.make(sites, length)
        memory = Memory(realm)
        memory.epoch()
        machine = memory.node.machine
        return cls(realm, memory.stores, machine.dump(), members=list(machine.record.members))


def leave(world: World, settings: WireSettings, folder: Path) -> None:
    """Write what another process needs to be the coordinator."""
    realm = world.realm
    (folder / "roster").write_bytes(realm.signed.encode())
    (folder / "key").write_bytes(realm.coordinator_key.secret_bytes())
    (folder / "dump").write_bytes(world.dump)
    about = {"wire": settings.stored(), "length": realm.length, "bits": realm.ring.bits, "round": world.rounds}
    (folder / "about.json").write_text(json.dumps(about))


def measure(world: World, kind: str, folder: Path, say: Callable[[str], None], endpoint: str = "") -> dict[str, Any]:
    """One round with every site of the world over a wire of this kind; returns what the coordinator's process says.

    Raises:
        RuntimeError: the coordinator failed, or a site was asked nothing.
    """
    folder.mkdir()
    realm = world.realm
    settings = furnished(settings_for(kind, folder, endpoint), realm)
    world.rounds += 1
    leave(world, settings, folder)
    command = [sys.executable, "-m", "benchmarks._wires_memory", str(folder)]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent
    )
    try:
        _feed(world, Ends(settings, realm, folder), child, lambda text: say(f"memory over {kind}: {text}"))
        out, err = child.communicate(timeout=ANSWER_S)
    finally:
        child.kill()
        child.wait()
    if child.returncode:
        raise RuntimeError(f"the coordinator's process failed: {err.strip()[-500:]}")
    world.dump = (folder / "dump").read_bytes()
    found: dict[str, Any] = json.loads(out)
    return found


def _feed(world: World, ends: Ends, child: subprocess.Popen[str], say: Callable[[str], None]) -> None:
    """Let every site upload, every member vote, and members release until the coordinator has ended."""
    places = {site: at for at, site in enumerate(world.realm.ids)}
    order = [places[site] for site in sorted(places)]
    members = [places[member] for member in world.members]
    for what, who in (("uploads", order), ("votes", members), ("releases", members)):
        for done, at in enumerate(who):
            say(f"{what}: {done} of {len(who)}")
            try:
                if not _served(world, ends, at, child):
                    return
            except RuntimeError as error:
                raise RuntimeError(f"{what}, {done} of {len(who)}: {error}") from None


def _served(world: World, ends: Ends, at: int, child: subprocess.Popen[str]) -> bool:
    """Whether a site has answered a request; it has not where the coordinator has ended."""
    until = time.monotonic() + ANSWER_S
    mailbox = ends.open(at)
    try:
        node = world.realm.site(at, mailbox, world.stores[at])
        while child.poll() is None:
            if node.serve(1000):
                return True
            if time.monotonic() > until:
                raise RuntimeError(f"site {at} was asked nothing within {ANSWER_S:.0f} s")
    finally:
        threading.Thread(target=mailbox.close).start()  # it waits for a poll on its way
    return False


def compare(sites: int, length: int, folder: Path, say: Callable[[str], None], endpoint: str) -> dict[str, Any]:
    """:func:`measure` over a folder and over S3."""
    say(f"memory: keys of {sites} sites")
    world = World.make(sites, length)
    kinds = {kind: measure(world, kind, folder / f"memory-{kind}", say, endpoint) for kind in ("folder", "aws")}
    return {"sites": sites, "dim": length, **kinds}


def goal_mb(length: int) -> float:
    """The most that the coordinator's peak may rise by, MiB; that of the memory benchmark of secure aggregation."""
    return 64 + 12 * length / 2**20


@dataclass
class _Peaks:
    """Peaks of memory by stage of a round, KiB: each stage begins where the last one ended."""

    node: CoordinatorNode
    mailbox: _Marked
    found: dict[str, int] = field(default_factory=dict)
    stage: str = "invitations"

    def __post_init__(self) -> None:
        exchange = self.node.desk.exchange

        def watched(kind: str, requests: Mapping[bytes, Record], *rest: Any, **more: Any) -> dict[bytes, str]:
            if kind == "announce":
                self.mailbox.after(len(requests), lambda: self.turn("uploads"))
            else:
                self.turn(_STAGES.get(kind, kind))
            return exchange(kind, requests, *rest, **more)

        self.node.desk.exchange = watched  # type: ignore[method-assign]

    def turn(self, stage: str) -> None:
        """Note the peak of the stage that ends, and begin ``stage``."""
        self.found[self.stage] = max(self.found.get(self.stage, 0), _peak_kib())
        self.stage = stage
        _reset()


class _Marked:
    """A mailbox that says when the first reply is waited for after everything was sent."""

    def __init__(self, inner: Mailbox) -> None:
        self._inner, self._left = inner, -1
        self._then: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def after(self, sends: int, then: Callable[[], None]) -> None:
        """Call ``then`` at the first :meth:`receive` after so many messages."""
        self._left, self._then = sends, then

    def send(self, recipient: bytes, data: bytes) -> None:
        self._inner.send(recipient, data)
        self._left -= self._left > 0

    def receive(self, wait_ms: int) -> Sequence[Delivery]:
        if self._left == 0:
            self._left = -1
            self._then()
        return self._inner.receive(wait_ms)


def main(arguments: list[str] | None = None) -> None:
    """Be the coordinator of one round; print what memory it took as one JSON object, MiB."""
    folder = Path((arguments or sys.argv[1:])[0])
    about = json.loads((folder / "about.json").read_text())
    signed = SignedRoster.decode((folder / "roster").read_bytes())
    key = SigningKey.from_secret_bytes((folder / "key").read_bytes())
    realm = Realm(signed, key, [], about["length"], Ring(about["bits"], 16 if about["bits"] <= 16 else 32))
    state = MemoryState()
    state.put({"machine": (folder / "dump").read_bytes()})
    _reset()
    bare = _peak_kib()
    with closing(Ends(parsed(about["wire"]), realm, folder).open(None)) as mailbox:
        _reset()
        opened = _peak_kib()
        marked = _Marked(mailbox)
        node = realm.coordinator(cast("Mailbox", marked), FolderShelf(folder / "shelf"), state=state)
        peaks = _Peaks(node, marked)
        began = time.monotonic()
        result = realm.opened(node, about["round"])
        seconds = time.monotonic() - began
        peaks.turn("")
    (folder / "dump").write_bytes(node.machine.dump())
    rise = {stage: _mb(kib - opened) for stage, kib in peaks.found.items()}
    said = {
        "bare_mb": _mb(bare),
        "wire_mb": _mb(opened - bare),
        "peak_mb": max(rise.values()),
        "rise_mb": rise,
        "survivors": len(result.survivors),
        "bit_exact": realm.exact(result, realm.question.model(about["round"])),
        "seconds": round(seconds, 2),
    }
    print(json.dumps(said))


def _mb(kib: int) -> float:
    return round(kib / 1024, 1)


if __name__ == "__main__":
    main()
