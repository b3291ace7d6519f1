"""``privfl policy``: what compliance types, what comes back, and what is never overwritten."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from privfl_keys import INSECURE_TEST_COST, SYSTEM, Roster, SignedRoster, SigningKey
from typer.testing import CliRunner

from privfl.budget import Policy, SignedPolicy, read_policy
from privfl.cli import policy_new
from privfl.cli.app import app
from privfl.clock import SystemClock
from privfl.homes.officer import OfficerHome
from privfl.homes.rosters import write_rosters
from privfl.learn import Schema
from tests.budget.policies import TEXT, roster
from tests.cli.support import Ran, called, process

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]
DAY = 86_400_000
PASSPHRASE = "a passphrase of some length"
ROOT = Path(__file__).parents[2]


class Calls:
    """The command in this process."""

    def __init__(self, capfd: Capture, monkeypatch: Patch) -> None:
        self._capfd, self._monkeypatch = capfd, monkeypatch

    def __call__(self, *args: str | Path) -> Ran:
        return called(self._capfd, self._monkeypatch, "policy", *args)

    def json(self, *args: str | Path) -> dict[str, object]:
        """The one object that ``--json`` prints."""
        ran = self(*args, "--json")
        assert (ran.code, ran.err) == (0, ""), ran.err
        assert len(ran.out.splitlines()) == 1
        found: dict[str, object] = json.loads(ran.out)
        return found


@pytest.fixture
def run(capfd: Capture, monkeypatch: Patch) -> Calls:
    """Run ``privfl policy …``."""
    monkeypatch.delenv("PRIVFL_PASSPHRASE", raising=False)
    return Calls(capfd, monkeypatch)


@pytest.fixture
def current(tmp_path: Path) -> Path:
    """A policy file that is in force now."""
    now = SystemClock().now()
    text = TEXT.replace("2026-11-20", _date(now - DAY)).replace("2027-11-20", _date(now + 300 * DAY))
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return path


def expired(current: Path) -> Path:
    """The same policy as it was in 2001."""
    path, text = current.with_name("old.yaml"), current.read_text()
    path.write_text(
        re.sub("expires: .*", "expires: 2002-01-01", re.sub("valid_from: .*", "valid_from: 2001-01-01", text))
    )
    return path


def _date(now: int) -> str:
    return f"{datetime.fromtimestamp(now / 1000, UTC):%Y-%m-%d}"


@pytest.fixture(scope="module")
def officer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SigningKey]:
    """A compliance officer's folder, and its key."""
    folder = tmp_path_factory.mktemp("homes") / "compliance"
    home = OfficerHome.init(
        folder, "officer", "northern hospitals", PASSPHRASE, SystemClock().now(), cost=INSECURE_TEST_COST
    )
    return folder, home.identity.key


def rosters(path: Path, key: SigningKey, *roles: str, **more: object) -> Path:
    """A roster file with the holder of ``key``, valid now."""
    now = SystemClock().now()
    span: dict[str, int] = {"valid_from": now - DAY, "valid_until": now + DAY}
    book: Roster = roster(key, *roles, **{**span, **more})  # type: ignore[arg-type]
    signed: SignedRoster = book.sign(SigningKey.generate(SYSTEM))
    write_rosters(path, (signed,))
    return path


# -- new -----------------------------------------------------------------------------------------------------

GIVEN = ("--federation", "f", "--dataset", "no", "--subjects", "5000", "--column", "age=0:110", "--column", "ill=0,1")


def test_new_by_options(run: Calls, tmp_path: Path) -> None:
    """Every option reaches its field; the file is commented, valid, and its hash is what was printed."""
    path = tmp_path / "p.yaml"
    options = [
        "--version=7",
        "--valid-from=2026-01-01",
        "--expires=2026-12-31",
        "--schema-version=4",
        "--population=pop",
        "--max-sites-per-subject=2",
        "--unit=site",
        "--trust=local",
        "--epsilon=3",
        "--delta=1e-7",
        "--max-epsilon-per-upload=2",
        "--share=training=0.5",
        "--share=analytics=0.25",
        "--analyst=dr-jones=0.5",
        "--window-days=30",
        "--lifetime-epsilon=9",
        "--lifetime-delta=1e-6",
        "--colluders=2",
        "--min-survivors=5",
        "--min-sites=6",
        "--min-committee=4",
        "--attempts-per-round=2",
        "--mode=complete",
        "--min-cell-count=5",
        "--task=averaging=2",
        "--statistic=mean",
        "--statistic=count",
        "--schema-digest=" + "12" * 32,
        "--approval=analytics",
        "--column=code=text:6",
    ]
    found = run.json("new", path, *GIVEN, *options)
    one = Policy.from_yaml(path)
    assert found == {"policy": str(path), "version": 7, "hash": one.hash.hex(), "notes": []}
    assert (one.dataset, one.population, one.subjects, one.unit, one.trust) == ("no", "pop", 5000, "site", "local")
    assert (one.epsilon, one.delta, one.max_epsilon_per_upload, one.max_sites_per_subject) == (3, 1e-7, 2, 2)
    assert one.shares == {"training": 0.5, "analytics": 0.25}
    assert one.analysts == {"dr-jones": 0.5}
    assert one.window is not None
    assert (one.window.days, one.window.lifetime_epsilon, one.window.lifetime_delta) == (30, 9, 1e-6)
    assert (one.colluders, one.min_survivors, one.min_sites, one.min_committee) == (2, 5, 6, 4)
    assert (one.attempts_per_round, one.modes, one.min_cell_count) == (2, ("complete",), 5)
    assert (one.tasks["averaging"].clip, one.statistics, list(one.columns)) == (
        2,
        ("count", "mean"),
        ["age", "ill", "code"],
    )
    assert (one.schema_digest, one.approval, one.columns["code"].max_length) == ("12" * 32, ("analytics",), 6)
    assert path.read_text().count("\n#") >= 6


def test_new_with_defaults(run: Calls, tmp_path: Path) -> None:
    """What --yes fills in fits what was given: delta to the subjects, survivors to the colluders."""
    path = tmp_path / "p.yaml"
    assert "privfl policy explain" in run("new", path, *GIVEN, "--colluders", "3", "--yes").out
    one = Policy.from_yaml(path)
    assert (one.delta, one.min_survivors, one.min_sites, one.population) == (2e-5, 5, 5, "f")
    assert one.valid_from_at <= SystemClock().now() < one.expires_at


def test_new_from_a_schema(run: Calls, tmp_path: Path) -> None:
    """Columns with awkward names, bounds and classes come over as they are."""
    columns = {
        "mean radius": {"lower": -0.5, "upper": 1e9},
        "no": {"classes": ["yes", "no", "007", "ä"]},
        "ill: or not": {"classes": [False, True]},
        "stage": {"classes": [1, 2]},
        "code": {"max_length": 6},
    }
    schema = Schema(name="tumours of the north", version=3, records=700, columns=columns)
    (tmp_path / "schema.json").write_text(schema.to_json())
    path = tmp_path / "p.yaml"
    run.json("new", path, "--schema", tmp_path / "schema.json", "--federation", "f", "--yes")
    one = Policy.from_yaml(path)
    assert (one.dataset, one.schema_version, one.subjects) == ("tumours of the north", 3, 700)
    assert (one.columns["mean radius"].lower, one.columns["mean radius"].upper) == (-0.5, 1e9)
    assert set(one.columns["no"].classes) == {"yes", "no", "007", "ä"}
    assert one.columns["ill: or not"].classes == (False, True)
    assert one.columns["stage"].classes == (1, 2)
    assert one.columns["code"].max_length == 6
    assert one.schema_digest == schema.digest.hex()  # signing the policy signs the schema
    other = tmp_path / "other.yaml"
    run.json("new", other, "--schema", tmp_path / "schema.json", "--federation", "f", "--dataset", "g", "--yes")
    assert Policy.from_yaml(other).schema_digest is None  # it would be that of another schema
    run("new", tmp_path / "q", "--schema", tmp_path / "none", "--yes").failed(2, "there is no schema file")


def test_statistics_alone_permit_no_training(run: Calls, tmp_path: Path) -> None:
    """Who names statistics and no task is not given the default task of training beside them."""
    schema = Schema(name="s", version=1, records=700, columns={"ill": {"classes": [False, True]}})
    (tmp_path / "schema.json").write_text(schema.to_json())
    path = tmp_path / "p.yaml"
    run.json("new", path, "--schema", tmp_path / "schema.json", "--federation", "f", "--statistic", "count", "--yes")
    policy = Policy.from_yaml(path)
    assert not policy.tasks
    assert list(policy.statistics) == ["count"]


def test_misspelt_statistics_are_warned_of(run: Calls, tmp_path: Path) -> None:
    """By new, check and explain; a policy may all the same name what another version knows."""
    statistics = ("--statistic", "mean", "--statistic", "histogramm", "--statistic", "zzz")
    file = tmp_path / "policy.yaml"
    made = run("new", file, *GIVEN, *statistics, "--yes")
    assert made.code == 0, made.err
    for said in (made, run("check", file), run("explain", file)):
        words = " ".join(said.out.split())
        assert "statistics names 'histogramm', which nothing installed here knows; did you mean histogram?" in words
        assert "statistics names 'zzz', which nothing installed here knows; see: privfl study statistics" in words
        assert "'mean', which" not in words
    assert len(run.json("check", file)["notes"]) == 2  # type: ignore[arg-type]


def test_new_without_noise(run: Calls, tmp_path: Path) -> None:
    """By the flag, with the sentence; and check and explain say it."""
    path = tmp_path / "p.yaml"
    run.json("new", path, *GIVEN, "--without-noise", "--yes")
    assert Policy.from_yaml(path).noiseless
    assert "exact sums leave" in run("check", path).out
    assert "WARNING" in run("explain", path).out


def test_new_refuses(run: Calls, tmp_path: Path) -> None:
    """To overwrite, to guess, to write what is no policy; then there is no file."""
    path = tmp_path / "p.yaml"
    run("new", path).failed(2, "no terminal to ask on", "--yes")
    run("new", path, "--yes").failed(2, "--federation", "--dataset", "--subjects", "--column (or --schema)")
    run("new", path, *GIVEN, "--epsilon", "-1", "--yes").failed(2, "epsilon: must be greater than 0")
    run("new", path, *GIVEN, "--share", "training", "--yes").failed(2, "--share", "NAME=VALUE")
    run("new", path, *GIVEN, "--unit", "person", "--yes").failed(2, "record, subject or site")
    assert not path.exists()
    path.write_text("mine")
    run("new", path, *GIVEN, "--yes").failed(2, "is there already")
    assert path.read_text() == "mine"


def test_new_guided(tmp_path: Path, monkeypatch: Patch) -> None:
    """On a terminal: a question per field, Enter for the default, and again for what was wrong."""
    monkeypatch.setattr(policy_new, "_on_terminal", lambda: True)
    path = tmp_path / "p.yaml"
    answers = ["northern hospitals", "", "", "", "tumours", "", "", "5000", "", "", "", "-3", "", ""]
    answers += [""] * 12 + ["{age: {lower: 0, upper: 110}}"]
    again = ["3"]
    done = CliRunner().invoke(app, ["policy", "new", str(path)], input="\n".join([*answers, *again]) + "\n")
    assert done.exit_code == 0, done.output
    assert "epsilon: must be greater than 0" in done.output
    one = Policy.from_yaml(path)
    assert (one.federation, one.epsilon, one.delta, one.population) == ("northern hospitals", 3, 2e-5, one.federation)


# -- check, explain, diff --------------------------------------------------------------------------------------


def test_check(run: Calls, current: Path, tmp_path: Path, officer: tuple[Path, SigningKey]) -> None:
    """Sound, out of date, wrong with lines, and against a roster."""
    found = run.json("check", current)
    assert (found["version"], found["signed"], found["verified"], found["notes"]) == (3, False, False, [])
    assert found["hash"] == Policy.from_yaml(current).hash.hex()
    old = expired(current)
    assert "Mind: policy version 3 expired" in run("check", old).out.replace("\n", " ")
    bad = tmp_path / "bad.yaml"
    bad.write_text(current.read_text().replace("training: 0.7", "training: 7").replace("clip: 0.5", "klip: 0.5"))
    run("check", bad).failed(2, "3 things to correct", f"{bad.name}:16:", "shares.training", "write clip")
    book = rosters(tmp_path / "r", officer[1])
    assert run("check", current, "--roster", book).code == 0
    assert "Mind: analysts names dr-jones, lab" in run("check", current, "--roster", book).out.replace("\n", " ")
    small = rosters(tmp_path / "small", officer[1], sites=3)
    run("check", current, "--roster", small).failed(5, "wants cohorts of 4", "next step")
    run("check", tmp_path / "none").failed(2, "cannot be read")


def test_explain(run: Calls, current: Path) -> None:
    """Sentences for people; sections and figures as JSON."""
    out = " ".join(run("explain", current).out.split())
    assert "Who is protected" in out
    assert "factor of at most 54.6" in out
    assert Policy.from_yaml(current).hash.hex() in out
    found = run.json("explain", current)
    assert {"figures", "sections", "hash", "version"} <= set(found)
    titles = [section["title"] for section in found["sections"]]  # type: ignore[attr-defined]
    assert "What to beware of" in titles


def test_diff(run: Calls, current: Path, tmp_path: Path) -> None:
    """Looser first; the exit code only if it was asked for; equal meanings have no changes."""
    new = tmp_path / "new.yaml"
    new.write_text(current.read_text().replace("min_sites: 4", "min_sites: 5").replace("epsilon: 4", "epsilon: 5"))
    ran = run("diff", current, new)
    assert ran.code == 0
    assert ran.out.index("looser") < ran.out.index("tighter")
    assert run("diff", current, new, "--fail-on-looser").code == 1
    assert run("diff", current, current, "--fail-on-looser").out.strip() == "The two policies mean the same."
    found = run.json("diff", current, new)
    assert [one["field"] for one in found["looser"]] == ["epsilon"]  # type: ignore[attr-defined]
    assert [one["field"] for one in found["tighter"]] == ["min_sites"]  # type: ignore[attr-defined]
    assert found["neutral"] == []


# -- sign ------------------------------------------------------------------------------------------------------


def test_sign(run: Calls, current: Path, tmp_path: Path, officer: tuple[Path, SigningKey], monkeypatch: Patch) -> None:
    """Signed as every site verifies it; never over another file; readable by check, explain and diff."""
    folder, key = officer
    book, out = rosters(tmp_path / "roster", key), tmp_path / "signed"
    monkeypatch.setenv("PRIVFL_PASSPHRASE", PASSPHRASE)
    args = ("sign", current, "--officer", folder, "--roster", book)
    found = run.json(*args, "--out", out)
    one, signed = read_policy(out)
    assert signed is not None
    assert (one, found["hash"], found["officer"]) == (Policy.from_yaml(current), one.hash.hex(), "officer")
    assert signed.officer == key.verify_key.site_id
    run(*args, "--out", out).failed(2, "is there already")
    assert str(current) + ".signed" in run(*args).out.replace("\n", "")
    run("sign", out, "--officer", folder, "--roster", book, "--out", tmp_path / "x").failed(2, "is signed already")
    assert run.json("check", out, "--roster", book)["verified"] is True
    assert run("diff", out, current).out.strip() == "The two policies mean the same."
    assert "does not verify by whom" in " ".join(run("explain", out).out.split())
    forged = tmp_path / "forged"
    forged.write_bytes(SignedPolicy.sign(one, SigningKey.generate(SYSTEM)).encode())
    run("check", forged, "--roster", book).failed(3, "not signed by a compliance officer")
    forged.write_bytes(out.read_bytes()[:-1])
    run("check", forged).failed(3, "no whole signed policy")


def test_sign_refuses(
    run: Calls, current: Path, tmp_path: Path, officer: tuple[Path, SigningKey], monkeypatch: Patch
) -> None:
    """A roster that disagrees or has expired, a key without the role, an expired policy, no passphrase: no file."""
    folder, key = officer
    good, now = rosters(tmp_path / "good", key), SystemClock().now()
    args = ("--officer", folder, "--out", tmp_path / "out", "--roster")
    run("sign", current, *args, good).failed(2, "PRIVFL_PASSPHRASE")
    monkeypatch.setenv("PRIVFL_PASSPHRASE", PASSPHRASE)
    run("sign", current, *args, rosters(tmp_path / "a", key, federation="others")).failed(5, "disagree", "others")
    run("sign", current, *args, rosters(tmp_path / "b", key, "analyst")).failed(3, "does not hold the role")
    stranger = rosters(tmp_path / "c", SigningKey.generate(SYSTEM))
    run("sign", current, *args, stranger).failed(3, "ask the officer to sign it")
    late = rosters(tmp_path / "d", key, valid_from=now - 2 * DAY, valid_until=now - DAY)
    run("sign", current, *args, late).failed(3, "expired")
    old = expired(current)
    run("sign", old, *args, good).failed(5, "expired on 2002-01-01")
    run("sign", current, *args, current).failed(3)
    assert not (tmp_path / "out").exists()


# -- documents -------------------------------------------------------------------------------------------------


def test_the_document_s_example() -> None:
    """docs/policy.md: its example is a policy, and its table names every field."""
    text = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.S)
    one = Policy.from_yaml(example)
    assert set(one.document()) == set(Policy.model_fields) - {"without_noise"}
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(Policy.model_fields)
    for row in rows:
        required = Policy.model_fields[re.findall(r"`(\w+)`", row)[0]].is_required()
        assert required != ("○" in row) or "epsilon" in row, row


def test_help_as_a_process() -> None:
    """Every command of the group is listed, and shows an example."""
    ran = process("policy", "sign", "--help")
    assert ran.code == 0
    assert "Example: privfl policy sign" in " ".join(ran.out.split())
