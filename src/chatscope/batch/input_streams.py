"""The bytes of an input: counted, from standard input, or unpacked from zstd. Not here: their rows (`readers`)."""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import threading
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any, Final

from chatscope.batch.extras import optional

CHUNK: Final = 1 << 18
"""Bytes of one read: a few hundred rows, decoded in about a millisecond."""

_HEAD: Final = 4
"""Bytes that tell one compression from another."""

_POLL_SECONDS: Final = 0.1
"""Seconds after which a thread that waits for standard input notices that the run has ended."""


def standard_input() -> Any:
    """Return standard input as a file of bytes that a run can stop reading."""
    stdin = sys.stdin.buffer
    try:
        return stdin if sys.platform == "win32" else Pipe(stdin.fileno())
    except OSError:  # no file behind it
        return stdin


def named_pipe(path: str | Path) -> Pipe | None:
    """Open a pipe that has a name, such as `<(...)` in a shell, or a device. Return `None` for any other file.

    Raises:
        OSError: it cannot be opened.
    """
    mode = Path(path).stat().st_mode
    if sys.platform == "win32" or not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return None
    return Pipe(os.open(path, os.O_RDONLY | os.O_NONBLOCK), is_owner=True)  # else, it waits for a writer


class Pipe:
    """A pipe that is read without a buffer: a thread that waits for a silent pipe must end with the run.

    Python's own buffer is locked while a thread reads it, and the interpreter aborts at its end if it still is.

    Args:
        fd: the pipe.
        is_owner: close the pipe at the end.
    """

    def __init__(self, fd: int, *, is_owner: bool = False) -> None:
        self._fd = fd
        self._is_owner = is_owner
        self._is_closed = False
        self._reading = threading.Lock()
        self._poll = select.poll()  # unlike select.select, it takes a file descriptor of any size
        self._poll.register(fd, select.POLLIN)

    def read1(self, size: int) -> bytes:
        """Return the bytes of one read; none at the end, or once it is closed."""
        while True:
            with self._reading:  # not of another file that got the same number
                if self._is_closed:
                    return b""
                if self._poll.poll(_POLL_SECONDS * 1000):
                    return os.read(self._fd, size)

    read = read1

    def close(self) -> None:
        """End the reading, even in another thread. Blocks for at most a tenth of a second."""
        self._is_closed, was_closed = True, self._is_closed
        if self._is_owner and not was_closed:
            with self._reading:
                os.close(self._fd)


class CountedFile(io.RawIOBase):
    """A file that counts the bytes read from it, and does not wait for a full buffer when it reads a pipe."""

    def __init__(self, raw: Any) -> None:
        self._read: Any = getattr(raw, "read1", raw.read)
        self._head = b""
        self.count = 0

    def read_head(self) -> None:
        """Read until the first byte of the content is there, which decides the format: a pipe may pause before it.

        Only a read without bytes is the end.
        """
        while len(self._head) < _HEAD or not self._head.removeprefix(BOM_UTF8).strip():
            if len(self._head) > CHUNK or not (data := self._read(CHUNK)):
                return
            self._head += data

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the bytes of one read; 0 means the end."""
        if self._head:
            data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            data = self._read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


class ZstdStream(io.RawIOBase):
    """A zstd stream, which may consist of several frames, as text. A frame that is cut short is an error."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._module = optional("zstandard", "zstd")
        self._stream = stream
        self._frame: Any = None
        self._rest = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with unpacked bytes; 0 means the end.

        Raises:
            EOFError: a frame is damaged or cut short.
        """
        while not self._ready:
            data = self._rest or self._stream.read1(CHUNK)
            self._rest = b""
            if not data:
                if self._frame is not None:
                    raise EOFError("the last zstd frame is cut short")
                return 0
            if self._frame is None:
                self._frame = self._module.ZstdDecompressor().decompressobj()
            try:
                self._ready = memoryview(self._frame.decompress(data))
            except self._module.ZstdError as error:
                raise EOFError(str(error)) from error
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size
