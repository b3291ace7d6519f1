"""Joining and opening: everything verified before anything changes, one ledger, one process, words for every mishap."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from privfl_keys import FileKeyStore, KeyStoreError

from privfl.budget import SignedPolicy
from privfl.budget.ledger_entries import Kind
from privfl.errors import DataError, Malformed, Misuse, PrivflError, Refused, StorageError, Unverified
from privfl.homes import files
from privfl.homes.authority import AuthorityHome, read_request
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.drafting import RosterTerms
from privfl.homes.ledgers import ledger_path
from privfl.homes.lock import Lock
from privfl.homes.membership import read_policy
from privfl.homes.officer import OfficerHome
from privfl.homes.rosters import read_rosters, write_rosters
from privfl.homes.site import SiteHome
from tests.homes.scene import DAY, NOW, PASS, SITES, Scene, found_scene, signed_policy, tree

Changes = dict[str, Any]


def opened_versions(scene: Scene, name: str = "north", now: int = NOW) -> tuple[int, int]:
    with SiteHome.open(scene.folder(name), PASS, now, data=False) as site:
        return site.party.roster.version, site.policy.version


def test_a_site_that_joined_opens(scene: Scene) -> None:
    """Party, roster, policy in the ledger with its limits, rows, and its end of the wire."""
    joined = scene.join(table=scene.table())
    assert joined.bound is not None
    assert joined.bound.report.rows == 3
    with SiteHome.open(scene.folder("north"), PASS, NOW) as site:
        assert site.name == "north"
        assert site.party.roster.version == site.signed_roster.roster.version == 1
        assert site.party.id in site.party.roster.site_ids
        assert site.ledger.policy == (1, site.policy.hash)
        assert site.ledger.limits == site.policy.limits()
        assert site.bound.report.rows == 3
        assert list(site.mailbox.receive(0)) == []
        assert PASS not in repr(site)
        site.state.put(site.anchor_item())
        with pytest.raises(Misuse, match=f"pid {os.getpid()}"):
            SiteHome.open(scene.folder("north"), PASS, NOW)
        with pytest.raises(Misuse, match=f"pid {os.getpid()}"):
            scene.join()
    with (
        SiteHome.open(scene.folder("north"), PASS, NOW, data=False) as site,
        pytest.raises(Misuse, match="without its data"),
    ):
        _ = site.bound


def test_a_coordinator_that_joined_opens(scene: Scene) -> None:
    """With every roster handed to it, also across joins."""
    hub = scene.folder("hub")
    with pytest.raises(Misuse, match="has not joined yet; run: privfl coordinator join"):
        CoordinatorHome.open(hub, PASS, NOW)
    CoordinatorHome.join(
        hub, PASS, NOW, rosters=scene.rosters, authority=scene.fingerprint, policy=scene.policy, wire=scene.wire
    )
    scene.sign_roster(renew=True)
    CoordinatorHome.join(hub, PASS, NOW, rosters=scene.rosters)
    for _ in range(2):
        CoordinatorHome.join(hub, PASS, NOW)
    with CoordinatorHome.open(hub, PASS, NOW) as coordinator:
        assert [signed.roster.version for signed in coordinator.chain] == [1, 2]
        assert coordinator.signed_roster == coordinator.chain[-1]
        assert coordinator.signed_policy.verify(coordinator.party.roster, NOW) == coordinator.policy
        assert str(coordinator.wire) == scene.wire
        with pytest.raises(Misuse, match="pid"):
            CoordinatorHome.open(hub, PASS, NOW)


def test_joining_again_is_harmless_and_newer_is_taken(scene: Scene) -> None:
    """The same roster and policy change nothing in the ledger; newer ones are taken singly or together."""
    scene.join()
    before = tree(scene.folder("north") / "ledger")
    scene.join()
    scene.join(rosters=None, authority=None, policy=None, wire=None)
    assert tree(scene.folder("north") / "ledger") == before
    scene.sign_roster(renew=True)
    scene.join(authority=None, policy=None, wire=None)
    assert opened_versions(scene) == (2, 1)
    scene.join(rosters=None, authority=None, policy=scene.write_policy("p2", version=2, epsilon=3))
    assert opened_versions(scene) == (2, 2)
    with SiteHome.open(scene.folder("north"), PASS, NOW, data=False) as site:
        kinds = [entry.kind for entry in site.ledger.entries()]
    assert kinds == [Kind.OPEN, Kind.POLICY, Kind.POLICY]


# -- what is refused, before and after a first join ---------------------------------------------------------


def _foreign(scene: Scene, tmp: Path) -> Scene:
    return found_scene(tmp / "foreign")


def wrong_authority(scene: Scene, tmp: Path) -> Changes:
    other = _foreign(scene, tmp)
    return {"authority": (other.folder("authority") / "authority.pub").read_text()}


def wrong_fingerprint(scene: Scene, tmp: Path) -> Changes:
    return {"authority": "12345 " * 8}


def foreign_rosters(scene: Scene, tmp: Path) -> Changes:
    """The same federation's name under another authority."""
    return {
        "rosters": _foreign(scene, tmp).rosters,
        "authority": (scene.folder("authority") / "authority.pub").read_text(),
    }


def other_federation(scene: Scene, tmp: Path) -> Changes:
    AuthorityHome.init(tmp / "a", "elsewhere", PASS)
    for name in SITES:
        SiteHome.init(tmp / name, name, "elsewhere", PASS, NOW)
    with AuthorityHome.open(tmp / "a", PASS) as home:
        for name in SITES:
            request = read_request(tmp / name / "request")
            home.approve(request, request.fingerprint, NOW)
        home.sign_roster(NOW)
    return {"rosters": tmp / "a" / "rosters", "authority": str(tmp / "a" / "authority.pub")}


def expired_roster(scene: Scene, tmp: Path) -> Changes:
    with scene.authority() as home:
        home.sign_roster(NOW - 100 * DAY, RosterTerms(days=1), renew=True)
    return {}


def future_roster(scene: Scene, tmp: Path) -> Changes:
    with scene.authority() as home:
        home.sign_roster(NOW + 100 * DAY, renew=True)
    return {}


def struck_off(scene: Scene, tmp: Path) -> Changes:
    SiteHome.init(scene.folder("west"), "west", "trial", PASS, NOW)
    scene.approve("west")
    with scene.authority() as home:
        home.revoke("north", "test", NOW)
        home.sign_roster(NOW)
    return {}


def damaged_rosters(scene: Scene, tmp: Path) -> Changes:
    (tmp / "rosters").write_bytes(scene.rosters.read_bytes()[:-3])
    return {"rosters": tmp / "rosters", "authority": (scene.folder("authority") / "authority.pub").read_text()}


def missing_rosters(scene: Scene, tmp: Path) -> Changes:
    return {"rosters": tmp / "none"}


def unsigned_policy(scene: Scene, tmp: Path) -> Changes:
    (tmp / "policy.yaml").write_text("version: 1\n")
    return {"policy": tmp / "policy.yaml"}


def altered_policy(scene: Scene, tmp: Path) -> Changes:
    good, other = read_policy(scene.policy), signed_policy(scene.officer(), version=7, epsilon=40)
    (tmp / "policy").write_bytes(SignedPolicy(other.text, good.officer, good.signature).encode())
    return {"policy": tmp / "policy"}


def policy_of_a_site(scene: Scene, tmp: Path) -> Changes:
    home = OfficerHome.init(tmp / "nobody", "nobody", "trial", PASS, NOW)
    (tmp / "policy").write_bytes(signed_policy(home, version=7).encode())
    return {"policy": tmp / "policy"}


def foreign_policy(scene: Scene, tmp: Path) -> Changes:
    return {"policy": scene.write_policy("p", version=7, federation="elsewhere")}


def expired_policy(scene: Scene, tmp: Path) -> Changes:
    return {"policy": scene.write_policy("p", version=7, expires="2026-02-01")}


def disagreeing_policy(scene: Scene, tmp: Path) -> Changes:
    return {"policy": scene.write_policy("p", version=7, min_sites=4, min_survivors=4)}


def missing_policy(scene: Scene, tmp: Path) -> Changes:
    return {"policy": tmp / "none"}


def no_wire_there(scene: Scene, tmp: Path) -> Changes:
    return {"wire": str(tmp / "nothing")}


def unknown_wire(scene: Scene, tmp: Path) -> Changes:
    return {"wire": "carrier:pigeon"}


def table_of_another_schema(scene: Scene, tmp: Path) -> Changes:
    table = scene.table()
    table.schema.write_text(table.schema.read_text().replace("upper: 110", "upper: 120"))
    return {"table": table}


def empty_table(scene: Scene, tmp: Path) -> Changes:
    return {"table": scene.table("age,ill\n")}


BAD: list[tuple[Any, type[PrivflError], str]] = [
    (wrong_authority, Unverified, "not by|another authority"),
    (wrong_fingerprint, Unverified, "not the key of the fingerprint"),
    (foreign_rosters, Unverified, "not by"),
    (other_federation, Unverified, "this is the roster of 'elsewhere'"),
    (expired_roster, Unverified, r"has expired.*it shows 20"),
    (future_roster, Unverified, r"not valid yet; check this machine's clock \(it shows 20"),
    (struck_off, Unverified, "revoked this key; make a new folder"),
    (damaged_rosters, Malformed, "damaged or no roster file"),
    (missing_rosters, Misuse, "there is no file"),
    (unsigned_policy, Malformed, "no signed policy; have the officer sign it"),
    (altered_policy, Unverified, "did not sign this policy"),
    (policy_of_a_site, Unverified, "not signed by a compliance officer"),
    (foreign_policy, Refused, "is for federation 'elsewhere'"),
    (expired_policy, Refused, "expired on 2026-02-01"),
    (disagreeing_policy, Refused, "disagree: .*cohorts of 4"),
    (missing_policy, Misuse, "there is no file"),
    (no_wire_there, Misuse, "no privfl wire folder"),
    (unknown_wire, Misuse, "no kind of wire"),
    (table_of_another_schema, Misuse, r"column 'age' has bounds \[0, 120\], it allows \[0, 110\]"),
    (empty_table, DataError, "has no rows"),
]


@pytest.mark.parametrize(("spoil", "kind", "words"), BAD, ids=lambda item: getattr(item, "__name__", ""))
@pytest.mark.parametrize("joined", [False, True], ids=["first", "again"])
def test_bad_joins_change_nothing(
    scene: Scene, tmp_path: Path, spoil: Any, kind: type[PrivflError], words: str, joined: bool
) -> None:
    """Whatever is wrong is named, and the folder is byte for byte what it was."""
    if joined:
        scene.join(table=scene.table())
    changes = spoil(scene, tmp_path)
    before = tree(scene.folder("north"))
    if joined and spoil is wrong_authority:  # pinned already
        kind, words = Misuse, "another authority"
    with pytest.raises(kind, match=f"(?s){words}"):
        scene.join(**changes)
    assert tree(scene.folder("north")) == before
    if not joined:
        with pytest.raises(Misuse, match="has not joined yet"):
            SiteHome.open(scene.folder("north"), PASS, NOW)


def test_a_first_join_needs_everything(scene: Scene) -> None:
    """Each missing piece is asked for by its option."""
    for missing, words in (
        ({"rosters": None}, "--roster"),
        ({"authority": None}, "--authority"),
        ({"policy": None}, "--policy"),
        ({"wire": None}, "--wire"),
    ):
        with pytest.raises(Misuse, match=words):
            scene.join(**missing)


def test_nothing_is_turned_back(scene: Scene, tmp_path: Path) -> None:
    """An older roster, an older policy, another policy of the same version, an unlisted key: nothing changes."""
    first = tmp_path / "first"
    shutil.copy(scene.rosters, first)
    scene.sign_roster(renew=True)
    scene.join(policy=scene.write_policy("p2", version=2))
    before = tree(scene.folder("north"))
    for kind, words, changes in (
        (Unverified, "older than 2", {"rosters": first, "authority": None}),
        (Refused, "older than version 2", {"policy": scene.policy}),
        (Refused, "another policy under the version 2", {"policy": scene.write_policy("p", version=2, epsilon=3)}),
        (
            Refused,
            "ledger of population 'patients'",
            {"policy": scene.write_policy("q", version=3, population="others")},
        ),
    ):
        with pytest.raises(kind, match=words):
            scene.join(**changes)
        assert tree(scene.folder("north")) == before
    assert opened_versions(scene) == (2, 2)


def test_a_key_that_is_not_listed(scene: Scene) -> None:
    """The fingerprint to read out is in the message; a site's key is no coordinator's."""
    config = SiteHome.init(scene.folder("west"), "west", "trial", PASS, NOW)
    with pytest.raises(Unverified, match=f"does not list this key .*{config.fingerprint}"):
        scene.join("west")


def test_double_signing_is_kept_as_evidence(scene: Scene, tmp_path: Path) -> None:
    """Two rosters of one version: refused, nothing else changes, and the proof survives a restart."""
    fork = tmp_path / "fork"
    shutil.copytree(scene.folder("authority"), fork)
    scene.sign_roster(renew=True)
    with AuthorityHome.open(fork, PASS) as home:
        home.sign_roster(NOW, renew=True)
    scene.join()
    for _ in range(2):
        with pytest.raises(Unverified, match="both are kept as evidence"):
            scene.join(rosters=fork / "rosters", authority=None)
    from privfl_keys import RosterBook

    with SiteHome.open(scene.folder("north"), PASS, NOW, data=False) as site:
        book = RosterBook.load(site.state.get("rosters") or b"")
    assert len(book.evidence) == 1
    book.evidence[0].verify(book.authority("trial"))
    assert opened_versions(scene) == (2, 1)


def test_a_missed_version_needs_the_whole_file(scene: Scene, tmp_path: Path) -> None:
    """A file with the last roster alone does not do; the authority's whole file does."""
    scene.join()
    scene.sign_roster(renew=True)
    scene.sign_roster(renew=True)
    write_rosters(tmp_path / "last", read_rosters(scene.rosters)[-1:])
    with pytest.raises(Unverified, match="are missing"):
        scene.join(rosters=tmp_path / "last", authority=None)
    scene.join(authority=None)
    assert opened_versions(scene) == (3, 1)


def test_a_new_roster_that_drops_the_officer(scene: Scene) -> None:
    """The policy in force is verified against the new roster too: its signer must still be the officer."""
    scene.join()
    OfficerHome.init(scene.folder("law2"), "law2", "trial", PASS, NOW)
    scene.approve("law2")
    with scene.authority() as home:
        home.revoke("Dr. Law", "left", NOW)
        home.sign_roster(NOW)
    with pytest.raises(Unverified, match="not signed by a compliance officer"):
        scene.join(policy=None)
    path = scene.root / "p2"
    path.write_bytes(signed_policy(OfficerHome.open(scene.folder("law2"), PASS), version=2).encode())
    scene.join(policy=path)
    assert opened_versions(scene) == (2, 2)


# -- opening ------------------------------------------------------------------------------------------------


def test_opening_at_the_wrong_time(scene: Scene) -> None:
    """Five years off either way, and a clock behind the ledger by more than five minutes."""
    scene.join(table=scene.table())
    folder, year = scene.folder("north"), 365 * DAY
    for now, kind, words in (
        (NOW + 5 * year, Unverified, "has expired.*it shows 2031"),
        (NOW - 5 * year, Unverified, "not valid yet; check this machine's clock .*2021"),
        (NOW - 360_000, Misuse, "clock is 6 minutes behind the last entry"),
    ):
        with pytest.raises(kind, match=words):
            SiteHome.open(folder, PASS, now)
    for now in (NOW - 240_000, NOW + 300_000, NOW + 300 * DAY):
        SiteHome.open(folder, PASS, now).close()


def test_an_expired_policy(scene: Scene) -> None:
    """The next step is in the message."""
    scene.sign_roster(renew=True, days=2000)
    scene.join()
    with pytest.raises(Refused, match=r"expired on 2027-12-31.*ask compliance"):
        SiteHome.open(scene.folder("north"), PASS, NOW + 1000 * DAY)


def test_wrong_passphrase(scene: Scene) -> None:
    """Nothing is opened and the folder is let go."""
    scene.join(table=scene.table())
    with pytest.raises(KeyStoreError, match="does not open"):
        SiteHome.open(scene.folder("north"), "another passphrase", NOW)
    Lock(scene.folder("north")).release()


def spoil_ledger_missing(scene: Scene) -> str:
    ledger_path(scene.folder("north"), "patients").unlink()
    return "is missing, and this site has spent from it"


def spoil_ledger_of_another_site(scene: Scene) -> str:
    scene.join("south")
    shutil.copy(ledger_path(scene.folder("south"), "patients"), ledger_path(scene.folder("north"), "patients"))
    return "."


def spoil_older_ledger(scene: Scene) -> str:
    path = ledger_path(scene.folder("north"), "patients")
    old = path.read_bytes()
    scene.join(policy=scene.write_policy("p2", version=2))
    path.write_bytes(old)
    return "."


def spoil_state_of_another_site(scene: Scene) -> str:
    scene.join("south")
    for name in ("state.db", "state.key"):
        shutil.copy(scene.folder("south") / name, scene.folder("north") / name)
    return "does not open: it belongs to another folder"


def spoil_state_missing(scene: Scene) -> str:
    (scene.folder("north") / "state.db").unlink()
    return "state.db is missing"


def spoil_keys_missing(scene: Scene) -> str:
    (scene.folder("north") / "keys").unlink()
    return "keys is missing"


def spoil_wire(scene: Scene) -> str:
    shutil.rmtree(scene.root / "wire")
    return "wire"


SPOILT = [spoil_ledger_missing, spoil_ledger_of_another_site, spoil_older_ledger, spoil_state_of_another_site]


@pytest.mark.parametrize("spoil", [*SPOILT, spoil_state_missing, spoil_keys_missing, spoil_wire])
def test_a_spoilt_folder_does_not_open(scene: Scene, spoil: Any) -> None:
    """Nor does joining again make anything anew; what happened is said, and the folder is let go."""
    scene.join(table=scene.table())
    words = spoil(scene)
    with pytest.raises(PrivflError, match=words) as failed:
        SiteHome.open(scene.folder("north"), PASS, NOW)
    assert failed.value.exit_code in (2, 3)
    before = tree(scene.folder("north"))
    with pytest.raises(PrivflError, match=words):
        scene.join(policy=None)
    assert tree(scene.folder("north")) == before
    Lock(scene.folder("north")).release()


def test_a_full_or_read_only_folder(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found before anything begins."""
    scene.join(table=scene.table())
    monkeypatch.setattr(files, "LEAST_FREE", 2**62)
    with pytest.raises(StorageError, match="is full"):
        SiteHome.open(scene.folder("north"), PASS, NOW)
    with pytest.raises(StorageError, match="is full"):
        scene.join()
    monkeypatch.undo()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match="read-only"):
        SiteHome.open(scene.folder("north"), PASS, NOW)


def test_populations_never_share_a_ledger() -> None:
    """Names that look alike in a file name get files of their own."""
    names = ["patients", "Patients", "pat ients", "pat-ients", "pat_ients", "../x", "x", "@", "a" * 64]
    paths = {ledger_path(Path("f"), name) for name in names}
    assert len(paths) == len(names)
    assert all(path.parent == Path("f/ledger") for path in paths)


def test_nothing_secret_lies_outside_keys_and_state(scene: Scene) -> None:
    """After joining, binding and opening, no file of the folder or the wire has a seed, the passphrase, or a row."""
    scene.join(table=scene.table())
    with SiteHome.open(scene.folder("north"), PASS, NOW) as site:
        assert site.bound.report.rows == 3
    store = FileKeyStore.open(scene.folder("north") / "keys", PASS)
    seeds = [store.get(name).reveal()[-32:] for name in store.names()]
    secrets = [PASS.encode(), b"77.25", b"63.125", *seeds, *(seed.hex().encode() for seed in seeds)]
    secrets += [base64.b64encode(seed).rstrip(b"=") for seed in seeds]
    files = {
        **tree(scene.folder("north")),
        **{f"wire/{name}": data for name, data in tree(scene.root / "wire").items()},
    }
    assert {"site.yaml", "ledger/patients.db", "state.db"} <= set(files)
    for name, data in files.items():
        assert not any(secret in data for secret in secrets), name
