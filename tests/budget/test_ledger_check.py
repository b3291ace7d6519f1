"""A ledger against public transcripts, as JSON, and as a picture: what an auditor does without a secret."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from privfl_keys import SigningKey

from privfl.budget import (
    Anchor,
    Book,
    Ledger,
    Limits,
    epsilon_at,
    export_json,
    history,
    match_transcripts,
    picture,
    read_ledger,
    text_plot,
    verify_export,
)
from privfl.budget.ledger_entries import Entry, Sealed
from privfl.budget.ledger_plot import sampled
from privfl.dp import Cost, Unit
from privfl.errors import Misuse, Unverified
from privfl.secagg import Transcript
from tests.budget.ledgers import KEY, NEXT_POLICY, OTHER, POLICY, START, charge, limits, made, rewrite, signed
from tests.budget.rounds import rounds

Made = tuple[Path, SigningKey, list[Transcript]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two rounds, each charged before it was computed."""
    path = tmp_path_factory.mktemp("run") / "patients.db"
    return path, *rounds(path)


def named(transcripts: list[Transcript]) -> list[tuple[str, Transcript]]:
    """With names, as the command line gives them."""
    return [(f"round-{at}", transcript) for at, transcript in enumerate(transcripts, 1)]


def test_every_upload_is_found_charged(run: Made) -> None:
    """The site's own headers only; other sites' are none of this ledger's business."""
    path, key, transcripts = run
    assert match_transcripts(read_ledger(path, key.verify_key), named(transcripts)) == 2
    assert match_transcripts(read_ledger(path), []) == 0


def test_a_truncated_ledger_is_named_by_the_transcripts(run: Made) -> None:
    """No anchor is needed: the heads that the site signed into its uploads are missing."""
    path, _, transcripts = run
    rows = [(entry.seq, sealed) for entry, sealed in zip(*books(path), strict=True)]
    for kept in (1, 2):
        with pytest.raises(Unverified, match=r"round-1: .* round 1, attempt 0 carries the head .* cut off"):
            match_transcripts(Book.read(rows[:kept]), named(transcripts))
    with pytest.raises(Unverified, match=r"round-2: .* round 2, attempt 0 carries the head .* older or another"):
        match_transcripts(Book.read(rows[:4]), named(transcripts))


def books(path: Path) -> tuple[list[Entry], list[Sealed]]:
    """Entries and seals of a file."""
    book = read_ledger(path)
    return book.entries, book.seals


def test_an_upload_that_was_never_charged(tmp_path: Path) -> None:
    """The head is in the chain, the slot is not."""
    path = tmp_path / "patients.db"
    _, transcripts = rounds(path, 1, reserve=False)
    with pytest.raises(Unverified, match=r"round-1: .* was never charged in this ledger"):
        match_transcripts(read_ledger(path), named(transcripts))


def test_a_refund_of_what_was_used_is_named(run: Made, tmp_path: Path) -> None:
    """A site that takes back what it sent; the refund is the bad entry."""
    path, key, transcripts = run
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())

    def refunded(rows: list[tuple[int, bytes, bytes]]) -> list[tuple[int, bytes, bytes]]:
        entry = Entry.decode(rows[-1][1])  # the settlement of round 2
        return [*rows[:-1], signed(replace(entry, kind="refund"), key)]

    rewrite(copy, refunded)
    book = read_ledger(copy)
    with pytest.raises(Unverified, match=r"entry 5 \(refund, .*refunds a reservation that was used"):
        match_transcripts(book, named(transcripts))


def test_a_charge_that_came_too_late(tmp_path: Path) -> None:
    """Reserved only after the upload's head was signed."""
    path = tmp_path / "patients.db"
    key, transcripts = rounds(path, 1, reserve=False)
    with Ledger.open(path, key) as ledger:
        ledger.reserve(replace(charge(1), reference=transcripts[0].announcement.h0), START + 5)
    with pytest.raises(Unverified, match=r"entry 2 \(reserve, .*charged only after round-1"):
        match_transcripts(read_ledger(path), named(transcripts))


def test_a_forged_transcript_says_nothing_about_the_site(run: Made) -> None:
    """Only what the site itself signed counts."""
    path, _, transcripts = run
    book, t = read_ledger(path), transcripts[0]
    headers = tuple(replace(header, ledger_head=b"x" * 32) for header in t.headers)
    with pytest.raises(Unverified, match="signature"):
        match_transcripts(book, [("forged", replace(t, headers=headers))])
    with pytest.raises(Unverified, match="of another announcement"):
        match_transcripts(book, [("mixed", replace(t, headers=transcripts[1].headers))])


def test_an_export_is_deterministic_and_verifies(tmp_path: Path) -> None:
    """The same bytes from the same ledger; the auditor gets back all that was in it."""
    book = read_ledger(made(tmp_path / "patients.db"))
    data = export_json(book)
    assert data == export_json(read_ledger(tmp_path / "patients.db")) == export_json(verify_export(data).book)
    assert verify_export(data, KEY.verify_key, book.anchor).book.entries == book.entries
    document = json.loads(data)
    assert document["ledger"][1]["limits"]["budget"]["epsilon"] == "5.0"
    assert document["ledger"][2]["costs"]["record"] == ["0.1", "0"]
    assert document["spent"]["record"] == ["0.4", "0"]
    assert (document["counts"]["reserve"], document["open"]) == (4, 1)
    assert "." in document["ledger"][2]["costs"]["record"][0]
    with pytest.raises(Unverified, match="is the ledger of site"):
        verify_export(data, OTHER.verify_key)
    with pytest.raises(Unverified, match="ends with entry 8, and entry 9"):
        verify_export(data, None, Anchor(9, bytes(32)))


def _set(document: dict[str, Any], *path: str | int, to: Any) -> None:
    for step in path[:-1]:
        document = document[step]  # type: ignore[index]
    document[path[-1]] = to  # type: ignore[index]


@pytest.mark.parametrize(
    ("where", "to", "words"),
    [
        (("ledger", 4, "costs", "record"), ["0", "0"], r"entry 4 \(reserve, .*its words do not say"),
        (("ledger", 1, "limits", "budget", "epsilon"), "1.0", r"entry 1 \(policy, .*its words"),
        (("ledger", 3, "at"), "2026-01-02", r"entry 3 \(settle, .*its words"),
        (("ledger", 3, "more"), 1, r"entry 3 \(settle, .*its words"),
        (("ledger", 3, "signature"), "00" * 64, r"entry 3 \(settle, .*signature is not this site's"),
        (("ledger", 3, "body"), "zz", r"entry 3 of the export has no signed bytes"),
        (("ledger", 3), {}, r"entry 3 of the export has no signed bytes"),
        (("ledger", 3), 5, r"no export"),
        (("spent", "record"), ["0.3", "0"], r"words around the entries"),
        (("population",), "others", r"words around the entries"),
        (("format",), "privfl ledger export 2", r"no export"),
        (("ledger",), [], r"the ledger is empty"),
    ],
)
def test_an_edited_export(where: tuple[str | int, ...], to: Any, words: str, tmp_path: Path) -> None:
    """Whatever is changed, in the words or in the signed bytes."""
    document = json.loads(export_json(read_ledger(made(tmp_path / "patients.db"))))
    _set(document, *where, to=to)
    with pytest.raises(Unverified, match=words):
        verify_export((json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff", b"null", b'{"format": "privfl ledger export 1"}'])
def test_what_is_no_export(data: bytes) -> None:
    """Named with the next step; nor is one that repeats a key or ends early."""
    with pytest.raises(Unverified, match="no export of a ledger"):
        verify_export(data)


def test_an_export_with_doubled_or_missing_parts(tmp_path: Path) -> None:
    """Parsers that differ on a repeated key must not see different ledgers."""
    data = export_json(read_ledger(made(tmp_path / "patients.db")))
    doubled = data.replace(b'"population"', b'"population": "x",\n "population"', 1)
    with pytest.raises(Unverified, match="words around"):
        verify_export(doubled)
    document = json.loads(data)
    del document["ledger"][4]
    with pytest.raises(Unverified, match=r"entry 5 .*stored as number 4"):
        verify_export(json.dumps(document).encode())


def test_epsilon_over_time(tmp_path: Path) -> None:
    """One point per change of what is spent, refunds down again, against the budget of the time."""
    with Ledger.create(tmp_path / "x.db", KEY, federation="north", population="patients", now=START) as ledger:
        assert text_plot(read_ledger(ledger.path)).startswith("There is no budget")
        ledger.use(POLICY, 1, limits(1), START)
        for number in range(5):
            ledger.reserve(charge(number), START + 3_600_000 * number)
        ledger.refund(charge(4).reference, START + 5 * 3_600_000)
        ledger.use(NEXT_POLICY, 2, limits(2), START + 6 * 3_600_000)
    book = read_ledger(tmp_path / "x.db")
    points = history(book)
    assert [int(10 * point.spent.mu2) for point in points if point.spent] == [0, 1, 2, 3, 4, 5, 4, 4]
    assert [point.budget.mu2 for point in points if point.budget] == [1] * 7 + [2]
    assert sampled(points, 3)[-1] == points[-1]
    assert epsilon_at(Cost(0), 1e-5) == 0
    assert epsilon_at(None, 1e-5) == epsilon_at(Cost(0, 0.1), 1e-5) == float("inf")
    plot = text_plot(book, 40, 8)
    assert len(plot.splitlines()) == 10
    assert plot.count("*") == 40
    assert max(map(len, plot.splitlines())) <= 49
    assert "2026-01-01 00:00" in plot


def test_pictures(tmp_path: Path) -> None:
    """As PNG and SVG; nothing to plot, and other kinds, are named."""
    book = read_ledger(made(tmp_path / "patients.db"))
    assert picture(book, "png").startswith(b"\x89PNG")
    assert b"<svg" in picture(book, "svg")
    with pytest.raises(Misuse, match="not as 'gif'"):
        picture(book, "gif")
    with Ledger.create(tmp_path / "x.db", KEY, federation="north", population="patients", now=START) as ledger:
        ledger.use(POLICY, 1, Limits(Unit.RECORD, None, noiseless=True), START)
    with pytest.raises(Misuse, match="no budget to plot against"):
        picture(read_ledger(tmp_path / "x.db"), "png")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(Misuse, match=r"privfl\[plots\]"):
        picture(read_ledger(made(tmp_path / "patients.db")), "png")
