"""The fields of a policy and the rules between them; docs/policy.md describes each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from privfl.budget.charge import Purpose
from privfl.budget.policy_file import Fault, InvalidPolicy
from privfl.budget.policy_parts import (
    STATISTIC,
    AllowedColumn,
    AllowedTask,
    Frozen,
    Instant,
    Many,
    Name,
    Share,
    Text,
    Window,
    complaints,
)
from privfl.declared import Declared
from privfl.dp import Trust, Unit

__all__ = ["WITHOUT_NOISE", "PolicyFields", "exact"]

#: What a policy must say, word for word, for sums to leave without noise.
WITHOUT_NOISE = "exact sums leave the sites and no noise protects anyone"
_EXAMPLE = '"' + "0123456789abcdef" * 4 + '"'
_DIGEST = re.compile("[0-9a-f]{64}")
Mode = Literal["voted", "complete"]
TaskKind = Literal["logistic", "linear", "averaging", "update"]
Whole = Annotated[int, Field(ge=1, le=2**32 - 1)]


class PolicyFields(Declared):
    """What a policy says; :class:`privfl.budget.policy.Policy` is what it does.

    Raises:
        InvalidPolicy: every complaint at once, each with its field.
    """

    model_config = ConfigDict(strict=True)

    federation: Annotated[Name, Field(examples=["northern-hospitals"])]
    version: Annotated[Whole, Field(examples=[1])]
    valid_from: Annotated[Instant, Field(examples=["2026-11-20"])]
    expires: Annotated[Instant, Field(examples=["2027-11-20"])]
    dataset: Annotated[Text, Field(examples=["tumours"])]
    schema_version: Annotated[Whole, Field(examples=[1])]
    schema_digest: Annotated[str | None, Field(examples=[_EXAMPLE])] = None
    population: Annotated[Name, Field(examples=["northern-patients"])]
    subjects: Annotated[int, Field(ge=1, le=10**11, examples=[5000])]
    max_sites_per_subject: Annotated[int, Field(ge=1, le=10_000, examples=[1])] = 1
    unit: Annotated[Unit, Field(strict=False, examples=["record"])]
    trust: Annotated[Trust, Field(strict=False, examples=["distributed"])]
    without_noise: Annotated[str | None, Field(examples=[f'"{WITHOUT_NOISE}"'])] = None
    epsilon: Annotated[float | None, Field(gt=0, le=1000, validate_default=True, examples=[4])] = None
    delta: Annotated[float | None, Field(ge=1e-15, lt=1, validate_default=True, examples=["1e-6"])] = None
    max_epsilon_per_upload: Annotated[float | None, Field(gt=0, le=1000, examples=[1])] = None
    shares: Annotated[
        Frozen[Annotated[Purpose, Field(strict=False)], Share], Field(examples=["{training: 0.7, analytics: 0.3}"])
    ]
    approval: Annotated[
        Many[Annotated[Purpose, Field(strict=False)]], Field(validate_default=True, examples=["[analytics]"])
    ] = ()
    analysts: Annotated[Frozen[Name, Share], Field(examples=["{dr-jones: 0.5}"])] = Field(
        default={}, validate_default=True
    )
    window: Annotated[Window | None, Field(examples=["{days: 90, lifetime_epsilon: 8, lifetime_delta: 1e-6}"])] = None
    colluders: Annotated[int, Field(ge=0, le=100_000, examples=[1])]
    min_survivors: Annotated[int, Field(ge=2, le=100_000, examples=[3])]
    min_sites: Annotated[int, Field(ge=2, le=100_000, examples=[3])]
    min_committee: Annotated[int, Field(ge=2, le=100_000, examples=[3])]
    attempts_per_round: Annotated[int, Field(ge=1, le=1000, examples=[3])]
    modes: Annotated[Many[Mode], Field(min_length=1, examples=["[voted, complete]"])]
    min_cell_count: Annotated[int, Field(ge=1, le=10**9, examples=[10])]
    tasks: Annotated[Frozen[TaskKind, AllowedTask], Field(examples=["{logistic: {clip: 0.3}}"])] = Field(
        default={}, validate_default=True
    )
    statistics: Annotated[
        Many[Annotated[str, Field(pattern=STATISTIC)]], Field(validate_default=True, examples=["[mean, histogram]"])
    ] = ()
    columns: Annotated[Frozen[Text, AllowedColumn], Field(min_length=1, examples=["{age: {lower: 0, upper: 110}}"])]

    def __init__(self, /, **fields: Any) -> None:
        try:
            BaseModel.__init__(self, **fields)
        except ValidationError as error:
            raise InvalidPolicy(complaints(type(self), error)) from None
        except OverflowError:
            raise InvalidPolicy([Fault((), "a number is too large; write one below 1e308")]) from None

    # -- rules between fields: each stands at the later field, so that all complaints come at once -----------

    @field_validator("expires")
    @classmethod
    def _ordered(cls, value: datetime, info: ValidationInfo) -> datetime:
        start = info.data.get("valid_from")
        if start is not None and value <= start:
            raise ValueError(f"must lie after valid_from ({_day(start)}); write a later date")
        return value

    @field_validator("schema_digest")
    @classmethod
    def _hex(cls, value: str | None) -> str | None:
        if value is not None and not _DIGEST.fullmatch(value):
            raise ValueError("must be 64 hex digits in lower case; copy them from: privfl schema show SCHEMA")
        return value

    @field_validator("approval")
    @classmethod
    def _spent(cls, value: tuple[Purpose, ...], info: ValidationInfo) -> tuple[Purpose, ...]:
        shares = info.data.get("shares")
        idle = [purpose for purpose in value if shares is not None and not shares.get(purpose)]
        if idle:
            raise ValueError(f"names {idle[0]}, which has no share and is refused anyway; remove it, or give it one")
        return value

    @field_validator("without_noise")
    @classmethod
    def _by_name(cls, value: str | None) -> str | None:
        if value is not None and value != WITHOUT_NOISE:
            raise ValueError(f'only one sentence grants this; write "{WITHOUT_NOISE}", or remove the field')
        return value

    @field_validator("epsilon", "delta")
    @classmethod
    def _total(cls, value: float | None, info: ValidationInfo) -> float | None:
        if "without_noise" not in info.data:
            return value
        without = info.data["without_noise"] is not None
        example = "4" if info.field_name == "epsilon" else "1e-6"
        if value is None and not without:
            raise ValueError(f"is missing; write {info.field_name}: {example}")
        if value is not None and without:
            raise ValueError("has no meaning beside without_noise; remove one of the two")
        if info.field_name == "delta":
            _small(value, info.data.get("subjects"))
        return value

    @field_validator("max_epsilon_per_upload")
    @classmethod
    def _below_total(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("without_noise") is not None:
            raise ValueError("has no meaning beside without_noise; remove one of the two")
        total = info.data.get("epsilon")
        if value is not None and total is not None and value > total:
            raise ValueError(f"is more than the whole epsilon; write at most {total:g}")
        return value

    @field_validator("shares")
    @classmethod
    def _whole(cls, value: Mapping[Purpose, float]) -> Mapping[Purpose, float]:
        total = sum((exact(share) for share in value.values()), Fraction(0))
        if total > 1:
            raise ValueError(f"sum to {float(total):g}; write shares that sum to at most 1")
        if not total:
            raise ValueError("give nothing to any purpose; write for example {training: 0.7, analytics: 0.3}")
        return value

    @field_validator("window")
    @classmethod
    def _capped(cls, value: Window | None, info: ValidationInfo) -> Window | None:
        if value is None:
            return value
        if info.data.get("without_noise") is not None:
            raise ValueError("has no meaning beside without_noise; remove one of the two")
        for name, life in (("epsilon", value.lifetime_epsilon), ("delta", value.lifetime_delta)):
            total = info.data.get(name)
            if total is not None and life < total:
                raise ValueError(f"lifetime_{name} is below {name}; write at least {total:g}")
        _small(value.lifetime_delta, info.data.get("subjects"), "lifetime_delta ")
        return value

    @field_validator("min_survivors")
    @classmethod
    def _honest(cls, value: int, info: ValidationInfo) -> int:
        colluders, trust = info.data.get("colluders"), info.data.get("trust")
        if colluders is None:
            return value
        least = (max(1, colluders) if trust is Trust.DISTRIBUTED else colluders) + 2
        if value < least:
            why = "two honest shares of noise" if trust is Trust.DISTRIBUTED else "two honest sites in every sum"
            raise ValueError(f"with {colluders} colluders {why} need {least}; write {least} or more")
        return value

    @field_validator("min_sites")
    @classmethod
    def _enough(cls, value: int, info: ValidationInfo) -> int:
        least = info.data.get("min_survivors")
        if least is not None and value < least:
            raise ValueError(f"a smaller cohort than min_survivors opens nothing; write {least} or more")
        return value

    @field_validator("statistics")
    @classmethod
    def _something(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        tasks = info.data.get("tasks")
        if tasks is not None and not tasks and not value:
            raise ValueError("neither tasks nor statistics are allowed; write at least one of either")
        if both := set(value) & set(tasks or ()):
            raise ValueError(f"{both.pop()!r} is a task; allow it under tasks, with its clip")
        return value


def exact(share: float) -> Fraction:
    """The decimal that was written: 0.1 is one tenth, not the float beside it."""
    return Fraction(repr(share))


def _day(moment: datetime) -> str:
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return text.removesuffix("T00:00:00Z")


def _small(delta: float | None, subjects: int | None, what: str = "") -> None:
    if delta is not None and subjects is not None and exact(delta) * 10 * subjects > 1:
        raise ValueError(f"{what}must be at most 1/(10 x {subjects} subjects); write {largest_delta(subjects)} or less")


def largest_delta(subjects: int) -> str:
    """The largest number of one digit that is at most 1/(10·subjects)."""
    power = len(str(subjects - 1)) + 1 if subjects > 1 else 1
    return f"{10**power // (10 * subjects)}e-{power}"
