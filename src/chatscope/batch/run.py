"""The run of a batch, as its caller sees it: enter it, iterate over it, watch it, stop it, and get its summary.

Sending (`sending`) and syncing run in one task group that the run's block owns. Outcomes are recorded as they arrive,
whether or not the caller iterates (`delivery`).
"""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread

from chatscope import AsyncChatGPTAdapter
from chatscope.batch.delivery import Delivery, Wakeup
from chatscope.batch.options import BatchOptions
from chatscope.batch.prepare import Prepared, prepare_in_thread, progress_of
from chatscope.batch.progress import BatchProgress, BatchSummary, Tally, waiting_for
from chatscope.batch.result import BatchResult
from chatscope.batch.sending import BatchSender
from chatscope.batch.source import Source
from chatscope.batch.stopping import CLOSE_SECONDS, StoppableRun, reason_of


def run_batch(
    source: Source,
    output: str | Path,
    *,
    adapter: AsyncChatGPTAdapter,
    options: BatchOptions | None = None,
    **more: Any,
) -> BatchRun:
    """Run the requests of a source and record their outcomes in a file.

    ::

        async with run_batch("requests.jsonl", "results.jsonl", adapter=adapter) as run:
            async for result in run:
                print(result.custom_id, result.output)

    Requests that `output` already holds are not sent again: the same call resumes a run that was stopped or killed.
    Iterate over the run to get the outcomes as they arrive, or `await run.finish()`. Leaving the block early cancels
    the running requests.

    Args:
        source: a path, `"-"` for standard input, or a sync or async iterable of mappings or `Task` objects.
        output: the path of the output, JSON lines. Failures go to ``*.errors.jsonl`` beside it.
        adapter: sends the requests; its block must be open. Its `max_concurrency` limits how many run at a time.
        options: how the batch is run. Alternatively, pass the fields as keywords.
        more: fields of `BatchOptions`.

    Raises:
        TypeError, ValueError: an option is unknown, or out of range.
    """
    if options is not None and more:
        options = replace(options, **more)
    return BatchRun(source, Path(output), adapter, options or BatchOptions(**more))


class BatchRun(StoppableRun):
    """One run. Made by `run_batch`; enter it, then iterate over it or `await finish()`.

    Args:
        source, output, adapter, options: as for `run_batch`.
    """

    def __init__(self, source: Source, output: Path, adapter: AsyncChatGPTAdapter, options: BatchOptions) -> None:
        super().__init__(Prepared(secrets.token_hex(4)))
        self._source = source
        self._output = output
        self._adapter = adapter
        self._options = options
        self._sender: BatchSender | None = None
        room = Wakeup()
        self._delivery = Delivery(room)
        self._room = room
        self._began = 0.0

    async def __aenter__(self) -> Self:
        """Lock the output, read what is recorded, and decide what to send. If this fails, nothing has been sent.

        If cancelled, the output is unchanged, except that a torn last line was repaired.

        Raises:
            InputError, JournalError, LockedError: the batch cannot be run; the message says why.
            RuntimeError: the run was entered before.
        """
        self._check_first_entry()
        try:
            await prepare_in_thread(self._prepared, self._source, self._output, self._options, self._adapter)
            self._sender = BatchSender(
                self._prepared, self._adapter, self._options, self._delivery, self._room, self._stop
            )
        except BaseException:
            self._prepared.close()
            raise
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._began = time.perf_counter()
        for work in (self._send, self._sender.syncer.run, self._sender.wind_down):
            self._group.start_soon(work)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None  # noqa: S101 - the block was entered
        self._group.cancel_scope.cancel()
        try:
            await self._group.__aexit__(None, None, None)
        finally:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_SECONDS):
                await self._close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BatchResult:
        """Return the next outcome; it is recorded by then. If cancelled, none is lost: the next call returns it.

        Raises:
            Exception: what the source raised.
            RuntimeError: outside the run's block, or after `finish`.
        """
        if self._sender is None or self._delivery.is_discarded:
            raise RuntimeError("iterate within 'async with run_batch(...) as run', and not after finish()")
        if (result := await self._delivery.next()) is None:
            raise StopAsyncIteration
        return result

    async def finish(self) -> BatchSummary:
        """Run to the end without delivering the outcomes, and return the summary. If cancelled, the run continues.

        Raises:
            Exception: what the source raised.
            RuntimeError: the run's block was not entered.
        """
        if self._sender is None:
            raise RuntimeError("await finish() within 'async with run_batch(...) as run'")
        await self._delivery.discard()
        return self.summary

    def progress(self) -> BatchProgress:
        """Return the run's current progress."""
        sender, phase = self._sender, self._phase
        return progress_of(
            self._prepared,
            Tally() if sender is None else sender.recorder.tally,
            phase=phase,
            running=0 if sender is None else sender.running_count,
            seconds=0.0 if sender is None else time.perf_counter() - self._began,
            waiting_for=waiting_for(self._adapter.statistics()) if phase == "running" else None,
            stop_reason=self._stop.reason,
        )

    async def _send(self) -> None:
        """Send the requests until nothing is left, then do the last steps and set the summary."""
        assert self._sender is not None  # noqa: S101 - the run is entered
        await self._sender.run()
        self._is_finishing = True
        await self._sender.syncer.sync()
        failure = self._sender.failure
        if self._stop.reason != "disk":
            finish = partial(self._prepared.finish, self._sender.recorder.outcomes)
            try:
                await anyio.to_thread.run_sync(finish, limiter=anyio.CapacityLimiter(1))
            except OSError as error:
                self._stop.fail(error)
            except Exception as error:  # noqa: BLE001 - a file that was changed meanwhile; the caller gets it
                failure = failure or error
                self._stop.ask(reason_of(error), str(error))
        await self._set_summary()
        self._delivery.end(failure)

    async def _close(self) -> None:
        """Sync and unlock, even if the run was cancelled."""
        assert self._sender is not None  # noqa: S101 - the run is entered
        try:
            await self._prepared.requests.aclose()
            if self._summary is None:
                await self._sender.syncer.sync()
        finally:
            try:
                if self._summary is None:
                    self._stop.ask("interrupted")
                    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_SECONDS):
                        await self._set_summary()  # even if the sync took all of the time
            finally:
                self._delivery.end(self._sender.failure)
                self._prepared.close()

    async def _set_summary(self) -> None:
        """Make the summary, and write it in a worker thread. If cancelled, the thread finishes first."""
        assert self._sender is not None  # noqa: S101 - the run is entered
        tally, seconds = self._sender.recorder.tally, time.perf_counter() - self._began
        summary = partial(self._prepared.summary, tally, seconds, self._stop.reason, self._stop.message)
        self._summary = await anyio.to_thread.run_sync(summary, limiter=anyio.CapacityLimiter(1))
