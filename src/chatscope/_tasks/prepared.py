"""Checks and prepares a task: one value with everything that will be sent, and when the task must end.

All argument errors are raised here, at submission, before a slot is taken. Nothing here waits or sends.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any, Final

import anyio
import msgspec

from chatscope._client.core import ClientCore
from chatscope._client.parameters import TASK_NAMES, unknown_parameter
from chatscope._client.server import PreparedRequest
from chatscope._conversation.loop import Conversation, ToolOptions
from chatscope._limits.retry import RetryPolicy
from chatscope._limits.timeouts import Deadline, Timeouts
from chatscope._tasks.models import NO_CONSTRAINTS, Task, TaskConstraints
from chatscope._validation import (
    check_count,
    check_instance,
    check_messages,
    check_model,
    check_number,
    check_on_tool_error,
    check_seconds,
)
from chatscope.protocol.messages import SentMessage
from chatscope.protocol.request import conversation as messages_of
from chatscope.protocol.request import max_tokens_name
from chatscope.protocol.response import plain_messages
from chatscope.telemetry.observer import ObservedCall

_task_values: Final = attrgetter(*(field.name for field in fields(Task)))


class PreparedTask(msgspec.Struct, frozen=True):
    """A prepared task: everything that it will send, and when it must end.

    Attributes:
        task: a copy of the task, with its id.
        model: the requested model.
        messages: the messages of the first turn; `None` if the task's prompt is the only one.
        request: the encoded request of the first turn.
        streams: whether the response is streamed.
        policy: how requests are retried.
        timeouts: the timeouts of each request, without the limit of the whole task.
        deadline: when the task must end.
        conversation: decides what later turns send; `None` if there is only one turn.
        observed: the task's telemetry, if there is any.
        submitted_ns: when the task was submitted (`time.perf_counter_ns`).
    """

    task: Task
    model: str
    messages: Sequence[SentMessage] | None
    request: PreparedRequest
    streams: bool
    policy: RetryPolicy
    timeouts: Timeouts
    deadline: Deadline | None
    conversation: Conversation | None
    observed: ObservedCall | None
    submitted_ns: int


@dataclass(frozen=True, slots=True)
class TaskDefaults:
    """The defaults for tasks that do not override them.

    Attributes:
        model: the model to request.
        timeouts: those of each request, without `total`.
        seconds: how long the whole task may take; `None` means no limit.
    """

    model: str
    timeouts: Timeouts
    seconds: float | None

    @classmethod
    def of(cls, model: str, timeouts: Timeouts) -> TaskDefaults:
        """Return the defaults of an adapter with this model and these timeouts."""
        return cls(model, replace(timeouts, total=None), timeouts.total)


def prepare(core: ClientCore, task: Task, task_id: str, defaults: TaskDefaults) -> PreparedTask:
    """Check a task and prepare it.

    Args:
        core: will send the requests.
        task: the task; it is copied.
        task_id: its id.
        defaults: the values that the task does not set.

    Raises:
        ValueError: the task is invalid; the error names the argument.
        RuntimeError: the client is not open.
    """
    submitted_ns = time.perf_counter_ns()
    if type(task) is not Task:
        check_instance(task, Task, "task")
    constraints = _constraints(task)
    if task.on_tool_error != "report":
        check_on_tool_error(task.on_tool_error)
    parameters = _parameters(task)
    timeouts, seconds = defaults.timeouts, constraints.timeout_seconds
    if "timeout" in parameters:
        timeouts, seconds = _limits(parameters.pop("timeout"), seconds)
    seconds = seconds or defaults.seconds
    model = _model(parameters, constraints, defaults)
    if constraints.temperature is not None or constraints.max_tokens is not None:
        parameters = _constrained(constraints, model) | parameters
    streams = parameters.pop("stream", None) is not False
    policy = core.options.retry
    if "retry" in parameters:
        policy = RetryPolicy.of(parameters.pop("retry"), policy)
    messages, conversation = _messages(task, model, parameters)
    is_prompt = conversation is None and task.messages is None and len(messages) == 1
    if conversation is not None:
        parameters = conversation.parameters
    return PreparedTask(
        task=_copy(task, task_id),
        model=model,
        messages=None if is_prompt else messages,
        request=core.prepare(model, messages, parameters, stream=streams),
        streams=streams,
        policy=policy,
        timeouts=timeouts,
        deadline=Deadline(anyio.current_time() + seconds, "total", seconds) if seconds else None,
        conversation=conversation,
        observed=core.observe(model, messages, parameters, stream=streams),
        submitted_ns=submitted_ns,
    )


def _copy(task: Task, task_id: str) -> Task:
    if type(task) is not Task:
        return replace(task, task_id=task_id)
    copied: Task = Task(*_task_values(task))  # in a third of the time
    copied.task_id = task_id
    return copied


def _limits(timeout: Any, seconds: float | None) -> tuple[Timeouts, float | None]:
    """Return the timeouts of each request, and how long the whole task may take, which its own scope enforces.

    Args:
        timeout: the task's parameter.
        seconds: the limit in its constraints.
    """
    timeouts = Timeouts.of(timeout)
    return replace(timeouts, total=None), min((each for each in (seconds, timeouts.total) if each), default=None)


def _model(parameters: dict[str, Any], constraints: TaskConstraints, defaults: TaskDefaults) -> str:
    model = parameters.pop("model", None)
    if constraints.model is not None:
        model = constraints.model
    if model is None:
        return defaults.model
    check_model(model)
    return str(model)


def _messages(
    task: Task, model: str, parameters: Mapping[str, Any]
) -> tuple[Sequence[SentMessage], Conversation | None]:
    """Return copies of the first turn's messages and of the conversation: later changes by the caller are not sent."""
    given = None if task.messages is None else plain_messages(task.messages)
    if given is not None and (task.context or task.system is not None):
        check_messages(model, given)
    messages = messages_of(task.prompt, given, task.context, task.system)
    if not task.tools and task.output_type is None and not task.reask and task.strict is True:
        return list(messages) if messages is task.messages and isinstance(messages, list) else messages, None
    check_messages(model, messages)
    messages = deepcopy(messages)  # each turn encodes it again
    return messages, _conversation(task, messages, parameters)


def _constraints(task: Task) -> TaskConstraints:
    """Return a task's constraints, including those that the task itself names, checked."""
    constraints = task.constraints
    if constraints is NO_CONSTRAINTS and task.model is None and task.temperature is None:
        return constraints
    check_instance(constraints, TaskConstraints, "constraints")
    if task.model is not None or task.temperature is not None:
        own: dict[str, Any] = {"model": task.model, "temperature": task.temperature}
        for name, value in own.items():
            if value is not None and getattr(constraints, name) is not None:
                raise ValueError(f"{name} is given twice: by the task and by its constraints")
        constraints = replace(constraints, **{name: value for name, value in own.items() if value is not None})
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
    parameters = task.parameters
    if type(parameters) is not dict:  # to ask the abstract class alone costs several times as much
        check_instance(parameters, Mapping, "parameters")
    if not parameters.keys() <= TASK_NAMES:
        if "messages" in parameters:
            raise ValueError("parameters has messages: give them as the task's own `messages`")
        raise ValueError(f"parameters: {unknown_parameter(parameters, TASK_NAMES)}")
    return dict(parameters)


def _constrained(constraints: TaskConstraints, model: str) -> dict[str, Any]:
    given = {"temperature": constraints.temperature, max_tokens_name(model): constraints.max_tokens}
    return {name: value for name, value in given.items() if value is not None}


def _conversation(task: Task, messages: Sequence[SentMessage], parameters: Mapping[str, Any]) -> Conversation:
    limits = task.constraints
    tools = ToolOptions(task.tools or (), limits.max_turns, limits.tool_timeout_seconds, task.on_tool_error)
    return Conversation(
        messages,
        parameters,
        tools=tools,
        output_type=task.output_type,
        reask=task.reask,
        argument="output_type",
        strict=task.strict,
    )
