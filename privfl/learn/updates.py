"""The question behind somebody else's training loop: how every site's own functions changed a model.

Construction S: a site's whole change of the model is clipped, rounded at random and tested in integers at its own
site; numbers of examples and metrics ride in the same vector within declared bounds. The unit of protection is the
site; a record or a person is covered at four times the μ², since it may turn a site's contribution from any vector
within the bounds into any other. docs/decisions/0039 has the argument, :mod:`privfl.learn.update_spec` the figures.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt

from privfl.budget import Purpose
from privfl.codec import Bounds, Record, encode
from privfl.dp import LocalReport, Noise, Release, Unit, assemble, saturate
from privfl.entropy import Entropy
from privfl.errors import DataError, Malformed, Misuse, Refused
from privfl.learn.planning import Layout, Plan, check_sizes, number_of, text_of
from privfl.learn.update_data import AppData
from privfl.learn.update_inputs import Arrays, ArrayShape, Ask, Inputs, read_inputs
from privfl.learn.update_plan import check_fit, check_total
from privfl.learn.update_spec import Bounded, Grain, UpdateSpec, layout_of, shorter
from privfl.learn.update_work import Worker
from privfl.ring import Ring, unrotate
from privfl.tasks import Price, Question, Sum, costs_of
from privfl.tasks.question import Int64s
from privfl.tasks.schema import Schema

__all__ = ["Opened", "UpdateDescriptor", "UpdateQuestion"]


MAX_DESCRIPTOR = 1 << 20  # bytes; some ten thousand arrays


@dataclass(frozen=True)
class UpdateDescriptor(Record):
    """An app's training as it travels; numbers with fractions are the shortest text that reads back the same."""

    TAG: ClassVar[str] = "update"

    schema: str
    arrays: Annotated[tuple[ArrayShape, ...], Bounds(1, 100_000)]
    clip: str
    weights: str
    cap: int
    weighted_by: Annotated[str, Bounds(1, 200)]
    train: Annotated[tuple[Bounded, ...], Bounds(0, 100)]
    evaluate: Annotated[tuple[Bounded, ...], Bounds(0, 100)]
    evaluates: bool
    scale: int
    fine: int
    rotated: bool
    epsilon: str | None
    delta: str | None
    unit: str
    rounds: int
    final: bool
    uploads: int
    sites: int
    bits: int
    word: int
    release: Release | None


@dataclass(frozen=True)
class Opened:
    """A round's sum, decoded.

    Attributes:
        change: weighted mean change of the model, float64 arrays by name; None where nothing (that stands above its
            noise) was summed, or training was not asked for.
        train, evaluate: weighted means of the declared metrics, likewise. train_sd, evaluate_sd: of their noise.
        examples, evaluated: sum of the sites' capped numbers of examples; their number where all weigh the same.
    """

    change: Mapping[str, npt.NDArray[np.float64]] | None
    train: Mapping[str, float] | None
    evaluate: Mapping[str, float] | None
    examples: float
    evaluated: float
    train_sd: Mapping[str, float]
    evaluate_sd: Mapping[str, float]


class UpdateQuestion(Question):
    """How the sites' own training changes a model, round by round.

    Args:
        rounds: of training. final: one more slot of metrics alone, for the last model.
        plan: its ``rounds`` are the uploads asked of each site at most; its ``unit`` is what epsilon speaks of.
    """

    kind = "update"
    purpose = Purpose.TRAINING

    def __init__(
        self, schema: Schema, spec: UpdateSpec, plan: Plan, grain: Grain, rounds: int, *, final: bool = False
    ) -> None:
        if rounds < 1 or plan.rounds < rounds + final:
            raise Misuse(f"{plan.rounds} uploads do not make {rounds} rounds")
        self.schema, self.spec, self.plan, self.grain = schema, spec, plan, grain
        self.rounds, self.final = rounds, final
        self.sites, self.uploads = plan.sites, plan.rounds
        self._layout = layout_of(spec, grain)
        if final and self._length("evaluate") == 0:
            raise Misuse("a last evaluation needs metrics, or weights, of an evaluation")
        self._inputs: tuple[bytes, Inputs] = (b"", Inputs(0, {}, None, None))

    # -- what is public ------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """Size of the model, in public words."""
        return f"update of {self.spec.length} parameters"

    @property
    def columns(self) -> tuple[str, ...]:
        """None that privfl reads: the app loads its rows itself."""
        return ()

    @property
    def clip(self) -> float:
        """C, of a site's whole change."""
        return self.spec.clip

    @property
    def release(self) -> Release | None:
        """What one round's upload reveals; None only where no noise was asked for by name."""
        return self.plan.release

    def layout(self) -> tuple[Layout, ...]:
        """The blocks of a round's vector."""
        return self._layout

    def _length(self, name: str) -> int:
        return next((part.length for part in self._layout if part.name == name), 0)

    @property
    def length(self) -> int:
        """Coordinates of a round's vector."""
        return sum(part.length for part in self._layout)

    def descriptor(self) -> bytes:
        """See :class:`~privfl.tasks.Question`."""
        return self._descriptor

    @cached_property
    def _descriptor(self) -> bytes:
        spec, plan, grain = self.spec, self.plan, self.grain
        return UpdateDescriptor(
            self.schema.to_json(),
            spec.arrays,
            repr(float(spec.clip)),
            spec.weights,
            spec.cap,
            spec.weighted_by,
            spec.train,
            spec.evaluate,
            spec.evaluates,
            grain.scale,
            grain.fine,
            grain.rotated,
            text_of(plan.epsilon),
            text_of(plan.delta),
            str(plan.unit),
            self.rounds,
            self.final,
            plan.rounds,
            plan.sites,
            plan.ring.bits,
            plan.ring.word,
            plan.release,
        ).encode()

    @classmethod
    def from_descriptor(cls, data: bytes) -> UpdateQuestion:
        """Rebuild a question from a peer's bytes; every sensitivity, length and cost is computed again.

        Raises:
            Malformed: no canonical description, or one that claims other figures than its settings give.
            Refused: a release that breaks a rule of noise.
        """
        if len(data) > MAX_DESCRIPTOR:
            raise Malformed(f"a description of {len(data)} bytes is longer than any app's needs to be")
        told = UpdateDescriptor.decode(data)
        try:
            for metric in (*told.train, *told.evaluate):
                if Bounded.of(metric.name, *metric.bounds) != metric:
                    raise Misuse("a metric's bounds are not at their shortest")
            clip = number_of(told.clip)
            assert clip is not None
            spec = UpdateSpec(
                told.arrays, clip, told.weights, told.cap, told.weighted_by, told.train, told.evaluate, told.evaluates
            )
            plan = Plan(
                number_of(told.epsilon),
                number_of(told.delta),
                told.uploads,
                told.sites,
                told.release,
                Ring(told.bits, told.word),
                Unit(told.unit),
            )
            check_sizes(told.uploads, told.sites)
            grain = Grain(told.scale, told.fine, told.rotated)
            question = cls(Schema.from_json(told.schema), spec, plan, grain, told.rounds, final=told.final)
            _recomputed(question)
        except (Misuse, Refused, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Malformed(f"the description of an app's training does not hold together: {error}") from None
        if question.descriptor() != data:
            raise Malformed("the description of an app's training is not in its canonical form")
        return question

    def read(self, inputs: bytes) -> Inputs:
        """A slot's inputs; raises Malformed unless they are some of this question."""
        if self._inputs[0] is not inputs and self._inputs[0] != inputs:
            found = read_inputs(inputs, self.spec.arrays)
            if found.train is None and not (self.final and found.round == self.rounds + 1):
                raise Malformed("metrics alone are asked for once, after the last round")
            if found.train is not None and found.round > self.rounds:
                raise Malformed(f"round {found.round} of {self.rounds}")
            if found.evaluate is not None and not self.spec.evaluates:
                raise Malformed("an evaluation is asked for that the question does not have")
            self._inputs = (inputs, found)
        return self._inputs[1]

    def sum_of(self, inputs: bytes) -> Sum:
        """A round's vector, or that of metrics alone."""
        if self.read(inputs).train is not None:
            return Sum(self.plan.ring, self.length, self.release)
        return Sum(self.plan.ring, self._length("evaluate"), None if self.release is None else shorter(self.release))

    def prices(self) -> Sequence[Price]:
        """All planned uploads."""
        if self.release is None:
            return ()
        whole = Price(costs_of(self.release), self.release.trust, self.uploads - self.final)
        if not self.final:
            return (whole,)
        last = shorter(self.release)
        return (whole, Price(costs_of(last), last.trust, 1))

    # -- the site ------------------------------------------------------------------------------------

    def check(self, data: Any) -> None:
        """Raise DataError unless an app answers for rows of this schema, WireError while it is not at hand."""
        self._check(data)
        data.present()

    def _check(self, data: Any) -> None:
        if not isinstance(data, AppData):
            raise DataError(
                "the question is about the training of a Flower app, and this site answers with a table; end this "
                "process: the private app then starts one that answers with the app (privfl site run HOME --app)"
            )
        self.check_schema(data)

    def contribution(self, inputs: bytes, data: Any, entropy: Entropy, *, report: LocalReport | None = None) -> Int64s:
        """See :class:`~privfl.tasks.Question`; whatever the app's functions do, a vector comes back."""
        asked = self.read(inputs)
        self._check(data)  # charged by now: the calls themselves wait for an app that went meanwhile
        report = LocalReport() if report is None else report
        parts = Worker(self.spec, self.grain, self._seed(asked.round), entropy, report).parts(asked, data.call)
        release = self.sum_of(inputs).release
        if release is not None:
            assemble(parts, release)  # refuses a contribution that is more sensitive than was charged
        tops = [part.x_max for part in self._layout if asked.train is not None or part.name == "evaluate"]
        pairs = zip(parts, tops, strict=True)
        return np.concatenate([saturate(part.vector.reshape(-1), top, report=report) for part, top in pairs])

    def _seed(self, number: int) -> bytes:
        """Of a round's rotation: public, fixed by what is announced, before any row is looked at."""
        return hashlib.sha256(encode(("privfl rotation of an update", self.id, number))).digest()

    # -- the coordinator -----------------------------------------------------------------------------

    def encode_inputs(self, number: int, arrays: Arrays, train: Ask | None, evaluate: Ask | None) -> bytes:
        """What a slot is asked with; raises Misuse where the calls do not travel."""
        data = Inputs(number, arrays, train, evaluate).encode()
        try:
            self.read(data)
        except Malformed as error:
            raise Misuse(f"round {number} cannot be asked: {error}") from None
        return data

    def opened(self, inputs: bytes, total: Int64s, survivors: int) -> Opened:
        """Decode a slot's sum.

        Args:
            total: int64, the centred sum. survivors: sites in it.

        Raises:
            Misuse: wrong shape or type, or no survivor.
        """
        asked = self.read(inputs)
        length = self.sum_of(inputs).length
        if total.dtype != np.int64 or total.shape != (length,) or not 1 <= survivors <= self.sites:
            raise Misuse(f"a sum of {survivors} sites, {total.dtype} of shape {total.shape}, is none of this question")
        at, change = 0, None
        examples, train, train_sd = 0.0, None, dict[str, float]()
        if asked.train is not None:
            at = self.spec.length
            train_block = total[at : at + self._length("train")]
            at += len(train_block)
            mass, train, train_sd = self._means("train", self.spec.train, train_block, survivors)
            examples = mass * (self.spec.cap if self.spec.weighted else 1)
            if mass:
                change = self._change(total[: self.spec.length], mass, asked)
        mass, evaluate, evaluate_sd = self._means("evaluate", self.spec.evaluate, total[at:], survivors)
        evaluated = mass * (self.spec.cap if self.spec.weighted else 1)
        if asked.evaluate is None:
            evaluate, evaluate_sd, evaluated = None, {}, 0.0
        return Opened(change, train, evaluate, examples, evaluated, train_sd, evaluate_sd)

    def _change(self, total: Int64s, mass: float, asked: Inputs) -> dict[str, npt.NDArray[np.float64]]:
        mean = total.astype(np.float64)
        mean *= math.ldexp(1.0, -self.grain.scale) / mass
        if self.grain.rotated:
            mean = unrotate(mean, self._seed(asked.round))
        found, at = {}, 0
        for shape in self.spec.arrays:
            found[shape.name] = mean[at : at + shape.size].reshape(shape.shape)
            at += shape.size
        return found

    def _means(
        self, name: str, metrics: Sequence[Bounded], block: Int64s, survivors: int
    ) -> tuple[float, dict[str, float] | None, dict[str, float]]:
        """Sum of weights, weighted means, and the noise on them; (0, None, {}) where the weights drown in noise.

        A sum of weights within three standard deviations of zero divides nothing: the quotient would say nothing.
        """
        whole = float(1 << self.grain.fine)
        sd = self.noise(name) * math.sqrt(survivors) / whole
        if self.spec.weighted:
            if not len(block):
                return 0.0, None, {}
            mass, sums = float(block[0]) / whole, block[1:]
            if mass <= max(3 * sd, 0.5 / whole):
                return 0.0, None, {}
        else:
            mass, sums = float(survivors), block
        values = {m.name: m.value(float(s) / whole / mass) for m, s in zip(metrics, sums, strict=True)}
        return mass, values, {m.name: sd / mass * (m.bounds[1] - m.bounds[0]) for m in metrics}

    @property
    def noise_norm(self) -> float:
        """About how long the noise on a round's mean change is, if all sites upload with full weight; 0 without."""
        sd = self.noise("update") / math.sqrt(self.sites)
        return sd * math.sqrt(self.spec.length) * math.ldexp(1.0, -self.grain.scale)

    def noise(self, name: str) -> float:
        """σ of one site in a block, integer units; 0 without noise."""
        blocks = () if self.release is None else self.release.blocks
        return next((self.release.sigma_site(block) for block in blocks if block.name == name), 0.0)  # type: ignore[union-attr]

    def __repr__(self) -> str:
        plan = self.plan
        cost = (
            "no noise"
            if plan.release is None
            else f"epsilon {plan.epsilon:g} per {plan.unit}, trust {plan.release.trust}"
        )
        return (
            f"UpdateQuestion({self.spec.length} parameters, clip {self.clip:g}; {self.rounds} rounds, "
            f"{plan.sites} sites, {cost}; {self.length} x {plan.ring.bits} bits)"
        )


def _recomputed(question: UpdateQuestion) -> None:
    """Hold a peer's release against what its settings give; raises Misuse or Refused."""
    release, plan = question.release, question.plan
    if (release is None) != (plan.epsilon is None) or (plan.epsilon is None) != (plan.delta is None):
        raise Misuse("noise and budget belong together")
    check_fit(question.grain, question.layout(), plan)
    if release is None:
        return
    told = [(block.name, block.length, block.delta2, block.x_max, block.dithered) for block in release.blocks]
    own = [(block.name, block.length, block.delta2, block.x_max, False) for block in question.layout()]
    if told != own or release.unit is not Unit.SITE or release.noise is not Noise.GAUSSIAN:
        raise Misuse("the release claims another unit, length, bound or sensitivity than the settings give")
    if release.min_survivors > plan.sites:
        raise Misuse("the release waits for more survivors than there are sites")
    check_total(plan)
