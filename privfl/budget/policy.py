"""The policy: what the compliance officer permits, as one frozen value with one canonical form.

Written in YAML (docs/policy.md lists every field), signed by the officer (:mod:`privfl.budget.signed`) and
enforced at each site: :meth:`Policy.examine` sees a request before anything is computed. A request may
only tighten.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from privfl_keys import Label, Roster, digest
from pydantic import BaseModel

from privfl.budget.charge import Proposal, Purpose
from privfl.budget.filter import Budget
from privfl.budget.policy_fields import WITHOUT_NOISE, PolicyFields, exact
from privfl.budget.policy_file import InvalidPolicy, read_document
from privfl.dp import Trust, Unit
from privfl.errors import Malformed, Misuse, Refused

if TYPE_CHECKING:
    from privfl.budget.limits import Limits

__all__ = ["WITHOUT_NOISE", "Policy", "exact"]

DAY_MS = 86_400_000
#: Fields that are not written where they are empty, so that a policy from before them keeps its hash.
_UNSAID = ("approval",)


class Policy(PolicyFields):
    """What one site population may be asked, at what total price, until when.

    Every field is described in docs/policy.md. Build it with :meth:`from_yaml`.

    Raises:
        InvalidPolicy: every complaint at once, each with its field.
    """

    # -- forms ----------------------------------------------------------------------------------------------

    @classmethod
    def from_yaml(cls, source: str | Path) -> Self:
        """Read a policy file (a ``Path``) or YAML text.

        Raises:
            InvalidPolicy: every complaint at once, each with its line and what to write.
            Misuse: the file cannot be read.
        """
        document = read_document(source)
        try:
            policy = cls(**document.fields)
        except InvalidPolicy as error:
            raise InvalidPolicy(document.located(error.faults), document.name) from None
        if document.faults:
            raise InvalidPolicy(document.located(()), document.name)
        return policy

    @classmethod
    def from_canonical(cls, data: bytes) -> Self:
        """Read what :meth:`canonical` wrote; raises Malformed for anything else, however slight."""
        try:
            fields = json.loads(data.decode("ascii"))
            policy = cls(**fields)
        except (ValueError, TypeError, RecursionError, Misuse) as error:
            why = f": {error}" if isinstance(error, Misuse) else ""
            raise Malformed(
                f"this is not the text of a policy{why}; ask the officer to sign the policy again"
            ) from None
        if policy.canonical() != data:
            raise Malformed("the text of this policy is not in canonical form; ask the officer to sign it again")
        return policy

    def document(self) -> dict[str, Any]:
        """The policy as plain values, from which ``Policy(**document)`` builds it again; unused fields left out."""
        every = {name: _plain(getattr(self, name)) for name in type(self).model_fields}
        return {name: value for name, value in every.items() if value is not None and (value or name not in _UNSAID)}

    def canonical(self) -> bytes:
        """One text per meaning: JSON in ASCII, keys sorted, no blanks, numbers at their shortest."""
        text = json.dumps(self.document(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return text.encode("ascii")

    @cached_property
    def hash(self) -> bytes:
        """32 bytes that stand for exactly this policy."""
        return digest(Label.POLICY, self.canonical())

    # -- what others ask of it ------------------------------------------------------------------------------

    @property
    def noiseless(self) -> bool:
        """Whether sums without noise were asked for by name; then there is no budget."""
        return self.without_noise is not None

    @property
    def allow_voted(self) -> bool:
        """Whether a sum may be opened by the committee's vote."""
        return "voted" in self.modes

    @property
    def allow_complete(self) -> bool:
        """Whether a sum may be opened when the whole cohort has uploaded."""
        return "complete" in self.modes

    @property
    def valid_from_at(self) -> int:
        """Milliseconds since 1970, included."""
        return int(self.valid_from.timestamp()) * 1000

    @property
    def expires_at(self) -> int:
        """Milliseconds since 1970, excluded."""
        return int(self.expires.timestamp()) * 1000

    @cached_property
    def budget(self) -> Budget | None:
        """The total (of one window, if there is one) as the filter's limits; None without noise."""
        if self.epsilon is None or self.delta is None:
            return None
        return Budget.from_epsilon_delta(self.epsilon, self.delta)

    @cached_property
    def lifetime(self) -> Budget | None:
        """The cap over all windows; None without a window."""
        if self.window is None:
            return None
        return Budget.from_epsilon_delta(self.window.lifetime_epsilon, self.window.lifetime_delta)

    @property
    def windows(self) -> int:
        """How many windows the validity can hold one after another; 1 without a window."""
        if self.window is None:
            return 1
        return -(-(self.expires_at - self.valid_from_at) // (self.window.days * DAY_MS))

    def limits(self) -> Limits:
        """What may be spent under this policy, for an account to enforce."""
        return self._limits

    @cached_property
    def _limits(self) -> Limits:
        from privfl.budget.limits import Limits  # noqa: PLC0415

        return Limits(
            unit=self.unit,
            budget=self.budget,
            shares={purpose: exact(share) for purpose, share in self.shares.items()},
            analysts={name: exact(share) for name, share in self.analysts.items()},
            window_ms=None if self.window is None else self.window.days * DAY_MS,
            lifetime=self.lifetime,
            sites_per_subject=self.max_sites_per_subject,
            noiseless=self.noiseless,
        )

    def examine(self, proposal: Proposal, now: int) -> None:
        """Refuse what this policy does not permit; see :func:`privfl.budget.examine.examine`."""
        from privfl.budget.examine import examine  # noqa: PLC0415 - it needs the policy

        examine(self, proposal, now)

    def agrees_with(self, roster: Roster) -> None:
        """Raise Refused unless a federation with ``roster`` can fulfil this policy at all; names every reason."""
        sites = len(roster.site_ids)
        reasons = []
        if roster.federation != self.federation:
            reasons.append(f"it is for federation {self.federation!r} and the roster for {roster.federation!a:.80}")
        if roster.corrupt_bound < self.colluders:
            reasons.append(f"it counts on {self.colluders} colluders and the roster on c = {roster.corrupt_bound}")
        if roster.committee_size < self.min_committee:
            reasons.append(f"it wants a committee of {self.min_committee} and the roster has {roster.committee_size}")
        if sites < self.min_sites:
            reasons.append(f"it wants cohorts of {self.min_sites} sites and the roster has {sites}")
        if reasons:
            raise Refused(
                f"policy version {self.version} and roster version {roster.version} disagree: "
                + "; ".join(reasons)
                + "; next step: compliance and the authority agree on the numbers, and one of them signs anew"
            )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, BaseModel):
        return {
            name: part for name in type(value).model_fields if (part := _plain(getattr(value, name))) not in (None, [])
        }
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Purpose | Trust | Unit) else value
