"""A page that shows an answer as the model writes it. The model's request ends when the browser leaves.

    python -m examples.streaming_server --simulate

In production: `uvicorn --factory examples.streaming_server.app:create_app`, with `OPENAI_API_KEY` in the environment,
and `OPENAI_BASE_URL` for another server.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from chatscope import ChatClient, ChatError, ChatStream, Timeouts

PAGE: Final = Path(__file__).with_name("page.html")
MODEL: Final = "gpt-4o-mini"

LONGEST_QUESTION: Final = 32 * 1024
"""Bytes, about ten pages. A question is held in memory, and the model charges for all of it."""

TIMEOUTS: Final = Timeouts(first_token=30, idle=15, total=120)
"""Seconds that people wait for the first word, for the next one, and for the whole answer."""

SLOWEST_READER: Final = 180.0
"""Seconds for the whole response. `TIMEOUTS` limits the model. This limits a browser that stays connected but stops
reading: it blocks `send`, and with it the model's connection."""

HEADERS: Final = [
    (b"content-type", b"application/x-ndjson"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # otherwise nginx buffers the lines
]

logger = logging.getLogger(__name__)


class State(TypedDict):
    """State that lives as long as the server."""

    client: ChatClient


@dataclass(frozen=True, slots=True)
class LinesResponse:
    """A response of JSON lines: `{"text": ...}` for each part of the text, then `{"done": ...}` or `{"error": ...}`.

    A `StreamingResponse` over an async generator has two faults. With servers of ASGI 2.4 it notices a browser that
    leaves only at its next send, so a model that thinks for a minute costs a minute. And a generator that is left
    midway is closed at some later time. Here one block owns everything of the request: when the block ends, for any
    reason, nothing is left running.
    """

    stream: ChatStream

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send the response. When the browser leaves or the server stops, the model's connection is closed at once."""
        async with anyio.create_task_group() as group:
            group.cancel_scope.deadline = anyio.current_time() + SLOWEST_READER
            group.start_soon(_cancel_when_browser_leaves, receive, group.cancel_scope)
            await self._send_lines(send)
            group.cancel_scope.cancel()  # sent: stop waiting for the browser to leave

    async def _send_lines(self, send: Send) -> None:
        # The status is sent before the model is asked. So every outcome of the model is reported by a line.
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        try:
            async with self.stream as stream:
                async for chunk in stream:
                    if chunk.text:
                        await _send_line(send, text=chunk.text)
            await _send_line(send, done=stream.completion.finish_reason)
        except ChatError as error:
            # The log gets the details, the browser only the kind. Caught here, because a task group would wrap it.
            logger.warning("The model's response is incomplete (request %s): %s", error.request_id, error)
            await _send_line(send, error=type(error).__name__)
        await send({"type": "http.response.body", "body": b""})


async def _cancel_when_browser_leaves(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _send_line(send: Send, **line: str | None) -> None:
    """Send a line. A slow browser makes this wait, and with it the model: nothing is buffered between them."""
    await send({"type": "http.response.body", "body": json.dumps(line).encode() + b"\n", "more_body": True})


async def show_page(_: Request) -> FileResponse:
    """Respond with the page."""
    return FileResponse(PAGE)


async def answer(request: Request) -> LinesResponse:
    """Answer the question in the plain-text body. The model is asked when the response runs."""
    question = bytearray()
    async with aclosing(request.stream()) as parts:  # a generator that is not always read to its end
        async for part in parts:
            question += part
            if len(question) > LONGEST_QUESTION:
                raise HTTPException(413, f"The question is longer than {LONGEST_QUESTION} bytes.")
    if not question.strip():
        raise HTTPException(400, "The question is empty.")
    messages = [{"role": "user", "content": question.decode(errors="replace")}]
    client: ChatClient = request.state.client
    return LinesResponse(client.stream(model=MODEL, messages=messages))


def create_app(base_url: str | None = None, api_key: str | None = None) -> Starlette:
    """Create the application. Its one client, with its connections and limits, lives from startup to shutdown.

    Args:
        base_url: the address of the model's server; by default `OPENAI_BASE_URL`, or OpenAI's own.
        api_key: the key; `OPENAI_API_KEY` by default.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[State]:
        # 100 requests run at once, and 100 more wait. Further ones fail at once, which is kinder than a long wait.
        async with ChatClient(
            api_key, base_url=base_url, timeout=TIMEOUTS, max_concurrency=100, max_pending=100
        ) as client:
            yield {"client": client}

    return Starlette(
        routes=[Route("/", show_page), Route("/answer", answer, methods=["POST"])],
        lifespan=lifespan,
    )
