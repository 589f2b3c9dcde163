"""Input files as blocks of rows: JSONL, gzip, zstd, standard input, CSV and Parquet.

What a row means is decided in `requests`.

A block is what one read completed, so that rows from a slow pipe are not held back until a buffer is full.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Literal, NamedTuple, Self

from chatscope import Task
from chatscope.batch.errors import InputError

InputFormat = Literal["auto", "jsonl", "csv", "parquet"]

CHUNK: Final = 1 << 18
"""Bytes of one read: some hundred rows, decoded in about a millisecond."""

ROWS: Final = 256
"""Rows of one block where rows are not read by bytes (CSV, Parquet)."""

_BOM: Final = b"\xef\xbb\xbf"
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_PARQUET: Final = b"PAR1"


class InputRow(NamedTuple):
    """One row of an input: a line of JSON as bytes, a record, or a task."""

    number: int
    """The line in the file, from 1; in Parquet and in iterables, the row."""
    data: bytes | dict[str, Any] | Task


class Reader:
    """Reads one input from its beginning, once.

    Args:
        path: the file; `-` is standard input.
        input_format: what it holds; `auto` finds out by its first bytes.

    Raises:
        InputError: it cannot be opened, or what it holds is not supported.

    Attributes:
        format: what it holds.
        size: bytes of the file as it is stored; 0 for standard input.
    """

    def __init__(self, path: str | Path, input_format: InputFormat = "auto") -> None:
        self.path = str(path)
        self._raw: BinaryIO
        if self.path == "-":
            if sys.stdin is None:
                raise InputError("standard input is closed")
            self._raw, self.size = sys.stdin.buffer, 0
        else:
            try:
                self._raw = Path(path).open("rb")  # noqa: SIM115 - closed by `close`
                self.size = Path(path).stat().st_size
            except OSError as error:
                raise InputError(f"{self.path}: {error.strerror or error}") from error
        self._counted = _Counted(self._raw)
        try:
            self._stream, self.format = self._opened(input_format)
        except BaseException:
            self.close()
            raise

    @property
    def bytes_read(self) -> int:
        """How far the file was read, in bytes as it is stored."""
        return self._counted.count

    def blocks(self) -> Iterator[list[InputRow]]:
        """Iterate over the rows, in blocks.

        Raises:
            InputError: the file is damaged, or its text is not UTF-8.
        """
        try:
            if self.format == "parquet":
                yield from _parquet_blocks(self._raw, self.path)
            elif self.format == "csv":
                yield from _csv_blocks(self._stream, self.path)
            else:
                yield from _line_blocks(self._stream)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{self.path}: cannot be read: {error}") from error

    def close(self) -> None:
        """Close the file. Standard input stays open."""
        if self.path != "-":
            with suppress(OSError):
                self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self, wanted: InputFormat) -> tuple[io.BufferedIOBase, Literal["jsonl", "csv", "parquet"]]:
        stream: Any = io.BufferedReader(self._counted, CHUNK)
        head = stream.peek(4)[:4]
        if head.startswith(_GZIP):
            stream = gzip.GzipFile(fileobj=stream)
        elif head == _ZSTD:
            stream = io.BufferedReader(_zstd(stream), CHUNK)
        if head == _PARQUET or wanted == "parquet":
            if self.path == "-":
                raise InputError("Parquet is read from its end: give a file instead of standard input")
            return stream, "parquet"
        if wanted != "auto":
            return stream, wanted
        stream = stream if hasattr(stream, "peek") else io.BufferedReader(stream, CHUNK)
        try:
            first = stream.peek(CHUNK).removeprefix(_BOM).lstrip()[:1]
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{self.path}: cannot be read: {error}") from error
        if first == b"[":
            raise InputError(f"{self.path}: one JSON array; write one object a line (JSONL)")
        return stream, "jsonl" if first in {b"{", b""} else "csv"


class _Counted(io.RawIOBase):
    """A file that counts what was read of it, and returns what one read of a pipe brings."""

    def __init__(self, raw: BinaryIO) -> None:
        self._read: Any = getattr(raw, "read1", raw.read)
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


def _line_blocks(stream: io.BufferedIOBase) -> Iterator[list[InputRow]]:
    number = 0
    begun: list[bytes] = []  # a line that no read has completed yet
    chunk = stream.read1(CHUNK).removeprefix(_BOM)
    while chunk:
        *lines, rest = chunk.split(b"\n")
        block = []
        for line in lines:
            number += 1
            if begun:
                line = b"".join([*begun, line])  # noqa: PLW2901 - the line as a whole
                begun = []
            if line := line.strip():
                block.append(InputRow(number, line))
        if rest:
            begun.append(rest)
        if block:
            yield block
        chunk = stream.read1(CHUNK)
    if last := b"".join(begun).strip():
        yield [InputRow(number + 1, last)]


def _csv_blocks(stream: Any, path: str) -> Iterator[list[InputRow]]:
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    reader: Any = None
    try:
        first = text.readline()
        dialect = "excel-tab" if "\t" in first and "," not in first else "excel"
        columns = next(csv.reader([first], dialect), [])
        if not columns or len(set(columns)) < len(columns):
            raise InputError(f"{path}: line 1 must name the columns, each once")
        reader = csv.reader(text, dialect)
        block: list[InputRow] = []
        for cells in reader:
            if cells:
                block.append(InputRow(reader.line_num + 1, _record(columns, cells)))
            if len(block) >= ROWS:
                yield block
                block = []
        if block:
            yield block
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: line {reader.line_num + 2 if reader else 1} is not UTF-8: {error}") from error
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num + 1 if reader else 1} is not CSV: {error}") from error
    finally:
        with suppress(ValueError):
            text.detach()  # the stream is closed by its reader


def _record(columns: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(columns):
        return {"": f"the row has {len(cells)} cells, and there are {len(columns)} columns"}
    return dict(zip(columns, cells, strict=True))


def _parquet_blocks(raw: BinaryIO, path: str) -> Iterator[list[InputRow]]:
    parquet = optional("pyarrow.parquet", "parquet")
    raw.seek(0)
    number = 0
    try:
        for batch in parquet.ParquetFile(raw).iter_batches(batch_size=ROWS):
            yield [InputRow(number + at, record) for at, record in enumerate(batch.to_pylist(), 1)]
            number += batch.num_rows
    except import_module("pyarrow").ArrowException as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}") from error


def _zstd(stream: io.BufferedIOBase) -> Any:
    return optional("zstandard", "zstd").ZstdDecompressor().stream_reader(stream, read_across_frames=True)


def optional(module: str, extra: str) -> Any:
    """Import a module that an extra brings.

    Raises:
        InputError: it is not installed; the message names the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(f"this needs {module.partition('.')[0]}: pip install 'chatscope[{extra}]'") from error
