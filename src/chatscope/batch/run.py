"""The run of a batch: requests from the source through the adapter into the journal, until all are recorded.

The reading, the sending and the recording are children of one task group that the run's block owns. Outcomes are
recorded as they come, whether or not somebody iterates (`delivery`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import anyio.abc
import anyio.to_thread

from chatscope import (
    AsyncChatGPTAdapter,
    BudgetExceededError,
    Result,
    Task,
    TaskStatus,
)
from chatscope.batch.delivery import Delivery, Wakeup
from chatscope.batch.options import BatchOptions
from chatscope.batch.prepare import Prepared, prepare_in_thread, progress_of
from chatscope.batch.progress import BatchProgress, BatchSummary, Phase, StopReason, Tally, waiting_for
from chatscope.batch.recorder import DiskError, Recorder
from chatscope.batch.requests import BatchRequest
from chatscope.batch.result import BatchResult
from chatscope.batch.source import InvalidRow, Source
from chatscope.batch.stopping import StopRules
from chatscope.batch.syncing import Syncer

SLOTS_READ: Final = 32
"""After so many requests, the adapter is asked anew how many it runs at a time. With `"auto"` that moves, slowly."""

CLOSE_SECONDS: Final = 2.0
"""What syncing and closing may take while the run is being cancelled."""


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

    What `output` holds already is not sent again: the same call resumes a run that was stopped or killed. Iterate over
    the run for the outcomes as they come, or `await run.finish()`. Leaving the block early cancels what runs.

    Args:
        source: a path, `"-"` for standard input, or a sync or async iterable of mappings or `Task` objects.
        output: the path of the output, JSON lines. Failures go to ``*.errors.jsonl`` beside it.
        adapter: sends the requests; its block must be open. Its `max_concurrency` says how many at a time.
        options: how the batch is run; or give its fields as keywords.
        more: fields of `BatchOptions`.

    Raises:
        TypeError, ValueError: an option is unknown, or out of range.
    """
    if options is not None and more:
        options = replace(options, **more)
    return BatchRun(source, Path(output), adapter, options or BatchOptions(**more))


class BatchRun:
    """One run. Made by `run_batch`; enter it, then iterate over it or `await finish()`.

    Args:
        source, output, adapter, options: as for `run_batch`.
    """

    def __init__(self, source: Source, output: Path, adapter: AsyncChatGPTAdapter, options: BatchOptions) -> None:
        self._source = source
        self._output = output
        self._adapter = adapter
        self._options = options
        self._id = secrets.token_hex(4)
        self._phase: Phase = "reading the output"
        self._prepared = Prepared(self._id)
        self._recorder: Recorder | None = None
        self._group: anyio.abc.TaskGroup | None = None
        self._sending = anyio.CancelScope()
        self._running: dict[BatchRequest, Task] = {}
        self._slots: int | None = None  # as the adapter said last
        self._asked = 0  # how often that was used
        self._room = Wakeup()
        self._delivery = Delivery(self._room)
        self._stopped = anyio.Event()
        self._failure: Exception | None = None
        self._stop_reason: StopReason | None = None
        self._stop_message: str | None = None
        self._rules: StopRules | None = None
        self._syncer: Syncer | None = None
        self._began = 0.0
        self._summary: BatchSummary | None = None

    async def __aenter__(self) -> Self:
        """Lock the output, read what is recorded and what is to be sent. Nothing is sent yet if that fails.

        If cancelled, the output is as it was, but for a torn last line that was mended.

        Raises:
            InputError, JournalError, LockedError: the batch cannot be run; the message says why.
            RuntimeError: the run was entered before.
        """
        if self._group is not None or self._summary is not None:
            raise RuntimeError("a run can be entered once; call run_batch again to go on")
        try:
            await prepare_in_thread(self._prepared, self._source, self._output, self._options, self._adapter)
            recorder = Recorder(self._prepared.journal, self._options, self._id, self._prepared.recorded.offsets)
        except BaseException:
            self._prepared.close()
            raise
        self._recorder = recorder
        self._rules = StopRules(self._options, self._prepared.recorded.cost)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._phase, self._began = "running", time.perf_counter()
        self._syncer = Syncer(self._prepared.journal, self._options.fsync, self._stop_for_disk)
        for work in (self._send, self._syncer.run, self._wind_down):
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
        if self._recorder is None or self._delivery.is_discarded:
            raise RuntimeError("iterate within 'async with run_batch(...) as run', and not after finish()")
        if (result := await self._delivery.next()) is None:
            raise StopAsyncIteration
        return result

    async def finish(self) -> BatchSummary:
        """Run to the end without handing out the outcomes, and return the summary. If cancelled, the run goes on.

        Raises:
            Exception: what the source raised.
        """
        await self._delivery.discard()
        return self.summary

    def stop(self, reason: StopReason = "interrupted", message: str | None = None) -> None:
        """Send nothing new. What runs gets the grace to end; what does not end is sent by the next run."""
        if self._stop_reason is None and self._phase == "running":
            self._stop_reason, self._stop_message = reason, message
            self._phase = "stopping"
            self._stopped.set()
            self._room.notify()

    @property
    def summary(self) -> BatchSummary:
        """What became of the run. It is there once the run has ended.

        Raises:
            RuntimeError: the run has not ended.
        """
        if self._summary is None:
            raise RuntimeError("the run has not ended yet")
        return self._summary

    def progress(self) -> BatchProgress:
        """Return how far the run is at this moment."""
        is_entered = self._recorder is not None
        return progress_of(
            self._prepared,
            self._recorder.tally if self._recorder is not None else Tally(),
            phase=self._phase if is_entered else self._prepared.phase,
            running=len(self._running),
            seconds=time.perf_counter() - self._began if is_entered else 0.0,
            waiting_for=waiting_for(self._adapter.statistics()) if self._phase == "running" else None,
            stop_reason=self._stop_reason,
        )

    async def _send(self) -> None:
        """Send the requests and record their outcomes, until the source has ended and nothing runs."""
        try:
            with self._sending:
                async with self._adapter.map(self._tasks()) as results:
                    async for result in results:
                        await self._take(result)
        except DiskError as error:
            self._stop_for_disk(error)
        except Exception as error:  # noqa: BLE001 - the adapter is closed, say; the run's caller gets it
            self._failure = self._failure or error
        await self._end()

    async def _tasks(self) -> AsyncGenerator[Task, None]:
        """Yield the tasks of the requests that are to be sent. Holds no scope while it yields."""
        assert self._recorder is not None  # noqa: S101 - the run is entered
        while self._phase == "running" and (found := await self._read()) is not None:
            for item in found:
                self._stop_if_due(None)  # earlier runs may have spent it all
                while self._has_enough():
                    await self._room.wait()
                if self._phase != "running":
                    return
                try:
                    if isinstance(item, InvalidRow):
                        self._recorder.record_invalid(item)
                        continue
                    if not self._recorder.begin(item):
                        continue
                except DiskError as error:
                    self._stop_for_disk(error)
                    return
                task = self._running[item] = item.task(stream=self._options.stream)
                yield task

    async def _read(self) -> list[BatchRequest | InvalidRow] | None:
        """Return the next requests. When the source fails, it counts as ended: what runs is still recorded."""
        try:
            return await self._prepared.requests.read()
        except Exception as error:  # noqa: BLE001 - the source's own, which the run's caller gets
            self._failure = error
            self.stop("input", str(error) or type(error).__name__)
            return None

    def _has_enough(self) -> bool:
        """Tell whether to wait before the next request: one waits for a slot already, or outcomes are not fetched.

        With one waiting, no slot is ever empty; with more, a run that is stopped would have more to take back. Only
        this run's own requests count: the adapter may be busy with others.
        """
        if self._phase != "running":
            return False
        if self._delivery.is_full:
            return True
        if not self._asked % SLOTS_READ:
            self._slots = self._adapter.statistics().concurrency
        self._asked += 1
        return self._slots is not None and len(self._running) > self._slots

    async def _take(self, result: Result) -> None:
        """Record one outcome. A request that was cancelled or not allowed has none: the next run sends it."""
        assert self._recorder is not None  # noqa: S101 - the run is entered
        assert self._syncer is not None  # noqa: S101 - as above
        assert result.task is not None  # noqa: S101 - only an unknown id has none
        request: BatchRequest = result.task.metadata["batch"]
        self._running.pop(request, None)
        self._room.notify()
        if result.status is TaskStatus.CANCELLED or isinstance(result.exception, BudgetExceededError):
            self._recorder.abandon(request)
            if isinstance(result.exception, BudgetExceededError):
                self.stop("budget", result.error)
            return
        result, answered = self._recorder.record(request, result)
        await self._syncer.on_line()
        self._delivery.add(BatchResult(one.custom_id, one.number, one.record, result) for one in answered)
        self._stop_if_due(result)

    def _stop_if_due(self, result: Result | None) -> None:
        assert self._recorder is not None  # noqa: S101 - the run is entered
        if self._rules is not None and (due := self._rules.reason(self._recorder.tally, result)) is not None:
            self.stop(*due)

    async def _wind_down(self) -> None:
        """Once the run is stopped: cancel what has not begun, wait for what runs, and cancel that after the grace."""
        await self._stopped.wait()
        for task in list(self._running.values()):
            if task.task_id is not None and await self._adapter.get_status(task.task_id) is TaskStatus.PENDING:
                await self._adapter.cancel_task(task.task_id)
        with anyio.move_on_after(self._options.grace):
            while self._running:
                await self._room.wait()
        self._sending.cancel()

    def _stop_for_disk(self, error: Exception) -> None:
        """Stop at once, whatever else the run was stopped for: no further outcome could be recorded."""
        self._stop_reason, self._stop_message = "disk", str(error)
        if self._phase == "running":
            self._phase = "stopping"
        self._stopped.set()
        self._sending.cancel()

    async def _end(self) -> None:
        """Do the last steps and set the summary."""
        assert self._recorder is not None  # noqa: S101 - the run is entered
        assert self._syncer is not None  # noqa: S101 - as above
        self._phase = "finishing"
        await self._syncer.sync()
        if self._stop_reason != "disk":
            finish = partial(self._prepared.finish, self._recorder.outcomes)
            try:
                await anyio.to_thread.run_sync(finish, limiter=anyio.CapacityLimiter(1))
            except OSError as error:
                self._stop_for_disk(error)
            except Exception as error:  # noqa: BLE001 - an output that was damaged meanwhile; the caller gets it
                self._failure = self._failure or error
        self._set_summary()
        self._phase = "ended"
        self._delivery.end(self._failure)

    async def _close(self) -> None:
        """Sync and unlock, also when the run was cancelled."""
        try:
            await self._prepared.requests.aclose()
            if self._phase != "ended" and self._syncer is not None:
                await self._syncer.sync()
        finally:
            if self._summary is None:
                self._stop_reason = self._stop_reason or "interrupted"
                self._set_summary()
            self._phase = "ended"
            self._delivery.end(self._failure)
            self._prepared.close()

    def _set_summary(self) -> None:
        assert self._recorder is not None  # noqa: S101 - the run is entered
        seconds = time.perf_counter() - self._began
        self._summary = self._prepared.summary(self._recorder.tally, seconds, self._stop_reason, self._stop_message)
