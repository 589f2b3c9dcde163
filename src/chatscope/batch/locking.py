"""Locks of the operating system: one run at a time writes an output, under whatever name."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from pathlib import Path
from typing import IO, Final

from chatscope.batch.errors import LockedError

_HELD: Final = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})
"""The error numbers of a lock that another process holds. They depend on the system."""


class OutputLock:
    """An advisory lock of the operating system. It ends with the process that holds it, however that process ends.

    Args:
        path: the file that is locked. It names the holder.

    Raises:
        LockedError: another process holds it.
        OSError: the file system has no locks, or the file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("a+b")
        try:
            _lock_file(self._file)
        except OSError as error:
            if error.errno not in _HELD:
                self._file.close()
                raise  # the file system has no locks
            self._file.seek(0)
            holder = self._file.read().decode(errors="replace").strip() or "another process"
            self._file.close()
            raise LockedError(f"{path}: another run is writing this output: {holder}") from error
        self._file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}, since {since}".encode())
        self._file.flush()

    def release(self) -> None:
        """Release the lock."""
        self._file.close()


def lock_linked(fd: int, path: Path) -> None:
    """Lock an open file itself, because a link may lead to it under another name, with another folder beside it.

    Raises:
        LockedError: another run has locked it.
    """
    if sys.platform == "win32":
        return  # there, it could not be read meanwhile
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockedError(f"{path}: another run is writing this output under another name") from error


def _lock_file(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - there only

        file.seek(1 << 30)  # beyond the content, because others must be able to read the content
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl  # noqa: PLC0415 - not on Windows

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
