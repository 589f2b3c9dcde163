"""The streams by themselves: turns of the loop that no server can bring about at will."""

from __future__ import annotations

import asyncio
import select
import socket
from typing import TYPE_CHECKING

import pytest

from chatscope.transport.streams import attach, batched, on_asyncio
from chatscope.transport.streams.arrivals import arrivals_on
from chatscope.transport.streams.batched import BatchedStream
from chatscope.transport.streams.on_asyncio import AsyncioStream

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


on_both_loops = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("has_poll", [True, False])
@pytest.mark.parametrize("arriving", [b"x", b""])
def test_what_has_arrived_is_told_and_not_read(
    pair: tuple[socket.socket, socket.socket], has_poll: bool, arriving: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_poll:
        monkeypatch.delattr(select, "poll")
    ours, theirs = pair
    has_arrived = arrivals_on(ours)
    assert not has_arrived()
    theirs.send(arriving) if arriving else theirs.close()
    assert has_arrived()
    assert ours.recv(1) == arriving


async def waiting(stream: AsyncioStream) -> asyncio.Task[bytes]:
    """Begin to receive, and let the timeout be over in the next turn."""
    task = asyncio.create_task(stream.receive(1000))
    await asyncio.sleep(0)
    stream._deadline = 0.0
    return task


async def test_bytes_that_come_in_the_turn_of_the_timeout_count(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = await attach(pair[0])
    assert isinstance(stream, AsyncioStream)
    task = await waiting(stream)
    stream._on_timer()
    stream.data_received(b"hello")
    assert await task == b"hello"
    stream.abort()


async def test_a_timeout_in_the_turn_of_the_bytes_does_not(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = await attach(pair[0])
    assert isinstance(stream, AsyncioStream)
    task = await waiting(stream)
    stream.data_received(b"hello")
    stream._on_timer()
    assert await task == b"hello"
    stream.abort()


async def test_who_watches_is_told_of_a_server_that_sends_without_end(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    stream = await attach(pair[0])
    assert isinstance(stream, AsyncioStream)
    told: list[bool] = []
    stream.watch(lambda: told.append(True))
    stream.data_received(b"x" * on_asyncio.HIGH_WATER)
    assert told == []
    stream.data_received(b"x")
    assert told == [True]
    stream.abort()


async def test_who_watches_is_told_at_once_of_an_end_that_has_come(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = await attach(pair[0])
    assert isinstance(stream, AsyncioStream)
    stream.eof_received()
    told: list[bool] = []
    stream.watch(None)
    stream.watch(lambda: told.append(True))
    assert told == [True]
    stream.abort()


async def test_reading_stops_at_the_high_mark_and_goes_on_below_the_low_one(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    stream = await attach(pair[0])
    assert isinstance(stream, AsyncioStream)
    part = b"x" * on_asyncio.LOW_WATER
    parts = on_asyncio.HIGH_WATER // len(part) + 1
    for _ in range(parts):
        assert stream._transport.is_reading()
        stream.data_received(part)
    assert not stream._transport.is_reading()
    for _ in range(parts - 1):
        assert not stream._transport.is_reading()
        assert stream.poll() == part
    assert stream._transport.is_reading()
    stream.abort()


def received(sock: socket.socket) -> bytes:
    """Return what has been sent so far."""
    sock.setblocking(False)
    try:
        return sock.recv(1_000_000)
    except BlockingIOError:
        return b""


@on_both_loops
async def test_what_is_written_in_one_turn_goes_out_in_the_next(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = await attach(pair[0])
    stream.write(b"one ")
    stream.write(b"two")
    assert received(pair[1]) == b""
    await asyncio.sleep(0)
    assert received(pair[1]) == b"one two"
    stream.write(b"three")
    await asyncio.sleep(0)
    assert received(pair[1]) == b"three"
    stream.abort()


@on_both_loops
async def test_what_is_large_goes_out_at_once_and_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = await attach(pair[0])
    large = b"x" * (batched.WRITE_LATER - 2)
    stream.write(b"one")
    stream.write(large)
    assert received(pair[1]) == b"one" + large
    await asyncio.sleep(0)
    assert received(pair[1]) == b""
    stream.abort()


@on_both_loops
async def test_what_is_cancelled_in_its_turn_never_goes_out(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = await attach(pair[0])
    stream.write(b"one")
    stream.abort()
    await asyncio.sleep(0)
    assert received(pair[1]) == b""
    with pytest.raises(BrokenPipeError):
        stream.write(b"two")


@on_both_loops
async def test_what_goes_out_in_the_next_turn_is_unsent_until_then(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = await attach(pair[0])
    stream.write(b"one")
    assert stream.unsent()
    await asyncio.sleep(0)
    assert not stream.unsent()
    stream.abort()


@on_both_loops
async def test_a_write_that_the_system_refuses_is_known_in_the_next_turn(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    stream = await attach(pair[0])
    pair[1].close()
    stream.write(b"one")
    assert not stream.write_refused
    await asyncio.sleep(0)
    assert stream.write_refused
    stream.abort()


class SlowTransport(asyncio.Transport):
    """Takes everything, and sends only what a test says."""

    size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.size += len(data)

    def get_write_buffer_size(self) -> int:
        return self.size

    def is_closing(self) -> bool:
        return False


async def test_an_interruption_while_one_stream_sends_keeps_no_other_from_sending(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = [BatchedStream(asyncio.get_running_loop(), pair[0]) for _ in range(3)]
    transports = [SlowTransport() for _ in streams]
    for stream, transport in zip(streams, transports, strict=True):
        stream.connection_made(transport)
        stream.write(b"one")
    monkeypatch.delattr(SlowTransport, "size")
    transports[0].size = transports[2].size = 0  # the second one raises AttributeError
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [transports[0].size, transports[2].size, len(told)] == [3, 3, 1]


async def test_what_was_put_off_does_not_hide_what_was_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    """A slow upload makes progress although what waits to be sent has grown since it was last looked at."""
    transport = SlowTransport()
    stream = BatchedStream(asyncio.get_running_loop(), pair[0])
    stream.connection_made(transport)
    stream.pause_writing()

    async def send() -> bool:
        stream.write(b"x" * 50_000)
        return await stream.flush(1000)

    task = asyncio.create_task(send())
    await asyncio.sleep(0)  # it waits
    await asyncio.sleep(0)  # and what it has written goes out
    assert transport.size == 50_000
    transport.size -= 1
    stream._deadline = 0.0
    stream._on_timer()
    await asyncio.sleep(0)
    assert not task.done()
    stream.resume_writing()
    assert await task


async def test_what_goes_wrong_in_the_turn_of_the_timeout_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = await attach(pair[0])
    assert isinstance(stream, AsyncioStream)

    def take(data: bytes) -> bool:
        raise LookupError(data)

    task = asyncio.create_task(stream.pump(take, 1000))
    await asyncio.sleep(0)
    stream._deadline = 0.0
    stream._pump_within = None
    stream._on_timer()
    stream.data_received(b"hello")
    with pytest.raises(LookupError):
        await task
    stream.abort()
