"""What forked processes know and say, written down outside every folder of the federation, to be held together later.

The methods through which secrets come into being are watched from before the fork on, so that also a process that
is killed at the next instant has left a note of them.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import privfl_keys
import pytest
from privfl_keys import Label, SealingKey, SigningKey
from privfl_keys import secret as secrets

from privfl.homes import state
from privfl.learn import BoundData, Task
from privfl.learn.glm import GlmTask
from privfl.ring import pack, to_words
from privfl.secagg import SiteMachine
from privfl.wires import FolderMailbox
from tests.processes.scan import Patterns, forms, numbers, vectors

SECRET_LABELS = {
    Label.SELF_SEED: "self seed",
    Label.PAIR_SEED: "pair seed",
    Label.PAIR_KEY: "pair key",
    Label.RATCHET: "pair key",
    Label.NOISE: "noise entropy",
    Label.DEALING: "share coefficients",
}


class Spy:
    """Notes in ``folder``, one file per process: records of (name, bytes), each written at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def note(self, name: str, data: bytes) -> None:
        """Write one record; a kill leaves whole records."""
        head = struct.pack("<HI", len(name), len(data))
        file = os.open(self.folder / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, head + name.encode() + data)
        finally:
            os.close(file)

    def records(self) -> Iterator[tuple[str, bytes]]:
        """Everything that was noted."""
        for path in sorted(self.folder.iterdir()):
            data, at = path.read_bytes(), 0
            while at < len(data):
                name, size = struct.unpack_from("<HI", data, at)
                yield data[at + 6 : at + 6 + name].decode(), data[at + 6 + name : at + 6 + name + size]
                at += 6 + name + size

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Spy:
        """Watch every secret and every message from now on, in this process and those forked from it."""
        self._watch_keys(monkeypatch)
        self._watch_seeds(monkeypatch)
        self._watch_rows(monkeypatch)
        self._watch_wire(monkeypatch)
        return self

    def _watch_keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        held, sealing, signing, dump = (
            secrets._Held.__init__,
            SealingKey.__init__,
            SigningKey.from_secret_bytes.__func__,  # type: ignore[attr-defined]
            SiteMachine.dump,
        )

        def hold(own: Any, value: bytes) -> None:
            self.note("bytes of a key store", bytes(value))
            held(own, value)

        def seal(own: Any, value: bytes) -> None:
            self.note("epoch secret", value)
            sealing(own, value)

        def sign(kind: Any, value: bytes) -> Any:
            self.note("identity", value)
            return signing(kind, value)

        def cipher(key: bytes) -> Any:
            self.note("state key", key)
            return _CIPHER(key)

        def dumped(machine: SiteMachine) -> bytes:
            epoch = machine._state.epoch
            for pair in () if epoch is None else epoch.pairs:
                if pair.key:
                    self.note("pair key", pair.key)
                if pair.fresh:
                    self.note("half of a pair key", pair.fresh)
            return dump(machine)

        monkeypatch.setattr(secrets._Held, "__init__", hold)
        monkeypatch.setattr(SealingKey, "__init__", seal)
        monkeypatch.setattr(SigningKey, "from_secret_bytes", classmethod(sign))
        monkeypatch.setattr(state, "ChaCha20Poly1305", cipher)
        monkeypatch.setattr(SiteMachine, "dump", dumped)

    def _watch_seeds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from privfl.secagg import shamir
        from privfl.secagg import slot as slots

        def watch(original: Any, name: Any) -> None:
            def watched(*args: Any, **named: Any) -> Any:
                out = original(*args, **named)
                kind = name(args)
                if kind is not None:
                    self.note(kind, out)
                return out

            for module in list(sys.modules.values()):
                if not getattr(module, "__name__", "").startswith("privfl"):
                    continue
                for key, value in list(vars(module).items()):
                    if value is original:
                        monkeypatch.setattr(module, key, watched)

        watch(privfl_keys.derive, lambda args: SECRET_LABELS.get(args[1]))
        watch(privfl_keys.extract_and_derive, lambda args: SECRET_LABELS.get(args[1]))
        watch(slots.mask_key, lambda args: "mask key")
        split = shamir.split

        def shares(*args: Any, **named: Any) -> Any:
            out = split(*args, **named)
            for one in out:
                self.note("shares", one.astype("<u4").tobytes())
            return out

        monkeypatch.setattr(shamir, "split", shares)

    def _watch_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        contribution, upload = Task.contribution, Task.upload
        quantised, residuals = GlmTask._quantised, GlmTask._residuals

        def clean(task: Task, *args: Any, **named: Any) -> Any:
            exact = contribution(task, *args, **named)
            self._vector("vector without noise", task, exact)
            return exact

        def noisy(task: Task, *args: Any, **named: Any) -> Any:
            sent = upload(task, *args, **named)
            self._vector("vector before its masks", task, sent)
            return sent

        def table(task: GlmTask, bound: BoundData) -> Any:
            out = quantised(task, bound)
            self.note("fixed-point rows", out.astype("<i8").tobytes())
            return out

        def left(task: GlmTask, predictors: Any, bound: BoundData) -> Any:
            out = residuals(task, predictors, bound)
            self.note("residuals", out.astype("<f8").tobytes())
            return out

        monkeypatch.setattr(Task, "contribution", clean)
        monkeypatch.setattr(Task, "upload", noisy)
        monkeypatch.setattr(GlmTask, "_quantised", table)
        monkeypatch.setattr(GlmTask, "_residuals", left)

    def _vector(self, kind: str, task: Task, vector: Any) -> None:
        self.note(kind, vector.astype("<i8").tobytes())
        ringed = to_words(vector, task.ring)
        self.note(f"ringed {kind}", ringed.tobytes())
        self.note(f"packed {kind}", bytes(pack(ringed, task.ring)))

    def _watch_wire(self, monkeypatch: pytest.MonkeyPatch) -> None:
        send, put = FolderMailbox.send, FolderMailbox.put_body

        def sending(box: FolderMailbox, recipient: bytes, data: bytes) -> None:
            self.note("a message", bytes(data))
            send(box, recipient, data)

        def putting(box: FolderMailbox, sha256: bytes, data: bytes, *, recipient: bytes | None = None) -> None:
            self.note("a body", bytes(data))
            put(box, sha256, data, recipient=recipient)

        monkeypatch.setattr(FolderMailbox, "send", sending)
        monkeypatch.setattr(FolderMailbox, "put_body", putting)


_CIPHER = state.ChaCha20Poly1305
SAID = ("a message", "a body")
INTEGERS = ("vector without noise", "vector before its masks", "fixed-point rows")


def patterns_of(spy: Spy) -> tuple[Patterns, dict[str, bytes]]:
    """Every secret that was noted, and one example of each kind."""
    found, examples = Patterns(), dict[str, bytes]()
    for kind, data in set(spy.records()):
        if kind in SAID:
            continue
        if kind in INTEGERS:
            ints = np.frombuffer(data, "<i8")
            made = set(vectors(ints))
            if kind == "vector without noise":
                found.add("gradient", numbers(ints[:-3] / 2.0**20))
        elif kind == "residuals":
            made = set(numbers(np.frombuffer(data, "<f8"))) | {data[:192]}  # of the first round: half a label each
        elif len(set(data)) < 8:  # the packed vector of a site without anything to say
            continue
        else:
            made = {one for at in range(0, len(data), 4096) for one in forms(data[at : at + 4096])}
        found.add(kind, made)
        if len(set(data)) >= len(set(examples.get(kind, b""))):
            examples[kind] = data
    return found, examples
