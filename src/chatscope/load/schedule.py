"""When requests are due: seeded offsets in nanoseconds from the start of a stage. Pure functions.

Here: arrivals, ramps, windows, and how a schedule is divided among workers. Not here: the content of requests
(`workload`), recorded arrivals (`traces`), and waiting (`worker`).

A schedule is made once and never shifted. A request that is sent late is late, and its latency counts from when it was
due. Measuring from the time of sending would hide the queue in front of a slow server ("coordinated omission").
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, TypeVar

from chatscope._validation import check_rate, check_wait

ArrivalProcess = Literal["constant", "poisson", "gamma"]
Window = Literal["warmup", "measured", "cooldown"]

ARRIVAL_PROCESSES: Final = ("constant", "poisson", "gamma")
SECOND: Final = 1_000_000_000
"""Nanoseconds."""

HIGHEST_RATE: Final = 1_000_000
"""The highest rate in requests per second: more than any client sends. A larger schedule would not fit into memory."""

LEAST_BURSTINESS: Final = 0.001
"""With this value, a thousand requests arrive at once, and none for a long time after."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Arrivals that do not depend on the server.

    Args:
        rate: requests per second, on average.
        arrivals: `constant` gaps, `poisson` (exponential gaps), or `gamma` gaps.
        burstiness: the shape of gamma gaps. 1 is Poisson, less is burstier. Other processes ignore it.
        ramp: seconds over which the rate grows linearly from 0.
        time_scale: stretches all offsets: 0.5 is twice as fast.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    rate: float
    arrivals: ArrivalProcess = "poisson"
    burstiness: float = 1.0
    ramp: float = 0.0
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.arrivals not in ARRIVAL_PROCESSES:
            raise ValueError(f"arrivals must be one of {', '.join(ARRIVAL_PROCESSES)}, not {self.arrivals!r}")
        check_rate(self.rate, "rate")
        check_rate(self.burstiness, "burstiness")
        if self.rate > HIGHEST_RATE:
            raise ValueError(f"rate must be at most {HIGHEST_RATE:,}, not {self.rate:g}")
        if self.burstiness < LEAST_BURSTINESS:
            raise ValueError(f"burstiness must be at least {LEAST_BURSTINESS}, not {self.burstiness:g}")
        check_rate(self.time_scale, "time_scale")
        check_wait(self.ramp, "ramp")


@dataclass(frozen=True, slots=True)
class WorkShare:
    """The part of a stage that one of several workers runs. Together, the parts are the stage."""

    worker: int = 0
    workers: int = 1

    def slots(self, count: int) -> range:
        """Return the numbers of the slots that are this worker's."""
        return range(self.worker, count, self.workers)

    def requests(self, items: Iterable[_T], slots: int | None) -> Iterator[_T]:
        """Yield this worker's part of a schedule.

        Args:
            items: the whole schedule, in order.
            slots: the slots of a closed loop. Each worker gets as many requests as its slots need, so no slot is idle
                while others have requests.
        """
        turns = itertools.count() if slots is None else itertools.cycle(range(slots))
        return (item for item, turn in zip(items, turns, strict=False) if turn % self.workers == self.worker)


ALL: Final = WorkShare()


@dataclass(frozen=True, slots=True)
class Windows:
    """The parts of one continuous stage, in nanoseconds from its start. There is no pause between them.

    Only the requests that were due between `start` and `end` are measured. The load before and after is the same.
    """

    start: int = 0
    end: int | None = None
    """`None` means until the stage ends."""

    def of(self, due: int) -> Window:
        """Return the window of a request that was due at an offset."""
        if due < self.start:
            return "warmup"
        return "measured" if self.end is None or due < self.end else "cooldown"


def due_offsets(
    shape: OpenLoop, seed: str, *, requests: int | None = None, duration: float | None = None
) -> Iterator[int]:
    """Yield the times when requests are due, in nanoseconds from the start of the stage, in order.

    Args:
        shape: the arrivals.
        seed: equal seeds give equal offsets.
        requests: the largest number of requests.
        duration: seconds after which no request is due.

    Raises:
        ValueError: neither limit is given.
    """
    if requests is None and duration is None:
        raise ValueError("give requests or duration: arrivals do not end by themselves")
    end = math.inf if duration is None else duration * SECOND
    for expected in itertools.islice(_expected_counts(shape, Random(seed)), requests):  # noqa: S311 - no secret
        offset = round(_when_expected(shape, expected) * shape.time_scale * SECOND)
        if offset >= end:
            return
        yield offset


def _expected_counts(shape: OpenLoop, random: Random) -> Iterator[float]:
    """Yield the arrivals of a process that has one arrival per unit of time."""
    if shape.arrivals == "constant":
        yield from itertools.count(0.0)
    total = 0.0
    while True:
        if shape.arrivals == "poisson":
            total -= math.log(1.0 - random.random())
        else:
            total += random.gammavariate(shape.burstiness, 1.0 / shape.burstiness)
        yield total


def _when_expected(shape: OpenLoop, count: float) -> float:
    """Return the time in seconds by which a count of arrivals is expected: the inverse of the integral of the rate.

    While the rate ramps up, `rate * t**2 / (2 * ramp)` arrivals are expected by `t`; afterwards `rate * (t - ramp/2)`.
    A Poisson process that is transformed in this way is a Poisson process with the changing rate.
    """
    if count < shape.rate * shape.ramp / 2:
        return math.sqrt(2 * shape.ramp * count / shape.rate)
    return count / shape.rate + shape.ramp / 2
