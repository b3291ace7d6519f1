"""One emulator for all tests of the wire, with made-up credentials in this process's environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from privfl.wires.aws.emulator import Emulator, emulator
from tests.wires.aws.cloud import Cloud, cloud


@pytest.fixture(scope="session")
def emulated() -> Iterator[Emulator]:
    """A running emulator."""
    with emulator() as found:
        yield found


@pytest.fixture
def aws(emulated: Emulator) -> Iterator[Cloud]:
    """A federation's bucket and queues of its own; mailboxes opened through it are closed at the end."""
    with emulated.at_hand(), cloud(emulated) as found:
        yield found
