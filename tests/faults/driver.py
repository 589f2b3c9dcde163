"""Runs one row of the catalogue and looks for what it may have left behind."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
from tests.faults.certificates import Certificates
from tests.faults.rows import RETRY, Outcome, Row, Server, Via

from chatscope import AsyncChatGPTAdapter, ChatClient, ChatError, Result, Statistics, Task, TaskConstraints, TaskStatus
from chatscope._limits.retry_budget import CAPACITY, RATIO
from chatscope.simulator import simulator
from chatscope.transport import HTTPTransport

MODEL = "gpt-4o-mini"
PROMPT = "Say hello"
DESCRIPTORS = Path("/proc/self/fd")


async def run(row: Row, certificates: Certificates) -> Outcome:
    """Return what came of a row; every other promise of the package is checked on the way.

    Raises:
        TimeoutError: it took longer than the row allows, or something was left behind.
    """
    server: Server = simulator(row.script) if row.server is None else row.server(certificates)
    transport = HTTPTransport(verify=certificates.client, trust_env=False, **row.transport)
    take = _as_task if row.via in {Via.TASK, Via.PLAIN_TASK} else _as_call
    with anyio.fail_after(row.seconds), within_memory(row.memory):
        async with nothing_left_behind(), server as base_url:
            outcome = await take(row, base_url, transport)
            assert transport.statistics().open == 0
            await until(lambda: server.connections_open == 0)
    return outcome


async def _as_task(row: Row, base_url: str, transport: HTTPTransport) -> Outcome:
    async with AsyncChatGPTAdapter(
        "sk-1", MODEL, row.timeouts, base_url=base_url, transport=transport, retry=RETRY
    ) as adapter:
        results = [(await adapter.execute(Task(PROMPT))).raise_for_error() for _ in range(row.before)]
        task = Task(PROMPT, constraints=TaskConstraints(timeout_seconds=row.deadline))
        if row.via is Via.PLAIN_TASK:
            task.parameters = {"stream": False}
        result = await adapter.execute(task)
        assert transport.statistics().active == 0
    error = result.exception
    assert await adapter.get_status(task.task_id or "") is result.status
    assert await _replayed(adapter, task.task_id or "") == (result.output, error)
    check_consistent(result)
    check_returned(adapter.statistics(), [*results, result])
    check_says(row, error)
    if row.tokens is not None:
        assert result.tokens_used == row.tokens
    assert error is None or isinstance(error, ChatError)
    return Outcome(
        result.status,
        type(error) if error else None,
        error.status if error else None,
        result.output,
        result.attempts,
        error.phase if error else None,
    )


async def _as_call(row: Row, base_url: str, transport: HTTPTransport) -> Outcome:
    arguments: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
    text = ""
    async with ChatClient(base_url, "sk-1", timeout=row.timeouts, transport=transport, retry=RETRY) as client:
        failure: ChatError | None = None
        try:
            if row.via is Via.COMPLETE:
                text = (await client.complete(**arguments)).text
            else:
                async with client.stream(**arguments) as stream:
                    async for chunk in stream:
                        text += chunk.text
                assert stream.completion.text == text
        except ChatError as error:
            failure = error
        assert transport.statistics().active == 0
        statistics = client.statistics()
    assert (statistics.running, statistics.queued, statistics.paced, statistics.held_back) == (0, 0, 0, 0)
    check_says(row, failure)
    if failure is None:
        return Outcome(TaskStatus.COMPLETED, None, None, text, statistics.requests)
    assert failure.partial_text == text
    return Outcome(TaskStatus.FAILED, type(failure), failure.status, text, failure.attempts, failure.phase)


async def _replayed(adapter: AsyncChatGPTAdapter, task_id: str) -> tuple[str, Exception | None]:
    """Return what a late reader gets."""
    text = ""
    try:
        async for piece in adapter.stream_result(task_id):
            text += piece
    except ChatError as error:
        return text, error
    return text, None


def check_says(row: Row, error: Exception | None) -> None:
    """Show that an error explains itself, and as the row has it."""
    assert row.says in str(error or "")
    assert error is None or str(error)


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
    # An attempt may be over before its request was sent; one that found out what a server rejects sends two.
    sent = [min(result.attempts, len(result.attempts_log)) for result in results]
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
