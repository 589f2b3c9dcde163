"""The same requests through chatscope and through the official `openai` package: the same bodies, the same results.

Each client has a simulator of its own with the same script, so that ids and counts in the responses agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from openai import AsyncOpenAI, LengthFinishReasonError
from pydantic import BaseModel

from chatscope import ChatClient, Completion, content
from chatscope.simulator import Reply, Simulator, ToolCall, simulator

if TYPE_CHECKING:
    from tests.support.litellm_proxy import LiteLLMProxy

# The package leaves its generators half read at `[DONE]`, which only trio complains about.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2?|httpcore2?)[.]:ResourceWarning")

KEY = "sk-interop"
MODEL = "gpt-4o-mini"
HELLO = [{"role": "user", "content": "Say hello"}]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
CALLS = (ToolCall("weather", {"city": "Oslo"}), ToolCall("weather", {"city": "Röm"}))
CALLED = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "city",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
            "required": ["name", "people"],
            "additionalProperties": False,
        },
    },
}

REQUESTS: dict[str, tuple[Reply, dict[str, Any]]] = {
    "plain": (Reply("Hello, wörld."), {}),
    "sampling": (Reply(), {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["x"], "presence_penalty": -1}),
    "limited": (Reply("one two three"), {"max_completion_tokens": 2}),
    "null": (Reply("Hello."), {"stop": None, "user": "ü"}),
    "n=2": (Reply("Hello."), {"n": 2}),
    "logprobs": (Reply("Hello there."), {"logprobs": True, "top_logprobs": 2}),
    "refusal": (Reply(refusal="I will not."), {}),
    "tools": (Reply("Let me see.", tool_calls=CALLS), {"tools": [WEATHER], "tool_choice": "required"}),
    "named tool": (
        Reply(tool_calls=CALLS[:1]),
        {
            "tools": [WEATHER],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "parallel_tool_calls": False,
        },
    ),
    "tool results": (
        Reply("Sunny."),
        {
            "messages": [
                *HELLO,
                {"role": "assistant", "content": None, "tool_calls": [CALLED]},
                {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
            ],
            "tools": [WEATHER],
        },
    ),
    "json_object": (Reply('{"a": 1}'), {"response_format": {"type": "json_object"}}),
    "json_schema": (Reply('{"name": "Oslo", "people": 5}'), {"response_format": SCHEMA}),
    "parts": (
        Reply("A picture."),
        {"messages": [{"role": "user", "content": [content.text("What?"), content.image(PNG, detail="low")]}]},
    ),
    "extra": (Reply("Hello."), {"extra_body": {"top_k": 3}, "extra_query": {"tag": "a b"}}),
}


def sent(server: Simulator) -> list[tuple[str, Any]]:
    return [(received.path, received.json) for received in server.requests]


def comparable(value: Any) -> Any:
    """Return a completion without what says nothing: the second it came in, null, no text, and zero as a count."""
    if isinstance(value, dict):
        return {
            name: comparable(item)
            for name, item in value.items()
            if not (item in (None, "") or name == "created" or (name.endswith("_tokens") and item == 0))
        }
    return [comparable(item) for item in value] if isinstance(value, list) else value


async def ours(base_url: str, request: dict[str, Any], *, stream: bool) -> Any:
    """Return what came of a request by chatscope."""
    async with ChatClient(KEY, base_url=base_url) as client:
        if stream:
            async with client.stream(**request) as chunks:
                [chunk async for chunk in chunks]
            completion: Completion = chunks.completion
        else:
            completion = await client.complete(**request)
    return comparable(completion.to_dict())


async def theirs(base_url: str, request: dict[str, Any], *, stream: bool) -> Any:
    """Return what came of a request by the official package."""
    async with AsyncOpenAI(api_key=KEY, base_url=base_url, max_retries=0) as client:
        if stream:
            request = {"stream_options": {"include_usage": True}, **request}
            async with client.chat.completions.stream(**request) as events:
                async for _ in events:
                    pass
                completion: Any = await _final(events)
        else:
            completion = await client.chat.completions.create(**request)
    # What the package adds is not in the response.
    call = {"index": True, "function": {"parsed_arguments": True}}
    ignored = {"choices": {"__all__": {"message": {"parsed": True, "tool_calls": {"__all__": call}}}}}
    return comparable(completion.model_dump(mode="json", exclude=ignored, warnings=False))


async def _final(events: Any) -> Any:
    try:
        return await events.get_final_completion()
    except LengthFinishReasonError as cut:  # to the package, an error whatever was asked for
        return cut.completion


@pytest.mark.one_loop
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("name", REQUESTS)
async def test_equal_requests_and_results(name: str, stream: bool) -> None:
    reply, parameters = REQUESTS[name]
    request = {"model": MODEL, "messages": HELLO} | parameters
    first, second = simulator(reply), simulator(reply)
    async with first as our_url, second as their_url:
        assert await ours(our_url, request, stream=stream) == await theirs(their_url, request, stream=stream)
    assert sent(first) == sent(second)


@pytest.mark.one_loop
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("name", ["plain", "sampling", "n=2", "tools", "tool results", "json_schema", "refusal"])
async def test_the_same_through_the_litellm_proxy(
    litellm_proxy: LiteLLMProxy, upstream: tuple[Simulator, str], name: str, stream: bool
) -> None:
    """The proxy asks the server behind it the same for both, and hands both the same response on."""
    server, _ = upstream
    reply, parameters = REQUESTS[name]
    request = {"model": "simulated", "messages": HELLO} | parameters
    server.script = reply
    results, requests = [], []
    for ask in (ours, theirs):
        server.requests.clear()
        results.append(await ask(litellm_proxy.base_url, request, stream=stream))
        requests.append(sent(server))
    assert requests[0] == requests[1]
    assert len(requests[0]) == 1
    assert anonymous(results[0]) == anonymous(results[1])


def anonymous(value: Any) -> Any:
    """Return it without ids, which count the requests, and the role, which the proxy leaves out now and then."""
    if isinstance(value, dict):
        return {name: anonymous(item) for name, item in value.items() if name not in {"id", "role"}}
    return [anonymous(item) for item in value] if isinstance(value, list) else value


class City(BaseModel):
    """A city."""

    name: str
    people: int
    mayor: str | None


def asked(server: Simulator) -> Any:
    """Return the one body without what changes nothing: the words in a schema, and `stream` as it is anyway."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: bare(item) for name, item in value.items() if name not in {"title", "description"}}
        return value

    ((_, body),) = sent(server)
    assert body.pop("stream", False) is False
    return bare(body)


async def test_structured_output_from_the_same_class() -> None:
    reply = Reply('{"name": "Oslo", "people": 5, "mayor": null}')
    server, their_server = simulator(reply), simulator(reply)
    async with server as base_url, ChatClient(KEY, base_url=base_url) as client:
        ours = await client.complete(model=MODEL, messages=HELLO, response_format=City)
    async with their_server as base_url, AsyncOpenAI(api_key=KEY, base_url=base_url) as their_client:
        theirs: Any = await their_client.chat.completions.parse(
            model=MODEL,
            messages=HELLO,  # type: ignore[arg-type]  # plain dicts
            response_format=City,
        )
    assert asked(server) == asked(their_server)
    assert ours.parsed == theirs.choices[0].message.parsed == City(name="Oslo", people=5, mayor=None)


async def test_client_headers_are_all_that_differs() -> None:
    ours, theirs = simulator(), simulator()
    async with ours as base_url, ChatClient(KEY, base_url=base_url, organization="org", project="p") as client:
        await client.complete(model=MODEL, messages=HELLO, extra_headers={"x-mine": "1"})
    async with (
        theirs as base_url,
        AsyncOpenAI(api_key=KEY, base_url=base_url, organization="org", project="p") as their_client,
    ):
        await their_client.chat.completions.create(
            model=MODEL,
            messages=HELLO,  # type: ignore[arg-type]  # plain dicts
            extra_headers={"x-mine": "1"},
        )
    named = ("authorization", "content-type", "accept", "openai-organization", "openai-project", "x-mine")
    headers = [[server.requests[0].headers.get(name) for name in named] for server in (ours, theirs)]
    assert headers[0] == headers[1]
