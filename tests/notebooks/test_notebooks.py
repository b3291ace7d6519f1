"""The notebooks run from top to bottom, as they are, and are kept without outputs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def executed(name: str, place: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh run; fails with the run's own words."""
    kept = {
        key: value for key, value in os.environ.items() if key not in ("MPLBACKEND", "PYTHONWARNINGS", "FORCE_COLOR")
    }
    own = ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "MPLCONFIGDIR")
    environment = kept | {variable: str(place / variable.lower()) for variable in own}
    command = [sys.executable, Path(__file__).with_name("execute.py"), FOLDER / name, place / "done.ipynb", place]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert list((place / "work").iterdir()) == [], "a notebook leaves nothing behind"
    return nbformat.read(place / "done.ipynb", as_version=4)


def shown(notebook: nbformat.NotebookNode) -> str:
    """Everything that the cells put out, as text."""
    parts: list[str] = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            parts.append(output.get("text", ""))
            parts += [str(data) for data in output.get("data", {}).values()]
    return "\n".join(parts)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_kept_without_outputs(name: str) -> None:
    """What is in git holds no output, no execution count, and is valid."""
    notebook = nbformat.read(FOLDER / name, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"


def test_private_federation(tmp_path: Path) -> None:
    """The data scientist's notebook: tables, a plot, the report, verified transcripts, and a model that is any good."""
    notebook = executed("private_federation.ipynb", tmp_path)
    text = shown(notebook)
    for words in (
        "Federation(5 sites: north, south, east, west, central; up to 1 may collude)",
        "site north: the table does not fit",
        "Fit(LogisticRegression after 30 rounds",
        "30 transcripts verified; dropped: {12: ('south',)}",
        "dose: 5 missing, 0 infinite, 0 out of bounds",
        "age: 0 missing, 0 infinite, 3 out of bounds",
        "epsilon spent",
        "if all others collude",
        "no differential privacy",
    ):
        assert words in text, words
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert {"image/png", "text/html", "text/plain"} <= {kind for output in outputs for kind in output.get("data", {})}
    scores = [float(cell.outputs[-1].data["text/plain"]) for cell in notebook.cells if ".score(" in cell.source]
    assert len(scores) == 3
    assert min(scores) > 0.75
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


def test_compliance(tmp_path: Path) -> None:
    """The officer's notebook: complaints by line, hazards, plans, a real ledger, and every tampering named."""
    notebook = executed("compliance.ipynb", tmp_path)
    text = shown(notebook)
    for words in (
        "6 things to correct",
        "wrong.yaml:14: delta: must be at most 1/(10 x 5000 subjects)",
        "WHAT TO BEWARE OF",
        "tasks.logistic.clip from 0.3 to 1: a contribution may count more",
        "If all other sites collude: epsilon 6.56",
        "5 windows of 90 days",
        "version 1: signed by 'officer', verified against the roster",
        "'lake' does not hold the role compliance",
        "'officer' did not sign this policy, or it was changed since",
        "every site refused round 1: policy version 1 does not allow this: epsilon",
        "logistic 'better', epoch 2, round 4, attempt 0",
        "22 entries verify; 10 uploads were charged first",
        "entry 4 (reserve,",
        "its signature is not this site's",
        "entries were moved",
        "the file is an older copy",
        "the export was edited",
        "by itself: 14 entries verify",
        "which is no entry of this one",
    ):
        assert words in " ".join(text.split()), words
    assert "NOTHING WAS NOTICED" not in text
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    words_only = "\n".join(
        output.get("text", "")
        + "".join(str(data) for kind, data in output.get("data", {}).items() if kind[:4] == "text")
        for output in outputs
    )
    assert not any(
        place in words_only for place in (str(tmp_path), "/tmp/", str(FOLDER.parent), str(Path.home()) + "/")
    )
    assert {"image/png", "image/svg+xml", "text/html"} <= {kind for one in outputs for kind in one.get("data", {})}
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


def test_site_operator(tmp_path: Path) -> None:
    """The operator's notebook: a table put right, a yes, a look, answers, a no with and without the mark, drift."""
    notebook = executed("site_operator.ipynb", tmp_path)
    text = " ".join(shown(notebook).split())
    for words in (
        "the column 'hba1c' is missing; there is 'HbA1c'",
        "column 'systolic' looks like another unit (the schema says mmHg): most values are about 10 times too small",
        "north.csv differs from schema admissions version 1 in 1 way(s): - column 'ward' has values",
        "1 request(s), 1 waiting for you",
        "mean age by sex: the mean of age, for every group of sex (reads sex, age)",
        "leaves this site, whatever its rows are: masked vectors of",
        "study 'pre-training': approved, signed; the site notes it in the ledger before it answers anything",
        "privfl: Misuse: this site's own answer is shown on a terminal only",
        "patients: the number of rows, for every group of ward ward cardiology: count 315 rows",
        "at delta 1e-06 per subject, trust distributed, 1 upload(s) charged",
        "the operator looks at this site's own answer; nothing leaves",
        "reserve analytics, coordinator: study 'pre-training', epoch 1,",
        "the data scientist reads: 0 of 4 sites that are needed have approved the question",
        "the operator refuses it; he says: by ward is not covered",
        "Decided after seeing the data: the ledger marks this as outside the guarantee",
        "refused (after seeing the data)",
        "decided after seeing the data: outside the guarantee; he says: few patients in geriatrics",
        "model.profile holds the profile of age, bmi, hba1c, readmitted, risk over 4 sites",
        "hba1c, risk",
        "(exit code 11)",
        "reserve monitoring, coordinator: study 'monitor', epoch 3,",
    ):
        assert words in text, words
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert not any(place in text for place in (str(tmp_path), "/tmp/", str(FOLDER.parent), str(Path.home()) + "/"))


def test_there_are_notebooks() -> None:
    """The walk above sees them, and each is executed here."""
    assert NOTEBOOKS == ["compliance.ipynb", "private_federation.ipynb", "site_operator.ipynb"]
