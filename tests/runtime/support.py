"""Small federations over the memory wire, and an eye on everything that their sites do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from privfl.learn import BoundData, Logistic, Schema, Task
from privfl.runtime import Federation, RoundResult
from privfl.secagg import Announcement, SiteMachine, Upload
from privfl.wires import Envelope

NAMES = ("north", "south", "east", "west", "central", "harbour", "hillside")
SCHEMA = Schema(
    name="small",
    records=200,
    columns={  # type: ignore[arg-type]
        "dose": {"lower": -4, "upper": 4, "center": 0, "scale": 1},
        "age": {"lower": 0, "upper": 100, "center": 50, "scale": 20},
        "ill": {"classes": [False, True]},
    },
)
SPEC = Logistic(label="ill")
QUICK: dict[str, Any] = {"epsilon": 8.0, "delta": 1e-5, "rounds": 3, "progress": False}


class FixedClock:
    """Wall time that a test moves by hand."""

    def __init__(self, at: int = 1_700_000_000_000) -> None:
        self.at = at

    def now(self) -> int:
        """Milliseconds since 1970."""
        return self.at


def table(rows: int = 40, seed: int = 0) -> pd.DataFrame:
    """Rows whose label follows from the features."""
    rng = np.random.default_rng(seed)
    dose, age = rng.normal(size=rows), rng.uniform(20, 90, rows)
    return pd.DataFrame({"dose": dose, "age": age, "ill": dose + (age - 50) / 30 + 0.3 * rng.normal(size=rows) > 0})


def tables(sites: int = 5, rows: int = 40) -> dict[str, pd.DataFrame]:
    """One table per site."""
    return {name: table(rows, seed) for seed, name in enumerate(NAMES[:sites])}


def federation(sites: int = 5, **options: Any) -> Federation:
    """A local federation of small tables; with ``clock``, on that clock."""
    if "clock" in options:
        return Federation({name: SCHEMA.bind(one) for name, one in tables(sites).items()}, SCHEMA, **options)
    return Federation.local(tables(sites), SCHEMA, **options)


@dataclass
class Watch:
    """Everything that sites uploaded: the vector before masking by slot, and the bytes that left."""

    vectors: dict[tuple[bytes, bytes], npt.NDArray[np.int64]] = field(default_factory=dict)  # (h0, site id)
    noised: list[npt.NDArray[np.int64]] = field(default_factory=list)
    sums: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)
    bodies: dict[int, Mapping[str, bytes]] = field(default_factory=dict)
    mail: list[Envelope] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Watch:
        """Listen to every task and machine of this test."""
        upload, masked = Task.upload, SiteMachine.upload

        def watched(task: Task, model: bytes, bound: BoundData, *rest: Any, **named: Any) -> npt.NDArray[np.int64]:
            vector = upload(task, model, bound, *rest, **named)
            self.noised.append(vector.copy())
            return vector

        def masking(machine: SiteMachine, a: Announcement, vector: npt.NDArray[np.int64], **named: Any) -> Any:
            key = (a.h0, machine.party.id)
            assert key not in self.vectors, "a site computed two vectors for one slot"
            assert any(np.array_equal(vector, one) for one in self.noised), "a vector left without passing the noise"
            self.vectors[key] = vector.copy()
            return masked(machine, a, vector, **named)

        monkeypatch.setattr(Task, "upload", watched)
        monkeypatch.setattr(SiteMachine, "upload", masking)
        return self

    def tap(self, fed: Federation) -> Watch:
        """Keep every envelope that passes."""
        fed._wire.tap = lambda recipient, data: self.mail.append(Envelope.decode(data))
        return self

    def observe(self, number: int, result: RoundResult, bodies: Mapping[str, bytes]) -> None:
        """For ``train(observer=...)``: hold each opened sum against the same vectors added by hand."""
        h0 = result.transcript.announcement.h0
        by_hand = np.sum([self.vectors[h0, site] for site in result.survivors], axis=0)
        assert result.total.dtype == np.int64
        assert np.array_equal(result.total, by_hand), f"round {number}: the opened sum is not the sum of the vectors"
        assert len(set(result.survivors)) == len(result.survivors)
        assert set(result.survivors).isdisjoint(result.dropped)
        self.sums[number], self.bodies[number] = result.total, dict(bodies)

    def uploads(self) -> dict[tuple[bytes, bytes], set[tuple[bytes, bytes]]]:
        """(h0, site) → the distinct (message, body name) pairs that left for it."""
        found: dict[tuple[bytes, bytes], set[tuple[bytes, bytes]]] = {}
        for envelope in self.mail:
            if envelope.kind == "upload":
                message = Upload.decode(envelope.payload)
                (body,) = envelope.bodies
                left = (envelope.payload, body.sha256)
                found.setdefault((message.header.h0, message.header.site), set()).add(left)
        return found


def charged(fed: Federation) -> dict[str, list[bytes]]:
    """H0 of every slot that each site's own account shows."""
    return {
        site.name: [charge.reference for charge in site.account.charges] if site.account else []
        for site in fed._sites.values()
    }
