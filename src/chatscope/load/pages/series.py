"""Records as points to draw: distributions, time series, and samples small enough for browsers. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from chatscope.load.distributions import linear_percentile
from chatscope.load.metrics import latency_values
from chatscope.load.records import RequestRecord
from chatscope.load.schedule import SECOND
from chatscope.load.throughput import requests_in_flight

CURVE_POINTS: Final = 150
"""Points of a curve: more than the pixels of a chart on a phone. The tail gets half as many in addition."""

SHOWN_REQUESTS: Final = 800
"""The most requests on a timeline. Each is drawn as a line, and a browser slows down beyond a few thousand."""

DRAWN_GAPS: Final = 200_000
"""The most gaps from which a curve is computed. With more, it would look the same, but take minutes."""

BINS: Final = 80
"""Bins into which the time of a run is divided. None is shorter than `SHORTEST_BIN`."""

SHORTEST_BIN: Final = 0.25
"""The shortest bin, in seconds. Shorter bins would show single chunks rather than a rate."""

Points = tuple[list[float], list[float]]
"""X and y values."""


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a report covers, in nanoseconds, in bins of equal length."""

    start: int
    end: int

    @classmethod
    def of(cls, records: Iterable[RequestRecord]) -> Span:
        """Return the time from when the first request was due until the last one ended."""
        start, end = None, 0
        for record in records:
            start = record.due_ns if start is None else min(start, record.due_ns)
            end = max(end, record.due_ns, record.finished_ns or 0)
        return cls(start or 0, max(end, (start or 0) + 1))

    @property
    def bin_ns(self) -> int:
        """The length of a bin."""
        return max(round(SHORTEST_BIN * SECOND), -(-(self.end - self.start) // BINS))

    def seconds(self, moment: int) -> float:
        """Return a time in seconds from the start."""
        return round((moment - self.start) / SECOND, 6)

    def bins(self) -> range:
        """Return when each bin starts."""
        return range(self.start, self.end, self.bin_ns)


def cumulative(records: Iterable[RequestRecord], name: str) -> Points:
    """Return the distribution of a latency: milliseconds, and the share of requests that took at most as long.

    If requests were given up, the curve ends below 1, because it is unknown how long they would have taken.
    """
    groups, censored = latency_values(records, name)
    ordered = sorted(value for group in groups for value in group)
    if not ordered:
        return [], []
    known = len(ordered) / (len(ordered) + censored)
    tail = CURVE_POINTS // 2
    even = [n / CURVE_POINTS for n in range(CURVE_POINTS)]
    ranks = sorted({*even, *(1 - (1 - n / tail) ** 2 / CURVE_POINTS for n in range(tail)), 1.0})
    shown = ranks if len(ordered) > len(ranks) else [n / max(1, len(ordered) - 1) for n in range(len(ordered))]
    values = [round(linear_percentile(ordered, rank * 100) * 1e3, 4) for rank in shown]
    return values, [round(rank * known, 5) for rank in shown]


def every_nth(records: Sequence[RequestRecord]) -> tuple[Sequence[RequestRecord], int]:
    """Return the requests whose gaps are drawn (every n-th), and n."""
    step = 1 + sum(len(record.token_ns) for record in records) // DRAWN_GAPS
    return records[::step], step


def running(records: Iterable[RequestRecord], span: Span) -> Points:
    """Return the mean number of running requests in each bin."""
    busy = [0.0] * len(span.bins())
    before, count = span.start, 0
    for moment, now_running in [*requests_in_flight(records), (span.end, 0)]:
        for index, share in _shares(before, min(moment, span.end), span):
            busy[index] += count * share
        before, count = max(before, moment), now_running
    return [span.seconds(start) for start in span.bins()], [round(value, 3) for value in busy]


def token_rate(records: Iterable[RequestRecord], span: Span) -> Points:
    """Return the output tokens per second in each bin. The tokens of a response are spread evenly over its chunks.

    Responses without usage are omitted: chunks are not counted as tokens.
    """
    counts, bin_ns, last = [0.0] * len(span.bins()), span.bin_ns, len(span.bins()) - 1
    for record in records:
        stamps = record.token_ns or ([] if record.finished_ns is None else [record.finished_ns])
        if record.output_tokens and stamps:
            each = record.output_tokens / len(stamps)
            for stamp in stamps:
                counts[min(last, (stamp - span.start) // bin_ns)] += each
    lengths = [min(span.bin_ns, span.end - start) / SECOND for start in span.bins()]
    rates = [round(count / length, 3) for count, length in zip(counts, lengths, strict=True)]
    return [span.seconds(start) for start in span.bins()], rates


def lateness(records: Iterable[RequestRecord], span: Span) -> dict[str, Points]:
    """Return the median and the longest lateness of the requests that were due in each bin, in milliseconds."""
    found: dict[int, list[float]] = {}
    for record in records:
        if record.dispatched_ns is not None:
            late = (record.dispatched_ns - record.due_ns) / 1e6
            found.setdefault((record.due_ns - span.start) // span.bin_ns, []).append(late)
    bins = sorted(found)
    times = [span.seconds(span.start + index * span.bin_ns) for index in bins]
    median = [round(linear_percentile(sorted(found[index]), 50), 4) for index in bins]
    return {"median": (times, median), "longest": (times, [round(max(found[index]), 4) for index in bins])}


def sample(records: Sequence[RequestRecord]) -> list[RequestRecord]:
    """Return at most `SHOWN_REQUESTS` requests, evenly chosen, in the order in which they were due."""
    ordered = sorted(records, key=lambda record: (record.due_ns, record.index))
    if len(ordered) <= SHOWN_REQUESTS:
        return ordered
    return [ordered[n * len(ordered) // SHOWN_REQUESTS] for n in range(SHOWN_REQUESTS)]


def _shares(start: int, end: int, span: Span) -> Iterator[tuple[int, float]]:
    """Yield the bins that an interval overlaps, and the share of each bin that it covers."""
    starts = span.bins()
    while start < end:
        index = min(len(starts) - 1, max(0, (start - span.start) // span.bin_ns))
        bin_end = min(span.end, starts[index] + span.bin_ns)
        until = min(end, bin_end)
        yield index, (until - start) / (bin_end - starts[index])
        start = until
