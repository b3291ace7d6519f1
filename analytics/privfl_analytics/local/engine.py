"""Exact sums of constructions over a site's table, in one pass."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock, local
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from privfl.dp import LocalReport
from privfl.entropy import Entropy
from privfl.errors import Misuse
from privfl.tasks import FileSource, SiteData, Source
from privfl_analytics.constructions import COUNT_SCALE, Distinct, Keys
from privfl_analytics.local.batch import Batch, Ints, Space
from privfl_analytics.local.kernels import Kernel, Readers, kernel_of
from privfl_analytics.local.plan import Asked, Choice, Plan
from privfl_analytics.local.tables import Table, Unreadable, opened
from privfl_analytics.view import View

__all__ = ["Asked", "careful", "source_of", "sums"]

T = TypeVar("T")

#: Rows of one Arrow batch, and of the stretches in which they are worked on, which stay in the cache.
_FETCHED, _ROWS = 1 << 16, 1 << 15
_OWN = local()
_WORKERS = max(1, min(8, os.cpu_count() or 1))


def sums(
    data: SiteData,
    view: View,
    asked: Sequence[Asked],
    *,
    rows: int | None,
    entropy: Entropy,
    report: LocalReport | None = None,
) -> list[Ints]:
    """The exact sum of each construction over a site's rows.

    Args:
        data: the site's table.
        view: schema and scores.
        asked: constructions with their filters; :class:`Keys` have noise of their own, see ``frequent``.
        rows: rows of each subject that count at most, per filter, chosen anew by a key from ``entropy``; rows without
            a subject do not count. None where the unit of privacy is the row.
        report: local counts to add to.

    Returns:
        one int64 array of ``construction.shape(view)`` each, exact, or saturated at ±(2^63 - 1).

    Raises:
        Misuse: something that is not declared.
        DataError: the table cannot be read, or lacks a column. Never because of what a row holds.
    """
    for one in asked:
        one.construction.check(view)
        if isinstance(one.construction, Keys):
            raise Misuse("frequent values are no sum; ask for them with frequent()")
    source, key = source_of(data), int.from_bytes(entropy.draw(8), "little")
    found, own = careful(source, lambda slow: _summed(source, view, asked, rows, key, slow))
    if report is not None:
        report.nonfinite += own.nonfinite
        report.zeroed += own.zeroed
    return found


def source_of(data: SiteData) -> Source:
    """Where a site's rows are; raises Misuse where they were bound for training alone."""
    if data.source is None:
        raise Misuse("this table was bound for training alone; bind it from its file, frame or database for analytics")
    return data.source


def careful(source: Source, work: Callable[[bool], T]) -> T:
    """What ``work(False)`` returns; for a Parquet file that cannot be read so, ``work(True)``."""
    try:
        return work(False)
    except Unreadable:
        if not isinstance(source, FileSource) or source.format != "parquet":
            raise
    return work(True)


def _summed(
    source: Source, view: View, asked: Sequence[Asked], rows: int | None, key: int, slow: bool
) -> tuple[list[Ints], LocalReport]:
    readers = Readers(view, LocalReport())
    summed = [one for one in asked if not isinstance(one.construction, Distinct)]
    kernels = [kernel_of(readers, one.construction) for one in summed]
    found: dict[int, Ints] = {}
    with opened(source, Plan(view, asked, rows, key).wanted, careful=slow) as table:
        if kernels:
            _stream(table, Plan(view, summed, rows, key), kernels)
        for at, one in enumerate(asked):
            if isinstance(one.construction, Distinct):
                found[at] = _distinct(table, view, one, rows, key)
    totals = iter([kernel.total() for kernel in kernels])
    return [found[at] if at in found else next(totals) for at in range(len(asked))], readers.report


def _stream(table: Table, plan: Plan, kernels: Sequence[Kernel]) -> None:
    statement, keys = plan.statement(table)
    groups: dict[Choice, list[Kernel]] = {}
    for one, kernel in zip(plan.asked, kernels, strict=True):
        groups.setdefault(Choice.of(one), []).append(kernel)
    reader = table.connection.sql(statement).to_arrow_reader(_FETCHED)
    waiting: list[Future[None]] = []
    with _BLAS as workers, ThreadPoolExecutor(workers) as pool:
        for batch in reader:
            waiting.append(pool.submit(_add, plan.view, keys, batch, groups))
            while len(waiting) > workers:
                waiting.pop(0).result()
        for last in waiting:
            last.result()


class _OneBlasThread:
    """Keeps BLAS to the thread that calls it, as long as any study runs in this process.

    The workers are as many as the cores; threads of BLAS's own beside them would only wait for each other.
    """

    def __init__(self) -> None:
        self._lock, self._users = Lock(), 0
        self._limit: Any = None

    def __enter__(self) -> int:
        """How many workers there may be."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._limit = _limited()
            return 1 if self._limit is None else _WORKERS

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._limit is not None:
                self._limit.restore_original_limits()
                self._limit = None


def _limited() -> Any:
    try:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError:
        return None
    return threadpool_limits(1, "blas")


_BLAS = _OneBlasThread()


def _add(
    view: View, keys: Sequence[object], fetched: pa.RecordBatch, groups: Mapping[Choice, Sequence[Kernel]]
) -> None:
    if not hasattr(_OWN, "space"):
        _OWN.space = Space()
    space: Space = _OWN.space
    arrays = [_array(fetched.column(at)) for at in range(len(keys))]
    for begin in range(0, fetched.num_rows, _ROWS):
        columns = {key: array[begin : begin + _ROWS] for key, array in zip(keys, arrays, strict=True)}
        space.back()
        whole = Batch(view, min(_ROWS, fetched.num_rows - begin), columns, space)
        for choice, kernels in groups.items():
            mask = columns.get(choice)
            rows = whole if mask is None or mask.all() else whole.where(mask != 0)
            if rows.rows:
                for kernel in kernels:
                    kernel.add(rows)


def _array(column: pa.Array) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = column.to_numpy(zero_copy_only=True)
    return found


def _distinct(table: Table, view: View, asked: Asked, rows: int | None, key: int) -> Ints:
    """How many different values a column has among the rows that count."""
    ((values,),) = table.connection.execute(Plan(view, [asked], rows, key).counting(table)).fetchall()
    return np.array([COUNT_SCALE * int(values)], dtype=np.int64)
