"""Structured output over the wire: `complete`, `stream` and tasks; responses right and wrong, asked once or again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pydantic
import pytest
from tests.support.tables import row

from chatscope import (
    AsyncChatGPTAdapter,
    ChatClient,
    ChatStream,
    InternalServerError,
    OutputError,
    OutputInvalidError,
    OutputRefusedError,
    OutputTruncatedError,
    PriceQuery,
    RetryPolicy,
    StreamTruncatedError,
    Task,
    TaskConstraints,
    TaskStatus,
)
from chatscope._conversation.structured_output import Output
from chatscope.simulator import Reply, ToolCall, error, faults

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

URL = "http://llm.example/v1"
ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Who?"}]}
ANN = '{"name": "Ann", "age": 7}'
WRONG = '{"name": "Ann", "age": "seven"}'


class Person(msgspec.Struct):
    """Somebody."""

    name: str
    age: int


class Model(pydantic.BaseModel):
    name: str
    age: int


def client(server: MemoryServer) -> ChatClient:
    return ChatClient("", base_url=URL, transport=server, retry=RetryPolicy(initial=0, jitter=0))


def adapter(server: MemoryServer, **options: Any) -> AsyncChatGPTAdapter:
    return AsyncChatGPTAdapter("sk-1", base_url=URL, transport=server, **options)


def said(server: MemoryServer, number: int) -> list[Any]:
    messages: list[Any] = server.bodies[number]["messages"]
    return messages


async def read(stream: ChatStream, texts: list[str]) -> None:
    async for chunk in stream:
        texts.append(chunk.text)  # noqa: PERF401 - what came before an error counts


# -- complete ----------------------------------------------------------------------------------------------------------


async def test_a_completion_carries_the_value(serve: Serve) -> None:
    server = serve(Reply(ANN))
    async with client(server) as chat:
        completion = await chat.complete(**ASK, response_format=Person)
        assert completion.parsed == Person("Ann", 7)
        assert (completion.text, completion.request_id) == (ANN, "req_1")
        assert (await chat.complete(**ASK, response_format=Model)).parsed == Model(name="Ann", age=7)
    assert server.bodies[0]["response_format"] == Output.of(Person).response_format
    assert set(server.bodies[0]) == {"model", "messages", "response_format"}


async def test_what_the_simulator_makes_of_the_schema_fits_the_type(serve: Serve) -> None:
    async with client(serve(Reply())) as chat:
        assert (await chat.complete(**ASK, response_format=Person)).parsed == Person("", 0)
        assert (await chat.complete(**ASK, response_format=list[int])).parsed == []


async def test_the_endpoints_own_formats_go_out_as_given(serve: Serve) -> None:
    server = serve(Reply("{}"))
    async with client(server) as chat:
        completion = await chat.complete(**ASK, response_format={"type": "json_object"})
        assert completion.parsed is None
    assert server.bodies[0]["response_format"] == {"type": "json_object"}


async def test_a_type_without_a_schema_is_refused_before_anything_is_sent(serve: Serve) -> None:
    server = serve()
    async with client(server) as chat:
        with pytest.raises(ValueError, match="response_format: complex: no schema can be derived from"):
            await chat.complete(**ASK, response_format=complex)
        with pytest.raises(ValueError, match="response_format: complex: no schema can be derived from"):
            chat.stream(**ASK, response_format=complex)
    assert server.requests == []


async def test_asking_again_needs_a_type_and_a_number(serve: Serve) -> None:
    server = serve()
    async with client(server) as chat:
        with pytest.raises(ValueError, match="reask needs a type as response_format"):
            await chat.complete(**ASK, reask=1)
        with pytest.raises(ValueError, match="reask must be a whole number of at least 0, not -1"):
            await chat.complete(**ASK, response_format=Person, reask=-1)
    assert server.requests == []


async def test_another_response_is_a_typed_error_that_keeps_the_text(serve: Serve) -> None:
    rows: list[tuple[Reply, type[OutputError], str]] = [
        (Reply(WRONG), OutputInvalidError, WRONG),
        (Reply(ANN[:9], finish_reason="length"), OutputTruncatedError, ANN[:9]),
        (Reply(ANN[:9], finish_reason="content_filter"), OutputRefusedError, ANN[:9]),
        (Reply(refusal="I won't."), OutputRefusedError, ""),
    ]
    asks: list[int] = [0, 1]
    for answer, kind, text in rows:
        for reask in asks:
            with row(answer, kind, text, reask):
                server = serve(answer)
                async with client(server) as chat:
                    with pytest.raises(kind) as caught:
                        await chat.complete(**ASK, response_format=Person, reask=reask)
                # Nothing is retried; and asking again helps against what is invalid alone.
                requests = 2 if reask and kind is OutputInvalidError else 1
                assert len(server.requests) == requests
                failure = caught.value
                assert (type(failure), failure.partial_text, failure.attempts) == (kind, text, requests)
                assert failure.request_id == f"req_{requests}"
                assert failure.completion.text == text


async def test_asking_again_says_what_was_wrong_and_counts_all_tokens(serve: Serve) -> None:
    server = serve([Reply(WRONG), Reply(ANN)])
    async with client(server) as chat:
        first = await chat.complete(**ASK)
        server.requests.clear()
        completion = await chat.complete(**ASK, response_format=Person, reask=1)
    assert completion.parsed == Person("Ann", 7)
    assert said(server, 0) == ASK["messages"]
    asked, replied, corrected = said(server, 1)
    assert asked == ASK["messages"][0]
    assert (replied["role"], replied["content"]) == ("assistant", WRONG)
    assert corrected["role"] == "user"
    assert "Expected `int`, got `str` - at `$.age`" in corrected["content"]
    assert server.bodies[1]["response_format"] == server.bodies[0]["response_format"]
    assert first.usage is not None
    assert completion.usage is not None
    assert completion.usage.prompt_tokens > 2 * first.usage.prompt_tokens
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


async def test_each_model_call_is_retried_by_itself(serve: Serve) -> None:
    server = serve([error(500), Reply(WRONG), error(500), error(500), Reply(ANN)])
    async with client(server) as chat:
        retry = RetryPolicy(attempts=3, initial=0, jitter=0)
        completion = await chat.complete(**ASK, response_format=Person, reask=1, retry=retry)
    assert completion.parsed == Person("Ann", 7)
    assert len(server.requests) == 5


async def test_a_later_turns_error_counts_the_requests_of_all(serve: Serve) -> None:
    server = serve([Reply(WRONG), error(500)])
    async with client(server) as chat:
        with pytest.raises(InternalServerError) as caught:
            await chat.complete(
                **ASK, response_format=Person, reask=1, retry=RetryPolicy(attempts=2, initial=0, jitter=0)
            )
    assert caught.value.attempts == 3


async def test_a_response_that_calls_tools_has_no_value_yet(serve: Serve) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    server = serve(Reply(tool_calls=(ToolCall("f"),)))
    async with client(server) as chat:
        completion = await chat.complete(**ASK, response_format=Person, tools=tools)
        assert completion.parsed is None
        assert completion.finish_reason == "tool_calls"
    assert server.bodies[0]["tools"] == tools
    assert len(server.requests) == 1


# -- stream ------------------------------------------------------------------------------------------------------------


async def test_a_stream_has_the_value_at_its_end(serve: Serve) -> None:
    server = serve(Reply(ANN))
    async with client(server) as chat, chat.stream(**ASK, response_format=Person) as stream:
        assert stream.completion.parsed is None
        text = "".join([chunk.text async for chunk in stream])
        assert stream.completion.parsed == Person("Ann", 7)
        assert stream.completion.text == text == ANN
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert server.bodies[0]["response_format"] == Output.of(Person).response_format


async def test_a_stream_of_something_else_raises_after_its_last_chunk(serve: Serve) -> None:
    async with client(serve(Reply(WRONG))) as chat, chat.stream(**ASK, response_format=Person) as stream:
        seen: list[str] = []
        with pytest.raises(OutputInvalidError, match=r"at `\$.age`") as caught:
            await read(stream, seen)
        assert "".join(seen) == caught.value.partial_text == WRONG
        assert (caught.value.attempts, caught.value.request_id) == (1, "req_1")
        assert stream.completion.parsed is None


async def test_a_stream_that_breaks_or_is_left_has_no_value(serve: Serve) -> None:
    async with client(serve(Reply(ANN, faults=(faults.end(3),)))) as chat:
        async with chat.stream(**ASK, response_format=Person) as stream:
            with pytest.raises(StreamTruncatedError):
                await read(stream, [])
        async with chat.stream(**ASK, response_format=Person) as left:
            pass
        with pytest.raises(StopAsyncIteration):
            await anext(left)
        assert left.completion.parsed is None


# -- tasks -------------------------------------------------------------------------------------------------------------


async def test_a_tasks_result_carries_the_value(serve: Serve) -> None:
    rows: list[dict[str, Any]] = [{}, {"stream": False}]
    for parameters in rows:
        with row(parameters):
            server = serve(Reply(ANN))
            async with adapter(server) as chat:
                result = await chat.execute(Task("Who?", output_type=Person, parameters=parameters))
            assert (result.status, result.parsed, result.output) == (TaskStatus.COMPLETED, Person("Ann", 7), ANN)
            assert result.messages == ASK["messages"]
            assert server.bodies[0]["response_format"] == Output.of(Person).response_format


async def test_a_task_whose_answer_is_something_else_fails_and_keeps_what_there_is(serve: Serve) -> None:
    async with adapter(serve(Reply(WRONG)), prices=lambda query: query.usage.total_tokens / 10) as chat:
        result = await chat.execute(Task("Who?", output_type=Person))
    assert result.status is TaskStatus.FAILED
    assert isinstance(result.exception, OutputInvalidError)
    assert result.exception.attempts == result.attempts == 1
    assert (result.output, result.exception.partial_text) == (WRONG, WRONG)
    assert result.message is not None
    assert result.message.content == WRONG
    assert result.usage is not None
    assert result.tokens_used == result.usage.total_tokens > 0
    assert result.cost == result.usage.total_tokens / 10
    assert result.parsed is None


async def test_a_task_asks_again_and_adds_up_its_turns(serve: Serve) -> None:
    server = serve([Reply(WRONG), Reply(ANN)])
    prices: list[int] = []

    def price(query: PriceQuery) -> float:
        prices.append(query.usage.total_tokens)
        return query.usage.total_tokens / 10

    async with adapter(server, prices=price) as chat:
        task = chat.start_task(Task("Who?", output_type=Person, reask=1))
        parts = [part async for part in task.stream()]
        result = await task.wait()
    assert result.parsed == Person("Ann", 7)
    assert "".join(parts) == result.output == WRONG + ANN
    assert result.message is not None
    assert result.message.content == ANN
    assert [message["role"] for message in result.messages] == ["user", "assistant", "user"]
    assert result.messages == said(server, 1)
    assert len(prices) == 2
    assert result.tokens_used == sum(prices)
    assert result.cost == sum(total / 10 for total in prices)
    assert result.attempts == len(result.attempts_log) == 2
    assert [attempt.request_id for attempt in result.attempts_log] == ["req_1", "req_2"]
    assert 0 <= result.attempts_log[0].started_seconds <= result.attempts_log[1].started_seconds
    assert result.metadata["request_id"] == "req_2"


async def test_a_task_that_can_never_be_right_is_refused(serve: Serve) -> None:
    rows: list[tuple[Task, str]] = [
        (Task("hi", output_type=complex), "output_type: complex: no schema can be derived from"),
        (Task("hi", reask=1), "reask needs a type as output_type"),
        (Task("hi", output_type=Person, reask=True), "reask must be a whole number"),
        (Task("hi", output_type=Person, parameters={"response_format": {}}), "parameters has response_format already"),
        (Task("hi", output_type=Person, constraints=TaskConstraints(max_turns=0)), "max_turns must be a whole number"),
    ]
    for task, says in rows:
        with row(task, says):
            server = serve()
            async with adapter(server) as chat:
                with pytest.raises(ValueError, match=f"^{says}"):
                    await chat.submit_task(task)
            assert server.requests == []
