"""PacedServer: a simulator that writes at exact times and records each write, to measure how late a client is.

It uses one thread and no event loop, so it waits with microsecond precision and a write costs little more than its
system call. One core sustains more than 20,000 tokens per second (`python -m benchmarks.load --rows simulator`). The
server also reports how late its own writes were.

`python -m chatscope.simulator.paced REPLY` runs one, where REPLY is JSON with fields of `Reply`. It prints its base
URL. When its standard input ends, it prints what it has written, as JSON.
"""

from __future__ import annotations

import heapq
import select
import selectors
import socket
import struct
import sys
import threading
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter, perf_counter_ns
from typing import Final

import h11
import msgspec

from chatscope.simulator.arrivals import receive, stamp_arrivals
from chatscope.simulator.config import DEFAULT_CONFIG, Config, Script
from chatscope.simulator.connection import BODY_LIMIT, HEAD_LIMIT, READ_SIZE, Incoming, incoming_of
from chatscope.simulator.endpoint import Received, ScriptedEndpoint
from chatscope.simulator.plan import Close, Repeat, Reset, Send, Stall, Step, Until, Wait
from chatscope.simulator.replies import Reply
from chatscope.simulator.written import WrittenResponse, WrittenResponses

BACKLOG: Final = 4096
SENDS_A_TURN: Final = 32
"""Writes between two looks for new requests."""


@dataclass(slots=True, eq=False)
class _Peer:
    """A client's connection, and the response being sent to it."""

    sock: socket.socket
    parser: h11.Connection = field(default_factory=partial(h11.Connection, h11.SERVER, HEAD_LIMIT))
    head: h11.Request | None = None
    content: bytearray = field(default_factory=bytearray)
    steps: Iterator[Step] | None = None
    written: WrittenResponse = field(default_factory=lambda: WrittenResponse(0))
    keep_alive: bool = True
    unsent: bytearray = field(default_factory=bytearray)
    is_closed: bool = False

    def parse(self) -> Incoming | None:
        """Return the next request once it is complete. A connection that ends earlier returns none.

        Raises:
            h11.RemoteProtocolError: the client does not speak HTTP, or its body is too large.
        """
        while True:
            event = self.parser.next_event()
            if isinstance(event, h11.Request):
                self.head = event
            elif isinstance(event, h11.Data):
                self.content += event.data
                if len(self.content) > BODY_LIMIT:
                    raise h11.RemoteProtocolError("the body is too large", error_status_hint=413)
            elif isinstance(event, h11.EndOfMessage) and self.head is not None:
                incoming = incoming_of(self.head, bytes(self.content))
                rest = self.parser.trailing_data[0]
                self.parser, self.head, self.content = h11.Connection(h11.SERVER, HEAD_LIMIT), None, bytearray()
                if rest:
                    self.parser.receive_data(rest)
                return incoming
            else:
                return None


class PacedServer:
    """A simulator that runs in the calling thread until it is stopped, and records what it wrote.

    Scripts, faults and limits work as in `Simulator`. Answers that wait for an event and `max_running` are not
    supported.

    Args:
        script: the answers.
        config: what clients must have.
        port: on 127.0.0.1; 0 chooses a free one.
    """

    def __init__(self, script: Script, config: Config = DEFAULT_CONFIG, *, port: int = 0) -> None:
        if config.max_running is not None:
            raise ValueError("max_running must be None: a paced server answers all requests at once")
        self._endpoint = ScriptedEndpoint(script, config, clock=perf_counter)
        self._written: dict[str, WrittenResponse] = {}
        self._late = array("q")
        self._received = 0
        self._due: list[tuple[int, int, _Peer, Step | None]] = []
        self._order = 0
        self._is_stopped = False
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        self._listener.setblocking(False)
        stamp_arrivals(self._listener)  # sockets that it accepts do so from the start
        self._waker, self._woken = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    @property
    def base_url(self) -> str:
        """The address to give to clients."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def stop(self) -> None:
        """Make `run` return. May be called from any thread, even after `run` has returned."""
        self._is_stopped = True
        with suppress(OSError):
            self._waker.send(b"x")

    def run(self) -> WrittenResponses:
        """Serve until `stop`, then close every connection and return what was written."""
        self._endpoint.start()
        try:
            while not self._is_stopped:
                self._wait()
                for key, events in self._selector.select(0):
                    if isinstance(key.data, _Peer):
                        self._on_ready(key.data, events)
                    elif key.fileobj is self._listener:
                        self._accept()
                self._play_due()
        finally:
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]  # only sockets were registered
            self._waker.close()
            self._selector.close()
        late = sorted(self._late)
        p50, p99 = (late[int((len(late) - 1) * share)] / 1e9 if late else 0.0 for share in (0.5, 0.99))
        return WrittenResponses(self._written, len(late), p50, p99)

    def _wait(self) -> None:
        """Wait for a socket or the next write. The selector alone would wait with millisecond precision."""
        seconds = (self._due[0][0] - perf_counter_ns()) / 1e9 if self._due else None
        if seconds is None or seconds > 0:
            select.select([self._selector], [], [], seconds)

    def _accept(self) -> None:
        try:
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                stamp_arrivals(sock)
                self._selector.register(sock, selectors.EVENT_READ, _Peer(sock))
        except BlockingIOError:
            pass

    def _on_ready(self, peer: _Peer, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                del peer.unsent[: peer.sock.send(peer.unsent)]
                if not peer.unsent:
                    self._selector.modify(peer.sock, selectors.EVENT_READ, peer)
            if events & selectors.EVENT_READ:
                data, arrived_ns = receive(peer.sock, READ_SIZE)
                if not data:
                    self._close(peer)
                    return
                peer.parser.receive_data(data)
                self._answer_next(peer, arrived_ns)
        except BlockingIOError:
            pass
        except (OSError, h11.RemoteProtocolError):
            self._close(peer)

    def _answer_next(self, peer: _Peer, arrived_ns: int) -> None:
        """Begin the response to the next request of a connection, if there is one."""
        if peer.steps is not None or (incoming := peer.parse()) is None:
            return
        self._received += 1
        received = Received(
            self._received, incoming.method, incoming.path, incoming.headers, incoming.content, arrived_ns / 1e9
        )
        peer.written = self._written[f"req_{self._received:08d}"] = WrittenResponse(arrived_ns)
        peer.keep_alive = incoming.keep_alive
        peer.steps = iter(self._endpoint.plan(received, incoming).steps)
        self._play(peer, arrived_ns)

    def _play_due(self) -> None:
        """Make a few of the writes that are due, then return so that the sockets can be checked again."""
        for _ in range(SENDS_A_TURN):
            if not self._due or self._due[0][0] > perf_counter_ns():
                return
            due_ns, _, peer, step = heapq.heappop(self._due)
            if not peer.is_closed:
                self._play(peer, due_ns, step)

    def _play(self, peer: _Peer, due_ns: int, step: Step | None = None) -> None:
        """Run the steps of a connection's response, from one that is due to the next wait."""
        assert peer.steps is not None  # noqa: S101 - only a response is played
        try:
            while step is not None or (step := next(peer.steps, None)) is not None:
                if isinstance(step, Wait):
                    self._later(peer, due_ns + round(step.seconds * 1e9), next(peer.steps, None))
                    return
                if isinstance(step, Send):
                    self._send(peer, step, due_ns)
                elif isinstance(step, Repeat):
                    self._write(peer, step.data)
                    self._later(peer, due_ns + round(step.seconds * 1e9), step)
                    return
                elif isinstance(step, Stall):
                    return
                elif isinstance(step, Until):
                    raise TypeError("a paced server has no events to wait for")
                else:
                    self._break_off(peer, step)
                    return
                step = None
        except OSError:
            self._close(peer)
            return
        peer.steps = None
        if peer.keep_alive:
            self._answer_next(peer, perf_counter_ns())  # a request that the client sent ahead
        else:
            self._close(peer)

    def _later(self, peer: _Peer, due_ns: int, step: Step | None) -> None:
        """Schedule the rest of a response from a step on; `None` is its end."""
        self._order += 1
        heapq.heappush(self._due, (due_ns, self._order, peer, step))

    def _send(self, peer: _Peer, step: Send, due_ns: int) -> None:
        if step.is_token:
            now = perf_counter_ns()
            peer.written.token_ns.append(now)
            self._late.append(now - due_ns)
        self._write(peer, step.data)

    def _write(self, peer: _Peer, data: bytes) -> None:
        sent = 0
        if not peer.unsent:
            with suppress(BlockingIOError):
                sent = peer.sock.send(data)
        if sent < len(data):
            peer.unsent += data[sent:]
            self._selector.modify(peer.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, peer)

    def _break_off(self, peer: _Peer, step: Close | Reset) -> None:
        if isinstance(step, Reset):
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close(peer)

    def _close(self, peer: _Peer) -> None:
        if not peer.is_closed:
            peer.is_closed = True
            self._selector.unregister(peer.sock)
            peer.sock.close()


def main() -> None:
    """Serve until standard input ends."""
    server = PacedServer(Reply(**msgspec.json.decode(sys.argv[1])))
    print(server.base_url, flush=True)  # noqa: T201 - for the process that started this one

    def stop_at_the_end() -> None:
        sys.stdin.buffer.read()
        server.stop()

    threading.Thread(target=stop_at_the_end, daemon=True).start()
    written = server.run()
    sys.stdout.buffer.write(msgspec.json.encode(written))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
