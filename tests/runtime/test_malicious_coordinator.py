"""A coordinator that asks for more than was agreed: each site refuses by itself and its account shows nothing spent."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from privfl_keys import Label, SigningKey, digest
from sklearn.linear_model import SGDClassifier

from privfl.budget import MemoryAccount
from privfl.codec import encode
from privfl.dp import Block, Release, Trust
from privfl.entropy import SYSTEM
from privfl.errors import BudgetExceeded
from privfl.learn import Averaging, Linear, Logistic, Schema, Task
from privfl.learn.planning import Descriptor
from privfl.runtime.post import Invitation
from privfl.secagg import SlotPlan, Upload
from tests.runtime.evil import Evil, compiled
from tests.runtime.support import SCHEMA, Watch, charged


@pytest.fixture
def evil() -> Evil:
    """Five sites under distributed terms, voted mode."""
    return Evil.make()


def test_the_honest_request_is_answered(evil: Evil) -> None:
    """The request that all the others are variations of gets an upload and one charge."""
    announcement = evil.announce()
    reply = evil.invite(announcement)
    assert reply is not None
    assert reply.kind == "upload"
    assert charged(evil.fed)[evil.fed.name_of(evil.ids[0])] == [announcement.h0]


# -- announcements that any coordinator can make ------------------------------------------------------

LAWFUL: dict[str, tuple[dict[str, Any], str]] = {
    "another length": ({"length": 7}, "ring or length"),
    "a wider ring": ({"bits": 63, "word": 64}, "ring or length"),
    "a narrower ring": ({"bits": 16, "word": 16}, "ring or length"),
    "another word": ({"word": 64}, "ring or length"),
    "fewer survivors": ({"min_survivors": 3}, "below this site's policy"),
    "another policy": ({"policy": b"q" * 32}, "another policy"),
    "complete mode": ({"complete": True}, "does not allow complete mode"),
    "another task": ({"task": b"t" * 32}, "not the one that the announcement names"),
    "another model": ({"inputs": b"m" * 32}, "not the one that the announcement names"),
    "a deadline that has passed": ({"deadline": 1}, "deadline has passed"),
}


@pytest.mark.parametrize("case", LAWFUL)
def test_announcements_against_the_terms(case: str, evil: Evil) -> None:
    """What breaks a site's own terms is refused by name, before anything is charged or computed."""
    changes, words = LAWFUL[case]
    evil.refused(words, announcement=evil.announce(**changes))


def test_a_site_outside_the_cohort_does_not_take_part(evil: Evil) -> None:
    """An announcement without this site is nothing it uploads for."""
    evil.refused("not in the announced cohort", announcement=evil.announce(cohort=evil.ids[1:]))


# -- announcements that only a dishonest machine signs ------------------------------------------------

FORGED: dict[str, tuple[dict[str, Any], str]] = {
    "survivors below the roster's bound": ({"min_survivors": 2}, "min_survivors 2 is outside"),
    "survivors above the cohort": ({"min_survivors": 6}, "min_survivors 6 is outside"),
    "a lower threshold": ({"threshold": 2}, "threshold 2 is not"),
    "a higher threshold": ({"threshold": 5}, "threshold 5 is not"),
    "an impossible word": ({"word": 24, "bits": 20}, "not possible"),
    "more bits than the word": ({"bits": 40, "word": 32}, "not possible"),
    "another epoch record": ({"record": b"r" * 32}, "another epoch record"),
    "a sequence number that stands still": ({"seq": 0}, "does not rise"),
    "a sequence number far ahead": ({"seq": 5000}, "sequence number"),
    "a round far ahead": ({"round": 5000}, "jumps more than"),
    "an oversized cohort": ({"cohort": b"".join(bytes([n]) * 32 for n in range(200))}, "holds sites outside the epoch"),
    "a site twice": ({}, "duplicates"),
}


@pytest.mark.parametrize("case", FORGED)
def test_announcements_against_the_protocol(case: str, evil: Evil) -> None:
    """A coordinator that patches its own machine gains nothing."""
    changes, words = FORGED[case]
    honest = evil.announce()
    if case == "a site twice":
        changes = {"cohort": honest.cohort[:32] + honest.cohort}
    evil.refused(words, announcement=evil.forge(honest, **changes))


@pytest.mark.parametrize("who", ["a stranger", "a site", "nobody"])
def test_announcements_that_no_coordinator_signed(who: str, evil: Evil) -> None:
    """The announcement's own signature counts, not only the envelope's."""
    honest = evil.announce()
    if who == "nobody":
        forged = replace(honest, nonce=b"n" * 32)
    else:
        key = SigningKey.generate(SYSTEM) if who == "a stranger" else evil.fed._sites[evil.ids[1]].key
        forged = evil.forge(honest, key, coordinator=key.verify_key.site_id)
    evil.refused(announcement=forged)


def test_replayed_slots(evil: Evil) -> None:
    """The same announcement gets the same bytes and no charge; an older or different one for the slot is refused."""
    older = evil.announce((1, 0))
    first = evil.announce((1, 1))
    answers = [evil.invite(first) for _ in range(3)]
    assert {answer.payload for answer in answers if answer} == {answers[0].payload}  # type: ignore[union-attr]
    assert {answer.body() for answer in answers if answer} == {answers[0].body()}  # type: ignore[union-attr]
    assert charged(evil.fed)[evil.fed.name_of(evil.ids[0])] == [first.h0]
    evil.refused("is not after", announcement=older)
    evil.refused("is not after", announcement=evil.forge(first, nonce=b"n" * 32, seq=first.seq + 1))
    evil.refused("is not after", announcement=evil.announce((1, 1)))
    later = evil.announce((2, 0))
    reply = evil.invite(later)
    assert reply is not None
    assert reply.kind == "upload"
    evil.refused("is not after", announcement=first)


# -- tasks that are not what was agreed ---------------------------------------------------------------


def sigma_scaled(release: Release, factor: float) -> Release:
    """The release with other noise than its plan gives."""
    blocks = tuple(replace(block, sigma=block.sigma * factor) for block in release.blocks)
    return replace(release, blocks=blocks)


def with_block(release: Release, **changes: Any) -> Release:
    """The release with its first block changed."""
    return replace(release, blocks=(replace(release.blocks[0], **changes), *release.blocks[1:]))


def edited(task: Task, change: Callable[[Release], Release] | None = None, **fields: Any) -> bytes:
    """A task's descriptor with its release or other fields rewritten."""
    told = Descriptor.decode(task.descriptor())
    if change is not None:
        assert told.release is not None
        fields["release"] = change(told.release)
    return replace(told, **fields).encode()


LYING: dict[str, Callable[[Task], bytes]] = {
    "less noise": lambda task: edited(task, lambda release: sigma_scaled(release, 0.5)),
    "much less noise": lambda task: edited(task, lambda release: sigma_scaled(release, 0.1)),
    "a smaller sensitivity": lambda task: edited(task, lambda release: with_block(release, delta2=1)),
    "a larger bound": lambda task: edited(task, lambda release: with_block(release, x_max=2**50)),
    "another length of a block": lambda task: edited(task, lambda release: with_block(release, length=4)),
    "a block more": lambda task: edited(
        task, lambda release: replace(release, blocks=(*release.blocks, Block("more", 1, 1, 1, 100.0)))
    ),
    "a block less": lambda task: edited(task, lambda release: replace(release, blocks=release.blocks[:1])),
    "dithering that is not charged": lambda task: edited(task, lambda release: with_block(release, dithered=True)),
    "another clip than its release": lambda task: edited(task, spec=Logistic(label="ill", clip=3.0).to_json()),
    "a larger epsilon in words only": lambda task: edited(task, epsilon="1e9"),
    "more rounds for the same epsilon": lambda task: edited(task, rounds=400),
    "no noise": lambda task: edited(task, release=None),
    "no noise by another kind": lambda task: edited(
        task,
        release=None,
        epsilon=None,
        delta=None,
        kind="averaging",
        spec=Averaging(label="ill", estimator=SGDClassifier(), unprotected=True).to_json(),
    ),
    "a ring for fewer sites": lambda task: edited(task, sites=2),
    "a ring too small": lambda task: edited(task, bits=16, word=16),
    "more survivors than sites": lambda task: edited(task, lambda release: replace(release, min_survivors=9)),
    "another kind": lambda task: edited(task, kind="backdoor"),
    "a spec of another kind": lambda task: edited(task, kind="linear"),
    "a spec that is no mapping": lambda task: edited(task, spec="[]"),
    "a schema that is none": lambda task: edited(task, schema="{}"),
    "another optimiser": lambda task: edited(task, strategy="exfiltrate"),
    "infinite epsilon": lambda task: edited(task, epsilon="inf"),
    "an epsilon that is no number": lambda task: edited(task, epsilon="two"),
    "numbers in another spelling": lambda task: edited(task, epsilon="8.00"),
    "an estimator from elsewhere": lambda task: edited(
        task,
        kind="averaging",
        spec=Averaging(label="ill", estimator=SGDClassifier()).to_json().replace("sklearn.linear_model", "os.path"),
    ),
    "not a task": lambda task: encode(("task",)),
    "half a task": lambda task: task.descriptor()[:-10],
    "nothing": lambda task: b"",
}


@pytest.mark.parametrize("case", LYING)
def test_tasks_that_contradict_themselves(case: str, evil: Evil) -> None:
    """Each site recomputes sensitivity, noise, ring and cost from settings: what does not add up is refused.

    Every descriptor is correctly hashed into a correctly signed announcement: consistency is the only thing missing.
    """
    data = LYING[case](evil.task)
    announcement = evil.announce(task=digest(Label.TASK, data))
    evil.refused(announcement=announcement, task=data)


def priced(evil: Evil, task: Task, **plan: Any) -> dict[str, Any]:
    """An invitation to a consistent task under an honest announcement for it."""
    honest: SlotPlan = evil.plan(task, **plan)
    return {
        "announcement": evil.announce(plan=honest),
        "task": task.descriptor(),
        "model": evil.model(task),
    }


def test_noise_that_rests_on_more_survivors_than_the_slot(evil: Evil) -> None:
    """h counts survivors that the slot does not promise: each share of noise would be too small."""
    task = compiled(evil.fed, min_survivors=5)
    evil.refused("rests on 5 survivors", **priced(evil, task))


def test_noise_that_counts_fewer_colluders(evil: Evil) -> None:
    """c = 0 in the noise is raised to one, and a roster that bounds it higher is not undercut."""
    bigger = Evil.make(7)
    assert bigger.fed.roster.corrupt_bound == 2
    task = compiled(bigger.fed, colluders=1)
    bigger.refused("counts 1 colluding sites", **priced(bigger, task))


def test_distributed_noise_against_local_terms() -> None:
    """A site that agreed to its own noise only does not rest on others'."""
    evil = Evil.make(trust="local")
    evil.refused("asks for trust distributed", **priced(evil, compiled(evil.fed, trust="distributed")))


def test_local_noise_against_distributed_terms_is_welcome(evil: Evil) -> None:
    """A request may tighten."""
    reply = evil.invite(**priced(evil, compiled(evil.fed, trust=Trust.LOCAL)))
    assert reply is not None
    assert reply.kind == "upload"


def test_another_unit_than_agreed(evil: Evil) -> None:
    """Averaging protects sites; what it costs a record is charged by the terms' unit, or refused."""
    task = compiled(evil.fed, Averaging(label="ill", estimator=SGDClassifier(loss="log_loss")), epsilon=1e3)
    evil.refused(**priced(evil, task))


def test_noise_against_terms_without_and_the_reverse(evil: Evil) -> None:
    """A task with noise needs a budget; one without needs terms that say so."""
    bare = Averaging(label="ill", estimator=SGDClassifier(loss="log_loss"), unprotected=True)
    silent = compiled(evil.fed, bare, epsilon=None, delta=None)
    evil.refused("no noise", **priced(evil, silent))
    without = Evil.make(spec=bare, epsilon=None, delta=None)
    without.refused("no budget", **priced(without, compiled(without.fed)))


def test_a_cohort_larger_than_the_task_s_ring(evil: Evil) -> None:
    """A ring sized for three sites does not hold five."""
    task = compiled(evil.fed, sites=4, min_survivors=4)
    evil.refused("holds 4 sites", **priced(evil, task))


def test_a_task_for_another_schema(evil: Evil) -> None:
    """The coordinator learns that the schema is another, and nothing of the table."""
    other = Schema(records=200, columns={**SCHEMA.columns, "secret_column": {"lower": 0, "upper": 1}})  # type: ignore[arg-type]
    reason = evil.refused("another schema", **priced(evil, compiled(evil.fed, schema=other)))
    assert "secret_column" not in reason
    assert "age" not in reason


@pytest.mark.parametrize("schema", [SCHEMA.model_copy(update={"records": 1}), SCHEMA.model_copy(update={"version": 2})])
def test_a_schema_that_differs_in_public_numbers(schema: Schema, evil: Evil) -> None:
    """Declared size and version are part of the agreement."""
    evil.refused("another schema", **priced(evil, compiled(evil.fed, schema=schema, epsilon=900.0)))


MODELS: dict[str, Callable[[Evil], bytes]] = {
    "of another task": lambda evil: evil.model(compiled(evil.fed, Linear(label="age"))),
    "not finite": lambda evil: encode(("model", 0, b"\x00\x00\x00\x00\x00\x00\xf0\x7f" * 3)),
    "too short": lambda evil: encode(("model", 0, bytes(16))),
    "of a negative round": lambda evil: encode(("model", -1, bytes(24))),
    "not a model": lambda evil: encode((1, 2, 3)),
    "not even encoded": lambda evil: b"\xff" * 40,
}


@pytest.mark.parametrize("case", MODELS)
def test_models_that_are_none(case: str, evil: Evil) -> None:
    """A model is read before anything is charged, even if the announcement names it correctly."""
    model = MODELS[case](evil)
    evil.refused(announcement=evil.announce(plan=evil.plan(model=model)), model=model)


# -- budget ---------------------------------------------------------------------------------------------


def test_a_hungrier_task_is_charged_what_it_costs(evil: Evil) -> None:
    """A consistent task with a larger epsilon is priced by its own noise and does not fit the budget."""
    evil.refused("budget", **priced(evil, compiled(evil.fed, epsilon=16.0, rounds=1)))


@pytest.mark.parametrize("slots", [[(n, 0) for n in range(1, 12)], [(1, n) for n in range(12)]])
def test_nobody_gets_more_uploads_than_the_budget_holds(slots: list[tuple[int, int]], evil: Evil) -> None:
    """Rounds or attempts alike: after the planned uploads the site refuses for good, and its head stands still."""
    answers = [evil.invite(evil.announce(slot)) for slot in slots]
    kinds = [answer.kind for answer in answers if answer]
    assert kinds == ["upload"] * 4 + ["refused"] * (len(slots) - 4)
    account = evil.node().account
    assert isinstance(account, MemoryAccount)
    assert len(account.charges) == 4
    assert account.spent_epsilon() <= 8.0
    with pytest.raises(BudgetExceeded):
        account.reserve(replace(account.charges[-1], reference=b"h" * 32), evil.fed._clock.now())


def test_headers_carry_the_head_of_the_account(evil: Evil, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every upload commits to what its site has charged so far, this very slot included."""
    account, heads = evil.node().account, list[bytes]()
    reserve = account.reserve
    monkeypatch.setattr(account, "reserve", lambda *args: heads.append(reserve(*args)) or heads[-1])  # type: ignore[func-returns-value]
    for number in (1, 2):
        reply = evil.invite(evil.announce((number, 0)))
        assert reply is not None
        assert Upload.decode(reply.payload).header.ledger_head == heads[-1]
    assert len({bytes(32), *heads}) == 3


# -- requests of every other kind ----------------------------------------------------------------------

KINDS = (
    "open-epoch",
    "adverts",
    "contributions",
    "record",
    "announce",
    "ask-vote",
    "ask-abort",
    "ask-release",
    "shell",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("payload", [b"", b"\x00", b"{}", encode(("x", 1)), bytes(5000)], ids=range(5))
def test_nonsense_is_refused(kind: str, payload: bytes, evil: Evil) -> None:
    """Any bytes under any kind get a refusal; the node lives on."""
    reply = evil.ask(kind, payload)
    assert reply is not None
    assert reply.kind == "refused"
    answer = evil.invite(evil.announce())
    assert answer is not None
    assert answer.kind == "upload"


def test_damaged_invitations_never_crash_a_site(evil: Evil, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes changed anywhere in a signed invitation: refused, never an exception, never a free vector."""
    rng, watch = random.Random(5), Watch().install(monkeypatch)
    honest = Invitation(evil.announce(), evil.task.descriptor(), evil.model()).encode()
    for _ in range(150):
        data = bytearray(honest)
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if bytes(data) == honest:  # a change of nothing is an honest invitation
            continue
        reply = evil.ask("announce", bytes(data))
        assert reply is not None
        assert reply.kind == "refused"
    assert watch.vectors == {}
    assert charged(evil.fed)[evil.fed.name_of(evil.ids[0])] == []


def test_descriptors_with_random_damage_never_crash_a_site(evil: Evil) -> None:
    """A dishonest coordinator hashes and signs damaged task descriptors: refusals only."""
    rng = random.Random(6)
    for _ in range(60):
        data = bytearray(evil.task.descriptor())
        for _ in range(rng.choice((1, 1, 2, 4))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        evil.refused(announcement=evil.announce(task=digest(Label.TASK, bytes(data))), task=bytes(data))
