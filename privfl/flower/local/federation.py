"""SuperLink and SuperNodes on the loopback address, for as long as a ``with`` block lasts."""

from __future__ import annotations

import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType

from privfl.errors import Misuse, WireError
from privfl.flower.local.certificates import Certificates, make_certificates, make_node_key
from privfl.flower.local.children import LOOPBACK, Child, Family, free_port, require_flower
from privfl.flower.local.runs import Finished, Plain, RunFailed, Runs, toml

__all__ = ["LocalFlower", "Node"]

_READY_S = 300.0
_AGAIN_S = 2.0
_TRIES = 3
_IDENTITY = re.compile(r"SuperNode ID: (\d+)")
_NOT_YET = "Failed to activate SuperNode"


@dataclass(frozen=True)
class Node:
    """A SuperNode to be.

    Attributes:
        config: its ``node_config``, what the ClientApp finds in its context.
        environment: added to that of its processes. enrolled: whether its key is registered at SuperLink.
        authority: the certificate it trusts; None for the federation's own.
    """

    config: Mapping[str, Plain] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    enrolled: bool = True
    authority: Path | None = None


class LocalFlower:
    """A Flower federation of real processes; use it in a ``with`` block.

    Args:
        folder: takes keys, logs, Flower's homes; made if missing.
        nodes: the SuperNodes.
        secure: TLS and SuperNode authentication; without, everybody on this computer may join.
        durable: SuperLink keeps its state in a file, and so survives a restart.
        environment: added to that of all processes. nodes have their own.
        superlink_environment: added to that of SuperLink and the ServerApps.
        simulation: SuperLink runs apps in Flower's simulation engine (Ray), whose nodes are virtual; no ``nodes``, no
            TLS. Ray looks for addresses outside when it starts: run this where there is no network but loopback.

    Raises:
        Misuse: Flower is not installed. WireError: a process did not start; its log is in the message.
    """

    def __init__(
        self,
        folder: Path,
        nodes: Sequence[Node] = (),
        *,
        secure: bool = True,
        durable: bool = False,
        environment: Mapping[str, str] | None = None,
        superlink_environment: Mapping[str, str] | None = None,
        simulation: bool = False,
    ) -> None:
        require_flower()
        if simulation and nodes:
            raise Misuse("the simulation engine makes its nodes itself; give num-supernodes to the run")
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.specs = list(nodes)
        self.secure, self.durable, self.simulation = secure and not simulation, durable, simulation
        self._environment, self._link_environment = dict(environment or {}), dict(superlink_environment or {})
        self.certificates: Certificates | None = None
        self._nodes: dict[int, Child] = {}
        self._keys: dict[int, int] = {}
        self._link: Child | None = None
        self._port = 0

    def __enter__(self) -> LocalFlower:
        self.family = Family(self.folder, self._environment)
        try:
            if self.secure:
                self.certificates = make_certificates(self.folder / "certificates")
            for attempt in range(_TRIES):
                self._port = free_port()
                try:
                    self.restart_superlink()
                    break
                except WireError:
                    if attempt == _TRIES - 1:
                        raise
            self.runs = Runs(self.family, self.address, self.certificates.authority if self.certificates else None)
            if self.secure:
                keys = [self._key(index) for index in range(len(self.specs))]
                public = [make_node_key(key) for key in keys]
                self.runs.register([key for key, spec in zip(public, self.specs, strict=True) if spec.enrolled])
            for index in range(len(self.specs)):
                self.start_supernode(index)
            self.await_nodes()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill all processes of the federation."""
        self.family.end([*self._nodes.values(), *([self._link] if self._link else [])])
        self._nodes.clear()
        self._link = None

    @property
    def address(self) -> str:
        """``host:port`` of SuperLink."""
        return f"{LOOPBACK}:{self._port}"

    # -- SuperLink

    def restart_superlink(self, seconds: float = _READY_S) -> None:
        """Start SuperLink at its address, if it is not running."""
        if self._link and self._link.alive:
            return
        command = ["flower-superlink", "--host", LOOPBACK, "--port", str(self._port)]
        command += ["--disable-runtime-dependency-installation"]
        if self.simulation:
            command += ["--simulation"]
        if self.durable:
            command += ["--database", str(self.folder / "superlink.db")]
        if self.certificates:
            command += ["--ssl-ca-certfile", str(self.certificates.authority), "--enable-supernode-auth"]
            command += ["--ssl-certfile", str(self.certificates.server), "--ssl-keyfile", str(self.certificates.key)]
        else:
            command += ["--insecure"]
        self._link = self.family.start("superlink", command, self._link_environment)
        self._link.await_(self._answers, seconds)

    def kill_superlink(self) -> None:
        """SIGKILL SuperLink and the ServerApps it runs."""
        if self._link:
            self.family.kill(self._link)

    def _answers(self) -> bool:
        scheme = "https" if self.certificates else "http"
        context = ssl.create_default_context(cafile=str(self.certificates.authority)) if self.certificates else None
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(f"{scheme}://{self.address}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    # -- SuperNodes

    def start_supernode(self, index: int) -> Child:
        """Start SuperNode ``index``, without waiting for its connection (see ``await_nodes``)."""
        if index in self._nodes and self._nodes[index].alive:
            return self._nodes[index]
        spec = self.specs[index]
        file = self.folder / f"node-{index}.toml"
        file.write_text(toml(spec.config), encoding="utf-8")
        command = ["flower-supernode", "--superlink", self.address, "--host", LOOPBACK, "--port", str(free_port())]
        if spec.config:
            command += ["--node-config", str(file)]
        if self.certificates:
            command += ["--root-certificates", str(spec.authority or self.certificates.authority)]
            command += ["--auth-supernode-private-key", str(self._key(index))]
        else:
            command += ["--insecure"]
        self._nodes[index] = self.family.start(_name(index), command, spec.environment)
        return self._nodes[index]

    def await_nodes(self, indices: Sequence[int] | None = None, seconds: float = _READY_S) -> None:
        """Wait until the SuperNodes (all that run and are enrolled) are connected; raises WireError if one is not."""
        for index in self._nodes if indices is None else indices:
            spec, child = self.specs[index], self._nodes[index]
            if indices is not None or (spec.enrolled and spec.authority is None):
                child.await_(partial(_connected, child), seconds)

    def kill_supernode(self, index: int, *, whole: bool = True) -> None:
        """SIGKILL a SuperNode; with ``whole`` also its apps and a resident site, as when the computer loses power."""
        self.family.kill(self._nodes[index], whole=whole)

    def stop_supernode(self, index: int) -> int:
        """End a SuperNode in order (SIGTERM); its exit code."""
        return self.family.stop(self._nodes[index])

    def restart_supernode(self, index: int, seconds: float = 120.0) -> None:
        """Start a SuperNode again, with the same key, and wait until it is connected.

        SuperLink does not let a node with a key back in that it believes to be connected. One that was killed, not
        stopped, is believed so for up to 60 s after its last heartbeat; until then this tries again.

        Raises:
            WireError: it did not get in within ``seconds``, or ended for another reason.
        """
        until = time.monotonic() + seconds
        while True:
            self.start_supernode(index)
            try:
                return self.await_nodes([index])
            except WireError:
                if _NOT_YET not in self._nodes[index].said() or time.monotonic() > until:
                    raise
            self.family.kill(self._nodes[index])
            time.sleep(_AGAIN_S)

    def replace_supernode(self, index: int) -> None:
        """Start a killed SuperNode again with a new key: its old one is struck off, for SuperLink takes a key once.

        That is in force at once; nobody waits until SuperLink misses the old node.
        """
        found = _IDENTITY.search(self._nodes[index].said())
        if found is None or not self.secure:
            raise Misuse(f"{_name(index)} has no enrolment to replace")
        self._keys[index] = self._keys.get(index, 0) + 1
        self.runs.replace(found.group(1), make_node_key(self._key(index)))
        self.restart_supernode(index)

    def supernode(self, index: int) -> Child:
        """The process of SuperNode ``index``."""
        return self._nodes[index]

    # -- runs

    def run(
        self,
        app: Path,
        run_config: Mapping[str, Plain] | None = None,
        *,
        federation_config: Mapping[str, Plain] | None = None,
        check: bool = True,
        seconds: float = 600.0,
    ) -> Finished:
        """Run the Flower app in the folder ``app`` to its end; ``federation_config`` is for the simulation engine.

        Raises:
            RunFailed: with ``check``, when the ServerApp did not complete (``flwr run`` itself would report success).
            WireError: SuperLink did not take the run, or it was not over within ``seconds``.
        """
        run = self.start_run(app, run_config, federation_config=federation_config)
        return self.finished(run, check=check, seconds=seconds)

    def start_run(
        self,
        app: Path,
        run_config: Mapping[str, Plain] | None = None,
        *,
        federation_config: Mapping[str, Plain] | None = None,
    ) -> str:
        """Start the app; the number of the run."""
        if not (app / "pyproject.toml").is_file():
            raise Misuse(f"{app} holds no Flower app (no pyproject.toml)")
        return self.runs.start(app.absolute(), run_config or {}, federation_config or {})

    def finished(self, run: str, *, check: bool = True, seconds: float = 600.0) -> Finished:
        """Wait for the end of a run started by ``start_run``; see ``run``."""
        outcome = self.runs.finished(run, seconds)
        if check and outcome.code:
            raise RunFailed(outcome)
        return outcome

    def stop_run(self, run: str) -> None:
        """Stop a run."""
        self.runs.stop(run)

    def logs(self) -> dict[str, str]:
        """What each process has written, by name (``superlink``, ``supernode-0``, …)."""
        return {path.stem: path.read_text(errors="replace") for path in sorted((self.folder / "logs").glob("*.log"))}

    def _key(self, index: int) -> Path:
        return self.folder / "keys" / f"{_name(index)}-{self._keys.get(index, 0)}"


def _name(index: int) -> str:
    return f"supernode-{index}"


def _connected(child: Child) -> bool:
    """Whether SuperLink has accepted the SuperNode: it writes its number then."""
    return _IDENTITY.search(child.said()) is not None
