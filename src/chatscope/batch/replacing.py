"""Replaces files atomically: completely or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

_BUFFER: Final = 1 << 18


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, if the system supports it (Windows does not)."""
    if sys.platform != "win32":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def temporary_of(path: Path) -> Path:
    """Return the temporary path of a file that will replace another: in the folder of the link's target."""
    target = path.resolve()
    return target.with_name(f".{target.name}.tmp")


def as_utf8(text: str) -> str:
    """Return a text that may contain the name of a file, for a file in UTF-8: names can have any bytes."""
    return text.encode("utf-8", "replace").decode()


class Replacement:
    """The new content of a file. Until `commit`, the file is unchanged. Without `commit`, no trace remains.

    Args:
        path: the file. A symbolic link stays, and the file that it leads to is replaced.

    Attributes:
        file: the temporary file, in the block.
    """

    file: BinaryIO

    def __init__(self, path: Path) -> None:
        self._path = path
        self._target = path.resolve()
        self._temporary = temporary_of(path)

    def __enter__(self) -> Self:
        try:
            self.file = self._temporary.open("wb", _BUFFER)
            with suppress(FileNotFoundError):
                shutil.copymode(self._target, self._temporary)  # who may read it stays as it was
        except OSError as error:
            error.filename = str(self._path)  # the temporary file's name tells the caller nothing
            raise
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
        """Replace the file atomically and durably: sync the temporary file, rename it, sync the folder.

        Raises:
            OSError: as `write`.
        """
        self.sync()
        self.file.close()
        os.replace(self._temporary, self._target)  # noqa: PTH105 - the atomic call by its own name
        sync_folder(self._target.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Write a small file so that after a crash it is either unchanged or complete.

    Raises:
        OSError: the disk is full, or failed; the file is then as before.
    """
    with Replacement(path) as replacement:
        replacement.write(data)
        replacement.commit()
