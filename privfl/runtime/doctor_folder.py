"""Whether a role's folder is whole and may go on: looked at from outside, and with the passphrase from inside."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from privfl_keys import Identity, Roster, RosterBook, VerifyKey, fingerprint

from privfl.budget.ledger_book import CLOCK_TOLERANCE_MS, Book
from privfl.budget.ledger_file import read_rows
from privfl.errors import Misuse, Unverified
from privfl.homes.authority import ROSTERS as ROSTER_FILE
from privfl.homes.config import AuthorityConfig, Config, CoordinatorConfig, OfficerConfig, SiteConfig, role_of
from privfl.homes.data import SCHEMA, again, check_schema
from privfl.homes.folder import KEYS, open_state, open_store
from privfl.homes.ledgers import LEDGER, KnownLedger, ledger_path
from privfl.homes.lock import holder
from privfl.homes.membership import ROSTERS, Membership, recall
from privfl.homes.rosters import AUTHORITY, read_authority, read_rosters
from privfl.homes.state import DATABASE, KEY_FILE, State
from privfl.runtime.checks import Finding, fail, ok, skipped, warn
from privfl.runtime.status import NAME as STATUS
from privfl.runtime.status import CoordinatorStatus, SiteStatus, life, read_status

__all__ = ["folder_checks"]

DAY_MS = 86_400_000
SOON_DAYS = 14
_PASSPHRASE = "set PRIVFL_PASSPHRASE or give --passphrase-file"  # noqa: S105 - says how to give one


def folder_checks(folder: Path, now: int, passphrase: str | None) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """The checks of ``folder``, by its role, to be carried out in order. What is there is left as it is, except that
    opening the state finishes a change of its key that a crash interrupted.

    Args:
        folder: of any role. now: milliseconds since 1970. passphrase: of its key store; None skips what needs it.
    """
    at, kind = _Folder(folder, now), role_of(folder)
    yield "folder", at.recognised
    try:
        at.config  # noqa: B018 - without it nothing else can be told, and "folder" has said why
    except Misuse:
        return
    try:
        yield "permissions", at.permissions
        yield "process", at.process
        yield "leftovers", at.leftovers
        yield "keys and state", lambda: at.opened(passphrase)
        if kind is not OfficerConfig:
            yield "roster", at.roster_validity
        if kind in (SiteConfig, CoordinatorConfig):
            yield "policy", at.policy_validity
            yield "wire", at.wire
        if kind is SiteConfig:
            yield "ledger", at.ledger
            yield "data", at.data
    finally:
        at.close()


class _Folder:
    """One folder under examination; what a check has opened serves the later ones."""

    def __init__(self, path: Path, now: int) -> None:
        self.path, self.now = path, now
        self.identity: Identity | None = None
        self.state: State | None = None

    def close(self) -> None:
        """Let the folder go."""
        if self.state is not None:
            self.state.close()

    @cached_property
    def config(self) -> Config:
        kind = role_of(self.path)
        if kind is None:
            raise Misuse(
                f"{self.path} holds no site.yaml, coordinator.yaml, officer.yaml or authority.yaml; check the path, or "
                "finish the folder with the init command of its role"
            )
        return kind.read(self.path)

    def recognised(self) -> Finding:
        """Which role's folder it is."""
        return ok(f"{self.config.role} {self.config.name!r} of {self.config.federation!r}, {self.config.fingerprint}")

    def permissions(self) -> Finding:
        """Whether keys and state are this user's alone."""
        private = [self.path, *(self.path / name for name in (KEYS, KEY_FILE, DATABASE)), *self.ledgers]
        bare = [path for path in private if path.exists() and path.stat().st_mode & 0o077]
        if bare:
            steps = "; ".join(f"chmod {700 if path.is_dir() else 600} {path}" for path in bare)
            return fail(f"others may access {', '.join(map(str, bare))}", steps)
        if not os.access(self.path, os.W_OK | os.X_OK):
            return fail(f"{self.path} is read-only for this user", "make it writable, or move it to another disk")
        if self.path.stat().st_uid != os.geteuid():
            return warn(f"{self.path} is another user's", "run the process, and its doctor, as the user who owns it")
        return ok("the folder and its keys are this user's alone")

    def process(self) -> Finding:
        """Whether a process works here, or how the last one ended."""
        last, alarm = self._last()
        if alarm:
            return fail(alarm, "do not go on: find out who put an older copy of this folder back, and tell compliance")
        pid = holder(self.path)
        if pid is not None:
            return ok(f"a process{f' (pid {pid})' if pid else ''} works in the folder")
        if last:
            return warn(f"no process works here; the last one {last}", "start it again; it goes on where it was")
        return ok("no process works here")

    def _last(self) -> tuple[str, str]:
        """How the last process ended if it did not end well; the alarm of its status."""
        path, kind = self.path / STATUS, role_of(self.path)
        if not path.exists() or kind not in (SiteConfig, CoordinatorConfig):
            return "", ""
        try:
            status = read_status(path, SiteStatus) if kind is SiteConfig else read_status(path, CoordinatorStatus)
        except Misuse:
            return "left a damaged status", ""
        words = {"stopped": "was killed", "failed": f"failed: {status.error or 'see its log'}"}
        return words.get(life(status), ""), getattr(status, "alarm", "")

    def leftovers(self) -> Finding:
        """What a crash left behind."""
        if holder(self.path) is not None:
            return skipped("a process works here, and what it is writing is no leftover")
        kinds = [(self.path, ".*.tmp"), (self.path, ".privfl-doctor-*"), (self.path, "*.db-journal")]
        kinds += [(self.path / LEDGER, ".*.tmp"), (self.path / LEDGER, "*.db-journal")]
        stray = [path.name for place, pattern in kinds for path in sorted(place.glob(pattern))]
        if not stray:
            return ok("none")
        step = "start the process once: it finishes what was interrupted; what then remains may be deleted"
        return warn(f"a crash left {', '.join(stray[:8])}{' and more' if len(stray) > 8 else ''}", step)

    def opened(self, passphrase: str | None) -> Finding:
        """Whether the passphrase opens the keys, and they open the state and every value in it."""
        if passphrase is None:
            return skipped("no passphrase was given", _PASSPHRASE)
        with open_store(self.path, passphrase) as (store, identity):
            if identity.fingerprint != self.config.fingerprint:
                step = "put both files back as they were"
                return fail(f"the key store holds another key than {self.config.FILE} names", step)
            self.identity = identity
            if self.config.FILE == OfficerConfig.FILE:
                return ok(f"the key store opens: {', '.join(store.names())}")
            if holder(self.path) is not None:
                return ok("the key store opens; the state is in use by the process")
            self.state = open_state(self.path, store, identity)
        for name in self.state.names():
            self.state.get(name)
        return ok(f"the key store opens, and {len(self.state.names())} values in the state")

    def roster_validity(self) -> Finding:
        """Whether the latest roster holds, and for how long."""
        if self.config.FILE == AuthorityConfig.FILE:
            roster = self._signed_here()
        elif self.state is None:
            return skipped("the roster is in the sealed state, which is not open here", self._how())
        else:
            kept = self.state.get(ROSTERS)
            if kept is None:
                return fail("no roster was accepted yet", f"privfl {self.config.role} join")
            roster = RosterBook.load(kept).current(self.config.federation, self.now)
        return self._dated(f"version {roster.version}, {len(roster.site_ids)} sites", roster.valid_until, "authority")

    def _signed_here(self) -> Roster:
        if not (self.path / ROSTER_FILE).exists():
            raise Misuse("no roster was signed yet; approve requests, then run: privfl authority roster")
        key = read_authority(str(self.path / AUTHORITY), self.path)
        roster = [signed.verify(key) for signed in read_rosters(self.path / ROSTER_FILE)][-1]
        roster.check_validity(self.now)
        return roster

    def policy_validity(self) -> Finding:
        """Whether the policy is signed, has not expired, and agrees with a roster that lists this key."""
        if self.state is None:
            return skipped("the policy is in the sealed state, which is not open here", self._how())
        policy = self.membership.policy
        found = f"version {policy.version}, population {policy.population!r}"
        if policy.valid_from_at > self.now:
            return warn(f"{found}; it is not valid yet", "wait, or check this machine's clock")
        return self._dated(found, policy.expires_at, "compliance officer")

    @cached_property
    def membership(self) -> Membership:
        """What was joined with, verified again."""
        assert self.state is not None
        assert self.identity is not None
        return recall(self.state, self.config, self.identity, self.now)

    def _how(self) -> str:
        return "stop the process, or ask it: its status" if self.identity is not None else _PASSPHRASE

    def _dated(self, found: str, until: int, who: str) -> Finding:
        days = (until - self.now) // DAY_MS
        if days < SOON_DAYS:
            return warn(f"{found}, {days} days left", f"ask the {who} for the next version")
        return ok(f"{found}, {days} days left")

    @property
    def ledgers(self) -> list[Path]:
        """The files of all populations."""
        return sorted((self.path / LEDGER).glob("*.db"))

    def ledger(self) -> Finding:
        """Whether every ledger verifies under this site's key; no secret is needed."""
        known = None if self.state is None else KnownLedger.of(self.state)
        expected = None if known is None else ledger_path(self.path, known.population)
        if expected is not None and not expected.exists():
            return fail(f"{expected} is missing, and this site has spent from it", "put the file back")
        if not self.ledgers:
            return skipped("there is no ledger yet; joining makes it")
        words = []
        for path in self.ledgers:
            book = Book.read(read_rows(path))
            owner = fingerprint(VerifyKey(book.opening.key))
            if (owner, book.opening.federation) != (self.config.fingerprint, self.config.federation):
                raise Unverified(f"{path} is the ledger of another site or federation; put this site's own back")
            if known is not None and path == expected:
                book.remembers(known.anchor)
            if self.now < book.time - CLOCK_TOLERANCE_MS:
                return fail(f"this machine's clock is behind the last entry of {path}", "set the clock right")
            words.append(f"{path.stem}: {len(book.entries)} entries verify, {len(list(book.open()))} open")
        return ok("; ".join(words))

    def data(self) -> Finding:
        """Whether the bound table is there, has the columns that it had, and fits its schema and the policy."""
        assert isinstance(self.config, SiteConfig)
        bound, schema = self.config.data, self.path / SCHEMA
        if bound is None:
            return fail("no table is bound", f"privfl site data {self.path} TABLE --schema SCHEMA")
        if hashlib.sha256(schema.read_bytes()).hexdigest() != bound.schema_sha256:
            return fail(f"{schema} is not the schema that was bound", "bind the table again with: privfl site data")
        found = again(bound, schema)
        if self.state is not None:
            check_schema(found.schema, self.membership.policy)
        changed = [name for name, kind in found.config.columns.items() if bound.columns.get(name) != kind]
        if changed:
            step = "check the table, or bind it again with: privfl site data"
            return warn(f"columns have another type than when they were bound: {', '.join(changed)}", step)
        return ok(f"{bound.path} fits its schema, {len(bound.columns)} columns")

    def wire(self) -> Finding:
        """Whether the wire is there and takes a file."""
        wire = getattr(self.config, "wire", None)
        if wire is None:
            return fail(
                "no wire is named", f"privfl {self.config.role} join with --wire folder:PATH or federation.yaml"
            )
        return ok(wire.probe(self.path))
