"""Never run: tests that users write with the test kit, for mypy and pyright to accept."""

from __future__ import annotations

from typing import Any, assert_type

import httpx
import pytest

from chatscope import AsyncChatGPTAdapter, ChatClient
from chatscope.simulator import ChatRequest, Config, Outcome, Received, Reply, Response, Script, Stage, error, faults
from chatscope.testing import LOOPS, ChatEndpoint, ChatSimulator, ReceivedRequest, Scripted, UnexpectedRequestError


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def refuse(request: ChatRequest) -> Response:
    return error(400, f"not {request.prompt}")


def say(request: ChatRequest) -> str:
    return request.prompt


async def scripted(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add("Hello.", model="gpt-4o-mini", temperature=0, max_tokens=None)
    chat_endpoint.add(error(429, retry_after=1), faults.reset(Stage.STATUS), Reply("Hello."), refuse, say)
    chat_endpoint.add(
        httpx.ConnectError("refused"),
        messages=[{"role": "user", "content": "hi"}],
        headers={"x-team": "blue"},
        where=lambda request: "cats" in request.prompt,
    )
    chat_endpoint.default = "anything"
    chat_endpoint.default = None
    answer: Scripted = say
    chat_endpoint.default = answer
    assert_type(chat_endpoint.requests, list[ReceivedRequest])
    request = chat_endpoint.requests[0]
    received: Received = request
    assert_type(received.outcome, Outcome)
    assert_type(request.url, httpx.URL)
    assert_type(request.request, httpx.Request)
    assert_type(request.number, int)
    assert_type(chat_endpoint.open, int)
    assert_type(chat_endpoint.peak, int)
    assert_type(chat_endpoint.problems(), list[str])
    assert_type(chat_endpoint.unexpected, list[Exception])
    await chat_endpoint.wait_for_requests(2)
    chat_endpoint.reset()
    ChatClient(transport=chat_endpoint)
    AsyncChatGPTAdapter(transport=chat_endpoint)
    httpx.AsyncClient(transport=chat_endpoint)
    with pytest.raises(UnexpectedRequestError):
        await chat_endpoint.handle_async_request(httpx.Request("POST", "https://example.com"))
    chat_endpoint.add(429)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat_endpoint.add("a", where="cats")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat_endpoint.add("a", headers=["x-team"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def on_ones_own() -> None:
    assert_type(ChatEndpoint(ordered=False, allow_unexpected=True, allow_unused=True), ChatEndpoint)
    ChatEndpoint("Hello.")  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]


async def simulated(chat_simulator: ChatSimulator) -> None:
    chat_simulator.script = [error(503), Reply("Hello.")]
    chat_simulator.script = refuse
    chat_simulator.config = Config(models=("gpt-4o-mini",))
    assert_type(chat_simulator.base_url, str)
    assert_type(chat_simulator.requests, list[Received])
    assert_type(chat_simulator.config, Config)
    script: Script = chat_simulator.script
    chat_simulator.script = script
    await chat_simulator.wait_until(lambda server: server.connections_open == 0)
    chat_simulator.base_url.upper()
    chat_simulator.script = "Hello."  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
