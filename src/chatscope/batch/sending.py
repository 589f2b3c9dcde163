"""Sends requests from the source through the adapter into the journal, until the source ends or the run is stopped.

Not here: the run's interface for its caller (`run`), and the last steps after the end (`prepare`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

import anyio

from chatscope import AsyncChatGPTAdapter, BudgetExceededError, Result, Task, TaskStatus
from chatscope.batch.delivery import Delivery, Wakeup
from chatscope.batch.options import BatchOptions
from chatscope.batch.prepare import Prepared
from chatscope.batch.recorder import DiskError, Recorder
from chatscope.batch.requests import BatchRequest
from chatscope.batch.result import BatchResult
from chatscope.batch.source import InvalidRow
from chatscope.batch.stopping import Stop, StopRules
from chatscope.batch.syncing import Syncer

SLOTS_READ: Final = 32
"""The adapter's concurrency is read again after this many requests. With `"auto"` it changes slowly."""


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
        is_full: whether the next request waits until another one ends.

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
        self.is_full = False
        self._scope = anyio.CancelScope()
        self._running: dict[BatchRequest, Task] = {}
        self._slots: int | None = None  # the adapter's latest value
        self._slots_age = SLOTS_READ  # requests given to it since then

    @property
    def running_count(self) -> int:
        """How many requests were given to the adapter and have not ended."""
        return len(self._running)

    async def run(self) -> None:
        """Send and record until nothing is left, or until `wind_down` or a disk error ends it.

        If cancelled, the recorded outcomes remain; requests that were still running have none.
        """
        try:
            with self._scope:
                async with self._adapter.map(self._tasks()) as results:
                    async for result in results:
                        await self._take(result)
        except DiskError as error:
            self._stop_for_disk(error)
        except Exception as error:  # noqa: BLE001 - the adapter is closed, say; the run's caller gets it
            self.failure = self.failure or error

    async def wind_down(self) -> None:
        """Once the run is stopped, cancel pending requests, wait for running ones, and cancel them after the grace."""
        await self._stop.wait()
        self._room.notify()
        for task in list(self._running.values()):
            if task.task_id is not None and await self._adapter.get_status(task.task_id) is TaskStatus.PENDING:
                await self._adapter.cancel_task(task.task_id)
        with anyio.move_on_after(self._options.grace):
            while self._running:
                await self._room.wait()
        self._scope.cancel()

    async def _tasks(self) -> AsyncGenerator[Task, None]:
        """Yield the tasks of the requests to send. Holds no scope while it yields."""
        while not self._stop.is_asked and (found := await self._read()) is not None:
            while found:
                self._stop_if_due(None)  # earlier runs may have exhausted the budget
                while not (free := self._free()) and not self._stop.is_asked:
                    self.is_full = not self._delivery.is_full
                    await self._room.wait()
                    self.is_full = False
                group, found = found[:free], found[free:]
                for request in self._begin(group):
                    if self._stop.is_asked:
                        return
                    task = self._running[request] = request.task(stream=self._options.stream)
                    yield task
                if self._stop.is_asked:
                    return

    def _begin(self, group: list[BatchRequest | InvalidRow]) -> list[BatchRequest]:
        """Record invalid rows, and the requests that are about to be sent. Return the requests to send."""
        requests: list[BatchRequest] = []
        try:
            for item in group:
                if self._stop.is_asked:
                    break
                if isinstance(item, InvalidRow):
                    self.recorder.record_invalid(item)
                    self._stop_if_due(None)
                elif self.recorder.begin(item):
                    requests.append(item)
            if not self._stop.is_asked:  # otherwise none of them is sent
                self.recorder.start(requests)
        except DiskError as error:
            self._stop_for_disk(error)
        return requests

    async def _read(self) -> list[BatchRequest | InvalidRow] | None:
        """Return the next requests. A source that fails counts as ended: running requests are still recorded."""
        try:
            return await self._requests.read()
        except Exception as error:  # noqa: BLE001 - the source's own, which the run's caller gets
            self.failure = error
            self._stop.ask("input", str(error) or type(error).__name__)
            return None

    def _free(self) -> int:
        """Return how many requests may be given to the adapter: as many as have a slot, or none if outcomes pile up.

        If the run were killed, a request that still waited for its slot would be recorded as sent. Only this run's own
        requests count, because the adapter may also run others.
        """
        if self._delivery.is_full:
            return 0
        if self._slots_age >= SLOTS_READ:
            self._slots, self._slots_age = self._adapter.statistics().concurrency, 0
        free = SLOTS_READ if self._slots is None else min(SLOTS_READ, max(0, self._slots - len(self._running)))
        self._slots_age += free
        return free

    async def _take(self, result: Result) -> None:
        """Record one outcome. A request that was cancelled or not allowed has none, so the next run sends it.

        If cancelled while the line is synced, the outcome is recorded but not delivered.
        """
        assert result.task is not None  # noqa: S101 - only an unknown id has none
        request: BatchRequest = result.task.metadata["batch"]
        self._running.pop(request, None)
        self._room.notify()
        if result.status is TaskStatus.CANCELLED or isinstance(result.exception, BudgetExceededError):
            self.recorder.abandon(request)
            if isinstance(result.exception, BudgetExceededError):
                self._stop.ask("budget", result.error)
            return
        result, requests = self.recorder.record(request, result)
        if self.syncer.on_line():
            await self.syncer.sync()
        self._delivery.add(BatchResult(one.custom_id, one.number, one.record, result) for one in requests)
        self._stop_if_due(result)

    def _deliver(self, request: BatchRequest, result: Result) -> None:
        self._delivery.add([BatchResult(request.custom_id, request.number, request.record, result)])

    def _stop_if_due(self, result: Result | None) -> None:
        if (due := self._rules.reason(self.recorder.tally, result)) is not None:
            self._stop.ask(*due)

    def _stop_for_disk(self, error: Exception) -> None:
        self._stop.fail(error)
        self._scope.cancel()
