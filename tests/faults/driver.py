"""Runs one row of the catalogue and looks for what it may have left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
from tests.faults.rows import Outcome, Row, Via
from tests.support.certificates import Certificates
from tests.support.checks import check_consistent, check_returned, nothing_left_behind, until, within_memory
from tests.support.defaults import RETRY
from tests.support.loopback import Server

from chatscope import AsyncChatGPTAdapter, ChatClient, ChatError, Task, TaskConstraints, TaskStatus
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
        if row.before:
            await anyio.sleep(0.05)  # lets what the server does to the idle connection arrive
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
    async with ChatClient("sk-1", base_url=base_url, timeout=row.timeouts, transport=transport, retry=RETRY) as client:
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
    assert row.via is Via.COMPLETE or failure.partial_text == text
    text = failure.partial_text
    return Outcome(TaskStatus.FAILED, type(failure), failure.status, text, failure.attempts, failure.phase)


async def _replayed(adapter: AsyncChatGPTAdapter, task_id: str) -> tuple[str, Exception | None]:
    """Return what a late reader gets."""
    text = ""
    try:
        async for part in adapter.stream_result(task_id):
            text += part
    except ChatError as error:
        return text, error
    return text, None


def check_says(row: Row, error: Exception | None) -> None:
    """Show that an error explains itself, and as the row has it."""
    assert row.says in str(error or "")
    assert error is None or str(error)
