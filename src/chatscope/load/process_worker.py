"""A worker process of a load test: `python -m chatscope.load.process_worker`, started by `processes`.

It reads orders from standard input, and writes messages to standard output. Threads do both, so no write waits in the
event loop. Records are encoded one at a time, so no thread holds the interpreter for long.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO, Any, Final

import anyio

from chatscope.load.connections import transport_for
from chatscope.load.messages import (
    LENGTH,
    BeginRun,
    PrepareStage,
    RequestEnded,
    StageEnded,
    StageFailed,
    StagePrepared,
    StartStage,
    StopStage,
    WorkerMessage,
    decode_order,
    encode_message,
)
from chatscope.load.planned import PlannedRequest
from chatscope.load.records import RequestRecord
from chatscope.load.sending import Encoder
from chatscope.load.setup import client_of
from chatscope.load.stages import PreparedStage
from chatscope.load.worker_loops import anyio_backend_of
from chatscope.transport import HTTPTransport, ReadWitness

POLL_SECONDS: Final = 0.02
"""Seconds between two checks for orders. The order to start a stage arrives long before its start."""

SEND_SECONDS: Final = 0.25
"""Seconds for which messages are collected: the parent draws once per second."""


class ParentGoneError(Exception):
    """The parent has ended, or sends no more orders."""


class Inbox:
    """The parent's orders. A thread reads them; `None` stands for their end, a `ValueError` for a bad one."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def first(self) -> BeginRun | ValueError | None:
        """Wait for the first order, outside any event loop."""
        order: BeginRun | ValueError | None = self._orders.get()
        return order

    def wait_for_end(self) -> None:
        """Wait until the orders end, outside any event loop."""
        while self._orders.get() is not None:
            pass

    def poll(self) -> Any:
        """Return the next order, or `...` if there is none yet.

        Raises:
            ParentGoneError: there will be no more.
            ValueError: it cannot be decoded.
        """
        try:
            order = self._orders.get_nowait()
        except queue.Empty:
            return ...
        if order is None:
            self._orders.put(None)  # for the next call
            raise ParentGoneError
        if isinstance(order, ValueError):
            raise order
        return order

    async def next(self) -> Any:
        """Wait for the next order. If cancelled, none is lost."""
        while (order := self.poll()) is ...:  # noqa: ASYNC110 - a thread brings the orders
            await anyio.sleep(POLL_SECONDS)
        return order

    def _read(self) -> None:
        while len(head := self._source.read(LENGTH.size)) == LENGTH.size:
            (length,) = LENGTH.unpack(head)
            if len(data := self._source.read(length)) < length:
                break  # the parent died while it wrote
            try:
                self._orders.put(decode_order(data))
            except ValueError as error:
                self._orders.put(error)
        self._orders.put(None)


class Outbox:
    """The messages to the parent. A thread encodes and writes them."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self._messages: queue.SimpleQueue[WorkerMessage | None] = queue.SimpleQueue()
        self._is_urgent = threading.Event()
        self._thread = threading.Thread(target=self._write, name="messages", daemon=True)
        self._thread.start()

    def put(self, message: WorkerMessage, *, at_once: bool = False) -> None:
        """Queue a message, and send it soon or at once. Never waits."""
        self._messages.put(message)
        if at_once:
            self._is_urgent.set()

    def close(self) -> None:
        """Send all remaining messages, and wait until they are sent."""
        self._messages.put(None)
        self._is_urgent.set()
        self._thread.join()

    def _write(self) -> None:
        while True:
            self._is_urgent.wait(SEND_SECONDS)
            self._is_urgent.clear()
            try:
                while True:
                    message = self._messages.get_nowait()
                    if message is None:
                        return
                    self._target.write(encode_message(message))
                    self._target.flush()
                    time.sleep(0)  # let the event loop run first
            except queue.Empty:
                continue
            except OSError:
                return  # the parent has gone; its orders end, too


async def _work(begin: BeginRun, inbox: Inbox, outbox: Outbox) -> None:
    """Run the ordered stages until the orders end. If the orders end within a stage, its requests are cancelled."""
    reads = ReadWitness()
    transport = transport_for(begin.setup.plan, reads)
    async with client_of(begin.setup.plan, transport) as client:
        encoder = Encoder.of(client, begin.setup)
        while True:
            try:
                order = await inbox.next()
                if isinstance(order, PrepareStage):
                    prepared = _prepared(begin, order, encoder, transport, reads, outbox)
                    await _run_stage(prepared, inbox, outbox)
            except (ValueError, OSError) as error:
                outbox.put(StageFailed(str(error)), at_once=True)


def _prepared(
    begin: BeginRun,
    order: PrepareStage,
    encoder: Encoder,
    transport: HTTPTransport,
    reads: ReadWitness,
    outbox: Outbox,
) -> PreparedStage:
    def on_record(record: RequestRecord) -> None:
        worker = prepared.worker
        outbox.put(RequestEnded(record, worker.dispatched, worker.running))

    requests = _requests(begin, order)
    prepared = PreparedStage(
        encoder, order.stage, requests, on_record, transport=transport, share=begin.share, reads=reads
    )
    return prepared


async def _run_stage(prepared: PreparedStage, inbox: Inbox, outbox: Outbox) -> None:
    await prepared.open_connections()
    outbox.put(StagePrepared(), at_once=True)
    start = await inbox.next()
    if not isinstance(start, StartStage):
        return  # stopped before it started
    failure: BaseException | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(_obey, prepared, inbox, group.cancel_scope)
        try:
            evidence = await prepared.run(start.started_ns)
        except (ValueError, OSError) as error:
            failure = error
        else:
            outbox.put(StageEnded(evidence), at_once=True)
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _requests(begin: BeginRun, order: PrepareStage) -> Iterator[PlannedRequest]:
    if order.requests is not None:
        return iter(order.requests)
    schedule = begin.setup.plan.schedule(order.stage, begin.setup.workload)
    return begin.share.requests(schedule, order.stage.concurrency)


async def _obey(prepared: PreparedStage, inbox: Inbox, stage: anyio.CancelScope) -> None:
    """Stop the stage when that is ordered, and cancel it when the orders end."""
    while True:
        try:
            order = await inbox.next()
        except ParentGoneError:
            stage.cancel()
            return
        if isinstance(order, StopStage):
            prepared.worker.stop(order.grace)


def main() -> None:
    """Run one worker, from its first order to the end of its orders."""
    target = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # printed text must not mix with the messages
    inbox, outbox = Inbox(sys.stdin.buffer), Outbox(target)
    begin = inbox.first()
    if isinstance(begin, ValueError):
        outbox.put(StageFailed(str(begin)), at_once=True)
        inbox.wait_for_end()  # the parent reads the message after its next order
        outbox.close()
        return
    if begin is None:
        return
    backend, options = anyio_backend_of(begin.loop)
    try:
        anyio.run(_work, begin, inbox, outbox, backend=backend, backend_options=options)
    except ParentGoneError:
        pass
    finally:
        outbox.close()


if __name__ == "__main__":
    main()
