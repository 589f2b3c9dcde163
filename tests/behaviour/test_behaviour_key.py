"""The key is sent and shows nowhere else: in no message, repr, log line or traceback, nor where a server repeats it."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from chatscope import AsyncChatGPTAdapter, ChatClient, ChatError, RetryPolicy, Task
from chatscope.protocol.endpoint import Endpoint
from chatscope.simulator import Carrier, Reply, error, faults, respond

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

KEY = "sk-" + "very/secret+key"
"""With characters that JSON may escape: PHP and Go servers do."""

ESCAPED = "".join(f"\\u{ord(character):04x}" for character in KEY)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment has the key, so that no frame of a test has it in an argument."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def policy() -> RetryPolicy:
    """Try twice, without waiting."""
    return RetryPolicy(attempts=2, initial=0, jitter=0)


def all_of(error: BaseException, *, local_names: bool = True) -> str:
    """Return everything that a careless program could print about an error, the locals of all frames included."""
    shown = [str(error), repr(error), repr(vars(error))]
    shown += traceback.TracebackException.from_exception(error, capture_locals=local_names).format()
    return "\n".join(shown)


def check_hidden(*texts: str) -> None:
    escaped = KEY.replace("/", r"\/")
    for text in texts:
        for secret in (KEY, escaped, KEY[3:], escaped[3:]):
            assert secret not in text


ECHOES: dict[str, Any] = {
    "a refusal": error(401, f"Incorrect API key provided: {KEY}."),
    "a refusal with slashes escaped": respond(
        401, f'{{"error": {{"message": "Bad key: {KEY}", "code": "{KEY}"}}}}'.replace("/", r"\/").encode()
    ),
    "a refusal with all escaped": respond(401, f'{{"error": {{"message": "{ESCAPED}"}}}}'.encode()),
    "a page": respond(403, f"<html>{KEY}</html>".encode(), "text/html"),
    "a page with success": respond(200, f"<html>{KEY}</html>".encode(), "text/html"),
    "a passing failure": error(503, f"Overloaded: {KEY}"),
    "a code": error(400, "no", code=KEY, param=KEY, kind=KEY),
    "an error in the stream": faults.stream_error(1, message=f"Bad key {KEY}", code=KEY),
    "an error event": faults.stream_error(1, message=f"Bad key {KEY}", carrier=Carrier.EVENT),
    "an error field": faults.stream_error(1, message=f"Bad key {KEY}", carrier=Carrier.FIELD),
    "no JSON in the stream": faults.insert(f"data: {KEY}\n\n".encode(), 1),
    "an error object with success": respond(200, f'{{"error": {{"message": "{KEY}"}}}}'.encode()),
    "JSON that is no completion": respond(200, f'{{"key": "{KEY}"}}'.encode()),
}


@pytest.mark.one_loop
@pytest.mark.parametrize("answer", ECHOES.values(), ids=ECHOES.keys())
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
async def test_where_the_server_repeats_it(
    serve: Serve, answer: Any, stream: bool, policy: RetryPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve(answer)
    async with AsyncChatGPTAdapter(transport=server, retry=policy) as adapter:
        result = await adapter.execute(Task("hi", parameters={"stream": stream}))
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    if result.exception is None:  # a fault in a stream says nothing about a plain response
        assert not stream
        return
    # Not the locals: the bytes that the server sent are in those of the frame that reads them.
    check_hidden(repr(result), str(result.error), all_of(result.exception, local_names=False), caplog.text)


@pytest.mark.one_loop
@pytest.mark.parametrize("failure", [httpx.ConnectError, httpx.ReadTimeout, httpx.DecodingError])
async def test_where_the_transport_repeats_it(
    serve: Serve, failure: type[Exception], policy: RetryPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    def script(request: object) -> Reply:
        raise failure(f"the header 'Bearer {KEY}' was not understood")

    caplog.set_level(logging.DEBUG)
    async with AsyncChatGPTAdapter(transport=serve(script), retry=policy) as adapter:
        result = await adapter.execute(Task("hi"))
    assert result.exception is not None
    check_hidden(repr(result), all_of(result.exception), caplog.text)


async def test_a_transports_message_is_cleaned(serve: Serve, policy: RetryPolicy) -> None:
    def script(request: object) -> Reply:
        raise httpx.ConnectError(f"proxy said: {KEY}")

    async with AsyncChatGPTAdapter(transport=serve(script), retry=policy) as adapter:
        result = await adapter.execute(Task("hi"))
    assert str(result.error).startswith("no connection to api.openai.com:443: proxy said: *** (POST ")


async def test_the_default_transport(policy: RetryPolicy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with AsyncChatGPTAdapter(base_url="http://127.0.0.1:1/v1", retry=policy) as adapter:  # tcpmux: nobody listens
        result = await adapter.execute(Task("hi"))
    assert result.exception is not None
    check_hidden(repr(result), all_of(result.exception), caplog.text)


async def test_a_client_of_the_users(serve: Serve, policy: RetryPolicy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        httpx.AsyncClient(transport=serve(error(401))) as http_client,
        AsyncChatGPTAdapter(http_client=http_client, retry=policy) as adapter,
    ):
        result = await adapter.execute(Task("hi"))
    assert result.exception is not None
    check_hidden(repr(result), all_of(result.exception), caplog.text)


async def test_the_client_without_an_adapter(serve: Serve, policy: RetryPolicy) -> None:
    request: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with ChatClient(transport=serve(error(401)), retry=policy) as client:
        with pytest.raises(ChatError) as plain:
            await client.complete(**request)
        with pytest.raises(ChatError) as streamed:
            async with client.stream(**request):
                pass
    check_hidden(all_of(plain.value), all_of(streamed.value))


async def test_the_objects_themselves(serve: Serve) -> None:
    server: MemoryServer = serve()
    adapter = AsyncChatGPTAdapter(transport=server)
    client = ChatClient(transport=server)
    async with adapter, client:
        handle = adapter.start_task(Task("hi"))
        stream = client.stream(model="m", messages=[{"role": "user", "content": "hi"}])
        async with stream:
            shown = [repr(thing) for thing in (adapter, client, handle, stream, handle.stream(), stream.response)]
        result = await handle.wait()
    shown += [repr(result), repr(adapter.get_adapter_status()), str(adapter), repr(Endpoint("http://a", KEY))]
    check_hidden(*shown)


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "ftp://example.com"},
        {"base_url": "example.com"},
        {"base_url": "http://[half"},
        {"default_headers": {"x-a": "1\r\nx-b: 2"}},
        {"timeout": -1},
        {"max_concurrency": 0},
        {"organization": "a\nb"},
    ],
)
def test_bad_arguments(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))) as caught:
        AsyncChatGPTAdapter(**options)
    check_hidden(all_of(caught.value))


def test_a_key_that_can_never_be_right(monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in (f"{KEY}\n", f"{KEY}é"):
        monkeypatch.setenv("OPENAI_API_KEY", bad)
        with pytest.raises(ValueError, match="api_key") as caught:
            AsyncChatGPTAdapter()
        check_hidden(str(caught.value), repr(caught.value))
