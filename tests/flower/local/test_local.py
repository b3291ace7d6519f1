"""Processes of a local Flower federation: they end with whoever started them, and what is wrong is said in words."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from cryptography import x509

from privfl.errors import Misuse, WireError
from privfl.flower.local import Finished, LocalFlower, RunFailed
from privfl.flower.local import children as children_module
from privfl.flower.local.certificates import make_certificates, make_node_key
from privfl.flower.local.children import Family, free_port
from privfl.flower.local.guard import family
from privfl.flower.local.runs import toml

PARENT = """
import sys, time
from pathlib import Path
from privfl.flower.local import LocalFlower, Node
with LocalFlower(Path(sys.argv[1]), [Node()], secure=False) as flower:
    print(flower.family.mark, flush=True)
    time.sleep(600)
"""
STUBBORN = (
    "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.setsid() if {} else 0; time.sleep(600)"
)


def gone(mark: str, seconds: float = 30.0) -> bool:
    until = time.monotonic() + seconds
    while family(mark):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_nothing_outlives_a_parent_that_was_killed(tmp_path: Path) -> None:
    """SuperLink, SuperNode and what these have started end although nobody was there to end them."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        mark = parent.stdout.readline().strip()
        assert len(family(mark)) >= 4  # SuperLink, SuperNode, and a SuperExec of each
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
    assert gone(mark)


def test_a_family_ends_with_grandchildren_in_sessions_of_their_own(tmp_path: Path) -> None:
    """A grandchild that has left the group, the session and heeds no SIGTERM is found by its environment."""
    made = Family(tmp_path, {})
    start = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {STUBBORN.format(1)!r}])"
    grand = f"{start}; time.sleep(600)"
    child = made.start("one", [sys.executable, "-c", grand])
    other = made.start("one-more", [sys.executable, "-c", STUBBORN.format(0)])
    child.await_(lambda: len(family(f"{made.mark}/one/")) == 2, 30)
    made.kill(child, whole=True)
    assert family(f"{made.mark}/one/") == []
    assert other.alive, "a name that begins alike is another process"
    made.end([child, other])
    assert gone(made.mark)


def test_a_process_that_ends_at_once_is_told_with_its_log(tmp_path: Path) -> None:
    """Not a time-out: the exit code and the last words."""
    made = Family(tmp_path, {})
    try:
        child = made.start("brief", [sys.executable, "-c", "print('no such address'); raise SystemExit(3)"])
        with pytest.raises(WireError, match=r"brief ended with code 3:\nno such address"):
            child.await_(lambda: False, 30)
    finally:
        made.end([])


def test_no_process_is_told_to_send_statistics_or_to_use_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a Flower home of its own."""
    monkeypatch.setenv("https_proxy", "http://proxy.invalid")
    made = Family(tmp_path, {})
    try:
        one, two = made.environment("one"), made.environment("two")
    finally:
        made.end([])
    assert (one["FLWR_TELEMETRY_ENABLED"], one["FLWR_DISABLE_UPDATE_CHECK"]) == ("0", "1")
    assert "https_proxy" not in one
    assert one["FLWR_HOME"] != two["FLWR_HOME"]


def test_certificates_hold_for_the_loopback_address_and_keys_are_for_the_owner(tmp_path: Path) -> None:
    """The server's certificate is the authority's, names address and host; the authority's key was never written."""
    made = make_certificates(tmp_path / "tls")
    authority, server = (x509.load_pem_x509_certificate(path.read_bytes()) for path in (made.authority, made.server))
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert str(names.get_values_for_type(x509.IPAddress)[0]) == "127.0.0.1"
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    ssl.create_default_context(cafile=str(made.authority))
    node = make_node_key(tmp_path / "node")
    assert node.read_text().startswith("ecdsa-sha2-nistp384 ")
    assert {path.stat().st_mode & 0o777 for path in (made.key, tmp_path / "node")} == {0o600}
    assert sorted(path.name for path in (tmp_path / "tls").iterdir()) == ["ca.pem", "server.key", "server.pem"]


def test_values_reach_flower_unharmed() -> None:
    """Blanks, quotes, other scripts and backslashes survive the table that Flower reads."""
    values = {"privfl-site": "/a b/'c\"\\d/ä", "partition-id": 7, "share": 0.5, "yes": True}
    assert tomllib.loads(toml(values)) == values
    with pytest.raises(Misuse, match="no key of a Flower configuration"):
        toml({"a b": 1})


def test_flower_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install; nothing is made."""
    monkeypatch.setattr(children_module.shutil, "which", lambda name, path: None)
    with pytest.raises(Misuse, match=r'pip install "privfl\[flower\]"'):
        LocalFlower(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_without_an_app_is_refused(tmp_path: Path) -> None:
    """Before anything is asked of SuperLink."""
    with pytest.raises(Misuse, match="holds no Flower app"):
        LocalFlower(tmp_path / "flower").start_run(tmp_path)


def test_a_failed_run_has_an_exit_code_and_its_log() -> None:
    """A run that was stopped or failed never counts as done."""
    ended = Finished("7", "finished:failed", "oops", "what it wrote", 1.0, 0, 0)
    assert ended.code == RunFailed.exit_code == 6
    assert str(RunFailed(ended)) == "Flower run 7 ended as finished:failed: oops\nwhat it wrote"


def test_free_ports_are_free_and_below_the_ephemeral_range() -> None:
    """So that an outgoing connection of another process does not take one between its choice and its use."""
    assert all(12_000 <= free_port() < 32_000 for _ in range(20))
