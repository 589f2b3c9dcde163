"""What records say: one dictionary of formulas, and the summary of a stage. Pure functions.

Here: latencies, throughput, failures. Not here: objectives and goodput (`objectives`), and whether the client itself
can be trusted (`verdict`).

Times without `_service` count from when a request was due, so the queue in front of a slow server is in them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

import msgspec

from chatscope.load.distributions import Distribution, clustered_distribution, distribution
from chatscope.load.records import RequestRecord

_NS: Final = 1e9

_Values: TypeAlias = Callable[[RequestRecord], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Formula:
    """How a latency follows from the stamps of a request.

    Attributes:
        text: the formula in words.
        also_called: its names in other tools.
        values: its values in seconds: none if a stamp is missing, several for gaps.
        counts_unfinished: whether a request that was given up before it had a value is longer than all others.
    """

    text: str
    also_called: str
    values: _Values
    counts_unfinished: bool = False


def _span(start: Callable[[RequestRecord], int | None], end: Callable[[RequestRecord], int | None]) -> _Values:
    def values(record: RequestRecord) -> Sequence[float]:
        first, last = start(record), end(record)
        return () if first is None or last is None else ((last - first) / _NS,)

    return values


def _due(record: RequestRecord) -> int | None:
    return record.due_ns


def _dispatched(record: RequestRecord) -> int | None:
    return record.dispatched_ns


def _first_token(record: RequestRecord) -> int | None:
    return record.token_ns[0] if record.token_ns else None


def _last_token(record: RequestRecord) -> int | None:
    """Return when the output was complete: a response that was not streamed has no chunks."""
    if record.outcome != "ok":
        return None
    return record.token_ns[-1] if record.token_ns else record.finished_ns


def _tpot(record: RequestRecord) -> Sequence[float]:
    tokens, stamps = record.output_tokens, record.token_ns
    if record.outcome != "ok" or tokens is None or tokens < 2 or len(stamps) < 2:
        return ()
    return ((stamps[-1] - stamps[0]) / _NS / (tokens - 1),)


def _gaps(record: RequestRecord) -> Sequence[float]:
    stamps = record.token_ns
    return [(after - before) / _NS for before, after in pairwise(stamps)]


def _connect(record: RequestRecord) -> Sequence[float]:
    return () if record.connect_ns is None else (record.connect_ns / _NS,)


def _queue(record: RequestRecord) -> Sequence[float]:
    return () if record.dispatched_ns is None else (record.queued_ns / _NS,)


FORMULAS: Final[dict[str, Formula]] = {
    "ttft": Formula("first token - due", "MLPerf TTFT", _span(_due, _first_token), counts_unfinished=True),
    "ttft_service": Formula(
        "first token - dispatched", "vLLM TTFT, aiperf TTFT", _span(_dispatched, _first_token), counts_unfinished=True
    ),
    "ttfat": Formula(
        "first answer token (not reasoning) - due",
        "guidellm TTFOT",
        _span(_due, lambda record: record.answer_ns),
        counts_unfinished=True,
    ),
    "e2e": Formula("last token - due", "MLPerf latency", _span(_due, _last_token), counts_unfinished=True),
    "e2e_service": Formula(
        "last token - dispatched", "vLLM E2EL", _span(_dispatched, _last_token), counts_unfinished=True
    ),
    "tpot": Formula("(last token - first token) / (output tokens - 1)", "vLLM TPOT", _tpot),
    "icl": Formula("gaps between chunks with output, pooled", "vLLM ITL, aiperf ICL", _gaps),
    "lateness": Formula("dispatched - due", "guidellm dispatch delay", _span(_due, _dispatched)),
    "connect": Formula("connecting, where a new connection was needed", "", _connect),
    "queue": Formula("waiting for a slot of max_concurrency", "vLLM client queue time", _queue),
}
"""Every latency: its name, its formula, and what other tools call it. Units are seconds."""


class StageSummary(msgspec.Struct, kw_only=True):
    """What one stage measured. Rates are per second of the measured window; counts are of the requests due in it.

    `attempts` is every request that was due, so `ok_share` and goodput fall when a server refuses. `None` is unknown:
    a token rate is unknown as soon as one response reported no usage.
    """

    name: str
    seconds: float
    attempts: int
    ok: int
    failed: int
    unfinished: int
    failures: dict[str, int] = {}
    metrics: dict[str, Distribution] = {}
    requests_per_second: float = 0.0
    output_tokens_per_second: float | None = None
    prompt_tokens_per_second: float | None = None
    mean_concurrency: float = 0.0
    prompt_tokens_mean: float | None = None
    output_tokens_mean: float | None = None
    requested_prompt_tokens_mean: float | None = None
    requested_output_tokens_mean: float | None = None
    concurrency: int | None = None
    rate: float | None = None

    @property
    def ok_share(self) -> float:
        """The share of all attempts that succeeded; 0 if there was none."""
        return self.ok / self.attempts if self.attempts else 0.0

    @property
    def tokens_per_second_per_user(self) -> float | None:
        """How fast one reader sees the output: the inverse of the median time per token."""
        tpot = self.metrics["tpot"].percentile(50)
        return 1 / tpot if tpot else None


def summarise(
    name: str,
    records: Sequence[RequestRecord],
    window_ns: tuple[int, int],
    *,
    concurrency: int | None = None,
    rate: float | None = None,
) -> StageSummary:
    """Summarise a stage.

    Args:
        name: the stage's name.
        records: all its requests. Those outside the window count only for the rates.
        window_ns: start and end of the measured window.
        concurrency: the load, for the summary; in an open loop, that is `rate`.
        rate: likewise.
    """
    measured = [record for record in records if record.window == "measured"]
    outcomes = Counter(record.outcome for record in measured)
    seconds = max(0, window_ns[1] - window_ns[0]) / _NS
    finished = [record for record in records if record.outcome == "ok" and _within(record.finished_ns, window_ns)]
    ok = [record for record in measured if record.outcome == "ok"]
    return StageSummary(
        name=name,
        seconds=seconds,
        attempts=len(measured),
        ok=outcomes["ok"],
        failed=outcomes["failed"],
        unfinished=outcomes["unfinished"],
        failures=dict(Counter(record.error.kind for record in measured if record.error is not None)),
        metrics={name: latency(measured, name) for name in FORMULAS},
        requests_per_second=len(finished) / seconds if seconds else 0.0,
        output_tokens_per_second=_rate(_output_tokens(records, window_ns), seconds),
        prompt_tokens_per_second=_rate(_total(record.prompt_tokens for record in finished), seconds),
        mean_concurrency=_mean_concurrency(records, window_ns),
        prompt_tokens_mean=_mean(record.prompt_tokens for record in ok),
        output_tokens_mean=_mean(record.output_tokens for record in ok),
        requested_prompt_tokens_mean=_mean(record.requested_prompt_tokens for record in ok),
        requested_output_tokens_mean=_mean(record.requested_output_tokens for record in ok),
        concurrency=concurrency,
        rate=rate,
    )


def latency(records: Iterable[RequestRecord], name: str, *, failures_never_end: bool = False) -> Distribution:
    """Summarise one latency of some requests.

    Args:
        records: the requests.
        name: a key of `FORMULAS`.
        failures_never_end: take failed requests for longer than all others, as objectives do. Otherwise a latency
            is that of the successful requests, and of the unfinished ones as far as they got.
    """
    formula, values, censored = FORMULAS[name], [], 0
    for record in records:
        if record.outcome == "failed" and name not in _CLIENT_SIDE:
            censored += failures_never_end
            continue
        found = formula.values(record)
        values.append(found)
        censored += not found and record.outcome == "unfinished" and formula.counts_unfinished
    if name == "icl" and not censored:
        return clustered_distribution(values)
    return distribution((value for found in values for value in found), censored)


def requests_in_flight(records: Iterable[RequestRecord]) -> Iterator[tuple[int, int]]:
    """Yield the moments at which the number of running requests changes, with the number from then on."""
    changes: Counter[int] = Counter()
    for record in records:
        if record.dispatched_ns is not None and record.finished_ns is not None:
            changes[record.dispatched_ns] += 1
            changes[record.finished_ns] -= 1
    running = 0
    for moment in sorted(changes):
        running += changes[moment]
        yield moment, running


_CLIENT_SIDE: Final = frozenset({"lateness", "queue", "connect"})
"""Latencies of the client's own. A failed request has them like any other."""


def _within(moment: int | None, window_ns: tuple[int, int]) -> bool:
    return moment is not None and window_ns[0] <= moment < window_ns[1]


def _output_tokens(records: Iterable[RequestRecord], window_ns: tuple[int, int]) -> float | None:
    """Count the output in a window. The tokens of a response are spread evenly over its chunks."""
    total = 0.0
    for record in records:
        stamps = record.token_ns or ([] if record.finished_ns is None else [record.finished_ns])
        inside = sum(_within(stamp, window_ns) for stamp in stamps)
        if not inside or (record.output_tokens is None and record.outcome != "ok"):
            continue  # a response that was cut off reported no tokens
        if record.output_tokens is None:
            return None
        total += record.output_tokens * inside / len(stamps)
    return total


def _mean_concurrency(records: Iterable[RequestRecord], window_ns: tuple[int, int]) -> float:
    start, end = window_ns
    busy = sum(
        max(0, min(end, record.finished_ns) - max(start, record.dispatched_ns))
        for record in records
        if record.dispatched_ns is not None and record.finished_ns is not None
    )
    return busy / (end - start) if end > start else 0.0


def _total(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _mean(counts: Iterable[int | None]) -> float | None:
    reported = [count for count in counts if count is not None]
    return sum(reported) / len(reported) if reported else None


def _rate(count: float | None, seconds: float) -> float | None:
    return None if count is None or not seconds else count / seconds
