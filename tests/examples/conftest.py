"""A simulator in a thread of its own, and examples run as their heads say: by their commands, in their own process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from chatscope.simulator import Outcome, Script, Simulator, simulator

ROOT = Path(__file__).resolve().parents[2]

# Far longer than anything here takes; it ends what hangs.
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulator that runs in another thread."""

    server: Simulator
    base_url: str
    portal: BlockingPortal

    def event(self) -> anyio.Event:
        """Make an event for the script to wait for."""
        return self.portal.call(anyio.Event)

    def set(self, event: anyio.Event) -> None:
        """Set an event."""
        self.portal.call(event.set)

    def wait_until(self, condition: Callable[[Simulator], bool]) -> None:
        """Wait until a condition on the simulator holds."""
        self.portal.start_task_soon(self.server.wait_until, condition).result(SECONDS)

    def outcomes(self) -> dict[str, Outcome]:
        """Return how the answers ended, by what was asked."""
        return {each.json["messages"][-1]["content"]: each.outcome for each in self.server.requests}

    def wait_for(self, question: str, outcome: Outcome) -> None:
        """Wait until the answer to a question has ended, which must be in this way."""
        running = {question: Outcome.RUNNING}
        self.wait_until(lambda _: (running | self.outcomes())[question] is not Outcome.RUNNING)
        assert self.outcomes()[question] is outcome


Simulate = Callable[[Script], Simulated]
Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Start a simulator; `launch` gets its address."""
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())

        def start(script: Script) -> Simulated:
            server = simulator(script)
            return Simulated(server, stack.enter_context(portal.wrap_async_context_manager(server)), portal)

        yield start


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start an example as `python -m MODULE ARGUMENTS`, against the server at `base_url` if there is one."""
    with ExitStack() as stack:

        def start(module: str, *arguments: str, base_url: str | None = None) -> subprocess.Popen[str]:
            environment = os.environ | {"PYTHONUNBUFFERED": "1"}
            if base_url is not None:
                environment |= {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-examples"}
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)  # called before the process is waited for
            return process

        yield start
