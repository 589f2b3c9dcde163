"""Tasks and results: plain values without behaviour.

Not here: how arguments are checked (`prepared.py`), and how a result is made (`outcome.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, Literal

from chatscope._client.timings import Timings
from chatscope._conversation.loop import MAX_TURNS
from chatscope._conversation.structured_output import TypeForm
from chatscope._limits.attempts import Attempt
from chatscope._tasks.unbuilt import Unbuilt
from chatscope._validation import unknown_attribute
from chatscope.protocol.messages import Message
from chatscope.protocol.parameters import TaskParameters
from chatscope.protocol.request import conversation
from chatscope.protocol.response import NOT_PARSED, Completion, CompletionMessage, FinishReason, OutputT
from chatscope.protocol.usage import Usage


class TaskType(StrEnum):
    """The kind of a task: a label that is stored with the task, but not sent."""

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
    """The state of a task."""

    PENDING = "pending"
    """Accepted, and not sent yet: it waits for its slot, or for the permit of its first request."""
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """No such task, or a finished one that has been forgotten."""


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """The numbers of an adapter's tasks by status, at one moment. Forgotten tasks are counted, too.

    Attributes:
        pending: tasks that wait for their slots, or for the permits of their first requests.
        running: tasks that have sent a request and not ended.
        succeeded, failed, cancelled: tasks that have ended with this status.
    """

    pending: int
    running: int
    succeeded: int
    failed: int
    cancelled: int

    @property
    def finished(self) -> int:
        """How many tasks have ended, with any status."""
        return self.succeeded + self.failed + self.cancelled


class TaskId(str, Generic[OutputT]):
    """The id of a task. Type checkers infer the type of the task's result from it.

    Like a `NewType`, it exists only for type checkers: at run time, ids are plain texts.
    """

    __slots__ = ()


class Platform(StrEnum):
    """The service that a task runs on."""

    CHATGPT = "chatgpt"


@dataclass(frozen=True, slots=True)
class TaskConstraints:
    """Limits of one task. `None` means the adapter's or the server's default."""

    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    timeout_seconds: float | None = None
    """The deadline of the whole task, in seconds after its submission, including queueing, attempts and waits."""
    priority: int = 0
    """Tasks with a higher priority get a slot first; equal ones in the order of submission."""
    max_turns: int = MAX_TURNS
    """How many model calls a task with tools may make. A model that still calls tools then causes a `ToolLoopError`."""
    tool_timeout_seconds: float | None = None
    """How long each call of a tool may take, in seconds."""


NO_CONSTRAINTS: Final = TaskConstraints()


@dataclass(slots=True)
class Task(Generic[OutputT]):
    """A request to a model, with its settings.

    Submitting copies the task and encodes what it sends: later changes to the task, its messages or its parameters
    have no effect. A task is mutable (`submit_task` sets `task_id`), so it cannot be hashed.

    Args:
        prompt: the user's message. Give either this or `messages`.
        type: a label.
        context: facts to send before the prompt, as a system message with one line `key: value` for each.
        messages: a whole conversation instead of a prompt.
        constraints: the task's own limits.
        parameters: further parameters of the endpoint, sent as given.
        metadata: the caller's own data. It is not sent; `result.task.metadata` returns it.
        task_id: set when the task is submitted.
        tools: functions that the model may call until it answers. Their signatures and docstrings describe them to the
            model. Sync functions run in worker threads. A task holds no slot while its tools run.
        on_tool_error: `"report"` tells the model what a function raised; `"raise"` ends the task with it.
        output_type: the type of the response: a msgspec Struct, dataclass, TypedDict, attrs class, pydantic model, or
            any other type that strict JSON schema can express. A response that does not fit is an `OutputError`.
        reask: how often to ask again, with the problem described to the model, if the response does not fit the type.
        model, temperature: as in `constraints`, which must then leave them out.
        system: a system message, sent first.
        strict: whether the endpoint enforces the schemas of `output_type` and `tools`. `strict=False` allows more types
            (`dict[str, int]`, tuples, `Any`), and the model may omit values with defaults. The response is still
            checked against the type.
    """

    prompt: str = ""
    type: TaskType = TaskType.CHAT
    context: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[Message] | None = None
    constraints: TaskConstraints = NO_CONSTRAINTS
    parameters: TaskParameters | Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    task_id: str | None = None
    tools: Sequence[Callable[..., Any]] = ()
    on_tool_error: Literal["report", "raise"] = "report"
    output_type: TypeForm[OutputT] = NOT_PARSED  # not `| None`, with which mypy finds no type for a union
    reask: int = 0
    model: str | None = None
    temperature: float | None = None
    system: str | None = None
    strict: bool = True


def _no_metadata() -> dict[str, Any]:
    return dict.fromkeys(("model", "input_tokens", "output_tokens", "request_id", "finish_reason"))


class _Finished:
    """What some fields of a `Result` are built from when they are first read: of most results, they never are."""

    __slots__ = ("_unbuilt",)

    _unbuilt: Unbuilt


@dataclass(frozen=True, slots=True)
class Result(_Finished, Generic[OutputT]):
    """The outcome of a task.

    Results are equal if their fields are equal. `exception` is not compared, since exceptions compare by identity;
    `error` holds its text. The hash covers the platform, status, output, error and duration, since the task and the
    metadata cannot be hashed.
    """

    task: Task[OutputT] | None
    platform: Platform
    output: str
    """The text of all turns. If the task failed or was cancelled: the text received until then."""
    success: bool
    status: TaskStatus
    error: str | None = None
    exception: Exception | None = field(default=None, compare=False)
    """The error that the task failed with. It has no traceback, which would keep the task's frames in memory; for an
    exception from outside this package, the traceback is in the notes, as text."""
    tokens_used: int | None = None
    """Prompt and completion tokens, from `usage`; `None` if the usage is not known."""
    cost: float | None = None
    """In US dollars, for all turns and hedged attempts; `None` if any of their prices or usages is not known."""
    duration_seconds: float = 0.0
    """From submission to the end."""
    usage: Usage | None = None
    """The tokens of all turns and hedged attempts; `None` if the server did not report those of each."""
    finish_reason: FinishReason | None = None
    message: CompletionMessage | None = None
    """The assistant message of the last turn, tool calls included."""
    timings: Timings | None = None
    attempts: int = 0
    """How many requests were sent."""
    attempts_log: tuple[Attempt, ...] = ()
    """One entry for each request that was sent, in the order of sending."""
    metadata: Mapping[str, Any] = field(default_factory=_no_metadata)
    """At least `model`, `input_tokens`, `output_tokens`, `request_id`, `finish_reason`; `None` if not known."""
    messages: Sequence[Mapping[str, Any]] = ()
    """The conversation that `message` responds to, including tool calls and their results."""
    parsed: OutputT = NOT_PARSED
    """The response as a value of the task's `output_type`; `None` if there is none, as when the task failed."""
    completion: Completion | None = None
    """The whole response with every choice, as far as it arrived; that of the last turn."""

    if not TYPE_CHECKING:  # a checker would take any name

        def __getattr__(self, name: str) -> Any:
            """Build a field that is read for the first time. Refuse a name that does not exist.

            For names of other libraries, the error says what to use instead.
            """
            if name == "timings":
                built: Any = self._unbuilt.timings()
            elif name == "attempts_log":
                built = self._unbuilt.attempts_log()
            elif name == "messages":
                built = conversation(self._unbuilt.prompt)
            elif name == "metadata":
                built = self._build_metadata()
            elif name == "completion":
                built = self._unbuilt.body.completion(self.output, self._unbuilt.record)
            elif name == "message":
                built = self.completion.message
            else:
                raise unknown_attribute(self, name, dict.fromkeys(("content", "text"), "output"))
            object.__setattr__(self, name, built)
            return built

    def _build_metadata(self) -> dict[str, Any]:
        usage = self.usage
        return {
            "model": self._unbuilt.model,
            "input_tokens": None if usage is None else usage.prompt_tokens,
            "output_tokens": None if usage is None else usage.completion_tokens,
            "request_id": self._unbuilt.record.request_id,
            "finish_reason": self.finish_reason,
        }

    def __hash__(self) -> int:
        return hash((self.platform, self.status, self.output, self.error, self.duration_seconds))

    def raise_for_error(self) -> Result[OutputT]:
        """Return the result itself, or raise the exception that the task ended with.

        Raises:
            Exception: `exception`, if there is one.
        """
        if self.exception is not None:
            raise self.exception.with_traceback(None)  # otherwise each call would add its own frames
        return self


class ResultDraft(_Finished):
    """A result that can still be changed. It is made in a third of the time: the frozen class sets fields by calls."""

    __slots__ = tuple(each.name for each in fields(Result))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


def finished(draft: Any, unbuilt: Unbuilt) -> Result[Any]:
    """Turn a `ResultDraft` into a result. Fields that are not set are built when they are first read."""
    draft._unbuilt = unbuilt
    draft.__class__ = Result
    result: Result[Any] = draft
    return result


def unbuilt_of(result: Result[Any]) -> Unbuilt:
    """Return what a finished task's result is built from."""
    return result._unbuilt
