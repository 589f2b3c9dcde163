"""Runs a plan in worker processes, so that the speed of one core does not limit the load, and nothing else disturbs it.

Here: the number of workers, their shares, their start and their death. Not here: what a worker does
(`process_worker`), and the conclusions (`stages`).
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any, Final, Literal, Protocol

import anyio
import anyio.abc

from chatscope.load.children import close_child, open_child
from chatscope.load.messages import (
    BeginRun,
    MessageFrames,
    Order,
    PrepareStage,
    RequestEnded,
    StageEnded,
    StageFailed,
    StartStage,
    StopStage,
    WorkerMessage,
    encode_order,
)
from chatscope.load.monitor import LoadMonitor
from chatscope.load.plan import LoadPlan, LoadStage, PlannedRequest
from chatscope.load.records import RequestError, RequestRecord
from chatscope.load.report import LoadReport, StageReport
from chatscope.load.schedule import SECOND, WorkShare
from chatscope.load.search import next_stage
from chatscope.load.setup import RunSetup, prepare_alone, report_of
from chatscope.load.sizing import worker_count
from chatscope.load.stages import conclude
from chatscope.load.verdict import WorkerEvidence, WorkerLoss
from chatscope.load.worker_loops import WORKER_LOOPS, WorkerLoop

LEAD_SECONDS: Final = 0.25
"""Seconds between the order to start a stage and its start: ten times as long as workers take to check for orders."""


async def run_in_processes(
    plan: LoadPlan,
    *,
    workers: int | Literal["auto"] = "auto",
    loop: WorkerLoop = "asyncio",
    monitor: LoadMonitor | None = None,
) -> LoadReport:
    """Run a plan in worker processes and return its report. If cancelled, they are killed, and there is no report.

    The schedule is made here, and each worker gets its share before the stage starts. `max_concurrency` is divided,
    too: each worker limits its own part. If a worker dies, the others continue. Its requests count as lost, and the
    verdict is `invalid`.

    Args:
        plan: what to measure.
        workers: how many processes send. `"auto"` starts enough workers to keep each below half a core, as far as
            there are cores, and reserves one core for everything else.
        loop: the event loop of the workers.
        monitor: shows the progress, receives the records in batches, and stops the run early.

    Raises:
        ValueError: the plan names a file that cannot be read as prompts or as a trace, there is no key, or the plan has
            values that cannot be passed to another process.
        ChatError: the calibration's requests failed, so that no request was measured.
        OSError: a file cannot be read, or a process cannot be started.
        ImportError: the event loop's package is not installed.
    """
    _check_loop(loop)
    monitor = monitor or LoadMonitor()
    setup = await prepare_alone(plan)
    count, notices = worker_count(plan, workers)
    async with _started(setup, count, loop) as processes:
        stages = await run_stages(setup, processes, monitor)
    return report_of(setup, stages, monitor, notices)


async def run_stages(setup: RunSetup, workers: Sequence[StartedWorker], monitor: LoadMonitor) -> list[StageReport]:
    """Run every stage of a plan on workers that have started. If cancelled, the workers keep running.

    Raises:
        ValueError: a stage cannot run; the message is a worker's.
    """
    stages: list[StageReport] = []
    while not monitor.is_stopped and (stage := next_stage(setup.plan, stages)) is not None:
        stages.append(await _SharedStage(setup, stage, workers, monitor).run())
    return stages


def _check_loop(loop: str) -> None:
    if loop not in WORKER_LOOPS:
        raise ValueError(f"loop must be one of {', '.join(WORKER_LOOPS)}, not {loop!r}")
    if find_spec(loop) is None:
        raise ImportError(f"{loop} is not installed; install it with: pip install {loop}")


class StartedWorker(Protocol):
    """One worker, as seen by the process that runs the plan.

    Attributes:
        share: which part of every stage it runs.
        death: how it died; `None` while it lives.
        running: how many requests run in the stage.
        dispatched: how many were sent in the stage.
    """

    share: WorkShare
    death: str | None
    running: int
    dispatched: int

    async def send(self, order: Order) -> None:
        """Send an order; do nothing if the worker has died."""

    async def receive(self) -> WorkerMessage | None:
        """Return its next message, with stamps on this process's clock; `None` once it has died."""


class WorkerProcess:
    """One worker, as seen by the parent.

    Args:
        share: which part of every stage it runs.
        process: the process.

    Attributes:
        share: as given.
        death: how it died; `None` while it lives.
        running, dispatched: its counts in the running stage.
    """

    def __init__(self, share: WorkShare, process: anyio.abc.Process) -> None:
        self.share = share
        self.death: str | None = None
        self.running = self.dispatched = 0
        self._process = process
        self._frames = MessageFrames()
        self._messages: deque[WorkerMessage] = deque()

    async def send(self, order: Order) -> None:
        """Send an order; do nothing if the worker has died. If cancelled, send it no further orders."""
        data = encode_order(order)
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        try:
            await self._process.stdin.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._note_death()

    async def receive(self) -> WorkerMessage | None:
        """Return its next message; `None` once it has died. If cancelled, no message is lost."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            while not self._messages and self.death is None:
                self._messages.extend(self._frames.feed(await self._process.stdout.receive()))
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            await self._note_death()
        return self._messages.popleft() if self._messages else None

    async def _note_death(self) -> None:
        status = await self._process.wait()
        self.running = 0
        self.death = f"its process ended with status {status}"
        if status < 0:
            self.death += f" ({signal.Signals(-status).name})"


class _SharedStage:
    """One stage in all workers; a monitor's control of it."""

    def __init__(
        self, setup: RunSetup, stage: LoadStage, processes: Sequence[StartedWorker], monitor: LoadMonitor
    ) -> None:
        self.started_ns = 0
        self._setup = setup
        self._plan = setup.plan
        self._stage = stage
        self._processes = processes
        self._monitor = monitor
        self._shares: dict[StartedWorker, tuple[PlannedRequest, ...]] = {}
        self._evidence: list[WorkerEvidence] = []
        self._failure: str | None = None
        self._grace = 0.0
        self._stop = anyio.Event()

    @property
    def running(self) -> int:
        """How many requests are running."""
        return sum(process.running for process in self._processes)

    @property
    def dispatched(self) -> int:
        """How many requests were sent."""
        return sum(process.dispatched for process in self._processes)

    def stop(self, grace: float) -> None:
        """Send nothing more, and give running requests a number of seconds to end."""
        self._grace = grace
        self._stop.set()

    async def run(self) -> StageReport:
        """Run the stage to its end and return its report. If cancelled, the workers keep running."""
        plan, monitor, first = self._plan, self._monitor, len(self._monitor.records)
        if self._stage.concurrency is None or plan.requests is not None:
            schedule = list(plan.schedule(self._stage, self._setup.workload))
            for process in self._processes:
                self._shares[process] = tuple(process.share.requests(schedule, self._stage.concurrency))
        await self._in_all(self._prepare)
        self._check()
        self.started_ns = time.perf_counter_ns() + round(LEAD_SECONDS * SECOND)
        monitor.on_stage(self._stage, self, plan)
        if monitor.is_stopped:
            self.stop(plan.grace)
        for process in self._processes:
            await process.send(StartStage(self.started_ns))
        async with anyio.create_task_group() as group:
            group.start_soon(self._tell_to_stop)
            await self._in_all(self._follow)
            group.cancel_scope.cancel()
        self._check()
        losses = [self._loss(process, first) for process in self._processes if process.death is not None]
        return conclude(
            plan,
            self._stage,
            self.started_ns,
            monitor.records[first:],
            self._evidence,
            was_stopped=monitor.is_stopped,
            losses=losses,
        )

    def _check(self) -> None:
        if self._failure is not None:
            raise ValueError(self._failure)

    async def _in_all(self, work: Callable[[StartedWorker], Coroutine[Any, Any, None]]) -> None:
        async with anyio.create_task_group() as group:
            for process in self._processes:
                group.start_soon(work, process)

    async def _prepare(self, process: StartedWorker) -> None:
        process.running = process.dispatched = 0
        await process.send(PrepareStage(self._stage, self._shares.get(process)))
        message = await process.receive()
        if isinstance(message, StageFailed):
            self._failure = message.message

    async def _follow(self, process: StartedWorker) -> None:
        """Receive a worker's messages until its stage has ended, or the worker has died."""
        while (message := await process.receive()) is not None:
            if isinstance(message, RequestEnded):
                process.dispatched, process.running = message.dispatched, message.running
                self._monitor.add(message.record)
            elif isinstance(message, StageEnded):
                self._evidence.append(message.evidence)
                return
            elif isinstance(message, StageFailed):
                self._failure = message.message
                return

    async def _tell_to_stop(self) -> None:
        while True:
            await self._stop.wait()
            self._stop = anyio.Event()
            for process in self._processes:
                await process.send(StopStage(self._grace))

    def _loss(self, process: StartedWorker, first: int) -> WorkerLoss:
        """Return the loss that a worker's death means, and record its requests whose due time is known."""
        worker, reason, share = process.share.worker, process.death or "", self._shares.get(process)
        if share is None:  # in a closed loop without an end, only the running requests are known
            return WorkerLoss(
                worker=worker, reason=reason, requests=len(process.share.slots(self._stage.concurrency or 0))
            )
        seen = {record.index for record in self._monitor.records[first:] if record.worker == worker}
        turns = (turn for planned in share for turn in (planned, *planned.later))
        lost = [planned for planned in turns if planned.index not in seen]
        now, windows = time.perf_counter_ns(), self._plan.windows()
        for planned in lost:
            due_ns = self.started_ns + (planned.offset or 0)
            if planned.offset is None or (self._monitor.is_stopped and due_ns > now):
                continue  # due when a slot was free or a turn had ended, or not sent because the run was stopped
            self._monitor.add(
                RequestRecord(
                    index=planned.index,
                    stage=self._stage.index,
                    worker=worker,
                    due_ns=due_ns,
                    session=planned.session,
                    turn=planned.source.turn,
                    error=RequestError(class_="WorkerDied", message=reason),
                    requested_prompt_tokens=planned.source.prompt_tokens,
                    requested_output_tokens=planned.source.output_tokens,
                    window=windows.of(planned.offset),
                )
            )
        return WorkerLoss(worker=worker, reason=reason, requests=len(lost))


@asynccontextmanager
async def _started(setup: RunSetup, count: int, loop: WorkerLoop) -> AsyncIterator[list[WorkerProcess]]:
    """Start the workers. The end of the block ends their orders, and so the workers. Any that do not end are killed.

    If cancelled, all of them are killed.
    """
    processes: list[anyio.abc.Process] = []
    try:
        started = []
        for worker in range(count):
            process = await open_child("chatscope.load.process_worker")
            processes.append(process)
            started.append(WorkerProcess(WorkShare(worker, count), process))
        for each in started:
            await each.send(BeginRun(setup, each.share, loop))
        yield started
    finally:
        async with anyio.create_task_group() as group:  # in turn, a cancellation would reach only the first
            for process in processes:
                group.start_soon(close_child, process)
