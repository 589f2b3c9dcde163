"""The files of a batch: linked, shared, locked, full, read-only, failing, and older or younger than the clock says."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.batch.test_batch_run import HELLO, adapter_of, fails_for, finish
from tests.support.batches import errors_of, files_of, ids, line, path_of, questions, write_lines
from tests.support.memory_server import Serve

from chatscope.batch import JournalError, LockedError, run_batch
from chatscope.batch.journal import Journal, Paths
from chatscope.batch.options import Fsync
from chatscope.batch.status import read_status
from chatscope.simulator import Reply

NOBODY = 65534


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


async def test_a_linked_output_stays_a_link_and_is_locked_once(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    real, linked = tmp_path / "disk" / "real.jsonl", tmp_path / "out.jsonl"
    linked.symlink_to(real)
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in (2, 0, 1)])
    delays = {"Question 2": 0.03, "Question 0": 0.0, "Question 1": 0.0}
    server = serve(lambda request: Reply("Hi.", first_token=delays[questions([request.body])[0]]))
    async with adapter_of(server) as adapter, run_batch(source, linked, adapter=adapter, ordered=True) as run:
        with pytest.raises(LockedError, match="under another name"):
            async with run_batch(source, real, adapter=adapter):
                pass
        await run.finish()
    assert linked.is_symlink()
    assert ids(real) == ["request-2", "request-0", "request-1"]


async def test_two_outputs_of_one_folder_run_at_once(serve: Serve, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(20)])
    async with adapter_of(serve(HELLO)) as adapter, anyio.create_task_group() as group:

        async def run(name: str) -> None:
            async with run_batch(source, tmp_path / name, adapter=adapter) as one:
                await one.finish()

        group.start_soon(run, "one.jsonl")
        group.start_soon(run, "two.jsonl")
    assert sorted(ids(tmp_path / "one.jsonl")) == sorted(ids(tmp_path / "two.jsonl"))


@pytest.mark.slow
@pytest.mark.one_loop
@pytest.mark.parametrize("name", ["started", "manifest", "summary", "errors", "output", "superseded"])
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
async def test_a_full_disk_at_any_file_leaves_nothing_behind(
    serve: Serve, output: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: str
) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(number) for number in range(6, 0, -1)])
    options: dict[str, Any] = {"ordered": True, "retry_errors": True}
    await finish(serve(fails_for(1, 2)), source, output, **options)
    original, hits = getattr(os, call), list[str]()

    def full(target: Any, *more: Any) -> Any:
        path = path_of(target) if isinstance(target, int) else str(target)
        if f"{name}." in path or (name == "output" and path.endswith(("/out.jsonl", "/.out.jsonl.tmp"))):
            hits.append(path)
            raise OSError(errno.ENOSPC, "No space left on device", path)
        return original(target, *more)

    monkeypatch.setattr(os, call, full)
    try:
        summary = await finish(serve(HELLO), source, output, **options)
    except JournalError as refused:
        told = str(refused)
    else:
        told = f"{summary.stop_message} {summary.notices}"
        assert summary.exit_code == (3 if hits and name != "summary" else 0)
    monkeypatch.undo()
    assert ("No space left" in told) is bool(hits)
    assert not [path for path in files_of(output.parent) if path.suffix == ".tmp"]
    summary = await finish(serve(HELLO), source, output, **options)
    assert (summary.exit_code, errors_of(output)) == (0, [])
    assert sorted(ids(output)) == [f"request-{number}" for number in range(1, 7)]


async def test_a_failed_sync_is_reported(serve: Serve, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(0)])
    sync = os.fsync

    def fails(fd: int) -> None:
        if path_of(fd) == str(output):
            raise OSError(errno.EIO, "Input/output error")
        sync(fd)

    monkeypatch.setattr(os, "fsync", fails)
    summary = await finish(serve(HELLO), source, output)
    assert (summary.stop_reason, summary.exit_code) == ("disk", 3)


def renamed(path: Path, name: str) -> None:
    path.rename(path.with_name(name))


def harmed(path: Path, harm: str) -> None:
    if harm == "cut":
        os.truncate(path, 5)
    elif harm == "moved":
        renamed(path, "moved.jsonl")
    else:
        path.unlink()


@pytest.mark.one_loop
@pytest.mark.parametrize("fsync", ["group", "none"])
@pytest.mark.parametrize(
    ("harm", "how"), [("moved", "moved or deleted"), ("deleted", "moved or deleted"), ("cut", "cut")]
)
async def test_an_output_that_others_move_delete_or_cut_is_no_success(
    serve: Serve, output: Path, fsync: Fsync, harm: str, how: str
) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(number) for number in range(9)])
    async with adapter_of(serve(HELLO)) as adapter, run_batch(source, output, adapter=adapter, fsync=fsync) as run:
        await anext(run)
        harmed(output, harm)
        summary = await run.finish()
    assert (summary.stop_reason, summary.exit_code) == ("disk", 3)
    assert f"the file was {how} while the run was writing it" in (summary.stop_message or "")


@pytest.mark.one_loop
async def test_outputs_whose_names_differ_in_the_ending_do_not_share_their_failures(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(0), line(1)])
    await finish(serve(fails_for(1)), source, output)
    for other in ("out", "out.json"):
        with pytest.raises(JournalError, match=r"belong to out\.jsonl; give this output another name"):
            await finish(serve(HELLO), source, output.with_name(other))
        assert not output.with_name(other).exists()
    renamed(output, "out.json")
    summary = await finish(serve(HELLO), source, output.with_name("out.json"))
    assert (summary.settled, summary.failed_rows) == (2, 1), "an output may be renamed"


@pytest.mark.one_loop
@pytest.mark.parametrize(("fsync", "syncs"), [("each", 20), ("none", 0)])
async def test_lines_are_synced_as_asked(
    serve: Serve, output: Path, monkeypatch: pytest.MonkeyPatch, fsync: str, syncs: int
) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(number) for number in range(20)])
    sync, seen = os.fsync, [0]

    def counting(fd: int) -> None:
        seen[0] += path_of(fd) == str(output)
        sync(fd)

    monkeypatch.setattr(os, "fsync", counting)
    await finish(serve(HELLO), source, output, fsync=fsync)
    assert seen[0] == syncs


def test_status_reads_an_output_whose_last_line_was_cut(tmp_path: Path) -> None:
    recorded = {"custom_id": "a", "response": {"status_code": 200, "body": {}}, "error": None}
    (tmp_path / "out.jsonl").write_text(json.dumps(recorded) + '\n{"custom_id": "b", "resp')
    assert read_status(tmp_path / "out.jsonl").succeeded == 1


@contextmanager
def unprivileged() -> Iterator[None]:
    """Within the block, permissions hold for root as well."""
    if sys.platform == "win32" or os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="folders have other permissions there")
@pytest.mark.parametrize("begun", [False, True])
def test_a_folder_that_must_not_be_written_is_refused_and_named(begun: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        paths = Paths(Path(folder) / "out.jsonl")
        if begun:
            Journal(paths).close()
        for path in (paths.meta, Path(folder)):
            if path.exists():
                path.chmod(0o555)
        with unprivileged(), pytest.raises(JournalError, match=f"{folder}/out.*: Permission denied"):
            Journal(paths)
        for path in (Path(folder), paths.meta):
            if path.exists():
                path.chmod(0o755)
        Journal(paths).close()


def test_a_file_system_that_is_read_only_is_refused_and_named(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def read_only(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(JournalError, match=r"out\.jsonl: Read-only file system"):
        Journal(Paths(output))
    monkeypatch.undo()
    Journal(Paths(output)).close()  # the lock was released


async def test_a_clock_that_was_set_back_changes_nothing(
    serve: Serve, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(number) for number in range(6)])
    await finish(serve(fails_for(1)), source, output, retry_errors=True)
    for path in files_of(output.parent):
        os.utime(path, (4e9, 4e9))  # all of it is from the future now
    steps = count()
    monkeypatch.setattr(time, "time", lambda: 1e9 - next(steps))
    server = serve(HELLO)
    summary = await finish(server, source, output, retry_errors=True)
    assert (summary.settled, summary.succeeded, summary.exit_code) == (5, 1, 0)
    assert 0 <= summary.wall_seconds < 60
    assert all(0 <= seconds < 60 for seconds in summary.duration_seconds.values())
    assert (await finish(server, source, output)).settled == 6
    assert len(server.requests) == 1
