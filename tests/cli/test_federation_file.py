"""``federation.yaml`` on the command line: printed, shown, tried, and taken wherever a wire is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from privfl.homes.config import CoordinatorConfig, SiteConfig
from privfl.wires import FolderWire
from privfl.wires.settings import FlowerSettings, read_federation
from tests.cli.support import Ran, called

Command = Callable[..., Ran]


@pytest.fixture
def wire(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """``privfl wire`` in this process."""
    return lambda *args: called(capfd, monkeypatch, "wire", *args)


@pytest.mark.parametrize("kind", ["folder", "aws", "flower"])
def test_an_example_is_a_file_to_begin_with(kind: str, wire: Command, tmp_path: Path) -> None:
    """What is printed can be sent into a file and read; nothing else is printed."""
    ran = wire("example", kind, "--federation", "heart")
    assert (ran.code, ran.err) == (0, "")
    path = tmp_path / "federation.yaml"
    path.write_text(ran.out)
    found = read_federation(path)
    assert (found.federation, found.wire.kind) == ("heart", kind)


@pytest.mark.parametrize("name", ["Heart Trial", "2026", "yes", "3.14", "A_" * 31 + "B2", "2026-01-01", "x @ y"])
@pytest.mark.parametrize("kind", ["folder", "aws", "flower"])
def test_an_example_for_any_name(kind: str, name: str, wire: Command, tmp_path: Path) -> None:
    """Whatever a federation may be called, what is printed can be read and is of that federation."""
    path = tmp_path / "federation.yaml"
    path.write_text(wire("example", kind, "--federation", name).out)
    assert read_federation(path).federation == name


def test_examples_of_nothing(wire: Command) -> None:
    """A kind that is none, and a name that no federation can have."""
    wire("example", "pigeon").failed(2, "pigeon")
    wire("example", "aws", "--federation", "a/b").failed(2, "no usable name")


def test_show_a_file(wire: Command, tmp_path: Path) -> None:
    """Which kind, where, what it needs, and whether it can be used: before and after the folder is there."""
    path = tmp_path / "federation.yaml"
    path.write_text(wire("example", "folder", "--federation", "heart").out)
    ran = wire("show", path).failed(2, "no privfl wire folder", "privfl wire folder create")
    assert "cannot be used" in ran.out
    assert json.loads(wire("show", path, "--json").out)["usable"] is False
    FolderWire.create(tmp_path / "wire")
    ran = wire("show", path)
    assert (ran.code, ran.err) == (0, "")
    flat = " ".join(ran.out.replace("│", " ").split())
    for words in ("the wire of heart", "kind folder", "named in", "can be used:", "privfl wire folder create PATH"):
        assert words in flat, flat
    found = json.loads(wire("show", path, "--json").out)
    assert (found["federation"], found["kind"], found["usable"]) == ("heart", "folder", True)
    assert found["settings"] == {"path": str(tmp_path / "wire")}


def test_show_a_flower_file_and_a_member_s_folder(wire: Command, tmp_path: Path) -> None:
    """The file alone says nothing of a member; with its folder its own end is tried."""
    path, home = tmp_path / "federation.yaml", tmp_path / "north"
    path.write_text("federation: heart\nwire: {kind: flower, poll: 5}\n")
    ran = wire("show", path)
    assert ran.code == 0
    assert "each member's part" in " ".join(ran.out.replace("│", " ").split())
    home.mkdir()
    SiteConfig(federation="heart", name="north", fingerprint="x", wire=FlowerSettings(poll=5)).write(home)
    found = json.loads(wire("show", home, "--json").out)
    assert (found["kind"], found["settings"]["poll"], found["usable"]) == ("flower", 5, True)
    assert found["named_in"] == str(home / "site.yaml")


def test_show_an_aws_file(wire: Command, tmp_path: Path) -> None:
    """Of the file alone it is said that it is right, or its field that is not; AWS is not asked."""
    path = tmp_path / "federation.yaml"
    path.write_text(wire("example", "aws").out)
    found = json.loads(wire("show", path, "--json").out)
    assert (found["kind"], found["usable"]) == ("aws", True)
    assert "each member's part" in found["found"]
    for field, value in (("bucket", "a..b"), ("kms_key", "trial key"), ("kms_key", "trial")):
        fields = {"region": "eu-central-1", "bucket": "bodies", field: value}
        path.write_text(json.dumps({"federation": "trial", "wire": {"kind": "aws", **fields}}))
        wire("show", path).failed(2, "federation.yaml", f"{field}: {value!r}")


def test_show_what_names_no_wire(wire: Command, tmp_path: Path) -> None:
    """Nothing there, a folder of nobody's, one that has not joined, a file that is none."""
    absent = wire("show", tmp_path / "absent.yaml").failed(2, "absent.yaml", "cannot be read")
    assert " ".join(absent.err.split()).endswith("give the path of a federation file")
    wire("show", tmp_path).failed(2, "no folder of a site or coordinator")
    CoordinatorConfig(federation="heart", name="hub", fingerprint="x").write(tmp_path)
    wire("show", tmp_path).failed(2, "names no wire yet", "--wire")
    bad = tmp_path / "federation.yaml"
    bad.write_text("federation: heart\nwire: {kind: aws, region: eu-central-1, bucket: bodies, polll: 3}\n")
    wire("show", bad).failed(2, "federation.yaml", "polll: there is no such field; did you mean poll?")


def test_one_file_for_every_role(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Instead of the name: it names the wire too, for the coordinator who makes it and the site that joins later."""
    monkeypatch.setenv("PRIVFL_PASSPHRASE", "a passphrase for tests")
    file = tmp_path / "federation.yaml"
    file.write_text("federation: heart\nwire:\n  kind: folder\n  path: wire\n")

    def run(*args: str | Path) -> Ran:
        return called(capfd, monkeypatch, *args, "--federation", file)

    assert run("authority", "init", tmp_path / "authority").code == 0
    assert run("policy", "init", tmp_path / "officer").code == 0
    assert run("coordinator", "init", tmp_path / "hub").code == 0
    ran = run("site", "init", tmp_path / "north")
    assert ran.code == 0
    assert "--wire" not in ran.out
    assert run("site", "init", tmp_path / "north").code == 0  # again, as after an interruption
    found = [SiteConfig.read(tmp_path / "north"), CoordinatorConfig.read(tmp_path / "hub")]
    assert [(one.federation, str(one.wire)) for one in found] == [("heart", f"folder:{tmp_path}/wire")] * 2
    assert FolderWire(tmp_path / "wire").path == tmp_path / "wire"
    called(capfd, monkeypatch, "coordinator", "init", tmp_path / "other", "--federation", "heart").failed(
        2, "no wire is named", "federation.yaml"
    )
    file.write_text("federation: heart\nwire: pigeon\n")
    run("site", "init", tmp_path / "south").failed(2, "federation.yaml", "wire: 'pigeon' is no wire")
    assert not (tmp_path / "south").exists()
