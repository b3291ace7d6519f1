"""Profiles: what they hold, who may sign them, and that nothing in them can be changed unseen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from privfl_analytics.monitor import Profile, SignedProfile, again, profile_queries, profile_study
from privfl_analytics.monitor.study import SCORE_BINS
from privfl_analytics.statistics.profile import ProfileCounts
from privfl_analytics.study import Study
from privfl_analytics.view import Score, View
from privfl_keys import Member, Roster, SigningKey

from privfl.entropy import SYSTEM
from privfl.errors import Malformed, Misuse, Refused, Unverified
from privfl.tasks import Schema
from tests.analytics.monitor.profiles import SCHEMA, VIEW, patients, profile
from tests.analytics.reference import answer

KEYS = {name: SigningKey.generate(SYSTEM) for name in ("a", "b", "c", "analyst", "coordinator", "auditor", "stranger")}


def roster(federation: str = "north", **more: str) -> Roster:
    """Three sites, an analyst, a coordinator, an officer."""
    roles = {"a": "site", "b": "site", "c": "site", "analyst": "analyst", "coordinator": "coordinator",
             "auditor": "compliance", **more}  # fmt: skip
    members = [Member(name, KEYS[name].verify_key.raw, (role,)) for name, role in roles.items()]
    return Roster.create(federation, members, graph_seed=SYSTEM.draw(32), valid_from=0, valid_until=10**15)


@pytest.fixture(scope="module")
def made() -> Profile:
    """A profile by sex, with noise."""
    return profile(patients(np.random.default_rng(1), 300), sd=4, by="sex")


def test_counts_are_those_of_the_rows() -> None:
    """Without noise every cell is numpy's; the cell outside the bounds, where nobody can be, is left out."""
    frame = patients(np.random.default_rng(2), 400)
    found = profile(frame)
    tables = {table.name: table for table in found.tables}
    assert set(tables) == {"age", "sex", "risk", "ill", "risk by ill"}
    want = [*np.histogram(frame["age"].dropna(), np.linspace(0, 100, 11))[0], frame["age"].isna().sum()]
    assert tables["age"].array.tolist() == want
    assert tables["age"].axes[0].labels[-1] == "missing"
    assert "outside" not in tables["age"].axes[0].labels
    assert tables["sex"].array.tolist() == [(frame["sex"] == one).sum() for one in ("f", "m")] + [0, 0]
    assert tables["risk by ill"].array.shape == (SCORE_BINS + 1, 4)
    assert tables["risk by ill"].array[:, 1].sum() == frame["ill"].sum()
    assert found.positive == "True"
    assert found.sites == 3


def test_groups_come_first(made: Profile) -> None:
    """A grouped table adds up to what it is of."""
    table = next(one for one in made.tables if one.name == "age")
    assert table.group == "sex"
    assert table.axes[0].labels == ("f", "m", "other", "missing")
    assert table.array.shape == (4, 11)
    assert table.array.sum() == pytest.approx(300, abs=4 * 4 * np.sqrt(44))


def test_a_display_minimum_holds_in_the_profile_too() -> None:
    """No count below it is in the profile, nor in the answer that it was made from."""
    frame = patients(np.random.default_rng(3), 300)
    found = profile(frame, sd=3, least=20, scored=False, columns=("age",))
    values = found.tables[0].array
    assert ((values == 0) | (values >= 20)).all()
    assert (values == 0).any()
    assert found.tables[0].floor == 20


@pytest.mark.parametrize("who", ["analyst", "coordinator"])
def test_a_signed_profile_comes_back(made: Profile, who: str, tmp_path: Path) -> None:
    """Saved, loaded, verified against the roster: the same."""
    made.sign(KEYS[who]).save(tmp_path / "profile")
    found = SignedProfile.load(tmp_path / "profile", roster())
    assert found == made
    assert found.hash == made.hash
    assert "of 2023-11-14" in repr(found)


def test_a_changed_profile_is_refused(made: Profile, tmp_path: Path) -> None:
    """One count, the date, or any byte of the file."""
    signed = made.sign(KEYS["analyst"])
    table = made.tables[0]
    counts = (table.counts[0] + 1, *table.counts[1:])
    changed = replace(made, tables=(replace(table, counts=counts), *made.tables[1:]))
    for other in (changed, replace(made, made=made.made + 1), replace(made, model="model 2")):
        with pytest.raises(Unverified, match="did not sign this profile, or it was changed"):
            SignedProfile(other, signed.signer, signed.signature).verify(roster())
    data = bytearray(signed.encode())
    for at in range(0, len(data), 97):
        broken = bytes(data[:at]) + bytes([data[at] ^ 1]) + bytes(data[at + 1 :])
        (tmp_path / "profile").write_bytes(broken)
        with pytest.raises((Malformed, Unverified)):
            SignedProfile.load(tmp_path / "profile", roster())
    with pytest.raises(Misuse, match="there is no file"):
        SignedProfile.load(tmp_path / "none", roster())


def test_only_who_may_sign(made: Profile) -> None:
    """Strangers, sites and officers are refused, and so is another federation's roster."""
    with pytest.raises(Unverified, match="is not in roster"):
        made.sign(KEYS["stranger"]).verify(roster())
    with pytest.raises(Unverified, match="'a', who is neither analyst nor coordinator"):
        made.sign(KEYS["a"]).verify(roster())
    with pytest.raises(Unverified, match="neither analyst nor coordinator"):
        made.sign(KEYS["auditor"]).verify(roster())
    with pytest.raises(Refused, match="of federation 'north' and this roster of 'south'"):
        made.sign(KEYS["analyst"]).verify(roster("south"))


def test_odd_contents_do_not_decode(made: Profile) -> None:
    """A peer's profile with too few counts, edges that fall or noise that is no number is refused when it is read."""
    table = made.tables[0]
    lines = made.to_value()
    for at, value in ((4, table.counts[:-1]), (5, "much"), (5, "-1"), (5, "nan")):
        fields = list(table.to_value())
        fields[at] = value
        value_ = (*lines[:-1], (tuple(fields), *lines[-1][1:]))
        with pytest.raises((Unverified, Malformed)):
            Profile.from_value(value_)


def test_another_schema_is_refused_by_the_column(made: Profile) -> None:
    """Other bounds or classes mean other cells; another declared size does not matter."""
    made.check_schema(VIEW)
    columns = {name: column.model_dump() for name, column in SCHEMA.columns.items()}
    made.check_schema(View(Schema(records=9, columns=columns)))
    wider = {**columns, "age": {"lower": 0, "upper": 120}}
    with pytest.raises(Refused, match="'age' is declared otherwise now than when the profile was made on 2023-11-14"):
        made.check_schema(View(Schema(records=2000, columns=wider)))
    without = {name: column for name, column in columns.items() if name != "ill"}
    with pytest.raises(Refused, match="watches 'ill'"):
        made.check_schema(View(Schema(records=2000, columns=without)))


def test_a_score_s_coefficients_are_bound() -> None:
    """Another model under the same name is another column."""
    score = Score(name="model", weights={"age": 0.1}, intercept=-5)
    study = profile_study(SCHEMA, ["age"], score=score, label="ill")
    assert study.scores == (score,)
    view, frame = View(SCHEMA, (score,)), patients(np.random.default_rng(4), 50)
    answers = {one.name: answer(one.asked, SCHEMA, [frame], scores=(score,)) for one in study.queries}
    found = Profile.from_result(_Result(answers), view, federation="north", made=0, score="model", label="ill")
    later = again(found, SCHEMA)
    assert later.scores == (score,), "the profile brings its scores along"
    other = json.dumps([score.model_copy(update={"intercept": -4.0}).model_dump(mode="json")])
    with pytest.raises(Refused, match="'model' is declared otherwise"):
        again(replace(found, scores=other), SCHEMA)
    with pytest.raises(Malformed, match="scores cannot be read"):
        again(replace(found, scores='[{"name": 3}]'), SCHEMA)
    with pytest.raises(Misuse, match="'age' is no numeric column"):
        again(found, Schema(records=9, columns={"age": {"classes": ["young", "old"]}}))


def test_later_data_goes_into_the_same_cells(made: Profile) -> None:
    """The study that is asked again has the constructions of the first; it reads back from JSON, as sites read it."""
    later, first = again(made, SCHEMA), profile_study(SCHEMA, ("age", "sex"), score="risk", label="ill", by="sex")
    assert later.names == first.names
    for one, other in zip(later.queries, first.queries, strict=True):
        assert one.constructions(VIEW) == other.constructions(VIEW)
    assert later.purpose == "monitoring"
    assert Study.from_json(later.to_json()) == later


def test_what_cannot_be_watched_is_said() -> None:
    """Text, unknown columns, edges for nothing, a label of many classes."""
    schema = Schema(records=9, columns={"age": {"lower": 0, "upper": 9}, "code": {"max_length": 3},
                                        "stage": {"classes": [1, 2, 3]}})  # fmt: skip
    assert [one.name for one in profile_queries(schema)] == ["age", "stage"]
    with pytest.raises(Misuse, match="'code' is text"):
        profile_queries(schema, ["code"])
    with pytest.raises(Misuse, match="no column 'agee'"):
        profile_queries(schema, ["agee"])
    with pytest.raises(Misuse, match="edges are given for 'stage'"):
        profile_queries(schema, ["age"], edges={"stage": [1, 2]})
    with pytest.raises(Misuse, match="is a category and has classes"):
        ProfileCounts(column="stage", edges=(1.0, 2.0)).axes(View(schema))
    with pytest.raises(Misuse, match="no counts for a profile"):
        Profile.from_result(_Result({}), View(schema), federation="f", made=0)
    frame = patients(np.random.default_rng(5), 20)
    answers = {one.name: answer(one.asked, SCHEMA, [frame]) for one in profile_queries(SCHEMA, ["age"])}
    with pytest.raises(Misuse, match="3 is no class of 'ill'"):
        Profile.from_result(_Result(answers), VIEW, federation="f", made=0, score="risk", label="ill", positive=3)


class _Result:
    def __init__(self, answers: dict) -> None:
        self.answers = answers
