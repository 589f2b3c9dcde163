"""Tasks and results: plain values, no behaviour beyond their own consistency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

from chatscope.protocol.messages import Message
from chatscope.protocol.parameters import TaskParameters
from chatscope.protocol.response import Message as AssistantMessage
from chatscope.protocol.response import Usage

MAX_TURNS: Final = 10
"""How many model calls a loop of tools makes at most, unless told otherwise: more than a task takes that goes well, few
enough for one that runs in circles to be noticed before it is expensive."""


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
    """Accepted, waiting for its turn."""
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


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that was made for a task."""

    started_seconds: float
    """When it was begun, in seconds after the task was submitted."""
    duration_seconds: float
    status: int | None
    """The HTTP status, as far as it came to one."""
    error: str | None
    """The class of the error it ended with; `None` if it succeeded."""
    request_id: str | None
    wait_seconds: float | None
    """How long was waited before the next attempt; `None` if there was none."""


@dataclass(frozen=True, slots=True)
class Timings:
    """When things happened to a task, on the clock of `time.perf_counter_ns`; `None` is what did not happen.

    Bytes are timed when they were read from the connection, not when somebody looked at them.
    """

    submitted_ns: int
    started_ns: int | None = None
    """When it got its turn."""
    sent_ns: int | None = None
    """When the last attempt was begun."""
    headers_ns: int | None = None
    token_ns: Sequence[int] = ()
    """For each chunk that carried something written by the model, when it was read."""
    finished_ns: int | None = None

    @property
    def queue_seconds(self) -> float | None:
        """How long the task waited for its turn."""
        return _between(self.submitted_ns, self.started_ns)

    @property
    def first_token_seconds(self) -> float | None:
        """The time to first token: from the beginning of the attempt that brought it."""
        return _between(self.sent_ns, self.token_ns[0]) if self.token_ns else None

    @property
    def inter_token_seconds(self) -> list[float]:
        """The time between one chunk and the next."""
        return [(after - before) / 1e9 for before, after in zip(self.token_ns, self.token_ns[1:], strict=False)]

    @property
    def total_seconds(self) -> float | None:
        """From submission to the end."""
        return _between(self.submitted_ns, self.finished_ns)


def _between(start: int | None, end: int | None) -> float | None:
    return None if start is None or end is None else (end - start) / 1e9


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
    message: AssistantMessage | None = None
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

    def raise_for_error(self) -> Result:
        """Return the result itself, or raise the exception that the task ended with.

        Raises:
            Exception: `exception`, if there is one.
        """
        if self.exception is not None:
            raise self.exception
        return self
