"""The running of one task: from its submission to exactly one result. The adapter owns the group that it runs in.

All failures become the result in here, so that siblings never see them. Only cancellation from outside passes through.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

from chatscope._client.core import ClientCore
from chatscope._client.timings import Timings
from chatscope._conversation.loop import Conversation
from chatscope._limits.timeouts import Deadline, Timeouts
from chatscope._tasks.calls import TaskCalls
from chatscope._tasks.handle import ChatTask
from chatscope._tasks.model_call import ModelCall
from chatscope._tasks.models import Platform, Result, Task, TaskConstraints, TaskStatus
from chatscope._tasks.outcome import check_cost
from chatscope._validation import check_count, check_model, check_number, check_on_tool_error, check_seconds
from chatscope.errors import ChatError, TaskCancelledError
from chatscope.pricing import PriceQuery, Pricer
from chatscope.protocol.messages import Message
from chatscope.protocol.request import conversation, max_tokens_name
from chatscope.protocol.response import Completion
from chatscope.protocol.usage import Usage, add_usage

_log: Final = logging.getLogger("chatscope.tasks")

_NOTHING_TOLD: Final = Usage()
"""What servers send that do not count tokens; no reply costs nothing because of it."""


class TaskRun:
    """A task and what it takes to run it. Everything is checked when it is made; nothing is sent before `run`.

    Args:
        core: prepares the requests; its slots say whose turn it is.
        task: what to ask; it is copied.
        task_id: its id.
        model: the model, where the task names none.
        pricer: what a request costs.
        hedge_after: as for `ModelCall`.

    Raises:
        ValueError: the task can never be right; the error names what is wrong.
        QueueFullError: as many tasks wait for their turn as may.
    """

    __slots__ = (
        "_calls",
        "_core",
        "_failure",
        "_limit",
        "_model",
        "_observed",
        "_pricer",
        "_slot",
        "_stopped_by",
        "_submitted_ns",
        "_succeeded",
        "handle",
    )

    def __init__(
        self,
        core: ClientCore,
        task: Task,
        *,
        task_id: str,
        model: str,
        pricer: Pricer,
        hedge_after: float | None = None,
    ) -> None:
        self._submitted_ns = time.perf_counter_ns()
        if not isinstance(task, Task):
            raise ValueError(f"task must be a Task, not {type(task).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
        task = replace(task, task_id=task_id)
        self._core = core
        self._pricer = pricer
        self._succeeded = False
        self._failure: Exception | None = None
        self._stopped_by: ChatError | None = None
        self.handle = ChatTask(task)
        own = _checked(task.constraints).timeout_seconds
        check_on_tool_error(task.on_tool_error)
        parameters = _parameters(task)
        if "timeout" in parameters:
            timeouts = Timeouts.of(parameters["timeout"])
            own = min((seconds for seconds in (own, timeouts.total) if seconds), default=None)
            parameters["timeout"] = replace(timeouts, total=None)  # the task's own scope bounds all of it
        seconds = own or core.options.timeouts.total
        self._limit = Deadline(anyio.current_time() + seconds, "total", seconds) if seconds else None
        named = parameters.pop("model", None)
        if task.constraints.model is not None:
            named = task.constraints.model
        self._model = model if named is None else named
        check_model(self._model)
        parameters = _constrained(task.constraints, self._model) | parameters
        messages = conversation(task.prompt, task.messages, task.context)
        new_call = partial(
            ModelCall,
            core,
            self._model,
            label=self.handle.id,
            limit=self._limit,
            priority=task.constraints.priority,
            hedge_after=hedge_after,
        )
        self._calls = TaskCalls(new_call, self.handle, messages, parameters, _turns(task, messages, parameters))
        self._slot = core.limiter.slots.reserve(task.constraints.priority)
        self._observed = self._calls.latest.request.observed
        if self._observed is not None:
            self._observed.start()

    def start_in(self, group: anyio.abc.TaskGroup, ended: Callable[[ChatTask, Result], None]) -> None:
        """Have the task run as a child of a group. Arguments as for `run`."""
        with nullcontext() if self._observed is None else self._observed.current():  # which the child inherits
            group.start_soon(self.run, ended, name=self.handle.id)

    async def run(self, ended: Callable[[ChatTask, Result], None]) -> None:
        """Run the task in a task group of its own and give its handle the result.

        Cancelled from outside, the task ends as cancelled, its connection is closed, and the cancellation passes.

        Args:
            ended: called once with the result, before anybody who waits for it goes on.
        """
        handle = self.handle
        group: anyio.abc.TaskGroup | None = None
        try:
            async with anyio.create_task_group() as group:
                if self._limit is not None:
                    group.cancel_scope.deadline = self._limit.at
                handle.runs_in(group.cancel_scope)
                try:
                    await self._slot.wait()
                    if handle.cancel_requested:
                        await checkpoint()  # it got its turn in the moment of its end, and must send nothing
                    await self._calls.run(group)
                    self._succeeded = True
                except Exception as error:  # noqa: BLE001 - whatever it is, it is this task's outcome and nobody else's
                    self._failure = error
        finally:
            self.end(ended, timed_out=group is not None and group.cancel_scope.cancelled_caught)

    def stop(self, error: ChatError) -> None:
        """Order the task to end with this error, without waiting for it; one that was cancelled before stays so."""
        if not self.handle.cancel_requested:
            self._stopped_by = error
            self.handle.request_cancel()

    def end(self, ended: Callable[[ChatTask, Result], None], *, timed_out: bool = False) -> None:
        """Give the handle its result: also of a task that the loop never got round to run."""
        self._slot.release()
        if not self._succeeded and self._failure is None:
            self._failure = self._interruption(timed_out=timed_out)
        if isinstance(self._failure, ChatError):
            self._calls.latest.request.annotate(self._failure)
        if self._observed is not None:
            call = self._calls.latest
            usage = add_usage(*(usage for _, usage in self._calls.replies()))
            self._observed.end(
                self._failure, call.completion, usage=usage, sent_ns=call.sent_ns, token_ns=call.token_ns
            )
        result = self._result(self._failure, self._outcome())
        if isinstance(self._failure, ChatError) and self._failure.phase is not None:
            _log.info("%s: deadline passed, phase %s: %s", self.handle.id, self._failure.phase, self._failure)
        _log.debug("%s: %s after %.3f s", self.handle.id, result.status, result.duration_seconds)
        ended(self.handle, result)
        self.handle.finish(result)

    def so_far(self, error: ChatError) -> Result:
        """Return what there is of the task, with the error of somebody who does not wait for more."""
        error.partial_text = self.handle.text
        self._calls.latest.request.annotate(error)
        return self._result(error, self.handle.status)

    def _interruption(self, *, timed_out: bool) -> ChatError:
        """Return the error for a task that was stopped: by `stop`, its deadline, `cancel`, or from outside."""
        error: ChatError
        if self._stopped_by is not None:
            error = self._stopped_by
        elif timed_out and self._limit is not None and not self.handle.cancel_requested:
            limit = self._limit if self.handle.started_ns is not None else self._limit._replace(phase="queue")
            error = limit.error(self._calls.latest.request.last_failure())
        else:
            error = TaskCancelledError("the task was cancelled")
        error.request_id = self._calls.latest.request.request_id
        error.partial_text = self.handle.text
        return error

    def _outcome(self) -> TaskStatus:
        if self._failure is None:
            return TaskStatus.COMPLETED
        return TaskStatus.CANCELLED if isinstance(self._failure, TaskCancelledError) else TaskStatus.FAILED

    def _result(self, failure: Exception | None, status: TaskStatus) -> Result:
        """Put together what became of the task. Of one that did not complete, what has arrived is kept."""
        handle, call = self.handle, self._calls.latest
        replies = self._calls.replies()
        completion, _ = replies[-1]
        usage = add_usage(*(usage for _, usage in replies))
        finish_reason = completion.finish_reason if completion is not None else None
        now = time.perf_counter_ns()
        message = completion.choices[0].message if completion is not None and completion.choices else None
        output = handle.text
        if message is not None and message.content is not None and message.content == output:
            output = message.content  # one string, not two: results are kept by the thousand
        return Result(
            task=handle.task,
            platform=Platform.CHATGPT,
            output=output,
            success=failure is None,
            status=status,
            error=None if failure is None else str(failure) or type(failure).__name__,
            exception=failure,
            tokens_used=(usage.total_tokens or usage.prompt_tokens + usage.completion_tokens or None)
            if usage
            else None,
            cost=self._total_cost(replies),
            duration_seconds=(now - self._submitted_ns) / 1e9,
            usage=usage,
            finish_reason=finish_reason,
            message=message,
            timings=Timings(
                submitted_ns=self._submitted_ns,
                started_ns=handle.started_ns,
                sent_ns=call.sent_ns,
                headers_ns=call.request.headers_ns,
                token_ns=call.token_ns,
                finished_ns=None if status in {TaskStatus.PENDING, TaskStatus.RUNNING} else now,
            ),
            attempts=len(call.retrier.log),
            attempts_log=call.retrier.log.attempts(),
            messages=self._calls.messages,
            parsed=self._calls.parsed,
            completion=completion,
            metadata={
                "model": (completion.model if completion is not None else "") or self._model,
                "input_tokens": usage.prompt_tokens if usage else None,
                "output_tokens": usage.completion_tokens if usage else None,
                "request_id": call.request.request_id,
                "finish_reason": finish_reason,
            },
        )

    def _total_cost(self, replies: list[tuple[Completion | None, Usage | None]]) -> float | None:
        costs = [self._cost(completion, usage) for completion, usage in replies]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    def _cost(self, completion: Completion | None, usage: Usage | None) -> float | None:
        if completion is None or usage is None or usage == _NOTHING_TOLD:
            return None
        query = PriceQuery(
            model=completion.model or self._model,
            usage=usage,
            requested_model=self._model,
            base_url=self._core.options.endpoint.base_url,
            service_tier=completion.service_tier,
        )
        try:
            cost = self._pricer(query)
            return None if cost is None else check_cost(cost)
        except Exception:  # noqa: BLE001 - logged with its traceback
            # The user's own function failed. The reply is paid for and must not be lost with its price.
            _log.exception("%s: prices= raised; the cost is not known", self.handle.id)
            return None


def _checked(constraints: TaskConstraints) -> TaskConstraints:
    if not isinstance(constraints, TaskConstraints):
        raise ValueError(f"constraints must be a TaskConstraints, not {type(constraints).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
    check_seconds(constraints.timeout_seconds, "timeout_seconds")
    check_number(constraints.priority, "priority")
    check_count(constraints.max_turns, "max_turns")
    check_seconds(constraints.tool_timeout_seconds, "tool_timeout_seconds")
    if constraints.max_tokens is not None:
        check_count(constraints.max_tokens, "max_tokens")
    if constraints.temperature is not None:
        check_number(constraints.temperature, "temperature")
    return constraints


def _parameters(task: Task) -> dict[str, Any]:
    """Return a copy of a task's parameters."""
    if not isinstance(task.parameters, Mapping):
        raise ValueError(f"parameters must be a mapping, not {type(task.parameters).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
    if "messages" in task.parameters:
        raise ValueError("parameters has messages, which are given beside it, as the task's own")
    return dict(task.parameters)


def _turns(task: Task, messages: Sequence[Message], parameters: Mapping[str, Any]) -> Conversation | None:
    """Return the conversation of a task that may take more than one turn, or whose answer has a type."""
    if not task.tools and task.output_type is None and not task.reask:
        return None
    return Conversation(
        messages,
        parameters,
        tools=task.tools or (),
        output_type=task.output_type,
        reask=task.reask,
        max_turns=task.constraints.max_turns,
        tool_timeout=task.constraints.tool_timeout_seconds,
        on_tool_error=task.on_tool_error,
        argument="output_type",
    )


def _constrained(constraints: TaskConstraints, model: str) -> dict[str, Any]:
    given = {"temperature": constraints.temperature, max_tokens_name(model): constraints.max_tokens}
    return {name: value for name, value in given.items() if value is not None}
