"""Leaks: noise that multiplies, is bounded, is left out somewhere, comes from a fixed seed, or is redrawn for free."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from privfl_analytics import Study
from privfl_analytics.question import StudyQuestion

import privfl
from privfl import dp
from privfl.dp import Release
from privfl.entropy import SYSTEM, Entropy, Keystream
from tests.analytics.leaks.listening import ODD, SCHEMA, TABLES, Int64s, exact, question_of, spans, uploaded

QUERIES = ("count by ward", "mean age", "histogram age bins=8", "range months", "covariance age, months")
DRAWS = 300
TRUE = dp.noised


class Seeded:
    """A known stream, so that the test draws the same numbers every day."""

    def __init__(self, seed: int) -> None:
        self._seed = seed.to_bytes(32, "little")
        self._stream = Keystream(self)

    def draw(self, size: int) -> bytes:
        """The key first, then the stream under it."""
        if self._seed:
            seed, self._seed = self._seed[:size], b""
            return seed
        return self._stream.draw(size)


def repeated(question: StudyQuestion, frame: pd.DataFrame, plain: Int64s, entropy: Entropy) -> list[Int64s]:
    """Many uploads of one table, of which only the first reads it: its exact vector is the same each time."""
    once = uploaded(question, frame, entropy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudyQuestion, "contribution", lambda *_, **__: plain.copy())
        return [once, *(uploaded(question, frame, entropy) for _ in range(DRAWS // 3 - 1))]


def check_noise(question: StudyQuestion) -> None:
    """Additive, of the announced σ in every block, Gaussian in its tails, independent of the rows."""
    full, empty = TABLES["north"], TABLES["north"].iloc[:0]
    for frame in (full, empty, ODD):
        plain, entropy = exact(question, frame), Seeded(7)
        noise = np.array([one - plain for one in repeated(question, frame, plain, entropy)])
        for _, block, place in spans(question):
            sigma = question.releases[0].sigma_site(block)
            z = noise[:, place].astype(float) / sigma
            slack = 5 / math.sqrt(2 * z.size)
            assert abs(z.std() - 1) < slack, f"{block.name}: the noise is {z.std():.3f} of what was announced"
            assert abs(z.mean()) < 5 / math.sqrt(z.size), f"{block.name}: the noise has a mean"
            if z.size >= 800:
                assert np.abs(z).max() > 2.8, f"{block.name}: the noise is bounded"
                beyond = (np.abs(z) > 1.96).mean()
                assert abs(beyond - 0.05) < 5 * math.sqrt(0.05 * 0.95 / z.size), f"{block.name}: other tails"


def test_noise_is_additive_exact_gaussian_and_as_announced() -> None:
    """Some hundred uploads of a full, an empty and an odd table, block by block."""
    check_noise(question_of(*QUERIES))


def test_the_noise_of_a_sum_is_what_answers_are_told() -> None:
    """(sum - exact)/sd over many sums of four sites has variance 1."""
    question, entropy = question_of("histogram age bins=8"), Seeded(3)
    plain = [exact(question, frame) for frame in TABLES.values()]
    drawn = [repeated(question, *pair, entropy) for pair in zip(TABLES.values(), plain, strict=True)]
    z = []
    for each in zip(*drawn, strict=True):
        total = np.sum(each, axis=0)
        (_, noisy), *_ = question.noisy(question.opened(0, total, len(TABLES)))
        z.append((noisy.values - sum(plain) / 1024) / noisy.sd)
    found = np.array(z)
    assert abs(found.std() - 1) < 5 / math.sqrt(2 * found.size)


def one_block_bare(vector: Any, release: Release, entropy: Entropy) -> Any:
    found, last = TRUE(vector, release, entropy), release.blocks[-1].length
    found[-last:] = vector[-last:]
    return found


def multiplied(vector: Any, release: Release, entropy: Entropy) -> Any:
    noise = TRUE(np.zeros_like(vector), release, entropy) / release.sigma_site(release.blocks[0])
    return np.rint(vector * (1 + 0.1 * noise)).astype(np.int64)


def bounded(vector: Any, release: Release, entropy: Entropy) -> Any:
    noise, begin = TRUE(np.zeros_like(vector), release, entropy), 0
    for block in release.blocks:
        most = int(2 * release.sigma_site(block))
        noise[begin : begin + block.length] = noise[begin : begin + block.length].clip(-most, most)
        begin += block.length
    return vector + noise


def halved(vector: Any, release: Release, entropy: Entropy) -> Any:
    return vector + TRUE(np.zeros_like(vector), release, entropy) // 2


def unbounded_sum(vector: Any, release: Release, entropy: Entropy) -> Any:
    return TRUE(vector, release, entropy) + 2 * np.int64(release.sigma_site(release.blocks[0]))


def none_for_empty(vector: Any, release: Release, entropy: Entropy) -> Any:
    return TRUE(vector, release, entropy) if vector.any() else vector.copy()


@pytest.mark.parametrize(
    "broken", [one_block_bare, multiplied, bounded, halved, unbounded_sum, none_for_empty], ids=lambda one: one.__name__
)
def test_each_of_these_noises_is_found_out(broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is no formality."""
    monkeypatch.setattr("privfl_analytics.question.noised", broken)
    with pytest.raises(AssertionError):
        check_noise(question_of(*QUERIES))


# -- never the same twice ------------------------------------------------------------------------------------


def check_fresh(question: StudyQuestion) -> None:
    """No two uploads of one table share their noise, in any block, nor do sites."""
    seen: set[bytes] = set()
    for frame in (TABLES["north"], TABLES["north"], TABLES["south"], TABLES["north"].iloc[:0]):
        noise = uploaded(question, frame) - exact(question, frame)
        for _, block, place in spans(question):
            piece = noise[place].tobytes()
            assert block.length < 3 or piece not in seen, f"{block.name}: the same noise again"
            seen.add(piece)


def test_noise_is_drawn_anew_and_from_no_fixed_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of a fixed seed, or of a seed made from the rows, is found out."""
    question = question_of(*QUERIES)
    check_fresh(question)
    monkeypatch.setattr("privfl_analytics.question.noised", lambda v, release, entropy: TRUE(v, release, Seeded(42)))
    with pytest.raises(AssertionError, match="the same noise again"):
        check_fresh(question)
    monkeypatch.setattr(
        "privfl_analytics.question.noised", lambda v, release, entropy: TRUE(v, release, Seeded(int(v.sum()) % 2**60))
    )
    with pytest.raises(AssertionError, match="the same noise again"):
        check_fresh(question)


def check_draws_are_charged(study: Study) -> None:
    """Every noised vector that was computed belongs to a charged slot of its own."""
    drawn, leaving = [], StudyQuestion._leaving

    def counted(question: StudyQuestion, *rest: Any) -> Any:
        drawn.append(1)
        return leaving(question, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudyQuestion, "_leaving", counted)
        fed = privfl.Federation.local(TABLES, SCHEMA)
        fed.ask(study, epsilon=4.0, delta=1e-6, progress=False)
    charges = [charge.reference for site in fed._sites.values() for charge in site.account.charges]  # type: ignore[union-attr]
    assert len(drawn) == len(charges) == len(set(charges)) + 3 * study_stages(study)


def study_stages(study: Study) -> int:
    return study.compile(SCHEMA, epsilon=4.0, delta=1e-6, sites=4, min_survivors=3).stages


def test_no_draw_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """One draw for each charge of each site, over several stages; a second draw is found out."""
    study = Study("several", ("sd age two_stage=true", "count"))  # type: ignore[arg-type]
    check_draws_are_charged(study)
    upload = StudyQuestion.upload

    def twice(question: StudyQuestion, *rest: Any, **named: Any) -> Any:
        upload(question, *rest, **named)
        return upload(question, *rest, **named)

    monkeypatch.setattr(StudyQuestion, "upload", twice)
    with pytest.raises(AssertionError):
        check_draws_are_charged(study)


def test_the_generator_is_the_system_s() -> None:
    """A federation that nobody gave a source draws from the operating system; no seed is a part of any question."""
    assert privfl.Federation.local(TABLES, SCHEMA)._entropy is SYSTEM
    assert "seed" not in question_of(*QUERIES).study.to_json()
