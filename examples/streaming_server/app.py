"""A page that shows an answer while it is written, and a model request that lives no longer than its reader.

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
"""Bytes: some ten pages. A question is held in memory, and each byte of it is paid for."""

TIMEOUTS: Final = Timeouts(first_token=30, idle=15, total=120)
"""Seconds that people wait for a first word, for the next one, and for all of it."""

SLOWEST_READER: Final = 180.0
"""Seconds for the whole answer. `TIMEOUTS` bounds the model; a browser that stays connected and stops reading holds up
`send`, and would hold the model's connection as long as it likes."""

HEADERS: Final = [
    (b"content-type", b"application/x-ndjson"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the lines and deliver them together
]

logger = logging.getLogger(__name__)


class State(TypedDict):
    """What lives as long as the server."""

    client: ChatClient


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of JSON lines: `{"text": ...}` for each piece, then one of `{"done": ...}` and `{"error": ...}`.

    It is no `StreamingResponse` over an async generator, for two reasons. That one sees a browser leave only at the
    next piece that it sends (with servers of ASGI 2.4): a model that thinks for a minute is paid for that minute. And
    a generator that is left in the middle is closed whenever somebody gets round to it. Here one block owns all that
    belongs to the request: when it is left, for whatever reason, nothing of it goes on.
    """

    stream: ChatStream

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send the answer. When the browser leaves or the server stops, the model's connection is closed at once."""
        async with anyio.create_task_group() as group:
            group.cancel_scope.deadline = anyio.current_time() + SLOWEST_READER
            group.start_soon(_cancel_when_browser_leaves, receive, group.cancel_scope)
            await self._send_lines(send)
            group.cancel_scope.cancel()  # all is said: nobody needs to watch any more

    async def _send_lines(self, send: Send) -> None:
        # The status goes out before the model is asked, so that whatever happens to it is told in one way: by a line.
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        try:
            async with self.stream as stream:
                async for chunk in stream:
                    if chunk.text:
                        await _send_line(send, text=chunk.text)
            await _send_line(send, done=stream.completion.finish_reason)
        except ChatError as error:
            # The log gets the details, the public the kind. Caught in here, since a task group would wrap it.
            logger.warning("No whole answer from the model (request %s): %s", error.request_id, error)
            await _send_line(send, error=type(error).__name__)
        await send({"type": "http.response.body", "body": b""})


async def _cancel_when_browser_leaves(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _send_line(send: Send, **line: str | None) -> None:
    """Send a line. It waits while the browser is behind, and with it the model: nothing piles up in between."""
    await send({"type": "http.response.body", "body": json.dumps(line).encode() + b"\n", "more_body": True})


async def show_page(_: Request) -> FileResponse:
    """Answer with the page."""
    return FileResponse(PAGE)


async def answer(request: Request) -> Answer:
    """Answer the question in the body, which is plain text. Nothing is sent to the model before the response runs."""
    question = bytearray()
    async with aclosing(request.stream()) as pieces:  # a generator, and not always read to its end
        async for piece in pieces:
            question += piece
            if len(question) > LONGEST_QUESTION:
                raise HTTPException(413, f"The question is longer than {LONGEST_QUESTION} bytes.")
    if not question.strip():
        raise HTTPException(400, "There is no question.")
    messages = [{"role": "user", "content": question.decode(errors="replace")}]
    client: ChatClient = request.state.client
    return Answer(client.stream(model=MODEL, messages=messages))


def create_app(base_url: str | None = None, api_key: str | None = None) -> Starlette:
    """Make the application. Its one client, and so its connections and limits, lives from startup to shutdown.

    Args:
        base_url: the model server's address; default `OPENAI_BASE_URL`, else OpenAI's own.
        api_key: default `OPENAI_API_KEY`.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[State]:
        # Above 100 answers at a time others wait for their turn; above 100 that wait, to be told so is kinder.
        async with ChatClient(base_url, api_key, timeout=TIMEOUTS, max_concurrency=100, max_pending=100) as client:
            yield {"client": client}

    return Starlette(
        routes=[Route("/", show_page), Route("/answer", answer, methods=["POST"])],
        lifespan=lifespan,
    )
