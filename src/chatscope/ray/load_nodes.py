"""A load test from several nodes: the same workers as on one machine, each behind an actor that forwards its pipes.

Each node has its own clock. A stage starts on a node when the order arrives there. All stamps of a worker are moved by
one offset, so that its stage starts when this process's does. Latencies are differences of one worker's stamps.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from chatscope.load import LoadMonitor, LoadPlan, LoadReport, RequestRecord, Verdict
from chatscope.load.children import close_child, open_child
from chatscope.load.messages import (
    BeginRun,
    MessageFrames,
    Order,
    RequestEnded,
    StartStage,
    WorkerMessage,
    encode_order,
)
from chatscope.load.schedule import SECOND, WorkShare
from chatscope.load.setup import RunSetup, prepare_alone, report_of
from chatscope.load.shared_stage import run_stages
from chatscope.load.worker_loops import WorkerLoop
from chatscope.ray.engine import connect, count_nodes, ray_module

T = TypeVar("T")

APART_LIMIT: Final = 0.050
"""Seconds. If workers may have started further apart, arrivals visibly differed from the plan. As for lateness."""

CLOSE_SECONDS: Final = 10.0
"""Seconds that the workers may take to end. A cancelled run waits for them, because they would continue to send."""

_RECEIVED: Final = 1 << 20


class LoadNode:
    """An actor on a node: starts one worker process, and forwards its orders and messages."""

    def __init__(self) -> None:
        self._process: anyio.abc.Process | None = None

    async def begin(self, order: bytes) -> str:
        """Start the worker, give it its first order, and return the node's id."""
        self._process = await open_child("chatscope.load.process_worker")
        await self.send(order)
        node: str = ray_module().get_runtime_context().get_node_id()
        return node

    async def send(self, order: bytes) -> None:
        """Pass on an order."""
        if self._process is not None and self._process.stdin is not None:
            await self._process.stdin.send(order)

    async def start(self, seconds: float) -> int:
        """Order the start of the stage in a number of seconds, and return that moment on this node's clock."""
        started_ns = time.perf_counter_ns() + round(seconds * SECOND)
        await self.send(encode_order(StartStage(started_ns)))
        return started_ns

    async def receive(self) -> bytes:
        """Return what the worker has sent; nothing once it has ended."""
        if self._process is None or self._process.stdout is None:
            return b""
        try:
            return await self._process.stdout.receive(_RECEIVED)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return b""

    async def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            await close_child(self._process)


class NodeWorker:
    """One worker on a node, as seen by the process that runs the plan.

    Args:
        share: which part of every stage it runs.
        threads: bounds the threads that wait for Ray.

    Attributes:
        share: as given.
        death: how it died; `None` while it lives.
        node: the id of its node.
        running: how many requests run in the stage.
        dispatched: how many were sent in the stage.
        apart: by how many seconds the start of a stage may have differed, at most.
    """

    def __init__(self, share: WorkShare, threads: anyio.CapacityLimiter) -> None:
        self.share = share
        self.death: str | None = None
        self.node = ""
        self.running = self.dispatched = 0
        self.apart = 0.0
        self._threads = threads
        make = ray_module().remote(LoadNode).options(num_cpus=0.1, max_restarts=0, scheduling_strategy="SPREAD")
        self._actor = make.remote()
        self._frames = MessageFrames()
        self._messages: deque[WorkerMessage] = deque()
        self._offset_ns = 0

    async def begin(self, order: BeginRun) -> None:
        """Start the worker.

        Raises:
            ConnectionError: its node was lost.
        """
        self.node = await self._ask(self._actor.begin, encode_order(order)) or ""
        if self.death is not None:
            raise ConnectionError(self.death)

    async def send(self, order: Order) -> None:
        """Send an order. The start of a stage is an order to start in so many seconds: only durations are compared."""
        if not isinstance(order, StartStage):
            await self._ask(self._actor.send, encode_order(order))
            return
        asked_ns = time.perf_counter_ns()
        started_ns = await self._ask(self._actor.start, (order.started_ns - asked_ns) / SECOND)
        if started_ns is not None:
            self._offset_ns = order.started_ns - started_ns
            self.apart = max(self.apart, (time.perf_counter_ns() - asked_ns) / SECOND)  # it came between the two

    async def receive(self) -> WorkerMessage | None:
        """Return its next message; `None` once it has died. If cancelled, messages may be lost."""
        while not self._messages and self.death is None:
            data = await self._ask(self._actor.receive)
            if data:
                self._messages.extend(self._frames.feed(data))
            elif self.death is None:
                self._die("its process ended")
        if not self._messages:
            return None
        message = self._messages.popleft()
        if isinstance(message, RequestEnded):
            move(message.record, self._offset_ns)
        return message

    async def close(self) -> None:
        """End the worker and its actor. If cancelled, the actor is killed, and the worker ends with it."""
        try:
            if self.death is None:
                await self._ask(self._actor.close)
        finally:
            ray_module().kill(self._actor)

    async def _ask(self, method: Any, *arguments: object) -> Any:
        """Call the actor, in a thread. If cancelled, the thread continues until the actor ends."""
        ray = ray_module()
        try:
            call = partial(ray.get, method.remote(*arguments))
            return await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._threads)
        except ray.exceptions.RayError as error:
            self._die(f"its node was lost: {type(error).__name__}")
            return None

    def _die(self, reason: str) -> None:
        self.death, self.running = reason, 0


def move(record: RequestRecord, offset_ns: int) -> None:
    """Move the stamps of a record to another clock. Durations stay as they are."""
    record.due_ns += offset_ns
    for name in ("dispatched_ns", "sent_ns", "headers_ns", "answer_ns", "finished_ns"):
        stamp = getattr(record, name)
        if stamp is not None:
            setattr(record, name, stamp + offset_ns)
    record.token_ns = [stamp + offset_ns for stamp in record.token_ns]


async def run_load_on_ray(
    plan: LoadPlan,
    *,
    address: str,
    workers: int | None = None,
    loop: WorkerLoop = "asyncio",
    monitor: LoadMonitor | None = None,
) -> LoadReport:
    """Run a load test with workers on the nodes of a Ray cluster. If cancelled, the workers end, without a report.

    The report says how far apart the workers may have started a stage, since their clocks cannot be compared. If a node
    dies, its requests count as lost, and the verdict is `invalid`.

    Args:
        plan: what to measure. Files that it names are read here.
        address: as for `run_batch_on_ray`.
        workers: how many processes send; by default one per node.
        loop: the event loop of the workers.
        monitor: as for `chatscope.load.run_in_processes`.

    Raises:
        ValueError: as `chatscope.load.run_in_processes`.
        ChatError: the calibration's requests failed, so that no request was measured.
        ConnectionError: there is no cluster at the address, or a node was lost before the start.
        ImportError: Ray is not installed.
    """
    monitor = monitor or LoadMonitor()
    setup = await prepare_alone(plan)
    is_connected_here = await anyio.to_thread.run_sync(partial(connect, address))
    try:
        nodes = await anyio.to_thread.run_sync(count_nodes)
        async with _started(setup, workers or nodes, loop) as started:
            stages = await run_stages(setup, started, monitor)
    finally:
        if is_connected_here:
            ray_module().shutdown()
    apart = max((worker.apart for worker in started), default=0.0)
    used = len({worker.node for worker in started})
    notice = (
        f"{len(started)} workers on {used} nodes, each with its own clock: latencies are durations on one clock; stages"
        f" started within {apart * 1e3:.1f} ms on all of them, so rates over shorter times mean nothing"
    )
    if apart > APART_LIMIT:
        stages = [msgspec.structs.replace(stage, verdict=_suspect(stage.verdict, apart)) for stage in stages]
    return report_of(setup, stages, monitor, [notice])


def _suspect(verdict: Verdict, apart: float) -> Verdict:
    reason = f"workers may have started {apart * 1e3:.0f} ms apart (the limit of valid is {APART_LIMIT} s)"
    state = "suspect" if verdict.state == "valid" else verdict.state
    return msgspec.structs.replace(verdict, state=state, reasons=[*verdict.reasons, reason])


@asynccontextmanager
async def _started(setup: RunSetup, count: int, loop: WorkerLoop) -> AsyncIterator[Sequence[NodeWorker]]:
    """Start the workers, and end them with the block. Holds no scope while it yields."""
    threads = anyio.CapacityLimiter(4 * count)
    workers = [NodeWorker(WorkShare(number, count), threads) for number in range(count)]
    try:
        await _in_all(workers, lambda worker: worker.begin(BeginRun(setup, worker.share, loop)))
        yield workers
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_SECONDS):
            await _in_all(workers, lambda worker: worker.close())


async def _in_all(workers: Sequence[NodeWorker], work: Callable[[NodeWorker], Any]) -> None:
    failure: Exception | None = None

    async def one(worker: NodeWorker) -> None:
        nonlocal failure
        try:
            await work(worker)
        except (ConnectionError, ValueError) as error:  # raised outside the group, which would wrap it
            failure = error

    async with anyio.create_task_group() as group:
        for worker in workers:
            group.start_soon(one, worker)
    if failure is not None:
        raise failure
