"""Never run: structured output and tools as users write them, for mypy and pyright to infer the types of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_type

from chatscope import (
    AsyncChatGPTAdapter,
    ChatClient,
    ChatStream,
    Completion,
    ParsedCompletion,
    ParsedStream,
    Result,
    RunResult,
    Task,
    TaskConstraints,
    Usage,
)


@dataclass
class Person:
    name: str


async def search(query: str, limit: int = 3) -> list[str]:
    return [query] * limit


def now() -> str:
    return "late"


async def a_type_makes_the_reply_a_value(client: ChatClient) -> None:
    completion = await client.complete(model="m", messages=[], response_format=Person)
    assert_type(completion, ParsedCompletion[Person])
    assert_type(completion.parsed, Person)
    assert_type(completion.text, str)
    again = await client.complete(model="m", messages=[], response_format=list[int], reask=2, temperature=0)
    assert_type(again.parsed, list[int])


async def other_formats_make_a_completion(client: ChatClient) -> None:
    assert_type(await client.complete(model="m", messages=[]), Completion)
    plain = await client.complete(model="m", messages=[], response_format={"type": "json_object"})
    assert_type(plain, Completion)
    union = await client.complete(model="m", messages=[], response_format=Person | int, reask=1)
    assert_type(union.parsed, Any)


async def streams(client: ChatClient) -> None:
    async with client.stream(model="m", messages=[], response_format=Person) as stream:
        assert_type(stream, ParsedStream[Person])
        async for chunk in stream:
            assert_type(chunk.text, str)
        assert_type(stream.completion.parsed, Person)
    assert_type(client.stream(model="m", messages=[], tools=[]), ChatStream)


async def tools(client: ChatClient) -> None:
    result = await client.run_tools(
        model="m",
        messages=[{"role": "user", "content": "hi"}],
        tools=[search, now],
        max_turns=5,
        tool_timeout=2.5,
        on_tool_error="raise",
        response_format=Person,
        temperature=0,
    )
    assert_type(result, RunResult[Person])
    assert_type(result.parsed, Person)
    assert_type(result.text, str)
    assert_type(result.usage, Usage | None)
    assert_type(result.completions, tuple[Completion, ...])


async def tasks(adapter: AsyncChatGPTAdapter) -> None:
    constraints = TaskConstraints(max_turns=3, tool_timeout_seconds=1)
    task = Task("hi", tools=[search, now], output_type=Person, reask=1, on_tool_error="raise", constraints=constraints)
    result = await adapter.execute(task)
    assert_type(result.parsed, Person)
    assert_type(result.messages, Sequence[Mapping[str, Any]])


async def results_have_the_type_of_their_task(adapter: AsyncChatGPTAdapter) -> None:
    task = Task("hi", output_type=Person)
    assert_type(task, Task[Person])
    assert_type(await adapter.execute(task), Result[Person])
    assert_type((await adapter.execute(task)).raise_for_error().parsed, Person)
    assert_type(await adapter.gather([task]), list[Result[Person]])
    assert_type((await adapter.execute(Task("hi"))).parsed, Any)
    assert_type((await adapter.execute("hi")).parsed, Any)
    one_of: Task[Person | int] = Task("hi", output_type=Person | int)
    assert_type((await adapter.execute(one_of)).parsed, Person | int)


def bare(task: Task, result: Result, run: RunResult) -> None:
    assert_type(result.parsed, Any)
    assert_type(run.parsed, Any)
