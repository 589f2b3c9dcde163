"""What must hold whenever something has ended: results agree with themselves, everything was given back."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from chatscope import ChatError, Result, Statistics, TaskStatus
from chatscope._limits.retry_budget import CAPACITY, RATIO

DESCRIPTORS = Path("/proc/self/fd")


def check_consistent(result: Result) -> None:
    """Show that a result does not contradict itself."""
    error = result.exception
    assert result.success is (result.status is TaskStatus.COMPLETED) is (error is None)
    assert result.status in {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}
    assert (result.error is None) is (error is None)
    if error is not None:
        assert isinstance(error, ChatError)
        assert (error.attempts, error.partial_text) == (result.attempts, result.output)
        assert result.error == str(error)


def check_returned(statistics: Statistics, results: list[Result]) -> None:
    """Show that every slot and place was given back, and that the retry budget paid for retries and nothing else."""
    assert (statistics.running, statistics.queued, statistics.paced, statistics.held_back) == (0, 0, 0, 0)
    # An attempt may be over before its request was sent; one that finds out what a server rejects sends two, and one
    # that a kept connection lost is sent again at once.
    waits = [sum(attempt.wait_seconds is not None for attempt in result.attempts_log) for result in results]
    sent = [min(result.attempts, count + 1) for result, count in zip(results, waits, strict=True)]
    spent = CAPACITY - statistics.retry_tokens
    assert sum(max(0, count - 1) for count in sent) - RATIO * sum(sent) <= spent + 1e-9
    assert spent <= sum(max(0, result.attempts - 1) for result in results) + 1e-9


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """Show that a block leaves no task alive and no socket open."""
    tasks = {task.id for task in anyio.get_running_tasks()}
    sockets = open_sockets()
    yield
    # A loop lets go of a socket in one of its next turns.
    await until(lambda: {task.id for task in anyio.get_running_tasks()} <= tasks)
    await until(lambda: open_sockets() <= sockets)


def open_sockets() -> int:
    """Return how many sockets this process has open, where the system tells."""
    count = 0
    for entry in DESCRIPTORS.iterdir() if DESCRIPTORS.exists() else ():
        try:
            count += str(entry.readlink()).startswith("socket:")
        except OSError:  # the one that listed the others
            continue
    return count


async def until(condition: Any, seconds: float = 5.0) -> None:
    """Wait for a condition that the other tasks bring about without a sign.

    Raises:
        TimeoutError: it did not come true; the bound only turns a hang into a failure.
    """
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.lowlevel.checkpoint()


@contextmanager
def within_memory(limit: int | None) -> Iterator[None]:
    """Show that a block never has more bytes allocated at once than that."""
    if limit is None:
        yield
        return
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= limit
