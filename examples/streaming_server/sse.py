"""The same application for FastAPI, with server-sent events by `sse-starlette`.

Run it with `uvicorn --factory examples.streaming_server.sse:create_app`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from chatscope import ChatClient, ChatError, ChatStream
from examples.streaming_server.app import LONGEST_QUESTION, MODEL, TIMEOUTS
from examples.streaming_server.model_response import ModelResponse, report


class Question(BaseModel):
    """The body of a request."""

    text: str = Field(min_length=1, max_length=LONGEST_QUESTION)


class State(TypedDict):
    """State that lives as long as the server."""

    client: ChatClient


async def events(stream: ChatStream) -> AsyncGenerator[ServerSentEvent]:
    """Yield an event `text` for each part of the text, then `done` or `error`."""
    try:
        async for chunk in stream:
            if chunk.text:
                yield ServerSentEvent(chunk.text, event="text")
        yield ServerSentEvent(stream.completion.finish_reason, event="done")
    except ChatError as error:  # the status has been sent, so this is an event
        report(error)
        yield ServerSentEvent(type(error).__name__, event="error")


async def answer(question: Question, request: Request) -> ModelResponse:
    """Answer a question. The model is asked when the response runs."""
    client: ChatClient = request.state.client
    messages = [{"role": "user", "content": question.text}]
    return ModelResponse(client.stream(model=MODEL, messages=messages), events, EventSourceResponse)


def create_app(base_url: str | None = None, api_key: str | None = None) -> FastAPI:
    """Create the application; the arguments are those of `ChatClient`."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with ChatClient(
            api_key, base_url=base_url, timeout=TIMEOUTS, max_concurrency=100, max_pending=100
        ) as client:
            yield {"client": client}

    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/answer", answer, methods=["POST"])
    return app
