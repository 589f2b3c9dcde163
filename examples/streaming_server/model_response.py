"""A response of Starlette or FastAPI that is written while a model writes. Copy it into your application.

Here: the status, and what happens when the browser leaves. Not here: what the text looks like on the wire (`app`,
`sse`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

import anyio
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from chatscope import APITimeoutError, ChatError, ChatStream, QueueFullError

LONGEST: Final = 180.0
"""Seconds for the whole response. The client's timeouts limit the model. This limits a browser that stays connected but
stops reading: such a browser blocks `send`, and so keeps the model's connection open."""

logger = logging.getLogger(__name__)


class ModelResponse(Response):
    """A response that asks the model when it runs.

    A `StreamingResponse` alone has three faults. Its status is sent before the model is asked. With servers of ASGI 2.4
    it notices a browser that leaves only at its next send, so a model that thinks for a minute costs a minute. And a
    generator that is left midway is closed at some later time. Here one block owns everything of the request: when the
    block ends, for any reason, nothing is left running.

    Args:
        stream: the model's stream, not entered yet.
        parts: makes the parts of the body. It reports errors after the first token as a part, and opens no task group.
        response: makes the response that sends them, such as `StreamingResponse` or `EventSourceResponse`.
    """

    def __init__(
        self,
        stream: ChatStream,
        parts: Callable[[ChatStream], AsyncGenerator[Any]],
        response: Callable[[AsyncGenerator[Any]], Response],
    ) -> None:
        super().__init__()
        self._stream, self._parts, self._response = stream, parts, response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond. When the browser leaves or the server stops, the model's connection is closed at once."""
        async with anyio.create_task_group() as group:
            group.cancel_scope.deadline = anyio.current_time() + LONGEST
            group.start_soon(_cancel_when_browser_leaves, receive, group.cancel_scope)
            await self._respond(scope, send)
            group.cancel_scope.cancel()  # sent: stop waiting for the browser to leave

    async def _respond(self, scope: Scope, send: Send) -> None:
        try:
            # Entering waits for the first token. Nothing has been sent until then.
            async with self._stream as stream, aclosing(self._parts(stream)) as parts:
                await self._response(parts)(scope, _receive_nothing, send)
        except ChatError as error:
            report(error)
            await PlainTextResponse(type(error).__name__, status_of(error))(scope, _receive_nothing, send)


def status_of(error: ChatError) -> int:
    """Return the status for an error before the first token: the model's own, or what a gateway says."""
    if isinstance(error, APITimeoutError):
        return 504
    return error.status or (503 if isinstance(error, QueueFullError) else 502)


def report(error: ChatError) -> None:
    """Log the details. The browser only learns the kind of error."""
    logger.warning("The model's response is incomplete (request %s): %s", error.request_id, error)


async def _cancel_when_browser_leaves(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _receive_nothing() -> Message:
    """Wait for ever: `_cancel_when_browser_leaves` alone receives."""
    await anyio.sleep_forever()
    raise AssertionError
