"""The real simulator for one test, in a thread of its own.

A thread serves whatever the test runs: each event loop, no loop at all, a blocking wait for a program in another
process. Not here: the simulator itself, nor the environment that leads to it (`fixtures`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio.to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from chatscope.simulator import Config, Received, Script, Simulator, simulator

__all__ = ["ChatSimulator"]


class ChatSimulator:
    """A simulator that listens while its test runs, as the fixture `chat_simulator`.

    Attributes:
        base_url: where it is.
    """

    def __init__(self, base_url: str, server: Simulator, portal: BlockingPortal) -> None:
        self.base_url = base_url
        self._server = server
        self._portal = portal

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[ChatSimulator]:
        """Run one for the length of a block; leaving it closes every connection."""
        server = simulator()
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(server) as base_url:
            yield cls(base_url, server, portal)

    @property
    def script(self) -> Script:
        """What it answers: one answer, a sequence of which the last is repeated, or a function of the request."""
        return self._server.script

    @script.setter
    def script(self, script: Script) -> None:
        self._server.script = script

    @property
    def config(self) -> Config:
        """What it demands of its clients: the keys and the models that it lets in. Limits are set at the start only."""
        return self._server.config

    @config.setter
    def config(self, config: Config) -> None:
        self._server.config = config

    @property
    def requests(self) -> list[Received]:
        """Those received up to now, oldest first."""
        return self._portal.call(list, self._server.requests)

    async def wait_until(self, condition: Callable[[Simulator], bool]) -> None:
        """Wait until a condition on the simulator's requests and connections holds, on any event loop.

        Cancelled, it leaves nothing behind. `anyio.run(chat_simulator.wait_until, condition)` in a synchronous test.

        Args:
            condition: Called in the simulator's thread whenever something has changed.
        """
        waiting = self._portal.start_task_soon(self._server.wait_until, condition)
        try:
            await anyio.to_thread.run_sync(waiting.result, abandon_on_cancel=True)
        finally:
            waiting.cancel()
