"""A study's question from a peer's bytes: every sensitivity, length, bound and cost is recomputed."""

from __future__ import annotations

from privfl.dp import Trust, Unit, epsilon_of_cost, mu_for_budget
from privfl.errors import Malformed, Misuse, Refused
from privfl.tasks import Schema
from privfl_analytics.descriptor import Descriptor, number_of
from privfl_analytics.layout import MAX_LENGTH, RING, Setting, rows_of
from privfl_analytics.noise import release_of, total_cost
from privfl_analytics.question import StudyQuestion
from privfl_analytics.study import MAX_ATTEMPTS, MAX_EPSILON, Study

__all__ = ["MAX_DESCRIPTOR", "question_from"]

#: Bytes of a study at most; reading one takes a site many times as much memory.
MAX_DESCRIPTOR = 1 << 24


def question_from(told: Descriptor) -> StudyQuestion:
    """Rebuild a question; see :meth:`privfl_analytics.question.StudyQuestion.from_descriptor`."""
    if (told.bits, told.word) != (RING.bits, RING.word):
        raise Malformed("a study lives in the 64-bit ring")
    try:
        schema, study = Schema.from_json(told.schema), Study.from_json(told.study)
        setting = Setting(told.sites, Trust(told.trust), Unit(told.unit), told.min_survivors, told.colluders)
        _check_setting(setting, schema, told)
        question = StudyQuestion(
            study,
            schema,
            setting,
            told.attempts,
            number_of(told.epsilon),
            number_of(told.delta),
            told.releases,
            number_of(told.key_delta) or 0.0,
        )
    except Malformed:
        raise
    except (Misuse, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise Malformed(f"the study's descriptor does not hold together: {error}") from None
    for stage in question.plan:
        if stage.length(question.view) * (setting.sites if stage.own else 1) > MAX_LENGTH:
            raise Malformed("the study's vector is longer than an upload can be")
    _recompute(question)
    if question.descriptor() != told.encode():
        raise Malformed("the study's descriptor is not in its canonical form")
    return question


def _check_setting(setting: Setting, schema: Schema, told: Descriptor) -> None:
    if setting.unit is Unit.SITE or (setting.unit is Unit.SUBJECT and schema.subject is None):
        raise Malformed("a study protects records, or the subjects that its schema names")
    if not 1 <= setting.min_survivors <= setting.sites or setting.colluders < 0:
        raise Malformed("the study's sizes do not fit its sites")
    if setting.sites < (1 if setting.trust is Trust.LOCAL else 2) or not 1 <= told.attempts <= MAX_ATTEMPTS:
        raise Malformed("the study's sizes are out of range")


def _recompute(question: StudyQuestion) -> None:
    """Hold a peer's releases against what study and schema give; the noise itself is priced by the site's budget."""
    epsilon, delta = question.epsilon, question.delta
    if epsilon is None or delta is None:
        if question.releases or question.delta0 or epsilon is not None or delta is not None:
            raise Malformed("the study names half a budget")
        return
    rows, keys = rows_of(question.view, question.setting.unit), any(p.keys for s in question.plan for p in s.parts)
    if len(question.releases) != len(question.plan) or not 0 < epsilon <= MAX_EPSILON:
        raise Malformed("the study's releases are not one for each of its stages, or its epsilon is out of range")
    if not 0 < delta < 1 or not 0 <= question.delta0 < 1 or bool(question.delta0) != keys:
        raise Malformed("the study's delta is out of range, or does not go with names of values")
    try:
        for stage, told in zip(question.plan, question.releases, strict=True):
            sigmas = [block.sigma for block in told.blocks]
            if len(sigmas) != len(stage.parts) or release_of(stage, question.view, question.setting, sigmas) != told:
                raise Malformed("a release claims another unit, trust, length, bound or sensitivity than its study")
        spent = total_cost(question.plan, question.releases, question.delta0, rows)
        fits = epsilon_of_cost(spent, delta) <= epsilon and spent.delta <= mu_for_budget(epsilon, delta)[1]
    except (Misuse, Refused) as error:
        raise Malformed(f"the study's plan does not hold together: {error}") from None
    if not fits:
        raise Malformed("the study's noise is too small for the epsilon it claims over all its stages")
