"""The authority: nobody is listed unless a fingerprint was read aloud, nobody is lost, no version is signed twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from privfl_keys import NO_SITE_COLLUDES, EnrolmentRequest, RosterBook, SigningKey

from privfl.entropy import SYSTEM
from privfl.errors import Malformed, Misuse, Refused, Unverified
from privfl.homes.authority import AuthorityHome, read_request
from privfl.homes.drafting import RosterTerms
from privfl.homes.rosters import (
    Chain,
    accept_chain,
    known_version,
    read_authority,
    read_rosters,
    write_rosters,
)
from privfl.homes.site import SiteHome
from tests.homes.scene import DAY, NOW, PASS, SITES, Scene, tree


def request_of(scene: Scene, name: str) -> EnrolmentRequest:
    return read_request(scene.folder(name) / "request")


def new_site(scene: Scene, folder: str, name: str) -> EnrolmentRequest:
    SiteHome.init(scene.folder(folder), name, "trial", PASS, NOW)
    return request_of(scene, folder)


def standing(home: AuthorityHome) -> dict[str, str]:
    return {line.name: line.standing for line in home.status()}


def test_approval_needs_the_spoken_fingerprint(scene: Scene) -> None:
    """Another fingerprint, another federation, a changed request: nothing is filed."""
    request = new_site(scene, "west", "west")
    SiteHome.init(scene.folder("alien"), "alien", "elsewhere", PASS, NOW)
    alien = request_of(scene, "alien")
    with scene.authority() as home:
        with pytest.raises(Unverified, match="the fingerprint read aloud is not that of this key"):
            home.approve(request, request_of(scene, "north").fingerprint, NOW)
        with pytest.raises(Unverified, match="asks to join 'elsewhere'"):
            home.approve(alien, alien.fingerprint, NOW)
        assert "west" not in standing(home)
        home.approve(request, request.fingerprint.replace(" ", "-"), NOW)
        home.approve(request, request.fingerprint, NOW)
        assert standing(home)["west"] == "approved; waits for the next roster"


def test_names_and_keys_are_one_to_one(scene: Scene) -> None:
    """A second key for a name, a second name for a key, a revoked key, the authority's own: each refused in words."""
    twin = new_site(scene, "twin", "North")
    with scene.authority() as home:
        with pytest.raises(Misuse, match="'north' has another key already"):
            home.approve(twin, twin.fingerprint, NOW)
        home.revoke("north", "laptop stolen", NOW)
        for _ in range(2):
            again = request_of(scene, "north")
            with pytest.raises(Misuse, match="was revoked"):
                home.approve(again, again.fingerprint, NOW)
            home.sign_roster(NOW, RosterTerms(colluders=NO_SITE_COLLUDES))
        with pytest.raises(Misuse, match="has another key already"):
            home.approve(twin, twin.fingerprint, NOW)


def test_revoking(scene: Scene) -> None:
    """Who waits is forgotten at once; who is listed leaves with the next roster for good; both can be told again."""
    request = new_site(scene, "west", "west")
    with scene.authority() as home:
        home.approve(request, request.fingerprint, NOW)
        home.revoke("WEST", "a mistake", NOW)
        assert "west" not in standing(home)
        home.approve(request, request.fingerprint, NOW)
        home.revoke("east", "closed", NOW)
        home.revoke("east", "closed", NOW)
        assert standing(home)["east"] == "revoked: leaves with the next roster (closed)"
        roster, new = home.sign_roster(NOW)
        assert new
        assert {member.name for member in roster.members} == {"north", "south", "west", "hub", "Dr. Law"}
        assert roster.revoked == (request_of_id(scene, "east"),)
        assert standing(home)["east"] == "revoked (closed)"
        with pytest.raises(Misuse, match=r"there is no member 'nobody'; listed or approved are: Dr\. Law, hub"):
            home.revoke("nobody", "x", NOW)
        with pytest.raises(Misuse, match="give a reason"):
            home.revoke("north", " ", NOW)


def request_of_id(scene: Scene, name: str) -> bytes:
    from privfl_keys import VerifyKey

    return VerifyKey(request_of(scene, name).verify_key).site_id


def test_a_version_is_signed_once(scene: Scene) -> None:
    """Asked again with nothing new, the same roster is handed out; a change or --renew makes the next."""
    before = scene.rosters.read_bytes()
    with scene.authority() as home:
        assert home.sign_roster(NOW + DAY)[1] is False
        assert scene.rosters.read_bytes() == before
        roster, new = home.sign_roster(NOW + DAY, renew=True)
        assert (roster.version, new) == (2, True)
        expired = NOW + 500 * DAY
        assert home.sign_roster(expired)[0].version == 3
    chain = read_rosters(scene.rosters)
    assert [signed.roster.version for signed in chain] == [1, 2, 3]
    book = RosterBook()
    book.pin("trial", read_authority(str(scene.folder("authority") / "authority.pub"), scene.root))
    assert accept_chain(book, chain, expired).version == 3


def test_a_lost_file_is_written_again_and_an_old_state_believes_it(scene: Scene) -> None:
    """Whichever of the two copies goes further holds, so that no version is ever signed a second time."""
    folder = scene.folder("authority")
    old = {name: (folder / name).read_bytes() for name in ("state.db", "state.key")}
    scene.sign_roster(renew=True)
    latest = scene.rosters.read_bytes()
    scene.rosters.write_bytes(latest[: len(latest) // 2])
    with scene.authority() as home:
        assert home.sign_roster(NOW)[1] is False
    assert scene.rosters.read_bytes() == latest
    for name, data in old.items():
        (folder / name).write_bytes(data)
    with scene.authority() as home:
        assert len(home.chain) == 2
        assert home.sign_roster(NOW, renew=True)[0].version == 3


def test_a_foreign_or_forked_file_is_refused(scene: Scene, founded: Path) -> None:
    """What this key did not sign, or signed differently, stops everything until somebody has looked."""
    other = SigningKey.generate(SYSTEM)
    roster = read_rosters(scene.rosters)[0].roster
    good = scene.rosters.read_bytes()
    write_rosters(scene.rosters, [roster.sign(other)])
    with pytest.raises(Unverified, match="is not what this folder signed"):
        scene.authority()
    scene.rosters.write_bytes(good)
    fork = scene.root / "fork"
    shutil.copytree(scene.folder("authority"), fork)
    scene.sign_roster(renew=True)
    with AuthorityHome.open(fork, PASS) as home:
        home.sign_roster(NOW, renew=True)
    shutil.copy(fork / "rosters", scene.rosters)
    with pytest.raises(Unverified, match="two rosters of one version"):
        scene.authority()


def test_the_numbers_are_the_protocol_s(scene: Scene) -> None:
    """What no site would accept is refused before it is signed."""
    before = tree(scene.folder("authority"))
    with scene.authority() as home:
        for terms, words in (
            (RosterTerms(days=0), "1 to 3650 days"),
            (RosterTerms(colluders=2), "fewer than two honest"),
            (RosterTerms(committee=2), "all sit in the committee"),
            (RosterTerms(committee=9), "1 to 3 seats"),
            (RosterTerms(committee_corrupt=2), "committee_corrupt"),
        ):
            with pytest.raises(Misuse, match=words):
                home.sign_roster(NOW, terms)
        with pytest.raises(Refused, match="degree 2 hides nobody"):
            home.sign_roster(NOW, RosterTerms(degree=2))
        assert len(home.chain) == 1
    assert tree(scene.folder("authority"))["rosters"] == before["rosters"]


def test_a_committee_is_drawn_above_64_sites(tmp_path: Path) -> None:
    """By size; drawn again only when the sites change."""
    from privfl_keys import Identity, Member

    AuthorityHome.init(tmp_path / "a", "big", PASS)
    with AuthorityHome.open(tmp_path / "a", PASS) as home:
        with pytest.raises(Misuse, match="nobody is approved yet"):
            home.sign_roster(NOW)
        for number in range(70):
            identity = Identity.generate(f"s{number}", SYSTEM)
            request = EnrolmentRequest.create(identity, "big", NOW)
            assert isinstance(home.approve(request, request.fingerprint, NOW), Member)
        with pytest.raises(Misuse, match="more need one that is named"):
            home.sign_roster(NOW)
        first, _ = home.sign_roster(NOW, RosterTerms(committee=60, colluders=10))
        assert len(first.committee) == 60
        assert home.sign_roster(NOW, RosterTerms(committee=60, colluders=10)) == (first, False)
        home.revoke("s0", "gone", NOW)
        second, new = home.sign_roster(NOW, RosterTerms(committee=60, colluders=10))
        assert new
        assert second.committee != first.committee


def test_first_roster_needs_members_and_three_sites(tmp_path: Path, scene: Scene) -> None:
    """Two sites are refused unless it is said by name that none colludes."""
    AuthorityHome.init(tmp_path / "a", "trial", PASS)
    with AuthorityHome.open(tmp_path / "a", PASS) as home:
        for name in SITES[:2]:
            request = request_of(scene, name)
            home.approve(request, request.fingerprint, NOW)
        with pytest.raises(Misuse, match="enrol a third"):
            home.sign_roster(NOW)
        roster, _ = home.sign_roster(NOW, RosterTerms(colluders=NO_SITE_COLLUDES))
        assert roster.assumption == NO_SITE_COLLUDES


class TestChains:
    """Roster files: read whole, and fed to a book from where it stands."""

    def test_damaged_mixed_or_with_a_gap(self, scene: Scene) -> None:
        for _ in range(2):
            scene.sign_roster(renew=True)
        chain, path = read_rosters(scene.rosters), scene.root / "odd"
        for data, words in (
            (b"nonsense", "damaged or no roster file"),
            (scene.rosters.read_bytes()[:-1], "damaged or no roster file"),
            (Chain((chain[0], chain[2])).encode(), "leaves out a version"),
        ):
            path.write_bytes(data)
            with pytest.raises(Malformed, match=words):
                read_rosters(path)
        with pytest.raises(Misuse, match="there is no file"):
            read_rosters(scene.root / "missing")

    def test_a_book_takes_what_it_lacks(self, scene: Scene) -> None:
        for _ in range(3):
            scene.sign_roster(renew=True)
        chain = read_rosters(scene.rosters)
        key = read_authority(str(scene.folder("authority") / "authority.pub"), scene.root)
        for start in range(1, 5):
            book = RosterBook()
            book.pin("trial", key)
            accept_chain(book, chain[:start], NOW)
            assert known_version(book, "trial") == start
            for tail in (chain, chain[start - 1 :], chain[-1:] if start >= 3 else chain):
                other = RosterBook.load(book.dump())
                assert accept_chain(other, tail, NOW).version == 4
            if start < 3:
                with pytest.raises(Unverified, match="are missing"):
                    accept_chain(book, chain[-1:], NOW)
            if start > 1:
                with pytest.raises(Unverified, match="older than"):
                    accept_chain(book, chain[: start - 1], NOW)
            assert known_version(book, "trial") == start
        with pytest.raises(Misuse, match="empty"):
            accept_chain(book, (), NOW)

    def test_the_authority_s_key(self, scene: Scene) -> None:
        """By fingerprint beside its file, in hex, by file; anything else says what to give."""
        folder, spoken = scene.folder("authority"), scene.fingerprint
        public = folder / "authority.pub"
        key = read_authority(spoken, folder)
        assert key == read_authority(public.read_text().upper(), scene.root) == read_authority(str(public), scene.root)
        assert key == read_authority(spoken.replace(" ", "-"), folder)
        wrong = spoken[:-1] + str((int(spoken[-1]) + 1) % 10)
        with pytest.raises(Unverified, match="not the key of the fingerprint you gave"):
            read_authority(wrong, folder)
        (scene.root / "odd").write_text("zz")
        for given, words in (
            (None, "give --authority"),
            (spoken, "put authority.pub"),
            (spoken[:-3], "no file"),
            ("0" * 64, "that are a key"),
            (str(scene.root / "odd"), "32 bytes in hexadecimal"),
            ("nowhere", "no file nowhere"),
            ("a\0b", "cannot be read"),
        ):
            with pytest.raises(Misuse, match=words):
                read_authority(given, scene.root)
