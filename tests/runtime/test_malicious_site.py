"""One site that answers with anything at all: the coordinator lives on, the others' sum stays exact."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from privfl_keys import Label, SealingKey

from privfl.entropy import SYSTEM
from privfl.errors import RoundAborted
from privfl.runtime import Federation
from privfl.runtime.post import Post, Refusal
from privfl.secagg import Advert
from tests.runtime.support import QUICK, SPEC, Watch, charged, federation

REPLIES = ("advert", "contributions", "confirmations", "joined", "upload", "vote", "release")
Sent = tuple[str, bytes, list[bytes]]


def rogue(fed: Federation, monkeypatch: pytest.MonkeyPatch, change: Callable[[str, bytes, list[bytes]], Sent]) -> bytes:
    """Let the first site's post send what ``change`` makes of its replies; returns its id."""
    villain, send = sorted(fed._sites)[0], Post.send

    def sending(
        post: Post, recipient: bytes, kind: str, payload: bytes, *, reply_to: bytes = b"", bodies: Any = ()
    ) -> bytes:
        if post.party.id == villain:
            kind, payload, bodies = change(kind, payload, [bytes(one) for one in bodies])
        return send(post, recipient, kind, payload, reply_to=reply_to, bodies=bodies)

    monkeypatch.setattr(Post, "send", sending)
    return villain


GARBAGE: dict[str, Callable[[str, bytes, list[bytes]], Sent]] = {
    "noise": lambda kind, payload, bodies: (kind, os.urandom(500), bodies),
    "another record": lambda kind, payload, bodies: (kind, Refusal("upload").encode(), bodies),
    "half": lambda kind, payload, bodies: (kind, payload[: len(payload) // 2], bodies),
    "a refusal that is none": lambda kind, payload, bodies: ("refused", b"\xff", []),
    "megabytes": lambda kind, payload, bodies: (kind, payload + bytes(1 << 20), bodies),
    "no body": lambda kind, payload, bodies: (kind, payload, []),
    "another body": lambda kind, payload, bodies: (kind, payload, [os.urandom(len(one)) for one in bodies]),
    "a body of another size": lambda kind, payload, bodies: (kind, payload, [one + b"\x00" for one in bodies]),
}


@pytest.mark.parametrize("kind", REPLIES)
def test_rubbish_in_any_reply(kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Every kind of rubbish in every kind of reply: rounds open exactly, at worst without that site."""
    caplog.set_level(logging.CRITICAL)
    watch = Watch().install(monkeypatch)
    for name, spoil in GARBAGE.items():
        if "body" in name and kind != "upload":
            continue
        with monkeypatch.context() as patch:
            fed = federation(5)
            villain = rogue(
                fed, patch, lambda had, *rest, spoil=spoil: spoil(had, *rest) if had == kind else (had, *rest)
            )
            fit = fed.train(SPEC, **{**QUICK, "rounds": 1}, observer=watch.observe)
        assert fit.rounds == 1, name
        verified = fit.transcript.verify()[0]
        assert len(verified.survivors) in (4, 5), name
        honest = {site.name for site in fed._sites.values()} - {fed.name_of(villain)}
        assert honest <= set(verified.survivors), name


def test_answers_in_another_s_name_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply counts for the site that was asked; naming another's request gets a site nowhere."""
    fed, watch = federation(5), Watch().install(monkeypatch)
    villain, send = sorted(fed._sites)[0], Post.send
    asked: list[bytes] = []

    def sending(post: Post, recipient: bytes, kind: str, payload: bytes, **named: Any) -> bytes:
        if post.party.id == villain and kind == "upload":
            for other in asked[-5:]:
                send(post, recipient, "refused", Refusal("in your name").encode(), reply_to=other)
            return send(post, recipient, kind, payload, **{**named, "reply_to": asked[-1]})
        sent = send(post, recipient, kind, payload, **named)
        if kind == "announce" and recipient != villain:
            asked.append(sent)
        return sent

    monkeypatch.setattr(Post, "send", sending)
    fit = fed.train(SPEC, **QUICK, observer=watch.observe)
    assert fit.dropped == dict.fromkeys((1, 2, 3), (fed.name_of(villain),))
    assert [one.attempt for one in fit.transcript.verify()] == [0, 0, 0]


def test_two_adverts_in_one_epoch_are_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second, different signed advert is kept with the first, and convicts its site of equivocation."""
    fed, watch = federation(5), Watch().install(monkeypatch)
    machine = fed._coordinator.machine
    receive = machine.receive_advert
    villain = sorted(fed._sites)[0]

    def twice(advert: Advert) -> None:
        receive(advert)
        if advert.site == villain:
            key = SealingKey.generate(SYSTEM).public.raw
            other = replace(advert, key=key)
            receive(replace(other, signature=fed._sites[villain].key.sign(Label.ADVERT, other.digest)))

    monkeypatch.setattr(machine, "receive_advert", twice)
    fit = fed.train(SPEC, **{**QUICK, "rounds": 1}, observer=watch.observe)
    ((first, second),) = fed._coordinator.evidence
    assert Advert.decode(first).site == Advert.decode(second).site == villain
    assert first != second
    assert fit.rounds == 1


def test_another_site_s_upload_is_not_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that sends its neighbour's signed upload as its own answer adds nothing to the sum."""
    fed, watch = federation(5), Watch().install(monkeypatch)
    seen: dict[str, tuple[bytes, list[bytes]]] = {}
    villain, send = list(fed._sites)[-1], Post.send  # the last to take its turn

    def sending(
        post: Post, recipient: bytes, kind: str, payload: bytes, *, reply_to: bytes = b"", bodies: Any = ()
    ) -> bytes:
        if kind == "upload" and post.party.id == villain and "other" in seen:
            payload, bodies = seen["other"]
        elif kind == "upload":
            seen["other"] = (payload, [bytes(one) for one in bodies])
        return send(post, recipient, kind, payload, reply_to=reply_to, bodies=bodies)

    monkeypatch.setattr(Post, "send", sending)
    fit = fed.train(SPEC, **QUICK, observer=watch.observe)
    assert fit.dropped == dict.fromkeys((1, 2, 3), (fed.name_of(villain),))


def test_enough_rogues_stop_the_round_and_nothing_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """More silent members than the protocol bears: an abort by name, paid for, no sum."""
    fed, watch = federation(5), Watch().install(monkeypatch)
    villains, send = sorted(fed._sites)[:3], Post.send

    def sending(post: Post, recipient: bytes, kind: str, payload: bytes, **named: Any) -> bytes:
        if post.party.id in villains and kind == "vote":
            payload = b""
        return send(post, recipient, kind, payload, **named)

    monkeypatch.setattr(Post, "send", sending)
    with pytest.raises(RoundAborted, match="fewer than 4 committee members voted"):
        fed.train(SPEC, **QUICK, observer=watch.observe)
    assert watch.sums == {}
    assert {len(found) for found in charged(fed).values()} == {3}
