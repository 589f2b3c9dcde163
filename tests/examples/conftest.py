"""Fixtures for the examples: a simulator in a thread, and the examples' own commands in processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.processes import Launch, launcher
from tests.support.simulated import Simulate, simulators


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Start a simulator; `launch` gets its address."""
    with simulators() as start:
        yield start


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start an example as `python -m MODULE ARGUMENTS`, against the server at `base_url` if there is one."""
    with launcher() as start:
        yield start
