"""A policy in sentences, for people who answer for it: who is protected, how well, against whom, until when.

The hazards are those that NIST SP 800-226 asks to be told, where they apply to the policy at hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from privfl.budget.charge import Purpose
from privfl.budget.filter import Budget
from privfl.budget.policy import Policy, exact
from privfl.budget.policy_hazards import failure, hazards, not_covered, up
from privfl.budget.policy_parts import AllowedColumn
from privfl.dp import Cost, Trust, Unit, epsilon_of_cost
from privfl.dp.accounting import root_up

__all__ = ["Section", "explain", "figures", "listed"]

#: What one contribution of each task is, which decides for whom it can be charged.
_TASK_UNIT = {"logistic": Unit.RECORD, "linear": Unit.RECORD, "averaging": Unit.SITE, "update": Unit.SITE}
_ORDER = (Unit.RECORD, Unit.SUBJECT, Unit.SITE)
_ODDS = {
    Unit.RECORD: "to a row being in the data",
    Unit.SUBJECT: "to a person being in the data",
    Unit.SITE: "to a site having contributed its own numbers rather than none",
}
_ONE = {Unit.RECORD: "row", Unit.SUBJECT: "person", Unit.SITE: "site"}


@dataclass(frozen=True)
class Section:
    """A heading and its sentences."""

    title: str
    sentences: tuple[str, ...]


def explain(policy: Policy) -> tuple[Section, ...]:
    """The whole policy in sentences; every figure of :func:`figures` is in one of them."""
    parts = (
        ("In short", _short(policy)),
        ("Who is protected", _who(policy)),
        ("Against whom", _against(policy)),
        ("How much may be learnt, and for how long", _total(policy)),
        ("What may be asked", _asked(policy)),
        ("What every round must fulfil", _round(policy)),
        ("What this rests on", _assumed(policy)),
        ("What to beware of", hazards(policy)),
        ("What is not covered", not_covered()),
    )
    return tuple(Section(title, found) for title, words in parts if (found := tuple(words)))


def figures(policy: Policy) -> dict[str, Any]:
    """The numbers behind the sentences; ε and μ rounded up. Empty without noise."""
    budget = policy.budget
    if budget is None:
        return {}
    mu, windows = root_up(budget.mu2), policy.windows
    honest = policy.min_survivors - max(1, policy.colluders)
    found: dict[str, Any] = {
        "epsilon": budget.epsilon,
        "delta": budget.delta,
        "mu": mu,
        "odds_factor": math.exp(budget.epsilon) if budget.epsilon < 700 else None,
        "odds_fail_at_most": failure(budget),
        "certainty_from_half": 1 / (1 + math.exp(-budget.epsilon)),
        "shares": {str(purpose): _alone(budget, share) for purpose, share in policy.shares.items()},
        "analysts": {name: _alone(budget, share) for name, share in policy.analysts.items()},
    }
    if policy.trust is Trust.DISTRIBUTED:
        # (σ² − 4)/(σ²/h − 4) is at most (4h − 1)/3, as no share of noise is below 4 units
        alone = Cost(budget.mu2 * Fraction(4 * honest - 1, 3), budget.slack)
        found["epsilon_if_all_others_collude"] = epsilon_of_cost(alone, budget.delta)
    if (life := policy.lifetime) is not None:
        all_windows = Cost(budget.mu2 * windows, min(budget.slack * windows, life.slack))
        found["windows"], found["mu_of_all_windows"] = windows, root_up(all_windows.mu2)
        found["epsilon_of_all_windows"] = epsilon_of_cost(all_windows, life.delta)
        found["lifetime_epsilon"], found["lifetime_delta"] = life.epsilon, life.delta
    return found


def _alone(budget: Budget, share: float) -> float:
    return epsilon_of_cost(budget.part(exact(share)), budget.delta)


def listed(items: Any) -> str:
    """``a, b and c``; "nothing" for nothing."""
    words = [str(item) for item in items]
    if len(words) < 2:
        return words[0] if words else "nothing"
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _short(policy: Policy) -> Iterator[str]:
    yield (
        f"Version {policy.version} of the policy of federation {policy.federation!r} is valid from "
        f"{policy.valid_from:%Y-%m-%d %H:%M} to {policy.expires:%Y-%m-%d %H:%M} (UTC); then every request is refused."
    )
    yield (
        f"It permits questions about the dataset {policy.dataset!r} in schema version {policy.schema_version}, which "
        f"describes people of the population {policy.population!r}."
    )
    if policy.schema_digest is not None:
        yield (
            f"Its schema is signed with it: one of another content than {policy.schema_digest[:16]}… (see: privfl "
            "schema show) is refused, by whatever name."
        )
    yield (
        "Each site enforces it by itself, before it reads a row: coordinator and analysts can ask for less, never more."
    )
    if policy.noiseless:
        yield (
            "WARNING: THIS POLICY LETS EXACT SUMS LEAVE. No noise is added, there is no epsilon and no delta, and no "
            "one is protected against what exact sums reveal. Secure aggregation hides which site contributed what, "
            "not what the sum says about a single person: two sums that differ in one person give that person's data."
        )


def _who(policy: Policy) -> Iterator[str]:
    one = _ONE[policy.unit]
    if policy.noiseless:
        yield f"Nobody, in the sense of differential privacy. The ledger still counts by {one} (unit {policy.unit})."
        return
    yield (
        f"Every single {one} (unit {policy.unit}): the promise compares the world as it is with one in which "
        f"{policy.unit.neighbours}."
    )
    yield (
        f"{policy.subjects} people are declared for the population; this public figure limits delta and is not checked "
        "against the rows."
    )
    if policy.max_sites_per_subject == 1:
        yield "It is assumed that nobody's rows are at more than one site (max_sites_per_subject 1)."
    else:
        k = policy.max_sites_per_subject
        yield (
            f"One person's rows may be at up to {k} sites, so every cost mu is multiplied by {k}, or by the square "
            f"root of {k} where each site brings its own full noise."
        )


def _against(policy: Policy) -> Iterator[str]:
    if policy.noiseless:
        yield (
            f"The coordinator and up to {policy.colluders} colluding sites do not see a single site's numbers, only "
            "sums; whoever reads a sum is not hindered in drawing conclusions from it."
        )
    elif policy.trust is Trust.LOCAL:
        yield (
            "Against everybody outside the site together (trust local): the site's own noise suffices, whatever the "
            "coordinator, the analysts and all other sites do."
        )
    else:
        found = figures(policy)
        yield (
            f"Against the coordinator, everyone who reads results, and up to {max(1, policy.colluders)} colluding "
            "site(s), for every aborted and repeated attempt as well (trust distributed)."
        )
        yield (
            "Sites share the noise under encryption. Should all other sites collude against one, its own share of the "
            f"noise is left: with the fewest survivors allowed ({policy.min_survivors}) epsilon grows from "
            f"{_exactly(policy.epsilon)} to at most {up(found['epsilon_if_all_others_collude'])}, "
            "with more of them further."
        )


def _total(policy: Policy) -> Iterator[str]:
    budget = policy.budget
    if budget is None:
        yield "Without limit: there is no budget to use up. Charges are recorded without a cost, until expiry."
        yield f"Sums may be asked for {listed(purpose for purpose, share in policy.shares.items() if share)}."
        yield f"Who may ask: {listed(policy.analysts) if policy.analysts else 'any analyst of the federation'}."
        return
    found = figures(policy)
    window = policy.window
    per = "In total" if window is None else f"Within any {window.days} days"
    yield (
        f"{per}, everything that leaves costs at most epsilon {_exactly(budget.epsilon)} at delta "
        f"{_exactly(budget.delta)} (mu {up(found['mu'], 4)}), whoever asks and however cleverly."
    )
    yield (
        f"In words: whatever an observer sees{'' if window is None else f' within any {window.days} days'}, "
        f"{_in_words(policy, budget)}"
    )
    if window is not None:
        yield (
            f"The budget comes back as charges grow older than {window.days} days: {found['windows']} windows fit into "
            f"the validity and could add up to mu {up(found['mu_of_all_windows'], 4)}, which is epsilon "
            f"{up(found['epsilon_of_all_windows'])} at delta {_exactly(window.lifetime_delta)}."
        )
        yield (
            "Under this policy nothing is admitted that would take the whole life of the population's ledger, whatever "
            f"policies it had before, beyond epsilon {_exactly(window.lifetime_epsilon)} at delta "
            f"{_exactly(window.lifetime_delta)}; that cap never comes back. "
            f"For life, {_in_words(policy, policy.lifetime)}"
        )
    else:
        yield "What is spent stays spent: a new version, schema or name of the data does not bring it back."
    for purpose in Purpose:
        share = policy.shares.get(purpose, 0.0)
        spent = f"at most epsilon {up(found['shares'][purpose])} on its own" if share else "nothing; it is refused"
        yield f"For {purpose}: {100 * share:g} % of the total, {spent}."
    rest = 1 - sum((exact(share) for share in policy.shares.values()), Fraction(0))
    if rest:
        yield f"{100 * float(rest):g} % of the total is given to no purpose and cannot be spent."
    for name, share in policy.analysts.items():
        yield f"{name} alone may use {100 * share:g} % of it (epsilon {up(found['analysts'][name])})."
    if policy.analysts:
        yield "Nobody else may ask. The total also holds if analysts put their answers together."
    else:
        yield "Any analyst of the federation may ask; they share the one total."
    if policy.max_epsilon_per_upload is not None:
        yield (
            f"A single upload may cost at most epsilon {_exactly(policy.max_epsilon_per_upload)} at delta "
            f"{_exactly(budget.delta)}; a request with less noise is refused."
        )
    else:
        yield "No cap is set on one upload (max_epsilon_per_upload): a single request may use up all that is left."


def _in_words(policy: Policy, budget: Budget | None) -> str:
    assert budget is not None
    factor = f"10^{math.ceil(budget.epsilon / math.log(10))}"
    if budget.epsilon < math.log(1e6):
        factor = up(math.exp(budget.epsilon))
    part = 1 / (1 + math.exp(-budget.epsilon))
    sure = f"{math.ceil(1000 * part) / 10:.1f} %" if part < 0.999 else "almost completely"
    return (
        f"the odds he gives {_ODDS[policy.unit]} change by a factor of at most {factor}, except with a probability of "
        f"at most {up(failure(budget), 2)}. Otherwise, who held it for a toss of a coin becomes {sure} sure at most."
    )


def _exactly(value: float | None) -> str:
    return f"{value:g}" if value == float(f"{value:g}") else repr(value)


def _asked(policy: Policy) -> Iterator[str]:
    for kind, task in policy.tasks.items():
        what = "Run an app's own training, whatever it reads" if kind == "update" else f"Train a model of kind {kind}"
        yield f"{what}, with one contribution clipped at {_exactly(task.clip)} or less."
        need = _TASK_UNIT[kind]
        if not policy.noiseless and policy.unit is Unit.SUBJECT and need is Unit.RECORD:
            yield (
                f"Each {kind} request must bound all rows of one person together: its schema names the subject column "
                "and max_rows, and a request that bounds single rows is refused."
            )
        elif not policy.noiseless and _ORDER.index(need) < _ORDER.index(policy.unit):
            yield (
                f"But: {kind} bounds single rows, so it has no finite cost per {_ONE[policy.unit]}, and under this "
                "policy every such request is refused."
            )
    if policy.statistics:
        yield f"Ask for these statistics and no others: {listed(policy.statistics)}."
        yield f"The display minimum: a cell is shown only if its noisy count is at least {policy.min_cell_count}."
    else:
        yield f"Cells of tables, once any are allowed, are shown from a noisy count of {policy.min_cell_count} on."
    columns = [f"{name} ({_range(column)})" for name, column in policy.columns.items()]
    yield f"Read these columns and no others: {', '.join(columns)}."
    if policy.approval:
        yield (
            f"For {listed(policy.approval)} that is not enough: each request also waits until the site's operator has "
            "said yes to it, and one that he does not allow is not answered."
        )
    if free := [purpose for purpose, share in policy.shares.items() if share and purpose not in policy.approval]:
        yield f"For {listed(free)} these rules stand: what keeps to them is answered without asking the operator."


def _range(column: AllowedColumn) -> str:
    if column.classes:
        return listed(map(repr, column.classes))
    if column.max_length is not None:
        return f"text of up to {column.max_length} characters"
    return f"from {_exactly(column.lower)} to {_exactly(column.upper)}"


def _round(policy: Policy) -> Iterator[str]:
    yield f"At least {policy.min_sites} sites are in the cohort and at least {policy.min_survivors} in any opened sum."
    yield (
        f"The roster counts on {policy.colluders} colluding site(s) or more, and its committee has at least "
        f"{policy.min_committee} members."
    )
    words = {"voted": "the committee votes which sites are in it", "complete": "every site of the cohort has uploaded"}
    yield f"A sum is opened only if {' or '.join(words[mode] for mode in policy.modes)}."
    yield (
        f"A round is tried at most {policy.attempts_per_round} time(s) in one epoch; a new epoch may take it up "
        "again. Each attempt draws fresh noise and is charged, whether or not a result came of it."
    )


def _assumed(policy: Policy) -> Iterator[str]:
    yield "The site's own software, operating system, random numbers and key store work and are in its hands alone."
    yield "The roster is right: its authority enrolled the keys it believes to have enrolled."
    if policy.trust is Trust.DISTRIBUTED or policy.noiseless:
        yield (
            f"No more sites collude than the roster counts on (at least {policy.colluders}), and encryption is not "
            "broken: the protection of single sites' numbers is computational."
        )
    if policy.unit is Unit.SUBJECT:
        yield "One id in the subject column is one person, and the same person has the same id in all rows of a site."
