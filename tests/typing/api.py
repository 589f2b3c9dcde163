"""Never run: what users write, for mypy and pyright to accept, with the types that they are promised."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, assert_type

import httpx
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from chatscope import (
    AsyncBasePlatformAdapter,
    AsyncChatGPTAdapter,
    Attempt,
    BudgetExceededError,
    ChatClient,
    ChatError,
    ChatStream,
    ChatTask,
    Chunk,
    Completion,
    Price,
    PriceQuery,
    RateLimitError,
    Result,
    ResultStream,
    RetryPolicy,
    Statistics,
    Task,
    TaskConstraints,
    TaskId,
    TaskStatus,
    TaskType,
    TextStream,
    Timeouts,
    Timings,
    Usage,
    retry_on_rate_limit,
    retry_on_transient,
)
from chatscope.telemetry import Telemetry


async def lifecycle() -> None:
    async with AsyncChatGPTAdapter() as adapter:
        assert_type(adapter, AsyncChatGPTAdapter)
        task_id = await adapter.submit_task(Task(type=TaskType.CODE_GENERATION, prompt="Write hello world"))
        assert_type(task_id, TaskId)
        async for text in adapter.stream_result(task_id):
            assert_type(text, str)
        assert_type(await adapter.get_status(task_id), TaskStatus)
        assert_type(await adapter.get_result(task_id, timeout=30), Result)
        assert_type(await adapter.get_result(task_id, None, cancel_on_timeout=True), Result)
        assert_type(await adapter.cancel_task(task_id), bool)
        assert_type(adapter.forget(task_id), bool)
        assert_type(await adapter.execute(Task("hi")), Result)
        assert_type(adapter.execute_streaming(Task("hi")), TextStream)
        assert_type(adapter.get_adapter_status(), dict[str, Any])
    base: AsyncBasePlatformAdapter = adapter
    assert_type(base.is_implemented, bool)
    assert_type(base.implementation_status, str)


async def handles(adapter: AsyncChatGPTAdapter) -> None:
    handle = adapter.start_task(Task("hi"))
    assert_type(handle, ChatTask)
    assert_type(handle.id, TaskId)
    assert_type(handle.status, TaskStatus)
    assert_type(handle.text, str)
    assert_type(await handle.wait(), Result)
    assert_type(await handle.cancel(), bool)
    stream: AsyncIterator[str] = handle.stream()
    async with handle.stream() as closing:
        assert_type(closing, TextStream)
    assert_type(await anext(stream), str)


def source() -> Iterator[Task]:
    yield Task("hi")


async def slow_source() -> AsyncIterator[Task]:
    yield Task("hi")


async def many(adapter: AsyncChatGPTAdapter) -> None:
    async with adapter.map(source()) as results:
        assert_type(results, ResultStream)
        async for result in results:
            assert_type(result, Result)
    async with adapter.map(slow_source(), ordered=True, look_ahead=10) as results:
        assert_type(await anext(results), Result)
    assert_type(await adapter.gather([Task("hi")]), list[Result])
    assert_type(await adapter.gather(slow_source()), list[Result])
    assert_type(adapter.statistics(), Statistics)
    adapter.map(["hi"])
    adapter.map([5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def budgets(result: Result) -> None:
    AsyncChatGPTAdapter(max_cost=2.5, max_total_tokens=100_000, cancel_over_budget=True)
    AsyncChatGPTAdapter(max_concurrency="auto", max_pending=5, requests_per_minute=60, tokens_per_minute=1e5)
    if isinstance(result.exception, BudgetExceededError):
        assert_type(result.exception.message, str)
    AsyncChatGPTAdapter(max_total_tokens="many")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def telemetry(tracer_provider: TracerProvider, meter_provider: MeterProvider) -> None:
    AsyncChatGPTAdapter(telemetry=True)
    AsyncChatGPTAdapter(telemetry=Telemetry(capture_content=True))
    ChatClient(telemetry=Telemetry(tracer_provider=tracer_provider, meter_provider=meter_provider))
    AsyncChatGPTAdapter(telemetry="otel")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def results(result: Result) -> None:
    assert_type(result.raise_for_error(), Result)
    assert_type(result.output, str)
    assert_type(result.success, bool)
    assert_type(result.status, TaskStatus)
    assert_type(result.task, Task | None)
    assert_type(result.error, str | None)
    assert_type(result.exception, Exception | None)
    assert_type(result.tokens_used, int | None)
    assert_type(result.cost, float | None)
    assert_type(result.duration_seconds, float)
    assert_type(result.usage, Usage | None)
    assert_type(result.timings, Timings | None)
    assert_type(result.attempts, int)
    assert_type(result.attempts_log, tuple[Attempt, ...])
    assert_type(result.metadata, Mapping[str, Any])


def construction(transport: httpx.AsyncBaseTransport, http_client: httpx.AsyncClient) -> None:
    def price(query: PriceQuery) -> float | None:
        assert_type(query.usage, Usage)
        return None

    AsyncChatGPTAdapter("sk-1", "gpt-4o", 30, base_url="http://localhost:8000/v1", transport=transport)
    AsyncChatGPTAdapter(timeout=Timeouts(connect=5, first_token=30, idle=10, total=300), http_client=http_client)
    AsyncChatGPTAdapter(timeout=None, retry=RetryPolicy(attempts=3, restart_unread=True), max_concurrency=10)
    AsyncChatGPTAdapter(prices={"mine": Price(input=1, output=2), "other": {"input": 1, "output": 2}})
    AsyncChatGPTAdapter(prices=price, default_headers={"x-team": "blue"}, keep_finished=100)
    AsyncChatGPTAdapter(organization="org", project="proj")
    Task(
        messages=[{"role": "user", "content": "hi"}],
        context={"a": 1},
        constraints=TaskConstraints(model="o3", max_tokens=5, temperature=0.5, timeout_seconds=30),
        parameters={"seed": 7},
        metadata={"mine": object()},
    )
    AsyncChatGPTAdapter(timeout="60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AsyncChatGPTAdapter(no_such_argument=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Task(promt="hi")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def requests(client: ChatClient) -> None:
    async with ChatClient(base_url="http://localhost:8000/v1", api_key="") as opened:
        assert_type(opened, ChatClient)
    completion = await client.complete(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        temperature=0,
        reasoning_effort="high",
        service_tier="some-tier-of-tomorrow",
        response_format={"type": "json_object"},
        extra_body={"top_k": 1},
        extra_headers={"x-a": "b"},
        extra_query={"api-version": 1},
        timeout=5,
        retry=RetryPolicy(attempts=1),
    )
    assert_type(completion, Completion)
    assert_type(completion.text, str)
    reason: str | None = completion.finish_reason
    del reason
    assert_type(completion.usage, Usage | None)
    async with client.stream(model="m", messages=[{"role": "user", "content": "hi"}], n=2) as stream:
        assert_type(stream, ChatStream)
        async for chunk in stream:
            assert_type(chunk, Chunk)
            assert_type(chunk.text, str)
        assert_type(stream.completion, Completion)
        assert_type(stream.timings, Timings)
        assert_type(stream.response.status if stream.response else None, int | None)
    await client.complete(model="m", messages=[], temperature="hot")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await client.complete(model="m", messages=[], top_k=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await client.complete(messages=[])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


@retry_on_rate_limit(max_attempts=3)
async def limited(number: int, *, name: str = "") -> bytes:
    return name.encode() * number


@retry_on_transient()
async def shaky() -> int:
    return 1


async def decorated() -> None:
    assert_type(await limited(1, name="a"), bytes)
    assert_type(await shaky(), int)
    await limited("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def errors(error: RateLimitError) -> None:
    root: ChatError = error
    assert_type(root.status, int | None)
    assert_type(root.status_code, int | None)
    assert_type(root.code, str | None)
    assert_type(root.request_id, str | None)
    assert_type(root.partial_text, str)
    assert_type(root.attempts, int)
    assert_type(root.retry_after, float | None)
