"""The simulator for one test, in a separate thread.

The thread lets it serve any test: on each event loop, without a loop, or while the test waits for another process. Not
here: the simulator itself (`chatscope.simulator`), and the environment variables that point to it (`fixtures`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio.to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from chatscope.simulator import Config, Received, Script, Simulator, simulator

__all__ = ["ChatSimulator", "running_simulator"]


class ChatSimulator:
    """The fixture `chat_simulator`: a simulator that listens while its test runs.

    Attributes:
        base_url: its address.
    """

    def __init__(self, base_url: str, server: Simulator, portal: BlockingPortal) -> None:
        self.base_url = base_url
        self._server = server
        self._portal = portal

    @property
    def script(self) -> Script:
        """Its responses: one for every request, a sequence whose last item repeats, or a function of the request."""
        return self._server.script

    @script.setter
    def script(self, script: Script) -> None:
        self._server.script = script

    @property
    def config(self) -> Config:
        """The keys and models that it accepts. Changing its rate limits has no effect."""
        return self._server.config

    @config.setter
    def config(self, config: Config) -> None:
        self._server.config = config

    @property
    def requests(self) -> list[Received]:
        """The requests received so far, oldest first."""
        return self._portal.call(list, self._server.requests)

    async def wait_until(self, condition: Callable[[Simulator], bool]) -> None:
        """Wait, on any event loop, until a condition on the simulator's requests and connections holds.

        Cancelling the wait has no other effect. In a synchronous test, use
        `anyio.run(chat_simulator.wait_until, condition)`.

        Args:
            condition: Called in the simulator's thread after every change.
        """
        waiting = self._portal.start_task_soon(self._server.wait_until, condition)
        try:
            await anyio.to_thread.run_sync(waiting.result, abandon_on_cancel=True)
        finally:
            waiting.cancel()


@contextmanager
def running_simulator() -> Iterator[ChatSimulator]:
    """Run a simulator while the block is open. Leaving the block closes every connection."""
    server = simulator()
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server) as base_url:
        yield ChatSimulator(base_url, server, portal)
