"""The federation over real SuperLink and SuperNodes, with TLS and node authentication."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from privfl.errors import WireError
from privfl.flower.local import RunFailed
from privfl.flower.local.certificates import make_certificates
from privfl.flower.local.runs import Runs
from privfl.learn import Averaging
from privfl.runtime import Federation
from tests.flower.processes.conftest import straight
from tests.flower.processes.town import SHIPPED, Town
from tests.runtime.support import SCHEMA

BARE = Averaging(label="age", estimator=LinearRegression(), unprotected=True)
OPTIONS = {"estimator": json.loads(BARE.to_json())["estimator"], "unprotected": True}
TASK = {"task": "averaging", "label": "age", "epsilon": None, "delta": None, "rounds": 1, "options": OPTIONS}


def test_the_shipped_app_gives_the_memory_wires_model_bit_for_bit(exact: Town) -> None:
    """``flwr run`` of the example trains over three sites; a node of another federation beside them changes nothing."""
    job = exact.realm.submit(**TASK)
    outcome = exact.flower.run(SHIPPED, exact.config, check=False, seconds=900)
    assert (outcome.status, outcome.code, job.state().state) == ("finished:completed", 0, "done"), outcome.log
    assert exact.verified(job) == 1
    model = json.loads((job.result / "model.json").read_text())
    there = Federation.local(straight(), SCHEMA)
    memory = there.train(BARE, rounds=1, epsilon=None, delta=None, progress=False).model
    assert np.asarray(model["coef"]).tobytes() == np.asarray(memory.coef_).tobytes()
    assert np.asarray(model["intercept"]).tobytes() == np.asarray(memory.intercept_).tobytes()
    assert "it is no site of the roster" in outcome.log


def test_a_run_whose_coordinator_cannot_be_opened_fails_and_says_why(exact: Town, tmp_path: Path) -> None:
    """``flwr run`` reports success all the same; what follows the run does not, and has the message."""
    with pytest.raises(RunFailed, match=str(tmp_path)) as caught:
        exact.flower.run(SHIPPED, {"privfl-coordinator": str(tmp_path)})
    assert caught.value.exit_code == 6
    assert caught.value.outcome.status == "finished:failed"


def test_a_node_with_a_key_that_is_not_enrolled_ends_with_the_reason(exact: Town) -> None:
    """It never gets a message: SuperLink does not activate it."""
    child = exact.flower.supernode(4)
    child.process.wait(60)
    assert child.process.returncode != 0
    assert "Failed to activate SuperNode" in child.said()
    with pytest.raises(WireError, match="Failed to activate SuperNode"):
        exact.flower.restart_supernode(4, seconds=0)


def test_a_certificate_that_does_not_match_ends_node_and_command(exact: Town, tmp_path: Path) -> None:
    """Neither a SuperNode nor ``flwr`` speaks to a SuperLink of another authority."""
    child = exact.flower.supernode(5)
    child.process.wait(60)
    assert child.process.returncode != 0
    assert "CERTIFICATE_VERIFY_FAILED" in child.said()
    other = Runs(exact.flower.family, exact.flower.address, make_certificates(tmp_path).authority, home="stranger")
    with pytest.raises(WireError, match=r"unavailable.*certificate"):
        other.json("list", "loopback")
