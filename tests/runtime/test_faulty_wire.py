"""Wires that lose, repeat, reorder, damage and lie: the right sum or none, and no failure where none is excused."""

from __future__ import annotations

from typing import Any

import pytest

from privfl.errors import PrivflError, Refused, RoundAborted, WireError
from privfl.runtime import Federation, Fit
from privfl.wires import Envelope, Faults
from tests.runtime.support import QUICK, SPEC, Watch, charged, federation


def attempt(fed: Federation, watch: Watch, **options: Any) -> Fit | None:
    """Train under watch; None if the protocol gave up. A wrong sum fails in the watch."""
    try:
        fit = fed.train(SPEC, **{**QUICK, **options}, observer=watch.observe)
    except (RoundAborted, Refused):
        fit = None
    assert all(len(left) == 1 for left in watch.uploads().values())
    if fit is not None:
        assert len(fit.transcript.verify()) == fit.rounds >= 1
        assert fit.privacy.epsilon <= QUICK["epsilon"]
        assert max(len(found) for found in charged(fed).values()) <= fit.privacy.uploads <= QUICK["rounds"]
    return fit


@pytest.mark.parametrize("seed", range(10))
def test_repetition_and_disorder_cost_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wire that keeps its contract (at least once, any order) never fails a round nor drops a site."""
    fed = federation(4, faults=Faults(duplicate=0.6, reorder=0.6, seed=seed))
    watch = Watch().install(monkeypatch).tap(fed)
    fit = attempt(fed, watch)
    assert fit is not None
    assert fit.dropped == {}
    assert [one.attempt for one in fit.transcript.verify()] == [0, 0, 0]
    assert {len(one.survivors) for one in fit.transcript.verify()} == {4}


def test_loss_and_damage_end_in_the_right_sum_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fourteen seeds of every fault at once, light and heavy: exact sums or a typed end, and both do occur."""
    opened = gave_up = 0
    watch = Watch().install(monkeypatch)
    for seed in range(14):
        heavy = 0.02 if seed % 2 else 0.12
        faults = Faults(drop=heavy, duplicate=0.3, reorder=0.3, corrupt=heavy / 2, seed=seed)
        fed = federation(5, faults=faults)
        watch.mail.clear()
        fit = attempt(fed, watch.tap(fed))
        opened, gave_up = opened + (fit is not None), gave_up + (fit is None)
    assert opened >= 3
    assert gave_up >= 1


@pytest.mark.parametrize("mode", ["voted", "complete"])
def test_a_site_whose_mail_is_lost_in_one_phase(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads of one site are swallowed in round 2: voted rounds go on, complete ones are tried again."""
    fed = federation(4)
    watch = Watch().install(monkeypatch).tap(fed)
    post, swallowed = fed._wire.post, 0
    victim = sorted(fed._sites)[0]

    def losing(sender: bytes, recipient: bytes, data: bytes) -> None:
        nonlocal swallowed
        if sender == victim and Envelope.decode(data).kind == "upload":
            swallowed += 1
            if swallowed == 2:
                return
        post(sender, recipient, data)

    monkeypatch.setattr(fed._wire, "post", losing)
    fit = attempt(fed, watch, mode=mode)
    assert fit is not None
    if mode == "voted":
        assert fit.dropped == {2: (fed.name_of(victim),)}
        assert fit.rounds == 3
    else:
        assert fit.dropped == {}
        assert [one.attempt for one in fit.transcript.verify()] == [0, 1]


@pytest.mark.parametrize("lie", ["other", "short", "long", "empty", "gone"])
def test_a_store_that_lies_about_vectors(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies that are not what was written leave their site out; the sum of the others stays exact."""
    fed = federation()
    watch = Watch().install(monkeypatch).tap(fed)
    load, bad = fed._wire.load, set[bytes]()

    def lying(name: bytes) -> bytes:
        data = load(name)
        uploads = {body: site for (_, site), left in watch.uploads().items() for _, body in left}
        if name in uploads and uploads[name] == sorted(fed._sites)[1]:
            bad.add(name)
            if lie == "gone":
                raise WireError("it is not there")
            flipped = bytes([data[0] ^ 1]) + data[1:]
            return {"other": flipped, "short": data[:-1], "long": data + b"\x00", "empty": b""}[lie]
        return data

    monkeypatch.setattr(fed._wire, "load", lying)
    fit = attempt(fed, watch)
    assert fit is not None
    assert bad
    assert fit.dropped == dict.fromkeys((1, 2, 3), (fed.name_of(sorted(fed._sites)[1]),))


def test_a_shelf_that_loses_a_vector_opens_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator's own store fails when it is read again: an error by name, no sum."""
    fed = federation(4)
    watch = Watch().install(monkeypatch)
    get = fed._shelf.get

    def failing(name: str) -> bytes:
        data = get(name)
        return data[:-1] + bytes([data[-1] ^ 1]) if "/blob/" in name else data

    monkeypatch.setattr(fed._shelf, "get", failing)
    with pytest.raises(PrivflError):
        fed.train(SPEC, **QUICK, observer=watch.observe)
    assert watch.sums == {}
