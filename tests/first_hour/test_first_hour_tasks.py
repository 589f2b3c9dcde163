"""What users of other libraries try with tasks and completions: it works, or the error says what does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from chatscope import AsyncChatGPTAdapter, ChatClient, Completion, Message, Task, TaskConstraints, TaskCounts
from chatscope.simulator import Reply, ToolCall, error

if TYPE_CHECKING:
    from tests.support.memory_server import Serve


async def test_a_prompt_is_a_task(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("k", transport=serve(Reply("yes"))) as adapter:
        assert (await adapter.execute("hi")).output == "yes"
        assert [result.output for result in await adapter.gather(["a", "b"])] == ["yes", "yes"]
        assert (await adapter.get_result(await adapter.submit_task("hi"))).success
        assert (await adapter.start_task("hi").wait()).success
        async with adapter.execute_streaming("hi") as text:
            assert "".join([part async for part in text]) == "yes"
        with pytest.raises(ValueError, match="prompt must be a text that is not empty"):
            await adapter.execute("")
        with pytest.raises(TypeError, match="tasks must be an iterable of tasks, not str"):
            await adapter.gather("one prompt")


async def test_a_task_names_model_temperature_and_system_itself(serve: Serve) -> None:
    server = serve()
    async with AsyncChatGPTAdapter("k", transport=server) as adapter:
        await adapter.execute(Task("hi", model="m", temperature=0.5, system="Be brief.", context={"a": 1}))
        with pytest.raises(ValueError, match="model is given twice: by the task and by its constraints"):
            await adapter.execute(Task("hi", model="m", constraints=TaskConstraints(model="n")))
        with pytest.raises(ValueError, match="system must be a text"):
            await adapter.execute(Task("hi", system=""))
    sent = server.requests[0].json
    assert (sent["model"], sent["temperature"]) == ("m", 0.5)
    assert [message["content"] for message in sent["messages"]] == ["Be brief.", "Context:\na: 1", "hi"]


async def test_a_coroutine_as_an_id(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("k", transport=serve()) as adapter:
        ask: Any = adapter
        for call in (ask.get_result, ask.get_status, ask.cancel_task):
            with pytest.raises(TypeError, match=r"task_id is a coroutine: forgot 'await' before submit_task\(\)\?"):
                await call(adapter.submit_task("hi"))
        with pytest.raises(TypeError, match="forgot 'await'"):
            ask.stream_result(adapter.submit_task("hi"))


@pytest.mark.one_loop
async def test_a_block_that_is_left_in_another_task(serve: Serve) -> None:
    adapter = AsyncChatGPTAdapter("k", transport=serve())
    await adapter.__aenter__()
    async with anyio.create_task_group() as group:

        async def leave() -> None:
            with pytest.raises(RuntimeError, match="entered in one task and is left in another"):
                await adapter.__aexit__(None, None, None)

        group.start_soon(leave)
    await adapter.__aexit__(None, None, None)


async def test_a_completion_has_its_status_and_headers(serve: Serve) -> None:
    ask: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with ChatClient("k", transport=serve()) as client:
        completion = await client.complete(**ask)
        async with client.stream(**ask) as stream:
            async for _ in stream:
                pass
        for each in (completion, stream.completion):
            assert each.status == 200
            assert "content-type" in each.headers
            assert "headers" not in each.to_dict()
        mistaken: Any = completion
        with pytest.raises(AttributeError, match=r"no attribute 'model_dump': use to_dict\(\)"):
            mistaken.model_dump()


async def test_names_of_other_packages(serve: Serve) -> None:
    ask: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with ChatClient("k", transport=serve()) as client, client.stream(**ask) as stream:
        completion = await client.complete(**ask)
        rows: list[tuple[Any, str, str]] = [
            (client, "chat", r"use complete\(\.\.\.\), or stream\(\.\.\.\)"),
            (client, "close", r"use aclose\(\)"),
            (completion, "_request_id", "use request_id"),
            (completion, "content", "use text"),
            (completion.message, "parsed", r"use completion\.parsed"),
            (stream, "get_final_completion", "use completion, after the last chunk"),
        ]
        for owner, name, hint in rows:
            with pytest.raises(
                AttributeError, match=f"'{type(owner).__name__}' object has no attribute '{name}': {hint}"
            ):
                getattr(owner, name)
    async with AsyncChatGPTAdapter("k", transport=serve()) as adapter:
        result: Any = await adapter.execute("hi")
        with pytest.raises(AttributeError, match="has no attribute 'text': use output"):
            _ = result.text


async def test_a_stream_that_nobody_entered(serve: Serve) -> None:
    ask: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with ChatClient("k", transport=serve()) as client:
        for stream in (client.stream(**ask), client.stream(**ask).events(), client.stream_tools(**ask, tools=[])):
            with pytest.raises(RuntimeError, match=r"use 'async with client\.stream"):
                await anext(stream)


async def test_the_models_message_is_appended_as_it_is(serve: Serve) -> None:
    server = serve(Reply("yes"))
    messages: list[Message] = [{"role": "user", "content": "hi"}]
    async with ChatClient("k", transport=server) as client:
        completion = await client.complete(model="m", messages=messages)
        messages += [completion.message, {"role": "user", "content": "more"}]
        await client.complete(model="m", messages=messages)
        async with client.stream(model="m", messages=messages) as stream:
            async for _ in stream:
                pass
    again = serve(Reply("yes"))
    async with AsyncChatGPTAdapter("k", transport=again) as adapter:
        assert (await adapter.execute(Task(messages=messages, system="Be brief."))).success
    for request in [*list(server.requests)[1:], *again.requests]:
        assert {"role": "assistant", "content": "yes"} in [
            {name: message[name] for name in ("role", "content")} for message in request.json["messages"]
        ]


async def test_the_counts_of_an_adapter_are_typed(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("k", transport=serve([Reply("yes"), error(400), Reply(first_token=60)])) as adapter:
        await adapter.execute("a")
        await adapter.execute("b")
        task = adapter.start_task("c")
        await anyio.wait_all_tasks_blocked()
        assert adapter.counts() == TaskCounts(pending=0, running=1, succeeded=1, failed=1, cancelled=0)
        await task.cancel()
        assert adapter.counts() == TaskCounts(pending=0, running=0, succeeded=1, failed=1, cancelled=1)
        assert adapter.counts().finished == adapter.get_adapter_status()["finished"]


async def test_the_steps_of_a_conversation_with_tools_are_seen_as_they_come(serve: Serve) -> None:
    seen: list[str | None] = []
    calls: list[str] = []

    def search(query: str) -> str:
        """Search."""
        calls.append(query)
        return "found"

    def on_step(completion: Completion) -> None:
        seen.append(completion.finish_reason)
        assert len(calls) == len(seen) - 1

    server = serve([Reply(tool_calls=(ToolCall("search", {"query": "x"}),)), Reply("yes")])
    ask: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with ChatClient("k", transport=server) as client:
        await client.run_tools(**ask, tools=[search], on_step=on_step)
    assert seen == ["tool_calls", "stop"]

    async def later(completion: Completion) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(completion.text)

    async with ChatClient("k", transport=serve(Reply("yes"))) as client:
        await client.run_tools(**ask, tools=[search], on_step=later)
    assert seen[2:] == ["yes"], "an async function is awaited"
