"""The journal: the output, the errors file beside it, and the folder that belongs to them. One writer at a time.

Whole lines are appended (O_APPEND), and a line counts once it has been written completely. A kill loses no line that
was counted. A power failure loses at most the lines that were not synced yet.
"""

from __future__ import annotations

import errno
import os
import threading
from binascii import hexlify
from codecs import BOM_UTF8
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from chatscope.batch.errors import JournalError
from chatscope.batch.locking import OutputLock, lock_linked
from chatscope.batch.records import is_record
from chatscope.batch.replacing import Replacement, sync_folder, temporary_of
from chatscope.batch.requests import BatchRequest

SYNC_LINES: Final = 256
"""Lines after which a group is synced, unless a second passes first: a few hundred KiB."""

ERRORS_ENDING: Final = ".errors.jsonl"

_TAIL: Final = 1 << 16
_encode: Final = msgspec.json.Encoder().encode
_OTHER_FORMATS: Final = frozenset({".csv", ".tsv", ".parquet", ".xlsx", ".gz", ".zst", ".bz2", ".xz", ".zip"})
"""Endings of names that promise another format than a journal's."""


class Paths:
    """The paths of the files that belong to an output.

    Args:
        output: the output's path.

    Raises:
        JournalError: it has no name.
    """

    def __init__(self, output: str | Path) -> None:
        self.output = Path(output)
        if not self.output.name:
            raise JournalError(f"output must be the path of a file, not {str(output)!r}")
        stem = self.output.with_suffix("") if self.output.suffix in {".jsonl", ".json"} else self.output
        self.errors = stem.with_name(stem.name + ERRORS_ENDING)
        self.summary = stem.with_name(stem.name + ".summary.json")
        self.meta = stem.with_name(stem.name + ".meta")
        self.manifest = self.meta / "manifest.json"
        self.started = self.meta / "started.log"
        self.lock = self.meta / "lock"
        self.torn = self.meta / "torn.jsonl"
        self.superseded = self.meta / "superseded.json"


def check_regular(path: Path) -> None:
    """Refuse a folder, a pipe or a device in place of a file: opening a pipe would wait for a writer.

    Raises:
        JournalError: it is none.
    """
    if path.exists() and not path.is_file():
        kind = "Is a directory" if path.is_dir() else "not a file that can be read again"
        raise JournalError(f"{path}: {kind}")


class Journal:
    """The files of one output, locked and open for appending.

    Args:
        paths: where they are.

    Raises:
        LockedError: another process has them open.
        JournalError: they cannot be created or written.

    Attributes:
        notices: the repairs that were made, in sentences.
    """

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.notices: list[str] = []
        self._appended = self._synced = 0
        self._files: dict[str, _AppendedFile] = {}
        self._files_guard = threading.Lock()  # syncing and replacing happen in worker threads
        if paths.output.name == "-":
            raise JournalError("the output is read again when the run is resumed: name a file, not standard output")
        if paths.output.suffix.lower() in _OTHER_FORMATS:
            raise JournalError(
                f"{paths.output}: the output is JSON lines: name it *.jsonl, and convert it when it is complete:"
                " chatscope batch export OUTPUT.jsonl --to FILE.csv or FILE.parquet"
            )
        for path in (paths.output, paths.errors, paths.lock, paths.started, paths.torn, paths.superseded):
            check_regular(path)
        try:
            paths.meta.mkdir(parents=True, exist_ok=True)
            self._lock = OutputLock(paths.lock)
        except OSError as error:
            raise JournalError(f"{error.filename or paths.meta}: {error.strerror or error}") from error
        try:
            for name, path in (("output", paths.output), ("errors", paths.errors), ("started", paths.started)):
                self._files[name] = _AppendedFile(path, with_lock=name == "output")
            for path in (paths.output, paths.errors, paths.summary, paths.manifest, paths.superseded):
                temporary_of(path).unlink(missing_ok=True)  # a run was killed while it replaced this file
            for name in ("output", "errors"):
                self._mend_tail(self._files[name])
            sync_folder(paths.output.parent)
        except OSError as error:
            self.close()
            raise JournalError(f"{error.filename or paths.output}: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise

    def append(self, *lines: bytes, success: bool) -> int:
        """Append lines that end in a line feed, all at once, and return the offset of the first.

        Raises:
            OSError: the disk is full, or failed. No part of the lines remains, as far as the system allows.
        """
        at = self._files["output" if success else "errors"].append(b"".join(lines))
        self._appended += len(lines)
        return at

    @property
    def unsynced(self) -> int:
        """How many lines are not covered by a sync that has ended."""
        return self._appended - self._synced

    def start(self, request: BatchRequest) -> None:
        """Record that a request is about to be sent. This is not synced: the record only has to survive a kill.

        Raises:
            OSError: as `append`.
        """
        self._files["started"].append(b"%b %b\n" % (hexlify(request.pair), _encode(request.custom_id)))

    def clear_started(self, run_id: str) -> None:
        """Forget the requests that an earlier run started. The log now belongs to this run.

        Raises:
            OSError: as `append`.
        """
        self._files["started"].truncate(0)
        self._files["started"].append(b"run %s\n" % run_id.encode())

    def sync(self) -> None:
        """Sync what was appended to the disk. Blocks, for several milliseconds on most disks.

        Raises:
            OSError: the disk failed.
        """
        with self._files_guard:
            appended = self._appended  # a line that is appended meanwhile may not be covered
            for name in ("output", "errors"):
                if name in self._files:
                    self._files[name].sync()
            self._synced = appended
        self.check_in_place()

    def check_in_place(self) -> None:
        """Check that the files are still where the next run will look for them.

        Raises:
            OSError: one of them was moved, deleted, replaced or cut by somebody else.
        """
        with self._files_guard:
            for name in ("output", "errors"):
                if name in self._files:
                    self._files[name].check_in_place()

    def read_at(self, offset: int) -> bytes:
        """Return the line of the output at an offset."""
        with self.paths.output.open("rb") as file:
            file.seek(offset)
            return file.readline()

    def replace(self, name: str, lines: Iterable[bytes]) -> None:
        """Replace the content of `output` or `errors`, atomically.

        Raises:
            OSError: the disk is full, or failed; the file is then as before.
        """
        with self._files_guard:
            file = self._files[name]
            with Replacement(file.path) as replacement:
                for line in lines:
                    replacement.write(line)
                file.close()  # Windows does not replace a file that is open
                try:
                    replacement.commit()
                finally:
                    self._files[name] = _AppendedFile(file.path, with_lock=name == "output")

    def set_aside(self, lines: bytes) -> None:
        """Keep lines that are not records, in `torn.jsonl`, durably.

        Raises:
            OSError: the disk is full, or failed.
        """
        with self.paths.torn.open("ab") as aside:
            aside.write(lines)
            aside.flush()
            os.fsync(aside.fileno())

    def close(self) -> None:
        """Close the files and release the lock."""
        with self._files_guard:
            for file in self._files.values():
                file.close()
            self._files.clear()
        self._lock.release()

    def _mend_tail(self, file: _AppendedFile) -> None:
        """Complete a last line that lacks only its line feed, or set it aside if it was cut.

        Raises:
            JournalError: somebody named a file of another kind.
        """
        size = file.size
        with file.path.open("rb") as reader:
            parts: list[bytes] = []
            at = size
            while at > 0 and not (parts and b"\n" in parts[-1]):
                step = min(_TAIL, at)
                at -= step
                reader.seek(at)
                parts.append(reader.read(step))
        begun = b"".join(reversed(parts))
        torn = begun[begun.rfind(b"\n") + 1 :]
        if len(torn) == size:
            torn = torn.removeprefix(BOM_UTF8)
        if not torn:
            return
        if is_record(torn):
            file.append(b"\n")
            self.notices.append(f"{file.path.name}: the last line lacked its line feed")
            return
        if not self.paths.manifest.exists() and not _may_be_journal(file.path):
            raise JournalError(f"{file.path}: it exists, and is not the output of a batch; give another output")
        self.set_aside(torn + b"\n")
        file.truncate(size - len(torn))
        self.notices.append(
            f"{file.path.name}: the last line was cut ({len(torn)} bytes); it is kept in {self.paths.torn}"
        )


def _may_be_journal(path: Path) -> bool:
    """Return whether a file without a manifest may be one: a line is a record, or the only line the start of one."""
    with path.open("rb") as file:
        first = file.readline().removeprefix(BOM_UTF8)
        if first.endswith(b"\n"):
            return is_record(first) or any(map(is_record, file))
    try:
        msgspec.json.decode(first)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return first.startswith(b"{")
    return False  # complete, such as the only line of an input


class _AppendedFile:
    """A file to which only whole lines are appended."""

    def __init__(self, path: Path, *, with_lock: bool = False) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        try:
            if with_lock:
                lock_linked(self._fd, path)
        except BaseException:
            os.close(self._fd)
            raise
        self.size = os.fstat(self._fd).st_size
        self._synced = self.size

    def append(self, data: bytes) -> int:
        at, size = self.size, len(data)
        try:
            written = os.write(self._fd, data)
            while written < size:
                written += os.write(self._fd, memoryview(data)[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, at)  # leave no half line for the next run to repair
            raise
        self.size = at + size
        return at

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self.size = size

    def check_in_place(self) -> None:
        size = self.size  # read before fstat, because another thread may append meanwhile
        opened = os.fstat(self._fd)
        try:
            is_same = os.path.samestat(opened, self.path.stat())
        except FileNotFoundError:
            is_same = False
        if not is_same or opened.st_size < size:
            how = "cut" if is_same else "moved or deleted"
            raise OSError(errno.ESTALE, f"the file was {how} while the run was writing it", str(self.path))

    def sync(self) -> None:
        if self._synced != (size := self.size):
            os.fsync(self._fd)
            self._synced = size

    def close(self) -> None:
        os.close(self._fd)
