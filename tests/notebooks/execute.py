"""Run one notebook in a fresh kernel of this very interpreter: ``python execute.py NOTEBOOK RESULT FOLDER``.

A process of its own, because the client leaves sockets to the garbage collector. The kernel specification
is made here, so that it does not matter which kernels are installed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient


def main(source: Path, result: Path, folder: Path) -> None:
    """Execute ``source`` with ``folder``/work as its working directory; raises for a cell that fails."""
    spec = folder / "kernels" / "tests"
    spec.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "tests", "language": "python"}))
    (folder / "work").mkdir()
    manager = AsyncKernelManager(
        kernel_name="tests", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(folder / "kernels")])
    )
    notebook = nbformat.read(source, as_version=4)
    resources = {"metadata": {"path": str(folder / "work")}}
    NotebookClient(notebook, km=manager, timeout=120, resources=resources).execute()
    nbformat.write(notebook, result)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
