"""Runs one stage in the calling process: sends each request when it is due, and records it.

Here: the open and the closed loop, and stopping a stage. Not here: when requests are due (`schedule`, `plan`), and
sending one (`sending`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import anyio
import anyio.abc
import anyio.lowlevel

from chatscope import Completion
from chatscope.load.plan import LoadPlan
from chatscope.load.planned import LoadStage, PlannedRequest
from chatscope.load.records import RequestRecord
from chatscope.load.schedule import ALL, SECOND, WorkShare
from chatscope.load.sending import EncodedRequest, Encoder

ENCODED_AHEAD: Final = 64
"""How many requests are encoded before they are due. Bursts of this size are sent without encoding in between."""

_BUSY_SECONDS: Final = 0.002
"""Seconds before a due request in which nothing is encoded. Encoding a request takes about 0.1 ms."""


class StageWorker:
    """Runs the requests of one stage.

    Args:
        encoder: makes and sends the requests.
        stage: the stage.
        schedule: its requests, in order.
        first_index: the number of its first request in the whole run.
        on_record: called with each record once its request has ended. It must not wait.
        share: the part of the stage whose slots are run.

    Attributes:
        started_ns: when the stage started: offsets count from here.
        running: how many requests are running.
        dispatched: how many were sent.
    """

    def __init__(
        self,
        encoder: Encoder,
        stage: LoadStage,
        schedule: Iterator[PlannedRequest],
        first_index: int,
        on_record: Callable[[RequestRecord], object],
        share: WorkShare = ALL,
    ) -> None:
        self._encoder = encoder
        self._plan: LoadPlan = encoder.plan
        self._stage = stage
        self._schedule = schedule
        self._first_index = first_index
        self._on_record = on_record
        self._share = share
        self._windows = encoder.plan.windows()
        self._ready: deque[EncodedRequest] = deque()
        self._sending = anyio.CancelScope()
        self._draining = anyio.CancelScope()
        limit = encoder.plan.max_concurrency
        self._slots = None if limit is None else anyio.Semaphore(len(share.slots(limit)))
        self._open: dict[int, RequestRecord] = {}
        self._stopped = anyio.Event()
        self._ends_ns: int | None = None
        self.started_ns = 0
        self.running = 0
        self.dispatched = 0

    async def run(self, started_ns: int) -> None:
        """Run the stage until every sent request has ended. If cancelled, all requests are cancelled and recorded.

        Args:
            started_ns: when the stage starts.
        """
        self.started_ns = started_ns
        if self._plan.duration is not None:
            self._ends_ns = started_ns + round(self._plan.duration * SECOND)
        try:
            with self._draining:
                async with anyio.create_task_group() as requests:
                    with self._sending:
                        if self._stage.concurrency is None:
                            await self._run_open_loop(requests)
                        else:
                            await self._run_closed_loop(self._stage.concurrency, requests)
        finally:
            for record in list(self._open.values()):  # due, but cancelled before they were sent
                self._end(record)

    def stop(self, grace: float) -> None:
        """Send nothing more, and give running requests a number of seconds to end. A second call only shortens it."""
        self._sending.cancel()
        self._stopped.set()
        self._draining.deadline = min(self._draining.deadline, anyio.current_time() + grace)

    def encode_ahead(self) -> bool:
        """Encode one more request if few are ready. Return whether there was one to encode."""
        if len(self._ready) >= ENCODED_AHEAD:
            return False
        planned = next(self._schedule, None)
        if planned is None:
            return False
        self._ready.append(self._encoder.encode(planned, self._first_index + planned.index))
        return True

    async def _run_open_loop(self, requests: anyio.abc.TaskGroup) -> None:
        while (request := self._next()) is not None:
            due = self.started_ns + (request.planned.offset or 0)
            while _seconds_until(due) > _BUSY_SECONDS and self.encode_ahead():
                await anyio.lowlevel.checkpoint()  # responses are read in between
            if (wait := _seconds_until(due)) > 0:
                await anyio.sleep(wait)
            else:
                await anyio.lowlevel.checkpoint()
            requests.start_soon(self._converse, request, self._record(request, due))

    async def _run_closed_loop(self, concurrency: int, requests: anyio.abc.TaskGroup) -> None:
        while len(self._ready) < len(self._share.slots(concurrency)) and self.encode_ahead():
            await anyio.lowlevel.checkpoint()
        # The slots end with `_sending`, but the requests that they wait for do not.
        async with anyio.create_task_group() as slots:
            for slot in self._share.slots(concurrency):
                starts_ns = self.started_ns + self._plan.slot_offset(slot, concurrency)
                slots.start_soon(self._run_slot, starts_ns, requests)

    async def _run_slot(self, starts_ns: int, requests: anyio.abc.TaskGroup) -> None:
        due = starts_ns
        if (wait := _seconds_until(due)) > 0:
            await anyio.sleep(wait)
        while self._ends_ns is None or due < self._ends_ns:
            request = self._next()
            if request is None:
                return
            ended = anyio.Event()
            requests.start_soon(self._converse, request, self._record(request, due), ended)
            self.encode_ahead()
            await ended.wait()
            due = time.perf_counter_ns()

    async def _converse(self, request: EncodedRequest, record: RequestRecord, ended: anyio.Event | None = None) -> None:
        """Send a request, then the later turns of its session, until one fails. Set an event at the end.

        If cancelled while a request runs, it is recorded as unfinished; a turn that was not due has no record.
        """
        while True:
            completion = await self._send_due(request, record)
            if completion is None or record.finished_ns is None or not request.planned.later:
                break
            due = record.finished_ns + round(self._encoder.workload.think_time * SECOND)
            number = self._first_index + request.planned.later[0].index
            request = self._encoder.encode_next_turn(request, record, completion, number)
            if (wait := _seconds_until(due)) > 0:
                with anyio.move_on_after(wait):
                    await self._stopped.wait()
            if self._stopped.is_set() or (self._ends_ns is not None and due >= self._ends_ns):
                break
            record = self._record(request, due)
        if ended is not None:
            ended.set()

    async def _send_due(self, request: EncodedRequest, record: RequestRecord) -> Completion | None:
        if self._slots is None:
            return await self._send(request, record)
        waits_since = time.perf_counter_ns()
        async with self._slots:
            record.queued_ns = time.perf_counter_ns() - waits_since
            return await self._send(request, record)

    async def _send(self, request: EncodedRequest, record: RequestRecord) -> Completion | None:
        self.running += 1
        self.dispatched += 1
        try:
            return await self._encoder.send(request, record)
        finally:
            self.running -= 1
            self._end(record)

    def _end(self, record: RequestRecord) -> None:
        del self._open[record.index]
        self._on_record(record)

    def _next(self) -> EncodedRequest | None:
        if not self._ready and not self.encode_ahead():
            return None
        return self._ready.popleft()

    def _record(self, request: EncodedRequest, due: int) -> RequestRecord:
        planned = request.planned
        record = self._open[planned.index] = RequestRecord(
            index=planned.index,
            stage=self._stage.index,
            worker=self._share.worker,
            due_ns=due,
            session=planned.session,
            turn=planned.source.turn,
            requested_prompt_tokens=planned.source.prompt_tokens,
            requested_output_tokens=planned.source.output_tokens,
            window=self._windows.of(due - self.started_ns),
        )
        return record


def _seconds_until(moment_ns: int) -> float:
    return (moment_ns - time.perf_counter_ns()) / SECOND
