"""examples/streaming_server/sse: FastAPI and sse-starlette, called like an ASGI server does."""

from __future__ import annotations

import json

import anyio
import pytest
from tests.support.asgi_browser import Browser

from chatscope.simulator import Outcome, Reply, error, faults, simulator

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("sse_starlette", reason="sse-starlette is not installed")

from examples.streaming_server.sse import create_app

TEXT = "one two three"


def browser(question: str = "count") -> Browser:
    """Make a browser that asks as JSON."""
    return Browser(json.dumps({"text": question}), headers={"content-type": "application/json"})


def event(name: str, data: str) -> str:
    """Return a server-sent event."""
    return f"event: {name}\r\ndata: {data}\r\n\r\n"


async def test_an_event_for_each_text_part_and_one_for_the_end() -> None:
    asking = browser()
    async with simulator(Reply(TEXT)) as base_url:
        await asking.get(create_app(base_url, "any-key"))
    texts = [event("text", text) for text in ("one", " two", " three")]
    assert (asking.status, asking.body) == (200, "".join([*texts, event("done", "stop")]))


async def test_errors_before_and_after_the_first_token() -> None:
    server = simulator()
    async with server as base_url:
        server.script = error(401, "no such key")
        early = browser()
        await early.get(create_app(base_url, "any-key"))
        server.script = Reply(TEXT, faults=(faults.stream_error(1),))
        late = browser()
        await late.get(create_app(base_url, "any-key"))
        invalid = browser("")
        await invalid.get(create_app(base_url, "any-key"))
    assert (early.status, early.body) == (401, "AuthenticationError")
    assert (late.status, late.body) == (200, event("text", "one") + event("error", "StreamServerError"))
    assert (invalid.status, len(server.requests)) == (422, 2)


@pytest.mark.parametrize(("tokens", "last"), [(0, ""), (2, " two")])
async def test_leaving_a_silent_model_closes_its_connection(tokens: int, last: str) -> None:
    server = simulator(Reply(TEXT, faults=(faults.stall(tokens),)))
    leaving = browser()
    async with server as base_url:
        async with anyio.create_task_group() as group:
            group.start_soon(leaving.get, create_app(base_url, "any-key"))
            await server.wait_until(lambda s: len(s.requests) == 1)
            await leaving.has(last)
            assert server.requests[0].outcome is Outcome.RUNNING
            leaving.leave()
        await server.wait_until(lambda s: s.connections_open == 0)
    assert server.requests[0].outcome is Outcome.DISCONNECTED
