"""A simulator in a thread of its own, for clients that run in another process or without a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from chatscope.simulator import Outcome, Script, Simulator, simulator

SECONDS = 60.0
"""Far longer than anything here takes; it ends what hangs."""


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

    def body(self) -> Any:
        """Return the body of the latest request."""
        return self.server.requests[-1].json

    def outcome(self) -> Outcome:
        """Wait for the end of the latest request and return how it ended."""
        self.wait_until(lambda server: server.requests[-1].outcome is not Outcome.RUNNING)
        return self.server.requests[-1].outcome

    def outcomes(self) -> dict[str, Outcome]:
        """Return how the responses ended, by their prompts."""
        return {each.json["messages"][-1]["content"]: each.outcome for each in self.server.requests}

    def wait_for(self, question: str, outcome: Outcome) -> None:
        """Wait until the response to a prompt has ended, and assert that it ended in this way."""
        running = {question: Outcome.RUNNING}
        self.wait_until(lambda _: (running | self.outcomes())[question] is not Outcome.RUNNING)
        assert self.outcomes()[question] is outcome


Simulate = Callable[[Script], Simulated]


@contextmanager
def simulators() -> Iterator[Simulate]:
    """Yield a function that starts simulators, which stop with the block."""
    with ExitStack() as stack:

        def start(script: Script) -> Simulated:
            portal = stack.enter_context(start_blocking_portal())
            server = simulator(script)
            return Simulated(server, stack.enter_context(portal.wrap_async_context_manager(server)), portal)

        yield start
