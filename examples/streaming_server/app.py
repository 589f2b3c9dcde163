"""A page that shows an answer as the model writes it. The model's request ends when the browser leaves.

    python -m examples.streaming_server --simulate

In production: `uvicorn --factory examples.streaming_server.app:create_app`, with `OPENAI_API_KEY` in the environment,
and `OPENAI_BASE_URL` for another server.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypedDict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, StreamingResponse
from starlette.routing import Route

from chatscope import ChatClient, ChatError, ChatStream, Timeouts
from examples.streaming_server.model_response import ModelResponse, report

PAGE: Final = Path(__file__).with_name("page.html")
MODEL: Final = "gpt-4o-mini"

LONGEST_QUESTION: Final = 32 * 1024
"""Bytes, about ten pages. A question is held in memory, and the model charges for all of it."""

TIMEOUTS: Final = Timeouts(first_token=30, idle=15, total=120)
"""Seconds that people wait for the first word, for the next one, and for the whole answer."""

HEADERS: Final = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""The second keeps nginx from buffering the lines."""


class State(TypedDict):
    """State that lives as long as the server."""

    client: ChatClient


async def lines(stream: ChatStream) -> AsyncGenerator[bytes]:
    """Yield JSON lines: `{"text": ...}` for each part of the text, then `{"done": ...}` or `{"error": ...}`.

    A slow browser makes `send` wait, and with it the model: nothing is buffered between them.
    """
    try:
        async for chunk in stream:
            if chunk.text:
                yield _line(text=chunk.text)
        yield _line(done=stream.completion.finish_reason)
    except ChatError as error:  # the status has been sent, so this is a line
        report(error)
        yield _line(error=type(error).__name__)


def _line(**line: str | None) -> bytes:
    return json.dumps(line).encode() + b"\n"


async def show_page(_: Request) -> FileResponse:
    """Respond with the page."""
    return FileResponse(PAGE)


async def answer(request: Request) -> ModelResponse:
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
    return ModelResponse(
        client.stream(model=MODEL, messages=messages),
        lines,
        partial(StreamingResponse, media_type="application/x-ndjson", headers=HEADERS),
    )


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
