"""What a study asks and costs, before anything runs: words, layout, sensitivity, price, and the error to expect."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pandas as pd

from privfl.dp import Cost, Release, Trust, additive_mu2, epsilon_of_cost, epsilon_of_mu
from privfl.dp.accounting import root_up
from privfl.errors import BudgetExceeded, Misuse
from privfl.runtime.plain import escaped
from privfl.tasks import Schema
from privfl_analytics.constructions import Classes
from privfl_analytics.noise import noise_of_sum

if TYPE_CHECKING:
    from privfl_analytics.query import Query
    from privfl_analytics.question import StudyQuestion
    from privfl_analytics.study import Study
    from privfl_analytics.view import Score

__all__ = ["BlockLine", "Explanation", "QueryLine", "block_mu2", "explain", "explain_question", "sds_of"]


@dataclass(frozen=True, slots=True)
class QueryLine:
    """One query in words, and the schema columns that it reads; ``exact`` is JSON of what words leave out, or empty."""

    name: str
    words: str
    columns: tuple[str, ...]
    exact: str = ""


@dataclass(frozen=True, slots=True)
class BlockLine:
    """One block of a stage's vector.

    Attributes:
        stage: from 1. query, kind, length: whose it is, what is summed, how many numbers.
        sensitivity: Δ, what one unit of privacy can change at most, in units of 1 (persons for counts).
        noise: standard deviation of the noise in the sum over all sites, in the same units.
        mu2, epsilon: what the block costs by itself; None without noise.
    """

    stage: int
    query: str
    kind: str
    length: int
    sensitivity: float
    noise: float
    mu2: float | None
    epsilon: float | None


@dataclass(frozen=True)
class Explanation:
    """A study explained; ``str`` gives it as text.

    Attributes:
        study, description: its name and purpose in its own words.
        queries, blocks: what is asked, and what leaves a site for it.
        epsilon, delta, mu, unit: the price of one opening of every stage; None without noise.
        stages, attempts, uploads: rounds, tries of each at most, and uploads that a mandate must allow.
        bytes: of one site's uploads, if nothing is repeated.
        trust: who could see what, in sentences.
        fallback_epsilon: what the price would be worth if all other sites colluded.
        errors: query → ε → the error to expect, in words.
        scores: what sites compute for each row, as formulas: a query that names a score reads these columns.
        worst_epsilon: the price if every attempt were needed; None without noise, or where delta would not suffice.
    """

    study: str
    description: str
    queries: tuple[QueryLine, ...]
    blocks: tuple[BlockLine, ...]
    epsilon: float | None
    delta: float | None
    mu: float
    unit: str
    stages: int
    attempts: int
    uploads: int
    bytes: int
    trust: tuple[str, ...]
    fallback_epsilon: float | None
    errors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    scores: tuple[str, ...] = ()
    worst_epsilon: float | None = None

    def to_frame(self) -> pd.DataFrame:
        """The error to expect: one line per query, one column per budget."""
        frame = pd.DataFrame(
            [{"query": name, **{f"epsilon {key}": text for key, text in row.items()}}
             for name, row in self.errors.items()]
        )  # fmt: skip
        return frame if len(frame) else pd.DataFrame(columns=["query"])

    def layout(self) -> pd.DataFrame:
        """One line per block; columns as :class:`BlockLine`."""
        return pd.DataFrame([asdict(block) for block in self.blocks], columns=list(BlockLine.__slots__))

    def to_value(self) -> dict[str, Any]:
        """Plain values for JSON."""
        value = asdict(self)
        value["errors"] = {name: dict(row) for name, row in self.errors.items()}
        return value

    @property
    def price(self) -> str:
        """The cost in one sentence."""
        if self.epsilon is None:
            return "No noise: the answers have no differential privacy."
        return (
            f"One opening of {'every stage' if self.stages > 1 else 'the sum'} costs epsilon {self.epsilon:.3f} at "
            f"delta {self.delta:g} (mu {self.mu:.4f}) per {self.unit}. A round that has to be repeated is charged "
            f"again: up to {self.attempts} attempts of {self.stages} round(s), {self.uploads} uploads at "
            f"most{self._worst}."
        )

    @property
    def _worst(self) -> str:
        if self.attempts == 1:
            return ""
        if self.worst_epsilon is None:
            return f", and all of these {self.uploads} would need a larger delta"
        return f": epsilon {self.worst_epsilon:.3f} if every one of these {self.uploads} uploads were needed"

    def __str__(self) -> str:
        lines = [f"Study {self.study!r}" + (f": {_one_line(self.description)}" if self.description else "")]
        lines += ["", "Asked:"]
        for one in self.queries:
            lines += [
                f"  {one.name}: {_one_line(one.words)} (reads {_one_line(', '.join(one.columns)) or 'no column'})"
            ]
            lines += [f"    exactly: {one.exact}"] if one.exact else []
        lines += ["", "Scores, computed for each row:", *(f"  {one}" for one in self.scores)] if self.scores else []
        lines += ["", f"What leaves a site ({self.bytes} bytes); mu2 of the lines adds up, epsilon does not:"]
        lines += [f"  {_block(one)}" for one in self.blocks]
        lines += ["", self.price, *self.trust]
        if any(self.errors.values()):
            lines += ["", "Error to expect from the noise alone, 19 times in 20:"]
            for name, row in self.errors.items():
                lines += [f"  {name}", *(f"    epsilon {key}: {text}" for key, text in row.items())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        asked = "".join(
            f"<li><b>{html.escape(one.name)}</b>: {html.escape(one.words)}"
            f"{'<br>exactly: ' + html.escape(one.exact) if one.exact else ''}</li>"
            for one in self.queries
        )
        asked += "".join(f"<li>{html.escape(one)}</li>" for one in self.scores)
        said = "".join(f"<p>{html.escape(line)}</p>" for line in (self.price, *self.trust))
        layout = self.layout().to_html(index=False, float_format=lambda value: f"{value:.4g}", na_rep="–")
        errors = self.to_frame().to_html(index=False) if self.errors else ""
        title = html.escape(self.study)
        return f"<h3>{title}</h3><p>{html.escape(self.description)}</p><ul>{asked}</ul>{said}{layout}{errors}"


def _one_line(text: str) -> str:
    """What others wrote, so that it cannot look like lines of this explanation: no line ends, no long gaps."""
    return escaped(" ".join(text.split()))


def _exact(query: Query) -> str:
    """What the words of a query leave out: numbers and switches that were chosen, and groups that are no classes."""
    options = query.asked.model_dump(mode="json", exclude_defaults=True)
    found = {name: value for name, value in options.items() if not _named(value)}
    by = [axis.model_dump(mode="json") for axis in query.by if not isinstance(axis, Classes)]
    if by:
        found["by"] = by
    return json.dumps(found, separators=(", ", ": ")) if found else ""


def _named(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _formula(score: Score) -> str:
    """A score as sites compute it."""
    total = " + ".join([f"{score.intercept!r}", *(f"{weight!r} x {name!r}" for name, weight in score.weights.items())])
    made = total if score.link == "identity" else f"{score.link}({total})"
    return _one_line(f"{score.name!r} = {made}, within [{score.lower!r}, {score.upper!r}]")


def _block(one: BlockLine) -> str:
    price = "" if one.mu2 is None else f", noise ± {one.noise:.4g} (sd), mu2 {one.mu2:.4g}, epsilon {one.epsilon:.3f}"
    return (
        f"round {one.stage}: {one.length} number(s) for {one.query!r} ({one.kind}), sensitivity {one.sensitivity:.4g}"
        f"{price}"
    )


def sds_of(question: StudyQuestion, query: int) -> list[list[float]]:
    """Noise of a query's sums over all sites by stage and construction, as :meth:`Statistic.precision` wants it."""
    found: dict[int, list[float]] = {}
    for at, stage in enumerate(question.plan):
        for place, part in enumerate(stage.parts):
            if part.query == query:
                sites = 1 if stage.own else question.sites
                sd = noise_of_sum(question.release(at), place, part.construction.scale, sites)
                found.setdefault(part.step, []).append(sd)
    return [found[step] for step in sorted(found)]


def explain_question(question: StudyQuestion) -> Explanation:
    """See :meth:`StudyQuestion.explain`."""
    study, view, privacy = question.study, question.view, question.privacy()
    queries = tuple(
        QueryLine(name, query.words(), view.read(query.names(view)), _exact(query))
        for name, query in zip(study.names, study.queries, strict=True)
    )
    errors = {} if question.epsilon is None else _errors({f"{question.epsilon:g}": question})
    return Explanation(
        study=study.name,
        description=study.description,
        queries=queries,
        blocks=_blocks(question),
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        mu=question.mu,
        unit=privacy.unit,
        stages=question.stages,
        attempts=question.attempts,
        uploads=question.uploads,
        bytes=sum(8 * question.sum_at(stage).length for stage in range(question.stages)),
        trust=_trust(question),
        fallback_epsilon=privacy.fallback_epsilon,
        errors=errors,
        scores=tuple(map(_formula, study.scores)),
        worst_epsilon=_worst(question),
    )


def _worst(question: StudyQuestion) -> float | None:
    """ε of all attempts of all stages at the study's δ; None where that δ does not pay for them."""
    if question.delta is None:
        return None
    once = sum((question.cost_at(stage) for stage in range(question.stages)), Cost(0))
    try:
        return epsilon_of_cost(question.attempts * once, question.delta)
    except Misuse:
        return None


def explain(
    study: Study, schema: Schema, *, sites: int, epsilons: tuple[float, ...], delta: float, **setting: Any
) -> Explanation:
    """See :meth:`Study.explain`. Layout and price are those of the first budget that resolves the study.

    Raises:
        BudgetExceeded: none of the budgets does. Misuse: the study does not fit the schema.
    """
    compiled: dict[str, StudyQuestion | str] = {}
    failed: BudgetExceeded | None = None
    for epsilon in epsilons:
        try:
            compiled[f"{epsilon:g}"] = study.compile(schema, epsilon=epsilon, delta=delta, sites=sites, **setting)
        except BudgetExceeded as error:
            compiled[f"{epsilon:g}"], failed = "resolves nothing", error
    base = next((one for one in compiled.values() if not isinstance(one, str)), None)
    if base is None:
        raise failed or Misuse("name at least one budget to explain the study at")
    return replace(explain_question(base), errors=_errors(compiled))


def _errors(compiled: Mapping[str, StudyQuestion | str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for epsilon, question in compiled.items():
        if isinstance(question, str):
            continue
        for at, (name, query) in enumerate(zip(question.study.names, question.study.queries, strict=True)):
            told = query.asked.precision(question.view, sds_of(question, at), question.schema.records)
            found.setdefault(name, {})[epsilon] = told
    for row in found.values():
        row.update({key: text for key, text in compiled.items() if isinstance(text, str)})
    return {name: {key: row[key] for key in compiled} for name, row in found.items()}


def _blocks(question: StudyQuestion) -> tuple[BlockLine, ...]:
    view, found = question.view, []
    for at, stage in enumerate(question.plan):
        release = question.release(at)
        for place, part in enumerate(stage.parts):
            one = part.construction
            mu2 = None if release is None else block_mu2(release, place)
            found.append(
                BlockLine(
                    stage=at + 1,
                    query=question.study.names[part.query],
                    kind=one.kind,
                    length=one.length(view),
                    sensitivity=math.sqrt(one.delta2(view, question.rows)) / one.scale,
                    noise=noise_of_sum(release, place, one.scale, 1 if stage.own else question.sites),
                    mu2=None if mu2 is None else float(mu2),
                    epsilon=None if mu2 is None or question.delta is None else _epsilon(mu2, question.delta),
                )
            )
    return tuple(found)


def block_mu2(release: Release, place: int) -> Fraction:
    """μ² of one block of a release."""
    block = release.blocks[place]
    return additive_mu2(block.delta2, Fraction(block.sigma))


def _epsilon(mu2: Fraction, delta: float) -> float:
    return epsilon_of_mu(root_up(mu2), delta - delta / 10)


def _trust(question: StudyQuestion) -> tuple[str, ...]:
    """Who could see what."""
    if not question.releases:
        return ("The coordinator sees exact sums over sites. No site's policy allows this; it is for tests.",)
    lines, privacy = [], question.privacy()
    shared = next((one for stage, one in zip(question.plan, question.releases, strict=True) if not stage.own), None)
    if shared is not None and shared.trust is Trust.DISTRIBUTED:
        lines += [
            f"Trust distributed: the coordinator sees only sums over at least {shared.min_survivors} of "
            f"{question.sites} sites, which hold {shared.honest} honest shares of noise; {shared.trust.assumption}.",
            f"If all other sites and the coordinator colluded, a site's own numbers would still carry its share of "
            f"noise: epsilon {privacy.fallback_epsilon:.3f}.",
        ]
    elif shared is not None:
        lines += [f"Trust local: sums over sites, and {shared.trust.assumption}."]
    own = [name for name, query in zip(question.study.names, question.study.queries, strict=True) if query.asked.local]
    if own:
        lines += [
            f"Shown site by site: {', '.join(map(repr, own))}. Each site adds all of the noise to its own numbers, "
            f"which the coordinator then sees."
        ]
    if question.delta0:
        lines += [
            f"Names of frequent values leave a site only where their noisy count is high; one that a single "
            f"{question.setting.unit} has passes with probability at most {question.delta0:.2g}, which delta pays for."
        ]
    if question.setting.unit == "subject":
        lines += [f"Of each person at most {question.rows} row(s) are used; rows without a subject are left out."]
    return tuple(lines)
