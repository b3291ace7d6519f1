"""A process that is only the coordinator: what its memory rises by while it takes in a slot and opens it.

Example::

    python -m benchmarks._secagg_memory FOLDER

``FOLDER`` holds a spool and what :func:`leave` wrote. Bodies, blobs and releases go into files.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from privfl_keys import SignedRoster, SigningKey

from benchmarks._secagg_round import Slot, Spool, run_pass
from benchmarks._secagg_world import FileShelf
from privfl.entropy import SYSTEM
from privfl.secagg import CoordinatorMachine
from privfl.secagg.party import Party

_STATUS = Path("/proc/self/status")
_REFS = Path("/proc/self/clear_refs")


def leave(slot: Slot) -> None:
    """Write beside the spool what another process needs to be this slot's coordinator."""
    folder = slot.spool.folder
    (folder / "dump").write_bytes(slot.dump)
    (folder / "roster").write_bytes(slot.world.signed.encode())
    (folder / "key").write_bytes(slot.world.coordinator_key.secret_bytes())
    np.save(folder / "sum.npy", slot.expected)


def load(folder: Path) -> tuple[CoordinatorMachine, Spool]:
    """The coordinator as it stood before the first upload; its store lies under ``folder``."""
    signed = SignedRoster.decode((folder / "roster").read_bytes())
    party = Party(SigningKey.from_secret_bytes((folder / "key").read_bytes()), signed.roster)
    store = Path(tempfile.mkdtemp(dir=folder))
    machine = CoordinatorMachine.load(party, signed, SYSTEM, FileShelf(store), (folder / "dump").read_bytes())
    return machine, Spool(folder)


def peak_of(folder: Path) -> float:
    """Run this module on ``folder`` in a fresh process; returns the rise in MiB."""
    command = [sys.executable, "-m", "benchmarks._secagg_memory", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    result = json.loads(done.stdout)
    if not result["bit_exact"]:
        raise AssertionError("the coordinator in the separate process opened another sum")
    return float(result["peak_mb"])


def _peak_kib() -> int:
    """The peak since :func:`_reset`; where the system cannot say, the peak since the process began."""
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // 1024 if sys.platform == "darwin" else most


def _reset() -> None:
    """Forget the peak so far: Linux hands a parent's peak down to the child in ``ru_maxrss``."""
    gc.collect()
    if _REFS.exists():
        _REFS.write_text("5")


def main(arguments: list[str] | None = None) -> None:
    """Print ``peak_mb`` and ``bit_exact`` as one JSON object."""
    folder = Path((arguments or sys.argv[1:])[0])
    expected = np.load(folder / "sum.npy", mmap_mode="r")
    _reset()
    before = _peak_kib()
    machine, spool = load(folder)
    _, values = run_pass(machine, spool)
    peak = _peak_kib() - before
    print(json.dumps({"peak_mb": round(peak / 1024, 1), "bit_exact": bool(np.array_equal(values, expected))}))


if __name__ == "__main__":
    main()
