"""chatscope with a task from start to end: `submit_task`, then `get_result`."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.contenders.base import Contender, Received
from benchmarks.harness.wire import API_KEY, MODEL, PROMPT
from chatscope import AsyncChatGPTAdapter, Task, TaskStatus
from chatscope.transport import HTTPTransport


class Client(Contender):
    """Tasks of one adapter."""

    async def open(self) -> None:
        """Open the adapter."""
        address = self.address
        self._ids: set[str] = set()
        self._adapter = await self.resources.enter_async_context(
            AsyncChatGPTAdapter(
                API_KEY,
                MODEL,
                base_url=address.base_url,
                max_concurrency=address.at_once,
                transport=HTTPTransport(verify=address.context) if address.context else None,
            )
        )

    async def stream(self, tokens: int) -> Received:
        """Run a task. Tasks stream by default."""
        return await self._run(Task(PROMPT, parameters={"temperature": 0.0, "max_tokens": tokens}))

    async def complete(self, tokens: int) -> Received:
        """Run a task without streaming."""
        return await self._run(Task(PROMPT, parameters={"temperature": 0.0, "max_tokens": tokens, "stream": False}))

    async def cancel(self, cancel_calls: Callable[[], object]) -> None:  # noqa: ARG002 - tasks outlive the calls that wait for them
        """Cancel the tasks."""
        for task_id in list(self._ids):
            await self._adapter.cancel_task(task_id)

    async def _run(self, task: Task) -> Received:
        task_id = await self._adapter.submit_task(task)
        self._ids.add(task_id)
        result = await self._adapter.get_result(task_id)
        self._ids.remove(task_id)
        if result.status is TaskStatus.FAILED:
            result.raise_for_error()
        return Received(result.output, result.usage.completion_tokens if result.usage else 0)
