"""Shards: a batch run in parts leaves the output that one run leaves, however often a part or a merge is killed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.support.batches import MODEL, ids, line, questions, read_lines, write_lines
from tests.support.memory_server import MemoryServer, Serve

from chatscope import AsyncChatGPTAdapter, RetryPolicy
from chatscope.batch import BatchOptions, BatchSummary, LockedError, run_batch
from chatscope.batch.finish import successes
from chatscope.batch.journal import Journal, Paths
from chatscope.batch.readers import InputRow
from chatscope.batch.requests import RowParser
from chatscope.batch.shards import LineTally, Shards, merge_parts, part_of, read_shard
from chatscope.batch.status import read_status
from chatscope.simulator import Reply, error

HELLO = Reply("Hello.")
PRICES = {MODEL: {"input": 1.0, "output": 1.0}}

pytestmark = pytest.mark.one_loop


def write_shards(output: Path, numbers: Iterable[Iterable[int]]) -> list[Path]:
    """Write shards of requests, as a run with several workers does."""
    parser, shards = RowParser(BatchOptions(), MODEL), Shards(Paths(output))
    return [
        shards.write([parser.parse(InputRow(number + 1, line(number))).request() for number in shard])
        for shard in numbers
    ]


async def run_source(server: MemoryServer, source: Any, output: Path, **options: Any) -> BatchSummary:
    server.closed = False
    adapter = AsyncChatGPTAdapter("sk-1", transport=server, retry=RetryPolicy(attempts=1), prices=PRICES)
    async with adapter, run_batch(source, output, adapter=adapter, **options) as run:
        return await run.finish()


async def run_part(server: MemoryServer, shard: Path) -> BatchSummary:
    return await run_source(server, read_shard(shard), part_of(shard))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


async def test_a_run_takes_over_what_the_parts_recorded(serve: Serve, output: Path, tmp_path: Path) -> None:
    """The lines are those of a local run: ids, keys and line numbers of the input. Nothing is asked again."""
    server = serve(HELLO)
    first, _ = write_shards(output, [range(3), range(3, 6)])
    await run_part(server, first)
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(8)])
    summary = await run_source(server, source, output)
    assert (summary.settled, summary.succeeded, summary.exit_code) == (3, 5, 0)
    assert sorted(questions(server.bodies)) == [f"Question {number}" for number in range(8)]
    lines = {each["custom_id"]: each["chatscope"]["line"] for each in read_lines(output)}
    assert lines == {f"request-{number}": number + 1 for number in range(8)}
    assert not Shards(Paths(output)).exist()


async def test_a_merge_that_was_killed_is_done_again(
    serve: Serve, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = write_shards(output, [range(3), range(3, 6)])
    server = serve(lambda request: error(400) if questions([request.body]) == ["Question 4"] else HELLO)
    for shard in shards:
        await run_part(server, shard)
    monkeypatch.setattr("chatscope.batch.shards.shutil.rmtree", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    journal = Journal(Paths(output))
    with pytest.raises(KeyboardInterrupt):
        merge_parts(journal)
    monkeypatch.undo()
    merge_parts(journal)
    journal.close()
    assert sorted(ids(output)) == [f"request-{number}" for number in (0, 1, 2, 3, 5)]
    assert ids(output.with_name("out.errors.jsonl")) == ["request-4"]


async def test_failures_that_a_later_worker_mended_keep_their_cost(serve: Serve, output: Path) -> None:
    """A part that is run again asks what failed again. Its failures leave the errors, and what they cost stays."""
    (shard,) = write_shards(output, [range(2)])
    whole = serve(HELLO)
    await run_part(whole, shard)
    journal, lines = Journal(Paths(output)), LineTally()
    merge_parts(journal, lines.add)
    journal.close()
    assert read_status(output).cost == pytest.approx(sum(each["chatscope"]["cost_usd"] for each in read_lines(output)))
    assert lines.total(successes(output)).cost == pytest.approx(read_status(output).cost)

    (again,) = write_shards(output, [[2]])
    await run_part(serve(error(503)), again)
    await run_part(whole, again)
    journal, lines = Journal(Paths(output)), LineTally()
    merge_parts(journal, lines.add)
    journal.close()
    tally = lines.total(successes(output))
    assert (tally.succeeded, tally.failed) == (1, 0)
    assert sorted(ids(output)) == ["request-0", "request-1", "request-2"]


async def test_what_was_in_flight_in_a_part_is_said(serve: Serve, output: Path, tmp_path: Path) -> None:
    (shard,) = write_shards(output, [range(2)])
    await run_part(serve(HELLO), shard)
    part = Paths(part_of(shard))
    kept = part.output.read_bytes().splitlines(keepends=True)
    part.output.write_bytes(kept[0] + kept[1][:40])  # killed while it wrote the second
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(2)])
    summary = await run_source(serve(HELLO), source, output)
    assert (summary.in_flight_at_kill, summary.settled, summary.succeeded) == (1, 1, 1)
    assert (output.with_name("out.meta") / "torn.jsonl").read_bytes() == kept[1][:40] + b"\n"
    assert "1 lines of parts were cut" in summary.notices[0]


async def test_a_part_that_is_being_written_is_left_alone(serve: Serve, output: Path, tmp_path: Path) -> None:
    """The parts before it are unlocked again, so that the merge can be tried again in the same process."""
    shards = write_shards(output, [range(2), range(2, 4)])
    source = write_lines(tmp_path / "in.jsonl", [line(0)])
    busy = Journal(Paths(part_of(shards[1])))
    with pytest.raises(LockedError, match=r"000001\.meta"):
        await run_source(serve(HELLO), source, output)
    busy.close()
    assert Shards(Paths(output)).exist()
    assert (await run_source(serve(HELLO), source, output)).exit_code == 0
