"""ReadWitness: measures how late the client's own stamps are, by the kernel's stamps of received bytes.

Here: sockets whose reads ask the kernel for its stamp (Linux, SO_TIMESTAMPNS in socket(7)). Not here: reading them in
an event loop (`streams`), and the meaning of a lag.
"""

from __future__ import annotations

import platform
import socket
import struct
import sys
from array import array
from time import perf_counter_ns, time_ns
from typing import Any, Final, Self
from weakref import WeakSet

__all__ = ["ReadWitness", "WitnessedSocket"]

# The number of the option in the kernel's own headers; Python does not name it. Four architectures have another.
SO_TIMESTAMPNS: Final = 35
OTHER_NUMBERS: Final = ("alpha", "mips", "parisc", "sparc")

TIMESPEC: Final = struct.Struct("@ll")
SPACE: Final = socket.CMSG_SPACE(TIMESPEC.size) if hasattr(socket, "CMSG_SPACE") else 0

# So many open connections are watched as long as there are any others, and one in sixteen of those.
FEWEST: Final = 4
ONE_IN: Final = 16


class ReadWitness:
    """Asks the kernel when it received what some connections read. Pass one to `HTTPTransport(witness=...)`.

    A new connection is watched if fewer than four open ones are; of the others, one in 16 is watched. For each of their
    reads, the lag is the time from when the kernel received its last byte until the client had it.

    Attributes:
        connections: how many connections are watched so far.
        obstacle: why there are no stamps; `None` as long as the kernel gives them.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.obstacle: str | None = None
        self._seen = 0
        self._watched: WeakSet[WitnessedSocket] = WeakSet()
        self._reads = array("q")
        self._lags = array("q")
        if sys.platform != "linux" or platform.machine().startswith(OTHER_NUMBERS):
            self.obstacle = f"the kernel of this system ({sys.platform}, {platform.machine()}) gives no stamps"

    def watch(self, sock: socket.socket) -> socket.socket:
        """Return the socket to read: the same one, or a replacement if it is to be watched."""
        number, self._seen = self._seen, self._seen + 1
        is_tcp = sock.family in {socket.AF_INET, socket.AF_INET6}
        if self.obstacle is not None or not is_tcp or (number % ONE_IN and self._open() >= FEWEST):
            return sock
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        except OSError as error:
            self.obstacle = f"the kernel refuses to stamp reads: {error}"
            return sock
        self.connections += 1
        watched = WitnessedSocket.replacing(sock, self)
        self._watched.add(watched)
        return watched

    def _open(self) -> int:
        return sum(sock.fileno() >= 0 for sock in self._watched)

    def record(self, read_ns: int, lag_ns: int) -> None:
        """Record a read. A negative lag is ignored: the system's clock was set back since the kernel's stamp."""
        if lag_ns >= 0:
            self._reads.append(read_ns)
            self._lags.append(lag_ns)

    def take(self) -> list[tuple[int, int]]:
        """Return the reads since the last call, as pairs: when (`time.perf_counter_ns`), and the lag in nanoseconds."""
        taken = list(zip(self._reads, self._lags, strict=True))
        del self._reads[:], self._lags[:]
        return taken


class WitnessedSocket(socket.socket):
    """A connected socket that records the kernel's stamp of each read."""

    __slots__ = ("_witness",)

    _witness: ReadWitness

    @classmethod
    def replacing(cls, sock: socket.socket, witness: ReadWitness) -> Self:
        """Take over a non-blocking socket's file descriptor."""
        taken = cls(sock.family, sock.type, sock.proto, fileno=sock.detach())
        taken.setblocking(False)
        taken._witness = witness
        return taken

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Read as a socket does. A peek is not recorded."""
        if flags:
            return super().recv(bufsize, flags)
        data, ancillary, _, _ = self.recvmsg(bufsize, SPACE)
        # The kernel's stamp is on the calendar's clock, so the lag is measured on that one, at once.
        now, read_ns = time_ns(), perf_counter_ns()
        if data:
            self._record(ancillary, now, read_ns)
        return data

    def _record(self, ancillary: list[tuple[int, int, Any]], now: int, read_ns: int) -> None:
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(value) == TIMESPEC.size:
                seconds, nanoseconds = TIMESPEC.unpack(value)
                self._witness.record(read_ns, now - seconds * 1_000_000_000 - nanoseconds)
