"""One connection: reads requests with h11, runs plans, and notices when the client disconnects.

h11 only parses requests; it refuses to send malformed responses, so plans are written as raw bytes. Nothing here knows
about chat.
"""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import anyio
import h11
from anyio.abc import ByteStream, SocketAttribute

from chatscope.simulator.plan import Close, Plan, Repeat, Reset, Send, Stall, Step, Until, Wait
from chatscope.simulator.request import Headers

if TYPE_CHECKING:
    from collections.abc import Sequence

READ_SIZE = 64 * 1024
"""Bytes to read at once: the most that one socket read commonly returns."""

HEAD_LIMIT = 64 * 1024
"""Bytes of request line and headers: four times the limit of common servers, and still little memory."""

BODY_LIMIT = 64 * 1024 * 1024
"""Bytes of a request body: the API itself accepts images and audio of up to about 50 MB."""

PIPELINED_LIMIT = 1024 * 1024
"""Bytes that a client may send ahead during a response. Beyond them, its disconnection goes unnoticed."""

CLOSE_SECONDS = 0.5
"""The longest that closing may take, in seconds: TLS waits for the other side."""


class Outcome(Enum):
    """How the response to a request ended."""

    RUNNING = "running"
    COMPLETED = "completed"
    """All of it was passed to the operating system."""
    DISCONNECTED = "client disconnected"
    """The client disconnected before the end, or closed its sending side."""
    CUT = "cut"
    """The server ended it: the plan closed or reset the connection, or the simulator was closed."""


class BodyTooLargeError(Exception):
    """A request body is above `BODY_LIMIT`."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it arrived."""

    method: str
    path: str
    headers: Headers
    content: bytes
    chunked: bool
    """Whether the client understands chunked responses (HTTP/1.1)."""
    keep_alive: bool


class Connection:
    """A client's connection. Requests are answered one after the other, even if pipelined."""

    def __init__(self, stream: ByteStream) -> None:
        self.outcome = Outcome.COMPLETED
        """How the latest plan ended."""
        self._stream = stream
        self._unread = b""
        self._reset = False

    async def receive(self) -> Incoming | None:
        """Return the next request, or None if the client has disconnected.

        If cancelled, the bytes read so far are lost and the connection cannot be used again.

        Raises:
            h11.RemoteProtocolError: The client sent something other than HTTP.
            BodyTooLargeError: The body is above `BODY_LIMIT`.
        """
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        if self._unread:  # to h11, empty bytes mean the end of the connection
            parser.receive_data(self._unread)
        head: h11.Request | None = None
        content = bytearray()
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                content += event.data
                if len(content) > BODY_LIMIT:
                    raise BodyTooLargeError
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                self._unread = parser.trailing_data[0]
                return incoming_of(head, bytes(content))
            else:
                try:
                    if parser.they_are_waiting_for_100_continue:
                        go_on = parser.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
                        await self._stream.send(go_on or b"")
                    parser.receive_data(await self._stream.receive(READ_SIZE))
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return None

    async def play(self, plan: Plan, slots: anyio.Semaphore | None = None) -> None:
        """Run a plan until it ends or the client disconnects; `outcome` says which.

        If cancelled, the plan stops where it is. The caller closes the connection.

        Args:
            plan: what to send.
            slots: the plan acquires one of these first, and releases it at its end. A client that disconnects while
                waiting loses its place in the queue.
        """
        self.outcome = Outcome.RUNNING
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch, group.cancel_scope)
                try:
                    async with slots or nullcontext():
                        self.outcome = await self._run(plan.steps)
                except anyio.BrokenResourceError:  # writing may notice it before reading does
                    self.outcome = Outcome.DISCONNECTED
                group.cancel_scope.cancel()
        finally:
            if self.outcome is Outcome.RUNNING:
                self.outcome = Outcome.CUT

    async def close(self) -> None:
        """Close the connection, shielded from cancellation, in at most `CLOSE_SECONDS`."""
        if self._reset:
            await anyio.aclose_forcefully(self._stream)  # closing TLS in order would send an alert first
            return
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            # The client may have disconnected already. If TLS has noticed, it refuses to send its closing alert.
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream, ssl.SSLError):
                await self._stream.aclose()

    async def _watch(self, scope: anyio.CancelScope) -> None:
        """Cancel `scope` when the client disconnects. Keep any bytes that it sends ahead."""
        try:
            while len(self._unread) < PIPELINED_LIMIT:
                self._unread += await self._stream.receive(READ_SIZE)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            if self.outcome is Outcome.RUNNING:  # otherwise it disconnected after the end
                self.outcome = Outcome.DISCONNECTED
            scope.cancel()

    async def _run(self, steps: Sequence[Step]) -> Outcome:
        due = anyio.current_time()
        for step in steps:
            match step:
                case Send():
                    await self._stream.send(step.data)
                case Wait():
                    due += step.seconds
                    await anyio.sleep_until(due)
                case Until():
                    await step.event.wait()
                    due = anyio.current_time()
                case Stall():
                    await anyio.sleep_forever()
                case Repeat():
                    while True:
                        await anyio.sleep(step.seconds)
                        await self._stream.send(step.data)
                case Close():
                    return Outcome.CUT
                case Reset():
                    # With a linger time of 0, closing sends RST and drops what is unsent (socket(7), SO_LINGER).
                    raw = self._stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio's method, not Django's
                    with suppress(OSError):  # the client has just closed it
                        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self._reset = True
                    return Outcome.CUT
        return Outcome.COMPLETED


def incoming_of(head: h11.Request, content: bytes) -> Incoming:
    """Return a request that has arrived completely."""
    headers = Headers()
    for name, value in head.headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    modern = head.http_version >= b"1.1"
    asked_to_close = "close" in headers.get("connection", "").lower()
    return Incoming(
        method=head.method.decode("ascii"),
        path=head.target.decode("latin-1"),
        headers=headers,
        content=content,
        chunked=modern,
        keep_alive=modern and not asked_to_close,
    )
