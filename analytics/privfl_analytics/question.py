"""A compiled study: what each stage sums, what it costs, how a site answers, and how sums become answers.

It travels as :meth:`StudyQuestion.descriptor`, from which a site recomputes every kind, length, sensitivity, bound
and cost. ``inputs`` carry the number of the stage and what earlier stages decided (centres, coefficients, candidates):
they may move a construction, never its shape or sensitivity, which :meth:`StudyQuestion.read_inputs` tests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from privfl.codec import decode, encode
from privfl.dp import Cost, LocalReport, Release, Unit, noised, saturate
from privfl.dp.accounting import root_up
from privfl.entropy import Entropy
from privfl.errors import Malformed, Misuse
from privfl.tasks import Question, Schema, SiteData, Sum
from privfl.tasks.question import Price, costs_of, in_seat
from privfl_analytics.constructions import Construction
from privfl_analytics.decoding import decoded, noisy_of, privacy_of, replayed
from privfl_analytics.descriptor import Descriptor, text_of
from privfl_analytics.layout import RING, Part, Setting, Stage, check_unit, rows_of, stages_of
from privfl_analytics.noise import key_cost, key_threshold, x_max_of
from privfl_analytics.opened import History, Opened
from privfl_analytics.result import PrivacyReport, StudyResult
from privfl_analytics.stated import constructions_at
from privfl_analytics.states import read_state, state_text
from privfl_analytics.statistic import Noisy, State

if TYPE_CHECKING:
    from privfl.runtime import run as runs
    from privfl_analytics.explain import Explanation
    from privfl_analytics.preview import OwnAnswers
    from privfl_analytics.run import StudyRun
    from privfl_analytics.study import Study

__all__ = ["History", "Opened", "StudyQuestion"]

Int64s = npt.NDArray[np.int64]

#: Noise that rounds to zero, for tests without noise.
_HARDLY = 2.0**-8


@dataclass(frozen=True)
class _Read:
    """Inputs that were read: the stage and its constructions with the states put in."""

    stage: int
    constructions: tuple[Construction, ...]


class StudyQuestion(Question):
    """Built by :meth:`privfl_analytics.study.Study.compile` or :meth:`from_descriptor`."""

    kind = "study"

    def __init__(
        self,
        study: Study,
        schema: Schema,
        setting: Setting,
        attempts: int,
        epsilon: float | None,
        delta: float | None,
        releases: tuple[Release, ...],
        delta0: float,
    ) -> None:
        self.study, self.schema, self.setting, self.attempts = study, schema, setting, attempts
        self.epsilon, self.delta, self.releases, self.delta0 = epsilon, delta, releases, delta0
        self.view = study.view(schema)
        self.plan: tuple[Stage, ...] = stages_of(study, self.view)
        check_unit(self.plan, setting.unit)
        self.purpose, self.sites = study.purpose, setting.sites
        self.uploads = len(self.plan) * attempts
        self._last: tuple[bytes, _Read] | None = None

    # -- what is public ------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """A few public words."""
        return f"study {self.study.name!a}"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Every column of the schema that is read: by statistics, conditions, groups and scores."""
        return self.study.columns(self.schema)

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names that a policy must allow."""
        return self.study.statistics

    @property
    def stages(self) -> int:
        """Slots in all, one after another."""
        return len(self.plan)

    @property
    def rows(self) -> int:
        """Rows of one unit of privacy that count."""
        return rows_of(self.view, self.setting.unit)

    def descriptor(self) -> bytes:
        """Everything a site needs, canonically encoded."""
        setting = self.setting
        return Descriptor(
            schema=self.schema.to_json(),
            study=self.study.to_json(),
            epsilon=text_of(self.epsilon),
            delta=text_of(self.delta),
            sites=setting.sites,
            trust=str(setting.trust),
            unit=str(setting.unit),
            min_survivors=setting.min_survivors,
            colluders=setting.colluders,
            attempts=self.attempts,
            key_delta=text_of(self.delta0 or None),
            bits=RING.bits,
            word=RING.word,
            releases=self.releases,
        ).encode()

    @staticmethod
    def from_descriptor(data: bytes) -> StudyQuestion:
        """Rebuild a question from a peer's bytes.

        Raises:
            Malformed: not a canonical study, or one whose releases claim another sensitivity, length, bound or cost
                than study and schema give.
            Refused: a release that breaks a rule of noise.
        """
        from privfl_analytics.rebuild import MAX_DESCRIPTOR, question_from  # noqa: PLC0415 - it builds questions

        if len(data) > MAX_DESCRIPTOR:  # before any of it is read
            raise Malformed(f"a study takes at most {MAX_DESCRIPTOR} bytes, and this one has {len(data)}")
        return question_from(Descriptor.decode(data))

    def release(self, stage: int) -> Release | None:
        """What one upload of a stage reveals; None without noise."""
        return self.releases[stage] if self.releases else None

    def sum_of(self, inputs: bytes) -> Sum:
        """See :class:`privfl.tasks.Question`."""
        return self.sum_at(self.read_inputs(inputs).stage)

    def sum_at(self, stage: int) -> Sum:
        """What the slots of a stage sum."""
        own = self.sites if self.plan[stage].own else 0
        length = self.plan[stage].length(self.view)
        return Sum(RING, length * (own or 1), self.release(stage), own)

    def costs(self, inputs: bytes) -> Mapping[Unit, Cost]:
        """The cost of one upload by every unit in which it is finite, with the δ′ of rare names."""
        return self._costs(self.read_inputs(inputs).stage)

    def prices(self) -> tuple[Price, ...]:
        """One opening of every stage; empty without noise."""
        pairs = enumerate(self.releases)
        return tuple(Price(self._costs(stage), release.trust, 1) for stage, release in pairs)

    def _costs(self, stage: int) -> dict[Unit, Cost]:
        rare = Cost(0, key_cost(self.plan[stage], self.delta0, self.rows))
        return {unit: cost + rare for unit, cost in costs_of(self.release(stage)).items()}

    def cost_at(self, stage: int) -> Cost:
        """The cost of one upload of a stage in the study's own unit; nothing without noise."""
        release = self.release(stage)
        rare = key_cost(self.plan[stage], self.delta0, self.rows)
        return Cost(0) if release is None else release.cost + Cost(0, rare)

    def explain(self) -> Explanation:
        """What is asked, what leaves a site, what it costs, and who could see what."""
        from privfl_analytics.explain import explain_question  # noqa: PLC0415 - brings tables

        return explain_question(self)

    def preview(self, data: SiteData) -> OwnAnswers:
        """One site's own exact answers, for its operator after he has approved; nothing leaves, nothing is charged."""
        from privfl_analytics.preview import own_answers  # noqa: PLC0415 - operators alone ask for it

        return own_answers(self, data)

    # -- inputs of a stage ---------------------------------------------------------------------------

    def queries_at(self, stage: int) -> tuple[int, ...]:
        """The queries, by number, that a stage sums something for."""
        return tuple(self.plan[stage].steps)

    def inputs(self, stage: int, states: Sequence[State | None]) -> bytes:
        """The canonical inputs of a stage.

        Args:
            states: one for each of :meth:`queries_at`: what its statistic decided, None in its first stage.

        Raises:
            Misuse: a state is no plain JSON.
        """
        return encode(("study stage", stage, tuple(state_text(state) for state in states)))

    def read_inputs(self, inputs: bytes) -> _Read:
        """Read a peer's inputs strictly.

        Raises:
            Malformed: not canonical inputs of this question, or a state that makes a construction of another kind,
                shape, scale, sensitivity or reading of columns than was planned.
        """
        if self._last is not None and self._last[0] == inputs:
            return self._last[1]
        match decode(inputs):
            case ("study stage", int(stage), tuple(texts)) if 0 <= stage < len(self.plan):
                pass
            case _:
                raise Malformed("these are no inputs of a stage of this study")
        queries = self.queries_at(stage)
        if len(texts) != len(queries):
            raise Malformed(f"stage {stage} has {len(queries)} queries and inputs for {len(texts)} came")
        states = {query: read_state(text) for query, text in zip(queries, texts, strict=True)}
        read = _Read(stage, constructions_at(self, stage, states))
        self._last = inputs, read
        return read

    # -- the site ------------------------------------------------------------------------------------

    def contribution(
        self, inputs: bytes, data: SiteData, entropy: Entropy, *, report: LocalReport | None = None
    ) -> Int64s:
        """The site's exact vector, saturated and **without noise**; names of values are left at zero.

        Raises:
            Malformed: these are no inputs of this question.
            DataError: the data is bound to another schema.
        """
        from privfl_analytics.local import Asked, sums  # noqa: PLC0415 - brings the database

        self.check(data)
        read = self.read_inputs(inputs)
        parts = self.plan[read.stage].parts
        pairs = list(zip(parts, read.constructions, strict=True))
        asked = [Asked(one, part.condition) for part, one in pairs if not part.keys]
        rows = self.rows if self.setting.unit is Unit.SUBJECT else None
        found = iter(sums(data, self.view, asked, rows=rows, entropy=entropy, report=report) if asked else ())
        out = []
        for at, (part, one) in enumerate(pairs):
            if part.keys:
                out.append(np.zeros(one.length(self.view), dtype=np.int64))
                continue
            out.append(saturate(np.asarray(next(found)).reshape(-1), self.x_max(read.stage, at), report=report))
        return np.concatenate(out)

    def upload(
        self, inputs: bytes, data: SiteData, entropy: Entropy, *, seat: int = 0, report: LocalReport | None = None
    ) -> Int64s:
        """See :class:`privfl.tasks.Question`; names of frequent values get their noise and threshold here."""
        mine = self.contribution(inputs, data, entropy, report=report)
        return self._leaving(self.read_inputs(inputs), mine, data, entropy, seat)

    def blank(self, inputs: bytes, entropy: Entropy, *, seat: int = 0) -> Int64s:
        """See :class:`privfl.tasks.Question`; no name of a value is in it, as from a table without rows."""
        read = self.read_inputs(inputs)
        zero = np.zeros(self.plan[read.stage].length(self.view), dtype=np.int64)
        return self._leaving(read, zero, None, entropy, seat)

    def _leaving(self, read: _Read, vector: Int64s, data: SiteData | None, entropy: Entropy, seat: int) -> Int64s:
        """The vector with its noise, names filled in, in the site's own stretch where it has one."""
        total = self.sum_at(read.stage)
        mine = vector if total.release is None else noised(vector, total.release, entropy)
        begin = 0
        for at, (part, one) in enumerate(zip(self.plan[read.stage].parts, read.constructions, strict=True)):
            end = begin + one.length(self.view)
            if part.keys:
                mine[begin:end] = 0 if data is None else self._names(read.stage, at, part, one, data, entropy)
            begin = end
        return in_seat(mine, total, seat)

    def _names(self, stage: int, at: int, part: Part, one: Construction, data: SiteData, entropy: Entropy) -> Int64s:
        """The site's frequent values, which carry noise of their own."""
        from privfl_analytics.local import Asked, frequent  # noqa: PLC0415 - brings the database

        release = self.release(stage)
        if release is None:
            sigma, least = _HARDLY, 1.0
        else:
            block = release.blocks[at]
            sigma, least = release.sigma_site(block), key_threshold(release, block, part, self.delta0, self.rows)
        found = frequent(
            data,
            self.view,
            Asked(one, part.condition),
            sigma=sigma,
            threshold=math.ceil(least * one.scale),
            rows=self.rows if self.setting.unit is Unit.SUBJECT else None,
            entropy=entropy,
        )
        return np.asarray(found, dtype=np.int64).reshape(-1)

    def x_max(self, stage: int, at: int) -> int:
        """The public bound at which each number of a block saturates at its site, in integer units."""
        release = self.release(stage)
        if release is not None:
            return release.blocks[at].x_max
        return x_max_of(self.plan[stage].parts[at], self.view, self.sites, 0.0)

    # -- the coordinator -----------------------------------------------------------------------------

    def opened(self, stage: int, total: Int64s, survivors: int, seats: Sequence[int] = ()) -> Opened:
        """Keep a stage's decoded sum.

        Args:
            total: int64 of the stage's length, the centred sum.
            survivors: sites in the sum.
            seats: the places of their stretches where every site has its own; by default those that are not zero.

        Raises:
            Misuse: wrong type, shape or number of sites.
        """
        length = self.sum_at(stage).length
        if total.dtype != np.int64 or total.shape != (length,):
            raise Misuse(f"expected {length} int64 numbers, not {total.dtype} of shape {total.shape}")
        if not 1 <= survivors <= self.sites or any(not 0 <= seat < self.sites for seat in seats):
            raise Misuse(f"{survivors} survivors do not fit a study of {self.sites} sites")
        return Opened(stage, survivors, tuple(sorted(seats)), total.astype("<i8").tobytes())

    def noisy(self, opened: Opened) -> tuple[tuple[Part, Noisy], ...]:
        """Every block of an opened stage in units of 1, all groups together.

        Where every site has its own stretch, values have one more axis in front: the sites that answered.
        """
        return noisy_of(self, opened)

    def next_inputs(self, history: History) -> bytes | None:
        """The inputs of the stage after those that were opened, None after the last."""
        if len(history) >= len(self.plan):
            return None
        states = replayed(self, history)[1]
        stage = len(history)
        return self.inputs(stage, [states[query][step] for query, step in self.plan[stage].steps.items()])

    def decode(
        self,
        history: History,
        *,
        min_cell_count: int = 1,
        charged: int | Sequence[int] | None = None,
        draws: int = 2000,
        partial: bool = False,
    ) -> StudyResult:
        """The answers.

        Args:
            history: all stages.
            min_cell_count: noisy counts below it are not shown.
            charged: uploads that every site was charged for, by stage or in all (then the surplus is counted as
                repetitions of the dearest stage); by default one for each stage.
            draws: replicates of parametric bootstraps.
            partial: answer what was opened to its end, and say of the others that they were not.

        Raises:
            Misuse: a stage is missing.
        """
        return decoded(self, history, min_cell_count, charged, draws, partial=partial)

    def privacy(self, charged: int | Sequence[int] | None = None) -> PrivacyReport:
        """What was, or will be, spent; see :meth:`decode` for ``charged``."""
        return privacy_of(self, charged)

    def begin(self, stage: runs.Stage, setting: runs.Setting, observer: runs.Observer | None = None) -> StudyRun:
        """A run over sites that are ready, from its beginning."""
        from privfl_analytics.run import StudyRun  # noqa: PLC0415 - it runs questions

        return StudyRun(stage, self, setting, observer)

    @property
    def mu(self) -> float:
        """μ of one opening of every stage, rounded up."""
        return root_up(sum((self.cost_at(stage).mu2 for stage in range(len(self.plan))), Fraction(0)))

    def __repr__(self) -> str:
        cost = "no noise" if self.epsilon is None else f"epsilon {self.epsilon:g}, delta {self.delta:g}"
        return (
            f"StudyQuestion({self.study.name!r}: {len(self.study.queries)} queries in {self.stages} stage(s), "
            f"{self.sites} sites, {cost}, per {self.setting.unit}, trust {self.setting.trust})"
        )
