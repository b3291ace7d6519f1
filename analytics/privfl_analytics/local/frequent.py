"""A site's own frequent texts with noisy counts: the one answer that is not a sum of vectors."""

from __future__ import annotations

import numpy as np

from privfl.dp import DiscreteGaussian
from privfl.entropy import Entropy, Keystream
from privfl.errors import Misuse
from privfl.tasks import SiteData
from privfl_analytics.constructions import COUNT_SCALE, Keys
from privfl_analytics.local.batch import Ints
from privfl_analytics.local.engine import careful, source_of
from privfl_analytics.local.plan import Asked, Plan
from privfl_analytics.local.tables import opened
from privfl_analytics.view import View

__all__ = ["frequent"]


def frequent(
    data: SiteData, view: View, asked: Asked, *, sigma: float, threshold: int, rows: int | None, entropy: Entropy
) -> Ints:
    """The values whose noisy count reaches a threshold, largest first.

    Every value of the column that consists of letters of its alphabet gets its own exact discrete Gaussian noise.
    Those that pass are ordered by what leaves, the noisy count and then the text, so that the order tells nothing.

    Args:
        asked: a :class:`Keys` with its filter.
        sigma: of the noise, in integer units (COUNT_SCALE of them are one row).
        threshold: least noisy count that is named, in the same units.
        rows: rows of each subject that count at most; None where the unit of privacy is the row.

    Returns:
        int64 ``[slots, 1 + max_length]``: the noisy count, then the code points of the value; zeros fill up.

    Raises:
        Misuse: not a :class:`Keys`, or noise that is none.
        DataError: the table cannot be read, or lacks the column. Never because of what a row holds.
    """
    keys = asked.construction
    if not isinstance(keys, Keys):
        raise Misuse(f"{keys.kind} is a sum; ask for it with sums()")
    keys.check(view)
    source, sampler, column = source_of(data), DiscreteGaussian(sigma), view.text(keys.column)
    plan = Plan(view, [asked], rows, int.from_bytes(entropy.draw(8), "little"))

    def counted(slow: bool) -> list[tuple[str, int]]:
        with opened(source, plan.wanted, careful=slow) as table:
            found = table.connection.execute(plan.counting(table, values=True)).fetchall()
        return [(str(text), int(count)) for text, count in found]

    letters = set(column.alphabet)
    counts = sorted(one for one in careful(source, counted) if letters.issuperset(one[0]))
    noise = sampler.sample(len(counts), Keystream(entropy))
    noisy = [(count * COUNT_SCALE + int(one), text) for (text, count), one in zip(counts, noise, strict=True)]
    named = sorted((one for one in noisy if one[0] >= threshold), key=lambda one: (-one[0], one[1]))
    out = np.zeros(keys.shape(view), dtype=np.int64)
    for place, (count, text) in zip(out, named, strict=False):
        place[0] = count
        place[1 : 1 + len(text)] = [ord(letter) for letter in text]
    return out
