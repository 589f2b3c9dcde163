"""Watches the client during a stage: its event loop's lag, CPU time, garbage collection, and the kernel's stamps."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

import anyio

from chatscope.load.verdict import WorkerEvidence
from chatscope.transport import ReadWitness

PROBE_SECONDS: Final = 0.01
"""Seconds between two probes of the event loop's lag. A hundred wake-ups per second cost less than 1 % of a core."""


class ClientWitness:
    """Collects the evidence for the verdict between two times.

    Args:
        reads: the kernel's stamps of what the client reads, if its transport has them.

    Attributes:
        lags: when the event loop should have woken the probe, and when it did (`time.perf_counter_ns`).
        gc_ns: nanoseconds spent in garbage collection.
    """

    def __init__(self, reads: ReadWitness | None = None) -> None:
        self.lags: list[tuple[int, int]] = []
        self.gc_ns = 0
        self._reads = reads
        self._gc_began = 0
        self._window: tuple[int, int] | None = None
        self._cpu: tuple[int, int] | None = None

    async def watch(self, start_ns: int, end_ns: int | None) -> None:
        """Watch from one time to another; if the end is unknown, until cancelled."""
        await anyio.sleep(max(0.0, (start_ns - time.perf_counter_ns()) / 1e9))
        began, cpu = time.perf_counter_ns(), time.process_time_ns()
        try:
            while end_ns is None or time.perf_counter_ns() < end_ns:
                due = time.perf_counter_ns() + round(PROBE_SECONDS * 1e9)
                await anyio.sleep(PROBE_SECONDS)
                self.lags.append((due, time.perf_counter_ns()))
        finally:
            self._window = began, time.perf_counter_ns()
            self._cpu = cpu, time.process_time_ns()

    @property
    def cpu_share(self) -> float | None:
        """The share of one core that this process used while it was watched; `None` if it was not."""
        if self._window is None or self._cpu is None or self._window[1] <= self._window[0]:
            return None
        return (self._cpu[1] - self._cpu[0]) / (self._window[1] - self._window[0])

    @property
    def gc_share(self) -> float:
        """The share of the time that went into garbage collection."""
        if self._window is None or self._window[1] <= self._window[0]:
            return 0.0
        return self.gc_ns / (self._window[1] - self._window[0])

    def evidence(self, worker: int) -> WorkerEvidence:
        """Return the evidence of the worker with this number, and clear the kernel's stamps."""
        start, end = self._window or (0, 0)
        reads = [] if self._reads is None else self._reads.take()
        return WorkerEvidence(
            worker=worker,
            cpu_share=self.cpu_share,
            gc_share=self.gc_share,
            lags=self.lags,
            read_lags=[lag for read_ns, lag in reads if start <= read_ns <= end],
            no_witness="the transport is not chatscope's own" if self._reads is None else self._obstacle(self._reads),
        )

    @staticmethod
    def _obstacle(reads: ReadWitness) -> str | None:
        if reads.obstacle is None and not reads.connections:
            return "there was no connection of the transport's own (a proxy, or no response)"
        return reads.obstacle

    @contextmanager
    def frozen_collector(self) -> Iterator[None]:
        """Switch the garbage collector off within the block: a full collection can stop all streams for 100 ms."""
        was_enabled, were_frozen = gc.isenabled(), gc.get_freeze_count()
        gc.collect()
        gc.freeze()
        gc.disable()
        gc.callbacks.append(self._on_collection)  # others may still call it
        try:
            yield
        finally:
            gc.callbacks.remove(self._on_collection)
            if not were_frozen:  # keep frozen what the host froze
                gc.unfreeze()
            if was_enabled:
                gc.enable()

    def _on_collection(self, phase: Literal["start", "stop"], _info: dict[str, Any]) -> None:
        if phase == "start":
            self._gc_began = time.perf_counter_ns()
        else:
            self.gc_ns += time.perf_counter_ns() - self._gc_began
