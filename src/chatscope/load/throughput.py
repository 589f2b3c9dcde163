"""Throughput over time: tokens, requests and concurrency in a window. Pure functions over records.

Here: counts over time. Not here: latencies and the summary of a stage (`metrics`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from chatscope.load.records import RequestRecord
from chatscope.load.schedule import SECOND


def block_rates(
    records: Sequence[RequestRecord], window_ns: tuple[int, int], blocks: int
) -> tuple[list[float], list[float] | None]:
    """Return the successful requests and the output tokens per second in equal parts of a window.

    Tokens are `None` if a response reported no usage.
    """
    start, length = window_ns[0], (window_ns[1] - window_ns[0]) / blocks
    edges = [start + round(n * length) for n in range(blocks + 1)]
    parts = list(pairwise(edges))
    ok = [record for record in records if record.outcome == "ok"]
    requests = [sum(within(record.finished_ns, part) for record in ok) * SECOND / length for part in parts]
    tokens = [output_tokens_within(records, part) for part in parts]
    known = [count * SECOND / length for count in tokens if count is not None]
    return requests, known if len(known) == blocks else None


def requests_in_flight(records: Iterable[RequestRecord]) -> Iterator[tuple[int, int]]:
    """Yield the times at which the number of running requests changes, with the number from then on."""
    changes: Counter[int] = Counter()
    for record in records:
        if record.dispatched_ns is not None and record.finished_ns is not None:
            changes[record.dispatched_ns] += 1
            changes[record.finished_ns] -= 1
    running = 0
    for moment in sorted(changes):
        running += changes[moment]
        yield moment, running


def within(moment: int | None, window_ns: tuple[int, int]) -> bool:
    """Return whether a time is within a window."""
    return moment is not None and window_ns[0] <= moment < window_ns[1]


def output_tokens_within(records: Iterable[RequestRecord], window_ns: tuple[int, int]) -> float | None:
    """Count the output in a window. The tokens of a response are spread evenly over its chunks."""
    total = 0.0
    for record in records:
        stamps = record.token_ns or ([] if record.finished_ns is None else [record.finished_ns])
        inside = sum(within(stamp, window_ns) for stamp in stamps)
        if not inside or (record.output_tokens is None and record.outcome != "ok"):
            continue  # a truncated response reported no tokens
        if record.output_tokens is None:
            return None
        total += record.output_tokens * inside / len(stamps)
    return total


def mean_concurrency(records: Iterable[RequestRecord], window_ns: tuple[int, int]) -> float:
    """Return the mean number of running requests in a window."""
    start, end = window_ns
    busy = sum(
        max(0, min(end, record.finished_ns) - max(start, record.dispatched_ns))
        for record in records
        if record.dispatched_ns is not None and record.finished_ns is not None
    )
    return busy / (end - start) if end > start else 0.0
