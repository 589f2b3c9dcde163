"""Plays a plan of the simulator in memory: feeds an HTTP parser the bytes that a socket would deliver, when it would.

Here: `PlayedResponse`, the head and body of a response. The bytes pass through an HTTP parser, so a plan that breaks
HTTP (a cut chunk, endless headers) fails as it would on a connection. All waits use the event loop's clock, which may
be virtual. Not here: the choice of the plan (`endpoint`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self

import anyio
import anyio.lowlevel
import h11
import httpx

from chatscope.simulator import Close, Outcome, Plan, Repeat, Reset, Send, Stall, Until, Wait
from chatscope.simulator.plan import Step
from chatscope.transport.errors import MalformedResponseError
from chatscope.transport.transport import MAX_HEADER_BYTES

__all__ = ["PlayedResponse"]


class PlayedResponse(httpx.AsyncByteStream):
    """The response to one request. Its body can be read once.

    A wait longer than the request's read timeout raises `httpx.ReadTimeout`, as on a socket.

    Args:
        plan: the steps to play.
        request: the request.
        on_end: called once, with the outcome.
    """

    def __init__(self, plan: Plan, request: httpx.Request, on_end: Callable[[Outcome], None]) -> None:
        self._steps = _unrolled(plan)
        self._request = request
        self._on_end: Callable[[Outcome], None] | None = on_end
        self._due = anyio.current_time()
        self._closed = False
        self._has_ended = False  # the connection, not the response
        self._is_first = True  # no bytes were received yet
        self._wait: anyio.CancelScope | None = None  # of the current read, if any
        self._read_timeout: float | None = request.extensions.get("timeout", {}).get("read")
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)
        self._parser.send(h11.Request(method=request.method, target=request.url.raw_path, headers=[("host", "memory")]))
        self._parser.send(h11.EndOfMessage())

    async def start(self) -> httpx.Response:
        """Return the response once its head has been received. If this fails or is cancelled, the response ends.

        Raises:
            httpx.TransportError: the plan has no complete head.
        """
        try:
            while not isinstance(head := await self._next_event(), h11.Response):
                pass  # an informational response, such as 100 Continue
        except BaseException:
            self._end(Outcome.DISCONNECTED)
            raise
        extensions = {"http_version": b"HTTP/" + head.http_version, "reason_phrase": head.reason}
        return httpx.Response(head.status_code, headers=list(head.headers), stream=self, extensions=extensions)

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes of the body."""
        if self._parser.their_state is not h11.SEND_BODY:
            raise StopAsyncIteration
        if self._closed:
            raise httpx.StreamClosed
        event = await self._next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        self._end(Outcome.COMPLETED)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the response. A task that is reading it gets an error."""
        self._closed = True
        if self._wait is not None:
            self._wait.cancel()
        await anyio.lowlevel.checkpoint()
        self._end(Outcome.COMPLETED if next(self._steps, None) is None else Outcome.DISCONNECTED)

    async def _next_event(self) -> h11.Event:
        while True:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError as problem:
                kind = httpx.RemoteProtocolError if self._has_ended else MalformedResponseError
                raise kind(str(problem), request=self._request) from problem
            if isinstance(event, h11.Event):
                return event
            data = await self._receive()
            self._has_ended = not data
            if self._is_first and not data.startswith(b"HTTP/"[: len(data)]):  # h11 would wait for a whole line
                raise MalformedResponseError("the response is not HTTP", request=self._request)
            self._is_first = False
            if not data and self._parser.their_state is h11.SEND_RESPONSE:
                raise httpx.RemoteProtocolError("the server closed the connection", request=self._request)
            self._parser.receive_data(data)

    async def _receive(self) -> bytes:
        """Return what one read of a socket would return; `b""` at the end."""
        with anyio.move_on_after(self._read_timeout) as self._wait:
            await anyio.lowlevel.checkpoint()
            for step in self._steps:
                match step:
                    case Send():
                        if step.data:
                            return step.data
                    case Wait():
                        self._due += step.seconds
                        await anyio.sleep_until(self._due)
                    case Until():
                        await step.event.wait()
                        self._due = anyio.current_time()
                    case Close():
                        self._end(Outcome.CUT)
                        return b""
                    case Reset():
                        self._end(Outcome.CUT)
                        raise httpx.ReadError("the connection was reset", request=self._request)
                    case Stall():
                        await anyio.sleep_forever()
            await anyio.sleep_forever()  # after its last step, a plan leaves the connection open
        if self._closed:
            raise httpx.ReadError("the response was closed while it was being read", request=self._request)
        raise httpx.ReadTimeout("no data within the read timeout", request=self._request)

    def _end(self, outcome: Outcome) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(outcome)


def _unrolled(plan: Plan) -> Iterator[Step]:
    """Yield the steps. A step that lasts until the client disconnects is repeated forever."""
    for step in plan.steps:
        while isinstance(step, Repeat):
            yield Wait(step.seconds)
            yield Send(step.data)
        while isinstance(step, Stall):
            yield step
        yield step
