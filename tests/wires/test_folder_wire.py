"""The folder wire keeps the mailbox contract, whatever others put into the folder and whenever a writer dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from privfl.wires import FolderMailbox, FolderWire
from tests.wires.mailbox_contract import MailboxContract


class TestFolderWire(MailboxContract):
    """The contract, every end opened through a wire of its own, as another process does."""

    @pytest.fixture(autouse=True)
    def _wire(self, tmp_path: Path) -> None:
        self.path = FolderWire.create(tmp_path / "wire").path

    def open(self, own: bytes) -> FolderMailbox:
        """A new end, on a wire opened anew."""
        return FolderWire(self.path).mailbox(own)
