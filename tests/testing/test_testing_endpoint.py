"""The fixture `chat_endpoint` in use: its responses, their times, and what it records."""

from __future__ import annotations

import os
import socket
from typing import Any, NoReturn

import anyio
import httpx
import pytest
import respx

import chatscope.testing.respx  # noqa: F401 - a mock inside the endpoint
from chatscope import (
    APIConnectionError,
    APITimeoutError,
    AsyncChatGPTAdapter,
    BadRequestError,
    ChatClient,
    Completion,
    RateLimitError,
    RetryPolicy,
    StreamTruncatedError,
    Task,
    Timeouts,
)
from chatscope.simulator import ChatRequest, Outcome, Plan, Reply, Send, Stage, ToolCall, Wait, error, faults
from chatscope.testing import ChatEndpoint, UnexpectedRequestError

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ONCE = RetryPolicy(attempts=1)


async def ask(prompt: str = "hi", **parameters: Any) -> str:
    """Send a request as an application does, without knowing about the test."""
    async with ChatClient(retry=ONCE) as client:
        request: dict[str, Any] = {**ASK, "messages": [{"role": "user", "content": prompt}], **parameters}
        completion = await client.complete(**request)
        assert isinstance(completion, Completion)
        return completion.text


async def ask_for_stream(timeouts: float | Timeouts) -> list[str]:
    """Request a stream and read it to its end."""
    async with ChatClient(timeout=timeouts, retry=ONCE) as client, client.stream(**ASK) as stream:
        return [chunk.text async for chunk in stream]


# -- clients -----------------------------------------------------------------------------------------------------------


async def test_every_default_transport_and_no_socket(
    chat_endpoint: ChatEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:8080")
    chat_endpoint.add("One.", "Two.", "Three.")
    async with ChatClient() as client, AsyncChatGPTAdapter(base_url="http://localhost:1/v1") as adapter:
        assert (await client.complete(**ASK)).text == "One."
        assert [text async for text in adapter.execute_streaming(Task("hi"))] == ["Two", "."]
        async with client.stream(**ASK) as stream:
            assert [chunk.text async for chunk in stream if chunk.text] == ["Three", "."]
    first, second, _ = chat_endpoint.requests
    assert (first.url.host, second.url.host, first.path) == ("api.openai.com", "localhost", "/v1/chat/completions")


async def test_it_is_also_a_transport(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add("One.", "Two.", "Three.")
    for _ in range(2):  # the client closes its transport, which stays usable
        async with ChatClient(transport=chat_endpoint) as client:
            await client.complete(**ASK)
    async with httpx.AsyncClient(transport=chat_endpoint) as http_client:
        response = await http_client.post("https://example.com/v1/chat/completions", json=ASK)
    assert response.json()["choices"][0]["message"]["content"] == "Three."
    assert (response.http_version, response.reason_phrase) == ("HTTP/1.1", "OK")


async def test_a_respx_mock_in_the_test_has_precedence(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add("By the endpoint.")
    with respx.mock() as router:
        router.post(url__regex=".*").respond(418, json={"error": {"message": "By respx."}})
        with pytest.raises(Exception, match="By respx"):
            await ask()
    assert await ask() == "By the endpoint."


def test_there_is_a_key(chat_endpoint: ChatEndpoint) -> None:
    assert os.environ["OPENAI_API_KEY"] == "sk-chatscope-test"


@pytest.fixture
def own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own")


def test_a_key_of_the_test_stays(own_key: None, chat_endpoint: ChatEndpoint) -> None:
    assert os.environ["OPENAI_API_KEY"] == "sk-own"


# -- responses ---------------------------------------------------------------------------------------------------------


async def test_every_feature_of_a_reply(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(Reply("Once upon a time", reasoning="A tale.", cached_tokens=2))
    chat_endpoint.add(Reply(tool_calls=(ToolCall("look_up", {"city": "Paris"}),)))
    async with ChatClient() as client:
        async with client.stream(**ASK) as stream:
            assert [chunk.text async for chunk in stream if chunk.text] == ["Once", " upon", " a", " time"]
        usage = stream.completion.usage
        assert usage is not None
        assert (usage.completion_tokens, usage.reasoning_tokens, usage.cached_tokens) == (7, 3, 2)
        completion = await client.complete(**ASK)
    assert completion.message.tool_calls is not None
    (call,) = completion.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("look_up", '{"city": "Paris"}')


async def test_errors_of_the_server_and_of_the_connection(chat_endpoint: ChatEndpoint) -> None:
    slow_down = error(429, "Slow down.", code="rate_limit_exceeded", retry_after=7)
    chat_endpoint.add(slow_down, httpx.ConnectError("refused"), Reply("one two three", faults=(faults.end(2),)))
    with pytest.raises(RateLimitError, match="Slow down") as caught:
        await ask()
    assert (caught.value.retry_after, caught.value.code, caught.value.request_id) == (7, "rate_limit_exceeded", "req_1")
    with pytest.raises(APIConnectionError, match="refused"):
        await ask()
    async with AsyncChatGPTAdapter(retry=ONCE) as adapter:
        result = await adapter.execute(Task("hi"))
    assert isinstance(result.exception, StreamTruncatedError)
    assert (result.output, result.exception.partial_text) == ("one two", "one two")


async def test_a_function_of_the_request(chat_endpoint: ChatEndpoint) -> None:
    def respond(request: ChatRequest) -> str | Reply | Exception:
        responses: dict[str, str | Reply | Exception] = {
            "text": "text",
            "reply": Reply("reply"),
            "returned": httpx.ReadError("broken"),
        }
        if request.prompt == "raised":
            raise httpx.ConnectTimeout("too late")
        return responses[request.prompt]

    chat_endpoint.add(*[respond] * 4)
    assert (await ask("text"), await ask("reply")) == ("text", "reply")
    with pytest.raises(APIConnectionError, match="broken"):
        await ask("returned")
    with pytest.raises(APITimeoutError):
        await ask("raised")
    assert chat_endpoint.problems() == []


WRONG_TYPES: list[tuple[list[Any], dict[str, Any], str]] = [
    ([], {}, "responses must have at least one item"),
    (["fine", 5], {}, "responses must be texts, replies, errors or functions, not 5"),
    ([None], {}, "responses must be texts, replies, errors or functions, not None"),
    ([b"bytes"], {}, "responses must be texts"),
    ([["one", "two"]], {}, "responses must be texts"),
    ([KeyboardInterrupt()], {}, "responses must be texts"),
    (["fine"], {"where": 5}, "where must be a function of the request, not 5"),
    (["fine"], {"headers": 5}, "headers must be a mapping, not 5"),
]


def test_wrong_types_are_refused_when_they_are_added(chat_endpoint: ChatEndpoint) -> None:
    for responses, expectations, message in WRONG_TYPES:
        with pytest.raises(TypeError, match=f"^{message}"):
            chat_endpoint.add(*responses, **expectations)
    assert chat_endpoint.problems() == [], "a step was added"


async def test_the_default_serves_requests_that_match_no_step(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.default = lambda request: f"You said {request.prompt}."
    chat_endpoint.add("For the large one.", model="large")
    assert await ask("a", model="small") == "You said a."
    assert await ask("b", model="large") == "For the large one."
    assert await ask("c", model="large") == "You said c."
    chat_endpoint.default = faults.zero_bytes()
    with pytest.raises(Exception, match="JSON"):
        await ask()


async def test_what_the_api_would_refuse_gets_a_400_and_uses_no_step(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add("Good.")
    with pytest.raises(BadRequestError, match="temperature") as caught:
        await ask(temperature=3)
    assert caught.value.request_id == "req_1"
    assert await ask(temperature=2) == "Good."


# -- expectations ------------------------------------------------------------------------------------------------------


async def test_expectations_that_match(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(
        "Yes.",
        model="m",
        messages=[{"role": "user", "content": "hi"}],
        temperature=0,
        max_tokens=None,
        headers={"X-Team": "blue"},
        where=lambda request: request.prompt == "hi",
    )
    assert await ask(temperature=0.0, extra_headers={"x-team": "blue"}) == "Yes."


async def test_one_expectation_that_does_not_match_is_enough(chat_endpoint: ChatEndpoint) -> None:
    mismatches: list[dict[str, Any]] = [
        {"model": "other"},
        {"temperature": 0},
        {"messages": []},
        {"seed": None},
        {"headers": {"x-team": "blue"}},
        {"where": lambda request: False},
        {"where": lambda request: request.nothing},
    ]
    for step, expected in enumerate(mismatches, start=1):
        chat_endpoint.add("No.", **{"model": "m", **expected})
        with pytest.raises(UnexpectedRequestError, match=f"It does not match step {step}"):
            await ask(seed=7)
        assert len(chat_endpoint.problems()) == 2, "the unexpected request, and the unused step"
        chat_endpoint.reset()


async def test_steps_are_used_in_order(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add("For b.", where=lambda request: request.prompt == "b")
    chat_endpoint.add("For a.", where=lambda request: request.prompt == "a")
    with pytest.raises(UnexpectedRequestError):
        await ask("a")
    assert (await ask("b"), await ask("a")) == ("For b.", "For a.")
    chat_endpoint.reset()


@pytest.mark.chat_endpoint(ordered=False)
async def test_unordered_steps_for_concurrent_requests(chat_endpoint: ChatEndpoint) -> None:
    prompts = [f"question {number}" for number in range(20)]
    for prompt in reversed(prompts):
        chat_endpoint.add(f"About {prompt}", messages=[{"role": "user", "content": prompt}])
    texts: dict[str, str] = {}

    async def ask_about(prompt: str) -> None:
        texts[prompt] = await ask(prompt)

    async with anyio.create_task_group() as group:
        for prompt in prompts:
            group.start_soon(ask_about, prompt)
    assert texts == {prompt: f"About {prompt}" for prompt in prompts}


async def test_concurrent_requests_use_one_step_each(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(*(str(number) for number in range(20)))
    texts: list[str] = []

    async def record_text() -> None:
        texts.append(await ask())

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(record_text)
    assert sorted(texts, key=int) == [str(number) for number in range(20)]


# -- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.virtual_time
async def test_waits_and_retries_take_exactly_their_time(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(error(429, retry_after=100), Reply("a b c", first_token=7, between_tokens=2))
    async with AsyncChatGPTAdapter(timeout=60) as adapter:
        start = anyio.current_time()
        stream = adapter.execute_streaming(Task("hi"))
        received = [(text, anyio.current_time() - start) async for text in stream]
    assert received == [("a", 107), (" b", 109), (" c", 111)]
    assert [request.time - start for request in chat_endpoint.requests] == [0, 100]


@pytest.mark.virtual_time
async def test_time_passes_while_nobody_reads(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(Reply("a b c", between_tokens=2))
    async with ChatClient() as client, client.stream(**ASK) as stream:
        start = anyio.current_time()
        await anyio.sleep(3)
        times = [anyio.current_time() - start async for chunk in stream if chunk.text]
    assert times == [3, 3, 4]


@pytest.mark.virtual_time
async def test_silence_ends_at_the_read_timeout(chat_endpoint: ChatEndpoint) -> None:
    stages = (Stage.STATUS, Stage.HEADERS, Stage.ROLE, 1)
    plan = Plan((Send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"), Wait(3)))  # and leaves the connection open
    chat_endpoint.add(plan, *(Reply("a b c", faults=(faults.stall(at),)) for at in stages))
    for number in range(1, 6):
        with pytest.raises(APITimeoutError):
            await ask_for_stream(20)
        assert anyio.current_time() == 20 * number
    assert {request.outcome for request in chat_endpoint.requests[1:]} == {Outcome.DISCONNECTED}


@pytest.mark.virtual_time
async def test_an_endless_response_ends_at_the_deadline(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(Reply("a b c", faults=(faults.endless(seconds=5),)))
    with pytest.raises(APITimeoutError, match="total"):
        await ask_for_stream(Timeouts(total=50))
    assert anyio.current_time() == 50


@pytest.mark.virtual_time
async def test_waiting_for_a_request_lets_time_pass(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(error(503, retry_after=30), "Good.")
    async with AsyncChatGPTAdapter() as adapter:
        adapter.start_task(Task("hi"))
        await chat_endpoint.wait_for_requests(2)
        assert anyio.current_time() == 30


@pytest.mark.virtual_time
async def test_after_an_event_the_waits_are_counted_from_it(chat_endpoint: ChatEndpoint) -> None:
    event = anyio.Event()
    chat_endpoint.add(Reply("a b c", between_tokens=2, faults=(faults.hold(2, event),)))
    async with ChatClient() as client, client.stream(**ASK) as stream, anyio.create_task_group() as group:
        start = anyio.current_time()

        async def set_late() -> None:
            await anyio.sleep(10)
            event.set()

        group.start_soon(set_late)
        times = [anyio.current_time() - start async for chunk in stream if chunk.text]
        assert times == [0, 2, 12]


async def test_an_event_instead_of_a_time(chat_endpoint: ChatEndpoint) -> None:
    event = anyio.Event()
    chat_endpoint.add(Reply("a b", faults=(faults.hold(1, event),)))
    async with ChatClient() as client, client.stream(**ASK) as stream:
        texts = []
        async for chunk in stream:
            texts += [chunk.text] if chunk.text else []
            if texts:
                event.set()
    assert texts == ["a", " b"]


# -- what it records ---------------------------------------------------------------------------------------------------


async def test_requests_are_recorded(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.default = "Good."
    await ask(temperature=0, extra_headers={"x-team": "blue"})
    (request,) = chat_endpoint.requests
    assert request.json == {**ASK, "temperature": 0}
    assert (request.number, request.method, request.headers["x-team"]) == (1, "POST", "blue")
    assert request.request.extensions["timeout"]["read"] == 60
    assert "sk-chatscope-test" not in repr(request)


async def test_outcomes_are_recorded(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add("a b c", faults.reset(1), Reply("a b c", faults=(faults.stall(1),)), httpx.ReadError("no"))
    async with AsyncChatGPTAdapter(retry=ONCE) as adapter:
        await adapter.execute(Task("read to its end"))
        await adapter.execute(Task("reset"))
        async with adapter.execute_streaming(Task("closed early")) as stream:
            assert (await anext(stream), chat_endpoint.open) == ("a", 1)
        await adapter.execute(Task("refused"))
    outcomes = [request.outcome for request in chat_endpoint.requests]
    assert outcomes == [Outcome.COMPLETED, Outcome.CUT, Outcome.DISCONNECTED, Outcome.DISCONNECTED]
    assert (chat_endpoint.open, chat_endpoint.peak) == (0, 1)


async def test_open_and_peak_count_responses(chat_endpoint: ChatEndpoint) -> None:
    event = anyio.Event()
    chat_endpoint.default = faults.hold(Stage.STATUS, event)
    async with AsyncChatGPTAdapter(max_concurrency=3) as adapter:
        tasks = [adapter.start_task(Task("hi")) for _ in range(9)]
        await chat_endpoint.wait_for_requests(3)
        assert (chat_endpoint.open, len(chat_endpoint.requests)) == (3, 3)
        event.set()
        for task in tasks:
            await task.wait()
    assert (chat_endpoint.open, chat_endpoint.peak, len(chat_endpoint.requests)) == (0, 3, 9)


async def test_a_cancelled_request_leaves_nothing_open(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.default = faults.stall(Stage.STATUS)
    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await chat_endpoint.wait_for_requests(1)
        group.cancel_scope.cancel()
    assert (chat_endpoint.open, chat_endpoint.requests[0].outcome) == (0, Outcome.DISCONNECTED)


async def test_a_reset_keeps_only_the_requests(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.default = "a"
    await ask()
    chat_endpoint.add("b")
    chat_endpoint.reset()
    with pytest.raises(UnexpectedRequestError, match="All steps were used"):
        await ask()
    assert len(chat_endpoint.requests) == 2
    chat_endpoint.reset()
    assert chat_endpoint.problems() == []
