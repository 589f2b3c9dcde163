"""What a result says: tokens, cost, message, timings, attempts, metadata."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from chatscope import (
    AsyncChatGPTAdapter,
    ChatError,
    InvalidResponseError,
    Price,
    PriceQuery,
    Result,
    Task,
    TaskConstraints,
    TaskStatus,
)
from chatscope.simulator import Reply, Stage, ToolCall, UsageIn, error, faults, respond

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

pytestmark = pytest.mark.one_loop

HELLO = Reply("Hello, world.")  # 4 tokens, asked for with 3 and 6 around them


async def result_of(serve: Serve, answer: Any = HELLO, task: Task | None = None, **options: Any) -> Result:
    async with AsyncChatGPTAdapter("sk-1", transport=serve(answer), **options) as adapter:
        return await adapter.execute(task or Task("Write hello world"))


# -- tokens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [UsageIn.ASKED, UsageIn.FINISH, UsageIn.EVERY, UsageIn.X_GROQ])
async def test_usage_wherever_the_server_tells_it(serve: Serve, where: UsageIn) -> None:
    result = await result_of(serve, Reply("Hello, world.", usage_in=where))
    assert result.usage is not None
    assert (result.usage.prompt_tokens, result.usage.completion_tokens, result.usage.total_tokens) == (9, 4, 13)
    assert result.tokens_used == 13
    assert result.cost == pytest.approx(3.75e-6)


async def test_usage_that_is_not_told_is_not_guessed(serve: Serve) -> None:
    result = await result_of(serve, Reply("Hello, world.", usage_in=UsageIn.NOWHERE))
    assert result.success
    assert (result.usage, result.tokens_used, result.cost) == (None, None, None)
    assert (result.metadata["input_tokens"], result.metadata["output_tokens"]) == (None, None)


async def test_usage_of_zeros_tells_nothing(serve: Serve) -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    fault = faults.rewrite(lambda chunk: {**chunk, "usage": zeros})
    result = await result_of(serve, Reply("Hello, world.", faults=(fault,)))
    assert (result.success, result.tokens_used, result.cost) == (True, None, None)


async def test_a_missing_total_is_the_sum(serve: Serve) -> None:
    def without_total(chunk: dict[str, Any]) -> dict[str, Any]:
        usage = chunk.get("usage")
        return {**chunk, "usage": usage and {name: usage[name] for name in usage if name != "total_tokens"}}

    result = await result_of(serve, Reply("Hello, world.", faults=(faults.rewrite(without_total),)))
    assert result.tokens_used == 13


# -- text --------------------------------------------------------------------------------------------------------------


INDEX_1 = faults.rewrite(
    lambda chunk: {**chunk, "choices": [{**choice, "index": 1} for choice in chunk.get("choices", ())]}
)


@pytest.mark.parametrize("faulty", [(INDEX_1,), (INDEX_1, faults.end(2)), (INDEX_1, faults.end(Stage.DONE))])
async def test_a_choice_of_another_index_is_the_output_when_it_is_the_first(
    serve: Serve, faulty: tuple[faults.Fault, ...]
) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve(Reply("Hello, world.", faults=faulty))) as adapter:
        handle = adapter.start_task(Task("hi"))
        result = await handle.wait()
        assert result.message is not None
        assert result.output == result.message.content == handle.text
        assert result.output == ("Hello, world." if result.success else "Hello,")
        if isinstance(result.exception, ChatError):
            assert result.exception.partial_text == "Hello,"


# -- cost --------------------------------------------------------------------------------------------------------------


async def test_an_unknown_model_has_no_price(serve: Serve) -> None:
    task = Task("Write hello world", constraints=TaskConstraints(model="my-own-llama"))
    result = await result_of(serve, task=task)
    assert (result.tokens_used, result.cost) == (13, None)


async def test_cached_tokens_cost_less(serve: Serve) -> None:
    result = await result_of(serve, Reply("Hello, world.", cached_tokens=4))
    assert result.usage is not None
    assert result.usage.cached_tokens == 4
    assert result.cost == pytest.approx((5 * 0.15 + 4 * 0.075 + 4 * 0.60) / 1e6)


async def test_prices_as_a_table(serve: Serve) -> None:
    task = Task("Write hello world", constraints=TaskConstraints(model="my-own-llama"))
    for price in (Price(input=1, output=2), {"input": 1, "output": 2}):
        result = await result_of(serve, task=task, prices={"my-own-llama": price})
        assert result.cost == pytest.approx((9 * 1 + 4 * 2) / 1e6)


async def test_prices_as_a_function(serve: Serve) -> None:
    queries: list[PriceQuery] = []

    def price(query: PriceQuery) -> float:
        queries.append(query)
        return 0.5

    async with AsyncChatGPTAdapter(
        "sk-1", "asked-for", base_url="https://llm.example/v1", transport=serve(HELLO), prices=price
    ) as adapter:
        result = await adapter.execute(Task("Write hello world"))
    assert result.cost == 0.5
    report = adapter.get_adapter_status()
    assert (report["cost"], report["unpriced"]) == (0.5, 0)
    (query,) = queries
    assert query.requested_model == "asked-for"
    assert (query.base_url, query.usage.total_tokens) == ("https://llm.example/v1", 13)


async def test_prices_of_none_are_no_price(serve: Serve) -> None:
    assert (await result_of(serve, prices=lambda query: None)).cost is None


async def test_a_function_that_raises_costs_nobody_the_response(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def price(query: PriceQuery) -> float:
        raise LookupError("no such price")

    with caplog.at_level(logging.ERROR, logger="chatscope"):
        result = await result_of(serve, prices=price)
    assert (result.success, result.output, result.tokens_used, result.cost) == (True, "Hello, world.", 13, None)
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert "prices" in record.getMessage()
    assert record.exc_info is not None
    assert "no such price" in str(record.exc_info[1])


async def test_a_function_that_answers_with_a_decimal(serve: Serve) -> None:
    async with AsyncChatGPTAdapter(
        "sk-1",
        transport=serve(HELLO),
        prices=lambda query: Decimal("0.25"),  # type: ignore[arg-type]  # people do keep money so
    ) as adapter:
        result = await adapter.execute(Task("Write hello world"))
        assert await adapter.get_status((result.task and result.task.task_id) or "") is TaskStatus.COMPLETED
    assert result.cost == 0.25
    assert adapter.get_adapter_status()["cost"] == 0.25


async def _later() -> float:
    return 0.25


@pytest.mark.one_loop
@pytest.mark.parametrize("answer", [lambda: "0.25 USD", list, lambda: float("nan"), lambda: -0.25, _later])
async def test_a_function_that_answers_nonsense_touches_nobody(serve: Serve, answer: Callable[[], Any]) -> None:
    release = anyio.Event()
    server = serve([Reply("Hello, world.", faults=(faults.hold(1, release),)), HELLO])
    async with AsyncChatGPTAdapter("sk-1", transport=server, prices=lambda query: answer()) as adapter:
        sibling = adapter.start_task(Task("hi"))
        await server.wait_for_requests(1)
        result = await adapter.execute(Task("hi"))
        assert (result.success, result.cost) == (True, None)
        release.set()
        assert (await sibling.wait()).success
    report = adapter.get_adapter_status()
    assert (report["cost"], report["unpriced"]) == (0, 2)


async def test_a_cancelled_task_keeps_the_usage_that_came(serve: Serve) -> None:
    server = serve(Reply("Hello, world.", usage_in=UsageIn.EVERY, faults=(faults.stall(2),)))
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        handle = adapter.start_task(Task("Write hello world"))
        stream = handle.stream()
        assert [await anext(stream), await anext(stream)] == ["Hello", ","]
        await handle.cancel()
        result = await handle.wait()
    assert (result.tokens_used, result.metadata["output_tokens"]) == (11, 2)
    assert result.message is not None
    assert result.message.content == "Hello,"


# -- the message -------------------------------------------------------------------------------------------------------

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("stream", [True, False])
async def test_tool_calls_are_in_the_message(serve: Serve, stream: bool) -> None:
    reply = Reply(tool_calls=(ToolCall("weather", {"city": "Oslo"}), ToolCall("weather", {"city": "Rome"})))
    result = await result_of(serve, reply, Task("hi", parameters={"tools": [WEATHER], "stream": stream}))
    assert (result.success, result.output, result.finish_reason) == (True, "", "tool_calls")
    assert result.message is not None
    calls = [(call.function.name, call.function.arguments) for call in result.message.tool_calls or ()]
    assert calls == [("weather", '{"city": "Oslo"}'), ("weather", '{"city": "Rome"}')]


async def test_the_output_is_the_first_choices(serve: Serve) -> None:
    result = await result_of(serve, Reply(), Task("hi", parameters={"n": 2}))
    assert result.message is not None
    assert result.output == result.message.content
    assert "choice 2" not in result.output


async def test_reasoning_is_no_output(serve: Serve) -> None:
    result = await result_of(serve, Reply("Hello, world.", reasoning="Let me see."))
    assert result.output == "Hello, world."
    assert result.message is not None
    assert result.message.reasoning == "Let me see."
    assert result.timings is not None
    assert len(result.timings.token_ns) == 4 + 4


async def test_a_response_without_any_choice_fails(serve: Serve) -> None:
    empty = respond(200, b'{"id": "x", "object": "chat.completion", "choices": []}')
    result = await result_of(serve, empty, Task("hi", parameters={"stream": False}))
    assert (result.success, result.output, result.message, result.finish_reason) == (False, "", None, None)
    assert isinstance(result.exception, InvalidResponseError)


async def test_length(serve: Serve) -> None:
    result = await result_of(serve, HELLO, Task("hi", constraints=TaskConstraints(max_tokens=2)))
    assert (result.success, result.output, result.finish_reason) == (True, "Hello,", "length")


# -- timings, attempts, metadata ---------------------------------------------------------------------------------------


async def test_timings(serve: Serve) -> None:
    before = time.perf_counter_ns()
    result = await result_of(serve)
    after = time.perf_counter_ns()
    timings = result.timings
    assert timings is not None
    assert timings.started_ns is not None
    assert timings.sent_ns is not None
    assert timings.headers_ns is not None
    assert timings.finished_ns is not None
    moments = [
        before,
        timings.submitted_ns,
        timings.started_ns,
        timings.sent_ns,
        timings.headers_ns,
        *timings.token_ns,
        timings.finished_ns,
        after,
    ]
    assert moments == sorted(moments)
    assert len(timings.token_ns) == 4
    assert timings.queue_seconds == (timings.started_ns - timings.submitted_ns) / 1e9
    assert timings.first_token_seconds == (timings.token_ns[0] - timings.sent_ns) / 1e9
    assert timings.inter_token_seconds == [(after - before) / 1e9 for before, after in pairwise(timings.token_ns)]
    assert timings.total_seconds == result.duration_seconds
    assert timings.total_seconds == (timings.finished_ns - timings.submitted_ns) / 1e9


async def test_timings_of_what_did_not_happen(serve: Serve) -> None:
    result = await result_of(serve, error(400))
    assert result.timings is not None
    assert list(result.timings.token_ns) == []
    assert (result.timings.first_token_seconds, result.timings.inter_token_seconds) == (None, [])


@pytest.mark.parametrize("stream", [True, False])
async def test_metadata_and_attempts(serve: Serve, stream: bool) -> None:
    result = await result_of(serve, HELLO, Task("Write hello world", parameters={"stream": stream}))
    assert dict(result.metadata) == {
        "model": "gpt-4o-mini",
        "input_tokens": 9,
        "output_tokens": 4,
        "request_id": "req_1",
        "finish_reason": "stop",
    }
    (attempt,) = result.attempts_log
    assert (attempt.status, attempt.error, attempt.request_id, attempt.wait_seconds) == (200, None, "req_1", None)
    assert attempt.started_seconds >= 0
    assert 0 <= attempt.duration_seconds <= result.duration_seconds


async def test_metadata_of_a_failure_names_the_model_that_was_asked(serve: Serve) -> None:
    task = Task("hi", constraints=TaskConstraints(model="o3"))
    result = await result_of(serve, error(404, headers=(("x-request-id", "req_theirs"),)), task)
    assert result.metadata.keys() >= {"model", "input_tokens", "output_tokens", "request_id", "finish_reason"}
    assert result.metadata["model"] == "o3"
    assert result.exception is not None


async def test_the_model_is_the_one_that_answered(serve: Serve) -> None:
    exact = faults.rewrite(lambda chunk: {**chunk, "model": "gpt-4o-mini-2024-07-18"})
    result = await result_of(serve, Reply("Hello, world.", faults=(exact,)))
    assert result.metadata["model"] == "gpt-4o-mini-2024-07-18"
    assert result.cost == pytest.approx(3.75e-6)


# -- the whole response ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_a_result_holds_the_whole_response(serve: Serve, stream: bool) -> None:
    result = await result_of(serve, task=Task("hi", parameters={"n": 2, "stream": stream}))
    assert result.completion is not None
    assert [choice.index for choice in result.completion.choices] == [0, 1]
    assert result.completion.to_dict()["usage"] == {**result.completion.to_dict()["usage"], "completion_tokens": 8}
