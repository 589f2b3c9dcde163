"""What a row of the fault catalogue is: what the server does, and everything that must come of it.

The rows themselves are in `rows_*.py`, how one is run in `driver.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Self

from tests.support.certificates import Certificates
from tests.support.defaults import PATIENT, TEXT, WELL
from tests.support.loopback import Server

from chatscope import ChatError, TaskStatus, Timeouts
from chatscope.simulator import Close, Fault, Part, Plan, Response, Send
from chatscope.simulator.config import Script
from chatscope.simulator.plan import Point, Step


class Loops(Enum):
    """How many event loops a row runs on."""

    ALL = "all"
    """Where it depends on sockets, clocks or cancellation."""
    TWO = "two"
    """Where it waits for a deadline, which uvloop leaves to anyio as asyncio does."""
    ONE = "one"
    """Where only the words of the response differ, which no loop sees."""


class Via(Enum):
    """The way in, and what the server is asked for."""

    TASK = "task"
    """The adapter, streaming: what tasks do by default."""
    PLAIN_TASK = "plain task"
    """The adapter, with `stream=False`."""
    STREAM = "stream"
    """`ChatClient.stream`."""
    COMPLETE = "complete"
    """`ChatClient.complete`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the caller gets."""

    status: TaskStatus
    error: type[ChatError] | None
    http_status: int | None
    """The status on the error."""
    text: str
    """All of it, or what was received."""
    attempts: int
    """How many requests were sent."""
    phase: str | None = None
    """The deadline that the error names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault and its outcome."""

    name: str
    expected: Outcome
    script: Script = WELL
    """What the simulator answers."""
    server: Callable[[Certificates], Server] | None = None
    """Something else to connect to; `None` is the simulator."""
    via: Via = Via.TASK
    timeouts: Timeouts = PATIENT
    deadline: float | None = None
    """The task's own `timeout_seconds`."""
    before: int = 0
    """How many tasks are done well before, over the same connection if it is kept."""
    tokens: int | None = None
    """The tokens that the result must report, where that is the point."""
    says: str = ""
    """What the error's message contains."""
    seconds: float = 10.0
    """The longest that it may take; a hang fails here."""
    memory: int | None = None
    """The most bytes that may be allocated at once meanwhile, by client and server together."""
    transport: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the transport."""
    loops: Loops = Loops.ALL
    """Which event loops it runs on."""

    def by(self, via: Via) -> Self:
        """Return the row taken another way, with the same outcome."""
        return replace(self, name=f"{self.name}, {via.value}", via=via)


def completes(name: str, script: Script = WELL, text: str = TEXT, *, attempts: int = 1, **more: Any) -> Row:
    """Return a row that ends well."""
    expected = Outcome(TaskStatus.COMPLETED, None, None, text, attempts)
    return Row(name=name, script=script, expected=expected, **more)


def fails(
    name: str,
    script: Script,
    error: type[ChatError],
    status: int | None = None,
    *,
    text: str = "",
    attempts: int = 1,
    phase: str | None = None,
    **more: Any,
) -> Row:
    """Return a row that ends in an error."""
    expected = Outcome(TaskStatus.FAILED, error, status, text, attempts, phase)
    return Row(name=name, script=script, expected=expected, **more)


def on_one_loop(*rows: Row) -> list[Row]:
    """Return the rows, each to run on one loop only."""
    return [replace(row, loops=Loops.ONE) for row in rows]


def on_two_loops(*rows: Row) -> list[Row]:
    """Return the rows, each to run on asyncio and on trio."""
    return [replace(row, loops=Loops.TWO) for row in rows]


def every_way(*rows: Row) -> list[Row]:
    """Return the rows, each as a task and through `ChatClient.stream`."""
    return [taken for row in rows for taken in (row, row.by(Via.STREAM))]


# -- what the simulator's own faults do not have -----------------------------------------------------------------------


def instead(fault: Fault, step: Step) -> Fault:
    """Return a fault that takes another step where it would close the connection."""

    def change(response: Response) -> Response:
        made = fault(response)
        return replace(made, body=tuple(step if isinstance(item, Close) else item for item in made.body))

    return Fault(f"{fault.name}, {step}", change)


def ends_within(at: Point) -> Fault:
    """Return a fault that ends the body in good order in the middle of an event."""

    def change(response: Response) -> Response:
        index = response.index(at)
        part = response.body[index]
        assert isinstance(part, Part)
        return replace(response, body=(*response.body[:index], Part(part.data[: len(part.data) // 2])))

    return Fault("ends-within", change)


def last_words(*data: bytes, at: Point = 1) -> Fault:
    """Return a fault that ends the body in good order with other bytes."""
    parts = tuple(Part(part) for part in data)
    return Fault("last-words", lambda response: replace(response, body=(*response.body[: response.index(at)], *parts)))


def wire(*parts: bytes | Step) -> Plan:
    """Return a response spelled out byte by byte."""
    return Plan(tuple(Send(part) if isinstance(part, bytes) else part for part in parts))


def events(*data: str | bytes, content_type: str = "text/event-stream") -> Response:
    """Return a stream with these events and nothing else."""
    encoded = (part.encode() if isinstance(part, str) else part for part in data)
    return Response(200, (("content-type", content_type),), tuple(Part(b"data: %b\n\n" % part) for part in encoded))
