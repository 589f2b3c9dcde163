"""Tasks with tools: their turns, text, usage and cost in one result; cancelled and failed like any other task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import msgspec
import pytest
from tests.support.tables import row

from chatscope import (
    AsyncChatGPTAdapter,
    InternalServerError,
    PriceQuery,
    RetryPolicy,
    Task,
    TaskCancelledError,
    TaskConstraints,
    TaskStatus,
    ToolLoopError,
)
from chatscope.simulator import Reply, ToolCall, UsageIn, error, faults

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

    from chatscope.simulator import ChatRequest


class Sum(msgspec.Struct):
    value: int


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def tenth_of_a_dollar_a_token(query: PriceQuery) -> float:
    return query.usage.total_tokens / 10


def calls(text: str | None = None, **reply: Any) -> Reply:
    return Reply(text, tool_calls=(ToolCall("add", {"a": 1, "b": 2}),), **reply)


def adapter(server: MemoryServer, **options: Any) -> AsyncChatGPTAdapter:
    options.setdefault("retry", RetryPolicy(initial=0, jitter=0))
    return AsyncChatGPTAdapter(
        "sk-1", base_url="http://llm.example/v1", transport=server, prices=tenth_of_a_dollar_a_token, **options
    )


async def test_a_task_takes_its_turns_and_adds_them_up(serve: Serve) -> None:
    rows: list[dict[str, Any]] = [{}, {"stream": False}]
    for parameters in rows:
        with row(parameters):
            server = serve([calls("Let me see. "), calls(), Reply("It is 3.")])
            async with adapter(server) as chat:
                task = chat.start_task(Task("How much?", tools=[add], parameters=parameters))
                parts = [part async for part in task.stream()]
                result = await task.wait()
                late = [part async for part in chat.stream_result(task.id)]
                status = chat.get_adapter_status()
            assert result.status is TaskStatus.COMPLETED
            assert "".join(parts) == "".join(late) == result.output == task.text == "Let me see. It is 3."
            assert result.message is not None
            assert result.message.content == "It is 3."
            assert result.finish_reason == result.metadata["finish_reason"] == "stop"
            roles = [message["role"] for message in result.messages]
            assert roles == ["user", "assistant", "tool", "assistant", "tool"]
            assert [message["content"] for message in result.messages if message["role"] == "tool"] == ["3", "3"]
            assert server.bodies[2]["messages"] == list(result.messages)
            assert result.usage is not None
            assert result.tokens_used == result.usage.total_tokens == status["tokens"]
            assert result.metadata["input_tokens"] == result.usage.prompt_tokens
            assert result.cost == pytest.approx(result.usage.total_tokens / 10)
            assert result.attempts == len(result.attempts_log) == 3
            assert [attempt.status for attempt in result.attempts_log] == [200, 200, 200]


async def test_a_choice_that_demands_a_call_goes_through_the_parameters(serve: Serve) -> None:
    server = serve(Reply())  # the simulator calls what is demanded, until it sees a result
    async with adapter(server) as chat:
        result = await chat.execute(Task("How much?", tools=[add], parameters={"tool_choice": "required"}))
    assert result.raise_for_error().output.startswith("The tools said: “0”")
    assert [body.get("tool_choice") for body in server.bodies] == ["required", None]


async def test_the_answer_can_have_a_type(serve: Serve) -> None:
    async with adapter(serve([calls(), Reply('{"value": 3}')])) as chat:
        result = await chat.execute(Task("How much?", tools=[add], output_type=Sum))
    assert result.parsed == Sum(3)


async def test_retries_are_those_of_each_model_call_and_all_are_logged(serve: Serve) -> None:
    server = serve([error(500), calls(), error(503), error(503), Reply("3")])
    async with adapter(server, retry=RetryPolicy(attempts=3, initial=0, jitter=0)) as chat:
        result = await chat.execute(Task("How much?", tools=[add]))
    assert result.raise_for_error().attempts == 5
    assert [attempt.status for attempt in result.attempts_log] == [500, 200, 503, 503, 200]
    starts = [attempt.started_seconds for attempt in result.attempts_log]
    assert starts == sorted(starts)


async def test_a_later_turn_that_fails_keeps_what_came_before(serve: Serve) -> None:
    server = serve([calls("Let me see. "), error(400, "too long")])
    async with adapter(server) as chat:
        result = await chat.execute(Task("How much?", tools=[add]))
    assert result.status is TaskStatus.FAILED
    assert result.exception is not None
    assert "too long" in str(result.exception)
    assert result.output == "Let me see. "
    assert result.tokens_used
    assert result.cost == result.tokens_used / 10  # of the first turn; the second came to nothing
    assert [attempt.status for attempt in result.attempts_log] == [200, 400]


async def test_a_turn_that_breaks_off_has_no_known_cost(serve: Serve) -> None:
    server = serve([calls("Let me see. "), Reply("It is 3, I think.", faults=(faults.end(2),))])
    async with adapter(server) as chat:
        result = await chat.execute(Task("How much?", tools=[add]))
    assert result.status is TaskStatus.FAILED
    assert result.output.startswith("Let me see. It is")
    assert (result.usage, result.tokens_used, result.cost) == (None, None, None)  # not those of the first turn alone


async def test_a_turn_whose_server_counts_nothing_has_no_known_cost(serve: Serve) -> None:
    async with adapter(serve([calls(usage_in=UsageIn.NOWHERE), Reply("3")])) as chat:
        result = await chat.execute(Task("How much?", tools=[add]))
    assert result.success
    assert result.cost is None


async def test_a_response_begun_anew_replaces_its_own_text_alone(serve: Serve) -> None:
    broken = Reply("It is four.", faults=(faults.end(2),))
    server = serve([calls("Let me see. "), broken, Reply("It is 3.")])
    policy = RetryPolicy(initial=0, jitter=0, restart_unread=True)
    async with adapter(server, retry=policy) as chat:
        result = await chat.execute(Task("How much?", tools=[add]))
        assert [part async for part in chat.stream_result(result.task.task_id or "")] != []  # type: ignore[union-attr]  # it has one
    assert result.raise_for_error().output == "Let me see. It is 3."
    assert result.attempts == 3


async def test_a_loop_without_an_end_fails_the_task(serve: Serve) -> None:
    async with adapter(serve(calls("Again. "))) as chat:
        result = await chat.execute(Task("How much?", tools=[add], constraints=TaskConstraints(max_turns=2)))
    assert isinstance(result.exception, ToolLoopError)
    assert result.exception.attempts == result.attempts == 2
    assert result.output == "Again. Again. "
    assert [message["role"] for message in result.messages] == ["user", "assistant", "tool", "assistant"]
    assert result.tokens_used


async def test_a_tools_error_ends_the_task_as_itself_where_that_was_chosen(serve: Serve) -> None:
    async def fails() -> None:
        raise InternalServerError("from another service", status=500)

    server = serve(Reply(tool_calls=(ToolCall("fails"),)))
    async with adapter(server) as chat:
        result = await chat.execute(Task("How much?", tools=[fails], on_tool_error="raise"))
        other = await chat.execute(Task("And now?"))
    assert result.status is TaskStatus.FAILED
    assert type(result.exception) is InternalServerError
    assert result.error == "from another service"
    assert (result.attempts, other.status) == (1, TaskStatus.COMPLETED)


async def test_a_tool_may_ask_its_own_adapter_as_a_task_holds_no_slot_in_its_tools(serve: Serve) -> None:
    def script(request: ChatRequest) -> Reply:
        asks = bool(request.parameters.tools) and not request.answers_tools
        return Reply(tool_calls=(ToolCall(request.parameters.tools[0].definition.name),)) if asks else Reply("3")  # type: ignore[index]  # asks

    async with adapter(serve(script), max_concurrency=2) as chat:

        async def ask() -> str:
            return (await chat.execute(Task("How much?"))).output

        def ask_from_a_thread() -> str:
            return anyio.from_thread.run(chat.execute, Task("How much?")).output

        with anyio.fail_after(30):
            results = await chat.gather([Task("Ask.", tools=[tool]) for tool in (ask, ask_from_a_thread) * 3])
        assert chat.statistics().running == 0
    assert [result.raise_for_error().messages[-1]["content"] for result in results] == ["3"] * 6


async def test_cancelling_a_task_cancels_its_tools(serve: Serve) -> None:
    running = anyio.Event()
    ends: list[str] = []

    async def waits() -> None:
        try:
            running.set()
            await anyio.sleep_forever()
        finally:
            ends.append("cancelled")

    server = serve(Reply("Let me see. ", tool_calls=(ToolCall("waits"),)))
    async with adapter(server) as chat:
        task_id = await chat.submit_task(Task("How much?", tools=[waits]))
        await running.wait()
        assert await chat.cancel_task(task_id)
        assert ends == ["cancelled"]
        result = await chat.get_result(task_id)
    assert result.status is TaskStatus.CANCELLED
    assert isinstance(result.exception, TaskCancelledError)
    assert (result.output, result.exception.partial_text) == ("Let me see. ", "Let me see. ")
    assert result.tokens_used
    assert (len(server.requests), server.open) == (1, 0)


async def test_cancelling_a_later_turn_closes_its_connection(serve: Serve) -> None:
    server = serve([calls("Let me see. "), Reply("It is 3.", faults=(faults.stall(2),))])
    async with adapter(server) as chat:
        task = chat.start_task(Task("How much?", tools=[add]))
        text = ""
        async for part in task.stream():
            text += part
            if "It" in text:
                break
        assert await task.cancel()
        assert server.open == 0
    assert task.result is not None
    assert task.result.status is TaskStatus.CANCELLED
    assert task.result.output.startswith("Let me see. It")
    assert task.result.attempts == 2


async def test_hedged_turns_are_told_apart(serve: Serve) -> None:
    server = serve([calls("Let me see. "), Reply("It is 3.")])
    async with adapter(server, hedge_after=30) as chat:
        result = await chat.execute(Task("How much?", tools=[add]))
    assert result.raise_for_error().output == "Let me see. It is 3."
    assert result.attempts == 2


async def test_a_task_that_can_never_be_right_is_refused(serve: Serve) -> None:
    rows: list[tuple[Task, str]] = [
        (Task("hi", tools=add), "tools must be a list of functions"),  # type: ignore[arg-type]  # what this is about
        (Task("hi", tools=[lambda: None]), "tools must be functions"),
        (Task("hi", tools=[add], on_tool_error="hide"), "on_tool_error must be"),  # type: ignore[arg-type]  # what this is about
        (Task("hi", tools=[add], parameters={"tools": []}), "parameters has tools already"),
        (
            Task("hi", tools=[add], constraints=TaskConstraints(tool_timeout_seconds=0)),
            "tool_timeout_seconds must be a positive",
        ),
    ]
    for task, says in rows:
        with row(task, says):
            server = serve()
            async with adapter(server) as chat:
                with pytest.raises(ValueError, match=f"^{says}"):
                    await chat.submit_task(task)
            assert server.requests == []
