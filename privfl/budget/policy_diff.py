"""What changes between two policies: looser first, since that is what someone must answer for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

from privfl.budget.policy import Policy
from privfl.budget.policy_words import listed
from privfl.dp import Trust

__all__ = ["Change", "Direction", "differences"]


class Direction(IntEnum):
    """Which way a change goes, in the order in which it is shown."""

    LOOSER = 0
    TIGHTER = 1
    NEUTRAL = 2

    @property
    def word(self) -> str:
        """``looser``, ``tighter`` or ``neutral``."""
        return self.name.lower()


@dataclass(frozen=True)
class Change:
    """One field that differs, in words."""

    field: str
    direction: Direction
    words: str


_Compare: TypeAlias = Callable[[str, Any, Any], Iterator[Change]]
L, T, N = Direction.LOOSER, Direction.TIGHTER, Direction.NEUTRAL


def differences(old: Policy, new: Policy) -> tuple[Change, ...]:
    """Every field that differs, looser before tighter before neutral, else in the order of the policy."""
    found = [
        change
        for field, compare in _COMPARE.items()
        if getattr(old, field) != getattr(new, field)
        for change in compare(field, getattr(old, field), getattr(new, field))
    ]
    return tuple(sorted(found, key=lambda change: change.direction))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.17g}" if value != float(f"{value:g}") else f"{value:g}"
    return value.strftime("%Y-%m-%d %H:%M UTC") if hasattr(value, "strftime") else str(value)


def _moved(field: str, old: Any, new: Any, direction: Direction, why: str) -> Change:
    return Change(field, direction, f"{field} from {_text(old)} to {_text(new)}: {why}")


def _ordered(more: str, less: str, *, up: Direction) -> _Compare:
    """A number: ``more`` says what raising it does, ``less`` what lowering it does."""

    def compare(field: str, old: Any, new: Any) -> Iterator[Change]:
        rises = new > old
        direction = up if rises else (T if up is L else L)
        yield _moved(field, old, new, direction, more if rises else less)

    return compare


def _optional(absent: str, present: str, inner: _Compare, *, appears: Direction) -> _Compare:
    """A field that may be missing; ``appears`` is the direction of its coming."""

    def compare(field: str, old: Any, new: Any) -> Iterator[Change]:
        if old is None:
            yield Change(field, appears, f"{field} {_text(new)} is new: {present}")
        elif new is None:
            yield Change(field, T if appears is L else L, f"{field} {_text(old)} is gone: {absent}")
        else:
            yield from inner(field, old, new)

    return compare


def _neutral(why: str) -> _Compare:
    return lambda field, old, new: iter((_moved(field, old, new, N, why),))


def _anew(why: str) -> _Compare:
    """Another thing altogether: something that was refused before is allowed now."""
    return lambda field, old, new: iter((_moved(field, old, new, L, why),))


def _rank(order: tuple[Any, ...], why: str) -> _Compare:
    """A choice whose options stand in ``order`` from the loosest to the tightest."""

    def compare(field: str, old: Any, new: Any) -> Iterator[Change]:
        looser = order.index(new) < order.index(old)
        yield _moved(field, old, new, L if looser else T, why)

    return compare


def _set(what: str) -> _Compare:
    def compare(field: str, old: tuple[Any, ...], new: tuple[Any, ...]) -> Iterator[Change]:
        if added := _without(new, old):
            yield Change(field, L, f"{field}: {what} {listed(added)} is newly allowed")
        if gone := _without(old, new):
            yield Change(field, T, f"{field}: {what} {listed(gone)} is no longer allowed")

    return compare


def _without(items: tuple[Any, ...], others: tuple[Any, ...]) -> list[Any]:
    known = {(type(item), item) for item in others}
    return [item for item in items if (type(item), item) not in known]


def _mapping(added: str, gone: str, inner: _Compare) -> _Compare:
    def compare(field: str, old: Mapping[Any, Any], new: Mapping[Any, Any]) -> Iterator[Change]:
        for key in [*old, *(key for key in new if key not in old)]:
            place = f"{field}.{key}"
            if key not in old:
                yield Change(place, L, f"{place}: {added}")
            elif key not in new:
                yield Change(place, T, f"{place}: {gone}")
            elif old[key] != new[key]:
                yield from inner(place, old[key], new[key])

    return compare


def _shares(field: str, old: Mapping[Any, float], new: Mapping[Any, float]) -> Iterator[Change]:
    for key in [*old, *(key for key in new if key not in old)]:
        before, after = old.get(key, 0.0), new.get(key, 0.0)
        if after > before:
            yield _moved(f"{field}.{key}", before, after, L, "more may be spent on it")
        elif after < before:
            yield _moved(f"{field}.{key}", before, after, T, "less may be spent on it")
        elif (key in old) != (key in new):
            yield Change(f"{field}.{key}", N, f"{field}.{key}: 0 or not named, which is the same")


def _analysts(field: str, old: Mapping[str, float], new: Mapping[str, float]) -> Iterator[Change]:
    if not old:
        yield Change(field, T, f"{field}: only {listed(new)} may ask, each up to a cap; before, anyone might")
    elif not new:
        yield Change(field, L, f"{field}: anyone may ask, without a cap; before, only {listed(old)}")
    else:
        yield from _shares(field, old, new)


def _window(field: str, old: Any, new: Any) -> Iterator[Change]:
    days = _ordered("the budget comes back later", "the budget comes back sooner", up=T)
    life = _ordered("more may be spent over all windows", "less may be spent over all windows", up=L)
    for name, compare in (("days", days), ("lifetime_epsilon", life), ("lifetime_delta", life)):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield from compare(f"{field}.{name}", before, after)


def _task(place: str, old: Any, new: Any) -> Iterator[Change]:
    compare = _ordered("a contribution may count more", "a contribution counts less", up=L)
    yield from compare(f"{place}.clip", old.clip, new.clip)


def _column(place: str, old: Any, new: Any) -> Iterator[Change]:
    if _kind(old) != _kind(new):
        kind = _kind(new)
        yield Change(place, L, f"{place}: is read as {kind} now, which was not allowed before")
    elif new.classes:
        yield from _set("class")(place, old.classes, new.classes)
    elif new.max_length is not None:
        more = _ordered("more characters may be looked at", "fewer characters may be looked at", up=L)
        yield from more(f"{place}.max_length", old.max_length, new.max_length)
    else:
        low = _ordered("fewer values pass unclamped", "more values pass unclamped", up=T)
        high = _ordered("more values pass unclamped", "fewer values pass unclamped", up=L)
        for name, compare in (("lower", low), ("upper", high)):
            before, after = getattr(old, name), getattr(new, name)
            if before != after:
                yield from compare(f"{place}.{name}", before, after)


def _kind(column: Any) -> str:
    return "a category" if column.classes else "a number" if column.max_length is None else "a text"


def _approval(field: str, old: tuple[Any, ...], new: tuple[Any, ...]) -> Iterator[Change]:
    if added := _without(new, old):
        yield Change(field, T, f"{field}: for {listed(added)} each site's operator is asked every time now")
    if gone := _without(old, new):
        yield Change(field, L, f"{field}: for {listed(gone)} no operator is asked any more")


def _version(field: str, old: int, new: int) -> Iterator[Change]:
    why = "the next in order" if new > old else "sites that hold the newer version refuse this one"
    yield _moved(field, old, new, N, why)


def _population(field: str, old: str, new: str) -> Iterator[Change]:
    why = "another ledger counts, and what was spent for the old name does not count there"
    yield _moved(field, old, new, L, why)


_LEAST = _ordered("asks for more", "asks for less", up=T)
_MOST = _ordered("allows more", "allows less", up=L)
_PRICE = _ordered("more may be learnt", "less may be learnt", up=L)

#: Every field of a policy, in its order; a test holds the two together.
_COMPARE: dict[str, _Compare] = {
    "federation": _neutral("it is for others; sites of the old federation refuse it"),
    "version": _version,
    "valid_from": _ordered("starts later", "starts earlier", up=T),
    "expires": _ordered("holds longer", "ends earlier", up=L),
    "dataset": _anew("other data may be read, which was not allowed before"),
    "schema_version": _anew("the columns were described anew; check what they mean now"),
    "schema_digest": _optional(
        "any schema of this name and version will do",
        "one schema and no other may be read",
        _anew("the columns were described anew; check what they mean now"),
        appears=T,
    ),
    "population": _population,
    "subjects": _neutral("the declared size, which bounds delta"),
    "max_sites_per_subject": _ordered("costs count more", "costs count less", up=T),
    # Neither unit is the tighter one: a sum clipped per site costs a row 4 times the mu^2 that it costs the site.
    "unit": _anew("another is protected as a whole; what is clipped for the new unit gets cheaper or possible"),
    "trust": _rank((Trust.DISTRIBUTED, Trust.LOCAL), "whose noise the promise may rest on"),
    "without_noise": _optional("noise protects again", "no noise protects anyone", _neutral(""), appears=L),
    "epsilon": _optional("there is no budget any more", "a budget limits what leaves", _PRICE, appears=T),
    "delta": _optional("there is no budget any more", "a budget limits what leaves", _PRICE, appears=T),
    "max_epsilon_per_upload": _optional("one upload may take all", "bounds one upload", _PRICE, appears=T),
    "shares": _shares,
    "approval": _approval,
    "analysts": _analysts,
    "window": _optional(
        "what is spent stays spent", "the budget comes back with time, up to the lifetime cap", _window, appears=L
    ),
    "colluders": _LEAST,
    "min_survivors": _LEAST,
    "min_sites": _LEAST,
    "min_committee": _LEAST,
    "attempts_per_round": _MOST,
    "modes": _set("mode"),
    "min_cell_count": _LEAST,
    "tasks": _mapping("may be trained now", "may no longer be trained", _task),
    "statistics": _set("statistic"),
    "columns": _mapping("may be read now", "may no longer be read", _column),
}
