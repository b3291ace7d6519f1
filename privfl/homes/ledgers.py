"""The one ledger of a site's folder: where it lies, that it exists, and opening it without ever beginning a second.

The sealed state remembers that there is a ledger and how far it had got, so that a missing or an older file is
not taken for a fresh start.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self

from privfl_keys import Identity

from privfl.budget import Policy
from privfl.budget.ledger import Ledger
from privfl.budget.ledger_entries import Anchor
from privfl.codec import Bounds, Record
from privfl.errors import Misuse, Refused, Unverified
from privfl.homes.config import SiteConfig
from privfl.homes.files import private_folder, sweep
from privfl.homes.state import Items

__all__ = ["LEDGER", "KnownLedger", "check_population", "ledger_path", "open_ledger"]

LEDGER: Final = "ledger"  # the folder, and the name in the sealed state
CLOCK_BEHIND_MS: Final = 300_000


@dataclass(frozen=True)
class KnownLedger(Record):
    """That a ledger exists, and the latest of it that was noted."""

    TAG: ClassVar[str] = "known ledger"

    population: Annotated[str, Bounds(1, 200)]
    anchor: Anchor

    @classmethod
    def of(cls, state: Items) -> Self | None:
        """What ``state`` remembers, None if there never was a ledger."""
        stored = state.get(LEDGER)
        return None if stored is None else cls.decode(stored)


def ledger_path(folder: Path, population: str) -> Path:
    """Where the ledger of ``population`` lies; two populations never share a file.

    >>> ledger_path(Path("north"), "patients").name
    'patients.db'
    """
    plain = re.sub(r"[^a-z0-9]+", "-", population.casefold()).strip("-")
    tail = "" if plain == population else f"-{sha256(population.encode()).hexdigest()[:8]}"
    return folder / LEDGER / f"{plain}{tail}.db"


def check_population(known: KnownLedger | None, policy: Policy) -> None:
    """Raise Refused for a policy of another population than the folder's ledger."""
    if known is not None and known.population != policy.population:
        raise Refused(
            f"this folder keeps the ledger of population {known.population!a}, and the policy is for "
            f"{policy.population!a}: a new name would begin a new budget. Ask compliance for a policy with the old "
            "name; if these are other people, enrol another site for them in a folder of its own"
        )


def open_ledger(
    folder: Path,
    config: SiteConfig,
    identity: Identity,
    policy: Policy,
    known: KnownLedger | None,
    now: int,
    *,
    create: bool,
) -> Ledger:
    """Open the ledger of this folder, verified; with ``create``, make it if there never was one.

    Raises:
        Misuse: it is missing and was there once, or ``now`` is more than five minutes before its last entry.
        Unverified: it does not verify, is older than what is remembered, or belongs to another site or population.
    """
    path = ledger_path(folder, policy.population)
    if known is None and not create:
        raise Misuse(f"the join of {folder} was not finished; run: privfl site join {folder} again")
    if known is not None and not path.exists():
        raise Misuse(
            f"the ledger {path} is missing, and this site has spent from it (entry {known.anchor.seq} is remembered): "
            "put the file back; without it nothing may leave this site"
        )
    if not path.exists():
        private_folder(path.parent)
        sweep(path.parent)
        return Ledger.create(path, identity.key, federation=config.federation, population=policy.population, now=now)
    ledger = Ledger.open(path, identity.key, anchor=None if known is None else known.anchor)
    try:
        opening, last = ledger.opening, ledger.entries()[-1]
        if (opening.federation, opening.population) != (config.federation, policy.population):
            raise Unverified(
                f"{path} is the ledger of {opening.population!a} in {opening.federation!a}, and belongs elsewhere; put "
                "this site's own file back"
            )
        if now < last.time - CLOCK_BEHIND_MS:
            raise Misuse(
                f"this machine's clock is {(last.time - now) // 60_000} minutes behind the last entry of {path}; "
                "set the clock right and start again"
            )
    except BaseException:
        ledger.close()
        raise
    return ledger
