"""The package as a newcomer imports it: light, typed, with one public face."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import privfl

HEAVY = ("torch", "flwr", "boto3", "matplotlib", "scipy", "sklearn", "pandas", "dp_accounting", "numpy", "pydantic")
COMMAND = "from privfl.cli import main"


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after ``code``."""
    script = f"{code}\nimport sys, json\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("code", ["import privfl", COMMAND, "import privfl; dir(privfl); repr(privfl)"])
def test_importing_loads_nothing_heavy(code: str) -> None:
    """What is heavy is loaded when it is used, so that a wrong argument is answered at once."""
    assert loaded_by(code).isdisjoint(HEAVY)


def test_frameworks_are_never_needed() -> None:
    """Every public name loads without torch, flwr, boto3 or matplotlib."""
    names = "; ".join(f"privfl.{name}" for name in privfl.__all__)
    assert loaded_by(f"import privfl; {names}").isdisjoint({"torch", "flwr", "boto3", "matplotlib", "tensorflow"})


def test_errors_and_codec_do_not_load_the_learning_rooms() -> None:
    """A process that only verifies a transcript needs neither pandas nor scikit-learn."""
    assert loaded_by("from privfl import read_transcript, verify_transcript").isdisjoint(
        {"pandas", "sklearn", "scipy", "matplotlib", "dp_accounting"}
    )


def test_every_public_name_is_there() -> None:
    """``__all__``, ``dir`` and attributes agree, and each name says what it is."""
    assert sorted(privfl.__all__) == dir(privfl)
    for name in privfl.__all__:
        assert getattr(privfl, name).__doc__ or name == "__version__"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        privfl.nonsense  # noqa: B018


ROOMS = [
    "privfl",
    "privfl.homes",
    "privfl.runtime",
    "privfl.wires",
    "privfl.cli",
    "privfl.learn",
    "privfl.secagg",
    "privfl.dp",
]


@pytest.mark.parametrize("room", [*ROOMS, "privfl.ring", "privfl.budget", "privfl_keys"])
def test_rooms_have_one_public_face(room: str) -> None:
    """Every package lists what is public, all of it is there, and says in a docstring what the room is for."""
    module = importlib.import_module(room)
    assert module.__doc__
    assert module.__all__
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("room", ["privfl", "privfl_keys"])
def test_packages_are_typed(room: str) -> None:
    """``py.typed`` travels with the package."""
    assert (Path(importlib.import_module(room).__file__ or "").parent / "py.typed").is_file()
