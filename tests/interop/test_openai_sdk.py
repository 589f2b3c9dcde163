"""The official `openai` package drives the simulator: a client that is not ours says whether the server is right."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

from chatscope.simulator import Config, Outcome, Reply, Simulator, Stage, ToolCall, error, faults, simulator

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

# The package leaves its generators half read at `[DONE]`, which only trio complains about.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2?|httpcore2?)[.]:ResourceWarning")

MODEL = "gpt-4o-mini"
KEY = "sk-interop"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


@asynccontextmanager
async def connect(server: Simulator, key: str = KEY, max_retries: int = 0) -> AsyncIterator[AsyncOpenAI]:
    """Run a simulator with a client of it."""
    async with server as base_url, AsyncOpenAI(api_key=key, base_url=base_url, max_retries=max_retries) as client:
        yield client


async def test_plain() -> None:
    server = simulator(Reply("Hello, world."))
    async with connect(server) as client:
        response = await client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, temperature=0)
        completion = response.parse()
    (choice,) = completion.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hello, world.", "stop")
    assert completion.model == MODEL
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert completion.usage.completion_tokens == 4
    assert completion._request_id == response.headers["x-request-id"] == "req_00000001"
    assert int(response.headers["openai-processing-ms"]) == 0
    (received,) = server.requests
    assert received.json == {"model": MODEL, "messages": HELLO, "temperature": 0}
    assert received.headers["authorization"] == f"Bearer {KEY}"


async def test_streaming_with_usage() -> None:
    async with connect(simulator(Reply("Hello, wörld.", first_token=0.01, between_tokens=0.001))) as client:
        options: Any = {"include_usage": True}
        stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, stream_options=options)
        chunks = [chunk async for chunk in stream]
    *parts, usage = chunks
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == "Hello, wörld."
    assert parts[0].choices[0].delta.role == "assistant"
    assert [part.choices[0].finish_reason for part in parts] == [None] * 5 + ["stop"]
    assert usage.choices == []
    assert usage.usage is not None
    assert (usage.usage.completion_tokens, usage.usage.total_tokens) == (4, usage.usage.prompt_tokens + 4)


async def test_the_stream_helper_accumulates_what_the_plain_response_says() -> None:
    reply = Reply(reasoning="Hm, well.", tokens=30)
    async with connect(simulator(reply)) as client:
        plain = await client.chat.completions.create(model=MODEL, messages=HELLO, logprobs=True, top_logprobs=2)
        async with client.chat.completions.stream(
            model=MODEL, messages=HELLO, logprobs=True, top_logprobs=2, stream_options={"include_usage": True}
        ) as stream:
            async for _ in stream:
                pass
            streamed = await stream.get_final_completion()
    assert streamed.choices[0].message.content == plain.choices[0].message.content
    assert streamed.choices[0].finish_reason == plain.choices[0].finish_reason
    assert streamed.usage == plain.usage
    assert streamed.choices[0].logprobs is not None
    assert plain.choices[0].logprobs is not None
    assert streamed.choices[0].logprobs.content == plain.choices[0].logprobs.content


@pytest.mark.one_loop
@pytest.mark.parametrize("streamed", [False, True])
async def test_several_choices(streamed: bool) -> None:
    async with connect(simulator()) as client:
        plain = await client.chat.completions.create(model=MODEL, messages=HELLO, n=2)
        texts = [choice.message.content for choice in plain.choices]
        if streamed:
            texts = ["", ""]
            stream = await client.chat.completions.create(model=MODEL, messages=HELLO, n=2, stream=True)
            async for chunk in stream:
                for choice in chunk.choices:
                    texts[choice.index] = (texts[choice.index] or "") + (choice.delta.content or "")
    assert texts[0] is not None
    assert texts[1] == f"{texts[0]} This is choice 2."


async def test_limits_and_stops() -> None:
    async with connect(simulator(Reply("one two three four"))) as client:
        short = await client.chat.completions.create(model=MODEL, messages=HELLO, max_completion_tokens=2)
        stopped = await client.chat.completions.create(model=MODEL, messages=HELLO, stop=[" three"])
    assert (short.choices[0].message.content, short.choices[0].finish_reason) == ("one two", "length")
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("one two", "stop")


@pytest.mark.one_loop
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_round_of_tools(streamed: bool) -> None:
    async with connect(simulator()) as client:
        messages: list[Any] = [*HELLO]
        if streamed:
            async with client.chat.completions.stream(
                model=MODEL, messages=messages, tools=[WEATHER], tool_choice="required"
            ) as stream:
                fragments = [
                    event.arguments_delta
                    async for event in stream
                    if event.type == "tool_calls.function.arguments.delta"
                ]
                message: Any = (await stream.get_final_completion()).choices[0].message
            assert len(fragments) > 1
        else:
            completion = await client.chat.completions.create(
                model=MODEL, messages=messages, tools=[WEATHER], tool_choice="required"
            )
            assert completion.choices[0].finish_reason == "tool_calls"
            message = completion.choices[0].message
        (call,) = message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "", "days": 1})
        messages += [
            {"role": "assistant", "tool_calls": [call.model_dump(exclude={"function": {"parsed_arguments"}})]},
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ]
        response = await client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    assert (response.choices[0].message.content or "").startswith("The tools said: “sunny”.")


async def test_scripted_calls_of_several_tools() -> None:
    calls = (ToolCall("weather", {"city": "Oslo", "days": 2}), ToolCall("weather", {"city": "Rome", "days": 3}))
    async with connect(simulator(Reply("Let me see.", tool_calls=calls))) as client:
        async with client.chat.completions.stream(model=MODEL, messages=HELLO, tools=[WEATHER]) as stream:
            final = await stream.get_final_completion()
        plain = await client.chat.completions.create(model=MODEL, messages=HELLO, tools=[WEATHER])
    for message in (final.choices[0].message, plain.choices[0].message):
        assert message.content == "Let me see."
        made = [call.function for call in message.tool_calls or () if call.type == "function"]
        assert [json.loads(function.arguments) for function in made] == [call.arguments for call in calls]


class Day(BaseModel):
    date: str
    degrees: float


class Forecast(BaseModel):
    city: str
    days: list[Day] = Field(min_length=1)
    warning: str | None


@pytest.mark.one_loop
@pytest.mark.parametrize("streamed", [False, True])
async def test_structured_output(streamed: bool) -> None:
    async with connect(simulator()) as client:
        if streamed:
            async with client.chat.completions.stream(model=MODEL, messages=HELLO, response_format=Forecast) as stream:
                parsed = (await stream.get_final_completion()).choices[0].message.parsed
        else:
            completion = await client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Forecast)
            parsed = completion.choices[0].message.parsed
    assert parsed == Forecast(city="", days=[Day(date="", degrees=0)], warning="")


async def test_a_refusal() -> None:
    async with connect(simulator(Reply(refusal="I will not."))) as client:
        completion = await client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Forecast)
    assert (completion.choices[0].message.refusal, completion.choices[0].message.parsed) == ("I will not.", None)


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("parameters", "error_class", "code", "param"),
    [
        ({"messages": "hi"}, openai.BadRequestError, "invalid_type", "messages"),
        ({"temperature": 9}, openai.BadRequestError, "invalid_value", "temperature"),
        ({"model": "o3", "max_tokens": 5}, openai.BadRequestError, "unsupported_parameter", "max_tokens"),
        ({"model": "gpt-none"}, openai.NotFoundError, "model_not_found", None),
    ],
)
async def test_refused_requests(
    parameters: dict[str, Any], error_class: type[openai.APIStatusError], code: str, param: str | None
) -> None:
    async with connect(simulator(config=Config(models=(MODEL, "o3")))) as client:
        with pytest.raises(error_class) as caught:
            await client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **parameters})
    assert (caught.value.code, caught.value.param, caught.value.type) == (code, param, "invalid_request_error")
    assert caught.value.request_id == "req_00000001"


async def test_a_wrong_key() -> None:
    async with connect(simulator(config=Config(api_keys=frozenset({KEY}))), key="sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.models.list()
    assert caught.value.code == "invalid_api_key"


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (403, openai.PermissionDeniedError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_scripted_errors(status: int, error_class: type[openai.APIStatusError], stream: bool) -> None:
    async with connect(simulator(error(status, "No.", code="some_code", retry_after=2))) as client:
        with pytest.raises(error_class) as caught:
            await client.chat.completions.create(model=MODEL, messages=HELLO, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (status, "some_code")
    assert (caught.value.response.headers["retry-after"], caught.value.body["message"]) == ("2", "No.")  # type: ignore[index]  # a dict


async def test_its_own_retries() -> None:
    server = simulator([error(503, retry_after=0.01), error(429, retry_after=0.01), Reply("At last.")])
    async with connect(server, max_retries=2) as client:
        completion = await client.chat.completions.create(model=MODEL, messages=HELLO)
    assert completion.choices[0].message.content == "At last."
    assert [received.headers["x-stainless-retry-count"] for received in server.requests] == ["0", "1", "2"]


async def test_rate_limits() -> None:
    async with connect(simulator(Reply("Hi"), Config(requests_per_minute=1, tokens_per_minute=1000))) as client:
        first = await client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model=MODEL, messages=HELLO)
    assert {name: first.headers[f"x-ratelimit-{name}-requests"] for name in ("limit", "remaining", "reset")} == {
        "limit": "1",
        "remaining": "0",
        "reset": "1m0s",
    }
    assert first.headers["x-ratelimit-remaining-tokens"] == "991"
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "requests")
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 60


async def test_leaving_in_mid_stream_is_noticed() -> None:
    server = simulator(Reply("one two three", faults=(faults.stall(2),)))
    async with connect(server) as client:
        seen: list[str | None] = []
        async with await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True) as stream:
            async for chunk in stream:
                seen.append(chunk.choices[0].delta.content)
                if len(seen) == 3:
                    break
        await server.wait_until(lambda s: s.requests[0].outcome is Outcome.DISCONNECTED)
    assert seen == ["", "one", " two"]


async def test_an_error_in_mid_stream() -> None:
    server = simulator(faults.stream_error(2, message="Overloaded.", code="overloaded"))
    async with connect(server) as client:
        stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        with pytest.raises(openai.APIError, match=r"Overloaded\.") as caught:
            async for _ in stream:
                pass
    assert caught.value.code == "overloaded"


@pytest.mark.parametrize("at", [Stage.STATUS, Stage.ROLE, 1])
async def test_broken_connections(at: Stage | int) -> None:
    async with connect(simulator(faults.reset(at))) as client:
        with pytest.raises(openai.APIConnectionError):
            async for _ in await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True):
                pass


async def test_models() -> None:
    async with connect(simulator(config=Config(models=("small", "large")))) as client:
        models = [model.id async for model in client.models.list()]
    assert models == ["small", "large"]
