"""The server over real sockets: its responses, how connections end, what it records."""

from __future__ import annotations

import logging
import os
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import msgspec
import pytest
import trustme
from anyio.abc import ByteReceiveStream, ByteStream, TaskStatus
from tests.support.tables import row

from chatscope.simulator import (
    ChatRequest,
    Config,
    Outcome,
    Reply,
    Response,
    Simulator,
    Stage,
    error,
    faults,
    respond,
    serve,
    simulator,
)
from chatscope.simulator import connection as connection_module
from chatscope.simulator.limits import RateLimits
from chatscope.simulator.plan import Point, Until

Body = Callable[..., dict[str, Any]]
Chunks = Callable[[Response | bytes], list[dict[str, Any]]]

PATH = "/chat/completions"


def raw_request(body: dict[str, Any], *headers: str) -> bytes:
    content = msgspec.json.encode(body)
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: here", f"content-length: {len(content)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


async def connected(base_url: str, tls: ssl.SSLContext | None = None) -> ByteStream:
    url = httpx.URL(base_url)
    assert url.port is not None
    if tls is None:
        return await anyio.connect_tcp(url.host, url.port)
    return await anyio.connect_tcp(url.host, url.port, ssl_context=tls)


async def read_to_end(stream: ByteReceiveStream) -> bytes:
    """Read until the server closes the connection in good order."""
    received = b""
    while True:
        try:
            received += await stream.receive()
        except anyio.EndOfStream:
            return received


async def exchanged(base_url: str, sent: bytes) -> bytes:
    async with await connected(base_url) as stream:
        await stream.send(sent)
        return await read_to_end(stream)


def only(server: Simulator) -> Any:
    (received,) = server.requests
    return received


async def all_closed(server: Simulator) -> None:
    await server.wait_until(lambda s: s.connections_open == 0)


async def test_plain_and_streamed_on_one_connection(body: Body, chunks: Chunks) -> None:
    server = simulator(Reply("Hello, world."))
    async with server as base_url, httpx.AsyncClient(base_url=base_url) as client:
        plain = await client.post(PATH, json=body(), headers={"authorization": "Bearer sk-1"})
        streamed = await client.post(PATH, json=body(stream=True))
    assert plain.json()["choices"][0]["message"]["content"] == "Hello, world."
    assert plain.json()["created"] > 0
    assert (
        "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks(streamed.content))
        == "Hello, world."
    )
    assert [response.headers["x-request-id"] for response in (plain, streamed)] == ["req_00000001", "req_00000002"]
    assert (server.connections_accepted, server.connections_open, server.requests_received) == (1, 0, 2)
    first, second = server.requests
    assert (first.number, first.method, first.path, first.json) == (1, "POST", "/v1/chat/completions", body())
    assert first.outcome is second.outcome is Outcome.COMPLETED
    assert second.time >= first.time
    assert "sk-1" not in repr(first)


async def test_scripts_in_order_and_replaced(body: Body) -> None:
    server = simulator([error(500), Reply("one")])
    async with server as base_url, httpx.AsyncClient(base_url=base_url) as client:
        statuses = [(await client.post(PATH, json=body())).status_code for _ in range(3)]
        server.script = lambda request: Reply(request.prompt.upper())
        response = await client.post(PATH, json=body("shout"))
        server.script = [error(429), Reply("Hi")]
        again = [(await client.post(PATH, json=body())).status_code for _ in range(2)]
    assert statuses == [500, 200, 200]
    assert again == [429, 200], "a new script begins at its beginning"
    assert response.json()["choices"][0]["message"]["content"] == "SHOUT"


async def test_a_failing_script_is_a_500(body: Body, caplog: pytest.LogCaptureFixture) -> None:
    def script(request: ChatRequest) -> Reply:
        raise LookupError(request.prompt)

    async with simulator(script) as base_url, httpx.AsyncClient(base_url=base_url) as client:
        response = await client.post(PATH, json=body("hi"))
        again = await client.get("/models")
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "The script of the simulator failed: LookupError('hi')"
    assert response.headers["x-should-retry"] == "false", "a client that tries again would only take longer to tell"
    assert again.status_code == 200
    assert [record.levelno for record in caplog.records if record.name.startswith("chatscope")] == [logging.ERROR]


async def test_models_and_wrong_urls(body: Body) -> None:
    config = Config(models=("small", "large"))
    async with simulator(config=config) as base_url, httpx.AsyncClient(base_url=base_url) as client:
        models = await client.get("/models?limit=5")
        unknown = await client.post(PATH, json=body(model="medium"))
        known = await client.post(PATH, json=body(model="large"))
        lost = await client.post("/completions", json=body())
        wrong = await client.get(PATH)
    assert [model["id"] for model in models.json()["data"]] == ["small", "large"]
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert known.status_code == 200
    assert (lost.status_code, lost.json()["error"]["message"]) == (404, "Invalid URL (POST /v1/completions)")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_supported")


async def test_keys(body: Body) -> None:
    rows: list[tuple[dict[str, str], int, str | None]] = [
        ({}, 401, None),
        ({"authorization": "Bearer sk-wrong"}, 401, "invalid_api_key"),
        ({"authorization": "Bearer sk-right"}, 200, None),
        ({"api-key": "sk-right"}, 200, None),
    ]
    for headers, status, code in rows:
        with row(headers, status, code):
            config = Config(api_keys=frozenset({"sk-right"}))
            async with (
                simulator(config=config) as base_url,
                httpx.AsyncClient(base_url=base_url, headers=headers) as client,
            ):
                response = await client.post(PATH, json=body())
            assert response.status_code == status
            assert response.json().get("error", {}).get("code") == code


async def test_limits(body: Body) -> None:
    server = simulator([Reply("first"), Reply("second")], Config(requests_per_minute=1, tokens_per_minute=100))
    async with server as base_url, httpx.AsyncClient(base_url=base_url) as client:
        first = await client.post(PATH, json=body())
        refused = await client.post(PATH, json=body())
        server._endpoint._limits = RateLimits(None, None, now=0.0)
        second = await client.post(PATH, json=body())
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    assert first.headers["x-ratelimit-remaining-tokens"] == "91"
    assert (refused.status_code, refused.headers["x-ratelimit-limit-requests"]) == (429, "1")
    assert 59 < int(refused.headers["retry-after-ms"]) / 1000 <= 60
    # The refused request used up no response of the script.
    assert second.json()["choices"][0]["message"]["content"] == "second"
    assert "x-ratelimit-limit-requests" not in second.headers


async def test_directives_can_be_switched_off(body: Body) -> None:
    async with simulator() as base_url, httpx.AsyncClient(base_url=base_url) as client:
        heeded = await client.post(PATH, json=body("[simulate: status=418]"))
    config = Config(directives=False)
    async with simulator(config=config) as base_url, httpx.AsyncClient(base_url=base_url) as client:
        ignored = await client.post(PATH, json=body("[simulate: status=418]"))
    assert (heeded.status_code, ignored.status_code) == (418, 200)


async def test_a_fault_as_the_script_can_be_added_to(body: Body) -> None:
    async with simulator(faults.no_done()) as base_url, httpx.AsyncClient(base_url=base_url) as client:
        response = await client.post(PATH, json=body(stream=True), headers={"x-simulator": "bom"})
    assert response.content.startswith(b"\xef\xbb\xbfdata: ")
    assert b"[DONE]" not in response.content


async def test_bare_steps_and_own_request_ids(body: Body) -> None:
    plan = respond(200, b"{}", headers=(("X-Request-Id", "mine"),))
    async with simulator([plan, plan.plan()]) as base_url, httpx.AsyncClient(base_url=base_url) as client:
        responses = [await client.post(PATH, json=body()) for _ in range(2)]
    assert [response.headers["x-request-id"] for response in responses] == ["mine", "mine"]


async def test_only_the_latest_requests_are_kept(body: Body) -> None:
    server = simulator(config=Config(keep_requests=2))
    async with server as base_url, httpx.AsyncClient(base_url=base_url) as client:
        for _ in range(3):
            await client.post(PATH, json=body())
    assert [received.number for received in server.requests] == [2, 3]
    assert server.requests_received == 3


# -- HTTP --------------------------------------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order(body: Body) -> None:
    server = simulator([Reply("first"), Reply("second")])
    async with server as base_url:
        both = raw_request(body()) + raw_request(body(), "connection: close")
        response = await exchanged(base_url, both)
    assert response.count(b"HTTP/1.1 200 OK") == 2
    assert response.index(b'"first"') < response.index(b'"second"')
    assert [received.outcome for received in server.requests] == [Outcome.COMPLETED] * 2


async def test_a_request_sent_ahead_while_another_is_answered(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "PIPELINED_LIMIT", 10)
    responding = anyio.Event()
    server = simulator([Reply(faults=(faults.hold(Stage.STATUS, responding),)), Reply("second")])
    async with server as base_url, await connected(base_url) as stream:
        await stream.send(raw_request(body()))
        await server.wait_until(lambda s: len(s.requests) == 1)
        await stream.send(raw_request(body(), "connection: close"))
        responding.set()
        assert b'"second"' in await read_to_end(stream)


async def test_a_request_in_parts_and_in_chunks(body: Body) -> None:
    content = msgspec.json.encode(body())
    sent = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: here\r\nx-twice: 1\r\nx-twice: 2\r\n"
        b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    ) % (len(content), content)
    server = simulator()
    async with server as base_url, await connected(base_url) as stream:
        for place in range(0, len(sent), 50):
            await stream.send(sent[place : place + 50])
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 200 OK")
    assert only(server).json == body()
    assert only(server).headers["x-twice"] == "1, 2"


async def test_expect_100_continue(body: Body) -> None:
    sent = raw_request(body(), "expect: 100-continue", "connection: close")
    head, content = sent[: sent.index(b"{")], sent[sent.index(b"{") :]
    async with simulator() as base_url, await connected(base_url) as stream:
        await stream.send(head)
        assert (await stream.receive()).startswith(b"HTTP/1.1 100 ")
        await stream.send(content)
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 200 OK")


async def test_http_1_0_gets_no_chunks(body: Body, chunks: Chunks) -> None:
    sent = raw_request(body(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0")
    async with simulator() as base_url:
        head, _, content = (await exchanged(base_url, sent)).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"chunked" not in head
    assert chunks(content)


async def test_what_is_not_acceptable_http(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[bytes, bytes]] = [
        (b"hello?\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: here\r\nx: " + b"y" * 70_000, b"431"),
        (b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 11\r\n\r\nhello world", b"413"),
    ]
    for sent, status in rows:
        with row(sent, status):
            monkeypatch.setattr(connection_module, "BODY_LIMIT", 10)
            server = simulator()
            async with server as base_url:
                assert (await exchanged(base_url, sent)).startswith(b"HTTP/1.1 " + status)
                await all_closed(server)
            assert not server.requests


async def test_a_client_that_leaves_in_its_request(body: Body) -> None:
    server = simulator()
    async with server as base_url:
        async with await connected(base_url) as stream:
            await stream.send(raw_request(body())[:-5])
            await server.wait_until(lambda s: s.connections_open == 1)
        await all_closed(server)
    assert not server.requests


# -- endings -----------------------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_a_stalled_response_is_noticed(body: Body) -> None:
    rows: list[tuple[Point, bytes | None]] = [
        (Stage.STATUS, None),
        (Stage.HEADERS, b"200 OK\r\n"),
        (Stage.ROLE, b"\r\n\r\n"),
        (0, b'"role"'),
        (1, b'"one"'),
        (Stage.DONE, b'"stop"'),
        (Stage.END, b"[DONE]"),
    ]
    for at, marker in rows:
        with row(at, marker):
            server = simulator(Reply("one two", faults=(faults.stall(at),)))
            async with server as base_url:
                async with await connected(base_url) as stream:
                    await stream.send(raw_request(body(stream=True)))
                    received = b""
                    while marker is not None and marker not in received:
                        received += await stream.receive()
                    await server.wait_until(lambda s: len(s.requests) == 1)
                    assert only(server).outcome is Outcome.RUNNING
                await server.wait_until(lambda s: s.requests[0].outcome is Outcome.DISCONNECTED)
                await all_closed(server)


async def test_a_client_that_leaves_a_busy_server_is_noticed(body: Body) -> None:
    rows: list[Reply] = [
        Reply(first_token=3600.0),
        Reply(faults=(faults.endless(),)),
        Reply(faults=(faults.endless(seconds=0.01),)),
        Reply(faults=(faults.endless_headers(),)),
        Reply(faults=(faults.endless_line(),)),
    ]
    for reply in rows:
        with row(reply):
            server = simulator(reply)
            async with server as base_url:
                async with await connected(base_url) as stream:
                    await stream.send(raw_request(body(stream=True)))
                    await stream.receive()
                await server.wait_until(lambda s: s.requests[0].outcome is Outcome.DISCONNECTED)
                await all_closed(server)


async def test_closed_connections(body: Body) -> None:
    rows: list[Point] = [Stage.STATUS, Stage.ROLE, 1, Stage.END, Stage.IDLE]
    for at in rows:
        with row(at):
            server = simulator(Reply("one two", faults=(faults.close(at),)))
            async with server as base_url:
                received = await exchanged(base_url, raw_request(body(stream=True)))
            assert received.endswith(b"0\r\n\r\n") == (at is Stage.IDLE)
            assert (received == b"") == (at is Stage.STATUS)
            assert only(server).outcome is Outcome.CUT


async def test_reset_connections(body: Body) -> None:
    rows: list[Point] = [Stage.STATUS, 1]
    for at in rows:
        with row(at):
            server = simulator(Reply("one two", faults=(faults.reset(at),)))
            async with server as base_url, await connected(base_url) as stream:
                await stream.send(raw_request(body(stream=True)))
                with pytest.raises(anyio.BrokenResourceError) as caught:
                    await read_to_end(stream)
                await all_closed(server)
            assert isinstance(caught.value.__cause__, ConnectionResetError)
            assert only(server).outcome is Outcome.CUT


async def test_a_held_response_goes_on_when_told(body: Body) -> None:
    event = anyio.Event()
    server = simulator(Reply("one two", faults=(faults.hold(1, event),)))
    async with server as base_url, await connected(base_url) as stream:
        await stream.send(raw_request(body(stream=True), "connection: close"))
        received = b""
        while b'"one"' not in received:
            received += await stream.receive()
        assert b'" two"' not in received
        event.set()
        assert b"[DONE]" in await read_to_end(stream)


async def test_many_streams_at_once(body: Body, chunks: Chunks) -> None:
    server = simulator(Reply("one two", first_token=0.01, between_tokens=0.01))
    lengths = []

    async def read(base_url: str) -> None:
        lengths.append(len(await exchanged(base_url, raw_request(body(stream=True), "connection: close"))))

    async with server as base_url, anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(read, base_url)
    assert len(set(lengths)) == 1
    assert len(lengths) == server.requests_received == server.connections_accepted == 200


# -- the server's own life ---------------------------------------------------------------------------------------------


async def test_leaving_closes_the_connections(body: Body) -> None:
    server = simulator(faults.stall(Stage.ROLE))
    async with server as base_url:
        stream = await connected(base_url)
        await stream.send(raw_request(body()))
        await server.wait_until(lambda s: len(s.requests) == 1)
    async with stream:
        assert (await read_to_end(stream)).startswith(b"HTTP/1.1 200 OK")
    assert (only(server).outcome, server.connections_open) == (Outcome.CUT, 0)
    with pytest.raises(OSError, match=r".+"):
        await connected(base_url)


async def test_an_exception_of_the_block_passes_through() -> None:
    with pytest.raises(LookupError, match="mine"):
        async with simulator():
            raise LookupError("mine")


async def test_cancellation_of_the_block_passes_through(body: Body) -> None:
    server = simulator(faults.stall())
    with anyio.CancelScope() as scope:
        async with server as base_url, await connected(base_url) as stream:
            await stream.send(raw_request(body(stream=True)))
            await stream.receive()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert server.connections_open == 0


async def test_an_address_in_use() -> None:
    async with simulator() as base_url:
        port = httpx.URL(base_url).port
        assert port is not None
        with pytest.raises(OSError, match=r".+"):
            async with simulator(port=port):
                pass


async def test_a_failing_connection_leaves_the_server_alive(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ByteStream):
        closed = False

        async def receive(self, max_bytes: int = 65536) -> bytes:
            raise LookupError

        async def send(self, item: bytes) -> None:
            raise NotImplementedError

        async def send_eof(self) -> None:
            raise NotImplementedError

        async def aclose(self) -> None:
            self.closed = True

    server, stream = simulator(), Broken()
    async with server:
        await server._serve(stream)
        assert (server.connections_open, stream.closed) == (0, True)
    assert "A connection of the simulator failed." in caplog.text


async def test_ipv6_and_names() -> None:
    async with simulator(host="::1") as base_url, httpx.AsyncClient() as client:
        assert base_url.startswith("http://[::1]:")
        assert (await client.get(f"{base_url}/models")).status_code == 200


async def test_unix_socket(tmp_path: Path, body: Body) -> None:
    path = tmp_path / "chat.sock"
    server = simulator(uds=path)
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with server as base_url, httpx.AsyncClient(transport=transport, base_url=base_url) as client:
        assert base_url == "http://localhost/v1"
        assert (await client.post(PATH, json=body())).status_code == 200


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_tls(body: Body, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    server = simulator([Reply("Hello"), faults.reset(), faults.stall(1)], ssl_context=server_tls)
    async with server as base_url, httpx.AsyncClient(base_url=base_url, verify=client_tls) as client:
        assert base_url.startswith("https://127.0.0.1:")
        response = await client.post(PATH, json=body(stream=True))
        assert b"Hello" in response.content
        with pytest.raises(httpx.ReadError):
            await client.post(PATH, json=body(stream=True))
        stream = await connected(base_url, client_tls)
        await stream.send(raw_request(body(stream=True)))
        assert (await stream.receive()).startswith(b"HTTP/1.1 200 OK")
        await anyio.aclose_forcefully(stream)  # without a word of TLS
        await server.wait_until(lambda s: s.requests[-1].outcome is Outcome.DISCONNECTED)
    assert [received.outcome for received in server.requests] == [
        Outcome.COMPLETED,
        Outcome.CUT,
        Outcome.DISCONNECTED,
    ]


async def test_tls_client_that_never_says_goodbye(
    body: Body, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """Closing TLS waits for the other side, but not for long."""
    server = simulator(faults.stall(Stage.ROLE), ssl_context=server_tls)
    async with server as base_url:
        stream = await connected(base_url, client_tls)
        await stream.send(raw_request(body()))
        await server.wait_until(lambda s: len(s.requests) == 1)
    assert server.connections_open == 0
    await anyio.aclose_forcefully(stream)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_serve_until_a_signal(number: signal.Signals) -> None:
    async def run(*, task_status: TaskStatus[str]) -> None:
        await serve(script=Reply("Hi"), on_ready=task_status.started)

    async with anyio.create_task_group() as group, httpx.AsyncClient() as client:
        base_url = await group.start(run)
        assert (await client.get(f"{base_url}/models")).status_code == 200
        os.kill(os.getpid(), number)


async def test_requests_beyond_max_running_wait_their_turn(body: Body) -> None:
    """A refusal needs no slot, and a client that leaves gives up its place."""
    gate = anyio.Event()
    held = respond(200, b"{}").interrupted(Stage.STATUS, Until(gate))
    server = simulator([held, respond(200, b"{}")], Config(max_running=1))
    ended: list[str] = []

    async def ask(name: str, client: httpx.AsyncClient) -> None:
        await client.post(PATH, json=body(name))
        ended.append(name)

    async with server as base_url, httpx.AsyncClient(base_url=base_url) as client, anyio.create_task_group() as group:
        for number, name in enumerate(("first", "second", "third"), 1):
            group.start_soon(ask, name, client)
            await server.wait_until(lambda s, number=number: s.requests_received == number)  # type: ignore[misc]
        async with await connected(base_url) as leaving:
            await leaving.send(raw_request(body("leaves")))
            await server.wait_until(lambda s: s.requests_received == 4)
        await server.wait_until(lambda s: s.requests[3].outcome is Outcome.DISCONNECTED)
        assert (await client.get("/models")).status_code == 200
        assert (await client.post(PATH, json={})).status_code == 400
        assert not ended
        gate.set()
    assert ended == ["first", "second", "third"]
    assert server.requests[0].outcome is Outcome.COMPLETED
