"""The shipped fake endpoint, scripted as the simulator is: what most tests of the client talk to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from chatscope.simulator import Script
from chatscope.simulator.config import answer_at
from chatscope.testing import ChatEndpoint


class MemoryServer(ChatEndpoint):
    """The shipped fake with the simulator's scripts, and without a verdict at the end: the tests look for themselves.

    Attributes:
        script: what is answered, as for the simulator; a function may also raise.
        closed: whether the transport was closed.
    """

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script: Script = script
        self.closed = False
        self.default = lambda request: answer_at(self.script, request.number - 1, request)

    @property
    def bodies(self) -> list[Any]:
        """The JSON bodies of the requests."""
        return [request.json for request in self.requests]

    @property
    def times(self) -> list[float]:
        """When the requests came, on the event loop's clock."""
        return [request.time for request in self.requests]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert not self.closed, "a request after the transport was closed"
        return await super().handle_async_request(request)

    async def aclose(self) -> None:
        self.closed = True


Serve = Callable[..., MemoryServer]
