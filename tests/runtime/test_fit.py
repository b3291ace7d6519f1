"""What a run leaves: a model that loads without pickle, transcripts that verify, reprs that read well."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import SGDClassifier

import privfl
from privfl.errors import Misuse, Unverified
from privfl.learn import Averaging
from privfl.runtime import Fit, Kill
from privfl.secagg import read_transcript, verify_transcript
from tests.runtime.support import QUICK, SPEC, federation, table

HELD = table(60, 77)


@pytest.fixture(scope="module")
def fit() -> Fit:
    """One run of five sites in which one dies."""
    return federation(5).train(SPEC, **QUICK, kills=[Kill("east", 2)], held_out=HELD)


def test_the_model_is_an_estimator_on_raw_columns(fit: Fit) -> None:
    """It predicts the declared classes from a raw table; its score is the held-out frame's last, but for rounding."""
    rows = HELD[["dose", "age"]]
    assert set(fit.model.predict(rows)) <= {False, True}
    assert list(fit.model.feature_names_in_) == ["dose", "age"]
    # the frame is judged on features rounded to the task's grid: a row on the edge may fall to the other side
    assert fit.model.score(rows, HELD["ill"]) == pytest.approx(fit.held_out["score"].iloc[-1], abs=2.5 / len(HELD))
    assert list(fit.held_out["round"]) == [1, 2, 3]


def test_a_saved_run_loads_again(fit: Fit, tmp_path: Path) -> None:
    """Model, history, report and transcripts come back equal; nothing else lies there."""
    folder = fit.save(tmp_path / "a" / "b")
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.csv",
        "model.json",
        "privacy.json",
        "transcripts",
    ]
    model = privfl.load_model(folder / "model.json")
    assert type(model) is type(fit.model)
    assert np.array_equal(model.coef_, fit.model.coef_)
    assert np.array_equal(model.predict(HELD[["dose", "age"]]), fit.model.predict(HELD[["dose", "age"]]))
    history = pd.read_csv(folder / "history.csv", index_col="round")
    pd.testing.assert_frame_equal(history, fit.history.to_frame(), check_dtype=False)
    report = json.loads((folder / "privacy.json").read_text())
    assert (report["epsilon"], report["uploads"], report["unit"]) == (fit.privacy.epsilon, 3, "record")
    files = sorted((folder / "transcripts").glob("*.transcript"))
    assert [read_transcript(path.read_bytes()) for path in files] == list(fit.transcript)
    assert (folder / "transcripts" / "authority.pub").read_text().strip() == fit.transcript.authority.raw.hex()


def test_saving_again_replaces_the_run_before(fit: Fit, tmp_path: Path) -> None:
    """Fewer rounds the second time leave no transcript of the first behind; a stranger's files stay."""
    fit.save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    short = federation(3).train(SPEC, **{**QUICK, "rounds": 1})
    short.save(tmp_path)
    (path,) = (tmp_path / "transcripts").glob("*.transcript")
    verify_transcript(read_transcript(path.read_bytes()), short.transcript.authority)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 5


def test_a_run_without_noise_saves_too(tmp_path: Path) -> None:
    """Infinite ε is null in JSON, and the words say that there is no protection."""
    spec = Averaging(label="ill", estimator=SGDClassifier(loss="log_loss"), unprotected=True)
    fit = federation(3).train(spec, **{**QUICK, "epsilon": None, "delta": None})
    report = json.loads((fit.save(tmp_path) / "privacy.json").read_text())
    assert report["epsilon"] is None
    assert "no differential privacy" in report["words"]
    assert privfl.load_model(tmp_path / "model.json").loss == "log_loss"
    assert "inf" in repr(fit.privacy)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_is_a_misuse(place: str, fit: Fit, tmp_path: Path) -> None:
    """A file in the way: the message names the folder and the next step, and the file is as it was."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Misuse, match="choose a writable folder"):
        fit.save(tmp_path / place)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_save_that_fails_half_way_leaves_the_old_run(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disc fills up while the transcripts are written: model and report are still those of the run before."""
    old = federation(3).train(SPEC, **{**QUICK, "rounds": 1})
    old.save(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(fit.transcript), "save", full)
    with pytest.raises(Misuse, match="No space left on device"):
        fit.save(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_transcripts_verify_without_any_secret(fit: Fit) -> None:
    """One per round, against the authority's public key alone; another key or a swapped round does not do."""
    verified = fit.transcript.verify()
    assert [one.dropped for one in verified] == [(), ("east",), ()]
    assert len(fit.transcript) == 3 == fit.rounds
    assert len(fit.transcript[1:]) == 2
    frame = fit.transcript.to_frame()
    assert list(frame["dropped"]) == ["", "east", ""]
    assert list(frame["survivors"]) == [5, 4, 5]
    assert (frame["votes"] >= frame["quorum"]).all()
    assert not frame["blamed"].any()
    stranger = federation(3).train(SPEC, **{**QUICK, "rounds": 1}).transcript
    with pytest.raises(Unverified):
        verify_transcript(fit.transcript[0], stranger.authority)


def test_everything_reads_well(fit: Fit) -> None:
    """Reprs name what they are in few lines, also as HTML; none is the default of Python."""
    text = repr(fit)
    assert text.startswith("Fit(LogisticRegression after 3 rounds in ")
    assert len(text.splitlines()) == 4
    for shown in (fit, fit.history, fit.privacy, fit.transcript, fit.task):
        assert " object at 0x" not in repr(shown)
        assert len(repr(shown).splitlines()) <= 4
    for shown in (fit, fit.history, fit.privacy):
        html = shown._repr_html_()  # type: ignore[attr-defined]
        assert html.startswith("<p")
        assert "<script" not in html
    fed = federation(3)
    assert repr(fed) == "Federation(3 sites: north, south, east; up to 1 may collude)"
    fed.train(SPEC, **{**QUICK, "rounds": 1})
    node = next(iter(fed._sites.values())).node
    assert repr(node).startswith("SiteNode(Party(")


def test_the_history_is_the_noisy_story(fit: Fit) -> None:
    """A row per round with the number of survivors; scores carry the deviation of their noise."""
    frame = fit.history.to_frame()
    assert list(frame.index) == [1, 2, 3]
    assert list(frame["survivors"]) == [5, 4, 5]
    assert (frame["score_sd"] > 0).all()


def test_progress_is_silent_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    """The bar goes to terminals and notebooks only; into a pipe goes nothing."""
    federation(3).train(SPEC, **{**QUICK, "progress": True})
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_progress_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal shows rounds, score and who is missing."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    federation(5).train(SPEC, **{**QUICK, "progress": True}, kills=[Kill("east", 3)], held_out=HELD)
    err = capsys.readouterr().err
    assert "training" in err
    assert "3/3" in err
    assert "held-out" in err
    assert "without east" in err
