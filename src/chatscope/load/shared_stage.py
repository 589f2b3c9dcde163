"""One stage in several workers: their shares, its start and its end, and the requests that a worker's death loses.

Not here: how workers are started (`processes`, and on a cluster `chatscope.ray`), and the conclusions (`stages`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import anyio

from chatscope.load.messages import PrepareStage, RequestEnded, StageEnded, StageFailed, StartStage, StopStage
from chatscope.load.monitor import LoadMonitor
from chatscope.load.planned import LoadStage, PlannedRequest
from chatscope.load.records import RequestError, RequestRecord
from chatscope.load.report import StageReport
from chatscope.load.schedule import SECOND
from chatscope.load.search import next_stage
from chatscope.load.setup import RunSetup
from chatscope.load.stages import conclude
from chatscope.load.started_worker import StartedWorker
from chatscope.load.verdict import WorkerEvidence, WorkerLoss

LEAD_SECONDS: Final = 0.25
"""Seconds between the order to start a stage and its start: ten times as long as workers take to check for orders."""


async def run_stages(setup: RunSetup, workers: Sequence[StartedWorker], monitor: LoadMonitor) -> list[StageReport]:
    """Run every stage of a plan on workers that have started. If cancelled, the workers keep running.

    Raises:
        ValueError: a stage cannot run; the message is a worker's.
    """
    stages: list[StageReport] = []
    while not monitor.is_stopped and (stage := next_stage(setup.plan, stages)) is not None:
        stages.append(await _SharedStage(setup, stage, workers, monitor).run())
    return stages


class _SharedStage:
    """One stage in all workers. It is also what a monitor controls: see `LoadMonitor.on_stage`."""

    def __init__(
        self, setup: RunSetup, stage: LoadStage, workers: Sequence[StartedWorker], monitor: LoadMonitor
    ) -> None:
        self.started_ns = 0
        self._setup = setup
        self._plan = setup.plan
        self._stage = stage
        self._workers = workers
        self._monitor = monitor
        self._shares: dict[StartedWorker, tuple[PlannedRequest, ...]] = {}
        self._evidence: list[WorkerEvidence] = []
        self._failure: str | None = None
        self._grace = 0.0
        self._stop = anyio.Event()

    @property
    def running(self) -> int:
        """How many requests are running."""
        return sum(worker.running for worker in self._workers)

    @property
    def dispatched(self) -> int:
        """How many requests were sent."""
        return sum(worker.dispatched for worker in self._workers)

    def stop(self, grace: float) -> None:
        """Send nothing more, and give running requests a number of seconds to end."""
        self._grace = grace
        self._stop.set()

    async def run(self) -> StageReport:
        """Run the stage to its end and return its report. If cancelled, the workers keep running."""
        plan, monitor, first = self._plan, self._monitor, len(self._monitor.records)
        if self._stage.concurrency is None or plan.requests is not None:
            schedule = list(plan.schedule(self._stage, self._setup.workload))
            for worker in self._workers:
                self._shares[worker] = tuple(worker.share.requests(schedule, self._stage.concurrency))
        await self._in_all(self._prepare)
        self._check()
        self.started_ns = time.perf_counter_ns() + round(LEAD_SECONDS * SECOND)
        monitor.on_stage(self._stage, self, plan)
        if monitor.is_stopped:
            self.stop(plan.grace)
        for worker in self._workers:
            await worker.send(StartStage(self.started_ns))
        async with anyio.create_task_group() as group:
            group.start_soon(self._forward_stop)
            await self._in_all(self._follow)
            group.cancel_scope.cancel()
        self._check()
        losses = [self._loss(worker, first) for worker in self._workers if worker.death is not None]
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
            for worker in self._workers:
                group.start_soon(work, worker)

    async def _prepare(self, worker: StartedWorker) -> None:
        worker.running = worker.dispatched = 0
        await worker.send(PrepareStage(self._stage, self._shares.get(worker)))
        message = await worker.receive()
        if isinstance(message, StageFailed):
            self._failure = message.message

    async def _follow(self, worker: StartedWorker) -> None:
        """Receive a worker's messages until its stage has ended, or the worker has died."""
        while (message := await worker.receive()) is not None:
            if isinstance(message, RequestEnded):
                worker.dispatched, worker.running = message.dispatched, message.running
                self._monitor.add(message.record)
            elif isinstance(message, StageEnded):
                self._evidence.append(message.evidence)
                return
            elif isinstance(message, StageFailed):
                self._failure = message.message
                return

    async def _forward_stop(self) -> None:
        """Order every worker to stop, each time that `stop` is called."""
        while True:
            await self._stop.wait()
            self._stop = anyio.Event()
            for worker in self._workers:
                await worker.send(StopStage(self._grace))

    def _loss(self, worker: StartedWorker, first: int) -> WorkerLoss:
        """Return what a worker's death lost, and record those of its requests whose due time is known."""
        number, reason, share = worker.share.worker, worker.death or "", self._shares.get(worker)
        if share is None:  # in a closed loop without an end, only the running requests are known
            return WorkerLoss(
                worker=number, reason=reason, requests=len(worker.share.slots(self._stage.concurrency or 0))
            )
        seen = {record.index for record in self._monitor.records[first:] if record.worker == number}
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
                    worker=number,
                    due_ns=due_ns,
                    session=planned.session,
                    turn=planned.source.turn,
                    error=RequestError(class_="WorkerDied", message=reason),
                    requested_prompt_tokens=planned.source.prompt_tokens,
                    requested_output_tokens=planned.source.output_tokens,
                    window=windows.of(planned.offset),
                )
            )
        return WorkerLoss(worker=number, reason=reason, requests=len(lost))
