"""ChatClient.complete: one request, one completion; its parameters, its limits, its retries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import httpx
import msgspec
import pytest

from chatscope import (
    APITimeoutError,
    BadRequestError,
    ChatClient,
    InternalServerError,
    InvalidResponseError,
    RateLimitError,
    RetryPolicy,
    StreamError,
    StreamProtocolError,
    StreamServerError,
    StreamTruncatedError,
    Timeouts,
)
from chatscope._limits.circuit_breaker import DOWN_AFTER
from chatscope.simulator import ErrorShape, Reply, Stage, ToolCall, error, faults, respond

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Write hello world"}]}

AT_ONCE = RetryPolicy(initial=0, jitter=0)

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def completion_of(**fields: Any) -> Any:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    return respond(200, msgspec.json.encode({"object": "chat.completion", "choices": [choice], **fields}))


# -- a completion ------------------------------------------------------------------------------------------------------


async def test_a_completion(serve: Serve) -> None:
    server = serve()
    async with ChatClient(api_key="sk-1", transport=server) as client:
        completion = await client.complete(**ASK, temperature=0)
    assert completion.text == completion.message.content == "Hello, world."
    assert (completion.finish_reason, completion.request_id, completion.model) == ("stop", "req_1", "gpt-4o-mini")
    assert completion.usage is not None
    assert completion.usage.total_tokens == 13
    (request,) = server.requests
    assert (request.method, str(request.url)) == ("POST", "https://api.openai.com/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer sk-1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("chatscope/")
    assert server.bodies == [{**ASK, "temperature": 0}]
    assert (server.open, server.closed) == (0, True)


async def test_unknown_fields_stay_reachable(serve: Serve) -> None:
    async with ChatClient(api_key="k", transport=serve(completion_of(brand_new={"a": 1}))) as client:
        completion = await client.complete(**ASK)
    assert completion.extra == {"brand_new": {"a": 1}}
    assert completion.to_dict()["brand_new"] == {"a": 1}


async def test_several_choices_and_tool_calls(serve: Serve) -> None:
    server = serve(Reply(tool_calls=(ToolCall("f", {"x": 1}),)))
    async with ChatClient(api_key="k", transport=server) as client:
        completion = await client.complete(**ASK, n=2, tools=TOOLS)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert completion.message.tool_calls is not None
    assert completion.message.tool_calls[0].function.arguments == '{"x": 1}'


async def test_blank_lines_before_the_body(serve: Serve) -> None:
    """DeepSeek sends them while a request waits."""
    async with ChatClient(api_key="k", transport=serve(faults.blank_lines())) as client:
        assert (await client.complete(**ASK)).finish_reason == "stop"


async def test_a_stream_although_none_was_asked_for(serve: Serve) -> None:
    server = serve([Reply("Hello, world.", stream=True), Reply(stream=True, faults=(faults.end(2),))])
    async with ChatClient(api_key="k", transport=server, retry=RetryPolicy(attempts=1)) as client:
        assert (await client.complete(**ASK)).text == "Hello, world."
        with pytest.raises(StreamTruncatedError) as caught:
            await client.complete(**ASK)
    assert (caught.value.request_id, caught.value.attempts) == ("req_2", 1)


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("fault", "kind"), [(faults.malformed(2), StreamProtocolError), (faults.stream_error(2), StreamServerError)]
)
async def test_what_goes_wrong_in_it_names_its_request(
    serve: Serve, fault: faults.Fault, kind: type[StreamError]
) -> None:
    server = serve(Reply("Hello, world.", stream=True, faults=(fault,)))
    async with ChatClient(api_key="k", transport=server, retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises(kind) as caught:
            await client.complete(**ASK)
    assert (caught.value.request_id, caught.value.partial_text) == ("req_1", "Hello,")


async def test_a_body_that_cannot_be_decoded_names_its_request(serve: Serve) -> None:
    server = serve(respond(200, b"no gzip", headers=(("content-encoding", "gzip"),)))
    async with ChatClient(api_key="k", transport=server) as client:
        with pytest.raises(InvalidResponseError, match="cannot be decoded") as caught:
            await client.complete(**ASK)
    assert (caught.value.request_id, caught.value.status, caught.value.attempts) == ("req_1", 200, 1)


@pytest.mark.one_loop
@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'"text"', b"{}", b'{"choices', b"\xff", b"<html>", b"[" * 100_000]
)
async def test_what_is_no_completion(serve: Serve, body: bytes) -> None:
    server = serve(respond(200, body))
    async with ChatClient(api_key="k", transport=server) as client:
        with pytest.raises(InvalidResponseError, match=r"not a JSON completion|without choices") as caught:
            await client.complete(**ASK)
    assert (caught.value.request_id, caught.value.status, caught.value.attempts) == ("req_1", 200, 1)
    assert len(server.requests) == 1


async def test_a_response_that_is_too_large(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatscope._client.completion.MAX_BODY_BYTES", 100)
    server = serve(respond(200, b"x" * 101))
    async with ChatClient(api_key="k", transport=server) as client:
        with pytest.raises(InvalidResponseError, match="larger than 100 bytes") as caught:
            await client.complete(**ASK)
    assert (caught.value.request_id, caught.value.status, server.open) == ("req_1", 200, 0)


@pytest.mark.one_loop
@pytest.mark.parametrize("shape", [ErrorShape.NESTED, ErrorShape.FLAT, ErrorShape.STRING, ErrorShape.INT_CODE])
async def test_an_error_object_with_a_success_status(serve: Serve, shape: ErrorShape) -> None:
    answer = respond(200, error(400, "No.", shape=shape).content)
    async with ChatClient(api_key="k", transport=serve(answer)) as client:
        with pytest.raises(Exception, match="No") as caught:
            await client.complete(**ASK)
    if shape in {ErrorShape.FLAT, ErrorShape.INT_CODE}:
        assert isinstance(caught.value, BadRequestError)


# -- parameters --------------------------------------------------------------------------------------------------------


async def test_extra_body_headers_query(serve: Serve) -> None:
    server = serve()
    async with ChatClient(
        "k",
        base_url="https://a.example/v1?api-version=1",
        default_headers={"X-One": "1", "X-Two": "1"},
        transport=server,
    ) as client:
        await client.complete(
            **ASK,
            extra_body={"top_k": 5, "model": "another"},
            extra_headers={"x-two": "2", "Authorization": "Token t"},
            extra_query={"tag": ["a", "b c"]},
        )
        await client.complete(**ASK)
    first, second = server.requests
    assert str(first.url) == "https://a.example/v1/chat/completions?api-version=1&tag=a&tag=b+c"
    assert str(second.url) == "https://a.example/v1/chat/completions?api-version=1"
    assert (first.headers["x-one"], first.headers["x-two"]) == ("1", "2")
    assert (first.headers["authorization"], second.headers["authorization"]) == ("Token t", "Bearer k")
    assert (server.bodies[0]["top_k"], server.bodies[0]["model"]) == (5, "another")


async def test_an_unknown_parameter_is_refused_here(serve: Serve) -> None:
    server = serve()
    unknown = {**ASK, "top_k": 5}
    async with ChatClient(api_key="k", transport=server) as client:
        with pytest.raises(TypeError, match=r"top_k.*extra_body"):
            await client.complete(**unknown)
        with pytest.raises(TypeError, match=r"top_k.*extra_body"):
            client.stream(**unknown)
    assert server.requests == []


async def test_what_only_the_server_can_judge_is_sent(serve: Serve) -> None:
    server = serve()
    async with ChatClient(api_key="k", transport=server) as client:
        with pytest.raises(BadRequestError, match="temperature") as caught:
            await client.complete(**ASK, temperature=99)
    assert server.bodies[0]["temperature"] == 99
    assert (caught.value.status, caught.value.status_code, caught.value.param) == (400, 400, "temperature")
    assert caught.value.request_id == "req_1"


# -- its life ----------------------------------------------------------------------------------------------------------


async def test_it_is_used_in_its_block_only(serve: Serve) -> None:
    client = ChatClient(api_key="k", transport=serve())
    with pytest.raises(RuntimeError, match="use 'async with'"):
        await client.complete(**ASK)
    with pytest.raises(RuntimeError, match="use 'async with'"):
        client.stream(**ASK)
    async with client:
        with pytest.raises(RuntimeError, match="open already"):
            await client.__aenter__()
    with pytest.raises(RuntimeError, match="use 'async with'"):
        await client.complete(**ASK)
    await client.aclose()


async def test_without_a_key_it_does_not_open() -> None:
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        await ChatClient().__aenter__()


async def test_a_client_of_the_users_is_not_closed(serve: Serve) -> None:
    async with httpx.AsyncClient(transport=serve()) as http_client:
        async with ChatClient(api_key="k", http_client=http_client) as client:
            assert (await client.complete(**ASK)).text == "Hello, world."
        assert not http_client.is_closed


def test_what_it_says_about_itself() -> None:
    client = ChatClient("sk-secret", base_url="https://a.example/v1")
    assert client.base_url == "https://a.example/v1"
    assert client._core.options.has_key is True
    assert repr(client) == "<ChatClient https://a.example/v1>"
    assert ChatClient()._core.options.has_key is False


# -- limits, retries, cancellation -------------------------------------------------------------------------------------


async def test_retries(serve: Serve) -> None:
    server = serve([error(429), error(500), faults.close(Stage.STATUS), Reply("Hello, world.")])
    async with ChatClient(api_key="k", transport=server, retry=AT_ONCE) as client:
        assert (await client.complete(**ASK)).text == "Hello, world."
    assert len(server.requests) == 4


async def test_a_request_has_a_retry_policy_of_its_own(serve: Serve) -> None:
    server = serve(error(500))
    async with ChatClient(api_key="k", transport=server, retry=AT_ONCE) as client:
        with pytest.raises(InternalServerError) as caught:
            await client.complete(**ASK, retry=RetryPolicy(attempts=2, initial=0, jitter=0))
    assert (len(server.requests), caught.value.attempts) == (2, 2)


async def test_max_concurrency(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(Reply(faults=(faults.hold(Stage.CONTENT, release),)))
    async with (
        ChatClient(api_key="k", transport=server, max_concurrency=2) as client,
        anyio.create_task_group() as group,
    ):
        for _ in range(5):
            group.start_soon(lambda: client.complete(**ASK))
        await server.wait_for_requests(2)
        await anyio.wait_all_tasks_blocked()
        assert (server.open, len(server.requests)) == (2, 2)
        release.set()
    assert (server.peak, len(server.requests)) == (2, 5)


async def test_cancelled_it_closes_its_response(serve: Serve) -> None:
    for at in (Stage.STATUS, Stage.CONTENT):
        server = serve(faults.stall(at))
        async with ChatClient(api_key="k", transport=server, max_concurrency=1) as client:
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: client.complete(**ASK))
                await server.wait_for_requests(1)
                await anyio.wait_all_tasks_blocked()
                assert server.open == 1
                group.cancel_scope.cancel()
            assert server.open == 0
            server.script = Reply("Hello, world.")
            assert (await client.complete(**ASK)).text == "Hello, world."  # the slot is free again


class TestDeadlines:
    @pytest.fixture
    def anyio_backend(self, virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
        return virtual_time

    @pytest.mark.parametrize(
        ("limit", "phase", "seconds"),
        [(3, "headers", 3), (Timeouts(first_token=4), "first_token", 4), (Timeouts(total=5), "total", 5)],
    )
    async def test_of_one_request(self, serve: Serve, limit: Any, phase: str, seconds: float) -> None:
        server: MemoryServer = serve(faults.stall(Stage.STATUS))
        async with ChatClient(api_key="k", transport=server, retry=RetryPolicy(attempts=1)) as client:
            began = anyio.current_time()
            with pytest.raises(APITimeoutError, match=rf"{seconds} s \({phase}\)") as caught:
                await client.complete(**ASK, timeout=limit)
            assert anyio.current_time() - began == pytest.approx(seconds)
        assert (caught.value.phase, server.open) == (phase, 0)

    async def test_total_counts_waiting_and_retrying(self, serve: Serve) -> None:
        server = serve(error(503))
        policy = RetryPolicy(initial=4, jitter=0)
        async with ChatClient(api_key="k", transport=server, retry=policy, timeout=Timeouts(total=10)) as client:
            began = anyio.current_time()
            with pytest.raises(InternalServerError, match="waiting 8 s would pass the deadline of 10 s"):
                await client.complete(**ASK)
            assert anyio.current_time() - began == pytest.approx(4)

    async def test_total_knows_of_the_attempts(self, serve: Serve) -> None:
        server = serve([error(503), Reply(faults=(faults.stall(Stage.ROLE),))])
        policy = RetryPolicy(initial=4, jitter=0)
        async with ChatClient(api_key="k", transport=server, retry=policy, timeout=Timeouts(total=10)) as client:
            with pytest.raises(APITimeoutError, match=r"10 s \(total\)") as caught:
                await client.complete(**ASK, extra_body={"stream": True})
        assert (caught.value.attempts, caught.value.request_id) == (2, "req_2")

    async def test_the_queue(self, serve: Serve) -> None:
        server = serve(faults.stall(Stage.STATUS))
        async with (
            ChatClient(api_key="k", transport=server, timeout=None, max_concurrency=1) as client,
            anyio.create_task_group() as group,
        ):
            group.start_soon(lambda: client.complete(**ASK))
            await server.wait_for_requests(1)
            with pytest.raises(APITimeoutError, match=r"5 s \(queue\)") as caught:
                await client.complete(**ASK, timeout=Timeouts(total=5))
            assert (caught.value.phase, caught.value.attempts, caught.value.request_id) == ("queue", 0, None)
            group.cancel_scope.cancel()

    async def test_the_queue_of_a_server_that_is_down(self, serve: Serve) -> None:
        server = serve([*[error(503)] * DOWN_AFTER, faults.stall(Stage.STATUS)])
        once = RetryPolicy(attempts=1)
        async with (
            ChatClient(api_key="k", transport=server, timeout=None, max_concurrency=1, retry=once) as client,
            anyio.create_task_group() as group,
        ):
            for _ in range(DOWN_AFTER):
                with pytest.raises(InternalServerError):
                    await client.complete(**ASK)
            group.start_soon(lambda: client.complete(**ASK))  # a probe, which holds the only slot
            await server.wait_for_requests(DOWN_AFTER + 1)
            with pytest.raises(APITimeoutError, match=r"5 s \(queue\); last failure: HTTP 503") as caught:
                await client.complete(**ASK, timeout=Timeouts(total=5))
            assert isinstance(caught.value.__cause__, InternalServerError)
            group.cancel_scope.cancel()

    async def test_retry_after_is_waited_exactly(self, serve: Serve) -> None:
        server = serve([error(429, retry_after=7.25), Reply("Hello, world.")])
        async with ChatClient(api_key="k", transport=server) as client:
            await client.complete(**ASK)
        assert server.times[1] - server.times[0] == pytest.approx(7.25)

    async def test_retry_after_beyond_two_minutes_is_not(self, serve: Serve) -> None:
        async with ChatClient(api_key="k", transport=serve(error(429, retry_after=121))) as client:
            with pytest.raises(RateLimitError, match="more than 120 s"):
                await client.complete(**ASK)
