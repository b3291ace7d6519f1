"""A task from a peer's bytes: every sensitivity, length and bound is recomputed, nothing is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from privfl.dp import Noise
from privfl.errors import Malformed, Misuse, Refused
from privfl.learn.averaging import AveragingTask
from privfl.learn.glm import GlmTask
from privfl.learn.planning import Descriptor, Layout, Plan, check_sizes, check_unit, number_of, plan_ring, site_noise
from privfl.learn.specs import Averaging, Linear, Logistic
from privfl.learn.strategies import from_settings
from privfl.learn.tasks import Task
from privfl.ring import Ring
from privfl.tasks.schema import Schema

__all__ = ["task_from"]

_SPECS: Mapping[str, type[Logistic] | type[Linear] | type[Averaging]] = {
    "logistic": Logistic,
    "linear": Linear,
    "averaging": Averaging,
}


def task_from(told: Descriptor) -> Task:
    """Rebuild a task from a peer's descriptor; see :meth:`privfl.learn.tasks.Task.from_descriptor`."""
    kind = _SPECS.get(told.kind)
    if kind is None:
        raise Malformed(f"there is no task of kind {told.kind!r}; the peer may run another version")
    try:
        schema, spec = Schema.from_json(told.schema), kind(**json.loads(told.spec))
        spec.check(schema)
        plan = Plan(
            number_of(told.epsilon),
            number_of(told.delta),
            told.rounds,
            told.sites,
            told.release,
            Ring(told.bits, told.word),
            kind.UNITS[0] if told.release is None else check_unit(told.release.unit, kind.UNITS, schema),
        )
        check_sizes(told.rounds, told.sites)
        strategy = from_settings(told.strategy, tuple((key, float(text)) for key, text in told.settings))
        maker = AveragingTask if isinstance(spec, Averaging) else GlmTask
        task: Task = maker(spec, schema, plan, strategy)
        layout = task.layout()
    except (Misuse, Refused, ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"the task's descriptor does not hold together: {error}") from None
    _recompute(task, layout)
    if task.descriptor() != told.encode():
        raise Malformed("the task's descriptor is not in its canonical form")
    return task


def _recompute(task: Task, layout: Sequence[Layout]) -> None:
    """Hold a peer's release against what spec and schema give; the noise itself is priced by the site's budget."""
    release = task.release
    if release is None:
        if not (isinstance(task.spec, Averaging) and task.spec.unprotected):
            raise Malformed("the task has no noise although its specification does not allow that by name")
        return
    told = [(block.name, block.length, block.delta2, block.x_max, block.dithered) for block in release.blocks]
    own = [(block.name, block.length, block.delta2, block.x_max, False) for block in layout]
    if told != own or release.unit is not task.plan.unit or release.noise is not Noise.GAUSSIAN:
        raise Malformed("the task's release claims another unit, length, bound or sensitivity than its settings give")
    if release.min_survivors > task.plan.sites:
        raise Malformed("the task's release waits for more survivors than there are sites")
    try:
        plan_ring(layout, site_noise(release), task.plan.sites, task.ring.bits)
        spent = task.epsilon_after(task.plan.rounds)
    except (Misuse, Refused) as error:
        raise Malformed(f"the task's plan does not hold together: {error}") from None
    if task.plan.epsilon is None or spent > task.plan.epsilon:
        raise Malformed("the task's noise is too small for the epsilon it claims over all its rounds")
