"""The shipped app under Flower's simulation engine: a federation of virtual sites trains, and its rounds verify.

Ray looks for addresses outside this computer when it starts, so it runs in a network namespace that has loopback and
nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from privfl_keys import VerifyKey

from privfl.errors import Misuse
from privfl.flower.simulation import main, simulate
from privfl.secagg import read_transcript, verify_transcript

ROOT = Path(__file__).parents[3]
APP = ROOT / "examples" / "flower-federation"
#: A network of its own with loopback only, and processes that all end with the first.
ALONE = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
LOOPBACK = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
LARGE = "PRIVFL_SIM_LARGE"


def _why_not() -> str:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "no unshare or ip here, so Ray could not be kept from the network"
    tried = subprocess.run([*ALONE, *LOOPBACK, "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"no network namespace may be made here: {tried.stderr.strip()}"


def simulated(folder: Path, sites: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Run the module as a command in a namespace; what it says."""
    if why := _why_not():
        pytest.skip(why)
    command = [sys.executable, "-m", "privfl.flower.simulation", str(folder), str(APP)]
    command += ["--sites", str(sites), "--rounds", str(rounds)]
    ran = subprocess.run(
        [*ALONE, *LOOPBACK, *command], cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


def verified(folder: Path, said: dict[str, Any]) -> int:
    """Verify every transcript of the result; how many there are."""
    authority = VerifyKey(bytes.fromhex((folder / "federation" / "authority" / "authority.pub").read_text()))
    paths = sorted((Path(said["result"]) / "transcripts").glob("*.transcript"))
    for path in paths:
        verify_transcript(read_transcript(path.read_bytes()), authority)
    return len(paths)


def test_eight_virtual_sites_train(tmp_path: Path) -> None:
    """``flwr run`` of the example over Ray: one round, opened and verified, charged in each site's own ledger."""
    said = simulated(tmp_path / "virtual", 8, 1, 600)
    assert (said["summary"]["rounds"], said["summary"]["dropped"]) == (1, {})
    assert verified(tmp_path / "virtual", said) == 1
    ledgers = list((tmp_path / "virtual" / "federation").glob("site-*/ledger/*.db"))
    assert len(ledgers) == 8


@pytest.mark.skipif(LARGE not in os.environ, reason=f"a hundred virtual sites take minutes; set {LARGE} to run them")
def test_a_hundred_virtual_sites_train(tmp_path: Path) -> None:
    """Two rounds of a hundred; whoever was late in one is named, and more than a third was there."""
    said = simulated(tmp_path / "virtual", 100, 2, 3600)
    assert said["summary"]["rounds"] == 2
    assert verified(tmp_path / "virtual", said) == 2


def test_too_few_virtual_sites_are_refused_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A readable message, exit code 2, and nothing was made."""
    assert main([str(tmp_path / "none"), str(APP), "--sites", "2"]) == 2
    assert "2 virtual sites; choose from 4 to 10000" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_missing_ray_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install, before anything is founded."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Misuse, match=r'pip install "flwr\[simulation\]"'):
        simulate(tmp_path / "none", APP)
    assert not (tmp_path / "none").exists()
