"""What a study found, and what it cost: a value that can be shown, saved and read back."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import pandas as pd

from privfl.errors import Malformed, Misuse
from privfl_analytics.answer import Answer, is_number
from privfl_analytics.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PrivacyReport", "StudyResult"]

FILE = "study_result.json"
FORMAT = 1


@dataclass(frozen=True)
class PrivacyReport:
    """What a study cost every unit of privacy at a site.

    Attributes:
        epsilon, delta: spent, repeated attempts included; None without noise.
        mu2: the same as μ² of Gaussian differential privacy.
        unit: ``record`` or ``subject``. trust: whose noise it rests on; ``none`` without noise.
        fallback_epsilon: what it would be if all other sites colluded.
        uploads: that every site was charged for.
        planned_epsilon: the price of one opening of every stage.
    """

    epsilon: float | None
    delta: float | None
    mu2: float
    unit: str
    trust: str
    fallback_epsilon: float | None
    uploads: int
    planned_epsilon: float | None = None

    def __str__(self) -> str:
        if self.epsilon is None or self.delta is None:
            return "no noise: these answers have no differential privacy"
        fallback = "" if self.fallback_epsilon is None else f"; {self.fallback_epsilon:.3f} if all others collude"
        return (
            f"epsilon {self.epsilon:.3f} at delta {self.delta:g} per {self.unit}, trust {self.trust}, "
            f"{self.uploads} upload(s) charged{fallback}"
        )


@dataclass(frozen=True)
class StudyResult(Mapping[str, Answer]):
    """The answers of a study by the names of its queries.

    Attributes:
        study: what was asked.
        answers: by name, in the order of the study.
        privacy: what it cost.
        survivors: sites in each stage's sum.
    """

    study: Study
    answers: Mapping[str, Answer]
    privacy: PrivacyReport
    survivors: tuple[int, ...] = ()

    def __getitem__(self, name: str) -> Answer:
        try:
            return self.answers[name]
        except KeyError:
            raise KeyError(f"there is no answer {name!r}; there are {', '.join(self.answers)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)

    def to_frame(self) -> pd.DataFrame:
        """All numbers, one line each: ``query`` first, then as :meth:`Answer.to_frame`."""
        frames = []
        for name, answer in self.answers.items():
            frame = answer.to_frame()
            frame.insert(0, "query", name)
            frames.append(frame)
        last = ["what", "value", "se", "lower", "upper", "unit", "note"]
        columns = dict.fromkeys(column for frame in frames for column in frame.columns if column not in last)
        return pd.DataFrame([line for frame in frames for line in frame.to_dict("records")], columns=[*columns, *last])

    def summary(self, name: str) -> dict[str, Any]:
        """One answer's numbers as ``{what: value}``, or ``{what: {cell: value}}`` where there are cells."""
        found: dict[str, Any] = {}
        for row in self[name].rows:
            if not row.at:
                found[row.what] = row.value
            else:
                cells = found.setdefault(row.what, {})
                if isinstance(cells, dict):
                    cells[", ".join(str(cell) for cell in row.at.values())] = row.value
        return found

    # -- showing -------------------------------------------------------------------------------------

    def plot(self, name: str | None = None) -> Figure:
        """Draw one answer, or all of them on one figure.

        Raises:
            Misuse: matplotlib is missing.
        """
        from privfl_analytics import plots  # noqa: PLC0415 - heavy, and an extra

        figure: Any = plots.plot_study(self) if name is None else plots.plot_answer(self[name]).figure
        return cast("Figure", figure)

    def to_html(self, path: str | Path) -> Path:
        """Write a self-contained report; returns where."""
        from privfl_analytics.report import write_report  # noqa: PLC0415 - heavy, and an extra

        return write_report(self, Path(path))

    def _repr_html_(self) -> str:
        parts = (f"<h4>{html.escape(name)}</h4>{answer._repr_html_()}" for name, answer in self.answers.items())
        return f"<h3>{html.escape(self.study.name)}</h3><p>{html.escape(str(self.privacy))}</p>{''.join(parts)}"

    def __repr__(self) -> str:
        return f"StudyResult({self.study.name!r}: {', '.join(self.answers)}; {self.privacy})"

    # -- keeping -------------------------------------------------------------------------------------

    def to_value(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "format": FORMAT,
            "study": self.study.to_value(),
            "answers": {name: answer.to_value() for name, answer in self.answers.items()},
            "privacy": asdict(self.privacy),
            "survivors": list(self.survivors),
        }

    @classmethod
    def from_value(cls, value: Any) -> Self:
        """Read back :meth:`to_value`; raises Malformed for anything else."""
        try:
            if value["format"] != FORMAT:
                raise Malformed("this result was written by another version of privfl")
            answers = {str(name): Answer.from_value(one) for name, one in value["answers"].items()}
            privacy = PrivacyReport(**value["privacy"])
            if not _sound(privacy):
                raise Malformed("the result's account of what was spent is none that privfl wrote")
            return cls(Study.from_value(value["study"]), answers, privacy, tuple(map(int, value["survivors"])))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, Misuse):
            raise Malformed("this is no result of a study that privfl wrote") from None

    def to_json(self) -> str:
        """The result as JSON text."""
        return json.dumps(self.to_value(), indent=1)

    def save(self, folder: str | Path) -> Path:
        """Write the result into ``folder``, which is made; returns the file.

        Raises:
            Misuse: the folder cannot be written.
        """
        place = Path(folder)
        try:
            place.mkdir(parents=True, exist_ok=True)
            draft = place / (FILE + ".new")
            draft.write_text(self.to_json(), encoding="utf-8")
            os.replace(draft, place / FILE)
        except OSError as error:
            raise Misuse(f"{place} cannot be written ({error.strerror}); choose another folder") from None
        return place / FILE

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read back :meth:`save`.

        Raises:
            Misuse: there is nothing to read. Malformed: it is no result of a study.
        """
        place = Path(folder)
        place = place / FILE if place.is_dir() else place
        try:
            value = json.loads(place.read_text(encoding="utf-8"))
        except OSError as error:
            raise Misuse(f"{place} cannot be read ({error.strerror}); give the folder of a saved study") from None
        except (ValueError, RecursionError):
            raise Malformed(f"{place} is no result of a study that privfl wrote") from None
        return cls.from_value(value)


def _sound(privacy: PrivacyReport) -> bool:
    """Whether an account that was read has the types it says."""
    numbers = (privacy.epsilon, privacy.delta, privacy.fallback_epsilon, privacy.planned_epsilon)
    return (
        all(one is None or is_number(one) for one in numbers)
        and all(map(is_number, (privacy.mu2, privacy.uploads)))
        and isinstance(privacy.unit, str)
        and isinstance(privacy.trust, str)
    )
