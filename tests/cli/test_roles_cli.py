"""``privfl authority|coordinator|site`` and the officer's folder: few commands, and every mistake a message."""

from __future__ import annotations

import json
import os
import pty
import shutil
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from privfl_keys import INSECURE_TEST_COST

from privfl.homes import folder as folders
from privfl.homes.lock import Lock
from tests.cli.support import Ran, called
from tests.homes.scene import ROWS, SCHEMA, policy_fields

Call = Callable[..., Ran]
WORD = "correct horse battery staple"


def policy_text(**changes: Any) -> str:
    """Valid today."""
    today = datetime.now(UTC)
    dates = {
        "valid_from": f"{today - timedelta(days=1):%Y-%m-%d}",
        "expires": f"{today + timedelta(days=300):%Y-%m-%d}",
    }
    return yaml.safe_dump(policy_fields(**dates, **changes))


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Run a command in a folder of the test, with the passphrase in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRIVFL_PASSPHRASE", WORD)
    monkeypatch.setattr(folders, "DEFAULT_COST", INSECURE_TEST_COST)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)

    def run(*args: str | Path, code: int = 0) -> Ran:
        ran = called(capfd, monkeypatch, *args)
        assert ran.code == code, (ran.out, ran.err)
        return ran

    return run


def told(ran: Ran) -> dict[str, Any]:
    """Exactly one JSON object, and nothing beside it."""
    assert ran.err == ""
    found: dict[str, Any] = json.loads(ran.out)
    assert ran.out.count("\n") == 1
    return found


MEMBERS = ("officer", "hub", "north", "south", "east")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first federation that was set up is kept, for the others to be copies of it."""
    return tmp_path_factory.mktemp("template") / "trial"


@pytest.fixture
def trial(call: Call, template: Path) -> None:
    """A federation of three sites in this test's folder, up to the signed policy."""
    if template.exists():
        shutil.copytree(template, Path(), dirs_exist_ok=True)
        return
    set_up(call)
    shutil.copytree(Path(), template)


def set_up(call: Call) -> list[str]:
    """A federation of three sites up to the signed policy; returns the commands that were used."""
    used: list[str] = []

    def step(*args: str) -> dict[str, Any]:
        used.append(" ".join(args))
        return told(call(*args, "--json"))

    fingerprints = {}
    authority = step("authority", "init", "authority", "--federation", "trial")["fingerprint"]
    fingerprints["officer"] = step("policy", "init", "officer", "--federation", "trial")["fingerprint"]
    fingerprints["hub"] = step("coordinator", "init", "hub", "--federation", "trial", "--wire", "wire")["fingerprint"]
    for name in MEMBERS[2:]:
        fingerprints[name] = step("site", "init", name, "--federation", "trial")["fingerprint"]
    spoken = [word for name in MEMBERS for word in ("--fingerprint", fingerprints[name])]
    step("authority", "approve", "authority", *(f"{name}/request" for name in MEMBERS), *spoken)
    assert step("authority", "roster", "authority")["authority"] == authority
    Path("policy.yaml").write_text(policy_text())
    Path("schema.yaml").write_text(SCHEMA)
    Path("rows.csv").write_text(ROWS)
    step("policy", "sign", "policy.yaml", "--officer", "officer", "--roster", "authority/rosters", "--out", "policy")
    return used


def joining(name: str, *more: str) -> tuple[str, ...]:
    spoken = yaml.safe_load(Path("authority/authority.yaml").read_text())["fingerprint"]
    return (
        *("site", "join", name, "--roster", "authority/rosters", "--authority", spoken),
        *("--policy", "policy", "--wire", "wire", *more),
    )


DATA = ("--data", "rows.csv", "--schema", "schema.yaml")


def test_three_sites_in_few_commands(call: Call) -> None:
    """Set up, joined and bound in 14 commands; three sites and the coordinator to run and one training make 19."""
    used = set_up(call)
    for name in ("north", "south", "east"):
        used.append(" ".join(joining(name, *DATA)))
        found = told(call(*joining(name, *DATA), "--json"))
        assert (found["roster"], found["policy"], found["name"]) == (1, 1, name)
        assert found["data"] == str(Path("rows.csv").absolute())
        assert not {"rows", "report", "count"} & set(found)
    key = Path("authority/authority.pub").read_text().strip()
    hub = ("coordinator", "join", "hub", "--roster", "authority/rosters", "--authority", key, "--policy", "policy")
    assert told(call(*hub, "--json"))["policy"] == 1
    assert len(used) + 1 + 5 < 20
    assert told(call("site", "ledger", "north", "--json"))


def test_each_step_says_the_next(call: Call) -> None:
    """In words: what to send, what to read aloud, which command comes then."""
    out = call("site", "init", "north", "--federation", "trial").out
    assert "Next: send north/request to the authority and read this fingerprint aloud" in out
    spoken = yaml.safe_load(Path("north/site.yaml").read_text())["fingerprint"]
    assert spoken in out
    assert spoken in call("site", "request", "north").out
    out = call("authority", "init", "authority", "--federation", "trial").out
    assert "Next: publish this fingerprint" in out
    assert "privfl authority approve authority" in out
    out = call("authority", "approve", "authority", "north/request", "--fingerprint", spoken).out
    assert "approved: north (site)" in out
    assert "Next: when all are approved, sign a roster" in out
    assert (
        "privfl coordinator join hub"
        in call("coordinator", "init", "hub", "--federation", "trial", "--wire", "wire").out
    )
    out = call("policy", "init", "o", "--federation", "trial", "--name", "dr-law", "--role", "analyst").out
    assert "dr-law (analyst)" in out
    assert "dr-law" in call("policy", "request", "o").out
    out = call("authority", "roster", "authority", "--colluders", "no site colludes", code=2).err
    assert "Misuse" in out


@pytest.mark.usefixtures("trial")
def test_status_revocation_and_renewal(call: Call) -> None:
    """The list in words and as JSON; a version is signed only when something is new."""
    assert told(call("authority", "roster", "authority", "--json"))["new"] is False
    assert "--renew" in call("authority", "roster", "authority").out
    assert told(call("authority", "roster", "authority", "--renew", "--json"))["version"] == 2
    call("site", "init", "west", "--federation", "trial")
    spoken = yaml.safe_load(Path("west/site.yaml").read_text())["fingerprint"]
    call("authority", "approve", "authority", "west/request", "--fingerprint", spoken)
    assert "Next: sign a roster" in call("authority", "revoke", "authority", "east", "--why", "[closed]").out
    out = call("authority", "status", "authority").out
    assert "[closed]" in " ".join(out.split())
    listed = {
        one["name"]: one["standing"] for one in told(call("authority", "status", "authority", "--json"))["members"]
    }
    assert listed["west"] == "approved; waits for the next roster"
    assert listed["east"].startswith("revoked: leaves")
    assert set(told(call("authority", "roster", "authority", "--json"))["members"]) == {*MEMBERS, "west"} - {"east"}


class TestApproving:
    """The fingerprint is typed, or given; it never comes from the request."""

    @pytest.fixture(autouse=True)
    def _members(self, call: Call) -> None:
        call("authority", "init", "authority", "--federation", "trial")
        for name in ("north", "south"):
            call("site", "init", name, "--federation", "trial")

    def spoken(self, name: str) -> str:
        return str(yaml.safe_load(Path(name, "site.yaml").read_text())["fingerprint"])

    def test_without_a_fingerprint(self, call: Call) -> None:
        ran = call("authority", "approve", "authority", "north/request", code=2)
        ran.failed(2, "the fingerprints are missing", "--fingerprint")
        assert self.spoken("north") not in ran.out + ran.err

    def test_typed(self, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        answers = iter([self.spoken("north"), self.spoken("south")])

        def prompt(text: str, **_: object) -> str:
            asked.append(text)
            return next(answers)

        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("typer.prompt", prompt)
        out = call("authority", "approve", "authority", "north/request", "south/request").out
        assert "approved: south (site)" in out
        assert [text.split("'")[1] for text in asked] == ["north", "south"]
        assert not any(self.spoken("north") in text for text in asked)

    def test_one_mismatch_files_nobody(self, call: Call) -> None:
        wrong = ("--fingerprint", self.spoken("north"), "--fingerprint", self.spoken("north"))
        ran = call("authority", "approve", "authority", "north/request", "south/request", *wrong, code=3)
        ran.failed(3, "south/request: the fingerprint read aloud is not that of this key")
        assert told(call("authority", "status", "authority", "--json"))["members"] == []
        few = call("authority", "approve", "authority", "north/request", "south/request", *wrong[:2], code=2)
        few.failed(2, "2 request(s) and 1 fingerprint(s)")

    def test_no_request(self, call: Call) -> None:
        Path("odd").write_text("x")
        ran = call("authority", "approve", "authority", "odd", "--fingerprint", "1", code=3)
        ran.failed(3, "odd is damaged or no request")
        call("authority", "approve", "authority", "none", "--fingerprint", "1", code=2).failed(
            2, "there is no file none"
        )


def older_roster(call: Call) -> tuple[str, ...]:
    shutil.copy("authority/rosters", "old")
    call("authority", "roster", "authority", "--renew")
    call("site", "join", "north", "--roster", "authority/rosters")
    return ("site", "join", "north", "--roster", "old")


def wrong_word(call: Call) -> tuple[str, ...]:
    os.environ["PRIVFL_PASSPHRASE"] = "another passphrase"
    return ("site", "join", "north")


def no_word(call: Call) -> tuple[str, ...]:
    del os.environ["PRIVFL_PASSPHRASE"]
    return ("site", "join", "north")


def unsigned(call: Call) -> tuple[str, ...]:
    return ("site", "join", "north", "--policy", "policy.yaml")


def expired(call: Call) -> tuple[str, ...]:
    return ("site", "join", "north", "--policy", sign(version=2, valid_from="2020-01-01", expires="2021-01-01"))


def sign(**changes: Any) -> str:
    """By the officer himself, whatever the command would refuse to sign."""
    from privfl.budget import Policy, SignedPolicy
    from privfl.homes.officer import OfficerHome

    fields = {**yaml.safe_load(policy_text()), **changes}
    policy = Policy.from_yaml(yaml.safe_dump(fields))
    key = OfficerHome.open(Path("officer"), WORD).identity.key
    Path("odd-policy").write_bytes(SignedPolicy.sign(policy, key).encode())
    return "odd-policy"


def foreign(call: Call) -> tuple[str, ...]:
    return ("site", "join", "north", "--policy", sign(version=2, federation="elsewhere"))


def disagreeing(call: Call) -> tuple[str, ...]:
    return ("site", "join", "north", "--policy", sign(version=2, colluders=2, min_survivors=4, min_sites=4))


def downgraded(call: Call) -> tuple[str, ...]:
    call("site", "join", "north", "--policy", sign(version=2))
    return ("site", "join", "north", "--policy", "policy")


def no_folder(call: Call) -> tuple[str, ...]:
    return ("site", "join", "nowhere")


def other_role(call: Call) -> tuple[str, ...]:
    return ("site", "join", "hub")


def spoilt_yaml(call: Call) -> tuple[str, ...]:
    Path("north/site.yaml").write_text("role: site\nname: [\n")
    return ("site", "join", "north")


def spoilt_field(call: Call) -> tuple[str, ...]:
    text = Path("north/site.yaml").read_text()
    Path("north/site.yaml").write_text(text.replace("name: north", "name: '-'"))
    return ("site", "join", "north")


def half_a_binding(call: Call) -> tuple[str, ...]:
    return ("site", "join", "north", "--data", "rows.csv")


def pickled(call: Call) -> tuple[str, ...]:
    Path("rows.pkl").write_bytes(b"x")
    return ("site", "data", "north", "rows.pkl", "--schema", "schema.yaml")


def empty(call: Call) -> tuple[str, ...]:
    Path("empty.csv").write_text("age,ill\n")
    return ("site", "data", "north", "empty.csv", "--schema", "schema.yaml")


def other_columns(call: Call) -> tuple[str, ...]:
    Path("other.csv").write_text("age,sick\n1,True\n")
    return ("site", "data", "north", "other.csv", "--schema", "schema.yaml")


def gone(call: Call) -> tuple[str, ...]:
    return ("site", "data", "north", "gone.csv", "--schema", "schema.yaml")


def lost_ledger(call: Call) -> tuple[str, ...]:
    Path("north/ledger/patients.db").unlink()
    return ("site", "join", "north")


def open_folder(call: Call) -> tuple[str, ...]:
    Path("public").mkdir(mode=0o755)
    Path("public/x").write_text("x")
    return ("site", "init", "public", "--federation", "trial")


BAD: list[tuple[Callable[[Call], tuple[str, ...]], int, str]] = [
    (older_roster, 3, "is older than 2"),
    (wrong_word, 2, "the passphrase does not open north/keys"),
    (no_word, 2, "set PRIVFL_PASSPHRASE"),
    (unsigned, 3, "no signed policy; have the officer sign it"),
    (expired, 5, "expired on 2021-01-01"),
    (foreign, 5, "is for federation 'elsewhere'"),
    (disagreeing, 5, "disagree"),
    (downgraded, 5, "older than version 2"),
    (no_folder, 2, "privfl site init nowhere"),
    (other_role, 2, "another role's folder"),
    (spoilt_yaml, 2, "north/site.yaml, line 3: this is not YAML"),
    (spoilt_field, 2, "north/site.yaml: name:"),
    (half_a_binding, 2, "--data and --schema come together"),
    (pickled, 2, "runs the code of whoever wrote the file"),
    (empty, 2, "--allow-empty"),
    (other_columns, 2, "column 'ill' is missing"),
    (gone, 2, "there is no table gone.csv"),
    (lost_ledger, 2, "is missing, and this site has spent from it"),
    (open_folder, 2, "chmod 700 public"),
]


@pytest.mark.usefixtures("trial")
@pytest.mark.parametrize(("spoil", "code", "words"), BAD, ids=lambda item: getattr(item, "__name__", ""))
def test_bad_input(spoil: Callable[[Call], tuple[str, ...]], code: int, words: str, call: Call) -> None:
    """A sentence with the next step, its exit code, no traceback, nothing on standard output."""
    call(*joining("north", *DATA))
    args = spoil(call)
    ran = call(*args, code=code)
    assert words in " ".join(ran.err.split()), ran.err
    ran.failed(code)
    assert ran.out == ""


@pytest.mark.usefixtures("trial")
def test_a_folder_in_use_names_the_process(call: Call) -> None:
    """Whoever holds it."""
    with Lock(Path("north")):
        call(*joining("north"), code=2).failed(2, f"pid {os.getpid()}")


@pytest.mark.usefixtures("trial")
def test_true_counts_are_for_a_terminal_only(call: Call) -> None:
    """Into a pipe or a file goes no count; on a terminal the operator sees the report."""
    out = call(*joining("north", *DATA)).out
    assert "rows bound" not in out
    assert "True counts are shown on a terminal only" in out
    assert "rows bound" not in call("site", "data", "north", "rows.csv", "--schema", "schema.yaml", "--json").out
    assert "3 rows bound" in on_a_terminal("site", "data", "north", "rows.csv", "--schema", "schema.yaml")


@pytest.mark.usefixtures("trial")
def test_a_table_larger_than_all_are_declared_to_be_is_told_on_a_terminal_only(call: Call) -> None:
    """Its rows are bound all the same: the schema is at fault, and the operator says so to whoever signs it."""
    call(*joining("north", *DATA))
    rows, schema = Path("rows.csv"), Path("schema.yaml")
    head, *lines = rows.read_text().splitlines(keepends=True)
    records = int(yaml.safe_load(schema.read_text())["records"])
    rows.write_text(head + lines[0] * (records + 1))
    wrong = f"this table has {records + 1} rows, and the schema declares {records} records"
    assert wrong not in call("site", "data", "north", "rows.csv", "--schema", "schema.yaml").out
    assert wrong in on_a_terminal("site", "data", "north", "rows.csv", "--schema", "schema.yaml")


def on_a_terminal(*args: str) -> str:
    """Run a real process whose output is a terminal."""
    import subprocess

    from tests.cli.support import COMMAND, environment

    ours, theirs = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        try:
            while chunk := os.read(ours, 4096):
                seen.append(chunk)
        except OSError:
            pass

    reader = threading.Thread(target=read)
    reader.start()
    done = subprocess.run([*COMMAND, *args], stdout=theirs, stderr=theirs, env=environment(), timeout=60, check=False)
    os.close(theirs)
    reader.join(timeout=10)
    os.close(ours)
    assert done.returncode == 0, seen
    return b"".join(seen).decode()


def test_a_ledger_before_the_first_join(call: Call) -> None:
    """There is none; which command makes it is said."""
    call("site", "init", "north", "--federation", "trial")
    call("site", "ledger", "north", code=2).failed(2, "has no ledger yet", "privfl site join north")


def test_a_passphrase_file(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of the environment."""
    monkeypatch.delenv("PRIVFL_PASSPHRASE")
    Path("word").write_text(WORD + "\n")
    Path("word").chmod(0o600)
    told(call("site", "init", "north", "--federation", "trial", "--passphrase-file", "word", "--json"))
    call("site", "request", "north", code=2).failed(2, "--passphrase-file")
