"""What inputs may look like: compression, byte-order marks, line ends, CSV, Parquet; and what is refused."""

from __future__ import annotations

import bz2
import fcntl
import gzip
import io
import json
import lzma
import os
import resource
import sys
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tests.support.tables import each_row

from chatscope.batch.errors import InputError
from chatscope.batch.input_streams import Pipe
from chatscope.batch.readers import InputFormat, Reader, RowError

A, B = {"custom_id": "a"}, {"custom_id": "é\u2028"}
LINES = b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in (A, B))


def rows(path: Path, input_format: InputFormat = "auto") -> list[tuple[int, Any]]:
    with Reader(path, input_format) as reader:
        found = [row for block in reader.blocks() for row in block]
        return [(row.number, json.loads(row.data) if isinstance(row.data, bytes) else row.data) for row in found]


@pytest.mark.parametrize(
    "data",
    [
        LINES,
        LINES.removesuffix(b"\n"),
        b"\xef\xbb\xbf" + LINES,
        LINES.replace(b"\n", b"\r\n"),
        gzip.compress(LINES, mtime=0),
        gzip.compress(LINES[:20], mtime=0) + gzip.compress(LINES[20:], mtime=0),
        b"\x50\x2a\x4d\x18\2\0\0\0ab" + zstandard.compress(LINES),
    ],
    ids=["plain", "no last line feed", "BOM", "CRLF", "gzip", "two gzip members", "zstd, after a frame without text"],
)
def test_json_lines_however_they_are_stored(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "input"
    path.write_bytes(data)
    assert rows(path) == [(1, A), (2, B)]


def test_blank_lines_count_but_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"\n" + LINES.replace(b"\n", b"\n\n"))
    assert [number for number, _ in rows(path)] == [2, 4]


def test_a_line_longer_than_a_read_and_nul_bytes(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(json.dumps({"text": "x" * 10_000_000}).encode() + b"\n\0\0\n" + LINES)
    with Reader(path) as reader:
        found = [row.data for block in reader.blocks() for row in block if isinstance(row.data, bytes)]
    assert [len(data) for data in found[:2]] == [10_000_012, 2]
    assert len(found) == 4


def test_rows_of_a_slow_pipe_are_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe(io.RawIOBase):
        parts = iter([LINES[:5], LINES[5:-8], LINES[-8:], b""])

        def readable(self) -> bool:
            return True

        def read1(self, _size: int) -> bytes:
            return next(self.parts)

    class Stdin:
        buffer = Pipe()

    monkeypatch.setattr(sys, "stdin", Stdin())
    assert [[row.number for row in block] for block in Reader("-").blocks()] == [[1], [2]]


def test_csv_cells_may_hold_line_feeds_and_quotes(tmp_path: Path) -> None:
    path = tmp_path / "input.csv"
    path.write_text('id,text\r\n1,"two\nlines"\r\n2,"a ""quoted"" é"\r\n3\r\n', encoding="utf-8-sig")
    assert rows(path) == [
        (3, {"id": "1", "text": "two\nlines"}),
        (4, {"id": "2", "text": 'a "quoted" é'}),
        (5, RowError("the row has 1 cells, and there are 2 columns")),
    ]


@each_row("separator", ["\t", ";"])
@each_row("name", ["text", "last, first", '"a;b;c, d"'])
def test_values_separated_by_tabs_or_semicolons(tmp_path: Path, separator: str, name: str) -> None:
    path = tmp_path / "input.csv"
    path.write_text(f"id{separator}{name}{separator}\n1{separator}one, two{separator}\n")
    assert rows(path) == [(2, {"id": "1", name.strip('"'): "one, two", "": ""})]


def test_parquet_is_read_by_row_group(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "input.parquet"
    parquet.write_table(pyarrow.table({"id": list(range(600)), "text": ["é"] * 600}), path, row_group_size=100)
    found = rows(path)
    assert (len(found), found[0], found[-1]) == (600, (1, {"id": 0, "text": "é"}), (600, {"id": 599, "text": "é"}))
    parquet.write_table(pyarrow.table([["a"], ["b"]], names=["id", "id"]), path)
    with pytest.raises(InputError, match="two columns have the same name"):
        rows(path)
    parquet.write_table(pyarrow.table({"day": pyarrow.array([0, 1 << 30, 1], pyarrow.date32())}), path)
    assert [data for _, data in rows(path)] == [
        {"day": date(1970, 1, 1)},
        RowError("the row cannot be read: days=1073741824; must have magnitude <= 999999999"),
        {"day": date(1970, 1, 2)},
    ]


@each_row(
    ("data", "message"),
    [
        (gzip.compress(LINES * 100, mtime=0)[:-20], "cannot be read"),
        (gzip.compress(gzip.compress(LINES, mtime=0), mtime=0), r"compressed \(gzip\); unpack it"),
        (bz2.compress(LINES), r"compressed \(bzip2\)"),
        (lzma.compress(LINES), r"compressed \(xz\)"),
        (b"PK\x03\x04" + LINES, r"compressed \(zip\)"),
        (LINES.decode().encode("utf-16-le"), "the text is UTF-16"),
        (LINES.decode().encode("utf-16-be"), "the text is UTF-16"),
        (b'id,text\n1,a\n2,"open\n3,c\n', "line 3 is not CSV"),
        (b'id,text\n1,"a"b\n', "line 2 is not CSV"),
        (b'[{"custom_id": "a"}]', "one JSON array"),
        (b"id,id\n1,2\n", "line 1 must name the columns"),
        ("id,text\n1,a\n2,é\n".encode("latin-1"), "line 3 is not UTF-8"),
        (("id,text\n" + "1,a\n" * 9999 + "2,é\n").encode("latin-1"), "line 10001 is not UTF-8"),
        (LINES.decode().encode("utf-16"), "the text is UTF-16; save it as UTF-8"),
        (b"PAR1 nothing", "not a readable Parquet file"),
    ],
)
def test_what_cannot_be_an_input_is_refused_by_name(tmp_path: Path, data: bytes, message: str) -> None:
    if data.startswith(b"PAR1"):
        pytest.importorskip("pyarrow")
    path = tmp_path / "input"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as raised:
        rows(path)
    assert str(path) in str(raised.value)


def test_an_input_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.jsonl: No such file"):
        Reader(tmp_path / "missing.jsonl")
    with pytest.raises(InputError, match="Is a directory"):
        Reader(tmp_path)


def test_an_extra_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "input"
    path.write_bytes(zstandard.compress(LINES))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(InputError, match=r"pip install 'chatscope\[zstd\]'"):
        Reader(path)


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf" + LINES, gzip.compress(LINES, mtime=0), b"\n" + LINES])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_pipe_may_pause_anywhere_in_its_first_bytes(data: bytes, cut: int, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")

    def write() -> None:
        with pipe.open("wb", 0) as file:
            file.write(data[:cut])
            time.sleep(0.05)  # longer than the reader takes to look
            file.write(data[cut:])

    threading.Thread(target=write).start()
    assert [record for _, record in rows(pipe)] == [A, B]


def test_a_pipe_may_have_any_file_descriptor() -> None:
    """`select` takes none above 1,023, and a server with many connections has no other left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    read_end, write_end = os.pipe()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        high = fcntl.fcntl(read_end, fcntl.F_DUPFD, 1100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(read_end)
    os.write(write_end, LINES)
    os.close(write_end)
    pipe = Pipe(high, is_owner=True)
    assert (pipe.read1(1000), pipe.read1(1000)) == (LINES, b"")
    pipe.close()
