"""Tasks and results: plain values, no behaviour beyond their own consistency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from chatscope._client.timings import Timings
from chatscope._conversation.loop import MAX_TURNS
from chatscope._limits.attempts import Attempt
from chatscope.protocol.messages import Message
from chatscope.protocol.parameters import TaskParameters
from chatscope.protocol.response import Completion, CompletionMessage
from chatscope.protocol.usage import Usage


class TaskType(StrEnum):
    """What a task is about; a label that is kept with it."""

    CODE_GENERATION = "code_generation"
    REFACTORING = "refactoring"
    RESEARCH = "research"
    DATA_ANALYSIS = "data_analysis"
    DOCUMENTATION = "documentation"
    CODE_REVIEW = "code_review"
    SQL_DB_WORK = "sql_db_work"
    TESTING = "testing"
    DEBUGGING = "debugging"
    PLANNING = "planning"
    CHAT = "chat"


class TaskStatus(StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    """Accepted, waiting for its slot."""
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """No such task, or one that was finished and forgotten."""


class Platform(StrEnum):
    """The service that a task runs on."""

    CHATGPT = "chatgpt"


@dataclass(frozen=True, slots=True)
class TaskConstraints:
    """Limits of one task; `None` leaves the adapter's default or the server's."""

    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    timeout_seconds: float | None = None
    """The deadline of the whole task, in seconds from its submission: queueing, attempts and waits included."""
    priority: int = 0
    """Tasks of a higher priority get their turn first; within one, first in, first out."""
    max_turns: int = MAX_TURNS
    """How many model calls are made at most for the sake of tools; one more is a `ToolLoopError`."""
    tool_timeout_seconds: float | None = None
    """How long each call of a tool may take."""


@dataclass(slots=True)
class Task:
    """Something to ask a model.

    Args:
        prompt: what the user says; or give `messages`.
        type: a label.
        context: facts sent before the prompt, as a system message with a line `key: value` for each.
        messages: a whole conversation instead of a prompt.
        constraints: the task's own limits.
        parameters: any further parameters of the endpoint, sent as given.
        metadata: whatever the caller wants to find again with the result; it is not sent.
        task_id: set when the task is submitted.
        tools: functions that the model may call, until it answers. Their signatures and docstrings are what it is told;
            sync ones run in worker threads.
        on_tool_error: `"report"` tells the model what a function raised, `"raise"` ends the task with it.
        output_type: the type that the answer must be: a msgspec Struct, dataclass, TypedDict, attrs class or pydantic
            model, or anything else that strict JSON schema can say. An answer that is none is an `OutputError`.
        reask: how often the model is asked again, and told what is wrong, when its answer is invalid.
    """

    prompt: str = ""
    type: TaskType = TaskType.CHAT
    context: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[Message] | None = None
    constraints: TaskConstraints = field(default_factory=TaskConstraints)
    parameters: TaskParameters | Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    task_id: str | None = None
    tools: Sequence[Callable[..., Any]] = ()
    on_tool_error: Literal["report", "raise"] = "report"
    output_type: Any = None
    reask: int = 0


def _nothing_known() -> dict[str, Any]:
    return dict.fromkeys(("model", "input_tokens", "output_tokens", "request_id", "finish_reason"))


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a task."""

    task: Task | None
    platform: Platform
    output: str
    """The text, that of all turns; of a task that failed or was cancelled, what had arrived."""
    success: bool
    status: TaskStatus
    error: str | None = None
    exception: Exception | None = None
    tokens_used: int | None = None
    """Prompt and completion tokens; `None` if the server did not tell."""
    cost: float | None = None
    """In USD, of all turns; `None` if the price or the usage of one is not known."""
    duration_seconds: float = 0.0
    """From submission to the end."""
    usage: Usage | None = None
    finish_reason: str | None = None
    message: CompletionMessage | None = None
    """The assistant message, tool calls included; the last one, where there were several turns."""
    timings: Timings | None = None
    attempts: int = 0
    """How many requests were sent."""
    attempts_log: tuple[Attempt, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=_nothing_known)
    """At least `model`, `input_tokens`, `output_tokens`, `request_id`, `finish_reason`; `None` is what is not known."""
    messages: Sequence[Mapping[str, Any]] = ()
    """The conversation that `message` answers; with tools, their calls and results included."""
    parsed: Any = None
    """The answer as a value of the task's `output_type`."""
    completion: Completion | None = None
    """The whole response with every choice, as far as it arrived; the last one, where there were several turns."""

    def raise_for_error(self) -> Result:
        """Return the result itself, or raise the exception that the task ended with.

        Raises:
            Exception: `exception`, if there is one.
        """
        if self.exception is not None:
            raise self.exception
        return self
