"""A fake chat endpoint in memory: whose turn it is, what is answered, and what went wrong.

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

from chatscope.simulator import ChatRequest, Fault, Outcome, Plan, Reply, Response, respond_to
from chatscope.simulator.request import Headers, RefusedError
from chatscope.testing.playing import PlayedReply
from chatscope.testing.received import ReceivedRequest
from chatscope.testing.steps import Scripted, Step, UnexpectedRequestError, explained, rendered

__all__ = ["ChatEndpoint"]


class ChatEndpoint(httpx.AsyncBaseTransport):
    """An endpoint that answers in memory, step by step; as the fixture `chat_endpoint`, for every chatscope client.

    It is also a transport, for `transport=` and for httpx clients of one's own. Answers are the simulator's; a request
    that the API would refuse gets its 400, and takes no step. It waits on the event loop's clock only.

    Args:
        ordered: whether the steps are taken in the order in which they were added. Otherwise each request takes the
            first one whose expectations it meets, which suits an application that asks many things at once.
        allow_unexpected: whether a request that no step is for is no problem. The client gets the error anyway.
        allow_unused: whether a step that was not taken is no problem.

    Attributes:
        default: what is answered when no step is for a request, any number of times; None: nothing, that is an error.
        requests: those received, oldest first.
        open: how many answers are neither read to their end nor left.
        peak: the most that were open at once.
        unexpected: the errors of requests that no step was for, or whose answer could not be made.
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
        self._came: anyio.Event | None = None

    def add(
        self,
        *answers: Scripted,
        headers: Mapping[str, str] | None = None,
        where: Callable[[ChatRequest], bool] | None = None,
        **fields: Any,
    ) -> None:
        """Add a step for each answer, all with the same expectations.

        Args:
            answers: A text; a `Reply`, an `error(...)`, a fault or whatever else the simulator answers; an exception
                that the transport is to raise, such as `httpx.ConnectError("refused")`; or a function of the request
                that returns one of these.
            headers: Headers that the request has to have, with these values.
            where: What has to say yes to the request; it may as well `assert`.
            fields: Fields of the body with their values: `model="gpt-4o-mini"`, `temperature=0`. None: absent.

        Raises:
            TypeError: There is no answer, or an argument can never be right; the error names it.
        """
        if not answers:
            raise TypeError("answers must be at least one")
        for answer in answers:
            if not (isinstance(answer, str | Reply | Response | Plan | Exception) or callable(answer)):
                raise TypeError(f"answers must be texts, replies, errors or functions, not {answer!r}")
        if headers is not None and not isinstance(headers, Mapping):
            raise TypeError(f"headers must be a mapping, not {headers!r}")
        if where is not None and not callable(where):
            raise TypeError(f"where must be a function of the request, not {where!r}")
        for answer in answers:
            self._added += 1
            self._steps.append(Step(self._added, answer, fields, headers or {}, where))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request. Cancelled, nothing of the answer stays open.

        Raises:
            UnexpectedRequestError: No step is for it, and there is no default.
            httpx.TransportError: The answer is a fault.
        """
        __tracebackhide__ = True  # what is wrong is the test's or the application's
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
        if self._came is not None:
            self._came.set()
            self._came = None
        self.open += 1
        self.peak = max(self.peak, self.open)

        def end(outcome: Outcome) -> None:
            received.outcome = outcome
            self.open -= 1

        try:
            # Before anything is waited for, so that requests take their steps in the order in which they came.
            plan = self._plan(received)
            reply = PlayedReply(plan, request, end)
            await anyio.lowlevel.checkpoint()
        except BaseException:
            end(Outcome.DISCONNECTED)
            raise
        return await reply.response()

    async def wait_for_requests(self, count: int) -> None:
        """Wait until that many requests have come; cancelled, it leaves nothing behind."""
        while len(self.requests) < count:
            came = self._came = self._came or anyio.Event()
            await came.wait()

    def problems(self) -> list[str]:
        """Return what is wrong so far, a text each: requests that no step was for, and steps that were not taken."""
        unexpected = [] if self._allow_unexpected else [explained(error) for error in self.unexpected]
        unused = [] if self._allow_unused else [f"This was not used: {step}." for step in self._steps]
        return unexpected + unused

    def reset(self) -> None:
        """Forget the steps that are left, the default and what was wrong; the requests are kept."""
        self.default = None
        self.unexpected.clear()
        self._steps.clear()

    def _plan(self, received: ReceivedRequest) -> Plan:
        __tracebackhide__ = True
        try:
            request = ChatRequest.parse(
                received.content, received.headers, number=received.number, created=int(time.time())
            )
        except RefusedError as refusal:
            response: Response | Plan = refusal.response
        else:
            response = self._response(request)
        if isinstance(response, Plan):
            return response
        # No connection is kept for a second request, so nothing happens to it in the meantime.
        return replace(response.with_default_header("x-request-id", f"req_{received.number}"), when_idle=()).plan()

    def _response(self, request: ChatRequest) -> Response | Plan:
        __tracebackhide__ = True
        try:
            answer = self._scripted(request)
            if callable(answer) and not isinstance(answer, Fault):
                answer = answer(request)
            if not isinstance(answer, Exception):
                return respond_to(request, Reply(answer) if isinstance(answer, str) else answer)
        except httpx.TransportError:  # how a function breaks a connection
            raise
        except Exception as error:
            self.unexpected.append(error)
            raise
        raise answer

    def _scripted(self, request: ChatRequest) -> Scripted:
        """Take the step that the request is for.

        Raises:
            UnexpectedRequestError: There is none, and no default.
        """
        __tracebackhide__ = True
        missed = []
        for index, step in enumerate(self._steps[:1] if self._ordered else self._steps):
            differences = step.differences(request)
            if not differences:
                return self._steps.pop(index).answer
            missed.append("\n".join([f"It is not for {step}:", *(indent(text, "  ") for text in differences)]))
        if self.default is not None:
            return self.default
        lines = missed or ["All steps were used." if self._added else "There are no steps."]
        raise UnexpectedRequestError(
            "\n".join([f"Request {request.number} was not expected.", *lines, f"It was: {rendered(request)}"])
        )
