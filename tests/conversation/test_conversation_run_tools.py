"""`run_tools`: model calls and calls of functions in turns, until the model answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest
from tests.support.tables import row

from chatscope import (
    ChatClient,
    InternalServerError,
    OutputInvalidError,
    RetryPolicy,
    ToolLoopError,
    Usage,
)
from chatscope.simulator import Answer, Reply, ToolCall, error

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "How much is 1 + 2?"}]}


class Sum(msgspec.Struct):
    value: int


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def calls(*calls: ToolCall, **reply: Any) -> Reply:
    return Reply(tool_calls=calls or (ToolCall("add", {"a": 1, "b": 2}),), **reply)


def client(server: MemoryServer, **options: Any) -> ChatClient:
    return ChatClient(
        "", base_url="http://llm.example/v1", transport=server, retry=RetryPolicy(initial=0, jitter=0), **options
    )


async def test_the_loop_ends_with_the_models_answer(serve: Serve) -> None:
    server = serve([calls(text="Let me see."), calls(ToolCall("multiply", {"a": 3, "b": 3})), Reply("3, and 9.")])
    async with client(server) as chat:
        result = await chat.run_tools(**ASK, tools=[add, multiply], temperature=0)
    assert (result.text, result.message.content, result.completion.finish_reason) == ("3, and 9.", "3, and 9.", "stop")
    assert [completion.finish_reason for completion in result.completions] == ["tool_calls", "tool_calls", "stop"]
    asked, first, added, second, multiplied = result.messages
    assert asked == ASK["messages"][0]
    assert (first["role"], first["content"]) == ("assistant", "Let me see.")
    assert added == {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "3"}
    assert multiplied == {"role": "tool", "tool_call_id": second["tool_calls"][0]["id"], "content": "9"}
    assert server.bodies[2]["messages"] == result.messages
    for body in server.bodies:
        assert [tool["function"]["name"] for tool in body["tools"]] == ["add", "multiply"]
        assert body["temperature"] == 0
    assert ASK["messages"] == [{"role": "user", "content": "How much is 1 + 2?"}]


async def test_the_usage_is_that_of_all_turns(serve: Serve) -> None:
    async with client(serve([calls(), Reply("3")])) as chat:
        result = await chat.run_tools(**ASK, tools=[add])
    usages = [completion.usage or Usage() for completion in result.completions]
    assert result.usage is not None
    assert result.usage.total_tokens == usages[0].total_tokens + usages[1].total_tokens
    assert result.usage.prompt_tokens == usages[0].prompt_tokens + usages[1].prompt_tokens


async def test_a_model_that_answers_at_once_calls_nothing(serve: Serve) -> None:
    async with client(serve(Reply("3"))) as chat:
        result = await chat.run_tools(**ASK, tools=[add])
    assert (result.text, list(result.messages), result.parsed) == ("3", ASK["messages"], None)


async def test_what_the_model_got_wrong_it_is_told(serve: Serve) -> None:
    wrong = calls(ToolCall("add", "{"), ToolCall("subtract", {"a": 1}))
    server = serve([wrong, Reply("Sorry.")])
    async with client(server) as chat:
        result = await chat.run_tools(**ASK, tools=[add], on_tool_error="raise")
    assert [message["content"] for message in result.messages[2:]] == [
        '{"error":"the arguments are not valid: Input data was truncated"}',
        '{"error":"there is no tool \'subtract\'; there are: add"}',
    ]


async def test_a_loop_without_an_end_is_an_error_that_keeps_the_conversation(serve: Serve) -> None:
    made: list[int] = []

    def count() -> int:
        made.append(1)
        return len(made)

    server = serve(calls(ToolCall("count")))
    async with client(server) as chat:
        with pytest.raises(
            ToolLoopError, match="still calls tools after 3 turns, as many as max_turns allows"
        ) as caught:
            await chat.run_tools(**ASK, tools=[count], max_turns=3)
    assert len(server.requests) == caught.value.attempts == 3
    assert len(made) == 2  # what the last turn called was not called: nobody would have read the result
    assert [message["role"] for message in caught.value.messages] == ["user", *["assistant", "tool"] * 2, "assistant"]
    assert server.bodies[2]["messages"] == list(caught.value.messages[:-1])


async def test_a_choice_that_demands_a_call_is_not_sent_again(serve: Serve) -> None:
    rows: list[tuple[Any, bool]] = [
        ("auto", True),
        ("required", False),
        ({"type": "function", "function": {"name": "add"}}, False),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, True),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}, False),
    ]
    for choice, again in rows:
        with row(choice, again):
            server = serve([calls(), Reply("3")])
            async with client(server) as chat:
                await chat.run_tools(**ASK, tools=[add], tool_choice=choice)
            assert server.bodies[0]["tool_choice"] == choice
            assert ("tool_choice" in server.bodies[1]) is again


async def test_calls_without_an_id_get_one(serve: Serve) -> None:
    function = {"name": "add", "arguments": '{"a": 1, "b": 2}'}
    message = {"role": "assistant", "content": None, "tool_calls": [{"function": function}, {"function": function}]}
    completion = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "model": "m"}
    bodies = iter([completion, {"choices": [{"message": {"content": "3"}, "finish_reason": "stop"}]}])

    def script(_: Any) -> Answer:
        from chatscope.simulator import respond

        return respond(200, msgspec.json.encode(next(bodies)))

    async with client(serve(script)) as chat:
        result = await chat.run_tools(**ASK, tools=[add])
    assistant, *answers = result.messages[1:]
    assert [call["id"] for call in assistant["tool_calls"]] == ["call_1_0", "call_1_1"]
    assert [answer["tool_call_id"] for answer in answers] == ["call_1_0", "call_1_1"]


async def test_the_answer_can_have_a_type_and_be_asked_for_again(serve: Serve) -> None:
    server = serve([calls(), Reply('{"value": "three"}'), calls(), Reply('{"value": 3}')])
    async with client(server) as chat:
        result = await chat.run_tools(**ASK, tools=[add], response_format=Sum, reask=1)
    assert result.parsed == Sum(3)
    assert [message["role"] for message in result.messages] == [
        *("user", "assistant", "tool"),
        *("assistant", "user"),
        *("assistant", "tool"),
    ]
    assert server.bodies[0]["response_format"]["json_schema"]["name"] == "Sum"


async def test_the_endpoints_own_format_goes_out_as_given(serve: Serve) -> None:
    server = serve(Reply("{}"))
    async with client(server) as chat:
        result = await chat.run_tools(**ASK, tools=[add], response_format={"type": "json_object"})
    assert result.parsed is None
    assert server.bodies[0]["response_format"] == {"type": "json_object"}


async def test_an_answer_of_another_type_is_an_error_with_the_usage_of_all_turns(serve: Serve) -> None:
    async with client(serve([calls(), Reply("three")])) as chat:
        done = await chat.run_tools(**ASK, tools=[add])
    async with client(serve([calls(), Reply("three")])) as chat:
        with pytest.raises(OutputInvalidError) as caught:
            await chat.run_tools(**ASK, tools=[add], response_format=Sum)
    assert caught.value.completion.usage == done.usage
    assert caught.value.attempts == 2


async def test_each_model_call_is_retried_by_itself(serve: Serve) -> None:
    server = serve([error(500), calls(), error(500), error(500), Reply("3")])
    async with client(server) as chat:
        result = await chat.run_tools(**ASK, tools=[add], retry=RetryPolicy(attempts=3, initial=0, jitter=0))
    assert result.text == "3"
    assert len(server.requests) == 5


async def test_a_tools_own_error_is_not_retried(serve: Serve) -> None:
    async def fails() -> None:
        raise InternalServerError("from another service", status=500)

    server = serve(calls(ToolCall("fails")))
    async with client(server) as chat:
        with pytest.raises(InternalServerError, match="from another service"):
            await chat.run_tools(**ASK, tools=[fails], on_tool_error="raise")
    assert len(server.requests) == 1


async def test_a_tool_does_not_hold_a_place_for_requests(serve: Serve) -> None:
    inner: list[str] = []

    async def ask(question: str) -> str:
        inner.append((await chat.complete(model="m", messages=[{"role": "user", "content": question}])).text)
        return inner[-1]

    server = serve([calls(ToolCall("ask", {"question": "1 + 2"})), Reply("3"), Reply("It is 3.")])
    async with client(server, max_concurrency=1) as chat:
        result = await chat.run_tools(**ASK, tools=[ask])
    assert (inner, result.text) == (["3"], "It is 3.")


async def test_cancelling_the_caller_cancels_the_calls(serve: Serve) -> None:
    running = anyio.Event()
    ends: list[str] = []

    async def waits() -> None:
        try:
            running.set()
            await anyio.sleep_forever()
        finally:
            ends.append("cancelled")

    server = serve(calls(ToolCall("waits")))
    async with client(server) as chat, anyio.create_task_group() as group:

        async def run() -> None:
            await chat.run_tools(**ASK, tools=[waits])
            ends.append("not reached")

        group.start_soon(run)
        await running.wait()
        group.cancel_scope.cancel()
    assert ends == ["cancelled"]
    assert (len(server.requests), server.open) == (1, 0)


async def test_what_can_never_be_right_is_refused_before_anything_is_sent(serve: Serve) -> None:
    rows: list[tuple[dict[str, Any], str]] = [
        ({"tools": [lambda: None]}, "tools must be functions"),
        ({"tools": add}, "tools must be a list of functions, not"),
        ({"tools": None}, "tools must be a list of functions, not"),
        ({"tools": [], "on_tool_error": "hide"}, "on_tool_error must be"),
        ({"tools": [], "tool_timeout": -1}, "tool_timeout must be a positive number"),
        ({"tools": [add], "on_tool_error": ["report"]}, "on_tool_error must be"),
        ({"tools": [add], "max_turns": 0}, "max_turns must be a whole number of at least 1"),
        ({"tools": [add], "tool_timeout": -1}, "tool_timeout must be a positive number"),
        ({"tools": [add], "on_tool_error": "hide"}, "on_tool_error must be"),
        ({"tools": [add], "reask": 1}, "reask needs a type"),
        ({"tools": [add], "messages": "hi"}, "messages must be"),
        ({"tools": [add], "temperature": "hot"}, "temperature must be a number"),
    ]
    for arguments, says in rows:
        with row(arguments, says):
            server = serve()
            async with client(server) as chat:
                with pytest.raises(ValueError, match=f"^{says}"):
                    await chat.run_tools(**ASK | arguments)
                with pytest.raises(TypeError, match="unknown parameter 'temprature'"):
                    await chat.run_tools(**ASK, tools=[add], temprature=0)  # type: ignore[call-overload]  # what this is about
            assert server.requests == []
