"""Files that take the place of others: whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

_BUFFER: Final = 1 << 18


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system has a way to (not on Windows)."""
    if sys.platform != "win32":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def temporary_of(path: Path) -> Path:
    """Return where a file is written before it replaces another: in the folder of the file that a link leads to."""
    target = path.resolve()
    return target.with_name(f".{target.name}.tmp")


class Replacement:
    """The new content of a file. Until `commit`, the file is as before; without it, nothing is left behind.

    Args:
        path: the file. A symbolic link stays, and the file that it leads to is replaced.

    Attributes:
        file: the temporary file, in the block.
    """

    file: BinaryIO

    def __init__(self, path: Path) -> None:
        self._target = path.resolve()
        self._temporary = temporary_of(path)

    def __enter__(self) -> Self:
        self.file = self._temporary.open("wb", _BUFFER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self.file.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Add data.

        Raises:
            OSError: the disk is full, or failed.
        """
        self.file.write(data)

    def sync(self) -> None:
        """Write what was added to the disk.

        Raises:
            OSError: as `write`.
        """
        self.file.flush()
        os.fsync(self.file.fileno())

    def commit(self) -> None:
        """Replace the file, at once and durably: temporary file, sync, rename, sync of the folder.

        Raises:
            OSError: as `write`.
        """
        self.sync()
        self.file.close()
        os.replace(self._temporary, self._target)  # noqa: PTH105 - the atomic call by its own name
        sync_folder(self._target.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Write a small file so that after a crash it is as before, or whole.

    Raises:
        OSError: the disk is full, or failed; the file is then as before.
    """
    with Replacement(path) as replacement:
        replacement.write(data)
        replacement.commit()
