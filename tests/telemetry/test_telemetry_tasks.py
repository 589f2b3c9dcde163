"""Spans and metrics of tasks, name by name as the GenAI conventions have them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from chatscope import AsyncChatGPTAdapter, ChatTask, RetryPolicy, Task, TaskConstraints, TaskStatus
from chatscope.simulator import Reply, ToolCall, error, faults

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve
    from tests.support.recorder import Recorder

QUICK = RetryPolicy(attempts=3, initial=0, max=0, jitter=0)
COMMON = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "server.address": "api.openai.com",
    "server.port": 443,
}
ANSWERED = COMMON | {"gen_ai.response.model": "gpt-4o-mini"}
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


def open_adapter(server: MemoryServer, recorder: Recorder, **options: Any) -> AsyncChatGPTAdapter:
    options.setdefault("telemetry", recorder.telemetry())
    return AsyncChatGPTAdapter("sk-secret", transport=server, retry=QUICK, **options)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def ids(span: ReadableSpan) -> tuple[int, int]:
    """Trace id and span id."""
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def context_of(headers: Any) -> tuple[int, int]:
    """Trace id and span id of a request's `traceparent`."""
    _, trace_id, span_id, _ = headers["traceparent"].split("-")
    return int(trace_id, 16), int(span_id, 16)


async def test_a_task_name_by_name(serve: Serve, recorder: Recorder) -> None:
    server = serve(Reply("Hello, world.", reasoning="Hm.", cached_tokens=3))
    parameters = {
        "top_p": 0.9,
        "stop": ["END"],
        "seed": 7,
        "n": 2,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "service_tier": "flex",
    }
    constraints = TaskConstraints(max_tokens=50, temperature=0.5)
    async with open_adapter(server, recorder) as adapter:
        result = await adapter.execute(Task("hi", parameters=parameters, constraints=constraints))
    assert result.success
    assert result.usage is not None
    assert recorder.names == ["queue", "attempt", "chat gpt-4o-mini"]
    span = recorder.span("chat gpt-4o-mini")
    assert (span.kind, span.status.status_code, span.parent) == (SpanKind.CLIENT, StatusCode.UNSET, None)
    assert attributes(span) == ANSWERED | {
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.seed": 7,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.stream": True,
        "gen_ai.request.frequency_penalty": 0.1,
        "gen_ai.request.presence_penalty": 0.2,
        "gen_ai.response.id": "chatcmpl-00000001",
        "gen_ai.response.finish_reasons": ("stop", "stop"),
        "gen_ai.usage.input_tokens": result.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": result.usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": result.usage.reasoning_tokens,
        "openai.request.service_tier": "flex",
        "openai.response.service_tier": "flex",
        "openai.response.system_fingerprint": "fp_simulator",
    }
    assert result.usage.reasoning_tokens > 0
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "chatscope"


async def test_below_it_a_span_for_the_queue_and_one_for_each_attempt(serve: Serve, recorder: Recorder) -> None:
    server = serve([error(503), faults.reset(0), Reply("Hello.")])
    async with open_adapter(server, recorder) as adapter:
        assert (await adapter.execute(Task("hi"))).attempts == 3
    span = recorder.span("chat gpt-4o-mini")
    children = recorder.children(span)
    assert [child.name for child in children] == ["queue", "attempt", "attempt", "attempt"]
    assert {child.kind for child in children} == {SpanKind.INTERNAL}
    queue, *attempts = children
    assert attributes(queue) == {}
    assert [attributes(attempt) for attempt in attempts] == [
        {
            "http.response.status_code": 503,
            "http.response.header.x-request-id": ("req_1",),
            "error.type": "InternalServerError",
        },
        {
            "http.request.resend_count": 1,
            "http.response.status_code": 200,
            "http.response.header.x-request-id": ("req_2",),
            "error.type": "StreamTruncatedError",
        },
        {
            "http.request.resend_count": 2,
            "http.response.status_code": 200,
            "http.response.header.x-request-id": ("req_3",),
        },
    ]
    failed, succeeded = StatusCode.ERROR, StatusCode.UNSET
    assert [attempt.status.status_code for attempt in attempts] == [failed, failed, succeeded]
    assert span.status.status_code is StatusCode.UNSET
    sent = [context_of(request.headers) for request in server.requests]
    assert sent == [ids(attempt) for attempt in attempts]


async def test_the_four_metrics(serve: Serve, recorder: Recorder) -> None:
    server = serve(Reply("One two three four."))
    async with open_adapter(server, recorder) as adapter:
        began = time.perf_counter()
        result = await adapter.execute(Task("hi"))
        seconds = time.perf_counter() - began
    assert result.usage is not None
    assert result.timings is not None
    metrics = recorder.metrics()
    assert {name: unit for name, (unit, _) in metrics.items()} == {
        "gen_ai.client.token.usage": "{token}",
        "gen_ai.client.operation.duration": "s",
        "gen_ai.client.operation.time_to_first_chunk": "s",
        "gen_ai.client.operation.time_per_output_chunk": "s",
    }
    used = {point.attributes["gen_ai.token.type"]: point for point in metrics["gen_ai.client.token.usage"][1]}  # type: ignore[index]  # there are some
    assert {kind: point.sum for kind, point in used.items()} == {
        "input": result.usage.prompt_tokens,
        "output": result.usage.completion_tokens,
    }
    assert [dict(used[kind].attributes or {}) for kind in ("input", "output")] == [
        ANSWERED | {"gen_ai.token.type": kind} for kind in ("input", "output")
    ]
    assert used["input"].explicit_bounds == TOKENS
    (first,) = metrics["gen_ai.client.operation.time_to_first_chunk"][1]
    (each,) = metrics["gen_ai.client.operation.time_per_output_chunk"][1]
    (whole,) = metrics["gen_ai.client.operation.duration"][1]
    for point in (first, each, whole):
        assert dict(point.attributes or {}) == ANSWERED
        assert point.explicit_bounds == pytest.approx(SECONDS)
    assert (first.count, first.sum) == (1, result.timings.first_token_seconds)
    assert each.count == len(result.timings.inter_token_seconds) == 4
    assert each.sum == pytest.approx(sum(result.timings.inter_token_seconds))
    assert whole.count == 1
    assert 0 < whole.sum <= seconds


async def test_a_failure(serve: Serve, recorder: Recorder) -> None:
    async with open_adapter(serve(error(401)), recorder) as adapter:
        result = await adapter.execute(Task("hi"))
    span = recorder.span("chat gpt-4o-mini")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == result.error
    assert "sk-secret" not in str(span.to_json())
    assert attributes(span) == COMMON | {"gen_ai.request.stream": True, "error.type": "AuthenticationError"}
    assert list(recorder.metrics()) == ["gen_ai.client.operation.duration"]
    (point,) = recorder.points("gen_ai.client.operation.duration")
    assert dict(point.attributes or {}) == COMMON | {"error.type": "AuthenticationError"}
    assert span.events == ()


async def test_a_cancelled_task(serve: Serve, recorder: Recorder) -> None:
    async with open_adapter(serve(Reply("One two.", faults=(faults.stall(1),))), recorder) as adapter:
        handle = adapter.start_task(Task("hi"))
        await anext(handle.stream())
        assert await handle.cancel()
    assert recorder.names == ["queue", "attempt", "chat gpt-4o-mini"]
    for span in recorder.spans[1:]:
        assert (span.status.status_code, attributes(span)["error.type"]) == (StatusCode.ERROR, "cancelled")
    (point,) = recorder.points("gen_ai.client.operation.duration")
    assert (point.attributes or {})["error.type"] == "cancelled"
    assert "gen_ai.client.token.usage" not in recorder.metrics(), "nobody told what it used"


async def test_a_task_that_never_got_its_turn(serve: Serve, recorder: Recorder) -> None:
    release = anyio.Event()
    server = serve(Reply("Hello.", faults=(faults.hold(1, release),)))
    async with open_adapter(server, recorder, max_concurrency=1) as adapter:
        adapter.start_task(Task("first"))
        waiting = adapter.start_task(Task("second", constraints=TaskConstraints(model="other")))
        await server.wait_for_requests(1)
        assert await waiting.cancel()
        span = recorder.span("chat other")
        assert [(child.name, attributes(child)) for child in recorder.children(span)] == [
            ("queue", {"error.type": "cancelled"})
        ]
        release.set()
    assert len(recorder.spans) == 5


async def test_a_task_over_budget(serve: Serve, recorder: Recorder) -> None:
    async with open_adapter(serve(), recorder, max_total_tokens=1) as adapter:
        await adapter.execute(Task("hi"))
        await adapter.execute(Task("hi", constraints=TaskConstraints(model="other")))
    assert attributes(recorder.span("chat other"))["error.type"] == "BudgetExceededError"


async def test_a_task_that_the_loop_never_ran(serve: Serve, recorder: Recorder) -> None:
    handles: list[ChatTask] = []

    async def leave() -> None:
        async with open_adapter(serve(), recorder) as adapter:
            handles.append(adapter.start_task(Task("hi")))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await leave()
    assert handles[0].status is TaskStatus.CANCELLED
    assert recorder.names[-1] == "chat gpt-4o-mini"
    assert len(set(recorder.names)) == len(recorder.names), "each ended once"


async def test_it_is_a_child_of_the_span_that_submitted_it(serve: Serve, recorder: Recorder) -> None:
    server = serve()
    async with open_adapter(server, recorder) as adapter:
        with recorder.tracer.start_as_current_span("outer"):
            token = context.attach(baggage.set_baggage("user", "u1"))
            task_id = await adapter.submit_task(Task("hi"))
            context.detach(token)
        with recorder.tracer.start_as_current_span("elsewhere"):
            assert (await adapter.get_result(task_id)).success
    assert [child.name for child in recorder.children(recorder.span("outer"))] == ["chat gpt-4o-mini"]
    assert recorder.children(recorder.span("elsewhere")) == []
    assert server.requests[0].headers["baggage"] == "user=u1"


async def test_what_a_tool_does_is_a_child_of_its_task(serve: Serve, recorder: Recorder) -> None:
    async def weather(city: str) -> str:
        """Return the weather of a city."""
        with recorder.tracer.start_as_current_span("look up"):
            return f"rain in {city}"

    call = ToolCall("weather", '{"city": "Paris"}')
    server = serve([Reply("", tool_calls=(call,)), Reply("It rains.")])
    async with open_adapter(server, recorder) as adapter:
        result = await adapter.execute(Task("hi", tools=[weather]))
    assert result.success
    assert result.usage is not None
    span = recorder.span("chat gpt-4o-mini")
    children = [child.name for child in recorder.children(span)]
    assert children == ["queue", "attempt", "look up", "attempt"]
    assert attributes(span)["gen_ai.usage.input_tokens"] == result.usage.prompt_tokens, "of both turns"
    assert attributes(span)["gen_ai.response.finish_reasons"] == ("stop",)


async def test_both_attempts_of_a_hedged_pair(serve: Serve, recorder: Recorder) -> None:
    server = serve([faults.stall(0), Reply("Hello.")])
    async with open_adapter(server, recorder, hedge_after=0.01) as adapter:
        assert (await adapter.execute(Task("hi"))).success
    attempts = recorder.children(recorder.span("chat gpt-4o-mini"))[1:]
    assert sorted(str(attributes(attempt).get("error.type")) for attempt in attempts) == ["None", "cancelled"]


async def test_finding_out_what_the_server_takes_is_one_attempt(serve: Serve, recorder: Recorder) -> None:
    refusal = error(400, "Unknown parameter: 'stream_options.include_usage'.")
    server = serve([refusal, Reply("Hello.")])
    async with open_adapter(server, recorder) as adapter:
        assert (await adapter.execute(Task("hi"))).success
    assert recorder.names == ["queue", "attempt", "chat gpt-4o-mini"]
    assert len({context_of(request.headers) for request in server.requests}) == 1


async def test_a_plain_response_has_no_chunks(serve: Serve, recorder: Recorder) -> None:
    async with open_adapter(serve(), recorder) as adapter:
        await adapter.execute(Task("hi", parameters={"stream": False, "stop": "END", "n": 1, "service_tier": "auto"}))
    assert sorted(recorder.metrics()) == ["gen_ai.client.operation.duration", "gen_ai.client.token.usage"]
    span = attributes(recorder.span("chat gpt-4o-mini"))
    assert span["gen_ai.request.stop_sequences"] == ("END",)
    assert not span.keys() & {
        "gen_ai.request.stream",
        "gen_ai.request.choice.count",
        "openai.request.service_tier",
    }


async def test_many_at_once_keep_their_contexts_apart(serve: Serve, recorder: Recorder) -> None:
    server = serve()
    async with open_adapter(server, recorder) as adapter:
        for number in range(20):
            with recorder.tracer.start_as_current_span(f"outer {number}"):
                adapter.start_task(Task(str(number), constraints=TaskConstraints(model=f"model-{number}")))
    for number in range(20):
        (call,) = recorder.children(recorder.span(f"outer {number}"))
        assert call.name == f"chat model-{number}"
        assert [child.name for child in recorder.children(call)] == ["queue", "attempt"]
    assert trace.get_current_span() is trace.INVALID_SPAN
