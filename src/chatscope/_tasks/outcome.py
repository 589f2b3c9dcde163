"""Turns what happened to a task into its `Result`, including the cost. No other module makes results.

Pure functions: nothing here waits or sends. `runner.py` collects what happened in a `TaskOutcome`.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from chatscope._client.timings import Timings
from chatscope._limits.attempts import Attempt
from chatscope._tasks.models import Platform, Result, Task, TaskStatus
from chatscope.errors import ChatError, TaskCancelledError
from chatscope.pricing import PriceQuery
from chatscope.protocol.response import Completion
from chatscope.protocol.usage import Usage, add_usage

NOTE_FRAMES: Final = 8
"""How many frames of a foreign exception's traceback are kept as text: enough to find the line, about 1 KiB."""

_UNCOUNTED: Final = Usage()
"""All zeros, as servers send that do not count tokens. It means "not reported", not "free"."""


class Charge(NamedTuple):
    """A request that the server may charge for."""

    completion: Completion | None
    """The response, as far as it has arrived."""
    model: str
    """The requested model."""

    @property
    def usage(self) -> Usage | None:
        """The reported usage; `None` if the server did not report it."""
        usage = self.completion.usage if self.completion is not None else None
        return None if usage == _UNCOUNTED else usage


class CallSummary(NamedTuple):
    """A summary of the model calls of a task.

    Attributes:
        completion: the last response with content, as far as it has arrived.
        charges: the requests that the server may charge for.
        request_id: the id that the server gave the last request.
        requests: how many requests were sent.
        attempts: one entry for each request.
        sent_ns, headers_ns, written_ns, connect_ns, token_ns: as in `Timings`.
    """

    completion: Completion | None = None
    charges: Sequence[Charge] = ()
    request_id: str | None = None
    requests: int = 0
    attempts: tuple[Attempt, ...] = ()
    sent_ns: int | None = None
    headers_ns: int | None = None
    written_ns: int | None = None
    connect_ns: int | None = None
    token_ns: Sequence[int] = ()


NO_CALLS: Final = CallSummary()


class TaskOutcome(NamedTuple):
    """What happened to a task: everything that its result is made from.

    Attributes:
        status: the status.
        failure: the error that it ended with; `None` after a success.
        task: the task, if there is one.
        text: the text that has arrived.
        calls: its model calls.
        model: the requested model.
        base_url: where the requests were sent.
        messages: the conversation as it was last sent.
        parsed: the response as a value of the task's type.
        submitted_ns, started_ns, finished_ns: as in `Timings`.
        now_ns: when this value was made.
    """

    status: TaskStatus
    failure: Exception | None
    task: Task | None = None
    text: str = ""
    calls: CallSummary = NO_CALLS
    model: str | None = None
    base_url: str = ""
    messages: Sequence[Mapping[str, Any]] = ()
    parsed: Any = None
    submitted_ns: int | None = None
    started_ns: int | None = None
    finished_ns: int | None = None
    now_ns: int = 0


Price = Callable[[PriceQuery], float | None]
"""Returns US dollars, or `None` if the price is not known. It must not raise."""


def result_of(outcome: TaskOutcome, price: Price) -> Result:
    """Return the result for what happened to a task."""
    failure, calls = outcome.failure, outcome.calls
    completion, usage = calls.completion, total_usage(calls.charges)
    finish_reason = message = None
    if completion is not None and completion.choices:
        finish_reason, message = completion.finish_reason, completion.choices[0].message
    output = outcome.text
    if message is not None and message.content is not None and message.content == output:
        output = message.content  # one string, not two: results are kept by the thousand
    submitted_ns = outcome.submitted_ns
    return Result(
        task=outcome.task,
        platform=Platform.CHATGPT,
        output=output,
        success=failure is None,
        status=outcome.status,
        error=None if failure is None else _text_of(failure),
        exception=failure,
        tokens_used=None if usage is None else usage.total_tokens or None,
        cost=_total_cost(outcome, price),
        duration_seconds=0.0 if submitted_ns is None else (outcome.now_ns - submitted_ns) / 1e9,
        usage=usage,
        finish_reason=finish_reason,
        message=message,
        timings=None if submitted_ns is None else _timings(outcome, submitted_ns),
        attempts=calls.requests,
        attempts_log=calls.attempts,
        messages=outcome.messages,
        parsed=outcome.parsed,
        completion=completion,
        metadata={
            "model": (completion.model if completion is not None else "") or outcome.model,
            "input_tokens": None if usage is None else usage.prompt_tokens,
            "output_tokens": None if usage is None else usage.completion_tokens,
            "request_id": calls.request_id,
            "finish_reason": finish_reason,
        },
    )


def _timings(outcome: TaskOutcome, submitted_ns: int) -> Timings:
    calls = outcome.calls
    return Timings(
        submitted_ns,
        outcome.started_ns,
        calls.sent_ns,
        calls.headers_ns,
        calls.token_ns,
        outcome.finished_ns,
        calls.written_ns,
        calls.connect_ns,
    )


def _text_of(error: Exception) -> str:
    try:
        return str(error) or type(error).__name__
    except Exception:  # noqa: BLE001 - its own __str__ fails
        return type(error).__name__


def status_after(failure: Exception | None) -> TaskStatus:
    """Return the status that a task ends with."""
    if failure is None:
        return TaskStatus.COMPLETED
    return TaskStatus.CANCELLED if isinstance(failure, TaskCancelledError) else TaskStatus.FAILED


def reported_tokens(charges: Sequence[Charge]) -> int:
    """Return the tokens that the server reported, even if it did not report those of every request."""
    return sum(charge.usage.total_tokens for charge in charges if charge.usage is not None)


def without_frames(error: Exception) -> Exception:
    """Remove the traceback from an error and its causes, and return it: tracebacks keep the task's frames in memory.

    An exception from outside this package, such as one that a tool raised, gets its traceback as text in a note.
    """
    if not isinstance(error, ChatError) and error.__traceback__ is not None:
        lines = traceback.format_tb(error.__traceback__)[-NOTE_FRAMES:]
        note = "Raised in a task, at (most recent call last):\n" + "".join(lines).rstrip()
        if note not in getattr(error, "__notes__", ()):  # one exception may end many tasks
            with suppress(Exception):  # a frozen dataclass takes no note
                error.add_note(note)
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        item = pending.pop()
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        item.with_traceback(None)  # an assignment would fail for a frozen dataclass
        pending += (item.__cause__, item.__context__)
        if isinstance(item, BaseExceptionGroup):
            pending += item.exceptions
    return error


def total_usage(charges: Sequence[Charge]) -> Usage | None:
    """Return the usage of all requests; `None` if the usage of any of them is not known."""
    usages = [charge.usage for charge in charges]
    if None in usages:
        return None  # a sum without it would look like the whole
    return add_usage(*usages)


def _total_cost(outcome: TaskOutcome, price: Price) -> float | None:
    total = 0.0
    for charge in outcome.calls.charges:
        completion, usage = charge.completion, charge.usage
        if completion is None or usage is None or not (usage.prompt_tokens or usage.completion_tokens):
            return None  # zeros, or a total alone, cannot be priced
        cost = price(
            PriceQuery(
                model=completion.model or charge.model,
                usage=usage,
                requested_model=charge.model,
                base_url=outcome.base_url,
                service_tier=completion.service_tier,
            )
        )
        if cost is None:
            return None
        total += cost
    return total if outcome.calls.charges else None


def check_cost(cost: object) -> float:
    """Convert the result of a user's price function to US dollars.

    Raises:
        ValueError, TypeError: it is not a finite number.
    """
    dollars = float(cost)  # type: ignore[arg-type]  # it can be anything that `float` takes, a Decimal for instance
    if not math.isfinite(dollars):
        raise ValueError(f"prices returned {cost!r}, which is not a finite number")
    return dollars
