"""The event loops that every async test runs on, virtual time, and a server in memory."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Self

import anyio
import anyio.lowlevel
import httpx
import msgspec
import pytest
from trio.testing import MockClock

from chatscope.simulator import ChatRequest, Close, Part, Plan, Reply, Reset, Response, Send, Stall, Until, Wait
from chatscope.simulator import respond_to as answer_to
from chatscope.simulator.config import Script, answer_at
from chatscope.simulator.plan import Step
from chatscope.simulator.request import Headers, RefusedError

LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
]

if sys.version_info >= (3, 12):

    def eager_loop() -> asyncio.AbstractEventLoop:
        """A stock loop whose tasks run up to their first wait while they are being created."""
        loop = asyncio.new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    LOOPS.append(pytest.param(("asyncio", {"loop_factory": eager_loop}), id="asyncio-eager"))


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run the test on asyncio, on asyncio with uvloop, on trio, and from Python 3.12 on with eager tasks too."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture
def virtual_time() -> tuple[str, dict[str, Any]]:
    """A backend whose clock jumps ahead whenever everybody waits: a module makes it its `anyio_backend`."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's own key, address and proxies out of the tests."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)


class MemoryServer(httpx.AsyncBaseTransport):
    """Plays the simulator's answers in memory: it waits on the event loop's clock only, and knows what is open.

    A wait that exceeds the request's read timeout ends like a socket's, in `httpx.ReadTimeout`.

    Attributes:
        script: what is answered, as for the simulator; a function may also raise.
        requests: those received, oldest first.
        times: when they came, on the event loop's clock.
        open: how many replies are neither read to their end nor closed.
        peak: the most that were open at once.
        closed: whether the transport was closed.
    """

    def __init__(self, script: Script) -> None:
        self.script: Script = script
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []
        self.open = 0
        self.peak = 0
        self.closed = False

    @property
    def bodies(self) -> list[Any]:
        """The JSON bodies of the requests."""
        return [msgspec.json.decode(request.content) for request in self.requests]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert not self.closed, "a request after the transport was closed"
        self.requests.append(request)
        number = len(self.requests)
        self.times.append(anyio.current_time())
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            await anyio.lowlevel.checkpoint()
            answer = self._answer(request, number)
            body = MemoryBody(self, request, answer.body)
            await body.wait(*answer.before_status, *answer.before_headers)
        except BaseException:
            self.open -= 1
            raise
        headers = (("x-request-id", f"req_{number}"), *answer.headers)
        return httpx.Response(answer.status, headers=headers, stream=body)

    async def aclose(self) -> None:
        self.closed = True

    async def wait_for_requests(self, count: int) -> None:
        """Wait until that many requests came."""
        while len(self.requests) < count:
            await anyio.lowlevel.checkpoint()

    def _answer(self, request: httpx.Request, number: int) -> Response:
        try:
            chat = ChatRequest.parse(request.content, Headers(request.headers), created=int(time.time()))
            answer = answer_to(chat, answer_at(self.script, number - 1, chat))
        except RefusedError as refusal:
            return refusal.response
        assert not isinstance(answer, Plan), "a plan is bytes on a socket"
        return answer


class MemoryBody(httpx.AsyncByteStream):
    """The body of one reply."""

    def __init__(self, server: MemoryServer, request: httpx.Request, items: Iterable[Part | Step]) -> None:
        self._server = server
        self._request = request
        self._items = iter(items)
        self._open = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        for item in self._items:
            if isinstance(item, Part | Send):
                await anyio.lowlevel.checkpoint()
                return item.data
            await self.wait(item)
        self._end()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._end()

    async def wait(self, *steps: Step) -> None:
        """Take the steps that send nothing, as far as the read timeout allows."""
        with anyio.move_on_after(self._request.extensions["timeout"]["read"]):
            for step in steps:
                match step:
                    case Wait(seconds):
                        await anyio.sleep(seconds)
                    case Until(event):
                        await event.wait()
                    case Stall():
                        await anyio.sleep_forever()
                    case Close():
                        raise httpx.RemoteProtocolError("the server closed the connection", request=self._request)
                    case Reset():
                        raise httpx.ReadError("the connection was reset", request=self._request)
                    case _:
                        raise AssertionError(f"{step} is not for memory")
            return
        raise httpx.ReadTimeout("nothing came", request=self._request)

    def _end(self) -> None:
        if self._open:
            self._open = False
            self._server.open -= 1


Serve = Callable[..., MemoryServer]


@pytest.fixture
def serve() -> Serve:
    """Make a server in memory, to be given as `transport=`."""

    def make(script: Script | None = None) -> MemoryServer:
        return MemoryServer(Reply("Hello, world.") if script is None else script)

    return make
