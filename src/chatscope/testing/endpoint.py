"""A scripted chat endpoint in memory: it matches requests to steps, and records what went wrong.

Here: `ChatEndpoint`. Not here: comparing requests (`steps`), bytes and time (`playing`), pytest (`fixtures`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from textwrap import indent
from typing import Any

import anyio
import anyio.lowlevel
import httpx

from chatscope.simulator import ChatRequest, Fault, Outcome, Plan, Reply, Response, error, respond_to
from chatscope.simulator.request import Headers, RefusedError
from chatscope.testing.playing import PlayedResponse
from chatscope.testing.received import ReceivedRequest
from chatscope.testing.steps import Scripted, Step, UnexpectedRequestError, explain, rendered

__all__ = ["ChatEndpoint"]


class ChatEndpoint(httpx.AsyncBaseTransport):
    """A scripted endpoint in memory. As the fixture `chat_endpoint`, it serves every chatscope client of a test.

    It is also a transport, for `transport=` and for your own httpx clients. It responds as the simulator does: a
    request that the API would refuse gets a 400, and uses no step. All waits use the event loop's clock.

    Args:
        ordered: use the steps in the order in which they were added. If false, each request uses the first step that
            it matches; use this for applications that send many requests at once.
        allow_unexpected: a request without a step is not a problem. The client still gets an error.
        allow_unused: an unused step is not a problem.

    Attributes:
        default: the response to every request that matches no step. If it is `None`, such a request is an error.
        requests: the requests received, oldest first.
        open: how many responses have been neither read to the end nor closed.
        peak: the largest value of `open` so far.
        unexpected: the errors of requests that matched no step, or whose response could not be built.
    """

    def __init__(self, *, ordered: bool = True, allow_unexpected: bool = False, allow_unused: bool = False) -> None:
        self.default: Scripted | None = None
        self.requests: list[ReceivedRequest] = []
        self.open = 0
        self.peak = 0
        self.unexpected: list[Exception] = []
        self._ordered = ordered
        self._allow_unexpected = allow_unexpected
        self._allow_unused = allow_unused
        self._steps: list[Step] = []
        self._added = 0
        self._arrival: anyio.Event | None = None

    def add(
        self,
        *responses: Scripted,
        headers: Mapping[str, str] | None = None,
        where: Callable[[ChatRequest], bool] | None = None,
        **fields: Any,
    ) -> None:
        """Add one step for each response, all with the same expectations.

        Args:
            responses: A text; a `Reply`, an `error(...)`, a fault or anything else that the simulator can send; an
                exception for the transport to raise, such as `httpx.ConnectError("refused")`; or a function that takes
                the request and returns one of these.
            headers: Headers that the request must have, with their values.
            where: A function that must return true for the request. It may also use `assert`.
            fields: Fields that the body must have, with their values: `model="gpt-4o-mini"`, `temperature=0`. `None`
                means that the field must be absent.

        Raises:
            TypeError: There is no response, or an argument has the wrong type; the error names it.
        """
        if not responses:
            raise TypeError("responses must have at least one item")
        for response in responses:
            if not (isinstance(response, str | Reply | Response | Plan | Exception) or callable(response)):
                raise TypeError(f"responses must be texts, replies, errors or functions, not {response!r}")
        if headers is not None and not isinstance(headers, Mapping):
            raise TypeError(f"headers must be a mapping, not {headers!r}")
        if where is not None and not callable(where):
            raise TypeError(f"where must be a function of the request, not {where!r}")
        for response in responses:
            self._added += 1
            self._steps.append(Step(self._added, response, fields, headers or {}, where))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Respond to a request. If cancelled, the response is closed.

        Raises:
            UnexpectedRequestError: The request matches no step, and there is no default.
            httpx.TransportError: The scripted response is a fault of the connection.
        """
        __tracebackhide__ = True  # these frames would only distract from the test or the application
        content = await request.aread()
        received = ReceivedRequest(
            len(self.requests) + 1,
            request.method,
            request.url.raw_path.decode("ascii"),
            Headers(request.headers),
            content,
            anyio.current_time(),
            request=request,
        )
        self.requests.append(received)
        if self._arrival is not None:
            self._arrival.set()
            self._arrival = None
        self.open += 1
        self.peak = max(self.peak, self.open)

        def end(outcome: Outcome) -> None:
            received.outcome = outcome
            self.open -= 1

        try:
            # Before the first await, so that requests use steps in the order of their arrival.
            plan = self._plan(received)
            response = PlayedResponse(plan, request, end)
            await anyio.lowlevel.checkpoint()
        except BaseException:
            end(Outcome.DISCONNECTED)
            raise
        return await response.start()

    async def wait_for_requests(self, count: int) -> None:
        """Wait until `count` requests have been received. Cancelling the wait has no other effect."""
        while len(self.requests) < count:
            arrival = self._arrival = self._arrival or anyio.Event()
            await arrival.wait()

    def problems(self) -> list[str]:
        """Return the problems so far, one text each: requests without a step, and unused steps."""
        unexpected = [] if self._allow_unexpected else [explain(error) for error in self.unexpected]
        unused = [] if self._allow_unused else [f"Not used: {step}." for step in self._steps]
        return unexpected + unused

    def reset(self) -> None:
        """Remove the remaining steps, the default and the problems. The requests stay."""
        self.default = None
        self.unexpected.clear()
        self._steps.clear()

    def _plan(self, received: ReceivedRequest) -> Plan:
        __tracebackhide__ = True
        path = received.path.partition("?")[0]
        try:
            if not path.endswith("/chat/completions"):
                raise RefusedError(error(404, f"Invalid URL ({received.method} {path})"))
            request = ChatRequest.parse(
                received.content, received.headers, number=received.number, created=int(time.time())
            )
        except RefusedError as refusal:
            response: Response | Plan = refusal.response
        else:
            response = self._response(request)
        if isinstance(response, Plan):
            return response
        # In memory there is no connection that could stay idle between two requests.
        return replace(response.with_default_header("x-request-id", f"req_{received.number}"), when_idle=()).plan()

    def _response(self, request: ChatRequest) -> Response | Plan:
        __tracebackhide__ = True
        try:
            scripted = self._take_step(request)
            if callable(scripted) and not isinstance(scripted, Fault):
                scripted = scripted(request)
            if not isinstance(scripted, Exception):
                return respond_to(request, Reply(scripted) if isinstance(scripted, str) else scripted)
        except httpx.TransportError:  # a function may raise it to break the connection
            raise
        except Exception as error:
            self.unexpected.append(error)
            raise
        raise scripted

    def _take_step(self, request: ChatRequest) -> Scripted:
        """Use the step that the request matches, and return its response.

        Raises:
            UnexpectedRequestError: No step matches, and there is no default.
        """
        __tracebackhide__ = True
        mismatches = []
        for index, step in enumerate(self._steps[:1] if self._ordered else self._steps):
            differences = step.differences(request)
            if not differences:
                return self._steps.pop(index).response
            mismatches.append("\n".join([f"It does not match {step}:", *(indent(text, "  ") for text in differences)]))
        if self.default is not None:
            return self.default
        lines = mismatches or ["All steps were used." if self._added else "There are no steps."]
        raise UnexpectedRequestError(
            "\n".join([f"Request {request.number} was not expected.", *lines, f"The request: {rendered(request)}"])
        )
