"""ShardWorker: the actor that runs shards of a batch, one after another, and records them on the shared storage.

Here: one process. Not here: which shard it runs, and when it stops (`sharded_run`).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import anyio

from chatscope import AsyncChatGPTAdapter, LeasedPacer
from chatscope.batch import BatchError, BatchOptions, BatchProgress, BatchRun, BatchSummary, LockedError, run_batch
from chatscope.batch.progress import StopReason
from chatscope.batch.shards import part_of, read_shard
from chatscope.ray.limit import SharedLimit

LOCKED_SECONDS: Final = 30.0
"""Seconds that a worker that counts as dead may still lock a part: its process may not have ended yet."""


class ShardWorker:
    """Runs shards with an adapter of its own.

    Args:
        arguments: the adapter's arguments. They hold the key, so that no node needs it in its environment.
        limit: the limit that all workers share.
        name: this worker's name among them.
    """

    def __init__(self, arguments: Mapping[str, Any], limit: SharedLimit, name: str) -> None:
        self._arguments = arguments
        self._limit = limit
        self._name = name
        self._run: BatchRun | None = None
        self._stop: tuple[StopReason, str | None] | None = None

    async def run(self, shard: Path, options: BatchOptions) -> BatchSummary:
        """Run one shard to its end, or resume it where another worker was killed.

        If cancelled, so are the requests; all outcomes so far are recorded.

        Raises:
            BatchError: the shard cannot be read or recorded; the message names this node.
        """
        if not await anyio.Path(shard).exists():
            raise BatchError(
                f"{shard} does not exist on {socket.gethostname()}: the output must be on storage that all nodes share"
            )
        failure: Exception | None = None
        summary: BatchSummary | None = None
        async with anyio.create_task_group() as group:
            pacer = LeasedPacer(self._limit, self._name)
            group.start_soon(pacer.run)
            try:
                async with AsyncChatGPTAdapter(**self._arguments, pacer=pacer) as adapter:
                    summary = await self._run_part(shard, options, adapter)
            except Exception as error:  # noqa: BLE001 - raised outside the group, which would wrap it
                failure = error
            group.cancel_scope.cancel()
        self._run = None
        if summary is None:
            raise failure or BatchError(f"{shard}: the worker was stopped")
        return summary

    async def _run_part(self, shard: Path, options: BatchOptions, adapter: AsyncChatGPTAdapter) -> BatchSummary:
        give_up_at = anyio.current_time() + LOCKED_SECONDS
        while True:
            rows = cast("Iterable[Any]", read_shard(shard))  # rows that were parsed before
            run = run_batch(rows, part_of(shard), adapter=adapter, options=options)
            try:
                async with run:
                    self._run = run
                    if self._stop is not None:
                        run.stop(*self._stop)
                    return await run.finish()
            except LockedError:
                if anyio.current_time() > give_up_at:
                    raise
            await anyio.sleep(1)

    async def progress(self) -> BatchProgress | None:
        """Return the progress of the running shard."""
        return None if self._run is None else self._run.progress()

    async def stop(self, reason: StopReason, message: str | None) -> None:
        """Send nothing new. Running requests get the options' grace period."""
        self._stop = (reason, message)
        if self._run is not None:
            self._run.stop(reason, message)
