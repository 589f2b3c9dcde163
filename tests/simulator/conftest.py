"""How the simulator's tests make a chat request and read a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chatscope.simulator import ChatRequest, Response

Chat = Callable[..., ChatRequest]


def request_body(prompt: str = "Say hello", **parameters: Any) -> dict[str, Any]:
    """Return the smallest valid body, with more parameters or others in place of its own."""
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}], **parameters}


@pytest.fixture
def body() -> Callable[..., dict[str, Any]]:
    """Make a request body."""
    return request_body


@pytest.fixture
def chat() -> Chat:
    """Make a parsed request."""

    def make(prompt: str = "Say hello", **parameters: Any) -> ChatRequest:
        return ChatRequest.parse(msgspec.json.encode(request_body(prompt, **parameters)))

    return make


@pytest.fixture
def chunks() -> Callable[[Response | bytes], list[dict[str, Any]]]:
    """Read the JSON objects of a well-formed stream, which must end in `[DONE]`."""

    def read(source: Response | bytes) -> list[dict[str, Any]]:
        content = source if isinstance(source, bytes) else source.content
        *events, done, rest = content.split(b"\n\n")
        assert (done, rest) == (b"data: [DONE]", b"")
        return [msgspec.json.decode(event.removeprefix(b"data: ")) for event in events]

    return read
