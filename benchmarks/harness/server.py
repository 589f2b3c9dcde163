"""The server that every contender talks to. It does as little work per token as possible, so it never limits the rate.

Its responses are precomputed. The path selects their pace (`Pace`), and `max_tokens` in the body their length.
`/stats` returns its counters. It runs until its standard input ends. Not here: the bytes of the responses (`wire`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import re
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from benchmarks.harness.cores import settle
from benchmarks.harness.wire import json_response, plain_response, stream_end, stream_start, token_chunk, whole_stream

TICK_SECONDS: Final = 0.0001
"""128 streams of 100 tokens/s send a token every 78 us. With longer ticks several tokens would arrive at once, and a
client would find several in each iteration of its loop, which does not happen with real servers."""

SLOTS: Final = 100
"""Ticks between two tokens of a paced stream: 100 tokens a second."""

STRIDE: Final = 61
"""The distance between the slots of successive streams. It is coprime to `SLOTS`, so streams are spread evenly."""

LATE_TICKS: Final = 20
"""A delay (2 ms) that means that other processes used the server's core, so that it now sends tokens in bunches."""

BACKLOG: Final = 4096
"""Connections that may wait to be accepted: a contender opens up to 1,024 at once."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TOKENS: Final = re.compile(rb'"max_tokens": ?(\d+)')
_STREAM: Final = re.compile(rb'"stream": ?true')


class Pace(StrEnum):
    """The pace of a streamed response; the first part of the path."""

    STEADY = "steady"
    """A token every `SLOTS` ticks."""
    BURST = "burst"
    """Everything in one write."""
    HOLD = "hold"
    """Everything in one write, except the end, which never comes."""


@dataclass(slots=True)
class Statistics:
    """What the server has done so far."""

    cpu_seconds: float = 0.0
    connections: int = 0
    open_streams: int = 0
    tokens: int = 0
    late_tokens: int = 0
    """Paced tokens that were sent more than `LATE_TICKS` late."""
    requests: int = 0
    broken_off: int = 0
    """Streams whose connection was closed before their end."""
    broken_off_ns: int = 0
    """When the latest such stream was closed, by `time.perf_counter_ns`, a clock that all processes share."""


class Wheel:
    """Sends tokens: each tick, the next token of every stream in one slot."""

    def __init__(self, loop: asyncio.AbstractEventLoop, statistics: Statistics) -> None:
        self._statistics = statistics
        self._slots: list[set[Connection]] = [set() for _ in range(SLOTS)]
        self._next_slot = 0
        self._streams = 0
        self._ticks = 0
        self._began = 0.0
        self._ticker = Ticker(loop, self._tick)

    def add(self, stream: Connection) -> int:
        """Add a stream and return its slot."""
        if not self._streams:
            self._began, self._ticks = time.perf_counter(), 0
            self._ticker.start()
        self._streams += 1
        self._next_slot = (self._next_slot + STRIDE) % SLOTS
        self._slots[self._next_slot].add(stream)
        return self._next_slot

    def remove(self, stream: Connection, slot: int) -> None:
        """Remove a stream."""
        self._slots[slot].remove(stream)
        self._streams -= 1

    def _tick(self) -> None:
        due = int((time.perf_counter() - self._began) / TICK_SECONDS)
        while self._ticks < due:
            self._ticks += 1
            slot = self._slots[self._ticks % SLOTS]
            self._statistics.tokens += len(slot)
            if due - self._ticks > LATE_TICKS:
                self._statistics.late_tokens += len(slot)
            for stream in list(slot):
                stream.send_token()
        if not self._streams:
            self._ticker.stop()


class Ticker:
    """Calls a function every tick, using a kernel timer, because the loops' own timers are ten times too coarse.

    On systems other than Linux it uses the loop's timer, and several ticks are due at each call.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop = loop
        self._call = call
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self._timer: asyncio.TimerHandle | None = None
        self._fd = -1
        if self._libc is not None:
            self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            if self._fd < 0:
                raise OSError(ctypes.get_errno(), "timerfd_create")
            loop.add_reader(self._fd, self._on_readable)

    def start(self) -> None:
        """Start ticking."""
        if self._libc is None:
            self._on_timer()
        else:
            self._set(TICK_SECONDS)

    def stop(self) -> None:
        """Stop ticking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._libc is not None:
            self._set(0.0)

    def _set(self, seconds: float) -> None:
        nanoseconds = int(seconds * 1e9)
        # struct itimerspec: the interval, then the first expiration, each as seconds and nanoseconds.
        spec = (ctypes.c_long * 4)(0, nanoseconds, 0, nanoseconds)
        if self._libc is not None and self._libc.timerfd_settime(self._fd, 0, spec, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _on_readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
        self._call()

    def _on_timer(self) -> None:
        self._timer = self._loop.call_later(TICK_SECONDS, self._on_timer)
        self._call()


class Connection(asyncio.Protocol):
    """One connection: reads requests and responds to them, one at a time."""

    _transport: asyncio.Transport

    def __init__(self, wheel: Wheel, statistics: Statistics) -> None:
        self._wheel = wheel
        self._statistics = statistics
        self._received = b""
        self._slot: int | None = None
        self._streaming = False
        self._sent = 0
        self._tokens = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]  # the loop's own words: a Transport for sockets
        self._transport.set_write_buffer_limits(high=1 << 30)
        self._statistics.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's own signature
        """Record when a stream was closed early."""
        self._statistics.connections -= 1
        if self._streaming:
            self._statistics.broken_off += 1
            self._statistics.broken_off_ns = time.perf_counter_ns()
            self._end_stream()

    def data_received(self, data: bytes) -> None:
        """Respond once the request is complete."""
        data = self._received + data if self._received else data
        head_end = data.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(data, 0, head_end) if head_end > 3 else None
        if head_end == 3 or len(data) < head_end + (int(length[1]) if length else 0):
            self._received = data
            return
        self._received = b""
        path = data[data.index(b" ") + 2 : data.index(b" ", 8)].decode("ascii")
        if path == "stats":
            self._transport.write(self._report())
            return
        self._statistics.requests += 1
        asked = _TOKENS.search(data, head_end)
        tokens = int(asked[1]) if asked else 1
        if _STREAM.search(data, head_end) is None:
            self._transport.write(plain_response(tokens))
        else:
            self._stream(Pace(path.partition("/")[0]), tokens)

    def send_token(self) -> None:
        """Send the next token of a paced stream, or its end after the last token."""
        if self._sent < self._tokens:
            self._transport.write(token_chunk(self._sent))
            self._sent += 1
        else:
            self._transport.write(stream_end(self._tokens))
            self._end_stream()

    def _stream(self, pace: Pace, tokens: int) -> None:
        if pace is Pace.BURST:
            self._statistics.tokens += tokens
            self._transport.write(whole_stream(tokens))
            return
        self._streaming = True
        self._sent, self._tokens = 0, tokens
        self._transport.write(stream_start())
        if pace is Pace.STEADY:
            self._slot = self._wheel.add(self)
        else:
            self._statistics.tokens += tokens
            self._transport.write(b"".join(map(token_chunk, range(tokens))))
        self._statistics.open_streams += 1

    def _end_stream(self) -> None:
        self._streaming = False
        self._statistics.open_streams -= 1
        if self._slot is not None:
            self._wheel.remove(self, self._slot)
            self._slot = None

    def _report(self) -> bytes:
        self._statistics.cpu_seconds = time.process_time()
        return json_response(asdict(self._statistics))


async def serve(context: ssl.SSLContext | None) -> None:
    """Print the ports (plain and TLS) as a line of JSON, then serve until standard input ends."""
    loop = asyncio.get_running_loop()
    statistics = Statistics()
    wheel = Wheel(loop, statistics)
    ports = []
    for tls in [None, context] if context else [None]:
        server = await loop.create_server(
            lambda: Connection(wheel, statistics), "127.0.0.1", 0, ssl=tls, backlog=BACKLOG
        )
        ports.append(server.sockets[0].getsockname()[1])
    print(json.dumps(ports), flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    await ended.wait()


def main() -> None:
    """Run the server as the main program of a process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int, help="the core to run on")
    parser.add_argument("--certificate", help="a PEM file with key and certificate chain, for a second port with TLS")
    arguments = parser.parse_args()
    settle(arguments.core)
    context = None
    if arguments.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(arguments.certificate)
    with asyncio.Runner(loop_factory=_fastest_loop()) as runner:
        runner.run(serve(context))


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - an optional package
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
