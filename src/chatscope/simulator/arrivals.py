"""When the kernel received what a server reads. A request that waits for the server has arrived before it is read.

On request, Linux stamps what arrives on a socket (SO_TIMESTAMPNS in socket(7)). On other systems, a request counts as
arrived when it is read.
"""

from __future__ import annotations

import socket
import struct
import sys
from time import perf_counter_ns, time_ns
from typing import Final

_SO_TIMESTAMPNS: Final = 35
"""Python has no name for it. On rare architectures it has another number; there are then no stamps."""

_TIMESPEC: Final = struct.Struct("@ll")
_SPACE: Final = socket.CMSG_SPACE(_TIMESPEC.size) if sys.platform == "linux" else 0


def stamp_arrivals(sock: socket.socket) -> None:
    """Ask the kernel to stamp what arrives, if it can."""
    if sys.platform == "linux":
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def receive(sock: socket.socket, size: int) -> tuple[bytes, int]:
    """Read, and return with the data when its last byte had arrived (`time.perf_counter_ns`)."""
    if sys.platform != "linux":
        return sock.recv(size), perf_counter_ns()
    data, ancillary, _, _ = sock.recvmsg(size, _SPACE)
    waited, now = 0, time_ns()
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(value) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            waited = max(0, now - seconds * 1_000_000_000 - nanoseconds)  # on the calendar's clock, which may be set
    return data, perf_counter_ns() - waited
