"""The journal after a crash, a full disk, and beside a second run: no recorded line is lost, no half line stays."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.batches import line, write_lines
from tests.support.tables import each_row

from chatscope.batch.errors import JournalError, LockedError
from chatscope.batch.export import export
from chatscope.batch.finish import set_bad_lines_aside
from chatscope.batch.journal import Journal, Paths
from chatscope.batch.manifest import read_manifest
from chatscope.batch.replacing import write_durably
from chatscope.batch.scan import Recorded
from chatscope.batch.status import failed_requests, read_status

KEYS = [bytes([number]) * 16 for number in range(5)]

FAILURE = json.dumps(
    {"custom_id": "f", "response": None, "error": {"code": "x"}, "chatscope": {"key": KEYS[4].hex(), "request": {}}}
).encode()


def record(number: int) -> bytes:
    body = {"choices": [{"message": {"content": f"é {number}"}}]}
    response = {"status_code": 200, "request_id": "r", "body": body}
    facts = {"key": KEYS[number].hex(), "cost_usd": 0.5}
    recorded = {"id": "x", "custom_id": f"c{number}", "response": response, "error": None, "chatscope": facts}
    return json.dumps(recorded).encode() + b"\n"


def recorded(paths: Paths) -> Recorded:
    found = Recorded()
    found.read(paths, check=lambda: None)
    return found


def test_a_file_cut_at_any_byte_of_its_last_lines_is_mended(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "out.jsonl")
    lines = [record(number) for number in range(5)]
    whole = b"".join(lines)
    for cut in range(len(lines[0] + lines[1]), len(whole) + 1):
        paths.output.write_bytes(whole[:cut])
        journal = Journal(paths)
        journal.append(record(4), success=True)
        journal.close()
        kept = whole[:cut].count(b"\n")
        is_whole = cut < len(whole) and whole[cut : cut + 1] == b"\n"  # it lacks only its line feed
        expected = lines[: kept + is_whole]
        assert paths.output.read_bytes() == b"".join([*expected, record(4)]), cut
        assert bool(journal.notices) is not whole[:cut].endswith(b"\n")
        assert recorded(paths).succeeded == len(expected) + 1


def test_a_torn_line_is_kept_aside_and_reported(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "out.jsonl")
    paths.output.write_bytes(record(0) + record(1)[:20])
    journal = Journal(paths)
    journal.close()
    assert paths.torn.read_bytes() == record(1)[:20] + b"\n"
    other = Paths(tmp_path / "other.jsonl")
    other.output.write_bytes(b"\nbad\n" + record(0) + record(1)[:20])
    Journal(other).close()
    assert other.output.read_bytes() == b"\nbad\n" + record(0)
    assert journal.notices == [f"out.jsonl: the last line was cut (20 bytes); it is kept in {paths.torn}"]


@pytest.mark.parametrize("lines", [[line(0)], [line(0), line(1)], ["Notes"], ["Notes", "{"]])
def test_a_file_of_another_kind_is_refused_and_not_cut(tmp_path: Path, lines: list[Any]) -> None:
    """Such as the input, if somebody mixes up the two names: its last line often lacks its line feed."""
    output = write_lines(tmp_path / "out.jsonl", lines)
    output.write_bytes(before := output.read_bytes().rstrip(b"\n"))
    with pytest.raises(JournalError, match="is not the output of a batch"):
        Journal(Paths(output))
    assert output.read_bytes() == before


def test_a_bad_line_in_the_middle_is_refused_until_it_is_repaired(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "out.jsonl")
    Journal(paths).close()
    paths.output.write_bytes(record(0) + b"{bad\n" + record(1))
    with pytest.raises(JournalError, match=r"out\.jsonl: line 2 is not a record.*--repair"):
        recorded(paths)
    journal = Journal(paths)
    set_bad_lines_aside(journal)
    journal.append(record(2), success=True)  # to the file that has taken the place of the damaged one
    journal.close()
    assert recorded(paths).succeeded == 3
    assert (paths.output.read_bytes(), paths.torn.read_bytes()) == (record(0) + record(1) + record(2), b"{bad\n")


def test_a_second_run_on_the_same_output_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "out.jsonl")
    first = Journal(paths)
    with pytest.raises(LockedError, match=f"another run is writing this output: process {os.getpid()} on"):
        Journal(paths)
    first.close()
    Journal(paths).close()


def test_a_write_that_the_disk_takes_in_parts_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(Paths(tmp_path / "out.jsonl"))
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:7]))
    journal.append(record(0), success=True)
    monkeypatch.undo()
    journal.close()
    assert journal.paths.output.read_bytes() == record(0)


def test_a_disk_that_fills_up_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(Paths(tmp_path / "out.jsonl"))
    journal.append(record(0), success=True)
    write, calls = os.write, iter(range(2))

    def fills_up(fd: int, data: bytes) -> int:
        if next(calls):
            raise OSError(28, "No space left on device")
        return write(fd, bytes(data)[:7])

    monkeypatch.setattr(os, "write", fills_up)
    with pytest.raises(OSError, match="No space left"):
        journal.append(record(1), success=True)
    monkeypatch.undo()
    journal.append(record(2), success=True)
    journal.close()
    assert journal.paths.output.read_bytes() == record(0) + record(2)


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(JournalError, match=r"folder\.jsonl: Is a directory"):
        Journal(Paths(tmp_path / "folder.jsonl"))
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="file"):
        Journal(Paths(tmp_path / "file" / "out.jsonl"))
    os.mkfifo(tmp_path / "pipe.jsonl")
    for device in (tmp_path / "pipe.jsonl", Path(os.devnull)):
        with pytest.raises(JournalError, match=f"{device}: not a file"):
            Journal(Paths(device))
        assert not Paths(device).meta.exists()
    with pytest.raises(JournalError, match=r"pipe\.jsonl: not a file"):
        export(tmp_path / "pipe.jsonl", tmp_path / "x.csv")
    os.mkfifo(tmp_path / "out.errors.jsonl")
    with pytest.raises(JournalError, match=r"out\.errors\.jsonl: not a file"):
        Journal(Paths(tmp_path / "out.jsonl"))
    for name in ("out.csv", "out.PARQUET", "out.jsonl.gz"):
        with pytest.raises(JournalError, match=rf"{name}: .* name it \*\.jsonl.*chatscope batch export"):
            Journal(Paths(tmp_path / name))
        assert not Paths(tmp_path / name).meta.exists()


def test_a_line_that_is_written_during_a_sync_is_not_covered_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, sync, seen = Journal(Paths(tmp_path / "out.jsonl")), os.fsync, list[int]()

    def writes_meanwhile(fd: int) -> None:
        seen.append(journal.unsynced)
        journal.append(record(2), success=False)
        sync(fd)

    journal.append(record(1), success=True)
    monkeypatch.setattr(os, "fsync", writes_meanwhile)
    journal.sync()
    monkeypatch.undo()
    assert (seen[0], journal.unsynced) == (1, len(seen)), "what is being synced is not durable yet"
    journal.sync()
    assert journal.unsynced == 0
    look = os.fstat

    def appends_after_a_look(fd: int) -> os.stat_result:
        found = look(fd)
        journal.append(record(3), success=True)
        journal.append(record(4), success=False)
        return found

    monkeypatch.setattr(os, "fstat", appends_after_a_look)
    journal.check_in_place()
    monkeypatch.undo()
    journal.close()


def test_a_failed_replacement_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "manifest.json"
    write_durably(path, b"one")
    monkeypatch.setattr(os, "fsync", lambda _fd: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(OSError, match="Input/output error"):
        write_durably(path, b"two")
    assert path.read_bytes() == b"one"


@each_row(
    ("name", "content"),
    [
        ("manifest.json", b""),
        ("manifest.json", b"[]"),
        ("manifest.json", b"[" * 100_000),
        ("manifest.json", b'{"version":2}'),
        ("manifest.json", b'{"version":1,"settings":[]}'),
        ("manifest.json", b'{"version":1,"earlier_settings":5}'),
        ("superseded.json", b"{"),
        ("superseded.json", b'{"ab":1.5}'),
        ("superseded.json", b'{"name":1.5}'),
    ],
)
def test_a_damaged_file_beside_the_output_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    paths = Paths(tmp_path / "out.jsonl")
    paths.meta.mkdir(exist_ok=True)
    paths.output.write_bytes(record(0))
    (paths.meta / name).write_bytes(content)
    with pytest.raises(JournalError, match=rf"out\.meta/{name}: (cannot be read|written by another version)"):
        _ = read_manifest(paths), recorded(paths)
    assert list(failed_requests(paths.output)) == [], "which needs neither"
    (paths.meta / name).unlink()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("name", ["manifest.json", "superseded.json", "started.log", "lock", "torn.jsonl"])
def test_what_is_no_file_beside_the_output_is_named(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    paths = Paths(tmp_path / "out.jsonl")
    paths.meta.mkdir()
    make(paths.meta / name)
    with pytest.raises(JournalError, match=rf"out\.meta/{name}: (Is a directory|not a file)"):
        _ = read_manifest(paths), Journal(paths)
    assert not paths.output.exists()


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_mark_that_an_editor_wrote_is_skipped(tmp_path: Path, end: bytes) -> None:
    paths = Paths(tmp_path / "out.jsonl")
    for lines in (record(0).rstrip() + end, record(0) + record(1)):
        paths.output.write_bytes(b"\xef\xbb\xbf" + lines)
        journal = Journal(paths)
        set_bad_lines_aside(journal)
        found = Recorded(with_offsets=True)
        found.read(paths, check=lambda: None)
        assert found.succeeded == export(paths.output, tmp_path / "x.csv") == len(lines.splitlines())
        assert found.offsets is not None
        assert journal.read_at(found.offsets[KEYS[0]]) == record(0)
        journal.append(record(2), success=True)
        journal.close()
        assert recorded(paths).succeeded == len(lines.splitlines()) + 1
    paths.errors.write_bytes(b"\xef\xbb\xbf" + FAILURE)
    assert [json.loads(one)["custom_id"] for one in failed_requests(paths.output)] == ["f"]


@pytest.mark.parametrize("error", ["bad", {"code": 400, "message": "bad"}])
def test_a_success_supersedes_a_failure_that_another_tool_recorded(tmp_path: Path, error: object) -> None:
    paths = Paths(tmp_path / "out.jsonl")
    failures = [json.dumps({"custom_id": name, "response": None, "error": error}) + "\n" for name in ("c0", "c1")]
    paths.output.write_bytes("".join(failures).encode() + record(0))
    assert read_status(paths.output).failed == 1
    assert export(paths.output, tmp_path / "x.csv") == 2
    with (tmp_path / "x.csv").open(newline="") as file:
        assert [(one["custom_id"], one["success"]) for one in csv.DictReader(file)] == [("c0", "True"), ("c1", "False")]


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "out.errors.jsonl"
    path.touch(0o600)
    write_durably(path, b"one")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_damaged_body_is_named_by_the_export(tmp_path: Path) -> None:
    """A resumed run skips the bodies, so it can go on."""
    output = tmp_path / "out.jsonl"
    output.write_bytes(record(0) + record(1).replace(b"\\u00e9", b"\xff"))
    assert read_status(output).succeeded == 2
    with pytest.raises(JournalError, match=f"the line at byte {len(record(0))} is damaged"):
        export(output, tmp_path / "x.csv")
    (tmp_path / "out.errors.jsonl").write_bytes(FAILURE.replace(b"{}", b'{"a": "\xff"}') + b"\n")
    with pytest.raises(JournalError, match="the line at byte 0 is damaged"):
        list(failed_requests(output))


def test_lines_of_other_tools_are_read(tmp_path: Path) -> None:
    vllm = [
        {"id": "1", "custom_id": "a", "response": {"status_code": 200, "request_id": "r", "body": {}}, "error": None},
        {
            "id": "2",
            "custom_id": "b",
            "response": {"status_code": 400, "request_id": "r", "body": None},
            "error": "bad",
        },
        {"id": "3", "custom_id": "c", "response": None, "error": {"error": {"code": "x", "message": "y"}}},
        {"id": "4", "custom_id": "d", "response": {"status_code": 302, "request_id": "r", "body": {}}, "error": None},
    ]
    paths = Paths(tmp_path / "out.jsonl")
    paths.output.write_text("".join(json.dumps(one) + "\n" for one in vllm))
    found = recorded(paths)
    assert (found.succeeded, dict(found.failures)) == (1, {"400": 1, "x": 1, "302": 1})
    export(paths.output, tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [one["success"] for one in rows] == ["True", "False", "False", "False"]
    assert (rows[2]["error_code"], rows[2]["error_message"]) == ("x", "y")
