"""TLS in memory: the records that carry no data, and those that end or break the stream."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

import pytest

from chatscope.transport.tls import TLSStream

if TYPE_CHECKING:
    from collections.abc import Callable


class MemoryStream:
    """A `SocketStream` between the client under test and an `ssl` server object."""

    read_ns = 7
    write_refused = False

    def __init__(self, server_context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server_context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.watched: Callable[[], object] | None = None
        self.abandoned = False
        self.blocked = 0

    async def receive(self, within: float | None) -> bytes:
        return self.outgoing.read()

    async def pump(self, on_bytes: Callable[[bytes], bool], within: float | None) -> bool:
        raise AssertionError

    def write(self, data: bytes) -> bool:
        self.incoming.write(data)
        if self.server.version() is None:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.server.do_handshake()
        return not self.unsent()

    async def flush(self, within: float | None) -> bool:
        self.blocked -= 1
        return self.blocked < 0

    def unsent(self) -> bool:
        return self.blocked > 0

    def poll(self) -> bytes | None:
        return self.outgoing.read() or None

    def is_quiet(self) -> bool:
        raise AssertionError

    def watch(self, on_lost: Callable[[], object] | None) -> bool:
        self.watched = on_lost
        return True

    def abort(self) -> None:
        raise AssertionError

    def abandon(self) -> None:
        self.abandoned = True


@pytest.fixture
async def raw(server_context: ssl.SSLContext) -> MemoryStream:
    return MemoryStream(server_context)


@pytest.fixture
async def client(raw: MemoryStream, client_context: ssl.SSLContext) -> TLSStream:
    stream = TLSStream(raw, client_context, "localhost")
    await stream.handshake()
    return stream


async def test_session_tickets_are_nothing_to_receive(raw: MemoryStream, client: TLSStream) -> None:
    assert raw.outgoing.pending > 0
    assert client.poll() is None
    assert raw.outgoing.pending == 0
    raw.server.write(b"hello")
    assert client.poll() == b"hello"
    assert client.read_ns == 7


async def test_session_tickets_do_not_stop_an_upload(raw: MemoryStream, client: TLSStream) -> None:
    raw.blocked = 2
    assert await client.flush(None)
    raw.blocked = 2
    raw.server.write(b"early")
    assert not await client.flush(None)
    assert await client.receive(None) == b"early"


async def test_records_in_parts(raw: MemoryStream, client: TLSStream) -> None:
    raw.server.write(b"x" * 40_000)
    wire = raw.outgoing.read()
    received = b""
    for start in range(0, len(wire), 1000):
        raw.outgoing.write(wire[start : start + 1000])
        received += client.poll() or b""
    assert received == b"x" * 40_000


async def test_a_large_write(raw: MemoryStream, client: TLSStream) -> None:
    client.write(b"x" * 100_000)
    received = b""
    while len(received) < 100_000:
        received += raw.server.read(100_000)
    assert received == b"x" * 100_000


async def test_close_notify_is_the_end(raw: MemoryStream, client: TLSStream) -> None:
    raw.server.write(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        raw.server.unwrap()
    assert await client.receive(None) == b"last words"
    assert await client.receive(None) == b""
    assert client.poll() == b""


async def test_an_end_without_close_notify_is_an_error(raw: MemoryStream, client: TLSStream) -> None:
    client.poll()
    with pytest.raises(ssl.SSLEOFError):
        await client.receive(None)


async def test_broken_records(raw: MemoryStream, client: TLSStream) -> None:
    raw.outgoing.write(b"no TLS at all, certainly")
    assert client.poll() == b""


async def test_the_rest_is_passed_on(raw: MemoryStream, client: TLSStream) -> None:
    def lost() -> None:
        pass

    client.watch(lost)
    assert raw.watched is lost
    client.abandon()
    assert raw.abandoned
