"""Requests and decisions in a site's folder: what is kept, what is refused as forged, moved, removed or put back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from privfl_keys import SYSTEM, SigningKey

from privfl.errors import Misuse, Refused, StorageError, Theirs, Unverified
from privfl.homes import requests as module
from privfl.homes.requests import NOTHING, Answer, Decision, Request, RequestBook, State

KEY, OTHER = SigningKey.generate(SYSTEM), SigningKey.generate(SYSTEM)
HUB, SECOND = b"h" * 32, b"s" * 32


def request(question: bytes = b"a question", first: int = 1, **changes: object) -> Request:
    plain = Request(question, b"", HUB, "hub", "dr-jones", "analytics", first)
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture
def book(tmp_path: Path) -> RequestBook:
    return RequestBook(tmp_path, KEY.verify_key)


def place(book: RequestBook, one: Request) -> Path:
    return book.folder / one.id.hex()


def test_a_request_is_kept_as_it_was_first_seen(book: RequestBook) -> None:
    """Asked again it is the same one, with its first time; another reader sees it; nobody else may read the folder."""
    kept = book.record(request(first=5))
    assert book.record(request(first=9)) == kept
    other = RequestBook(book.folder.parent, KEY.verify_key)
    assert other.all() == [kept]
    assert (other.pending(), other.standing(kept).state) == (1, State.PENDING)
    assert place(book, kept).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"question": b"a questioN"},
        {"mandate": b"m"},
        {"coordinator": SECOND},
        {"coordinator_name": "Hub"},
        {"analyst": "dr-jonas"},
        {"purpose": "training"},
    ],
)
def test_whatever_changes_makes_another_request(book: RequestBook, changes: dict[str, object]) -> None:
    """An approval serves this very question, asked by these: one changed byte has its own id and no decision."""
    one, two = book.record(request()), book.record(request(**changes))
    book.decide(KEY, one, Answer.APPROVE, 10)
    assert one.id != two.id
    assert (book.standing(one).state, book.standing(two).state) == (State.APPROVED, State.PENDING)
    shutil.copy(place(book, one) / "decision-1", place(book, two) / "decision-1")
    with pytest.raises(Unverified, match="not what this site's operator decided"):
        book.standing(two)


def test_the_latest_decision_counts_and_all_are_kept(book: RequestBook) -> None:
    """Approve, refuse, approve: each names the one before, and the last is in force."""
    one = book.record(request())
    for at, (answer, state) in enumerate(
        [(Answer.APPROVE, State.APPROVED), (Answer.REFUSE, State.REFUSED), (Answer.APPROVE, State.APPROVED)]
    ):
        book.decide(KEY, one, answer, 10 + at, why="because" if answer is Answer.REFUSE else "")
        assert book.standing(one).state is state
    assert [d.number for d in book.standing(one).decisions] == [1, 2, 3]
    assert book.pending() == 0


def test_a_preview_decides_nothing_and_marks_what_follows(book: RequestBook) -> None:
    """What is decided on the same question after a look says so, under another analyst's request as well."""
    one, two = book.record(request()), book.record(request(analyst="someone else"))
    book.decide(KEY, one, Answer.APPROVE, 1)
    assert not book.seen(one.question_id)
    book.decide(KEY, one, Answer.PREVIEW, 2)
    assert book.standing(one).state is State.APPROVED
    assert book.decide(KEY, one, Answer.REFUSE, 3).seen
    assert book.decide(KEY, two, Answer.APPROVE, 4).seen
    other = book.record(request(b"another question"))
    assert not book.decide(KEY, other, Answer.APPROVE, 5).seen


def _wrong_key(one: Request) -> Decision:
    return Decision.sign(OTHER, one, NOTHING, Answer.APPROVE, False, "", 1)


def _other_site(one: Request) -> Decision:
    theirs = Decision.sign(OTHER, one, NOTHING, Answer.APPROVE, False, "", 1)
    return replace(theirs, site=KEY.verify_key.site_id)


def _other_request(one: Request) -> Decision:
    return Decision.sign(KEY, replace(one, analyst="other"), NOTHING, Answer.APPROVE, False, "", 1)


def _turned(one: Request) -> Decision:
    return replace(Decision.sign(KEY, one, NOTHING, Answer.REFUSE, False, "", 1), answer="approve")


def _unmarked(one: Request) -> Decision:
    return replace(Decision.sign(KEY, one, NOTHING, Answer.REFUSE, True, "", 1), seen=False)


def _other_place(one: Request) -> Decision:
    return Decision.sign(KEY, one, (1, b"x" * 32), Answer.APPROVE, False, "", 1)


FORGERIES: list[Callable[[Request], Decision]] = [
    _wrong_key,
    _other_site,
    _other_request,
    _turned,
    _unmarked,
    _other_place,
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_forged_decision_does_not_count(book: RequestBook, forge: Callable[[Request], Decision]) -> None:
    """Another key, site, request, answer, mark or place: each is named as not the operator's."""
    one = book.record(request())
    (place(book, one) / "decision-1").write_bytes(forge(one).encode())
    with pytest.raises(Unverified, match="decision-1 is not what this site's operator decided"):
        book.standing(one)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_bit_of_a_decision_can_be_changed(book: RequestBook, at: int, bit: int) -> None:
    """Any flipped bit is noticed."""
    one = book.record(request())
    data = bytearray(Decision.sign(KEY, one, NOTHING, Answer.APPROVE, False, "words", 1).encode())
    data[at % len(data)] ^= 1 << bit
    (place(book, one) / "decision-1").write_bytes(bytes(data))
    with pytest.raises(Unverified):
        book.standing(one)


def test_an_older_decision_cannot_be_played_again(book: RequestBook) -> None:
    """The approval before a refusal, copied behind it or put in its place, is refused; so is a refusal left out."""
    one = book.record(request())
    book.decide(KEY, one, Answer.APPROVE, 1)
    book.decide(KEY, one, Answer.REFUSE, 2)
    known = book.standing(one).known
    folder = place(book, one)
    shutil.copy(folder / "decision-1", folder / "decision-3")
    with pytest.raises(Unverified):
        book.standing(one, known)
    (folder / "decision-3").unlink()
    shutil.copy(folder / "decision-1", folder / "decision-2")
    with pytest.raises(Unverified):
        book.standing(one, known)
    (folder / "decision-2").unlink()
    with pytest.raises(Unverified, match=r"decision 2 .* is not in"):
        book.standing(one, known)
    (folder / "decision-1").unlink()
    with pytest.raises(Unverified):
        book.standing(one, known)


def test_two_chains_cannot_be_mixed(book: RequestBook) -> None:
    """A decision that this site signed after another first decision does not follow the one that is there."""
    one = book.record(request())
    book.decide(KEY, one, Answer.REFUSE, 1)
    other = Decision.sign(KEY, one, NOTHING, Answer.APPROVE, False, "", 2)
    (place(book, one) / "decision-2").write_bytes(
        Decision.sign(KEY, one, (1, other.hash), Answer.APPROVE, False, "", 3).encode()
    )
    with pytest.raises(Unverified, match="does not follow"):
        book.standing(one)


def test_the_operator_can_go_on_after_files_were_lost(book: RequestBook) -> None:
    """A new decision follows what the ledger remembers; what is left of the old files is kept beside it."""
    one = book.record(request())
    book.decide(KEY, one, Answer.APPROVE, 1)
    book.decide(KEY, one, Answer.REFUSE, 2)
    known = book.standing(one).known
    (place(book, one) / "decision-2").unlink()
    made = book.decide(KEY, one, Answer.APPROVE, 3, known=known)
    assert made.number == 3
    assert book.standing(one, known).state is State.APPROVED
    assert (place(book, one) / "before-1").exists()
    shutil.rmtree(place(book, one))
    book.record(one)
    assert book.decide(KEY, one, Answer.REFUSE, 4, known=(3, made.hash)).number == 4
    assert book.standing(one, (3, made.hash)).state is State.REFUSED


def test_an_altered_request_is_not_shown_and_not_served(book: RequestBook) -> None:
    """The id is the digest of what is asked: a request that reads otherwise than it runs cannot be made."""
    one, two = book.record(request()), book.record(request(b"harmless"))
    shutil.copy(place(book, two) / "request", place(book, one) / "request")
    assert book.all() == [two]
    with pytest.raises(Unverified, match="was altered"):
        book.get(one.id)
    (place(book, one) / "request").write_bytes(b"rubbish")
    with pytest.raises(Theirs, match="damaged"):
        book.find(one.id.hex())
    book.decide(KEY, one, Answer.REFUSE, 1)
    assert book.record(one).question == one.question, "asked again, it is written again"
    assert book.standing(one).state is State.REFUSED, "and what was decided stays"
    (place(book, one) / "request").unlink()
    assert book.record(one).question == one.question
    assert len(book.all()) == 2


def test_a_flood_displaces_only_unanswered_requests_of_the_same_coordinator(
    book: RequestBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most so many of one coordinator wait; the oldest makes room; what was decided and what others ask stays."""
    monkeypatch.setattr(module, "MAX_PENDING", 5)
    decided = book.record(request(b"decided", 0))
    book.decide(KEY, decided, Answer.REFUSE, 1)
    other = book.record(request(b"other", 1, coordinator=SECOND))
    for at in range(12):
        book.record(request(b"flood %d" % at, 10 + at))
    left = [one.question for one in book.all()]
    assert left == [b"decided", b"other", *(b"flood %d" % at for at in range(7, 12))]
    fresh = RequestBook(book.folder.parent, KEY.verify_key)  # as after a restart
    fresh.record(request(b"one more", 99))
    assert b"flood 7" not in [one.question for one in fresh.all()]
    assert other in fresh.all()
    assert fresh.pending() == 6


def test_what_is_too_long_is_refused(book: RequestBook) -> None:
    """A descriptor beyond the limit is refused with its size and never written; so is a reason that is too long."""
    with pytest.raises(Refused, match="1048577"):
        book.record(request(bytes(2**20 + 1)))
    assert not book.folder.exists()
    one = book.record(request())
    with pytest.raises(Misuse, match="at most 400"):
        book.decide(KEY, one, Answer.REFUSE, 1, why="x" * 401)
    assert book.standing(one).state is State.PENDING


def test_requests_are_found_by_the_beginning_of_their_id(book: RequestBook) -> None:
    """None, several or none at all: the message says where to look."""
    with pytest.raises(Misuse, match="no request begins"):
        book.find("ab")
    made = [book.record(request(b"%d" % at)) for at in range(20)]
    assert book.find(made[3].id.hex()[:12].upper()) == made[3]
    first = {one.id.hex()[0] for one in made}
    twice = next(letter for letter in first if sum(one.id.hex().startswith(letter) for one in made) > 1)
    with pytest.raises(Misuse, match="several requests begin"):
        book.find(twice)
    with pytest.raises(Misuse):
        book.find("")
    with pytest.raises(Misuse):
        book.find("../..")


def test_two_commands_at_the_same_moment(book: RequestBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two decisions with one number is told so; the first stays."""
    one = book.record(request())
    monkeypatch.setattr(RequestBook, "_latest", lambda self, request, known: NOTHING)
    book.decide(KEY, one, Answer.APPROVE, 1)
    with pytest.raises(Misuse, match="same moment"):
        book.decide(KEY, one, Answer.REFUSE, 2)
    monkeypatch.undo()
    assert book.standing(one).state is State.APPROVED


def test_a_crash_leaves_the_old_or_the_new(book: RequestBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted before its last step a request or a decision is not there, and the next try succeeds."""
    one = request()

    def dies(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        book.record(one)
    monkeypatch.undo()
    assert book.all() == []
    kept = book.record(one)
    monkeypatch.setattr(os, "link", dies)
    with pytest.raises(KeyboardInterrupt):
        book.decide(KEY, kept, Answer.APPROVE, 1)
    monkeypatch.undo()
    assert book.standing(kept).state is State.PENDING
    book.decide(KEY, kept, Answer.APPROVE, 2)
    assert book.standing(kept).state is State.APPROVED


def test_a_disk_that_takes_nothing(book: RequestBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision that is not durable is none, and the operator is told."""
    one = book.record(request())

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StorageError, match="nothing was decided"):
        book.decide(KEY, one, Answer.APPROVE, 1)
    monkeypatch.undo()
    assert book.standing(one).state is State.PENDING
