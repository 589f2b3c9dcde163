"""Sends requests from the source through the adapter into the journal, until the source ends or the run is stopped.

Not here: the run's interface for its caller (`run`), and the last steps after the end (`prepare`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import anyio

from chatscope import AsyncChatGPTAdapter, BudgetExceededError, Result, Task, TaskStatus
from chatscope.batch.delivery import Delivery, Wakeup
from chatscope.batch.options import BatchOptions
from chatscope.batch.prepare import Prepared
from chatscope.batch.recorder import DiskError, Outcome, Recorder
from chatscope.batch.requests import BatchRequest
from chatscope.batch.result import BatchResult
from chatscope.batch.source import InvalidRow
from chatscope.batch.stopping import CLOSE_SECONDS, Stop, StopRules
from chatscope.batch.syncing import Syncer


class NotSentError(Exception):
    """A request was not sent, because the run is being stopped."""


class BatchSender:
    """Sends the requests of a run and records their outcomes.

    Args:
        prepared: the source and the journal.
        adapter, options: as for `run_batch`.
        delivery: receives the outcomes.
        room: notified when an outcome was delivered; the delivery also notifies it.
        stop: decides when to send nothing new.

    Attributes:
        recorder: writes and counts the outcomes.
        syncer: syncs the journal.
        failure: the exception of the source or the adapter.

    Raises:
        InputError: the schema is invalid.
    """

    def __init__(
        self,
        prepared: Prepared,
        adapter: AsyncChatGPTAdapter,
        options: BatchOptions,
        delivery: Delivery,
        room: Wakeup,
        stop: Stop,
    ) -> None:
        self._requests = prepared.requests
        self._adapter = adapter
        self._options = options
        self._delivery = delivery
        self._room = room
        self._stop = stop
        self._rules = StopRules(options, prepared.recorded.cost)
        self.recorder = Recorder(
            prepared.journal, options, prepared.run_id, prepared.recorded.offsets, on_copy=self._deliver
        )
        self.syncer = Syncer(prepared.journal, options.fsync, self._stop_for_disk)
        self.failure: Exception | None = None
        self._records_groups = options.fsync != "each"
        self._scope = anyio.CancelScope()
        self._submitted: dict[BatchRequest, Task] = {}  # to the adapter, and not ended
        self._running: set[BatchRequest] = set()  # those of them that were sent

    @property
    def running_count(self) -> int:
        """How many requests were sent and have not ended."""
        return len(self._running)

    async def run(self) -> None:
        """Send and record until nothing is left, or until `wind_down` or a disk error ends it.

        If cancelled, the outcomes of all requests that have ended are recorded; those that were running have none.
        """
        recorded: list[Outcome] = []  # and not delivered yet
        try:
            results = self._adapter.map(self._tasks(), on_start=self._on_start)
            with self._scope:
                try:
                    async with results:
                        async for result in results:
                            self._record([result, *(results.ready() if self._records_groups else ())], recorded)
                            if self.syncer.on_lines():
                                await self.syncer.sync()
                            self._deliver(recorded)
                finally:
                    self._record(results.ready(), recorded)  # what ended and was not read yet
            if self.syncer.on_lines():
                await self.syncer.sync()
        except DiskError as error:
            self._stop_for_disk(error)
        except Exception as error:  # noqa: BLE001 - what ends all of it; the run's caller gets it
            self._fail(error)
        finally:
            self._deliver(recorded)

    async def wind_down(self) -> None:
        """Once the run is stopped, cancel pending requests, wait for running ones, and cancel them after the grace."""
        await self._stop.wait()
        self._room.notify()
        for request, task in list(self._submitted.items()):
            if request not in self._running and task.task_id is not None:
                await self._adapter.cancel_task(task.task_id)
        with anyio.move_on_after(self._options.grace):
            while self._submitted:
                await self._room.wait()
        self._scope.cancel()

    async def _tasks(self) -> AsyncGenerator[Task, None]:
        """Yield the tasks of the requests to send. Holds no scope while it yields.

        The source is closed here, because it may hold a scope, which must be left in the task that entered it.
        """
        self._stop_if_due()  # earlier runs may have exhausted the budget
        try:
            while not self._stop.is_asked and (found := await self._read()) is not None:
                for item in found:
                    while self._delivery.is_full and not self._stop.is_asked:
                        await self._room.wait()
                    if self._stop.is_asked:
                        return
                    if isinstance(item, InvalidRow):
                        self._record_invalid(item)
                    elif self._must_be_sent(item):
                        task = self._submitted[item] = item.task(stream=self._options.stream)
                        yield task
        finally:
            await self._close_source()

    async def _close_source(self) -> None:
        """Close the source, even if the run is cancelled. What its cleanup raises ends no request that runs."""
        try:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_SECONDS):
                await self._requests.aclose()
        except Exception as error:  # noqa: BLE001 - the source's own, which the run's caller gets
            self.failure = self.failure or error

    def _must_be_sent(self, request: BatchRequest) -> bool:
        """Return whether a request must be sent: not if it gets the outcome of an equal one."""
        try:
            return self.recorder.begin(request)
        except DiskError as error:
            self._stop_for_disk(error)
            return False

    def _record_invalid(self, row: InvalidRow) -> None:
        try:
            self.recorder.record_invalid(row)
            self._stop_if_due()
        except DiskError as error:
            self._stop_for_disk(error)

    async def _read(self) -> list[BatchRequest | InvalidRow] | None:
        """Return the next requests. A source that fails counts as ended: running requests are still recorded."""
        try:
            return await self._requests.read()
        except Exception as error:  # noqa: BLE001 - the source's own, which the run's caller gets
            self._fail(error)
            return None

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or error
        self._stop.ask("input", str(error) or type(error).__name__)

    def _on_start(self, task: Task) -> None:
        """Record that a request is about to be sent.

        Raises:
            NotSentError: the run is being stopped, so it must not be sent.
            DiskError: it cannot be recorded.
        """
        if self._stop.is_asked:
            raise NotSentError("the run is being stopped")
        request: BatchRequest = task.metadata["batch"]
        self.recorder.start(request)
        self._running.add(request)

    def _record(self, results: list[Result], recorded: list[Outcome]) -> None:
        """Record outcomes that arrived together. A request without an outcome will be sent by the next run.

        Args:
            results: the results of requests that have ended.
            recorded: receives the outcomes, even if not all of them can be recorded.

        Raises:
            DiskError: they cannot be recorded.
        """
        ended: list[Outcome] = []
        for result in results:
            assert result.task is not None  # noqa: S101 - only an unknown id has none
            request: BatchRequest = result.task.metadata["batch"]
            del self._submitted[request]
            self._running.discard(request)
            if result.success or self._has_outcome(result):
                ended.append((request, result))
            else:
                self.recorder.abandon(request)
        self._room.notify()
        self.recorder.record(ended, recorded)
        self._stop_if_due([result for _, result in ended])

    def _deliver(self, recorded: list[Outcome]) -> None:
        """Deliver outcomes, and remove them from the list."""
        self._delivery.add(BatchResult(one.custom_id, one.number, one.record, result) for one, result in recorded)
        recorded.clear()

    def _has_outcome(self, result: Result) -> bool:
        """Return whether a failure is the outcome of its request: not if it was cancelled or not sent."""
        error = result.exception
        if isinstance(error, DiskError):  # raised by `_on_start`
            self._stop_for_disk(error)
        elif isinstance(error, BudgetExceededError):
            self._stop.ask("budget", result.error)
        elif not isinstance(error, ValueError) and (result.task is None or result.task.task_id is None):
            self._fail(error or RuntimeError("the adapter accepts no tasks"))  # it is closed, or its queue is full
            return False
        is_refused = isinstance(error, DiskError | BudgetExceededError | NotSentError)
        return result.status is not TaskStatus.CANCELLED and not is_refused

    def _stop_if_due(self, results: Sequence[Result] = ()) -> None:
        if (due := self._rules.reason(self.recorder.tally, results)) is not None:
            self._stop.ask(*due)

    def _stop_for_disk(self, error: Exception) -> None:
        self._stop.fail(error)
        self._scope.cancel()
