"""AsyncChatGPTAdapter: many tasks at once, each in its own task group, under one root task group."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from types import TracebackType
from typing import Any, Final, Self, Unpack, overload

import anyio

from chatscope._client.config import ClientArguments, ClientOptions
from chatscope._client.core import ClientCore
from chatscope._limits.limiter import Statistics
from chatscope._limits.timeouts import CLOSE_GRACE, Timeout
from chatscope._tasks.adapter_status import counts_of, status_of
from chatscope._tasks.base import AsyncBasePlatformAdapter
from chatscope._tasks.handle import ChatTask, typed_id
from chatscope._tasks.map import ResultStream
from chatscope._tasks.models import Platform, Result, Task, TaskCounts, TaskId, TaskStatus
from chatscope._tasks.outcome import pricer_of, result_without_run
from chatscope._tasks.spending import Spending
from chatscope._tasks.supervisor import Supervisor, TaskOptions
from chatscope._tasks.text_stream import TextStream
from chatscope._validation import check_count, check_model, check_seconds
from chatscope.errors import ResultTimeoutError, UnknownTaskError
from chatscope.pricing import Prices
from chatscope.protocol.endpoint import Secret
from chatscope.protocol.response import OutputT
from chatscope.transport.streams import current_time

MAX_CONCURRENCY: Final = 100
"""How many tasks run at a time by default."""

KEEP_FINISHED: Final = 10_000
"""How many finished tasks are kept by default. A streamed result with a page of text takes about 15 KiB, so about 150
MiB."""


class AsyncChatGPTAdapter(AsyncBasePlatformAdapter):
    """Runs tasks against the OpenAI chat endpoint, or any server that speaks its protocol.

    ::

        async with AsyncChatGPTAdapter() as adapter:
            task_id = await adapter.submit_task(Task(prompt="Write hello world"))
            async for text in adapter.stream_result(task_id):
                print(text, end="")
            result = await adapter.get_result(task_id, timeout=30)

    Leaving the block waits for running tasks; leaving it by an exception cancels them. Statuses, results and texts stay
    readable afterwards. The caller's own cancellation passes through every method.

    Args:
        api_key: by default `OPENAI_API_KEY`. `""` sends no key.
        model: the model for tasks that do not name one.
        timeout: how long the server may be silent, in seconds, or `Timeouts` for more.
        base_url: by default `OPENAI_BASE_URL`, or else OpenAI's own address.
        hedge_after: a request without output after this many seconds is sent a second time. The first attempt with
            output delivers; the other one is closed. Each second attempt takes one retry from the retry budget.
        max_cost, max_total_tokens: how much all tasks may use, in US dollars and in tokens, counted when a task ends.
            Once a limit is reached, waiting tasks and new ones fail at once with a `BudgetExceededError`; running tasks
            may still exceed it. A task with an unknown cost does not count towards `max_cost`; the first such task is
            logged.
        cancel_over_budget: also stop running tasks when a limit is reached, with the same error and their partial text.
        keep_finished: how many finished tasks are kept; the oldest are forgotten first.
        prices: the price of tokens: a table, a function, or `None` for the prices that come with the package.
        arguments: the keyword arguments of `ClientArguments`: `retry`, `transport`, `http_client`, `max_concurrency`
            (default 100), `telemetry` and so on.

    Raises:
        ValueError: an argument is invalid; the error names it and shows no key.
        ImportError: `telemetry=True`, and the extra `otel` is not installed.
    """

    platform = Platform.CHATGPT

    def __init__(
        self,
        api_key: str | None = None,
        model: str = "gpt-4o-mini",
        timeout: Timeout = 60.0,
        *,
        base_url: str | None = None,
        hedge_after: float | None = None,
        max_cost: float | None = None,
        max_total_tokens: int | None = None,
        cancel_over_budget: bool = False,
        keep_finished: int = KEEP_FINISHED,
        prices: Prices | None = None,
        **arguments: Unpack[ClientArguments],
    ) -> None:
        api_key = Secret(api_key) if isinstance(api_key, str) else api_key
        super().__init__()
        check_count(keep_finished, "keep_finished")
        check_model(model)
        check_seconds(hedge_after, "hedge_after")
        arguments.setdefault("max_concurrency", MAX_CONCURRENCY)
        self._core = ClientCore(ClientOptions.of(type(self), api_key, base_url, timeout, arguments))
        options = TaskOptions(model, pricer_of(prices), hedge_after, keep_finished, cancel_over_budget)
        spending = Spending(max_cost, max_total_tokens)
        self._tasks = Supervisor(self._core, options, spending, self._generate_task_id)

    @property
    def model(self) -> str:
        """The model for tasks that do not name one."""
        return self._tasks.model

    @model.setter
    def model(self, model: str) -> None:
        self._tasks.model = model

    def __repr__(self) -> str:
        return f"<AsyncChatGPTAdapter {getattr(self, '_core', None)!r}>"

    async def __aenter__(self) -> Self:
        """Open the root task group.

        Raises:
            ValueError: no key was given and `OPENAI_API_KEY` is not set.
            RuntimeError: the block is open already.
        """
        self._core.open()
        await self._tasks.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the tasks, or cancel them if the block ends by an exception; then close the connections.

        If cancelled while waiting, cancel the tasks, wait for them to end, and let the cancellation pass.
        """
        try:
            # The task group does not see the exception, because it would wrap it in an exception group.
            await self._tasks.close(cancel=error is not None)
        finally:
            await self._core.aclose()

    async def submit_task(self, task: Task[OutputT] | str) -> TaskId[OutputT]:
        """Accept a task and return its id, `chatgpt_<YYYYMMDD>_<8 hex digits>`, at once. It runs in the background.

        This does not wait, and cancelling the caller later leaves the task running.

        Raises:
            ValueError: the task is invalid; the error names the argument, and nothing was sent.
            QueueFullError: as many tasks wait for a slot as `max_pending` allows.
            RuntimeError: outside the adapter's block.
        """
        return typed_id(self._tasks.submit(task))

    def start_task(self, task: Task[OutputT] | str) -> ChatTask[OutputT]:
        """Accept a task and return its handle at once.

        Raises:
            ValueError, QueueFullError, RuntimeError: as `submit_task`.
        """
        return ChatTask(self._tasks.submit(task))

    async def get_status(self, task_id: str) -> TaskStatus:
        """Return a task's status; UNKNOWN for an id that does not exist or has been forgotten."""
        state = self._tasks.find(task_id)
        return TaskStatus.UNKNOWN if state is None else state.status

    @overload
    async def get_result(
        self,
        task_id: TaskId[OutputT],
        timeout: float | None = ...,  # noqa: ASYNC109 - as below
        *,
        cancel_on_timeout: bool = ...,
    ) -> Result[OutputT]: ...
    @overload
    async def get_result(
        self,
        task_id: str,
        timeout: float | None = ...,  # noqa: ASYNC109 - as below
        *,
        cancel_on_timeout: bool = ...,
    ) -> Result: ...
    async def get_result(
        self,
        task_id: str,
        timeout: float | None = 300,  # noqa: ASYNC109 - part of the contract: it bounds the wait, not the task
        *,
        cancel_on_timeout: bool = False,
    ) -> Result:
        """Return a task's result, waiting for it if necessary. Cancelling the wait leaves the task running.

        If the id is unknown, or the wait takes too long, the result has `success=False` and an `error` that says so.

        Args:
            task_id: the id that `submit_task` returned.
            timeout: how long to wait, in seconds; `None` waits forever.
            cancel_on_timeout: cancel the task if the wait takes too long, instead of leaving it running.

        Raises:
            ValueError: `timeout` is not a number of seconds.
        """
        check_seconds(timeout, "timeout", zero=True)
        state = self._tasks.find(task_id)
        if state is None:
            error = UnknownTaskError(f"Unknown task_id: {task_id}")
            return result_without_run(error, TaskStatus.UNKNOWN)
        run = state.run
        if run is None or timeout is None:
            return await state.wait()
        result = await state.wait_until(current_time() + timeout, self._tasks.alarms)
        if result is not None:
            return result
        if cancel_on_timeout and not await state.cancel():
            return await state.wait()  # the task ended just then
        return run.so_far(ResultTimeoutError(f"Task timed out after {timeout}s"))

    def stream_result(self, task_id: str) -> TextStream:
        """Iterate over a task's text: first what has arrived, then live until the task ends.

        Any number of readers can attach, at any time. A failed task raises its error after the text that arrived.
        Stopping early leaves the task running. An unknown id yields nothing.
        """
        return TextStream(self._tasks.find(task_id))

    async def cancel_task(self, task_id: str) -> bool:
        """Stop a task. When this returns, its connection is closed and its result holds the partial text.

        Returns:
            True if the task was pending or running and ended as cancelled, False if it was finished or unknown.
        """
        state = self._tasks.find(task_id)
        return False if state is None else await state.cancel()

    async def execute(self, task: Task[OutputT] | str) -> Result[OutputT]:
        """Submit a task and wait for its result. Cancelling the caller cancels the task.

        Raises:
            ValueError, QueueFullError, RuntimeError: as `submit_task`.
        """
        state = self._tasks.submit(task)
        try:
            return await state.wait()
        except BaseException:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_GRACE):
                await state.cancel()
            raise

    def execute_streaming(self, task: Task | str) -> TextStream:
        """Submit a task and iterate over its text: `async with adapter.execute_streaming(task) as text`.

        The task is cancelled when the block is left, by `aclose`, when the reader is cancelled, and when the last
        reference to the iterator is dropped. A `break` alone does not cancel it while a variable holds the iterator.

        Raises:
            ValueError, QueueFullError, RuntimeError: as `submit_task`.
        """
        return TextStream(self._tasks.submit(task), owner=True)

    def map(
        self,
        tasks: Iterable[Task[OutputT] | str] | AsyncIterable[Task[OutputT] | str],
        *,
        ordered: bool = False,
        look_ahead: int | None = None,
        on_start: Callable[[Task[OutputT]], object] | None = None,
    ) -> ResultStream[OutputT]:
        """Run many tasks and iterate over their results: `async with adapter.map(tasks) as results`.

        The source is read while tasks run, a bounded number of tasks ahead of the delivered results. So the source may
        be endless, and a slow loop slows it down. Failed and refused tasks yield results too. Leaving the block early
        cancels running tasks, and closes the source if it is a generator. If the source raises, running tasks are
        cancelled and the loop raises the same exception. The adapter forgets delivered results, so a long loop neither
        fills the memory nor evicts other tasks.

        Args:
            tasks: the source, of tasks or prompts. A sync source is read in the event loop, so it must not block.
            ordered: deliver results in the order of the source instead of the order in which tasks end. A slow task
                then delays the ones after it, as far as the bound allows.
            look_ahead: how many tasks may be read but not delivered; by default the number of slots plus 64. A number
                below the number of slots leaves slots empty.
            on_start: called with a task when it has its slot and its permit, right before its first request is sent. It
                must not block. If it raises, nothing is sent, and the task fails with that exception.

        Raises:
            TypeError, ValueError: `tasks` is not an iterable, or `look_ahead` is not a whole number of at least 1.
            RuntimeError: outside the adapter's block.
        """
        self._tasks.open_group()
        return ResultStream(tasks, self._tasks, ordered=ordered, look_ahead=look_ahead, on_start=on_start)

    async def gather(
        self, tasks: Iterable[Task[OutputT] | str] | AsyncIterable[Task[OutputT] | str]
    ) -> list[Result[OutputT]]:
        """Run tasks and return their results in the tasks' order. Cancelling the caller cancels them all.

        As with `map`, failures are results too, and the adapter forgets the tasks.

        Raises:
            TypeError, RuntimeError: as `map`.
            Exception: what the iterable raised.
        """
        found: dict[int, Result[OutputT]] = {}
        async with self.map(tasks) as results:
            while (item := await results._next_numbered()) is not None:
                found.update([item])
        return [found[number] for number in range(len(found))]

    def forget(self, task_id: str) -> bool:
        """Forget a finished task. Return whether it existed."""
        return self._tasks.forget(task_id)

    def statistics(self) -> Statistics:
        """Return the current counts of slots, queues, pauses and retries."""
        return self._core.limiter.statistics()

    def counts(self) -> TaskCounts:
        """Return how many tasks wait, run, and have ended with each status: `get_adapter_status` as a typed value."""
        return counts_of(self._tasks)

    @property
    def is_implemented(self) -> bool:
        """Whether the adapter can be used: whether there is a key."""
        return self._core.options.has_key

    @property
    def implementation_status(self) -> str:
        """`working`, or `unavailable` without a key."""
        return "working" if self._core.options.has_key else "unavailable"

    def get_adapter_status(self) -> dict[str, Any]:
        """Describe the adapter, with live counts.

        `cost` omits the tasks counted in `unpriced`. `tokens` includes only the reported tokens of those in
        `uncounted`.
        """
        return super().get_adapter_status() | status_of(self._tasks)
