"""Turns what happened to a task into its `Result`, including the cost. No other module of this room makes results.

Pure functions: nothing here waits or sends. `runner.py` says what happened.
"""

from __future__ import annotations

import math
import time
import traceback
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from chatscope._client.completion import ReceivedBody
from chatscope._client.request import ClientRequest
from chatscope._limits.attempts import NOT_SENT
from chatscope._tasks.handle import TaskState
from chatscope._tasks.model_call import ModelCalls
from chatscope._tasks.models import Platform, Result, ResultDraft, Task, TaskStatus, finished
from chatscope._tasks.prepared import PreparedTask
from chatscope._tasks.unbuilt import TIMES, Unbuilt, lengths_of
from chatscope.errors import ChatError, TaskCancelledError
from chatscope.pricing import PriceQuery, Prices, resolve
from chatscope.protocol.response import Completion
from chatscope.protocol.shared_text import shared
from chatscope.protocol.usage import Usage, add_usage
from chatscope.telemetry.guard import Guard

NOTE_FRAMES: Final = 8
"""How many frames of a foreign exception's traceback are kept as text: enough to find the line, about 1 KiB."""

_UNCOUNTED: Final = Usage()
"""All zeros, as servers send that do not count tokens. It means "not reported", not "free"."""

Price = Callable[[PriceQuery], float | None]
"""Returns US dollars, or `None` if the price is not known. It must not raise."""


class Bill(msgspec.Struct, frozen=True, gc=False):
    """What a task used, as far as the server reported it.

    Attributes:
        usage: the tokens of all requests; `None` if those of any are not known.
        cost: in US dollars; `None` if the price or the usage of any request is not known.
        reported_tokens: the tokens that were reported, even if they are not all.
        is_charged: whether the server may charge for any request.
    """

    usage: Usage | None = None
    cost: float | None = None
    reported_tokens: int = 0
    is_charged: bool = False


NO_BILL: Final = Bill()

_CHARGED: Final = Bill(is_charged=True)


def bill_for(charged: Sequence[Completion | None], model: str, base_url: str, price: Price) -> Bill:
    """Return what requests used.

    Args:
        charged: the response of each, as far as it has arrived.
        model: the requested model.
        base_url: where they were sent.
        price: prices each of them.
    """
    if len(charged) == 1:  # of nearly every task
        return _bill_of(charged[0], model, base_url, price)
    bills: list[Bill] = []
    cost: float | None = 0.0 if charged else None
    for completion in charged:
        bills.append(bill := _bill_of(completion, model, base_url, price if cost is not None else _unknown))
        cost = None if cost is None or bill.cost is None else cost + bill.cost
    usage = add_usage(*[bill.usage for bill in bills])
    return Bill(usage, cost, sum(bill.reported_tokens for bill in bills), bool(bills))


def _bill_of(completion: Completion | None, model: str, base_url: str, price: Price) -> Bill:
    """Return what one request used."""
    usage = None if completion is None else completion.usage
    if completion is None or usage is None or usage == _UNCOUNTED:
        return _CHARGED
    tokens, cost = usage.total_tokens, None
    reported = usage.prompt_tokens or usage.completion_tokens
    # Where only one count is known, a larger total shows that the other kind has tokens, too.
    if (usage.prompt_tokens and usage.completion_tokens) or 0 < tokens <= reported:
        cost = price(
            PriceQuery(
                model=completion.model or model,
                usage=usage,
                requested_model=model,
                base_url=base_url,
                service_tier=completion.service_tier,
            )
        )
    return Bill(usage, cost, tokens, is_charged=True)


def _unknown(_: PriceQuery) -> None:
    """Return the price of a request beside one whose price is not known: nobody needs it."""


def result_of(
    prepared: PreparedTask,
    state: TaskState,
    calls: ModelCalls | None,
    bill: Bill,
    failure: Exception | None,
    status: TaskStatus,
    finished_ns: int | None = None,
) -> Result:
    """Return the result for what happened to a task.

    Args:
        prepared: what the task was to send.
        state: its text, and when it started.
        calls: its model calls, if it made any.
        bill: what they used.
        failure: the error that it ended with; `None` after a success.
        status: its status.
        finished_ns: when it ended; `None` if it is still running.
    """
    request, completion = (None, None) if calls is None else (calls.request, calls.completion)
    reason = None if completion is None else completion.finish_reason
    conversation, usage, parts = prepared.conversation, bill.usage, state.parts
    draft = ResultDraft()
    draft.task = state.task
    draft.platform = Platform.CHATGPT
    draft.output = "".join(parts)
    draft.success = failure is None
    draft.status = status
    draft.error = None if failure is None else _text_of(failure)
    draft.exception = failure
    draft.tokens_used = None if usage is None else usage.total_tokens or None
    draft.cost = bill.cost
    draft.duration_seconds = ((finished_ns or time.perf_counter_ns()) - prepared.submitted_ns) / 1e9
    draft.usage = usage
    draft.finish_reason = None if reason is None else shared(reason)
    draft.attempts = 0 if calls is None else len(calls.retrier.log.records)
    draft.parsed = None if conversation is None else conversation.parsed
    unbuilt = _unbuilt(prepared, state, calls, request, completion, draft.output, parts, finished_ns)
    if unbuilt.prompt is None:
        draft.messages = prepared.messages if conversation is None else conversation.messages
    if unbuilt.body is None:
        draft.completion, draft.message = completion, None
        if request is not None:
            request.headers.shrink()
        if completion is not None and completion.choices:
            draft.message = message = completion.choices[0].message
            if message.content == draft.output:
                draft.output = message.content  # one string, not two
    return finished(draft, unbuilt)


def _unbuilt(
    prepared: PreparedTask,
    state: TaskState,
    calls: ModelCalls | None,
    request: ClientRequest | None,
    completion: Completion | None,
    output: str,
    parts: Sequence[str],
    finished_ns: int | None,
) -> Unbuilt:
    """Return what the rarely read fields of a result are built from."""
    body, token_ns = None, () if calls is None else calls.token_ns
    # A completion with a parsed value cannot be decoded again, and a result for `map` is not kept.
    if completion is not None and request is not None and prepared.conversation is None and state.on_end is None:
        body = ReceivedBody.of(request, output)
    record = NOT_SENT if request is None else request.record
    return Unbuilt(
        submitted_ns=prepared.submitted_ns,
        started_ns=state.started_ns,
        sent_ns=None if calls is None else calls.sent_ns,
        token_ns=array(TIMES, token_ns).tobytes() if token_ns else None,
        finished_ns=finished_ns,
        record=record.so_far(),
        attempts=() if calls is None else calls.retrier.log.so_far(),
        model=shared(completion.model) if completion is not None and completion.model else prepared.model,
        prompt=prepared.task.prompt if prepared.messages is None else None,
        body=body,
        part_lengths=lengths_of(parts) if len(parts) > 1 else b"",
        steps=state.steps,
    )


def result_without_run(error: Exception, status: TaskStatus, task: Task | None = None) -> Result:
    """Return the result for a task that was not accepted, or does not exist."""
    return Result(task, Platform.CHATGPT, "", success=False, status=status, error=_text_of(error), exception=error)


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


def pricer_of(prices: Prices | None) -> Price:
    """Return the function that prices requests. It cannot raise; a user's own cannot return an invalid price either.

    Raises:
        TypeError, ValueError: as `resolve`.
    """
    pricer = resolve(prices)
    guard = Guard()

    def own_price(query: PriceQuery) -> float | None:
        cost: object = guard.call("prices", None, pricer, query)
        return None if cost is None else guard.call("prices", None, _dollars, cost)

    def price(query: PriceQuery) -> float | None:
        return guard.call("prices", None, pricer, query)  # the table's file may be unreadable: too many open files

    return own_price if pricer is prices else price


def _dollars(cost: object) -> float:
    dollars = float(cost)  # type: ignore[arg-type]  # it can be anything that `float` takes, a Decimal for instance
    if not 0.0 <= dollars < math.inf:
        raise ValueError(f"prices returned {cost!r}, not a number of dollars")
    return dollars
