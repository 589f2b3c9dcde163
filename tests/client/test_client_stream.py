"""ChatClient.stream: chunks as they come, what they add up to, and every way to leave."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

from chatscope import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    ChatClient,
    ChatStream,
    InvalidResponseError,
    RetryPolicy,
    StreamProtocolError,
    StreamServerError,
    StreamTruncatedError,
    Timeouts,
)
from chatscope.simulator import Reply, Stage, error, faults, html, respond, simulator

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Write hello world"}]}

ONCE = RetryPolicy(attempts=1)
DEFAULTS: dict[str, Any] = {"retry": ONCE}
AT_ONCE = RetryPolicy(initial=0, jitter=0)


async def texts_of(stream: ChatStream, texts: list[str]) -> None:
    """Read to the end and keep what came, also before an error."""
    async for chunk in stream:
        texts.append(chunk.text)  # noqa: PERF401 - as said


async def read_all(stream: ChatStream) -> str:
    texts: list[str] = []
    async with stream:
        await texts_of(stream, texts)
    return "".join(texts)


def open_client(server: httpx.AsyncBaseTransport, **options: Any) -> ChatClient:
    return ChatClient(api_key="sk-1", transport=server, **(DEFAULTS | options))


async def test_chunks_and_what_they_add_up_to(serve: Serve) -> None:
    server = serve()
    async with open_client(server) as client:
        async with client.stream(**ASK, temperature=0.5) as stream:
            texts = [chunk.text async for chunk in stream if chunk.text]
            completion = stream.completion
        assert server.open == 0
    assert texts == ["Hello", ",", " world", "."]
    assert (completion.text, completion.finish_reason, completion.request_id) == ("Hello, world.", "stop", "req_1")
    assert completion.usage is not None
    assert completion.usage.total_tokens == 13
    assert server.bodies == [
        {**ASK, "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.5},
    ]


async def test_it_is_live(serve: Serve) -> None:
    gates = [anyio.Event(), anyio.Event()]
    server = serve(Reply("Hello, world.", faults=(faults.hold(1, gates[0]), faults.hold(2, gates[1]))))
    async with open_client(server) as client, client.stream(**ASK) as stream:
        texts: list[str] = []
        async for chunk in stream:
            texts.append(chunk.text)
            if chunk.text == "Hello":
                assert stream.completion.text == "Hello"
                gates[0].set()
            elif chunk.text == ",":
                gates[1].set()
    assert "".join(texts) == "Hello, world."


async def test_timings_of_what_did_not_happen(serve: Serve) -> None:
    async with open_client(serve(faults.close(Stage.STATUS))) as client:
        stream = client.stream(**ASK)
        timings = stream.timings
        assert (timings.sent_ns, timings.headers_ns, timings.finished_ns) == (None, None, None)
        assert timings.total_seconds is None
        with pytest.raises(APIConnectionError):
            await stream.__aenter__()
        assert stream.timings.sent_ns is not None
        assert stream.timings.finished_ns is None, "nothing was read"


async def test_timings(serve: Serve) -> None:
    async with open_client(serve()) as client, client.stream(**ASK) as stream:
        assert stream.timings.finished_ns is None
        assert stream.has_output
        async for _ in stream:
            pass
        timings = stream.timings
    assert timings.started_ns is not None
    assert timings.sent_ns is not None
    assert timings.headers_ns is not None
    assert timings.finished_ns is not None
    moments = [timings.submitted_ns, timings.started_ns, timings.sent_ns, timings.headers_ns, *timings.token_ns]
    assert all(one <= other for one, other in pairwise([*moments, timings.finished_ns]))
    assert len(timings.token_ns) == len(stream.token_ns) == 4


async def test_the_response_is_there_to_look_at(serve: Serve) -> None:
    async with open_client(serve()) as client:
        stream = client.stream(**ASK)
        assert stream.response is None
        async with stream:
            assert stream.response is not None
            assert stream.response.headers["openai-version"] == "2020-10-01"
            assert stream.request_id == "req_1"


async def test_nothing_is_sent_before_it_is_entered_and_it_is_entered_once(serve: Serve) -> None:
    server = serve()
    async with open_client(server) as client:
        stream = client.stream(**ASK)
        await anyio.wait_all_tasks_blocked()
        assert server.requests == []
        with pytest.raises(RuntimeError, match="use 'async with"):
            await anext(stream)
        async with stream:
            pass
        with pytest.raises(RuntimeError, match="entered once"):
            await stream.__aenter__()
    assert len(server.requests) == 1


async def test_closing_what_was_never_entered(serve: Serve) -> None:
    server = serve()
    async with open_client(server) as client:
        await client.stream(**ASK).aclose()
    assert server.requests == []


async def test_unknown_fields_stay_reachable(serve: Serve) -> None:
    new = faults.rewrite(lambda chunk: {**chunk, "brand_new": {"a": 1}})
    async with open_client(serve(Reply("Hello", faults=(new,)))) as client, client.stream(**ASK) as stream:
        chunks = [chunk async for chunk in stream]
    assert all(chunk.extra == {"brand_new": {"a": 1}} for chunk in chunks)
    assert stream.completion.extra == {"brand_new": {"a": 1}}


async def test_leaving_early_closes_the_response(serve: Serve) -> None:
    server = serve(faults.stall(2))
    async with open_client(server, max_concurrency=1) as client:
        async with client.stream(**ASK) as stream:
            async for chunk in stream:
                if chunk.text == "You":
                    break
            assert server.open == 1
        assert server.open == 0
        assert [chunk async for chunk in stream] == []
        assert stream.completion.text.startswith("You")
        await stream.aclose()
        server.script = Reply("Hello, world.")
        async with client.stream(**ASK) as stream:  # the slot is free
            assert "".join([chunk.text async for chunk in stream]) == "Hello, world."


@pytest.mark.one_loop
@pytest.mark.parametrize("in_memory", [False, True])
async def test_closing_it_ends_the_reading_of_another_task(serve: Serve, in_memory: bool) -> None:
    stalls = faults.stall(2)
    async with simulator(stalls) as url:
        texts: list[str] = []
        client = open_client(serve(stalls)) if in_memory else ChatClient("k", base_url=url, retry=ONCE)
        async with client, client.stream(**ASK) as stream, anyio.create_task_group() as group:
            group.start_soon(texts_of, stream, texts)
            while "".join(texts) != "You asked":
                await checkpoint()
            await stream.aclose()
        assert [chunk async for chunk in stream] == []
        assert stream.completion.text == "You asked"


async def test_a_whole_completion_although_a_stream_was_asked_for(serve: Serve) -> None:
    async with open_client(serve(Reply("Hello, world.", stream=False))) as client, client.stream(**ASK) as stream:
        (chunk,) = [chunk async for chunk in stream]
    assert chunk.text == stream.completion.text == "Hello, world."
    assert stream.completion.usage is not None


async def test_an_empty_response_that_is_complete(serve: Serve) -> None:
    async with open_client(serve(Reply(""))) as client, client.stream(**ASK) as stream:
        assert "".join([chunk.text async for chunk in stream]) == ""
    assert (stream.has_output, stream.completion.finish_reason) == (False, "stop")


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faults.end(2), StreamTruncatedError),
        (faults.close(2), StreamTruncatedError),
        (faults.reset(2), StreamTruncatedError),
        (faults.malformed(2), StreamProtocolError),
        (faults.stream_error(2, status=502, code="bad_gateway"), StreamServerError),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_the_chunks_come_before_the_error(serve: Serve, fault: faults.Fault, kind: type[Exception]) -> None:
    server = serve(Reply("Hello, world.", faults=(fault,)))
    async with open_client(server, retry=AT_ONCE) as client:
        texts: list[str] = []
        async with client.stream(**ASK) as stream:
            with pytest.raises(kind) as caught:
                await texts_of(stream, texts)
            assert "".join(texts) == "Hello,"
            assert stream.completion.text == "Hello,"
            with pytest.raises(StopAsyncIteration):  # an error is raised once
                await anext(stream)
    assert vars(caught.value)["partial_text"] == "Hello,"
    assert vars(caught.value)["request_id"] == "req_1"
    assert (len(server.requests), server.open) == (1, 0)


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(400), BadRequestError),
        (html(), InvalidResponseError),
        (respond(200, b"plain words", "text/plain"), InvalidResponseError),
        (faults.zero_bytes(), StreamTruncatedError),
        (faults.only_done(), StreamTruncatedError),
        (faults.stream_error(0), StreamServerError),
        (faults.close(Stage.STATUS), APIConnectionError),
        (faults.close(Stage.ROLE), StreamTruncatedError),
    ],
)
async def test_a_failure_before_the_first_token_comes_from_entering(
    serve: Serve, answer: Any, kind: type[Exception]
) -> None:
    server = serve(answer)
    async with open_client(server, max_concurrency=1) as client:
        for _ in range(2):  # twice, since the slot is given back
            with pytest.raises(kind) as caught:
                await client.stream(**ASK).__aenter__()
            assert type(caught.value) is kind
            if isinstance(caught.value, InvalidResponseError):
                assert (caught.value.status, caught.value.attempts) == (200, 1)
                assert caught.value.request_id == f"req_{len(server.requests)}"
            assert server.open == 0


async def test_attempts_before_the_first_token(serve: Serve) -> None:
    broken = [error(503), faults.zero_bytes(), faults.reset(0)]
    server = serve([*broken, Reply("Hello, world.")])
    async with open_client(server, retry=AT_ONCE) as client, client.stream(**ASK) as stream:
        assert "".join([chunk.text async for chunk in stream]) == "Hello, world."
    assert len(server.requests) == 4
    assert (server.open, stream.request_id) == (0, "req_4")


# -- cancellation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [Stage.STATUS, Stage.ROLE, 0])
async def test_cancelled_while_entering(serve: Serve, at: Stage | int) -> None:
    server = serve(faults.stall(at))
    async with open_client(server, max_concurrency=1) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.stream(**ASK).__aenter__)
            await server.wait_for_requests(1)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert server.open == 0
        server.script = Reply()
        async with client.stream(**ASK):
            pass


async def test_cancelled_while_reading(serve: Serve) -> None:
    server = serve(faults.stall(2))
    async with open_client(server) as client:
        stream = client.stream(**ASK)
        with anyio.CancelScope() as scope:
            async with stream:
                async for chunk in stream:
                    if chunk.text == " asked":
                        scope.cancel()
        assert scope.cancelled_caught
        assert (server.open, stream.completion.text) == (0, "You asked")


async def test_cancelled_while_waiting_for_its_turn(serve: Serve) -> None:
    server = serve(faults.stall(2))
    async with open_client(server, max_concurrency=1) as client, client.stream(**ASK):
        with anyio.move_on_after(0) as scope:
            await client.stream(**ASK).__aenter__()
        assert scope.cancelled_caught
    assert len(server.requests) == 1


async def test_a_cancelled_read_may_be_taken_up_again(serve: Serve) -> None:
    release = anyio.Event()
    server = serve(Reply("Hello, world.", faults=(faults.hold(2, release),)))
    async with open_client(server) as client, client.stream(**ASK) as stream:
        texts = [(await anext(stream)).text for _ in range(3)]
        with anyio.move_on_after(0) as scope:
            await anext(stream)
        assert scope.cancelled_caught
        release.set()
        texts += [chunk.text async for chunk in stream]
    assert "".join(texts) == "Hello, world."


async def test_a_cancelled_read_of_a_socket_ends_the_stream_with_this_packages_error() -> None:
    """The default transport closes a connection whose read is cancelled: half a read is worth nothing."""
    release = anyio.Event()
    reply = Reply("Hello, world.", faults=(faults.hold(2, release),))
    async with (
        simulator(reply) as base_url,
        ChatClient("k", base_url=base_url, retry=ONCE) as client,
        client.stream(**ASK) as stream,
    ):
        text = ""
        while text != "Hello,":
            text += (await anext(stream)).text
        with anyio.move_on_after(0) as scope:
            await anext(stream)
        assert scope.cancelled_caught
        release.set()
        with pytest.raises(StreamTruncatedError) as caught:
            await texts_of(stream, [])
    assert caught.value.partial_text == "Hello,"


# -- httpx's ways ------------------------------------------------------------------------------------------------------


async def test_a_body_that_is_a_generator_is_closed_in_order() -> None:
    """Left to the garbage collector, trio would warn of it."""
    closed: list[str] = []

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}\n\n'
            await anyio.sleep_forever()
        finally:
            closed.append("body")

    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=_Generated(body))

    async with ChatClient(api_key="k", transport=httpx.MockTransport(respond)) as client:
        async with client.stream(**ASK) as stream:
            assert (await anext(stream)).text == "Hello"
        assert closed == ["body"]
    gc.collect()


async def test_an_empty_read_is_not_the_end() -> None:
    """Some transports hand out empty parts, as HTTP/2 has empty frames."""

    async def body() -> AsyncIterator[bytes]:
        yield b""
        yield b'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}\n\n'
        yield b""
        yield b"data: [DONE]\n\n"

    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=_Generated(body))

    async with open_client(httpx.MockTransport(respond)) as client, client.stream(**ASK) as stream:
        assert [chunk.text async for chunk in stream] == ["Hello"]


class _Generated(httpx.AsyncByteStream):
    """A body whose every iteration is an async generator, as httpx's own are."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __aiter__(self) -> AsyncIterator[bytes]:
        made: AsyncIterator[bytes] = self._make()
        return made


# -- deadlines ---------------------------------------------------------------------------------------------------------


class TestDeadlines:
    @pytest.fixture
    def anyio_backend(self, virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
        return virtual_time

    @pytest.mark.parametrize(
        ("at", "limit", "phase", "seconds"),
        [
            (Stage.STATUS, 3, "headers", 3),
            (Stage.ROLE, 3, "first_token", 3),
            (2, 3, "idle", 3),
            (0, Timeouts(first_token=4), "first_token", 4),
            (2, Timeouts(idle=5), "idle", 5),
            (2, Timeouts(total=6), "total", 6),
        ],
    )
    async def test_silence(
        self, serve: Serve, at: Stage | int, limit: float | Timeouts, phase: str, seconds: float
    ) -> None:
        server = serve(faults.stall(at))
        async with open_client(server, timeout=limit) as client:
            began = anyio.current_time()
            with pytest.raises(APITimeoutError, match=phase) as caught:
                await read_all(client.stream(**ASK))
            assert anyio.current_time() - began == pytest.approx(seconds)
        assert (caught.value.phase, server.open) == (phase, 0)
        assert caught.value.partial_text == ("You asked" if at == 2 else "")

    async def test_total_while_entering_knows_of_the_attempts(self, serve: Serve) -> None:
        server = serve([error(503, retry_after=4), faults.stall(Stage.ROLE)])
        async with open_client(server, retry=RetryPolicy(), timeout=Timeouts(total=10)) as client:
            with pytest.raises(APITimeoutError, match=r"10 s \(total\)") as caught:
                await client.stream(**ASK).__aenter__()
        assert (caught.value.attempts, caught.value.request_id, server.open) == (2, "req_2", 0)

    async def test_idle_is_moved_by_every_chunk(self, serve: Serve) -> None:
        server = serve(Reply("Hello, world.", between_tokens=4))
        async with open_client(server, timeout=Timeouts(idle=5)) as client, client.stream(**ASK) as stream:
            assert "".join([chunk.text async for chunk in stream]) == "Hello, world."

    async def test_idle_is_not_moved_by_comments(self, serve: Serve) -> None:
        server = serve(faults.insert(faults.KEEP_ALIVE, 2, times=100, seconds=1))
        async with open_client(server, timeout=Timeouts(idle=5)) as client, client.stream(**ASK) as stream:
            began = anyio.current_time()
            with pytest.raises(APITimeoutError, match="idle"):
                await texts_of(stream, [])
            assert anyio.current_time() - began == pytest.approx(5)

    async def test_a_slow_reader_is_not_taken_for_a_silent_server(self, serve: Serve) -> None:
        server = serve(Reply("Hello, world."))
        async with open_client(server, timeout=Timeouts(idle=5)) as client, client.stream(**ASK) as stream:
            texts: list[str] = []
            async for chunk in stream:
                texts.append(chunk.text)
                await anyio.sleep(60)
        assert "".join(texts) == "Hello, world."

    async def test_waiting_for_a_turn(self, serve: Serve) -> None:
        server = serve(faults.stall(2))
        async with open_client(server, timeout=None, max_concurrency=1) as client, client.stream(**ASK):
            with pytest.raises(APITimeoutError) as caught:
                await client.stream(**ASK, timeout=Timeouts(total=5)).__aenter__()
        assert caught.value.phase == "queue"

    async def test_a_finished_response_that_falls_silent_is_complete(self, serve: Serve) -> None:
        server = serve(Reply("Hello, world.", faults=(faults.stall(Stage.USAGE),)))
        async with open_client(server) as client, client.stream(**ASK) as stream:
            began = anyio.current_time()
            assert "".join([chunk.text async for chunk in stream]) == "Hello, world."
            assert anyio.current_time() - began == pytest.approx(5)
