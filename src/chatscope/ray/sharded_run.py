"""ShardedRun: a batch on a cluster. The input is split into shards, workers record them, and the parts are merged.

It is used like a `BatchRun`, and writes the same files: a batch that was started on one machine may be resumed on a
cluster, and the reverse.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import anyio.abc
import anyio.to_thread

from chatscope import AsyncChatGPTAdapter
from chatscope.batch import BatchOptions, BatchProgress, BatchSummary, InputError, LockedError
from chatscope.batch.journal import Paths
from chatscope.batch.prepare import Prepared, prepare_in_thread, progress_of
from chatscope.batch.progress import StopReason, Tally
from chatscope.batch.recorder import Recorder
from chatscope.batch.shards import Shards
from chatscope.batch.source import Source
from chatscope.batch.stopping import CLOSE_SECONDS, StoppableRun, StopRules, reason_of
from chatscope.errors import first_in
from chatscope.ray.engine import connect, count_nodes, ray_module
from chatscope.ray.limit import SharedLimit
from chatscope.ray.sharder import LOCKED_SECONDS, Sharder, in_thread
from chatscope.ray.worker_pool import WorkerPool

SHARD_OPTIONS: Final = ("schema", "url", "stream", "output_format", "fsync", "grace")
"""The options that a worker applies to its shard. This process applies all others to the whole batch."""


def run_batch_on_ray(
    source: Source,
    output: str | Path,
    *,
    address: str,
    workers: int | None = None,
    adapter: Mapping[str, Any] | None = None,
    options: BatchOptions | None = None,
) -> ShardedRun:
    """Run the requests of a source on a Ray cluster, and record their outcomes in a file.

    ::

        async with run_batch_on_ray("requests.jsonl", "results.jsonl", address="auto", workers=4) as run:
            summary = await run.finish()

    The output must be on storage that all nodes share. The same call resumes a run that was killed, and so does
    `run_batch`. Budgets and `max_concurrency` apply to all workers together; without `max_concurrency`, each worker
    runs 100 requests at a time.

    Args:
        source: as for `run_batch`.
        output: the path of the output.
        address: of the cluster: `auto`, `HOST:PORT`, `ray://HOST:PORT`, or `local` for one on this machine.
        workers: how many processes send; by default one per node.
        adapter: the arguments of `AsyncChatGPTAdapter`. By default, `OPENAI_API_KEY` and `OPENAI_BASE_URL` of this
            process are used.
        options: how the batch is run. `dedup` cannot be combined with shards.

    Raises:
        ValueError: an argument is invalid; the message names it.
        ImportError: Ray is not installed.
    """
    ray_module()
    options = options or BatchOptions()
    if options.dedup:
        raise ValueError(
            "dedup compares all requests, and shards know only their own: leave it out, or run without Ray"
        )
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    return ShardedRun(source, Path(output), address, workers, dict(adapter or {}), options)


class ShardedRun(StoppableRun):
    """One run on a cluster. Made by `run_batch_on_ray`; enter it, then `await finish()`.

    Args:
        source, output, address, workers, arguments, options: as for `run_batch_on_ray`.
    """

    def __init__(
        self,
        source: Source,
        output: Path,
        address: str,
        workers: int | None,
        arguments: dict[str, Any],
        options: BatchOptions,
    ) -> None:
        self._id = secrets.token_hex(4)
        super().__init__(Prepared(self._id))
        for name in ("api_key", "base_url"):  # the nodes have environments of their own
            if arguments.get(name) is None:
                arguments[name] = os.environ.get(f"OPENAI_{name.upper()}")
        budgets = (arguments.pop("requests_per_minute", None), arguments.pop("tokens_per_minute", None))
        self._limit = SharedLimit(*budgets, name=f"chatscope-limit-{self._id}")
        self._adapter = AsyncChatGPTAdapter(**arguments)  # never opened: it checks the arguments
        if not self._adapter.is_implemented:
            raise InputError("no API key: set OPENAI_API_KEY in the environment (OPENAI_API_KEY= sends none)")
        self._source, self._output, self._options = source, output, options
        self._address, self._workers, self._arguments = address, workers, arguments
        self._recorder: Recorder | None = None
        self._sharder: Sharder | None = None
        self._pool: WorkerPool | None = None
        self._failure: Exception | None = None
        self._ended = anyio.Event()
        self._began = 0.0
        self._is_connected_here = False

    async def __aenter__(self) -> Self:
        """Connect to the cluster, lock the output, and read the records. If this fails, nothing has been sent.

        If cancelled, the output is unchanged, except that a torn last line was repaired and parts were merged.

        Raises:
            InputError, JournalError, LockedError: the batch cannot be run; the message says why.
            ConnectionError: there is no cluster at the address.
            RuntimeError: the run was entered before.
        """
        self._check_first_entry()
        self._is_connected_here = await in_thread(partial(connect, self._address))
        try:
            await self._prepare()
            count = await self._start_workers()
        except BaseException:
            self._prepared.close()
            self._disconnect()
            raise
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._began = time.perf_counter()
        self._group.start_soon(self._run, count)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None  # noqa: S101 - the block was entered
        self._group.cancel_scope.cancel()
        try:
            await self._group.__aexit__(None, None, None)
        finally:
            try:
                if self._summary is None:  # the parts stay as they are, and the next run merges them
                    self._stop.ask("interrupted")
                    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_SECONDS):
                        await self._summarise(self._live_tally())
            finally:
                self._prepared.close()
                self._disconnect()

    async def finish(self) -> BatchSummary:
        """Wait for the end, and return the summary. If cancelled, the run continues.

        Raises:
            BatchError: the input could not be read further, or a worker could not run its shard.
            OSError: the disk is full, or failed.
        """
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure
        return self.summary

    def stop(self, reason: StopReason = "interrupted", message: str | None = None) -> None:
        """Stop the workers: as `BatchRun.stop`."""
        if self._phase == "running" and self._pool is not None:
            self._pool.stop(reason, message)
        super().stop(reason, message)

    def progress(self) -> BatchProgress:
        """Return the run's progress. The workers report theirs every half second."""
        running = [] if self._pool is None else self._pool.running.values()
        waits = Counter(one.waiting_for for one in running if one.waiting_for is not None)
        return progress_of(
            self._prepared,
            self._live_tally(),
            phase=self._phase,
            running=sum(one.running for one in running),
            seconds=time.perf_counter() - self._began if self._began else 0.0,
            waiting_for=waits.most_common(1)[0][0] if waits else None,
            stop_reason=self._stop.reason,
        )

    async def _prepare(self) -> None:
        """Prepare as a local run does. Workers of a killed run may still lock the parts for a while."""
        give_up_at = anyio.current_time() + LOCKED_SECONDS
        while True:
            try:
                await prepare_in_thread(self._prepared, self._source, self._output, self._options, self._adapter)
                break
            except LockedError:
                self._prepared.close()
                if anyio.current_time() > give_up_at or not Shards(Paths(self._output)).exist():
                    raise
            self._prepared = Prepared(self._id)
            await anyio.sleep(1)
        self._recorder = Recorder(self._prepared.journal, self._options, self._id, None)
        self._sharder = Sharder(self._prepared, self._recorder)

    async def _start_workers(self) -> int:
        """Start the limit and make the pool; return how many workers it has."""
        count = self._workers or await in_thread(count_nodes)
        arguments = self._arguments | {"keep_finished": 1}
        most = arguments.get("max_concurrency")
        if isinstance(most, int):
            arguments["max_concurrency"] = -(-most // count)
        await in_thread(self._limit.start)
        options = BatchOptions(**{name: getattr(self._options, name) for name in SHARD_OPTIONS})
        self._pool = WorkerPool(count, arguments, self._limit, options, self._stop_if_due)
        return count

    async def _run(self, count: int) -> None:
        """Plan, run and merge. An error ends the run, and `finish` raises it."""
        for step in (partial(self._run_shards, count), self._merge):
            try:
                await step()
            except* Exception as errors:  # noqa: BLE001 - whatever it is, the caller of `finish` gets it
                self._fail(first_in(errors))
        if self._summary is None:
            await self._summarise(self._live_tally())
        self._ended.set()

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        reason = reason_of(error)
        self.stop(reason, str(error) or type(error).__name__)
        self._stop.ask(reason, str(error) or type(error).__name__)  # also if nothing runs any more

    async def _run_shards(self, count: int) -> None:
        assert self._pool is not None  # noqa: S101 - the run was entered
        send, receive = anyio.create_memory_object_stream[Path](2 * count)
        async with anyio.create_task_group() as group, send, receive:
            for number in range(count):
                group.start_soon(self._pool.work, number, receive.clone())
            receive.close()
            await self._send_shards(send, count)
            send.close()

    async def _send_shards(self, send: anyio.abc.ObjectSendStream[Path], count: int) -> None:
        """Pass on each shard as soon as it is written. If the source fails, the rows before the failure still run."""
        assert self._sharder is not None  # noqa: S101 - the run was entered
        try:
            self._stop_if_due()  # earlier runs may have exhausted the budget
            async with aclosing(self._sharder.shards(count)) as shards:
                async for shard in shards:
                    if self._phase != "running":
                        return
                    await send.send(shard)
        except Exception as error:  # noqa: BLE001 - `finish` raises it
            self._fail(error)

    async def _merge(self) -> None:
        assert self._sharder is not None  # noqa: S101 - the run was entered
        self._is_finishing = True
        await self._summarise(await self._sharder.merge())

    def _stop_if_due(self) -> None:
        """Stop if the counts of all workers reach a limit, or if one of them had to stop."""
        assert self._pool is not None  # noqa: S101 - the pool calls it
        for summary in self._pool.ended:
            if summary.stop_reason is not None:
                self.stop(summary.stop_reason, summary.stop_message)
        rules = StopRules(self._options, self._prepared.recorded.cost)
        if (due := rules.reason(self._live_tally())) is not None:
            self.stop(*due)

    def _live_tally(self) -> Tally:
        tally = Tally() if self._recorder is None else replace(self._recorder.tally, failures=Counter())
        if self._pool is not None:
            self._pool.add_to(tally)
        return tally

    async def _summarise(self, tally: Tally) -> None:
        """Make the summary, and write it in a worker thread. If cancelled, the thread finishes first."""
        seconds = time.perf_counter() - self._began
        summary: BatchSummary = await in_thread(
            partial(self._prepared.summary, tally, seconds, self._stop.reason, self._stop.message)
        )
        if self._pool is not None and self._pool.lost:
            notice = f"{self._pool.lost} workers were lost, and their shards went on elsewhere: {self._pool.last_loss}"
            summary = replace(summary, notices=(*summary.notices, notice))
        self._summary = summary

    def _disconnect(self) -> None:
        self._limit.stop()
        if self._is_connected_here:
            ray_module().shutdown()
