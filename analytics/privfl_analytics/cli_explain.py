"""``--explain`` of every command that asks: what a study asks, leaves, costs and can tell; nothing is asked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeAlias

import click
import typer
from rich.console import Console

from privfl.cli.roles import tell
from privfl.dp import Unit

if TYPE_CHECKING:
    from privfl.tasks import Schema
    from privfl_analytics.jobs import RunSettings
    from privfl_analytics.study import Study

__all__ = ["UnitOf", "show_explanation"]

DELTA = 1e-6
#: Whom a study protects; a site as a whole it cannot.
UnitOf: TypeAlias = Annotated[
    Unit | None,
    typer.Option(
        click_type=click.Choice([str(Unit.RECORD), str(Unit.SUBJECT)]),
        help="Default: the policy's, with --explain subject if the schema names one.",
    ),
]


def show_explanation(
    study: Study, schema: Schema, settings: RunSettings, sites: int, budgets: Sequence[float], as_json: bool
) -> None:
    """Print the explanation at the settings' own ε, or at each of ``budgets`` where they name none.

    No policy is at hand: persons are taken as the unit where the schema names whose row it is, records elsewhere.

    Raises:
        Misuse, BudgetExceeded: as :meth:`privfl_analytics.study.Study.explain`.
    """
    said = study.explain(
        schema,
        sites=sites,
        epsilons=tuple(map(float, budgets if settings.epsilon is None else (settings.epsilon,))),
        delta=DELTA if settings.delta is None else settings.delta,
        trust=settings.trust,
        unit=settings.unit or (Unit.RECORD if schema.subject is None else Unit.SUBJECT),
        attempts=settings.attempts,
    )
    if as_json:
        tell(True, {"explanation": said.to_value()})
        return
    Console(file=sys.stdout).print(str(said), markup=False, highlight=False, soft_wrap=True)
