"""An attacker with the coordinator's key asks real sites for what their policies forbid.

Every site is a folder with a signed policy and a ledger on disk, asked over the folder wire. Each forbidden request
gets a refusal that the site signed and that names the cause; the ledger, opened and verified without any secret,
shows nothing spent; state, outbox and wire are as before; and no row was looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from privfl_keys import INSECURE_TEST_COST, Label, SigningKey, digest
from sklearn.linear_model import SGDClassifier

from privfl.budget import Mandate, Policy, Purpose, SignedPolicy
from privfl.budget.ledger_entries import Kind
from privfl.clock import SystemClock
from privfl.dp import Block, Release
from privfl.entropy import SYSTEM
from privfl.errors import Misuse, Refused
from privfl.homes.authority import AuthorityHome, read_request
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.officer import OfficerHome
from privfl.homes.site import SiteHome
from privfl.homes.trial import policy_for
from privfl.learn import Averaging, BoundData, Linear, Logistic, Schema, Task
from privfl.learn.planning import Descriptor
from privfl.runtime.post import OpenEpoch
from privfl.runtime.site_process import SiteProcess
from privfl.secagg import Announcement
from tests.processes.attacker import Attacker, Reply, spent_at
from tests.runtime.realm import PASSPHRASE, Realm, realm
from tests.runtime.support import SCHEMA, FixedClock

DAY = 86_400_000
SPEC = Logistic(label="ill", features=("dose",))
HOLDER, CAPPED = "coordinator", "alice"


def instant(moment: int) -> str:
    return datetime.fromtimestamp(moment // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Rows:
    """A site's bound data on which nothing but the public schema may be asked."""

    def __init__(self, bound: BoundData) -> None:
        self._bound, self.schema = bound, bound.schema
        self.looked: list[str] = []
        self.forbidden = True

    def __getattr__(self, name: str) -> Any:
        if self.forbidden:
            self.looked.append(name)
            raise AssertionError(f"{name} of the rows was looked at")
        return getattr(self._bound, name)


@dataclass
class Scene:
    """Sites in this process, each on its own folder and clock, and the attacker."""

    world: Realm
    clock: FixedClock
    analysts: dict[str, OfficerHome]
    sites: dict[str, SiteProcess]
    rows: dict[str, Rows]
    attacker: Attacker | None = None

    @property
    def evil(self) -> Attacker:
        """The attacker, with an epoch open."""
        assert self.attacker is not None
        return self.attacker

    def start(self, name: str) -> None:
        """Open a site's folder and let it serve in this process."""
        site = SiteHome.open(self.world.trial.sites[name], PASSPHRASE, self.clock.now())
        process = SiteProcess(site, self.clock, SYSTEM)
        self.rows[name] = Rows(process.node.bound)
        process.node._bound = self.rows[name]  # type: ignore[assignment]
        self.sites[name] = process

    def stop(self, name: str) -> None:
        """End a site as if its process had ended."""
        self.sites.pop(name).site.close()

    def serve(self) -> None:
        """Let every site answer what has come."""
        for process in self.sites.values():
            process.node.serve(0)

    def policy(self, name: str) -> bytes:
        """Hash of the policy that a site has."""
        return self.sites[name].site.policy.hash

    def compiled(self, spec: Any = SPEC, schema: Schema = SCHEMA, **options: Any) -> Task:
        """A consistent task."""
        return self.evil.compiled(spec, schema, **{"min_survivors": 4, **options})

    def announce(
        self, name: str, task: Task, /, slot: tuple[int, int] | None = None, forged: Any = None, **changes: Any
    ) -> Announcement:
        """An announcement under the site's policy; ``changes`` to the plan, ``forged`` behind the machine's back."""
        plan = {"policy": self.policy(name), "min_survivors": 4, **changes}
        made = self.evil.announce(task, plan.pop("policy"), slot, **plan)
        return self.evil.forge(made, **forged) if forged else made

    def invite(self, name: str, task: Task | None = None, /, **more: Any) -> Callable[[], Reply]:
        """Ask one site for an upload of ``task``; see :meth:`announce`."""
        task = task or self.compiled()
        data, mandate = more.pop("data", task.descriptor()), more.pop("mandate", b"")
        if data != task.descriptor():
            more["task"] = digest(Label.TASK, data)
        made = more.pop("announcement", None) or self.announce(name, task, **more)
        return lambda: self.evil.invite(name, made, data, self.evil.model(task), mandate)

    def refused(self, name: str, *words: str, reply: Callable[[], Reply]) -> str:
        """What :meth:`Attacker.refused` checks; state and outbox are as before as well, and no row was read."""
        process, rows = self.sites[name], self.rows[name]
        rows.looked.clear()
        machine, stored = process.node.machine.dump(), process.site.state.get("machine")
        outbox = sorted((self.world.trial.sites[name] / "outbox").glob("*"))
        uploads = process.node.uploads
        told = self.evil.refused(name, *words, reply=reply)
        assert rows.looked == []
        assert process.node.machine.dump() == machine, "a refusal changed the site's state"
        assert process.site.state.get("machine") == stored, "a refusal changed what is stored"
        assert sorted((self.world.trial.sites[name] / "outbox").glob("*")) == outbox
        assert process.node.uploads == uploads
        return told

    def answered(self, name: str, reply: Callable[[], Reply]) -> None:
        """The request is answered by an upload and charged with exactly one reservation that is settled."""
        home, rows = self.world.trial.sites[name], self.rows[name]
        before = spent_at(home)
        rows.forbidden = False
        got = reply()
        rows.forbidden = True
        assert got.kind == "upload", got.reason
        assert len(got.received.refs) == 1
        assert [entry.kind for entry in spent_at(home)[len(before) :]] == [Kind.RESERVE, Kind.SETTLE]


def enrolled(world: Realm, now: int) -> dict[str, OfficerHome]:
    """Two analysts in the roster; nobody has joined by that roster yet."""
    found = {}
    with AuthorityHome.open(world.trial.authority, PASSPHRASE) as authority:
        for name in ("alice", "bob"):
            home = world.trial.folder / name
            found[name] = OfficerHome.init(
                home, name, "trial", PASSPHRASE, now, role="analyst", cost=INSECURE_TEST_COST
            )
            request = read_request(home / "request")
            authority.approve(request, request.fingerprint, now)
        authority.sign_roster(now)
    return found


def joined(world: Realm, name: str, now: int, version: int, **changes: Any) -> None:
    """Give one site a policy of its own, signed by the officer."""
    fields = policy_for(SCHEMA.model_dump(mode="json"), now, **{"version": version, "federation": "trial", **changes})
    officer = OfficerHome.open(world.trial.officer, PASSPHRASE)
    path = world.trial.folder / f"policy-{name}-{version}"
    path.write_bytes(SignedPolicy.sign(Policy(**fields), officer.identity.key).encode())
    home = world.trial.sites[name]
    SiteHome.join(home, PASSPHRASE, now, rosters=world.trial.rosters, policy=path)


COLUMNS = {"dose": {"lower": -4, "upper": 4}, "ill": {"classes": [False, True]}}


def policies(now: int) -> dict[str, dict[str, Any]]:
    """What each site's compliance has signed."""
    return {
        "north": {
            "expires": instant(now + 3 * DAY),
            "min_survivors": 4,
            "min_sites": 5,
            "attempts_per_round": 2,
            "max_epsilon_per_upload": 3.0,
            "analysts": {HOLDER: 0.9, CAPPED: 0.2},
            "shares": {"training": 0.9},
            "modes": ["voted"],
            "tasks": {"logistic": {"clip": 0.5}, "averaging": {"clip": 1.0}},
            "columns": COLUMNS,
        },
        "south": {"trust": "local", "shares": {"training": 0.25, "analytics": 0.75}},
        "east": {"epsilon": 4.0, "window": {"days": 1, "lifetime_epsilon": 6.5, "lifetime_delta": 2e-5}},
        "west": {},
        "central": {"unit": "subject"},
    }


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Five sites with five policies in one epoch."""
    with realm(tmp_path_factory.mktemp("attacked"), 5) as world:
        clock = FixedClock(SystemClock().now())
        now = clock.now()
        analysts = enrolled(world, now)
        for name, changes in policies(now).items():
            joined(world, name, now, 2, **changes)
        CoordinatorHome.join(world.trial.coordinator, PASSPHRASE, now, rosters=world.trial.rosters)
        made = Scene(world, clock, analysts, {}, {})
        for name in world.trial.sites:
            made.start(name)
        made.attacker = Attacker(world, clock, made.serve)
        made.evil.open_epoch()
        try:
            yield made
        finally:
            made.evil.close()
            for name in list(made.sites):
                made.stop(name)


def test_the_honest_request_is_answered(scene: Scene) -> None:
    """What all the others are variations of is answered, charged once, and repeated without a second charge."""
    task = scene.compiled()
    made = scene.announce("north", task)
    scene.answered("north", scene.invite("north", task, announcement=made))
    entries = spent_at(scene.world.trial.sites["north"])
    again = scene.invite("north", task, announcement=made)()
    assert again.kind == "upload"
    assert spent_at(scene.world.trial.sites["north"]) == entries


# -- what the announcement says -----------------------------------------------------------------------------

ANNOUNCED: dict[str, tuple[dict[str, Any], str]] = {
    "survivors below the policy": ({"min_survivors": 3}, "min_survivors 3 is below this site's policy (4)"),
    "survivors below the roster": ({"forged": {"min_survivors": 2}}, "min_survivors 2 is outside"),
    "complete mode": ({"complete": True, "min_survivors": 5}, "does not allow complete mode"),
    "no policy": ({"policy": bytes(32)}, "another policy than this site's"),
    "a foreign policy": ({"policy": b"p" * 32}, "another policy than this site's"),
    "an attempt beyond the cap": ({"slot": "third"}, "attempt 2 (counted from 0) of one round; allowed: 2"),
    "a deadline that has passed": ({"deadline": 1}, "deadline has passed"),
    "a lower threshold": ({"forged": {"threshold": 2}}, "threshold 2 is not"),
    "a ring that the task does not have": ({"bits": 63, "word": 64}, "not that of the task"),
    "a round far ahead": ({"forged": {"round": 5000}}, "jumps more than"),
    "a sequence number that stands still": ({"forged": {"seq": 0}}, "does not rise"),
    "another model": ({"inputs": b"m" * 32}, "model is not the one that the announcement names"),
    "another task": ({"forged": {"task": b"t" * 32}}, "task is not the one that the announcement names"),
}


@pytest.mark.parametrize("case", ANNOUNCED)
def test_announcements_beyond_the_policy(case: str, scene: Scene) -> None:
    """Each is signed by the true coordinator, in the next round, under the site's own policy where not said."""
    changes, words = ANNOUNCED[case]
    changes = dict(changes)
    if changes.get("slot") == "third":
        changes["slot"] = (scene.evil.round + 1, 2)
    scene.refused("north", words, reply=scene.invite("north", **changes))


def test_a_cohort_of_two(scene: Scene) -> None:
    """Two sites are too few to hide in, whatever the number of survivors is said to be."""
    evil, north = scene.evil, scene.evil.names["north"]
    honest = scene.announce("north", scene.compiled())
    other = next(site for site in honest.sites if site != north)
    two = b"".join(sorted((north, other)))
    for least in (0, 2, 4):
        forged = evil.forge(honest, cohort=two, min_survivors=least)
        scene.refused("north", f"min_survivors {least} is outside", reply=scene.invite("north", announcement=forged))


def test_a_cohort_below_the_policy(scene: Scene) -> None:
    """Four of five would do for the protocol; this policy wants five."""
    north = scene.evil.names["north"]
    four = tuple(sorted([north, *[site for site in scene.evil.names.values() if site != north][:3]]))
    scene.refused("north", "4 site(s) in the cohort; allowed: 5", reply=scene.invite("north", cohort=four))
    others = tuple(sorted(site for site in scene.evil.names.values() if site != north))
    scene.refused("north", "not in the announced cohort", reply=scene.invite("north", cohort=others))


def test_replayed_rounds_and_attempts(scene: Scene) -> None:
    """A slot that was answered is answered with the same bytes only; earlier ones and other questions are refused."""
    task = scene.compiled(rounds=40)
    earlier = scene.announce("north", task)
    first = scene.announce("north", task, slot=(scene.evil.round, 1))
    scene.answered("north", scene.invite("north", task, announcement=first))
    replays = {
        "an earlier attempt": earlier,
        "the same slot with another nonce": scene.evil.forge(first, nonce=b"n" * 32, seq=first.seq + 1),
        "the same slot announced again": scene.announce("north", task, slot=first.slot),
        "an earlier round": scene.evil.forge(first, round=first.round - 1, seq=first.seq + 2),
        "the first round": scene.evil.forge(first, round=1, attempt=0, seq=first.seq + 3),
    }
    for announcement in replays.values():
        reply = scene.invite("north", task, announcement=announcement)
        scene.refused("north", "is not after", reply=reply)


def test_announcements_by_somebody_else(scene: Scene) -> None:
    """The coordinator's envelope does not carry what a stranger or a member of another role announces."""
    honest = scene.announce("north", scene.compiled())
    alice = scene.analysts["alice"].identity.key
    for key in (SigningKey.generate(SYSTEM), alice):
        forged = scene.evil.forge(honest, key, coordinator=key.verify_key.site_id)
        scene.refused("north", reply=scene.invite("north", announcement=forged))


# -- what the task says -------------------------------------------------------------------------------------

OTHER = SCHEMA.model_copy(update={"name": "other"})
WIDER = Schema(
    **{
        **SCHEMA.model_dump(mode="json"),
        "columns": {
            **SCHEMA.model_dump(mode="json")["columns"],
            "dose": {"lower": -400, "upper": 400, "center": 0, "scale": 1},
        },
    }
)
BARE = Averaging(label="ill", features=("dose",), estimator=SGDClassifier(loss="log_loss"), unprotected=True)

TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "another clip": ({"spec": Logistic(label="ill", features=("dose",), clip=0.75)}, "clip 0.75 for logistic; allowed"),
    "less noise": ({"epsilon": 8.0, "rounds": 1}, "for one upload at delta 1e-05; allowed: 3, by more noise"),
    "a kind that is not allowed": ({"spec": Linear(label="dose", features=("age",))}, "kind 'linear'; allowed"),
    "an unknown column": ({"spec": Logistic(label="ill")}, "column 'age'; allowed: dose, ill"),
    "a column nobody has": (
        {
            "schema": Schema(
                **{
                    **SCHEMA.model_dump(mode="json"),
                    "columns": {**SCHEMA.model_dump(mode="json")["columns"], "hiv": {"lower": 0, "upper": 1}},
                }
            ),
            "spec": Logistic(label="ill", features=("hiv",)),
        },
        "another schema",
    ),
    "another dataset": ({"schema": OTHER}, "another schema"),
    "another version": ({"schema": SCHEMA.model_copy(update={"version": 2})}, "another schema"),
    "another size": ({"schema": SCHEMA.model_copy(update={"records": 2000})}, "another schema"),
    "wider bounds": ({"schema": WIDER}, "another schema"),
    "missing noise": ({"spec": BARE, "epsilon": None, "delta": None}, "a sum without noise; allowed: releases with"),
    "noise that rests on more survivors": ({"min_survivors": 5}, "rests on 5 survivors"),
}


@pytest.mark.parametrize("case", TASKS)
def test_tasks_beyond_the_policy(case: str, scene: Scene) -> None:
    """Each is consistent in itself; the policy or the bound schema forbids it."""
    options, words = TASKS[case]
    told = scene.refused("north", words, reply=scene.invite("north", scene.compiled(**options)))
    assert "hiv" not in told


def edited(task: Task, change: Callable[[Release], Release] | None = None, **fields: Any) -> bytes:
    """A task's descriptor with its release or other fields rewritten."""
    told = Descriptor.decode(task.descriptor())
    if change is not None:
        assert told.release is not None
        fields["release"] = change(told.release)
    return replace(told, **fields).encode()


def blocks(release: Release, **changes: Any) -> Release:
    """The release with every block changed; a callable is applied to the value."""
    made = [
        replace(block, **{k: v(getattr(block, k)) if callable(v) else v for k, v in changes.items()})
        for block in release.blocks
    ]
    return replace(release, blocks=tuple(made))


FORGED: dict[str, Callable[[Task], bytes]] = {
    "half the noise": lambda task: edited(task, lambda r: blocks(r, sigma=lambda sigma: sigma / 2)),
    "next to no noise": lambda task: edited(task, lambda r: blocks(r, sigma=12.0)),
    "a smaller sensitivity": lambda task: edited(task, lambda r: blocks(r, delta2=1)),
    "a block that nobody charged": lambda task: edited(
        task, lambda r: replace(r, blocks=(*r.blocks, Block("more", 1, 1, 1, 100.0)))
    ),
    "no release": lambda task: edited(task, release=None),
    "fewer survivors in the noise": lambda task: edited(task, lambda r: replace(r, min_survivors=99)),
    "another epsilon in words": lambda task: edited(task, epsilon="0.001"),
    "more rounds in words": lambda task: edited(task, rounds=4000),
    "a larger clip in words": lambda task: edited(
        task, spec=Logistic(label="ill", features=("dose",), clip=9.0).to_json()
    ),
    "another kind": lambda task: edited(task, kind="exfiltrate"),
}


@pytest.mark.parametrize("case", FORGED)
def test_forged_releases(case: str, scene: Scene) -> None:
    """The site computes sensitivity, noise and cost from the settings; a descriptor that claims others is refused."""
    task = scene.compiled()
    scene.refused("north", reply=scene.invite("north", task, data=FORGED[case](task)))


# -- who asks -----------------------------------------------------------------------------------------------


def mandate(scene: Scene, task: Task, key: SigningKey, /, **changes: Any) -> bytes:
    """A signed mandate for ``task``, then changed."""
    fields: dict[str, Any] = {
        "federation": "trial",
        "task": task.id,
        "purpose": Purpose.TRAINING,
        "expires": scene.clock.now() + DAY,
    }
    return Mandate.sign(key, **{**fields, **changes}, entropy=SYSTEM).encode()


MANDATES: dict[str, tuple[Callable[[Scene, Task], bytes], str]] = {
    "by nobody": (lambda s, t: mandate(s, t, SigningKey.generate(SYSTEM)), "not signed by an analyst of this roster"),
    "by the coordinator": (lambda s, t: mandate(s, t, s.evil.key), "not signed by an analyst of this roster"),
    "for another task": (lambda s, t: mandate(s, t, s.analysts["alice"].identity.key, task=b"t" * 32), "another task"),
    "for another federation": (
        lambda s, t: mandate(s, t, s.analysts["alice"].identity.key, federation="elsewhere"),
        "for federation 'elsewhere'",
    ),
    "expired": (
        lambda s, t: mandate(s, t, s.analysts["alice"].identity.key, expires=s.clock.now()),
        "the mandate has expired",
    ),
    "by an analyst without a share": (
        lambda s, t: mandate(s, t, s.analysts["bob"].identity.key),
        "analyst 'bob', who is not listed",
    ),
    "for another purpose": (
        lambda s, t: mandate(s, t, s.analysts["alice"].identity.key, purpose=Purpose.MONITORING),
        "the mandate is for monitoring",
    ),
    "for a purpose without a share": (
        lambda s, t: mandate(s, t, s.analysts["alice"].identity.key, purpose=Purpose.ANALYTICS),
        "the mandate is for analytics",
    ),
    "no mandate at all": (lambda s, t: b"a mandate, surely", ""),
}


@pytest.mark.parametrize("case", MANDATES)
def test_mandates_that_mandate_nothing(case: str, scene: Scene) -> None:
    """Whoever is named as paying must have signed for this very task, and have a share."""
    make, words = MANDATES[case]
    task = scene.compiled()
    scene.refused("north", words, reply=scene.invite("north", task, mandate=make(scene, task)))


def test_an_altered_mandate(scene: Scene) -> None:
    """A mandate that alice signed for another purpose or time does not become hers by editing."""
    task = scene.compiled()
    true = Mandate.decode(mandate(scene, task, scene.analysts["alice"].identity.key, expires=scene.clock.now()))
    longer = replace(true, expires=scene.clock.now() + DAY)
    scene.refused("north", reply=scene.invite("north", task, mandate=longer.encode()))


# -- what is left -------------------------------------------------------------------------------------------


def test_a_cap_that_is_exhausted(scene: Scene) -> None:
    """What alice asks for is charged to alice; when her cap is spent, the coordinator's own still holds."""
    alice = scene.analysts["alice"].identity.key
    task, dear = scene.compiled(epsilon=2.0, rounds=1), scene.compiled(epsilon=2.9, rounds=1)
    scene.answered("north", scene.invite("north", task, mandate=mandate(scene, task, alice)))
    assert spent_at(scene.world.trial.sites["north"])[-2].analyst == "alice"
    for asked in (dear, dear):
        signed = mandate(scene, asked, alice)
        scene.refused("north", "the cap of alice", reply=scene.invite("north", asked, mandate=signed))
    scene.answered("north", scene.invite("north", scene.compiled(epsilon=1.0, rounds=1)))


def test_looser_trust_and_an_exhausted_share(scene: Scene) -> None:
    """Local terms do not rest on others' noise; with their own it is admitted until training's quarter is spent."""
    scene.refused("south", "trust distributed; allowed: local", reply=scene.invite("south", scene.compiled()))
    task = scene.compiled(epsilon=3.0, rounds=1, trust="local")
    scene.answered("south", scene.invite("south", task))
    for _ in range(2):
        scene.refused("south", "the share of training", reply=scene.invite("south", task))


def test_an_exhausted_budget(scene: Scene) -> None:
    """Whatever is asked after the budget is spent, under new rounds, attempts or tasks, is refused for good."""
    task = scene.compiled(epsilon=7.5, rounds=1)
    scene.answered("west", scene.invite("west", task))
    fresh = scene.evil.round + 1
    for asked, slot in (
        (task, (fresh, 0)),
        (task, (fresh, 1)),
        (scene.compiled(epsilon=4.0, rounds=1), (fresh + 1, 0)),
    ):
        told = scene.refused("west", "the budget does not admit", reply=scene.invite("west", asked, slot=slot))
        assert "left" in told


def test_an_exhausted_window_and_lifetime(scene: Scene) -> None:
    """A window lets go of what is old; the lifetime never does."""
    task, began = scene.compiled(epsilon=3.9, rounds=1), scene.clock.at
    try:
        scene.answered("east", scene.invite("east", task))
        scene.refused("east", "the budget of any 1 days", reply=scene.invite("east", task))
        scene.clock.at += DAY + 1
        scene.answered("east", scene.invite("east", task))
        scene.clock.at += DAY + 1
        scene.refused("east", "the lifetime budget does not admit", reply=scene.invite("east", task))
        scene.refused("east", "the lifetime budget", reply=scene.invite("east", scene.compiled(epsilon=3.0, rounds=1)))
    finally:
        scene.clock.at = began


def test_another_unit(scene: Scene) -> None:
    """A release per record promises nothing to a subject whose rows nobody bounded."""
    scene.refused("central", "per record", "per subject", reply=scene.invite("central", scene.compiled()))


# -- when, and under which policy ---------------------------------------------------------------------------


def test_an_expired_policy(scene: Scene) -> None:
    """From its expiry on the policy permits nothing, and before it is valid neither."""
    began = scene.clock.at
    try:
        scene.clock.at += 3 * DAY + 1000
        scene.refused("north", "policy has expired", reply=scene.invite("north"))
        scene.clock.at = began - 5 * DAY
        scene.refused("north", reply=scene.invite("north"))
    finally:
        scene.clock.at = began


def test_an_old_policy_and_a_purpose_without_a_share(scene: Scene) -> None:
    """After a new version a request under the old one is refused; the new one gives training no share."""
    before = scene.policy("central")
    scene.stop("central")
    joined(scene.world, "central", scene.clock.now(), 3, shares={"analytics": 1.0})
    scene.start("central")
    scene.refused("central", "another policy than this site's", reply=scene.invite("central", policy=before))
    words = "purpose training, which has no share; allowed: analytics"
    scene.refused("central", words, reply=scene.invite("central"))


DISAGREEING: dict[str, dict[str, Any]] = {
    "more colluders than the roster bounds": {"colluders": 2, "min_survivors": 4, "min_sites": 4},
    "more sites than the roster has": {"min_survivors": 3, "min_sites": 6},
    "more survivors than the roster has sites": {"min_survivors": 6, "min_sites": 6},
    "another federation": {"federation": "elsewhere"},
}


@pytest.mark.parametrize("case", DISAGREEING)
def test_a_roster_below_the_policy(case: str, scene: Scene) -> None:
    """The coordinator cannot bring a site into a roster that bounds less than its policy wants: joining refuses."""
    scene.stop("west")
    before = spent_at(scene.world.trial.sites["west"])
    try:
        with pytest.raises((Refused, Misuse)) as caught:
            joined(scene.world, "west", scene.clock.now(), 7, **DISAGREEING[case])
        assert 0 < len(str(caught.value)) < 1000
        assert spent_at(scene.world.trial.sites["west"]) == before
    finally:
        scene.start("west")


# -- every other kind of request ----------------------------------------------------------------------------

KINDS = ("announce", "open-epoch", "adverts", "contributions", "record", "ask-vote", "ask-abort", "ask-release", "x")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("payload", [b"", b"{}", bytes(3000)], ids=["nothing", "text", "zeros"])
def test_nonsense(kind: str, payload: bytes, scene: Scene) -> None:
    """Signed by the true coordinator, of no meaning: refused, and the site lives on."""
    scene.refused("north", reply=lambda: scene.evil.ask("north", kind, payload))


def test_an_epoch_that_does_not_follow(scene: Scene) -> None:
    """An old or far epoch would erase the present one's keys for nothing."""
    for number in (0, 1, 100_000):
        scene.refused(
            "north",
            "does not follow",
            reply=lambda n=number: scene.evil.ask("north", "open-epoch", OpenEpoch(n).encode()),
        )


def test_at_the_end_the_ledgers_hold_what_was_answered(scene: Scene) -> None:
    """After all of the above every ledger verifies without a secret and shows as many charges as uploads."""
    for name, process in scene.sites.items():
        kinds = [entry.kind for entry in spent_at(scene.world.trial.sites[name])]
        assert kinds.count(Kind.RESERVE) == kinds.count(Kind.SETTLE)
        if name == "north":
            assert kinds.count(Kind.RESERVE) == process.node.uploads


# -- real processes -----------------------------------------------------------------------------------------


def test_real_processes_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same against sites that are processes of their own: refused, nothing computed, and then one honest answer."""
    upload, marker = Task.upload, tmp_path / "computed"

    def seen(*args: Any, **named: Any) -> Any:
        marker.touch()
        return upload(*args, **named)

    monkeypatch.setattr(Task, "upload", seen)
    policy = {
        "analysts": {HOLDER: 1.0},
        "attempts_per_round": 2,
        "modes": ["voted"],
        "max_epsilon_per_upload": 3.0,
        "tasks": {"logistic": {"clip": 0.5}},
    }
    with realm(tmp_path / "realm", 4, policy=policy) as world:
        world.start_sites()
        evil = Attacker(world, SystemClock(), wait_ms=20_000)
        try:
            evil.open_epoch()
            spec, rule = Logistic(label="ill"), evil.home.policy.hash
            task = evil.compiled(spec, SCHEMA)

            def asked(
                task: Task, data: bytes | None = None, mandate: bytes = b"", **changes: Any
            ) -> Callable[[], Reply]:
                data, forged = data or task.descriptor(), changes.pop("forged", None)
                if data != task.descriptor():
                    changes["task"] = digest(Label.TASK, data)
                made = evil.announce(task, changes.pop("policy", rule), changes.pop("slot", None), **changes)
                made = evil.forge(made, **forged) if forged else made
                return lambda: evil.invite("north", made, data, evil.model(task), mandate)

            cases: list[tuple[str, Callable[[], Callable[[], Reply]]]] = [
                ("clip 2.0 for logistic", lambda: asked(evil.compiled(Logistic(label="ill", clip=2.0), SCHEMA))),
                ("for one upload", lambda: asked(evil.compiled(spec, SCHEMA, epsilon=8.0, rounds=1))),
                ("", lambda: asked(task, edited(task, lambda r: blocks(r, sigma=lambda sigma: sigma / 2)))),
                ("min_survivors 2 is outside", lambda: asked(task, forged={"min_survivors": 2})),
                ("another policy", lambda: asked(task, policy=b"p" * 32)),
                ("another schema", lambda: asked(evil.compiled(spec, OTHER))),
                ("kind 'linear'", lambda: asked(evil.compiled(Linear(label="dose", clip=2.0), SCHEMA))),
                ("attempt 2", lambda: asked(task, slot=(evil.round + 1, 2))),
                ("does not allow complete mode", lambda: asked(task, complete=True, min_survivors=4)),
                (
                    "not signed by an analyst",
                    lambda: asked(
                        task,
                        mandate=Mandate.sign(
                            evil.key,
                            federation="trial",
                            task=task.id,
                            purpose=Purpose.TRAINING,
                            expires=2**60,
                            entropy=SYSTEM,
                        ).encode(),
                    ),
                ),
            ]
            for words, make in cases:
                evil.refused("north", words, reply=make())
            assert not marker.exists(), "a refused request was computed"
            before = spent_at(world.trial.sites["north"])
            reply = asked(task)()
            assert reply.kind == "upload", reply.reason
            assert marker.exists()
            assert [entry.kind for entry in spent_at(world.trial.sites["north"])[len(before) :]][:1] == [Kind.RESERVE]
        finally:
            evil.close()
