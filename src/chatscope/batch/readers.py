"""Input files as blocks of rows: JSONL, gzip, zstd, standard input, CSV and Parquet.

A block holds the rows that one read completed, so rows from a slow pipe do not wait until a buffer is full. Not here:
the meaning of a row (`requests`).
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import sys
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self

from chatscope import Task
from chatscope.batch.errors import InputError
from chatscope.batch.extras import optional
from chatscope.batch.input_streams import CHUNK, CountedFile, Pipe, ZstdStream, named_pipe, standard_input

InputFormat = Literal["auto", "jsonl", "csv", "parquet"]

ROWS: Final = 256
"""Rows of one block where rows are not read by bytes (CSV, Parquet)."""

_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
"""How a frame without text begins (RFC 8878, section 3.1.2); some tools write one first."""

_PARQUET: Final = b"PAR1"
_UNREAD: Final = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip", _GZIP: "gzip"}
"""How compressed data begins that is not unpacked: other formats, and what was compressed twice."""

_JSON_SUFFIXES: Final = frozenset({".jsonl", ".ndjson", ".json"})
_CSV_FIELD: Final = 1 << 30
"""The most characters of one cell: more than any server accepts."""


class RowError(NamedTuple):
    """Replaces a row that is not a record. The rest of the input can be read."""

    message: str


class InputRow(NamedTuple):
    """One row of an input: a line of JSON as bytes, a record, or a task."""

    number: int
    """The line in the file, from 1; in Parquet and in iterables, the row."""
    data: bytes | dict[str, Any] | Task | RowError


class Reader:
    """Reads one input from its beginning, once.

    Args:
        path: the file; `-` is standard input.
        input_format: its format; `auto` detects it by the first bytes.

    Raises:
        InputError: it cannot be opened, or its format is not supported.

    Attributes:
        size: bytes of the file as it is stored; 0 for a stream.
        is_stream: whether it can be read only once: standard input, or a pipe with a name.
        columns: the columns of a CSV or Parquet file, once `blocks` has been started.
    """

    def __init__(self, path: str | Path, input_format: InputFormat = "auto") -> None:
        self.path = str(path)
        self._raw: Any
        if self.path == "-":
            if sys.stdin is None:
                raise InputError("standard input is closed")
            self._raw, self.size = standard_input(), 0
        else:
            try:
                self._raw = named_pipe(path) or Path(path).open("rb")  # noqa: SIM115 - closed by `close`
                self.size = Path(path).stat().st_size
            except OSError as error:
                raise InputError(f"{self.path}: {error.strerror or error}") from error
        self.is_stream = self.path == "-" or isinstance(self._raw, Pipe)
        self._counted = CountedFile(self._raw)
        self._wanted: InputFormat = input_format
        self._format: Literal["jsonl", "csv", "parquet"] | None = None
        self._stream: Any = None
        self.columns: list[str] | None = None
        try:
            if not self.is_stream:  # which may be silent for long; `blocks` looks at it
                self._open()
        except BaseException:
            self.close()
            raise

    @property
    def format(self) -> InputFormat:
        """The format. For standard input, it is unknown before the first row has been read."""
        return self._wanted if self._format is None else self._format

    def identity(self) -> tuple[int, ...]:
        """Return values that change when the file is edited or replaced.

        Raises:
            InputError: the file no longer exists.
        """
        try:
            status = os.fstat(self._raw.fileno())
            named = Path(self.path).stat()
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror or error}") from error
        return (status.st_size, status.st_mtime_ns, named.st_dev, named.st_ino)

    @property
    def bytes_read(self) -> int:
        """How many bytes of the stored file have been read."""
        return self._counted.count

    def blocks(self) -> Iterator[list[InputRow]]:
        """Iterate over the rows, in blocks.

        Raises:
            InputError: the file is damaged, or its text is not UTF-8.
        """
        try:
            if self._format is None:
                self._open()
            if self._format == "parquet":
                yield from self._parquet_blocks()
            elif self._format == "csv":
                yield from self._csv_blocks()
            else:
                yield from _line_blocks(self._stream)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{self.path}: cannot be read: {error}") from error

    def close(self) -> None:
        """Close the file. Standard input stays open, but is no longer read."""
        if self.path != "-" or isinstance(self._raw, Pipe):
            with suppress(OSError):
                self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        stream: Any = io.BufferedReader(self._counted, CHUNK)
        try:
            self._counted.read_head()
            head = stream.peek(4)[:4]
            if head.startswith(_GZIP):
                stream = gzip.GzipFile(fileobj=stream)
            elif head == _ZSTD or _ZSTD_SKIPPABLE.match(head):
                stream = io.BufferedReader(ZstdStream(stream), CHUNK)
            self._stream = stream = stream if hasattr(stream, "peek") else io.BufferedReader(stream, CHUNK)
            if head == _PARQUET or self._wanted == "parquet":
                self._format = "parquet"
            elif (text := stream.peek(CHUNK)).startswith(_UTF_16) or text[:2].count(0) == 1:
                raise InputError(f"{self.path}: the text is UTF-16; save it as UTF-8")
            elif packed := next((name for magic, name in _UNREAD.items() if text.startswith(magic)), None):
                raise InputError(
                    f"{self.path}: the text is compressed ({packed}); unpack it, or compress it once with gzip or zstd"
                )
            elif self._wanted != "auto":
                self._format = self._wanted
            else:
                self._format = self._guess(stream.peek(CHUNK).removeprefix(BOM_UTF8).lstrip()[:1])
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{self.path}: cannot be read: {error}") from error
        if self._format == "parquet" and self.is_stream:
            raise InputError("Parquet is read from its end: give a file instead of standard input or a pipe")

    def _guess(self, first: bytes) -> Literal["jsonl", "csv"]:
        """Return the format of a text, by its first byte, or by its name if its first line is damaged."""
        if first == b"[":
            raise InputError(f"{self.path}: one JSON array; write one object a line (JSONL)")
        is_named_so = any(suffix in _JSON_SUFFIXES for suffix in Path(self.path).suffixes[-2:])
        return "jsonl" if first in {b"{", b""} or is_named_so else "csv"

    def _csv_blocks(self) -> Iterator[list[InputRow]]:
        # The limit is the process's. Its default, 128 KiB, is less than a document.
        csv.field_size_limit(max(csv.field_size_limit(), _CSV_FIELD))
        text = io.TextIOWrapper(self._stream, "utf-8-sig", newline="")
        reader: Any = None
        ended = 0  # the last line of the latest whole row
        try:
            first = text.readline()
            unquoted = "".join(first.split('"')[::2])
            delimiter = max(",\t;", key=unquoted.count)
            # Strict, so that an open quote is an error instead of swallowing the rest of the file.
            reader = csv.reader(chain([first], text), delimiter=delimiter, strict=True)
            columns: list[str] = next(reader, [])
            ended = reader.line_num
            self.columns = columns
            if not columns or len(set(columns)) < len(columns):
                raise InputError(f"{self.path}: line 1 must name the columns, each once")
            block: list[InputRow] = []
            for cells in reader:
                ended = reader.line_num
                if cells:
                    block.append(InputRow(ended, _record(columns, cells)))
                if len(block) >= ROWS:
                    yield block
                    block = []
            if block:
                yield block
        except UnicodeDecodeError as error:
            line = _next_line(reader) + error.object.count(b"\n", 0, error.start)  # of what was decoded at once
            raise InputError(f"{self.path}: line {line} is not UTF-8: {error}") from error
        except csv.Error as error:
            raise InputError(f"{self.path}: line {ended + 1} is not CSV: {error}") from error
        finally:
            with suppress(ValueError):
                text.detach()  # the stream is closed by its reader

    def _parquet_blocks(self) -> Iterator[list[InputRow]]:
        parquet = optional("pyarrow.parquet", "parquet")
        self._raw.seek(0)
        number = 0
        try:
            file = parquet.ParquetFile(self._raw)
            self.columns = list(file.schema_arrow.names)
            if len(set(self.columns)) < len(self.columns):
                raise InputError(f"{self.path}: two columns have the same name")
            for batch in file.iter_batches(batch_size=ROWS):
                yield [InputRow(number + at, record) for at, record in enumerate(_records(batch), 1)]
                number += batch.num_rows
        except import_module("pyarrow").ArrowException as error:
            raise InputError(f"{self.path}: not a readable Parquet file: {error}") from error


def _line_blocks(stream: io.BufferedIOBase) -> Iterator[list[InputRow]]:
    number = 0
    begun: list[bytes] = []  # a line that no read has completed yet
    chunk = stream.read1(CHUNK)
    while len(chunk) < len(BOM_UTF8) and (more := stream.read1(CHUNK)):
        chunk += more
    chunk = chunk.removeprefix(BOM_UTF8) or stream.read1(CHUNK)
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


def _records(batch: Any) -> list[dict[str, Any] | RowError]:
    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError) as error:  # such as a date that Python does not have
        if batch.num_rows == 1:
            return [RowError(f"the row cannot be read: {error}")]
    return [record for at in range(batch.num_rows) for record in _records(batch.slice(at, 1))]


def _next_line(reader: Any) -> int:
    return 1 if reader is None else int(reader.line_num) + 1


def _record(columns: list[str], cells: list[str]) -> dict[str, Any] | RowError:
    if len(cells) != len(columns):
        return RowError(f"the row has {len(cells)} cells, and there are {len(columns)} columns")
    return dict(zip(columns, cells, strict=True))
