"""Streams on asyncio and uvloop with the kernel's stamp of each read. The loops' own transports cannot deliver stamps.

Here: a separate reader, in the same iteration of the loop as other reads. Not here: everything else (`on_asyncio`), and
trio, which reads any socket itself.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from chatscope.transport.base import READ_SIZE
from chatscope.transport.streams.batched import BatchedStream, stream_of
from chatscope.transport.streams.on_asyncio import AsyncioStream

if TYPE_CHECKING:
    import asyncio
    import socket

__all__ = ["witnessed_stream_of"]


class _WitnessedReads(AsyncioStream):
    """Reads the socket itself. The loop's transport only writes.

    A loop allows no reader beside a transport on one descriptor, so this one watches a duplicate. The connection closes
    when both are closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        super().__init__(loop, sock)
        self._duplicate = -1

    def start_reading(self) -> None:
        """Take reading over from the transport. If that fails, the connection is aborted.

        Raises:
            OSError: there is no descriptor left.
        """
        self._transport.pause_reading()
        try:
            self._duplicate = os.dup(self._sock.fileno())
        except OSError:
            self.abort()
            raise
        self._loop.add_reader(self._duplicate, self._on_readable)

    def connection_lost(self, exc: Exception | None) -> None:
        self._close_duplicate()
        super().connection_lost(exc or self._error)

    def abort(self) -> None:
        self._close_duplicate()
        super().abort()

    def abandon(self) -> None:
        if self._loop.is_closed():
            self._close_duplicate()
        super().abandon()  # else the loop calls `connection_lost`

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._error = error
            self._lost = True
            self._close_duplicate()
            self._transport.abort()
            return
        if data:
            self.data_received(data)
        else:
            self._close_duplicate()
            self.eof_received()
            self._transport.close()

    def _pause_reading(self) -> None:
        self._loop.remove_reader(self._duplicate)

    def _resume_reading(self) -> None:
        self._loop.add_reader(self._duplicate, self._on_readable)

    def _close_duplicate(self) -> None:
        duplicate, self._duplicate = self._duplicate, -1
        if duplicate >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(duplicate)
            os.close(duplicate)


class WitnessedStream(_WitnessedReads):
    """As `AsyncioStream`."""


class WitnessedBatchedStream(_WitnessedReads, BatchedStream):
    """As `BatchedStream`."""


def witnessed_stream_of(
    loop: asyncio.AbstractEventLoop, sock: socket.socket
) -> WitnessedStream | WitnessedBatchedStream:
    """Return the best stream for a loop. Once attached to the loop, it reads from `start_reading` on."""
    is_batched = isinstance(stream_of(loop, sock), BatchedStream)
    return (WitnessedBatchedStream if is_batched else WitnessedStream)(loop, sock)
