"""A table of what happens to the tasks of a soak, and the expected result of each. Server and client share it.

A task's number selects the row. Not here: running the tasks, and any other I/O (`soak.py`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import cache
from typing import Any, Final

from chatscope import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    InternalServerError,
    InvalidResponseError,
    QuotaExceededError,
    Result,
    StreamProtocolError,
    StreamServerError,
    StreamTruncatedError,
    Task,
    TaskCancelledError,
    TaskConstraints,
    TaskStatus,
    Timeouts,
)
from chatscope.simulator import Answer, ChatRequest, ErrorShape, Reply, Response, Stage, error, faults, html

ATTEMPTS: Final = 4
"""The retry policy's limit of requests for one task."""

WORDS: Final = ["goes", "on", "for", "a", "while", "up", "to", "its", "end"]


class Stop(Enum):
    """Whether and how the client stops a task."""

    NEVER = auto()
    AT_ONCE = auto()
    """By its id, before it has a slot or a response."""
    BY_ID = auto()
    """By its id, after its first text."""
    BY_LEAVING = auto()
    """By leaving the block of `execute_streaming`, after its first text."""


@dataclass(frozen=True, slots=True)
class Mishap:
    """What happens to a task, and its expected result."""

    share: int
    """The number of such tasks in 1,000."""
    answers: tuple[Reply | Response, ...]
    """The server's answers to its requests. The last one is repeated."""
    error: tuple[type[Exception], ...] = ()
    """The possible errors; empty means success."""
    attempts: tuple[int, int] = (1, 1)
    """The fewest and the most requests."""
    arrives: tuple[int, int] | None = None
    """The fewest and the most words of the text that may arrive; `None` means all of them."""
    stop: Stop = Stop.NEVER
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    """The task's deadline."""

    @property
    def status(self) -> TaskStatus:
        """The status with which it must end."""
        if self.stop is not Stop.NEVER:
            return TaskStatus.CANCELLED
        return TaskStatus.FAILED if self.error else TaskStatus.COMPLETED


def _cut(*changes: faults.Fault) -> tuple[Reply]:
    return (Reply(faults=changes),)


def _then_well(*before: Reply | Response) -> tuple[Reply | Response, ...]:
    return (*before, Reply())


# Each success returns a tenth of a token to the adapter's retry budget, so there must be far fewer retries than a tenth
# of the tasks; there are 58 in 1,000. If a kept connection is closed before the status, the transport itself sends the
# request again, which does not count as an attempt: therefore 1 or 2.
MISHAPS: Final[Mapping[str, Mishap]] = {
    "none": Mishap(580, (Reply(),)),
    "none, not streamed": Mishap(150, (Reply(),), parameters={"stream": False}),
    "comments and CR LF": Mishap(40, _cut(faults.insert(faults.WRAPPED_COMMENT), faults.crlf())),
    "429, once": Mishap(12, _then_well(error(429, retry_after=0.002)), attempts=(2, 2)),
    "429, twice": Mishap(3, _then_well(*[error(429, retry_after=0.002)] * 2), attempts=(3, 3)),
    "500, once": Mishap(12, _then_well(error(500)), attempts=(2, 2)),
    "closed before the status": Mishap(6, _then_well(*_cut(faults.close(Stage.STATUS))), attempts=(1, 2)),
    "reset before the status": Mishap(6, _then_well(*_cut(faults.reset(Stage.STATUS))), attempts=(1, 2)),
    "closed before the headers": Mishap(4, _then_well(*_cut(faults.close(Stage.HEADERS))), attempts=(2, 2)),
    "closed after the headers": Mishap(6, _then_well(*_cut(faults.close(Stage.ROLE))), attempts=(2, 2)),
    "always 503": Mishap(2, (error(503),), (InternalServerError,), (ATTEMPTS, ATTEMPTS), (0, 0)),
    "no quota": Mishap(5, (error(429, code="insufficient_quota"),), (QuotaExceededError,), arrives=(0, 0)),
    "400": Mishap(10, (error(400),), (BadRequestError,), arrives=(0, 0)),
    "a web page": Mishap(5, (html(),), (InvalidResponseError,), arrives=(0, 0)),
    "closed mid-stream": Mishap(15, _cut(faults.close(2)), (StreamTruncatedError,), arrives=(2, 2)),
    "cut mid-chunk": Mishap(10, _cut(faults.cut_chunk(2)), (StreamTruncatedError,), arrives=(2, 2)),
    "ended without an end": Mishap(10, _cut(faults.end(2)), (StreamTruncatedError,), arrives=(2, 2)),
    # A reset discards what was sent but not read yet. Without the pause, any number of words might arrive.
    "reset mid-stream": Mishap(
        4,
        _cut(faults.pause(2, 0.05), faults.reset(2)),
        (StreamTruncatedError, APIConnectionError),
        (1, ATTEMPTS),
        (0, 2),
    ),
    "error in the stream": Mishap(15, _cut(faults.stream_error(2)), (StreamServerError,), arrives=(2, 2)),
    "error as a string": Mishap(
        5, _cut(faults.stream_error(2, ErrorShape.STRING)), (StreamServerError,), arrives=(2, 2)
    ),
    "malformed event": Mishap(10, _cut(faults.malformed(2)), (StreamProtocolError,), arrives=(2, 2)),
    "silent, deadline passes": Mishap(
        10, _cut(faults.stall(Stage.ROLE)), (APITimeoutError,), (0, 1), arrives=(0, 0), seconds=0.3
    ),
    "silent between words": Mishap(
        10, _cut(faults.stall(2)), (APITimeoutError,), arrives=(2, 2), parameters={"timeout": Timeouts(idle=0.2)}
    ),
    "slow, cancelled": Mishap(40, _cut(faults.stall(2)), (TaskCancelledError,), arrives=(1, 2), stop=Stop.BY_ID),
    "slow, reader leaves": Mishap(
        15, _cut(faults.stall(2)), (TaskCancelledError,), arrives=(1, 2), stop=Stop.BY_LEAVING
    ),
    "cancelled at once": Mishap(
        15, _cut(faults.stall(Stage.ROLE)), (TaskCancelledError,), (0, 1), (0, 0), stop=Stop.AT_ONCE
    ),
}


@cache
def _order() -> tuple[str, ...]:
    names = [name for name, mishap in MISHAPS.items() for _ in range(mishap.share)]
    assert len(names) == 1000, f"the shares come to {len(names)}"
    random.Random(4).shuffle(names)
    return tuple(names)


def kind_of(number: int) -> str:
    """Return the name of the row for the task with a number."""
    return _order()[number % 1000]


def words_of(number: int) -> list[str]:
    """Return the words of the response to the task with a number. Each word is a token."""
    return ["reply", str(number), *WORDS]


def task_of(number: int) -> Task:
    """Return the task with a number."""
    mishap = MISHAPS[kind_of(number)]
    return Task(
        f"soak {number}",
        parameters=mishap.parameters,
        constraints=TaskConstraints(timeout_seconds=mishap.seconds),
    )


def wrong_with(number: int, result: Result) -> str | None:
    """Return what is wrong with the result of the task with a number; `None` if nothing is."""
    mishap, words = MISHAPS[kind_of(number)], words_of(number)
    fewest, most = mishap.arrives or (len(words), len(words))
    if result.status is not mishap.status:
        return f"it is {result.status}, not {mishap.status}: {result.error}"
    if result.output not in [" ".join(words[:count]) for count in range(fewest, most + 1)]:
        return f"its text is {result.output!r}"
    if not (isinstance(result.exception, mishap.error) if mishap.error else result.exception is None):
        return f"its error is {result.exception!r}"
    fewest, most = mishap.attempts
    if not fewest <= result.attempts <= most:
        return f"{result.attempts} requests were sent, not {fewest} to {most}"
    return None


class Server:
    """The script of the soak's server.

    Attributes:
        repeated: the number of requests beyond the most allowed for their task.
    """

    def __init__(self) -> None:
        self.repeated = 0
        self._received: dict[int, int] = {}

    def __call__(self, request: ChatRequest) -> Answer:
        """Return the answer that the task's number selects."""
        number = int(request.prompt.removeprefix("soak "))
        mishap = MISHAPS[kind_of(number)]
        before = self._received.get(number, 0)
        self._received[number] = before + 1
        self.repeated += before >= mishap.attempts[1]
        answer = mishap.answers[min(before, len(mishap.answers) - 1)]
        return replace(answer, text=" ".join(words_of(number))) if isinstance(answer, Reply) else answer
