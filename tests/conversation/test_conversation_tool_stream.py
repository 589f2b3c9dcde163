"""`stream_tools` and `ChatTask.steps`: what happens in a conversation with tools, as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest
from tests.support.recorder import Recorder

from chatscope import (
    AsyncChatGPTAdapter,
    ChatClient,
    InternalServerError,
    OutputInvalidError,
    RunResult,
    StepDone,
    StreamTruncatedError,
    Task,
    TextDelta,
    ToolCallDone,
    ToolLoopError,
    ToolResult,
    ToolStream,
)
from chatscope.simulator import Reply, ToolCall, error, faults

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "How much is 1 + 2?"}]}


class Sum(msgspec.Struct):
    value: int


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def calls(text: str = "", name: str = "add") -> Reply:
    return Reply(text, tool_calls=(ToolCall(name, {"a": 1, "b": 2} if name == "add" else {}),))


async def read(run: ToolStream[Any], seen: list[str] | None = None) -> list[str]:
    """Read the events to the end, and return those that this file is about, in short."""
    seen = [] if seen is None else seen
    async for event in run:
        match event:
            case TextDelta(text=text):
                seen.append(text)
            case ToolCallDone(tool_call=call):
                seen.append(f"calls {call.function.name}")
            case StepDone(completion=completion):
                seen.append(f"step: {completion.finish_reason}")
            case ToolResult(tool_call=call, content=content):
                seen.append(f"{call.function.name} says {content}")
            case _:
                pass
    return seen


async def test_the_events_of_all_turns_and_the_result_of_run_tools(serve: Serve) -> None:
    script = [calls("See. "), Reply('{"value": 3}')]
    server, plain = serve(script), serve(script)
    async with (
        ChatClient("k", transport=server) as client,
        client.stream_tools(**ASK, tools=[add], response_format=Sum, temperature=0) as run,
    ):
        with pytest.raises(RuntimeError, match="read its events to the end"):
            _ = run.result
        seen = await read(run)
        assert await anext(run, None) is None
    assert seen[0].startswith("See")
    first = seen.index("step: tool_calls")
    assert seen[first - 1 : first + 2] == ["calls add", "step: tool_calls", "add says 3"]
    assert ("".join(seen[first + 2 : -1]), seen[-1]) == ('{"value": 3}', "step: stop")
    async with ChatClient("k", transport=plain) as client:
        expected = await client.run_tools(**ASK, tools=[add], response_format=Sum, temperature=0)
    result: RunResult[Sum] = run.result
    assert (result.parsed, result.text, result.usage) == (expected.parsed, expected.text, expected.usage)
    assert [body["messages"][1:] for body in server.bodies][1][-1]["content"] == "3"
    for streamed, whole in zip(server.bodies, plain.bodies, strict=True):
        del streamed["stream"], streamed["stream_options"]
        for body in (streamed, whole):
            for message in body["messages"]:
                message.pop("tool_call_id", None)
                message.pop("annotations", None)  # the simulator sends an empty list only in a whole response
                for call in message.get("tool_calls", ()):
                    call.pop("id", None)
        assert streamed == whole


async def test_asking_again_is_a_step_too(serve: Serve) -> None:
    server = serve([Reply("three"), Reply('{"value": 3}')])
    async with ChatClient("k", transport=server) as client:
        async with client.stream_tools(**ASK, tools=[], response_format=Sum, reask=1) as run:
            assert (await read(run)).count("step: stop") == 2
        assert run.result.parsed == Sum(3)
        async with client.stream_tools(**ASK, tools=[], response_format=list[int]) as lists:
            with pytest.raises(OutputInvalidError):
                await read(lists)


async def test_what_ends_a_conversation_is_raised_after_the_events_before_it(serve: Serve) -> None:
    seen: list[str] = []
    async with ChatClient("k", transport=serve(calls())) as client:
        async with client.stream_tools(**ASK, tools=[add], max_turns=2) as run:
            with pytest.raises(ToolLoopError) as caught:
                await read(run, seen)
            assert caught.value.attempts == 2
            assert await anext(run, None) is None
        assert seen[-1] == "step: tool_calls", "of the last turn, whose calls are not made"
        assert client.statistics().running == 0
    async with ChatClient("k", transport=serve(error(500)), retry=1) as client:
        with pytest.raises(InternalServerError):
            async with client.stream_tools(**ASK, tools=[add]):
                pass
    server = serve([calls(), faults.cut_chunk()])
    async with ChatClient("k", transport=server, retry=1) as client, client.stream_tools(**ASK, tools=[add]) as run:
        with pytest.raises(StreamTruncatedError):
            await read(run)


async def test_a_function_that_raises_or_is_cancelled_leaves_nothing_behind(serve: Serve) -> None:
    started = anyio.Event()
    ended: list[str] = []

    async def wait() -> None:
        """Wait."""
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("wait")

    async def fail() -> None:
        """Fail."""
        raise KeyError("no")

    async with ChatClient("k", transport=serve(calls(name="fail")), max_concurrency=1) as client:
        async with client.stream_tools(**ASK, tools=[fail], on_tool_error="raise") as run:
            with pytest.raises(KeyError, match="no"):
                await read(run)
        assert (await client.complete(**ASK)).finish_reason == "tool_calls", "the slot is free"
    async with ChatClient("k", transport=serve(calls(name="wait")), max_concurrency=1) as client:
        async with client.stream_tools(**ASK, tools=[wait]) as run:
            async with anyio.create_task_group() as group:
                group.start_soon(read, run)
                await started.wait()
                group.cancel_scope.cancel()
            assert ended == ["wait"]
            assert await anext(run, None) is None, "a conversation without its results cannot go on"
        assert (await client.complete(**ASK)).finish_reason == "tool_calls", "the slot is free"


async def test_leaving_early_frees_the_slot_and_tools_may_ask_the_same_client(serve: Serve) -> None:
    server = serve([calls(name="ask"), Reply("inner"), Reply("outer"), Reply("more")])
    async with ChatClient("k", transport=server, max_concurrency=1) as client:

        async def ask() -> str:
            """Ask."""
            return (await client.complete(**ASK)).text

        async with client.stream_tools(**ASK, tools=[ask]) as run:
            assert "ask says inner" in await read(run)
        async with client.stream_tools(**ASK, tools=[ask]) as run:
            await anext(run)
        assert (await client.complete(**ASK)).text == "more"
        with pytest.raises(RuntimeError, match="can be entered once"):
            await run.__aenter__()


@pytest.mark.one_loop
async def test_the_conversation_is_one_call_for_an_observer(serve: Serve) -> None:
    recorder = Recorder()
    options: Any = {"telemetry": recorder.telemetry(), "retry": 1}
    async with ChatClient("k", transport=serve([calls(), Reply("3"), error(500)]), **options) as client:
        async with client.stream_tools(**ASK, tools=[add]) as run:
            await read(run)
        assert [name for name in recorder.names if name != "queue"] == ["attempt", "attempt", "chat m"]
        assert len(recorder.children(recorder.span("chat m"))) == len(recorder.names) - 1
        with pytest.raises(InternalServerError):
            async with client.stream_tools(**ASK, tools=[add]):
                pass
        assert [span.attributes["error.type"] for span in recorder.spans[-2:] if span.attributes] == [
            "InternalServerError"
        ] * 2


async def test_the_steps_of_a_task_live_and_replayed(serve: Serve) -> None:
    release = anyio.Event()

    async def hold() -> str:
        """Hold."""
        await release.wait()
        return "held"

    async with AsyncChatGPTAdapter("k", transport=serve([calls(name="hold"), Reply("done")])) as adapter:
        handle = adapter.start_task(Task("hi", tools=[hold]))
        steps = handle.steps()
        assert (await anext(steps)).finish_reason == "tool_calls"
        assert handle.result is None
        release.set()
        assert (await anext(steps)).text == "done"
        assert await anext(steps, None) is None
        assert [step.finish_reason async for step in handle.steps()] == ["tool_calls", "stop"]
    async with AsyncChatGPTAdapter("k", transport=serve([Reply("one"), error(400)])) as adapter:
        assert [step.text async for step in adapter.start_task("hi").steps()] == ["one"]
        failed = adapter.start_task("hi")
        with pytest.raises(Exception, match="HTTP 400"):
            await anext(failed.steps())
