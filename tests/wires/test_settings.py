"""What people declare about wires: survives being written and read, and says in one message what is wrong."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from privfl.errors import Misuse
from privfl.homes.config import CoordinatorConfig, SiteConfig
from privfl.wires import FolderWire
from privfl.wires.settings import (
    AwsSettings,
    FederationFile,
    FlowerSettings,
    FolderSettings,
    Place,
    WireSettings,
    parsed,
    read_federation,
    read_wire,
)
from privfl.wires.settings_examples import EXAMPLES, example

readable = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
anything = st.text(readable, min_size=1, max_size=30)
names = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._@ -]{0,20}[A-Za-z0-9])?", fullmatch=True)
AWKWARD = ["no", "1e5", "0x10", "null", "~", "1:30", "true", "'", '"', "a: b", "# x", "- x", "{a}", "é\u2028\x85", "<<"]
seconds = st.integers(1, 43_200)
texts = anything | st.sampled_from(AWKWARD)
folders = st.builds(FolderSettings, path=texts.map(lambda text: f"/srv/{text}"))
clouds = st.builds(
    AwsSettings,
    region=st.sampled_from(["eu-central-1", "us-gov-west-1", "cn-north-1"]),
    bucket=st.from_regex(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", fullmatch=True),
    prefix=st.from_regex(r"[A-Za-z0-9_-]{1,24}", fullmatch=True),
    endpoint=st.none() | st.sampled_from(["http://127.0.0.1:5000", "https://host.example/"]),
    kms_key=st.none() | st.sampled_from(["alias/a", "arn:aws:kms:eu-central-1:123456789012:key/mrk-" + "0a" * 16]),
    role=st.none() | st.just("arn:aws:iam::123456789012:role/a-{name}"),
    external_id=st.none() | texts,
    session_tags=st.dictionaries(texts.filter(lambda name: name != "<<"), texts, max_size=3),
    profile=st.none() | texts,
    account=st.none() | st.from_regex(r"[0-9]{12}", fullmatch=True),
    visibility=seconds,
    poll=st.integers(1, 20),
    part_mib=st.integers(5, 512),
    retain_days=st.integers(1, 365),
)
flowers = st.builds(FlowerSettings, poll=seconds, resident=st.booleans(), idle=seconds)
settings = folders | clouds | flowers
ROLES: list[type[SiteConfig] | type[CoordinatorConfig]] = [SiteConfig, CoordinatorConfig]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples."""
    return tmp_path_factory.mktemp("settings")


@given(settings, names)
@hypothesis.settings(deadline=None)  # the first loads what reads YAML
def test_a_federation_file_is_read_as_it_was_written(place: Path, wire: WireSettings, name: str) -> None:
    """Whatever the texts look like: words that YAML takes for something else, and letters of every alphabet."""
    path, made = place / "federation.yaml", FederationFile(federation=name, wire=wire)
    path.write_text(made.to_yaml(), encoding="utf-8")
    assert read_federation(path) == made
    assert read_wire(str(path), name) == wire


@given(settings, names, st.sampled_from(ROLES))
@hypothesis.settings(max_examples=30, deadline=None)  # each is synced to the disk
def test_a_member_s_folder_keeps_it(
    place: Path, wire: WireSettings, name: str, role: type[SiteConfig] | type[CoordinatorConfig]
) -> None:
    """``site.yaml`` and ``coordinator.yaml`` hold the same settings after a change of something else."""
    made = role(federation=name, name="north", fingerprint="x", wire=wire)
    made.write(place)
    found = role.read(place)
    assert found == made
    assert found.wire == wire
    assert found.updated(fingerprint="y").wire == wire


@given(settings)
def test_settings_are_read_from_what_they_store(wire: WireSettings) -> None:
    """Also what a file of an earlier version has: one word for a folder."""
    assert parsed(wire.stored()) == parsed(wire) == wire


@pytest.mark.parametrize("kind", sorted(EXAMPLES))
def test_examples_show_every_field(kind: str, tmp_path: Path) -> None:
    """They are read, and so they are with each comment made a field; no field is left out."""
    path, text = tmp_path / "federation.yaml", example(kind, "heart")
    known = "|".join(WireSettings.KINDS[kind].model_fields)
    whole = re.sub(rf"^(\s*)# (({known}): )", r"\1\2", text, flags=re.MULTILINE)
    for one in (text, whole):
        path.write_text(one)
        found = read_federation(path)
        assert (found.federation, found.wire.kind) == ("heart", kind)
    assert set(yaml.safe_load(whole)["wire"]) == set(type(found.wire).model_fields)
    assert set(EXAMPLES) == set(WireSettings.KINDS)
    assert found.wire.NEEDS
    defaults = {name: value for name, value in read_federation(path).wire if value is not None}
    assert defaults  # what the bare example says of fields with a default is that default
    path.write_text(text)
    required = {"kind", "path", "region", "bucket"}
    assert set(read_federation(path).wire.model_dump(exclude_defaults=True)) <= required


def test_a_folder_beside_its_file(tmp_path: Path) -> None:
    """A relative path is taken from where the file lies, not from where somebody stands."""
    path = tmp_path / "federation.yaml"
    path.write_text("federation: heart\nwire:\n  kind: folder\n  path: shared/wire\n")
    assert read_federation(path).wire == FolderSettings(path=str(tmp_path / "shared/wire"))
    path.write_text(f"federation: heart\nwire: folder:{tmp_path}/wire\n")
    assert read_federation(path).wire.path == f"{tmp_path}/wire"


AWS = "federation: a\nwire: {kind: aws, region: eu-central-1, bucket: bbb, "
BAD = {
    "": "must be a list of fields",
    "- a": "must be a list of fields",
    "federation: no\nwire: {kind: flower}": "federation: 'no' is read as false",
    "federation: a/b\nwire: {kind: flower}": "federation: 'a/b' is no usable name",
    "federation: [a\n": "not YAML",
    "federation: a\nfederation: b\nwire: {kind: flower}": ":2: federation: occurs a second time",
    "federation: a": "wire: is missing; write 'wire:' with 'kind:' below it",
    "federation: a\nwire: {kind: flower}\nextra: 3": "extra: there is no such field",
    "wire: {kind: flower}": "federation: is missing",
    "federation: a\nwire: 3": "wire: a wire has fields",
    "federation: a\nwire: [flower]": "wire: a wire has fields",
    "federation: a\nwire: flower": "wire: 'flower' is no wire",
    "federation: a\nwire: folder:here": "write folder:/absolute/path",
    "federation: a\nwire: {path: /srv}": "wire: kind: is missing; choose one of aws, flower, folder",
    "federation: a\nwire: {kind: pigeon}": "wire: kind: 'pigeon' is no kind of wire; choose one of aws, flower, folder",
    "federation: a\nwire: {kind: AWS}": "did you mean aws?",
    "federation: a\nwire: {kind: [aws]}": "wire: kind: ",
    "federation: a\nwire: {kind: memory}": "privfl.Federation.local",
    "federation: a\nwire: {kind: folder}": "wire: path: is missing; write the path of the shared folder",
    "federation: a\nwire: {kind: folder, path: ''}": "wire: path: this wire names no folder",
    "federation: a\nwire: {kind: folder, path: 3}": "wire: path: write the path of the shared folder",
    "federation: a\nwire: {kind: flower, resident: perhaps}": "wire: resident: write true or false",
    "federation: a\nwire: {kind: flower, poll: 1.5}": "wire: poll: write a whole number",
    "federation: a\nwire: {kind: flower, kind: folder, path: x}": "wire.kind: occurs a second time",
    "federation: a\nwire: {kind: flower, 3: 4}": "wire: 3: there is no such field",
    "federation: a\nwire: {kind: aws, bucket: bbb}": "wire: region: is missing",
    "federation: a\nwire: {kind: aws, region: EU, bucket: bbb}": "wire: region: 'EU' will not do; write a region",
    f"{AWS}buckett: 3}}": "wire: buckett: there is no such field; did you mean bucket?",
    f"{AWS}visibility: soon}}": "wire: visibility: write a whole number from 1 to 43200",
    f"{AWS}poll: 21}}": "wire: poll: write a whole number from 1 to 20",
    f"{AWS}account: 123456789012}}": "wire: account: write text (digits alone in quotes)",
    f"{AWS}account: '12'}}": "wire: account: '12' will not do; write the account's 12 digits, in quotes",
    f"{AWS}role: me}}": "write the role's ARN",
    f"{AWS}prefix: 'a b'}}": "wire: prefix: 'a b' will not do; write 1 to 24 letters",
    f"{AWS}session_tags: {{a: 1}}}}": "wire: session_tags: write tags with text values",
    f"{AWS}endpoint: 'http://user:hunter2@host'}}": "without user or password",
    "federation: a\nwire: {kind: aws, region: eu-central-1, bucket: B}": "wire: bucket: 'B' is no name of a bucket",
}


@pytest.mark.parametrize("text", BAD)
def test_one_message_names_file_and_field(text: str, tmp_path: Path) -> None:
    """Unknown kinds and fields, wrong types, missing ones, files that are none."""
    path = tmp_path / "federation.yaml"
    path.write_text(text)
    with pytest.raises(Misuse) as caught:
        read_federation(path)
    said = str(caught.value)
    assert type(caught.value) is Misuse
    assert said.startswith(str(path))
    assert BAD[text] in said
    assert len(said) < 600


def test_a_password_in_an_endpoint_is_not_repeated(tmp_path: Path) -> None:
    """The message goes to terminals and logs."""
    path = tmp_path / "federation.yaml"
    path.write_text(f"{AWS}endpoint: 'http://user:hunter2@host'}}")
    with pytest.raises(Misuse) as caught:
        read_federation(path)
    assert "hunter2" not in str(caught.value)


wild = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(readable, max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(readable, max_size=10), inner, max_size=3),
    max_leaves=5,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        name: wild | st.sampled_from([*WireSettings.KINDS, "x"])
        for name in ("kind", "path", "region", "bucket", "poll", "resident", "session_tags", "endpoint", "x")
    },
)


@given(wild | fields | st.fixed_dictionaries({"kind": st.sampled_from([*WireSettings.KINDS])}, optional={"path": wild}))
def test_whatever_stands_there(wire: Any) -> None:
    """Settings, or one Misuse that names the field: no other exception, and nothing unbounded."""
    said, found = "wire: ", None
    try:
        found = FederationFile(federation="a", wire=wire)
    except Misuse as error:
        said = str(error)
    assert said.startswith("wire: ")
    assert len(said) < 2000
    assert found is None or isinstance(found.wire, WireSettings)


def test_files_that_are_none(tmp_path: Path) -> None:
    """Missing, a folder, too large, not UTF-8."""
    path = tmp_path / "federation.yaml"
    for make, words in (
        (lambda: None, "cannot be read"),
        (lambda: path.write_bytes(b"\xff\xfe"), "UTF-8"),
        (lambda: path.write_bytes(b"#" * (2**20 + 1)), "larger than"),
        (lambda: (path.unlink(), path.mkdir()), "cannot be read"),
    ):
        make()
        with pytest.raises(Misuse, match=words):
            read_federation(path)


def test_what_is_given_as_a_wire(tmp_path: Path) -> None:
    """A path with or without its kind, a file of this federation and of another, a kind that needs a file."""
    path = tmp_path / "federation.yaml"
    path.write_text("federation: heart\nwire: {kind: flower}\n")
    assert read_wire(str(path), "heart") == FlowerSettings()
    assert read_wire(f"folder:{tmp_path}/wire", "heart") == read_wire(f"{tmp_path}/wire", "heart")
    with pytest.raises(Misuse, match="of the federation 'heart' and this folder belongs to 'lung'"):
        read_wire(str(path), "lung")
    for text, words in (
        ("aws:bucket", "described in a file"),
        ("flower:", "kind: flower"),
        ("sqs:bucket", "no kind of wire here"),
        ("", "names no folder"),
        ("folder:", "names no folder"),
        (str(tmp_path / "absent.yaml"), "cannot be read"),
    ):
        with pytest.raises(Misuse, match=words):
            read_wire(text, "heart")


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Says what to install, before anything is opened."""
    monkeypatch.setattr("privfl.wires.settings.find_spec", lambda name: None)
    wire = AwsSettings(region="eu-central-1", bucket="bodies")
    with pytest.raises(Misuse, match=r'pip install "privfl\[aws\]"'):
        wire.open(Place(bytes(32), "north", "site", "heart", tmp_path))
    with pytest.raises(Misuse, match=r'pip install "privfl\[aws\]"'):
        wire.probe(tmp_path)


def test_nothing_heavy_is_loaded() -> None:
    """Reading settings of every kind loads neither boto3 nor Flower."""
    assert importlib.util.find_spec("boto3") is not None
    code = (
        "import sys; from privfl.wires.settings import parsed; "
        "parsed({'kind': 'aws', 'region': 'eu-central-1', 'bucket': 'bbb'}); parsed({'kind': 'flower'}); "
        "sys.exit(any(name in sys.modules for name in ('boto3', 'botocore', 'flwr', 'ray')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    """The coordinator makes it; who joins finds it; a probe leaves nothing."""
    wire = FolderSettings(path=str(tmp_path / "wire"))
    with pytest.raises(Misuse, match="no privfl wire folder"):
        wire.check()
    wire.make()
    wire.make()
    wire.check()
    assert "can be read and written" in wire.probe(tmp_path)
    assert FolderWire(tmp_path / "wire").path == tmp_path / "wire"
