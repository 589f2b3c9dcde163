"""One request on the wire: what it may be refused for, what becomes of httpx's errors, what a server has taught."""

from __future__ import annotations

import gzip
import traceback
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.lowlevel
import httpx
import pytest

from chatscope import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncChatGPTAdapter,
    AuthenticationError,
    BadRequestError,
    ChatClient,
    ChatError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
    Task,
    Timeouts,
    UnprocessableEntityError,
)
from chatscope.protocol.error_body import BODY_LIMIT
from chatscope.simulator import Reply, Stage, error, faults, respond

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

    from chatscope.simulator import ChatRequest, Response

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}

ONCE = RetryPolicy(attempts=1)
DEFAULTS: dict[str, Any] = {"retry": ONCE}


def open_client(transport: httpx.AsyncBaseTransport, **options: Any) -> ChatClient:
    return ChatClient(api_key="sk-1", transport=transport, **(DEFAULTS | options))


# -- include_usage -----------------------------------------------------------------------------------------------------


class OldServer:
    """Refuses `stream_options`, as a script for the server in memory."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        self.refusal = error(status, message, param=param)

    def __call__(self, request: ChatRequest) -> Response | Reply:
        return self.refusal if "stream_options" in request.body else Reply("Hello, world.")


def options_sent(server: MemoryServer) -> list[bool]:
    return ["stream_options" in body for body in server.bodies]


@pytest.mark.one_loop
@pytest.mark.parametrize(
    "script",
    [
        OldServer(400, "Unrecognized request argument supplied: stream_options"),
        OldServer(422, "extra fields not permitted: include_usage"),
        OldServer(400, "Not allowed.", param="stream_options"),
    ],
)
async def test_a_server_that_rejects_it_is_asked_again_without_and_remembered(serve: Serve, script: OldServer) -> None:
    server = serve(script)
    async with AsyncChatGPTAdapter("sk-1", transport=server, retry=ONCE) as adapter:
        first = await adapter.execute(Task("hi"))
        second = await adapter.execute(Task("hi"))
    assert (first.output, second.output) == ("Hello, world.", "Hello, world.")
    assert (first.attempts, second.attempts) == (2, 1)
    assert options_sent(server) == [True, False, False]
    assert server.open == 0


async def test_other_refusals_stand(serve: Serve) -> None:
    rows: list[tuple[int, str, type[APIStatusError]]] = [
        (400, "No such model.", BadRequestError),
        (422, "Too long.", UnprocessableEntityError),
        (401, "stream_options needs a key", AuthenticationError),
        (404, "stream_options not found", NotFoundError),
    ]
    for status, message, kind in rows:
        server = serve(error(status, message))
        async with open_client(server) as client:
            with pytest.raises(kind, match=message):
                await client.stream(**ASK).__aenter__()
        assert options_sent(server) == [True]


async def test_a_second_refusal_stands(serve: Serve) -> None:
    server = serve(error(400, "stream_options and everything else is refused"))
    async with open_client(server) as client:
        with pytest.raises(BadRequestError):
            await client.stream(**ASK).__aenter__()
    assert options_sent(server) == [True, False]


async def test_what_the_user_gave_is_left_alone(serve: Serve) -> None:
    server = serve(OldServer(400, "stream_options is not supported"))
    async with open_client(server) as client:
        with pytest.raises(BadRequestError):
            await client.stream(**ASK, stream_options={"include_usage": True}).__aenter__()
        with pytest.raises(BadRequestError):
            await client.stream(**ASK, extra_body={"stream_options": None}).__aenter__()
        server.script = Reply("Hello, world.")
        async with client.stream(**ASK, stream_options={"include_obfuscation": False}) as stream:
            assert "".join([chunk.text async for chunk in stream]) == "Hello, world."
    assert [body["stream_options"] for body in server.bodies] == [
        {"include_usage": True},
        None,
        {"include_obfuscation": False},
    ]


async def test_a_plain_request_has_no_stream_options(serve: Serve) -> None:
    server = serve(OldServer(400, "stream_options is not supported"))
    async with open_client(server) as client:
        await client.complete(**ASK)
        server.script = Reply("Hello, world.")
        async with client.stream(**ASK):
            pass
    assert options_sent(server) == [False, True], "a request without them says nothing about the server"


async def test_many_at_once_find_out_together(serve: Serve) -> None:
    server = serve(OldServer(400, "stream_options is not supported"))
    async with AsyncChatGPTAdapter("sk-1", transport=server, retry=ONCE) as adapter:
        handles = [adapter.start_task(Task("hi")) for _ in range(5)]
        results = [await handle.wait() for handle in handles]
    assert all(result.success for result in results)
    assert max(result.attempts for result in results) == 2


# -- httpx's errors ----------------------------------------------------------------------------------------------------


def failing(failure: Exception) -> httpx.MockTransport:
    def respond(request: httpx.Request) -> httpx.Response:
        raise failure

    return httpx.MockTransport(respond)


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("failure", "kind", "phase"),
    [
        (httpx.ConnectError("refused"), APIConnectionError, None),
        (httpx.ReadError("reset"), APIConnectionError, None),
        (httpx.WriteError("broken pipe"), APIConnectionError, None),
        (httpx.RemoteProtocolError("closed"), APIConnectionError, None),
        (httpx.ProxyError("407"), APIConnectionError, None),
        (httpx.UnsupportedProtocol("gopher"), APIConnectionError, None),
        (httpx.ConnectTimeout("slow"), APITimeoutError, "connect"),
        (httpx.PoolTimeout("full"), APITimeoutError, "connect"),
        (httpx.ReadTimeout("slow"), APITimeoutError, "headers"),
        (httpx.WriteTimeout("slow"), APITimeoutError, "headers"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_httpxs_errors_become_this_packages(failure: Exception, kind: type[ChatError], phase: str | None) -> None:
    async with open_client(failing(failure), timeout=7) as client:
        for stream in (False, True):
            call = client.stream(**ASK).__aenter__() if stream else client.complete(**ASK)
            with pytest.raises(kind) as caught:
                await call
            assert type(caught.value) is kind
            assert (caught.value.phase, caught.value.attempts) == (phase, 1)
            assert caught.value.__cause__ is failure


async def test_what_is_not_httpxs_comes_out_as_it_is() -> None:
    failure = ZeroDivisionError("in the transport")
    async with open_client(failing(failure), retry=RetryPolicy(initial=0, jitter=0)) as client:
        with pytest.raises(ZeroDivisionError) as caught:
            await client.complete(**ASK)
    assert caught.value is failure


async def test_an_error_without_words_is_named() -> None:
    async with open_client(failing(httpx.ReadError(""))) as client:
        with pytest.raises(APIConnectionError, match=r"no response from api\.openai\.com:443: ReadError"):
            await client.complete(**ASK)


async def test_an_error_without_a_key_to_hide() -> None:
    async with ChatClient(api_key="", transport=failing(httpx.ReadError("reset by *** peer")), retry=ONCE) as client:
        with pytest.raises(APIConnectionError, match=r"reset by \*\*\* peer"):
            await client.complete(**ASK)


async def test_a_key_is_hidden_in_a_failure_and_its_causes_however_it_is_escaped() -> None:
    for repeated in ("sk-a/b+c", "sk-a%2Fb%2Bc", "sk-a\\/b+c"):
        failure = httpx.ConnectError(f"no way to https://gate/?key={repeated}")
        failure.__cause__ = ValueError("inner", {"key": repeated})
        async with ChatClient("sk-a/b+c", transport=failing(failure), retry=ONCE) as client:
            with pytest.raises(APIConnectionError) as caught:
                await client.complete(**ASK)
        assert repeated not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("hedged", [False, True])
async def test_only_a_request_without_a_hedge_is_sent_again_when_its_connection_was_lost(
    serve: Serve, hedged: bool
) -> None:
    """The other attempt is still running, and paid for."""
    async with open_client(serve(), retry=3) as client:
        request = client._core.request("m", ASK["messages"], {}, stream=False)
        if (acquiring := request.acquire_permit(hedged=hedged)) is not None:
            await acquiring
        request._on_send()
        assert request._on_lost(httpx.ReadError("gone")) is not hedged
        request.release_permit()


async def test_a_key_is_hidden_in_the_id_that_a_server_gives(serve: Serve) -> None:
    server = serve(Reply("Hello.", faults=(faults.header("x-request-id", "for-sk-0123456789"),)))
    async with ChatClient("sk-0123456789", transport=server) as client:
        assert (await client.complete(**ASK)).request_id == "for-***"


async def test_a_connect_timeout_names_its_own_seconds() -> None:
    for timeout, seconds in ((Timeouts(connect=3, read=7), 3), (7, 7)):
        async with open_client(failing(httpx.ConnectTimeout("slow")), timeout=timeout) as client:
            with pytest.raises(APITimeoutError, match=f"no connection within {seconds} s"):
                await client.complete(**ASK)


# -- bodies ------------------------------------------------------------------------------------------------------------


async def test_a_compressed_response() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        body = gzip.compress(b'{"choices": [{"message": {"content": "Hello"}}]}')
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=_Parts([body[:9], body[9:]]))

    async with open_client(httpx.MockTransport(respond)) as client:
        assert (await client.complete(**ASK)).text == "Hello"


async def test_a_response_that_cannot_be_decoded() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=_Parts([b"no gzip"]))

    async with open_client(httpx.MockTransport(respond)) as client:
        with pytest.raises(InvalidResponseError, match="cannot be decoded"):
            await client.complete(**ASK)


async def test_of_an_error_page_only_so_much_is_kept(serve: Serve) -> None:
    server = serve(respond(400, b"x" * (3 * BODY_LIMIT), "text/html"))
    async with open_client(server) as client:
        with pytest.raises(BadRequestError) as caught:
            await client.complete(**ASK)
    assert isinstance(caught.value.body, str)
    assert len(caught.value.body) == BODY_LIMIT
    assert len(str(caught.value)) < 1000
    assert server.open == 0


async def test_an_error_page_without_end_is_read_no_further() -> None:
    body = _Parts(b"x" * 16_384 for _ in iter(int, 1))

    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(502, stream=body)

    async with open_client(httpx.MockTransport(respond)) as client:
        with pytest.raises(ChatError, match="HTTP 502"):
            await client.complete(**ASK)
    assert body.closed


async def test_an_error_whose_body_breaks_off_is_still_that_error(serve: Serve) -> None:
    server = serve(faults.close(Stage.CONTENT)(error(429, "Slow down.")))
    async with open_client(server) as client:
        with pytest.raises(RateLimitError, match="HTTP 429"):
            await client.complete(**ASK)


async def test_what_an_error_carries(serve: Serve) -> None:
    headers = (("x-request-id", "req_theirs"), ("x-should-retry", "false"), ("retry-after", "3"))
    server = serve(error(429, "Slow down.", code="rate_limit_exceeded", kind="tokens", param="model", headers=headers))
    async with open_client(server) as client:
        with pytest.raises(RateLimitError) as caught:
            await client.complete(**ASK)
    raised = caught.value
    assert (raised.status, raised.status_code, raised.code) == (429, 429, "rate_limit_exceeded")
    assert (raised.type, raised.param) == ("tokens", "model")
    assert (raised.retry_after, raised.should_retry, raised.attempts) == (3, False, 1)
    assert raised.body == {
        "error": {"message": "Slow down.", "type": "tokens", "param": "model", "code": "rate_limit_exceeded"}
    }
    assert raised.message == "HTTP 429: Slow down."
    assert str(raised) == f"HTTP 429: Slow down. ({raised.where})"
    assert raised.where == "POST https://api.openai.com/v1/chat/completions"


@pytest.mark.parametrize("closing", [httpx.ReadError("gone"), httpx.CloseError("gone")])
async def test_closing_that_fails_hides_nothing(closing: httpx.RequestError) -> None:
    body = _Parts([b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\ndata: [DONE]\n\n'], closing)

    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=body)

    async with open_client(httpx.MockTransport(respond)) as client, client.stream(**ASK) as stream:
        assert [chunk.text async for chunk in stream] == ["Hi"]
    assert body.closed


async def test_a_cancelled_refusal_is_closed() -> None:
    body = _Parts(None)

    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500, stream=body)

    async with open_client(httpx.MockTransport(respond)) as client, anyio.create_task_group() as group:
        group.start_soon(lambda: client.complete(**ASK))
        await anyio.wait_all_tasks_blocked()
        assert not body.closed
        group.cancel_scope.cancel()
    assert body.closed


class _Parts(httpx.AsyncByteStream):
    """A body in parts; `None` for one that never comes. Its closing may fail."""

    def __init__(self, parts: Any, closing: Exception | None = None) -> None:
        self._parts = None if parts is None else iter(parts)
        self._closing = closing
        self.closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._parts is None:
            await anyio.sleep_forever()
        else:
            for part in self._parts:
                await anyio.lowlevel.checkpoint()
                return bytes(part)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True
        if self._closing is not None:
            raise self._closing
