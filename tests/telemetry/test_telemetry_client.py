"""Spans of `ChatClient` calls, content on opt-in, and what it takes to have any of it."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from chatscope import (
    APITimeoutError,
    AsyncChatGPTAdapter,
    ChatClient,
    OutputInvalidError,
    RateLimitError,
    RetryPolicy,
    StreamTruncatedError,
    Task,
    Timeouts,
    ToolLoopError,
)
from chatscope.simulator import Reply, ToolCall, error, faults, respond
from chatscope.telemetry import Telemetry

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve
    from tests.support.recorder import Recorder

HI: Any = [{"role": "user", "content": "hi"}]
ONCE = RetryPolicy(attempts=1)


@dataclass
class Sum:
    """What a response may have to be."""

    value: int


def open_client(server: MemoryServer, recorder: Recorder, **options: Any) -> ChatClient:
    options.setdefault("telemetry", recorder.telemetry())
    return ChatClient("", base_url="http://[::1]:8080/v1", transport=server, **options)


def error_types(recorder: Recorder) -> list[tuple[str, object]]:
    return [(span.name, (span.attributes or {}).get("error.type")) for span in recorder.spans]


async def test_complete(serve: Serve, recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    server = serve([error(503), Reply("Hello.")])
    async with open_client(server, recorder, retry=RetryPolicy(initial=0, jitter=0)) as client:
        with recorder.tracer.start_as_current_span("outer"):
            await client.complete(model="m", messages=HI)
    assert recorder.names == ["queue", "attempt", "attempt", "chat m", "outer"]
    span = recorder.span("chat m")
    assert span in recorder.children(recorder.span("outer"))
    assert len(recorder.children(span)) == 3
    told = span.attributes or {}
    assert (told["server.address"], told["server.port"]) == ("::1", 8080)
    assert told["gen_ai.usage.output_tokens"] == 2
    assert "gen_ai.request.stream" not in told
    assert "traceparent" in server.requests[1].headers
    assert "ended span" not in caplog.text, "the queue ends once, although each attempt waits for a permit"


async def test_a_failed_complete(serve: Serve, recorder: Recorder) -> None:
    async with open_client(serve(error(429)), recorder, retry=ONCE) as client:
        with pytest.raises(RateLimitError):
            await client.complete(model="m", messages=HI)
    assert error_types(recorder) == [("queue", None), ("attempt", "RateLimitError"), ("chat m", "RateLimitError")]


async def test_an_error_inside_a_success_keeps_the_status_of_the_response(serve: Serve, recorder: Recorder) -> None:
    server = serve(respond(200, b'{"error": {"code": 429, "message": "slow down"}}'))
    async with open_client(server, recorder, retry=ONCE) as client:
        with pytest.raises(RateLimitError):
            await client.complete(model="m", messages=HI)
    assert (recorder.span("attempt").attributes or {})["http.response.status_code"] == 200


async def test_a_cancelled_complete(serve: Serve, recorder: Recorder) -> None:
    server = serve(faults.stall(0))
    async with open_client(server, recorder) as client, anyio.create_task_group() as group:

        async def ask() -> None:
            await client.complete(model="m", messages=HI)

        group.start_soon(ask)
        await server.wait_for_requests(1)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert error_types(recorder) == [("queue", None), ("attempt", "cancelled"), ("chat m", "cancelled")]


async def test_a_queue_that_takes_too_long(serve: Serve, recorder: Recorder) -> None:
    server = serve(faults.stall(0))
    timeout = Timeouts(total=0.05)
    async with open_client(server, recorder, max_concurrency=1) as client, anyio.create_task_group() as group:

        async def ask() -> None:
            await client.complete(model="first", messages=HI)

        group.start_soon(ask)
        await server.wait_for_requests(1)
        with pytest.raises(APITimeoutError, match="queue"):
            await client.complete(model="m", messages=HI, timeout=timeout)
        group.cancel_scope.cancel()
    assert error_types(recorder)[1:3] == [("queue", "APITimeoutError"), ("chat m", "APITimeoutError")]


async def test_a_conversation_is_one_call(serve: Serve, recorder: Recorder) -> None:
    def add(first: int, second: int) -> int:
        """Add."""
        return first + second

    call = ToolCall("add", '{"first": 1, "second": 2}')
    async with open_client(serve([Reply("", tool_calls=(call,)), Reply("3")]), recorder) as client:
        run = await client.run_tools(model="m", messages=HI, tools=[add])
    assert recorder.names == ["queue", "attempt", "attempt", "chat m"]
    assert run.usage is not None
    assert (recorder.span("chat m").attributes or {})["gen_ai.usage.input_tokens"] == run.usage.prompt_tokens


async def test_what_a_failed_conversation_used_is_counted(serve: Serve, recorder: Recorder) -> None:
    def again() -> str:
        """Do it again."""
        return "again"

    call = Reply("", tool_calls=(ToolCall("again", "{}"),))
    async with open_client(serve([call, call, Reply("no JSON")]), recorder) as client:
        with pytest.raises(ToolLoopError):
            await client.run_tools(model="m", messages=HI, tools=[again], max_turns=2)
        with pytest.raises(OutputInvalidError):
            await client.complete(model="n", messages=HI, response_format=Sum, reask=1)
    for model, kind in (("m", "ToolLoopError"), ("n", "OutputInvalidError")):
        told = recorder.span(f"chat {model}").attributes or {}
        assert told["error.type"] == kind
        assert told["gen_ai.usage.input_tokens"] > 0  # type: ignore[operator]  # a number
    assert len(recorder.points("gen_ai.client.token.usage")) == 4


async def test_a_stream(serve: Serve, recorder: Recorder) -> None:
    server = serve(Reply("One two three."))
    async with open_client(server, recorder) as client:
        stream = client.stream(model="m", messages=HI)
        await anyio.lowlevel.checkpoint()
        assert recorder.names == [], "it begins when it is entered"
        async with stream:
            async for _ in stream:
                pass
            assert recorder.names == ["queue", "attempt", "chat m"], "and ends with its last chunk"
    assert len(recorder.spans) == 3
    told = recorder.span("chat m").attributes or {}
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert recorder.points("gen_ai.client.operation.time_to_first_chunk")[0].count == 1
    assert recorder.points("gen_ai.client.operation.time_per_output_chunk")[0].count == len(stream.token_ns) - 1


async def test_a_stream_that_is_never_entered(serve: Serve, recorder: Recorder) -> None:
    async with open_client(serve(), recorder) as client:
        await client.stream(model="m", messages=HI).aclose()
    assert (recorder.spans, recorder.metrics()) == ([], {})


async def test_a_stream_left_early_is_no_failure(serve: Serve, recorder: Recorder) -> None:
    async with open_client(serve(Reply("One two three.", faults=(faults.stall(1),))), recorder) as client:

        async def leave() -> None:
            async with client.stream(model="m", messages=HI) as stream:
                await anext(stream)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await leave()
    assert error_types(recorder) == [("queue", None), ("attempt", None), ("chat m", None)]
    assert "gen_ai.response.finish_reasons" not in (recorder.span("chat m").attributes or {})


async def test_a_stream_that_is_cancelled(serve: Serve, recorder: Recorder) -> None:
    server = serve(Reply("One two three.", faults=(faults.stall(1),)))
    async with (
        open_client(server, recorder) as client,
        anyio.create_task_group() as group,
        client.stream(model="m", messages=HI) as stream,
    ):
        group.cancel_scope.cancel()
        async for _ in stream:
            pass
    assert error_types(recorder) == [("queue", None), ("attempt", "cancelled"), ("chat m", "cancelled")]


async def test_a_stream_that_breaks_off(serve: Serve, recorder: Recorder) -> None:
    async with (
        open_client(serve(Reply("One two three.", faults=(faults.reset(2),))), recorder) as client,
        client.stream(model="m", messages=HI) as stream,
    ):
        with pytest.raises(StreamTruncatedError):
            async for _ in stream:
                pass
    kind = "StreamTruncatedError"
    assert error_types(recorder) == [("queue", None), ("attempt", kind), ("chat m", kind)]
    assert recorder.span("chat m").status.status_code is StatusCode.ERROR


@pytest.mark.one_loop
@pytest.mark.parametrize(("text", "kind"), [('{"value": 1}', None), ("no JSON", "OutputInvalidError")])
async def test_a_stream_of_a_type(serve: Serve, recorder: Recorder, text: str, kind: str | None) -> None:
    async with (
        open_client(serve(Reply(text)), recorder) as client,
        client.stream(model="m", messages=HI, response_format=Sum) as stream,
    ):
        with pytest.raises(OutputInvalidError) if kind else nullcontext():
            async for _ in stream:
                pass
        assert error_types(recorder) == [("queue", None), ("attempt", None), ("chat m", kind)]
    assert len(recorder.spans) == 3


async def test_a_stream_of_a_type_that_is_left_early_is_no_failure(serve: Serve, recorder: Recorder) -> None:
    server = serve(Reply("no JSON", faults=(faults.stall(1),)))
    async with (
        open_client(server, recorder) as client,
        client.stream(model="m", messages=HI, response_format=Sum) as stream,
    ):
        await anext(stream)
    assert ("chat m", None) in error_types(recorder)


async def test_a_stream_that_falls_silent(serve: Serve, recorder: Recorder) -> None:
    server = serve(Reply("One two three.", faults=(faults.stall(1),)))
    async with (
        open_client(server, recorder, timeout=Timeouts(idle=0.05)) as client,
        client.stream(model="m", messages=HI) as stream,
    ):
        with pytest.raises(APITimeoutError, match="idle"):
            async for _ in stream:
                pass
    assert error_types(recorder)[-1] == ("chat m", "APITimeoutError")


async def test_a_stream_that_does_not_begin(serve: Serve, recorder: Recorder) -> None:
    async with open_client(serve(error(429)), recorder, retry=ONCE) as client:
        with pytest.raises(RateLimitError):
            await client.stream(model="m", messages=HI).__aenter__()
    assert error_types(recorder) == [("queue", None), ("attempt", "RateLimitError"), ("chat m", "RateLimitError")]


async def test_a_server_that_does_not_count(serve: Serve, recorder: Recorder) -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    silent = faults.rewrite(lambda event: event | {"usage": usage, "model": ""} if "usage" in event else event)
    async with open_client(serve(Reply("Hello.", faults=(silent,))), recorder) as client:
        await client.complete(model="m", messages=HI)
    assert list(recorder.metrics()) == ["gen_ai.client.operation.duration"]
    told = recorder.span("chat m").attributes or {}
    assert not told.keys() & {"gen_ai.usage.input_tokens", "gen_ai.response.model"}


async def test_a_server_that_counts_without_details(serve: Serve, recorder: Recorder) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    brief = faults.rewrite(lambda event: event | {"usage": usage} if "usage" in event else event)
    async with open_client(serve(Reply("Hello.", faults=(brief,))), recorder) as client:
        await client.complete(model="m", messages=HI)
    told = recorder.span("chat m").attributes or {}
    assert {name: value for name, value in told.items() if name.startswith("gen_ai.usage")} == {
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
    }


async def test_content_only_on_opt_in(serve: Serve, recorder: Recorder) -> None:
    call = ToolCall("look", '{"at": "sky"}')
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "u"}}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
                {"id": "c2", "type": "custom", "custom": {"name": "say", "input": "aha"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "blue"},
        {"role": "tool", "tool_call_id": "c2", "content": "said"},
    ]
    async with open_client(serve(Reply("It is blue.")), recorder) as client:
        await client.complete(model="quiet", messages=messages)
    server = serve([Reply("It is blue."), Reply("", tool_calls=(call,))])
    async with open_client(server, recorder, telemetry=recorder.telemetry(capture_content=True)) as client:
        await client.complete(model="text", messages=messages)
        await client.complete(model="tools", messages=messages)
    content = {"gen_ai.input.messages", "gen_ai.output.messages"}
    assert not (recorder.span("chat quiet").attributes or {}).keys() & content
    told = {name: (recorder.span(f"chat {name}").attributes or {}) for name in ("text", "tools")}
    assert json.loads(str(told["text"]["gen_ai.input.messages"])) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {
            "role": "user",
            "parts": [{"type": "text", "content": "hi"}, {"type": "image_url", "image_url": {"url": "u"}}],
        },
        {
            "role": "assistant",
            "parts": [
                {"type": "tool_call", "id": "c1", "name": "look", "arguments": "{}"},
                {"type": "tool_call", "id": "c2", "name": "say", "arguments": "aha"},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "blue"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c2", "response": "said"}]},
    ]
    assert json.loads(str(told["text"]["gen_ai.output.messages"])) == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "It is blue."}],
            "finish_reason": "stop",
        }
    ]
    (response,) = json.loads(str(told["tools"]["gen_ai.output.messages"]))
    assert response["finish_reason"] == "tool_calls"
    assert [(part["type"], part.get("name"), part.get("arguments")) for part in response["parts"]][-1] == (
        "tool_call",
        "look",
        '{"at": "sky"}',
    )


async def test_the_attempt_is_current_for_whoever_instruments_the_client(serve: Serve, recorder: Recorder) -> None:
    async def hook(_: httpx.Request) -> None:
        recorder.tracer.start_span("POST").end()

    async with (
        httpx.AsyncClient(transport=serve(), event_hooks={"request": [hook]}) as http_client,
        ChatClient("", base_url="http://x/v1", http_client=http_client, telemetry=recorder.telemetry()) as client,
    ):
        await client.complete(model="m", messages=HI)
    assert [child.name for child in recorder.children(recorder.span("attempt"))] == ["POST"]


async def test_true_reports_to_the_global_providers(
    serve: Serve, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: recorder.tracer_provider)
    monkeypatch.setattr("opentelemetry.metrics._internal.get_meter_provider", lambda: recorder.meter_provider)
    async with ChatClient("", base_url="http://x/v1", transport=serve(), telemetry=True) as client:
        await client.complete(model="m", messages=HI)
    assert recorder.names == ["queue", "attempt", "chat m"]
    assert "gen_ai.client.operation.duration" in recorder.metrics()


async def test_without_a_sdk_it_reports_to_nobody(serve: Serve) -> None:
    server = serve()
    async with AsyncChatGPTAdapter("sk-1", transport=server, telemetry=Telemetry()) as adapter:
        assert (await adapter.execute(Task("hi"))).success
    assert "traceparent" not in server.requests[0].headers


async def test_off_is_off(serve: Serve) -> None:
    server = serve()
    async with ChatClient("", base_url="http://x/v1", transport=server) as client:
        request = client._core.request("m", HI, {}, stream=False)
        assert request.observed is None
        await client.complete(model="m", messages=HI)
    assert "traceparent" not in server.requests[0].headers


def test_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("chatscope.telemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    ChatClient("", base_url="http://x/v1")
    with pytest.raises(ImportError, match=r"pip install 'chatscope\[otel\]'"):
        ChatClient("", base_url="http://x/v1", telemetry=True)
