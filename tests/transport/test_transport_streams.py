"""The streams by themselves: turns of the loop that no server can bring about at will."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from chatscope.transport.streams import attach, on_asyncio
from chatscope.transport.streams.on_asyncio import AsyncioStream

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


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


async def test_reading_stops_at_the_high_mark_and_goes_on_below_the_low_one(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    stream = await attach(pair[0])
    assert isinstance(stream, AsyncioStream)
    piece = b"x" * on_asyncio.LOW_WATER
    pieces = on_asyncio.HIGH_WATER // len(piece) + 1
    for _ in range(pieces):
        assert stream._transport.is_reading()
        stream.data_received(piece)
    assert not stream._transport.is_reading()
    for _ in range(pieces - 1):
        assert not stream._transport.is_reading()
        assert stream.poll() == piece
    assert stream._transport.is_reading()
    stream.abort()


def received(sock: socket.socket) -> bytes:
    """Return what has been sent so far."""
    sock.setblocking(False)
    try:
        return sock.recv(1_000_000)
    except BlockingIOError:
        return b""


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


async def test_what_is_large_goes_out_at_once_and_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = await attach(pair[0])
    large = b"x" * (on_asyncio.WRITE_LATER - 2)
    stream.write(b"one")
    stream.write(large)
    assert received(pair[1]) == b"one" + large
    await asyncio.sleep(0)
    assert received(pair[1]) == b""
    stream.abort()


async def test_what_is_cancelled_in_its_turn_never_goes_out(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = await attach(pair[0])
    stream.write(b"one")
    stream.abort()
    await asyncio.sleep(0)
    assert received(pair[1]) == b""
    with pytest.raises(BrokenPipeError):
        stream.write(b"two")
