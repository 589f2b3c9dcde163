"""Never run: structured output and tools as users write them, for mypy and pyright to infer the types of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_type

from chatscope import (
    AsyncChatGPTAdapter,
    ChatClient,
    ChatStream,
    ChatTask,
    Completion,
    ParsedStream,
    Result,
    RunResult,
    StepDone,
    Task,
    TaskConstraints,
    TaskId,
    TextDelta,
    ToolResult,
    ToolStream,
    Usage,
    UsageReported,
)


@dataclass
class Person:
    name: str


@dataclass
class Animal:
    legs: int


async def search(query: str, limit: int = 3) -> list[str]:
    return [query] * limit


def now() -> str:
    return "late"


async def a_type_makes_the_response_a_value(client: ChatClient) -> None:
    completion = await client.complete(model="m", messages=[], response_format=Person)
    assert_type(completion, Completion[Person])
    assert_type(completion.parsed, Person)
    assert_type(completion.text, str)
    again = await client.complete(model="m", messages=[], response_format=list[int], reask=2, temperature=0)
    assert_type(again.parsed, list[int])


async def other_formats_make_a_completion(client: ChatClient) -> None:
    assert_type(await client.complete(model="m", messages=[]), Completion)
    plain = await client.complete(model="m", messages=[], response_format={"type": "json_object"})
    assert_type(plain, Completion)


async def unions_make_a_value_too(client: ChatClient) -> None:
    union = await client.complete(model="m", messages=[], response_format=Person | Animal, reask=1)
    assert_type(union, Completion[Person | Animal])
    assert_type(union.parsed, Person | Animal)
    assert_type((await client.complete(model="m", messages=[], response_format=Person | None)).parsed, Person | None)
    wide = await client.complete(model="m", messages=[], response_format=dict[str, int], strict=False)
    assert_type(wide.parsed, dict[str, int])
    async with client.stream(model="m", messages=[], response_format=Person | Animal, strict=False) as stream:
        assert_type(stream.completion.parsed, Person | Animal)
    run = await client.run_tools(model="m", messages=[], tools=[now], response_format=Person | Animal)
    assert_type(run, RunResult[Person | Animal])
    async with client.stream_tools(model="m", messages=[], tools=[now], response_format=Person | Animal) as events:
        assert_type(events, ToolStream[Person | Animal])
        assert_type(events.result.parsed, Person | Animal)


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
    one_of = Task("hi", output_type=Person | int)
    assert_type(one_of, Task[Person | int])
    assert_type((await adapter.execute(one_of)).parsed, Person | int)
    assert_type((await adapter.execute(Task("hi", output_type=dict[str, int], strict=False))).parsed, dict[str, int])


async def handles_and_ids_know_the_type(adapter: AsyncChatGPTAdapter, task: Task[Person | Animal], known: str) -> None:
    handle = adapter.start_task(task)
    assert_type(handle, ChatTask[Person | Animal])
    assert_type((await handle.wait()).parsed, Person | Animal)
    assert_type(handle.result, Result[Person | Animal] | None)
    async for step in handle.steps():
        assert_type(step, Completion)
    task_id = await adapter.submit_task(task)
    assert_type(task_id, TaskId[Person | Animal])
    assert_type((await adapter.get_result(task_id, timeout=5)).parsed, Person | Animal)
    assert_type((await adapter.get_result(handle.id)).parsed, Person | Animal)
    assert_type((await adapter.get_result(known)).parsed, Any)
    async with adapter.map([task]) as results:
        async for result in results:
            assert_type(result.parsed, Person | Animal)
    assert_type((await adapter.gather([task, task]))[0].parsed, Person | Animal)
    mixed: list[Task[Person] | Task[Animal] | str] = [Task("a", output_type=Person), Task("b", output_type=Animal), "c"]
    await adapter.gather(mixed)


async def steps_and_events(client: ChatClient) -> None:
    seen: list[Completion] = []
    await client.run_tools(model="m", messages=[], tools=[now], on_step=seen.append)
    async with client.stream_tools(model="m", messages=[], tools=[now], max_turns=3, strict=False) as run:
        async for event in run:
            match event:
                case TextDelta(text=text):
                    assert_type(text, str)
                case StepDone(completion=completion):
                    assert_type(completion, Completion)
                case ToolResult(content=content):
                    assert_type(content, str)
                case _:
                    assert_type(event.choice if not isinstance(event, UsageReported) else 0, int)
        assert_type(run.result, RunResult)


def words_stay_open(completion: Completion, result: Result) -> None:
    if completion.finish_reason == "stop" or result.finish_reason == "a server's own word":
        return
    reason: str | None = completion.choices[0].finish_reason
    role: str | None = completion.message.role
    del reason, role


def bare(task: Task, result: Result, run: RunResult) -> None:
    assert_type(result.parsed, Any)
    assert_type(run.parsed, Any)
