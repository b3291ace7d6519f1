"""The noise benchmark's machine-readable face."""

from __future__ import annotations

import json

import pytest

from benchmarks import noise


@pytest.mark.parametrize("installed", [True, False])
def test_noise_benchmark_prints_one_object(
    installed: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--json`` prints exactly one object with the agreed keys; a missing OpenDP is null with its reason."""
    monkeypatch.setattr(noise, "SIGMAS", (1, 65536))
    if not installed:
        monkeypatch.setattr(noise, "opendp_rate", lambda samples: None)
    noise.main(["--json", "--samples", "1000", "--repeats", "1", "--opendp-samples", "1000"])
    result = json.loads(capsys.readouterr().out)
    assert set(result["samples_per_s"]) == {"1", "65536"}
    assert min(result["samples_per_s"].values()) > 0
    assert (result["opendp_samples_per_s"] is None) is not installed
    assert ("opendp_reason" in result) is not installed
    monkeypatch.undo()
    assert tuple(2**power for power in range(17)) == noise.SIGMAS
