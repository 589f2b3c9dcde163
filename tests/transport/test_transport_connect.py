"""Connecting: addresses, happy eyeballs, Unix sockets, TLS."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx
import pytest
from tests.support.responses import OK, answered

from chatscope.testing import LOOPS
from chatscope.transport import HTTPTransport, connect, resolver, streams
from chatscope.transport.resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.responses import Build
    from tests.support.socket_server import Peer, Serve, Server

    from chatscope.testing.loops import Backend


V4, V6 = socket.AF_INET, socket.AF_INET6


def resolve_by(monkeypatch: pytest.MonkeyPatch, lookup: Callable[[], Any]) -> None:
    """Have every host name looked up by a function."""
    getaddrinfo = socket.getaddrinfo

    def look_up(host: str, port: int, *, flags: int = 0, **kwargs: Any) -> Any:
        return getaddrinfo(host, port, flags=flags, **kwargs) if flags else lookup()

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[int, Any]) -> None:
    resolve_by(monkeypatch, lambda: [(family, socket.SOCK_STREAM, 0, "", address) for family, address in addresses])


@pytest.fixture
def silent_address() -> Any:
    """An address whose attempts hang: its backlog is full and nobody accepts."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        yield address
        for filler in fillers:
            filler.close()


async def test_localhost_that_listens_on_the_second_address_only(
    serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve.responses(OK)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        refusing = unused.getsockname()
    resolve_to(monkeypatch, (V4, refusing), (V4, ("127.0.0.1", server.port)))
    async with HTTPTransport() as transport:
        assert (await answered(transport, request_to("http://chat.example/"))).content == b"ok"


async def test_an_address_that_is_silent_does_not_hold_up_the_next(
    serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch, silent_address: Any
) -> None:
    monkeypatch.setattr(connect, "ATTEMPT_DELAY", 0.01)
    server = serve.responses(OK)
    resolve_to(monkeypatch, (V4, silent_address), (V4, ("127.0.0.1", server.port)))
    async with HTTPTransport() as transport:
        assert (await answered(transport, request_to("http://chat.example/"))).content == b"ok"
        assert transport.statistics().connects == 1


async def test_two_attempts_that_both_succeed_leave_one_connection(
    serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve.responses(OK)
    address = ("127.0.0.1", server.port)
    both = anyio.Event()
    connect_socket = streams.connect_socket
    connected = 0

    async def together(sock: socket.socket, address: Any) -> None:
        nonlocal connected
        with anyio.CancelScope(shield=True):
            await connect_socket(sock, address)
            connected += 1
            if connected == 2:
                both.set()
            await both.wait()

    monkeypatch.setattr(connect, "connect_socket", together)
    monkeypatch.setattr(connect, "ATTEMPT_DELAY", 0)
    resolve_to(monkeypatch, (V4, address), (V4, address))
    async with HTTPTransport() as transport:
        assert (await answered(transport, request_to("http://chat.example/"))).content == b"ok"
        await anyio.to_thread.run_sync(server.wait_closed)
        assert transport.statistics().open == 1


async def test_an_attempt_that_succeeds_too_late_is_closed(
    serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is cancelled in the very turn in which it gets its connection."""
    server = serve.responses(OK)
    address = ("127.0.0.1", server.port)

    async def late(sock: socket.socket, address: Any) -> None:
        with anyio.CancelScope(shield=True):
            await streams.connect_socket(sock, address)
            scope.cancel()

    monkeypatch.setattr(connect, "connect_socket", late)
    resolve_to(monkeypatch, (V4, address), (V4, address))
    async with HTTPTransport() as transport:
        with anyio.CancelScope() as scope:
            await answered(transport, request_to("http://chat.example/"))
        assert scope.cancelled_caught
        assert transport.statistics().connects == 0
        await anyio.to_thread.run_sync(server.wait_closed)


async def test_nobody_answers(request_to: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        refusing = unused.getsockname()
    resolve_to(monkeypatch, (V4, refusing), (V4, refusing))
    request = request_to("http://chat.example/")
    async with HTTPTransport() as transport:
        with pytest.raises(
            httpx.ConnectError, match=r"^chat\.example port 80: no address accepts a connection: "
        ) as caught:
            await answered(transport, request)
        assert caught.value.request is request
        resolve_to(monkeypatch, (V4, refusing))
        with pytest.raises(httpx.ConnectError, match=r"refused|Connect call failed"):
            await answered(transport, request)
        assert transport.statistics().connects == 0


async def test_addresses_alternate_between_families(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, (V6, "a"), (V6, "b"), (V4, "c"), (V4, "d"), (V4, "e"))
    order = [address for _, address in await Resolver().resolve("chat.example", 80)]
    assert order == ["a", "c", "b", "d", "e"]


async def test_a_literal_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_by(monkeypatch, pytest.fail)
    assert await Resolver().resolve("::1", 80) == [(V6, ("::1", 80, 0, 0))]
    assert await Resolver().resolve("127.0.0.1", 80) == [(V4, ("127.0.0.1", 80))]


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_AGAIN])
async def test_a_name_that_does_not_resolve_is_looked_up_once_for_all_who_wait(
    request_to: Build, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail() -> None:
        lookups.append(code)
        go.wait()
        raise socket.gaierror(code, "no address")

    async def call() -> None:
        with pytest.raises(httpx.ConnectError, match=r"^chat\.example port 80: .*no address") as caught:
            await transport.handle_async_request(request_to("http://chat.example/"))
        errors.append(caught.value.__cause__)

    lookups: list[int] = []
    errors: list[BaseException | None] = []
    go = threading.Event()
    resolve_by(monkeypatch, fail)
    async with HTTPTransport() as transport, anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert lookups == [code]
    assert len(set(map(id, errors))) == 3
    assert all(isinstance(error, socket.gaierror) and error.errno == code for error in errors)


@pytest.mark.parametrize("backend", LOOPS)
def test_a_name_server_that_hangs_holds_up_nobody(
    request_to: Build, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    """Neither a deadline, nor a later lookup of the same name, nor the end of the event loop's run."""

    def hang() -> list[object]:
        started.append(True)
        go.wait(10)
        ended.append(True)
        return []

    async def main() -> None:
        request = request_to("http://chat.example/", extensions={"timeout": {"connect": 0.05}})
        async with HTTPTransport() as transport:
            for patience, lookups in ((5.0, 1), (5.0, 1), (0.0, 2)):
                monkeypatch.setattr(resolver, "LOOKUP_PATIENCE", patience)
                with pytest.raises(httpx.ConnectTimeout):
                    await transport.handle_async_request(request)
                assert len(started) == lookups

    started: list[bool] = []
    ended: list[bool] = []
    go = threading.Event()
    resolve_by(monkeypatch, hang)
    name, options = backend
    anyio.run(main, backend=name, backend_options=options)
    assert not ended
    go.set()


async def test_a_name_that_no_resolver_takes(request_to: Build) -> None:
    async with HTTPTransport() as transport:
        with pytest.raises(httpx.ConnectError, match="label"):
            await answered(transport, request_to("http://" + "x" * 70 + ".example/"))


async def test_connecting_takes_too_long(request_to: Build, silent_address: Any) -> None:
    host, port = silent_address
    request = request_to(f"http://{host}:{port}/", extensions={"timeout": {"connect": 0.05}})
    async with HTTPTransport() as transport:
        with pytest.raises(httpx.ConnectTimeout, match=rf"127\.0\.0\.1 port {port} in 0\.05 s") as caught:
            await answered(transport, request)
        assert caught.value.request is request
        assert transport.statistics().connects == 0


async def test_another_scheme(request_to: Build) -> None:
    request = request_to("ftp://chat.example/")
    async with HTTPTransport() as transport:
        with pytest.raises(httpx.UnsupportedProtocol, match="'ftp'") as caught:
            await transport.handle_async_request(request)
        assert caught.value.request is request
        with pytest.raises(httpx.UnsupportedProtocol, match="no host"):
            await transport.handle_async_request(request_to("http:///path"))


async def test_ipv6(request_to: Build) -> None:
    def accept() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(65536)
            sock.sendall(OK)

    try:
        listener = socket.create_server(("::1", 0), family=V6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener:
        thread = threading.Thread(target=accept)
        thread.start()
        async with HTTPTransport() as transport:
            url = f"http://[::1]:{listener.getsockname()[1]}/"
            assert (await answered(transport, request_to(url))).content == b"ok"
        thread.join()


async def test_unix_sockets(serve: Serve, request_to: Build, tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        for _ in range(2):
            peer.request()
            peer.send(OK)
        peer.wait_closed()

    server = serve(script, uds=tmp_path / "socket")
    async with HTTPTransport(uds=str(tmp_path / "socket")) as transport:
        for _ in range(2):
            assert (await answered(transport, request_to("http://chat.example/v1"))).content == b"ok"
        assert transport.statistics().reuses == 1
    assert server.requests[0].startswith(b"POST /v1 HTTP/1.1\r\nHost: chat.example\r\n")


async def test_a_unix_socket_that_is_not_there(request_to: Build, tmp_path: Path) -> None:
    async with HTTPTransport(uds=str(tmp_path / "socket")) as transport:
        with pytest.raises(httpx.ConnectError, match="No such file"):
            await answered(transport, request_to("http://chat.example/"))


async def test_a_unix_socket_with_a_full_backlog(serve: Serve, request_to: Build, tmp_path: Path) -> None:
    """It refuses at once (EAGAIN) instead of letting the client wait, so the client tries until there is room."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as filler:
            filler.connect(path)

            def accept() -> None:
                listener.accept()[0].close()
                sock, _ = listener.accept()
                with sock:
                    sock.recv(65536)
                    sock.sendall(OK)

            thread = threading.Thread(target=accept)
            async with HTTPTransport(uds=path) as transport, anyio.create_task_group() as group:
                group.start_soon(answered, transport, request_to("http://chat.example/"))
                await anyio.wait_all_tasks_blocked()
                thread.start()
            thread.join()


async def test_tls(serve: Serve, request_to: Build, server_context: Any, client_context: Any) -> None:
    names: list[str | None] = []
    server_context.sni_callback = lambda sock, name, context: names.append(name)
    server_context.set_alpn_protocols(["http/1.1"])
    big = b"x" * 3_000_000
    server = serve.responses(
        OK, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(big) + big, context=server_context
    )
    async with HTTPTransport(verify=client_context) as transport:
        url = f"https://localhost:{server.port}/"
        assert (await answered(transport, request_to(url))).content == b"ok"
        assert (await answered(transport, request_to(url, content=big))).content == big
        assert transport.statistics().reuses == 1
    assert names == ["localhost"]
    assert server.requests[1].endswith(big)


@pytest.mark.parametrize("verify", [True, "context"])
async def test_a_certificate_that_is_not_trusted(
    serve: Serve, request_to: Build, server_context: Any, verify: bool | str
) -> None:
    server = serve.responses(OK, context=server_context)
    context = True if verify is True else ssl.create_default_context()
    async with HTTPTransport(verify=context) as transport:
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            await answered(transport, request_to(server))
        await anyio.to_thread.run_sync(server.wait_closed)
        assert transport.statistics().connects == 0


async def test_the_server_is_told_why_its_certificate_is_refused(
    serve: Serve, request_to: Build, server_context: Any
) -> None:
    def script(peer: Peer) -> None:
        try:
            server_context.wrap_socket(peer._sock, server_side=True)
        except ssl.SSLError as exc:
            reasons.append(exc.reason)

    reasons: list[str] = []
    server = serve(script)
    async with HTTPTransport() as transport:
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            await answered(transport, request_to(server.url.replace("http", "https")))
        await anyio.to_thread.run_sync(server.wait_closed)
    assert reasons == ["TLSV1_ALERT_UNKNOWN_CA"]


async def test_a_certificate_for_another_name(
    serve: Serve, request_to: Build, server_context: Any, client_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve.responses(OK, context=server_context)
    resolve_to(monkeypatch, (V4, ("127.0.0.1", server.port)))
    async with HTTPTransport(verify=client_context) as transport:
        with pytest.raises(httpx.ConnectError, match=re.escape("certificate is not valid for 'chat.example'")):
            await answered(transport, request_to("https://chat.example/"))


async def test_any_certificate_will_do_if_asked(serve: Serve, request_to: Build, server_context: Any) -> None:
    server = serve.responses(OK, context=server_context)
    async with HTTPTransport(verify=False) as transport:
        assert (await answered(transport, request_to(server))).content == b"ok"


async def test_a_server_that_insists_on_http2(
    serve: Serve, request_to: Build, server_context: Any, client_context: Any
) -> None:
    server_context.set_alpn_protocols(["h2"])
    client_context.set_alpn_protocols(["h2"])
    server = serve.responses(OK, context=server_context)
    async with HTTPTransport(verify=client_context) as transport:
        with pytest.raises(httpx.ConnectError, match="the server chose 'h2'"):
            await answered(transport, request_to(server))


async def test_the_peer_breaks_off_the_handshake(serve: Serve, request_to: Build, client_context: Any) -> None:
    def script(peer: Peer) -> None:
        peer._more()

    server = serve(script)
    async with HTTPTransport(verify=client_context) as transport:
        with pytest.raises(httpx.ConnectError):
            await answered(transport, request_to(server.url.replace("http", "https")))


async def test_the_handshake_takes_too_long(serve: Serve, request_to: Build, client_context: Any) -> None:
    server = serve(lambda peer: peer.wait_closed())
    url = server.url.replace("http", "https")
    async with HTTPTransport(verify=client_context) as transport:
        with pytest.raises(httpx.ConnectTimeout):
            await answered(transport, request_to(url, extensions={"timeout": {"connect": 0.05}}))
        await anyio.to_thread.run_sync(server.wait_closed)


@pytest.mark.parametrize("polite", [True, False], ids=["close_notify", "no close_notify"])
async def test_a_body_that_the_end_of_a_tls_connection_ends(
    serve: Serve, request_to: Build, server_context: Any, client_context: Any, polite: bool
) -> None:
    """Without close_notify anybody could have cut it off: RFC 8446, section 6.1."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        if polite:
            peer._sock = peer._sock.unwrap()  # type: ignore[attr-defined]  # an SSLSocket here
        else:
            peer.close()

    server = serve(script, context=server_context)
    async with HTTPTransport(verify=client_context) as transport:
        response = await transport.handle_async_request(request_to(server))
        if polite:
            assert await response.aread() == b"hello"
        else:
            with pytest.raises(httpx.ReadError, match="EOF"):
                await response.aread()
        assert transport.statistics().open == 0


async def test_an_idle_tls_connection_that_the_server_closed_is_not_used(
    serve: Serve, request_to: Build, server_context: Any, client_context: Any
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(OK)

    server: Server = serve(script, context=server_context)
    async with HTTPTransport(verify=client_context) as transport:
        await answered(transport, request_to(server))
        await anyio.to_thread.run_sync(server.wait_closed)
        await anyio.wait_all_tasks_blocked()
        await answered(transport, request_to(server))
        statistics = transport.statistics()
        assert (statistics.connects, statistics.reuses, statistics.resent) == (2, 0, 0)


async def test_a_large_body_over_tls_that_is_answered_early(
    serve: Serve, request_to: Build, server_context: Any, client_context: Any
) -> None:
    done = threading.Event()

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
        peer.wait(done)

    server = serve(script, context=server_context)
    async with HTTPTransport(verify=client_context) as transport:
        try:
            response = await answered(transport, request_to(server, content=b"x" * 20_000_000))
        finally:
            done.set()
        assert (response.status_code, response.content) == (413, b"no")
        assert transport.statistics().open == 0
