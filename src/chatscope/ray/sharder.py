"""Sharder: splits a prepared batch into shards, and merges their outcomes into one output."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from chatscope.batch import LockedError
from chatscope.batch.digests import text_digest
from chatscope.batch.finish import successes
from chatscope.batch.prepare import Prepared
from chatscope.batch.progress import Tally
from chatscope.batch.recorder import Recorder
from chatscope.batch.records import RecordedLine
from chatscope.batch.requests import BatchRequest
from chatscope.batch.shards import LineTally, Shards, merge_parts
from chatscope.batch.source import InvalidRow

ROWS: Final = (50, 5000)
"""The smallest and the largest shard. A worker's death costs a new actor, and the last shards should end together."""

SHARDS_A_WORKER: Final = 4

LOCKED_SECONDS: Final = 20.0
"""Seconds that the workers of a killed run may take to end. Ray ends them when it notices that their driver is gone."""


class Sharder:
    """Writes the shards of a batch, and merges their parts.

    Args:
        prepared: the batch, prepared as for a local run.
        recorder: records rows that cannot become requests.
    """

    def __init__(self, prepared: Prepared, recorder: Recorder) -> None:
        self._prepared = prepared
        self._recorder = recorder

    async def shards(self, workers: int) -> AsyncGenerator[Path, None]:
        """Write the shards, and yield each as soon as it is written. Holds no scope while it yields.

        Raises:
            Exception: what the source raised. The requests before it are written and yielded first.
            DiskError, OSError: the disk is full, or failed.
        """
        total = self._prepared.total
        rows = ROWS[1] if total is None else min(max(-(-total // (workers * SHARDS_A_WORKER)), ROWS[0]), ROWS[1])
        shards, shard = Shards(self._prepared.journal.paths), list[BatchRequest]()
        failure: Exception | None = None
        while True:
            try:
                found = await self._prepared.requests.read()
            except Exception as error:  # noqa: BLE001 - the source's own; what it gave before is still run
                found, failure = None, error
            if found is None:
                break
            for item in found:
                if isinstance(item, InvalidRow):
                    self._recorder.record_invalid(item)
                    continue
                shard.append(item)
                if len(shard) == rows:
                    yield await in_thread(partial(shards.write, shard))
                    shard = []
        if shard:
            yield await in_thread(partial(shards.write, shard))
        if failure is not None:
            raise failure

    async def merge(self) -> Tally:
        """Merge what the parts recorded into the output, and return its counts.

        Killed workers may lock their parts for a while; this waits for them. If cancelled, the current merge ends
        first, and the next run does the rest.

        Raises:
            LockedError, JournalError: a part cannot be read.
            OSError: the disk is full, or failed.
        """
        give_up_at = anyio.current_time() + LOCKED_SECONDS
        while True:
            try:
                tally: Tally = await in_thread(self._merge)
                return tally
            except LockedError:
                if anyio.current_time() > give_up_at:
                    raise
            await anyio.sleep(0.5)

    def _merge(self) -> Tally:
        lines, recorder, prepared = LineTally(), self._recorder, self._prepared

        def on_line(data: bytes, line: RecordedLine) -> None:
            lines.add(data, line)
            recorder.outcomes.add(text_digest(line.custom_id))

        merge_parts(prepared.journal, on_line)
        later = successes(prepared.journal.paths.output)
        prepared.finish(recorder.outcomes, {prepared.run_id, *lines.runs}, later)
        tally = lines.total(later)
        tally.failed += recorder.tally.failed  # the rows that were no requests
        tally.invalid += recorder.tally.invalid
        tally.failures.update(recorder.tally.failures)
        tally.examples |= recorder.tally.examples
        return tally


async def in_thread(call: Any) -> Any:
    """Run a blocking call in a separate thread. If cancelled, wait for it, because it may hold the lock."""
    return await anyio.to_thread.run_sync(call, limiter=anyio.CapacityLimiter(1))
