"""Twelve programs for the official `openai` package and their ports: equal on the wire, with equal results.

Each pair is one task, written twice as its users would write it. Each runs against a simulator of its own with the same
script. What may differ, because no server sees it: null and empty fields of messages that are sent back, titles in
schemas, and the order in which concurrent requests arrive.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import anyio
import httpx
import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI
from pydantic import BaseModel

from chatscope import APITimeoutError, AsyncChatGPTAdapter, ChatClient, RateLimitError, Task, content
from chatscope.simulator import Config, Received, Reply, Script, Simulator, ToolCall, error, simulator

# The package leaves its generators half read at `[DONE]`, which only trio complains about.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2?|httpcore2?)[.]:ResourceWarning")

KEY = "sk-migration"
MODEL = "gpt-4o-mini"
HELLO: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello"}]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


class City(BaseModel):
    """A city."""

    name: str
    people: int
    mayor: str | None


# -- 1 create ----------------------------------------------------------------------------------------------------------


async def their_create(url: str) -> object:
    async with AsyncOpenAI(api_key=KEY, base_url=url) as client:
        completion = await client.chat.completions.create(model=MODEL, messages=HELLO, temperature=0.2, max_tokens=50)
        assert completion.usage is not None
        choice = completion.choices[0]
        return choice.message.content, choice.finish_reason, completion.usage.total_tokens


async def our_create(url: str) -> object:
    async with ChatClient(KEY, base_url=url) as client:
        completion = await client.complete(model=MODEL, messages=HELLO, temperature=0.2, max_tokens=50)
        assert completion.usage is not None
        return completion.text, completion.finish_reason, completion.usage.total_tokens


# -- 2 stream ----------------------------------------------------------------------------------------------------------


async def their_stream(url: str) -> object:
    texts = []
    usage: Any = None
    async with AsyncOpenAI(api_key=KEY, base_url=url) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                texts.append(chunk.choices[0].delta.content)
            usage = chunk.usage or usage
    return texts, usage.completion_tokens


async def our_stream(url: str) -> object:
    async with ChatClient(KEY, base_url=url) as client, client.stream(model=MODEL, messages=HELLO) as stream:
        texts = [chunk.text async for chunk in stream if chunk.text]
    assert stream.completion.usage is not None
    return texts, stream.completion.usage.completion_tokens


# -- 3 tools -----------------------------------------------------------------------------------------------------------


async def weather(city: str, days: int) -> dict[str, Any]:
    """Return the weather of the next days.

    Args:
        city: the city's name.
        days: how many days.
    """
    return {"city": city, "days": days, "sky": "clear"}


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Return the weather of the next days.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "the city's name."},
                "days": {"type": "integer", "description": "how many days."},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


async def their_tools(url: str) -> object:
    messages: list[Any] = [{"role": "user", "content": "The weather in Oslo and in Rome?"}]
    async with AsyncOpenAI(api_key=KEY, base_url=url) as client:
        while True:
            completion = await client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
            message: Any = completion.choices[0].message
            if not message.tool_calls:
                return message.content
            messages.append(message)
            for call in message.tool_calls:
                result = await weather(**json.loads(call.function.arguments))
                said = json.dumps(result, separators=(",", ":"))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": said})


async def our_tools(url: str) -> object:
    messages: Any = [{"role": "user", "content": "The weather in Oslo and in Rome?"}]
    async with ChatClient(KEY, base_url=url) as client:
        return (await client.run_tools(model=MODEL, messages=messages, tools=[weather])).text


# -- 4 parse -----------------------------------------------------------------------------------------------------------


async def their_parse(url: str) -> object:
    async with AsyncOpenAI(api_key=KEY, base_url=url) as client:
        completion = await client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=City)
        return completion.choices[0].message.parsed


async def our_parse(url: str) -> object:
    async with ChatClient(KEY, base_url=url) as client:
        return (await client.complete(model=MODEL, messages=HELLO, response_format=City)).parsed


# -- 5 vision ----------------------------------------------------------------------------------------------------------


async def their_vision(url: str) -> object:
    encoded = base64.b64encode(PNG).decode()
    parts: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}", "detail": "low"}},
    ]
    async with AsyncOpenAI(api_key=KEY, base_url=url) as client:
        completion = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
        return completion.choices[0].message.content


async def our_vision(url: str) -> object:
    parts = [content.text("What is this?"), content.image(PNG, detail="low")]
    async with ChatClient(KEY, base_url=url) as client:
        return (await client.complete(model=MODEL, messages=[{"role": "user", "content": parts}])).text


# -- 6 Azure -----------------------------------------------------------------------------------------------------------


async def their_azure(url: str) -> object:
    endpoint = url.removesuffix("/v1")
    async with AsyncAzureOpenAI(api_key=KEY, azure_endpoint=endpoint, api_version="2024-10-21") as client:
        completion = await client.chat.completions.create(model="my-deployment", messages=HELLO)
        return completion.choices[0].message.content


async def our_azure(url: str) -> object:
    # The profile is found by the host of a real resource, and its dated version is the default.
    async with ChatClient(KEY, base_url=url.removesuffix("/v1"), profile="azure") as client:
        return (await client.complete(model="my-deployment", messages=HELLO)).text


# -- 7 Ollama ----------------------------------------------------------------------------------------------------------


async def their_ollama(url: str) -> object:
    async with AsyncOpenAI(api_key="ollama", base_url=url) as client:
        completion = await client.chat.completions.create(
            model="llama3.2", messages=HELLO, max_tokens=50, seed=7, response_format={"type": "json_object"}
        )
        return json.loads(completion.choices[0].message.content or "")


async def our_ollama(url: str) -> object:
    async with ChatClient("ollama", base_url=url, profile="ollama") as client:
        completion = await client.complete(
            model="llama3.2", messages=HELLO, max_completion_tokens=50, seed=7, response_format={"type": "json_object"}
        )
        return json.loads(completion.text)


# -- 8 vLLM ------------------------------------------------------------------------------------------------------------

VLLM: Any = {"top_k": 20, "structured_outputs": {"choice": ["yes", "no"]}, "chat_template_kwargs": {"thinking": False}}


async def their_vllm(url: str) -> object:
    async with AsyncOpenAI(api_key="EMPTY", base_url=url) as client:
        completion = await client.chat.completions.create(model="qwen", messages=HELLO, extra_body=VLLM)
        return completion.choices[0].message.content


async def our_vllm(url: str) -> object:
    async with ChatClient("EMPTY", base_url=url) as client:
        return (await client.complete(model="qwen", messages=HELLO, extra_body=VLLM)).text


# -- 9 timeouts --------------------------------------------------------------------------------------------------------


async def their_timeouts(url: str) -> object:
    async with AsyncOpenAI(api_key=KEY, base_url=url, timeout=openai.Timeout(20, connect=5), max_retries=1) as client:
        first = await client.chat.completions.create(model=MODEL, messages=HELLO)
        try:
            await client.with_options(timeout=0.2, max_retries=0).chat.completions.create(model=MODEL, messages=HELLO)
        except openai.APITimeoutError:
            return first.choices[0].message.content, "timed out"
        return "no timeout"


async def our_timeouts(url: str) -> object:
    async with ChatClient(KEY, base_url=url, timeout=httpx.Timeout(20, connect=5), retry=2) as client:
        first = await client.complete(model=MODEL, messages=HELLO)
        try:
            await client.with_options(timeout=0.2, retry=1).complete(model=MODEL, messages=HELLO)
        except APITimeoutError:
            return first.text, "timed out"
        return "no timeout"


# -- 10 retries --------------------------------------------------------------------------------------------------------


async def their_retries(url: str) -> object:
    async with AsyncOpenAI(api_key=KEY, base_url=url, max_retries=2) as client:
        completion = await client.chat.completions.create(model=MODEL, messages=HELLO)
        try:
            await client.with_options(max_retries=0).chat.completions.create(model=MODEL, messages=HELLO)
        except openai.RateLimitError as error:
            return completion.choices[0].message.content, error.status_code, error.code
        return "no error"


async def our_retries(url: str) -> object:
    async with ChatClient(KEY, base_url=url, retry=3) as client:
        completion = await client.complete(model=MODEL, messages=HELLO)
        try:
            await client.complete(model=MODEL, messages=HELLO, retry=1)
        except RateLimitError as error:
            return completion.text, error.status_code, error.code
        return "no error"


# -- 11 raw response ---------------------------------------------------------------------------------------------------


async def their_raw_response(url: str) -> object:
    async with AsyncOpenAI(api_key=KEY, base_url=url, organization="org", default_headers={"x-team": "blue"}) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model=MODEL, messages=HELLO, extra_headers={"x-trace": "1"}, extra_query={"tag": "a b"}
        )
        return raw.status_code, raw.headers["x-request-id"], raw.parse().choices[0].message.content


async def our_raw_response(url: str) -> object:
    async with ChatClient(KEY, base_url=url, organization="org", default_headers={"x-team": "blue"}) as client:
        completion = await client.complete(
            model=MODEL, messages=HELLO, extra_headers={"x-trace": "1"}, extra_query={"tag": "a b"}
        )
        return completion.status, completion.headers["x-request-id"], completion.text


# -- 12 a batch of 100 -------------------------------------------------------------------------------------------------

PROMPTS = [f"What is {number} squared?" for number in range(100)]


async def their_batch(url: str) -> object:
    answers: dict[str, str | None] = {}
    limiter = anyio.Semaphore(10)
    async with AsyncOpenAI(api_key=KEY, base_url=url) as client:

        async def ask(prompt: str) -> None:
            async with limiter:
                completion = await client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": prompt}]
                )
                answers[prompt] = completion.choices[0].message.content

        async with anyio.create_task_group() as group:
            for prompt in PROMPTS:
                group.start_soon(ask, prompt)
    return [answers[prompt] for prompt in PROMPTS]


async def our_batch(url: str) -> object:
    async with AsyncChatGPTAdapter(KEY, MODEL, base_url=url, max_concurrency=10) as adapter:
        results = await adapter.gather(Task(prompt, parameters={"stream": False}) for prompt in PROMPTS)
    return [result.raise_for_error().output for result in results]


# -- the comparison ----------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    theirs: Callable[[str], Awaitable[object]]
    ours: Callable[[str], Awaitable[object]]
    script: Script
    result: object


CALLS = (ToolCall("weather", {"city": "Oslo", "days": 2}), ToolCall("weather", {"city": "Rome", "days": 2}))
SLOW_DOWN = error(429, code="rate_limit_exceeded", retry_after=0.01)
SQUARES = [f"It is {number**2}." for number in range(100)]

PAIRS: dict[str, Pair] = {
    "create": Pair(their_create, our_create, Reply("Hello."), ("Hello.", "stop", 16)),
    "stream": Pair(their_stream, our_stream, Reply("one two three"), (["one", " two", " three"], 3)),
    "tools": Pair(their_tools, our_tools, [Reply(tool_calls=CALLS), Reply("Clear.")], "Clear."),
    "parse": Pair(
        their_parse,
        our_parse,
        Reply('{"name": "Oslo", "people": 5, "mayor": null}'),
        City(name="Oslo", people=5, mayor=None),
    ),
    "vision": Pair(their_vision, our_vision, Reply("A square."), "A square."),
    "Azure": Pair(their_azure, our_azure, Reply("Hello."), "Hello."),
    "Ollama": Pair(their_ollama, our_ollama, Reply('{"a": 1}'), {"a": 1}),
    "vLLM": Pair(their_vllm, our_vllm, Reply("yes"), "yes"),
    "timeouts": Pair(
        their_timeouts, our_timeouts, [Reply("Hello."), Reply("Late.", first_token=5)], ("Hello.", "timed out")
    ),
    "retries": Pair(
        their_retries,
        our_retries,
        [error(503, retry_after=0.01), SLOW_DOWN, Reply("Hello."), SLOW_DOWN],
        ("Hello.", 429, "rate_limit_exceeded"),
    ),
    "raw response": Pair(their_raw_response, our_raw_response, Reply("Hello."), (200, "req_00000001", "Hello.")),
    "batch of 100": Pair(
        their_batch,
        our_batch,
        lambda request: Reply(SQUARES[int(request.prompt.split()[2])]),
        SQUARES,
    ),
}

HEADERS = ("accept", "api-key", "authorization", "content-type", "openai-organization", "x-team", "x-trace")
"""The headers that a server acts on. Those that name the client and its version differ, of course."""


def sent(server: Simulator) -> list[Any]:
    """Return what a server received, without what this file's head excepts."""
    requests = [_comparable(received) for received in server.requests]
    return sorted(requests, key=lambda request: json.dumps(request, sort_keys=True))


def _comparable(received: Received) -> Any:
    body = received.json
    body["messages"] = [
        {name: value for name, value in message.items() if value not in (None, "", [])} for message in body["messages"]
    ]
    if body.get("stream") is False:
        del body["stream"]  # the default
    if "response_format" in body:
        body["response_format"] = _untitled(body["response_format"])
    headers = {name: received.headers[name] for name in HEADERS if name in received.headers}
    return [received.method, received.path, headers, body]


def _untitled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _untitled(item) for name, item in value.items() if name not in {"title", "description"}}
    return value


@pytest.mark.one_loop
@pytest.mark.parametrize("name", PAIRS)
async def test_a_port_is_equal_on_the_wire_and_in_its_result(name: str) -> None:
    pair = PAIRS[name]
    config = Config(base_path=None)
    original, port = simulator(pair.script, config), simulator(pair.script, config)
    async with original as url:
        assert await pair.theirs(url) == pair.result
    async with port as url:
        assert await pair.ours(url) == pair.result
    assert sent(port) == sent(original)
    assert len(port.requests) == {"tools": 2, "timeouts": 2, "retries": 4, "batch of 100": 100}.get(name, 1)
