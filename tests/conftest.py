"""The event loops that every async test runs on, virtual time, and a server in memory."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from chatscope.simulator import Reply, Script
from chatscope.simulator.config import answer_at
from chatscope.testing import LOOPS, ChatEndpoint
from chatscope.testing.loops import Backend
from chatscope.testing.loops import virtual_time as in_virtual_time

pytest_plugins = ("pytester",)

BACKENDS = list(LOOPS)

if sys.version_info >= (3, 12):

    def eager_loop() -> asyncio.AbstractEventLoop:
        """A stock loop whose tasks run up to their first wait while they are being created."""
        loop = asyncio.new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    BACKENDS.append(pytest.param(("asyncio", {"loop_factory": eager_loop}), id="asyncio-eager"))


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    """Run the test on asyncio, on asyncio with uvloop, on trio, and from Python 3.12 on with eager tasks too."""
    backend: Backend = request.param
    return backend


@pytest.fixture
def virtual_time() -> Backend:
    """A backend whose clock jumps ahead whenever everybody waits: a module makes it its `anyio_backend`."""
    return in_virtual_time()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's own key, address and proxies out of the tests."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)


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


@pytest.fixture
def serve() -> Serve:
    """Make a server in memory, to be given as `transport=`."""

    def make(script: Script | None = None) -> MemoryServer:
        return MemoryServer(Reply("Hello, world.") if script is None else script)

    return make
