"""A study as sites see it: rebuilt from its descriptor or refused, within its sensitivity, and summed to the oracle."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from itertools import pairwise, product
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from privfl_analytics import History, Query, Study, StudyQuestion
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import Bins, Construction, Keys, Linear, One, Sums, Tally
from privfl_analytics.descriptor import Descriptor
from privfl_analytics.noise import key_threshold
from privfl_analytics.states import read_state, state_text
from privfl_analytics.statistic import REGISTRY, Context, Noisy, State, Statistic
from privfl_analytics.view import View

from privfl.codec import encode
from privfl.dp import Cost, Trust, Unit
from privfl.entropy import SYSTEM
from privfl.errors import DataError, Malformed, Misuse, Refused
from privfl.tasks import FrameSource, Schema, SiteData
from tests.analytics import reference
from tests.analytics.studies import FRAMES, PLAIN, SCHEMA, asked, data_of, frame

# -- three small statistics: two stages, site by site, names -------------------------------------------------


class Twice(Statistic):
    """Σt around a centre that the first stage finds."""

    name: ClassVar[str] = "test_twice"
    summary: ClassVar[str] = "for tests"

    column: str

    def stages(self, view: View) -> int:
        return 2

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        center = None if state is None else float(state["center"])
        extra = () if state is None or "extra" not in state else (Tally(),)
        where = self.column if state is None else str(state.get("column", self.column))
        terms = (One(), Linear(column=where, center=center))
        more = (One(),) if state is not None and "more" in state else ()
        return (Sums(terms=(*terms, *more)), *extra)

    def decide(self, view: View, stage: int, sums: Sequence[Noisy], state: State | None) -> State:
        center, half = Linear(column=self.column).frame(view)
        count, total = sums[0].values
        return {"center": np.float64(np.clip(center + half * total / max(count, 1.0), 0, 100)).round(3)}

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        assert states[0] is None
        assert states[1] is not None
        rows = [Row("center", states[1]["center"]), Row("count", float(stages[1][0].values[0]))]
        return Answer("", self.name, (*rows, Row("rest", float(stages[1][0].values[1]))))

    def words(self) -> str:
        return f"the middle of {self.column}"


class BySite(Statistic):
    """A histogram of every site."""

    name: ClassVar[str] = "test_by_site"
    summary: ClassVar[str] = "for tests"
    local: ClassVar[bool] = True

    column: str

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        return (Tally(axes=(Bins(column=self.column, edges=(0, 50, 100)),)),)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        values = stages[0][0].values
        rows = [Row("count", float(value), {"site": str(at)}) for at, value in enumerate(values.sum(axis=1))]
        return Answer("", self.name, tuple(rows), details={"sd": stages[0][0].sd, "shape": list(values.shape)})

    def words(self) -> str:
        return f"{self.column} of every site"


class Named(Statistic):
    """Names of a text column's values."""

    name: ClassVar[str] = "test_names"
    summary: ClassVar[str] = "for tests"
    local: ClassVar[bool] = True

    column: str

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        return (Keys(column=self.column, slots=4),)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        rows = []
        for site, places in enumerate(stages[0][0].values):
            for count, *letters in places:
                text = "".join(chr(round(one * 1024)) for one in letters if one)
                rows += [Row("count", float(count), {"site": str(site), "name": text})] if text else []
        return Answer("", self.name, tuple(rows))

    def words(self) -> str:
        return f"names of {self.column}"


for _made in (Twice, BySite, Named):
    REGISTRY.pop(_made.name)  # only here, and only while a test runs


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for made in (Twice, BySite, Named):
        monkeypatch.setitem(REGISTRY, made.name, made)
    return


WHERE = "age >= 20 or sex == 'f'"
STUDY = Study(
    "all",
    (
        Query.parse(f"mean bmi by sex where {WHERE}"),
        Query().asking(Twice(column="age")).weighted(2),
        Query.parse("count by age/4, missing(bmi)"),
        Query().asking(BySite(column="age")),
        Query.parse("variance bmi"),
    ),
)
NAMES = Study("names", (Query().asking(Named(column="code")), Query.parse("count")))


def compiled(study: Study = STUDY, **change: Any) -> StudyQuestion:
    return study.compile(SCHEMA, **{"epsilon": 8.0, **PLAIN, **change})


def noiseless(study: Study = STUDY, **change: Any) -> StudyQuestion:
    return study.compile(SCHEMA, **{**PLAIN, "epsilon": None, "delta": None, "_without_noise": True, **change})


# -- what is public --------------------------------------------------------------------------------------


def test_what_a_policy_sees() -> None:
    question = compiled()
    assert question.kind == "study"
    assert question.statistics == ("count", "mean", "test_by_site", "test_twice", "variance")
    assert question.columns == ("age", "bmi", "sex")
    assert (question.stages, question.uploads, question.sites) == (3, 9, 3)
    assert [stage.own for stage in question.plan] == [False, False, True]
    assert [release.trust for release in question.releases] == [Trust.DISTRIBUTED, Trust.DISTRIBUTED, Trust.LOCAL]
    total = question.sum_at(2)
    assert (total.own, total.length) == (3, 3 * 4)


@pytest.mark.parametrize("change", [{}, {"unit": "subject"}, {"trust": "local"}, {"attempts": 1, "epsilon": 20.0}])
def test_a_site_rebuilds_the_same_question(change: dict) -> None:
    for study in (STUDY, NAMES):
        question = compiled(study, **change)
        rebuilt = StudyQuestion.from_descriptor(question.descriptor())
        assert rebuilt.descriptor() == question.descriptor()
        assert rebuilt.id == question.id
        assert rebuilt.releases == question.releases
        inputs = question.next_inputs(History())
        assert rebuilt.sum_of(inputs) == question.sum_of(inputs)
        assert rebuilt.costs(inputs) == question.costs(inputs)


def _value(name: str, value: Any) -> Any:
    """Another value for a field of the descriptor, one that the codec lets through."""
    if name == "schema":
        return Schema.from_json(value).model_copy(update={"records": 61}).to_json()
    if name == "study":
        return Study.from_json(value).with_queries(Query.parse("count as 'another'")).to_json()
    if name in ("delta", "sites"):
        return "1e-09" if name == "delta" else value - 1
    if name == "releases":
        return value[:-1]
    if isinstance(value, str):
        return {"distributed": "local", "record": "subject"}.get(value, "0.25")
    return None if value is None else value + 1


@pytest.mark.parametrize("name", [field.name for field in fields(Descriptor)])
def test_no_field_of_the_descriptor_can_be_changed_alone(name: str) -> None:
    """What would claim less noise, less sensitivity or another price; attempts are a mandate's to limit."""
    told = Descriptor.decode(compiled(NAMES).descriptor())
    changed = replace(told, **{name: _value(name, getattr(told, name))})
    if name == "attempts":
        assert StudyQuestion.from_descriptor(changed.encode()).uploads == 8
        return
    with pytest.raises((Malformed, Refused)):
        StudyQuestion.from_descriptor(changed.encode())


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", lambda block: block.name + "x"),
        ("length", lambda block: block.length + 1),
        ("delta2", lambda block: block.delta2 - 1),
        ("delta2", lambda block: block.delta2 + 1),
        ("x_max", lambda block: block.x_max + 1),
        ("x_max", lambda block: block.x_max // 2),
        ("sigma", lambda block: block.sigma * 0.9),
        ("dithered", lambda block: True),
        ("delta1", lambda block: 7),
    ],
)
@pytest.mark.parametrize("stage", [0, 2])
def test_no_block_of_a_release_can_be_changed(stage: int, field: str, change: Any) -> None:
    told = Descriptor.decode(compiled().descriptor())
    release = told.releases[stage]
    block = replace(release.blocks[0], **{field: change(release.blocks[0])})
    releases = list(told.releases)
    releases[stage] = replace(release, blocks=(block, *release.blocks[1:]))
    with pytest.raises(Malformed):
        StudyQuestion.from_descriptor(replace(told, releases=tuple(releases)).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"unit": Unit.SITE},
        {"trust": Trust.LOCAL},
        {"min_survivors": 4},
        {"colluders": 0},
    ],
)
def test_no_release_rests_on_something_else(change: dict) -> None:
    told = Descriptor.decode(compiled().descriptor())
    releases = (replace(told.releases[0], **change), *told.releases[1:])
    with pytest.raises(Malformed):
        StudyQuestion.from_descriptor(replace(told, releases=releases).encode())


def test_descriptors_that_are_none() -> None:
    told = Descriptor.decode(compiled().descriptor())
    for change in (
        {"study": told.study + " "},
        {"study": "[" * 5000},
        {"study": told.study.replace('"mean"', '"meen"')},
        {"study": told.study.replace('"bmi"', '"bmj"')},
        {"schema": told.schema.replace("\n", "")},
        {"epsilon": "nan"},
        {"epsilon": "8"},
        {"epsilon": None},
        {"epsilon": None, "delta": None},
        {"sites": 0},
        {"min_survivors": 0},
        {"attempts": 0},
        {"unit": "site"},
        {"key_delta": "1e-9"},
    ):
        with pytest.raises(Malformed):
            StudyQuestion.from_descriptor(replace(told, **change).encode())
    for data in (b"", b"x", encode(("study",)), encode(5)):
        with pytest.raises(Malformed):
            StudyQuestion.from_descriptor(data)


def test_persons_are_counted_by_groups_only_where_persons_are_protected() -> None:
    for study in (Study("s", (Query().count("subjects").group_by("sex"),)),):
        with pytest.raises(Misuse, match="unit='subject'"):
            compiled(study)
        compiled(study, unit="subject")


# -- inputs ----------------------------------------------------------------------------------------------


def later(question: StudyQuestion, state: object) -> bytes:
    """Inputs of the second stage with this state."""
    return encode(("study stage", 1, (state if isinstance(state, str) else state_text(state),)))  # type: ignore[arg-type]


def test_a_state_moves_parameters_only() -> None:
    question = compiled()
    read = question.read_inputs(later(question, {"center": 40.0}))
    assert read.constructions == (Sums(terms=(One(), Linear(column="age", center=40.0))),)
    for state in (
        {"center": 40.0, "extra": 1},
        {"center": 40.0, "more": 1},
        {"center": 40.0, "column": "bmi"},
        {"center": 40.0, "column": "none"},
        {"center": "x"},
        {},
        '{"center": 40.0}',
        '{"center":40.0,"center":40.0}',
        '{"center":NaN}',
        "[]",
        "[" * 5000,
        "",
    ):
        with pytest.raises(Malformed):
            question.read_inputs(later(question, state))


@pytest.mark.parametrize(
    "inputs",
    [
        b"",
        encode(None),
        encode(("study stage", 0, ())),
        encode(("study stage", 3, ())),
        encode(("study stage", -1, (None, None, None, None))),
        encode(("study stage", 0, (None, None, None))),
        encode(("study stage", 0, (None, '{"center":1}', None, None))),
        encode(("study stage", 0, (None, 5, None, None))),
        encode(("study stage", 1, (None,))),
        encode(("model", 0, b"")),
    ],
)
def test_inputs_of_something_else_are_refused(inputs: bytes) -> None:
    question = compiled()
    question.read_inputs(encode(("study stage", 0, (None,) * 4)))
    for ask in (question.read_inputs, question.sum_of, question.costs):
        with pytest.raises(Malformed):
            ask(inputs)
    with pytest.raises(Malformed):
        question.upload(inputs, data_of(FRAMES[0]), SYSTEM)


def test_states_are_canonical_json() -> None:
    state = {"b": np.arange(2.0), "a": [np.float64(0.1), 1, "x", None, True]}
    assert state_text(state) == '{"a":[0.1,1,"x",null,true],"b":[0.0,1.0]}'
    assert read_state(state_text(state)) == json.loads(state_text(state) or "")
    for odd in ({"a": math.nan}, {"a": object()}, {"a": {1, 2}}):
        with pytest.raises(Misuse):
            state_text(odd)


def test_another_schema_is_refused_before_anything_is_read() -> None:
    question = compiled()
    inputs = question.next_inputs(History())
    other = Schema(**{**dict(SCHEMA), "records": 61})
    with pytest.raises(DataError):
        question.contribution(inputs, data_of(FRAMES[0], other), SYSTEM)


# -- sensitivity and cost --------------------------------------------------------------------------------


def _vector(question: StudyQuestion, stage: int, table: pd.DataFrame) -> np.ndarray:
    states = [None if step == 0 else {"center": 40.0} for step in question.plan[stage].steps.values()]
    return question.contribution(question.inputs(stage, states), data_of(table), SYSTEM).astype(object)


@pytest.mark.parametrize("unit", ["record", "subject"])
def test_no_person_moves_a_block_by_more_than_is_charged(unit: str) -> None:
    """Every one of some odd rows (pairs of them for persons) is added to a table: exhaustive over the grid."""
    question = compiled(unit=unit)
    ages, bmis, sexes = (-5.0, 100.0, math.nan), (10.0, math.inf), ("f", None)
    rows = [
        {"patient": "new", "age": age, "bmi": bmi, "sex": sex, "ill": True, "stage": 1, "mean radius": 1.0, "code": "A"}
        for age, bmi, sex in product(ages, bmis, sexes)
    ]
    added = [[row] for row in rows] if unit == "record" else [[one, two] for one, two in pairwise(rows)]
    added += [[row, row, row] for row in rows[:3]] if unit == "subject" else []
    base = FRAMES[0]
    largest: dict[str, int] = {}
    for stage in range(question.stages):
        release = question.release(stage)
        assert release is not None
        before = _vector(question, stage, base)
        for more in added:
            table = pd.concat([base, pd.DataFrame(more).astype(base.dtypes.to_dict())], ignore_index=True)
            change, begin = _vector(question, stage, table) - before, 0
            for block in release.blocks:
                norm = int((change[begin : begin + block.length] ** 2).sum())
                assert norm <= block.delta2, block.name
                largest[block.name] = max(largest.get(block.name, 0), norm)
                begin += block.length
    # the claims are not idle: something comes within a fifth of each
    assert all(largest[block.name] >= 0.2 * block.delta2 for one in question.releases for block in one.blocks)


def test_blocks_are_charged_for_what_their_constructions_claim() -> None:
    for unit, rows in (("record", 1), ("subject", 2)):
        question = compiled(unit=unit)
        for stage, release in zip(question.plan, question.releases, strict=True):
            claims = [part.construction.delta2(question.view, rows) for part in stage.parts]
            assert [block.delta2 for block in release.blocks] == claims
            assert [block.length for block in release.blocks] == [
                part.construction.length(question.view) for part in stage.parts
            ]


def test_rare_names_are_paid_for_by_delta() -> None:
    question = compiled(NAMES, unit="subject")
    inputs = question.inputs(1, [None])
    release = question.release(1)
    assert release is not None
    assert question.plan[1].own
    rare = 1 - (1 - Fraction(question.delta0)) ** 2
    assert question.costs(inputs)[Unit.SUBJECT] == release.cost + Cost(0, rare)
    part, block = question.plan[1].parts[0], release.blocks[0]
    threshold = key_threshold(release, block, part, question.delta0, 2)
    # what one person adds (two rows), and the noise's upper tail beyond it
    from scipy.stats import norm

    sigma = release.sigma_site(block) / 1024
    assert norm.sf((threshold - 2) / sigma) <= question.delta0
    assert norm.sf((threshold - 2) / sigma) == pytest.approx(question.delta0, rel=0.01)


# -- from tables to answers ------------------------------------------------------------------------------


def test_without_noise_answers_are_those_of_the_pooled_rows() -> None:
    history, result = asked(noiseless())
    assert len(history) == 3
    view = STUDY.view(SCHEMA)
    for name, query in zip(STUDY.names, STUDY.queries, strict=True):
        if query.asked.local:
            continue
        told = reference.answer(
            query.asked, SCHEMA, FRAMES, by=query.axes(view), where=query.condition,
            context=Context(survivors=3, records=SCHEMA.records),
        )  # fmt: skip
        mine = result[name]
        assert [(row.what, row.at) for row in mine.rows] == [(row.what, row.at) for row in told.rows]
        for one, other in zip(mine.rows, told.rows, strict=True):
            assert (one.value is None) == (other.value is None)
            assert one.value is None or one.value == pytest.approx(other.value, rel=1e-12, abs=1e-12)
        assert (mine.sites, mine.records, mine.statistic) == (3, 60, query.asked.name)
    by_site = next(result[name] for name in STUDY.names if result[name].statistic == "test_by_site")
    assert [row.value for row in by_site.rows] == [25.0, 30.0, 1.0]
    assert by_site.details == {"sd": 0.0, "shape": [3, 4]}
    assert "no differential privacy" in str(result.privacy)


def test_names_leave_as_they_are_without_noise() -> None:
    _, result = asked(noiseless(NAMES))
    found = {(row.at["site"], row.at["name"]): row.value for row in result[NAMES.names[0]].rows}
    counts = {
        (str(at), str(name)): float(count)
        for at, table in enumerate(FRAMES)
        for name, count in table["code"].value_counts().items()
    }
    assert found == counts


def test_persons_count_with_their_rows_only() -> None:
    """Tables hold at most max_rows per patient, so nothing is cut; a row without a patient is left out."""
    lost = FRAMES[0].assign(patient=[None, *FRAMES[0]["patient"][1:]])
    _, result = asked(noiseless(Study("s", ("count",)), unit="subject"), (lost, *FRAMES[1:]))
    assert result["count rows"].value("count") == 55.0


def test_with_noise_sums_scatter_as_planned() -> None:
    question = compiled(Study("s", ("count by age[0, 25, 50, 75, 100], stage",)), epsilon=4.0)
    _, result = asked(question)
    _, exact = asked(noiseless(question.study))
    opened = question.opened(0, np.zeros(question.sum_at(0).length, dtype=np.int64), 2)
    ((_, noisy),) = question.noisy(opened)
    assert noisy.sd == pytest.approx(
        math.sqrt(2) * question.releases[0].sigma_site(question.releases[0].blocks[0]) / 1024
    )
    name = question.study.names[0]
    gaps = np.array([one.value - other.value for one, other in zip(result[name].rows, exact[name].rows, strict=True)
                     if one.value is not None and other.value])  # fmt: skip
    assert 0 < np.abs(gaps).max() < 6 * noisy.sd * math.sqrt(1.5)


def test_sites_of_their_own_stage_are_those_that_answered() -> None:
    question = compiled()
    length = question.plan[2].length(question.view)
    inputs = question.inputs(2, [None])
    total = np.zeros(question.sum_at(2).length, dtype=np.int64)
    for seat in (0, 2):
        vector = question.upload(inputs, data_of(FRAMES[seat]), SYSTEM, seat=seat)
        assert not vector[length : 2 * length].any()
        assert vector[seat * length : (seat + 1) * length].any()
        total += vector
    for seats in ((), (0, 2)):
        ((_, noisy),) = question.noisy(question.opened(2, total, 2, seats))
        assert noisy.values.shape == (2, 4)
    blank = question.blank(inputs, SYSTEM, seat=1)
    assert blank[length : 2 * length].any()
    assert not blank[:length].any()


def test_a_site_that_cannot_compute_names_nothing() -> None:
    question = compiled(NAMES)
    assert not question.blank(question.inputs(1, [None]), SYSTEM, seat=1).any()
    assert question.blank(question.inputs(0, [None]), SYSTEM).any()


def test_uploads_saturate_and_are_fresh() -> None:
    question = compiled()
    inputs = question.next_inputs(History())
    one, two = (question.upload(inputs, data_of(FRAMES[0]), SYSTEM) for _ in range(2))
    assert (one != two).mean() > 0.9
    schema = Schema(**{**dict(SCHEMA), "records": 1})
    small = Study("s", ("count",)).compile(schema, epsilon=100.0, **PLAIN)
    vector = small.contribution(small.next_inputs(History()), data_of(frame(40, 5), schema), SYSTEM)
    assert vector.tolist() == [16 * 1024]


# -- the coordinator -------------------------------------------------------------------------------------


def test_a_history_survives_and_decides_the_same() -> None:
    question = compiled()
    history, _result = asked(question)
    part = History(history.stages[:1])
    again = History.decode(part.encode())
    assert question.next_inputs(again) == question.next_inputs(part)
    assert question.next_inputs(history) is None
    assert question.decode(history).to_json() == question.decode(history).to_json()  # bootstraps are seeded by it
    with pytest.raises(Misuse, match="1 of 3 stages were opened"):
        question.decode(part)
    with pytest.raises(Misuse, match="was kept in the place of stage 0"):
        question.next_inputs(History(history.stages[1:2]))
    with pytest.raises(Malformed):
        question.next_inputs(History((replace(history.stages[0], total=b"12345678"),)))


@pytest.mark.parametrize(
    ("total", "survivors", "seats"),
    [
        (np.zeros(3, dtype=np.int64), 3, ()),
        (np.zeros(1, dtype=np.float64), 3, ()),
        (None, 0, ()),
        (None, 4, ()),
        (None, 3, (3,)),
    ],
)
def test_sums_that_cannot_be(total: np.ndarray | None, survivors: int, seats: tuple[int, ...]) -> None:
    question = compiled()
    good = np.zeros(question.sum_at(0).length, dtype=np.int64)
    with pytest.raises(Misuse):
        question.opened(0, good if total is None else total, survivors, seats)


def test_repeated_attempts_are_counted() -> None:
    question = compiled()
    once, twice = question.privacy(), question.privacy([2, 1, 1])
    assert once.uploads == 3
    assert once.epsilon is not None
    assert once.epsilon <= 8.0
    assert twice.epsilon is not None
    assert twice.epsilon > once.epsilon
    assert question.privacy(4).mu2 >= twice.mu2
    assert question.privacy(3) == once
    assert once.fallback_epsilon is not None
    assert once.fallback_epsilon > once.epsilon
    assert once.mu2 == pytest.approx(float(sum(release.mu2 for release in question.releases)))
    with pytest.raises(Misuse, match="cannot have opened 3 stages"):
        question.privacy(2)
    with pytest.raises(Misuse, match="one number for each"):
        question.privacy([1, 1])


def test_a_site_data_of_files_is_asked_the_same(tmp_path: Any) -> None:
    """The source of the rows does not matter to the question."""
    from privfl.tasks import FileSource

    question = noiseless()
    place = tmp_path / "site.parquet"
    FRAMES[0].to_parquet(place)
    inputs = question.next_inputs(History())
    filed = SiteData(SCHEMA, FileSource(place, "parquet"))
    framed = SiteData(SCHEMA, FrameSource(FRAMES[0]))
    assert (question.contribution(inputs, filed, SYSTEM) == question.contribution(inputs, framed, SYSTEM)).all()


def test_every_site_fills_its_own_stretch_and_no_other() -> None:
    """At each seat, computed or blank: noise in this site's stretch, exact zeros in all others."""
    question = Study.from_yaml("study: own\nqueries:\n  - site_divergence: sex\n").compile(
        SCHEMA, epsilon=2.0, delta=1e-6, sites=4
    )
    inputs = question.inputs(0, [None])
    width = question.sum_of(inputs).length // 4
    data = data_of(FRAMES[0])
    for seat in range(4):
        for sent in (question.upload(inputs, data, SYSTEM, seat=seat), question.blank(inputs, SYSTEM, seat=seat)):
            stretches = sent.reshape(4, width)
            assert stretches[seat].any()
            assert not np.delete(stretches, seat, axis=0).any()


def ages(*edges: float, levels: int = 0) -> Tally:
    return Tally(axes=(Bins(column="age", edges=edges),), levels=levels)


@pytest.mark.parametrize(
    ("planned", "now"),
    [
        (ages(0, 50, 100), ages(0, 25, 50, 100)),  # another shape, all else alike
        (ages(0, 25, 50, 100), ages(0, 50, 100, levels=2)),  # as many cells, a larger sensitivity
        (Sums(terms=(One(),)), Tally()),  # another kind
        (Sums(terms=(Linear(column="age"),)), Sums(terms=(Linear(column="bmi"),))),  # another column
    ],
    ids=["shape", "sensitivity", "kind", "column"],
)
def test_a_state_moves_parameters_and_nothing_else(
    planned: Construction, now: Construction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each guard by itself: in this one respect a later stage may not change, whatever a peer's state says."""

    def constructions(self: Twice, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        return (now if state is not None and "odd" in state else planned,)

    monkeypatch.setattr(Twice, "constructions", constructions)
    study = Study("guarded", (Query().asking(Twice(column="age")),))
    question = study.compile(SCHEMA, epsilon=4.0, delta=1e-6, sites=4)
    assert question.sum_of(question.inputs(1, [{"center": 1.0}])).length == planned.length(question.view)
    with pytest.raises(Malformed, match="changes the shape or sensitivity"):
        question.sum_of(question.inputs(1, [{"odd": 1}]))
