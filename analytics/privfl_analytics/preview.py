"""A site's own exact answers, for its operator's eyes after he has approved; nothing of it leaves or is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from privfl.entropy import SYSTEM, Entropy
from privfl.runtime.plain import visible
from privfl.tasks import SiteData
from privfl_analytics.decoding import CUT_OFF
from privfl_analytics.opened import History
from privfl_analytics.tables import number

if TYPE_CHECKING:
    import pandas as pd

    from privfl_analytics.question import StudyQuestion
    from privfl_analytics.result import StudyResult

__all__ = ["OwnAnswers", "own_answers"]


@dataclass(frozen=True, repr=False)
class OwnAnswers:
    """What a study says of one site alone, without noise. Its repr tells no number."""

    result: StudyResult

    def to_frame(self) -> pd.DataFrame:
        """One line per number."""
        return self.result.to_frame()

    def __str__(self) -> str:
        lines = []
        for name, answer in self.result.answers.items():
            lines.append(f"{name}: {answer.title}")
            if CUT_OFF in answer.notes:
                lines.append(f"  {CUT_OFF}")
            for row in answer.rows:
                where = ", ".join(f"{key} {cell}" for key, cell in row.at.items())
                said = number(row.value) if row.value is not None else row.note
                lines.append(f"  {where + ': ' if where else ''}{row.what} {said}{' ' + row.unit if row.unit else ''}")
        return "\n".join(map(visible, lines))

    def __repr__(self) -> str:
        return "OwnAnswers(for the operator's eyes only)"

    def __reduce__(self) -> Any:
        raise TypeError("a site's own answers stay on its operator's screen")


def own_answers(question: StudyQuestion, data: SiteData, entropy: Entropy = SYSTEM) -> OwnAnswers:
    """Ask the study of one site's rows alone, every stage deciding for the next by exact sums.

    Raises:
        DataError: the data is bound to another schema, or cannot be read.
    """
    setting = replace(question.setting, sites=1, min_survivors=1, colluders=0)
    study = replace(question.study, interval="rows")
    alone = type(question)(study, question.schema, setting, 1, None, None, (), 0.0)
    history = History()
    while (inputs := alone.next_inputs(history)) is not None:
        stage = len(history)
        total = alone.upload(inputs, data, entropy)
        history = history.add(alone.opened(stage, total, 1, (0,) if alone.sum_at(stage).own else ()))
    return OwnAnswers(alone.decode(history))
