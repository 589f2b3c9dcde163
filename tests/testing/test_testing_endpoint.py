"""The fixture `chat_endpoint` as a test uses it: what is answered, when, and what is remembered."""

from __future__ import annotations

import os
import socket
from typing import Any, NoReturn

import anyio
import httpx
import pytest
import respx

import chatscope.testing.respx  # noqa: F401 - one mock within the other
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
    """Ask as an application does that knows nothing of the test."""
    async with ChatClient(retry=ONCE) as client:
        asked: dict[str, Any] = {**ASK, "messages": [{"role": "user", "content": prompt}], **parameters}
        completion = await client.complete(**asked)
        assert isinstance(completion, Completion)
        return completion.text


async def ask_for_stream(timeouts: float | Timeouts) -> list[str]:
    """Ask for a stream and read it to its end."""
    async with ChatClient(timeout=timeouts, retry=ONCE) as client, client.stream(**ASK) as stream:
        return [chunk.text async for chunk in stream]


# -- whom it answers ---------------------------------------------------------------------------------------------------


async def test_every_default_transport_and_no_socket(
    chat_endpoint: ChatEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("a socket was about to be opened")

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


async def test_it_is_a_transport_as_well(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add("One.", "Two.", "Three.")
    for _ in range(2):  # a client closes its transport, which stays of use
        async with ChatClient(transport=chat_endpoint) as client:
            await client.complete(**ASK)
    async with httpx.AsyncClient(transport=chat_endpoint) as http_client:
        response = await http_client.post("https://example.com/v1/chat/completions", json=ASK)
    assert response.json()["choices"][0]["message"]["content"] == "Three."
    assert (response.http_version, response.reason_phrase) == ("HTTP/1.1", "OK")


async def test_a_mock_within_the_test_goes_before_it(chat_endpoint: ChatEndpoint) -> None:
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


def test_the_tests_own_key_stays(own_key: None, chat_endpoint: ChatEndpoint) -> None:
    assert os.environ["OPENAI_API_KEY"] == "sk-own"


# -- what is answered --------------------------------------------------------------------------------------------------


async def test_replies_with_all_that_the_simulator_knows(chat_endpoint: ChatEndpoint) -> None:
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


async def test_an_error_with_its_headers(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(error(429, "Slow down.", code="rate_limit_exceeded", retry_after=7))
    with pytest.raises(RateLimitError, match="Slow down") as caught:
        await ask()
    assert (caught.value.retry_after, caught.value.code, caught.value.request_id) == (7, "rate_limit_exceeded", "req_1")


async def test_a_connection_that_is_refused(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(httpx.ConnectError("refused"))
    with pytest.raises(APIConnectionError, match="refused"):
        await ask()


async def test_a_stream_that_breaks_off(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(Reply("one two three", faults=(faults.end(2),)))
    async with AsyncChatGPTAdapter(retry=ONCE) as adapter:
        result = await adapter.execute(Task("hi"))
    assert isinstance(result.exception, StreamTruncatedError)
    assert (result.output, result.exception.partial_text) == ("one two", "one two")


async def test_a_function_answers(chat_endpoint: ChatEndpoint) -> None:
    def answer(request: ChatRequest) -> str | Reply | Exception:
        answers: dict[str, str | Reply | Exception] = {"a": "text", "b": Reply("reply"), "c": httpx.ReadError("broken")}
        return answers[request.prompt]

    chat_endpoint.add(answer, answer, answer)
    assert (await ask("a"), await ask("b")) == ("text", "reply")
    with pytest.raises(APIConnectionError, match="broken"):
        await ask("c")


async def test_a_function_may_raise_what_a_transport_raises(chat_endpoint: ChatEndpoint) -> None:
    def answer(request: ChatRequest) -> NoReturn:
        raise httpx.ConnectTimeout("too late")

    chat_endpoint.add(answer)
    with pytest.raises(APITimeoutError):
        await ask()
    assert chat_endpoint.problems() == []


@pytest.mark.parametrize(
    ("answers", "expectations", "says"),
    [
        ([], {}, "answers must be at least one"),
        (["fine", 5], {}, "answers must be texts, replies, errors or functions, not 5"),
        ([None], {}, "answers must be texts, replies, errors or functions, not None"),
        ([b"bytes"], {}, "answers must be texts"),
        ([["one", "two"]], {}, "answers must be texts"),
        ([KeyboardInterrupt()], {}, "answers must be texts"),
        (["fine"], {"where": 5}, "where must be a function of the request, not 5"),
        (["fine"], {"headers": 5}, "headers must be a mapping, not 5"),
    ],
)
def test_what_can_never_be_right_is_refused_when_it_is_added(
    chat_endpoint: ChatEndpoint, answers: list[Any], expectations: dict[str, Any], says: str
) -> None:
    with pytest.raises(TypeError, match=f"^{says}"):
        chat_endpoint.add(*answers, **expectations)
    assert chat_endpoint.problems() == [], "no step was added"


async def test_a_default_answers_whatever_comes(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.default = lambda request: f"You said {request.prompt}."
    chat_endpoint.add("The first.")
    assert [await ask(prompt) for prompt in ("a", "b", "c")] == ["The first.", "You said b.", "You said c."]


async def test_a_request_that_the_step_is_not_for_goes_to_the_default(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.default = faults.zero_bytes()
    chat_endpoint.add("For the large one.", model="large")
    with pytest.raises(Exception, match="no JSON"):
        await ask(model="small")
    assert await ask(model="large") == "For the large one."


async def test_what_the_api_would_refuse_is_refused_and_takes_no_step(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add("Good.")
    with pytest.raises(BadRequestError, match="temperature") as caught:
        await ask(temperature=3)
    assert caught.value.request_id == "req_1"
    assert await ask(temperature=2) == "Good."


# -- expectations ------------------------------------------------------------------------------------------------------


async def test_expectations_that_are_met(chat_endpoint: ChatEndpoint) -> None:
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


@pytest.mark.parametrize(
    "expected",
    [
        {"model": "other"},
        {"temperature": 0},
        {"messages": []},
        {"seed": None},
        {"headers": {"x-team": "blue"}},
        {"where": lambda request: False},
        {"where": lambda request: request.nothing},
    ],
    ids=lambda expected: next(iter(expected)),
)
async def test_one_that_is_not_met_is_enough(chat_endpoint: ChatEndpoint, expected: dict[str, Any]) -> None:
    chat_endpoint.add("No.", **{"model": "m", **expected})
    with pytest.raises(UnexpectedRequestError, match="It is not for step 1"):
        await ask(seed=7)
    assert len(chat_endpoint.problems()) == 2, "an unexpected request and a step that is left"
    chat_endpoint.reset()


async def test_steps_are_taken_in_order(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add("For b.", where=lambda request: request.prompt == "b")
    chat_endpoint.add("For a.", where=lambda request: request.prompt == "a")
    with pytest.raises(UnexpectedRequestError):
        await ask("a")
    assert (await ask("b"), await ask("a")) == ("For b.", "For a.")
    chat_endpoint.reset()


@pytest.mark.chat_endpoint(ordered=False)
async def test_an_application_that_asks_many_things_at_once(chat_endpoint: ChatEndpoint) -> None:
    prompts = [f"question {number}" for number in range(20)]
    for prompt in reversed(prompts):
        chat_endpoint.add(f"About {prompt}", messages=[{"role": "user", "content": prompt}])
    answers: dict[str, str] = {}

    async def ask_about(prompt: str) -> None:
        answers[prompt] = await ask(prompt)

    async with anyio.create_task_group() as group:
        for prompt in prompts:
            group.start_soon(ask_about, prompt)
    assert answers == {prompt: f"About {prompt}" for prompt in prompts}


async def test_each_request_takes_its_own_step_however_many_come_at_once(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(*(str(number) for number in range(20)))
    answers: list[str] = []

    async def note_answer() -> None:
        answers.append(await ask())

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(note_answer)
    assert sorted(answers, key=int) == [str(number) for number in range(20)]


# -- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.virtual_time
async def test_pauses_and_retries_take_exactly_their_time(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(error(429, retry_after=100), Reply("a b c", first_token=7, between_tokens=2))
    async with AsyncChatGPTAdapter(timeout=60) as adapter:
        began = anyio.current_time()
        stream = adapter.execute_streaming(Task("hi"))
        arrived = [(text, anyio.current_time() - began) async for text in stream]
    assert arrived == [("a", 107), (" b", 109), (" c", 111)]
    assert [request.time - began for request in chat_endpoint.requests] == [0, 100]


@pytest.mark.virtual_time
async def test_time_goes_on_while_nobody_reads(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(Reply("a b c", between_tokens=2))
    async with ChatClient() as client, client.stream(**ASK) as stream:
        began = anyio.current_time()
        await anyio.sleep(3)
        times = [anyio.current_time() - began async for chunk in stream if chunk.text]
    assert times == [3, 3, 4]


@pytest.mark.virtual_time
@pytest.mark.parametrize("at", [Stage.STATUS, Stage.HEADERS, Stage.ROLE, 1])
async def test_silence_ends_at_the_read_timeout(chat_endpoint: ChatEndpoint, at: Stage | int) -> None:
    chat_endpoint.add(Reply("a b c", faults=(faults.stall(at),)))
    with pytest.raises(APITimeoutError):
        await ask_for_stream(20)
    assert anyio.current_time() == 20
    assert chat_endpoint.requests[0].outcome is Outcome.DISCONNECTED


@pytest.mark.virtual_time
async def test_steps_that_run_out_leave_the_connection_open(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(Plan((Send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"), Wait(3))))
    with pytest.raises(APITimeoutError):
        await ask_for_stream(20)
    assert anyio.current_time() == 20


@pytest.mark.virtual_time
async def test_what_never_ends_does_not_end_the_test(chat_endpoint: ChatEndpoint) -> None:
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


# -- what is remembered ------------------------------------------------------------------------------------------------


async def test_requests_are_remembered(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.default = "Good."
    await ask(temperature=0, extra_headers={"x-team": "blue"})
    (request,) = chat_endpoint.requests
    assert request.json == {**ASK, "temperature": 0}
    assert (request.number, request.method, request.headers["x-team"]) == (1, "POST", "blue")
    assert request.request.extensions["timeout"]["read"] == 60
    assert "sk-chatscope-test" not in repr(request)


async def test_how_a_reply_ended_is_remembered(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add("a b c", faults.reset(1), Reply("a b c", faults=(faults.stall(1),)), httpx.ReadError("no"))
    async with AsyncChatGPTAdapter(retry=ONCE) as adapter:
        await adapter.execute(Task("read to its end"))
        await adapter.execute(Task("reset"))
        async with adapter.execute_streaming(Task("left")) as stream:
            assert (await anext(stream), chat_endpoint.open) == ("a", 1)
        await adapter.execute(Task("refused"))
    outcomes = [request.outcome for request in chat_endpoint.requests]
    assert outcomes == [Outcome.COMPLETED, Outcome.CUT, Outcome.DISCONNECTED, Outcome.DISCONNECTED]
    assert (chat_endpoint.open, chat_endpoint.peak) == (0, 1)


async def test_how_many_were_open_at_once(chat_endpoint: ChatEndpoint) -> None:
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


async def test_after_a_reset_it_is_as_new_but_for_its_memory(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.default = "a"
    await ask()
    chat_endpoint.add("b")
    chat_endpoint.reset()
    with pytest.raises(UnexpectedRequestError, match="All steps were used"):
        await ask()
    assert len(chat_endpoint.requests) == 2
    chat_endpoint.reset()
    assert chat_endpoint.problems() == []
