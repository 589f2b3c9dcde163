"""Figures from records: one dictionary of formulas, and the summary of a stage. Pure functions.

Here: latencies, throughput, failures. Not here: objectives and goodput (`objectives`), and whether the client itself
can be trusted (`verdict`).

Times without `_service` count from when a request was due, so they include the queue in front of a slow server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

import msgspec

from chatscope.load.distributions import Distribution, clustered_distribution, distribution
from chatscope.load.records import RequestRecord
from chatscope.load.throughput import mean_concurrency, output_tokens_within, within

_NS: Final = 1e9

_Values: TypeAlias = Callable[[RequestRecord], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Formula:
    """How a latency is computed from the stamps of a request.

    Attributes:
        text: the formula in words.
        also_called: its name in other tools, by tool. Tools without such a figure are not listed.
        values: its values in seconds: none if a stamp is missing, several for gaps.
        counts_unfinished: whether a request that was given up before it had a value counts as longer than all others.
    """

    text: str
    also_called: Mapping[str, str]
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
    """Return when the output was complete, even for a response without chunks, which was not streamed."""
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
    "ttft": Formula("first token - due", {"MLPerf": "TTFT"}, _span(_due, _first_token), counts_unfinished=True),
    "ttft_service": Formula(
        "first token - dispatched",
        {"vLLM": "TTFT", "guidellm": "TTFT", "aiperf": "TTFT"},
        _span(_dispatched, _first_token),
        counts_unfinished=True,
    ),
    "ttfat": Formula(
        "first answer token (not reasoning) - due",
        {"guidellm": "TTFOT, from dispatch"},
        _span(_due, lambda record: record.answer_ns),
        counts_unfinished=True,
    ),
    "e2e": Formula("last token - due", {"MLPerf": "latency"}, _span(_due, _last_token), counts_unfinished=True),
    "e2e_service": Formula(
        "last token - dispatched",
        {"vLLM": "E2EL", "guidellm": "request latency", "aiperf": "request latency"},
        _span(_dispatched, _last_token),
        counts_unfinished=True,
    ),
    "tpot": Formula(
        "(last token - first token) / (output tokens - 1)",
        {"MLPerf": "TPOT", "vLLM": "TPOT", "guidellm": "ITL", "aiperf": "ITL"},
        _tpot,
    ),
    "icl": Formula("gaps between chunks with output, pooled", {"vLLM": "ITL", "aiperf": "ICL"}, _gaps),
    "lateness": Formula(
        "dispatched - due",
        {"guidellm": "request targeted start delay", "aiperf": "credit drop latency"},
        _span(_due, _dispatched),
    ),
    "connect": Formula("connecting, where a new connection was needed", {}, _connect),
    "queue": Formula("waiting for a slot of max_concurrency", {"vLLM": "client queue time"}, _queue),
}
"""Every latency: its name, its formula, and its names in other tools. Units are seconds."""


class StageSummary(msgspec.Struct, kw_only=True):
    """What one stage measured. Rates are per second of the measured window; counts are of the requests due in it.

    `attempts` is every request that was due, so `ok_share` and goodput fall when a server refuses. `None` means
    unknown: a token rate is unknown if even one response reported no usage.
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
        """The speed at which one reader sees the output: the inverse of the median time per token."""
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
    finished = [record for record in records if record.outcome == "ok" and within(record.finished_ns, window_ns)]
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
        output_tokens_per_second=_rate(output_tokens_within(records, window_ns), seconds),
        prompt_tokens_per_second=_rate(_total(record.prompt_tokens for record in finished), seconds),
        mean_concurrency=mean_concurrency(records, window_ns),
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
        failures_never_end: count failed requests as longer than all others, as objectives do. Otherwise the latency is
            that of the successful requests, and of the unfinished ones that have a value.
    """
    values, censored = latency_values(records, name, failures_never_end=failures_never_end)
    if name == "icl" and not censored:
        return clustered_distribution(values)
    return distribution((value for found in values for value in found), censored)


def latency_values(
    records: Iterable[RequestRecord], name: str, *, failures_never_end: bool = False
) -> tuple[list[Sequence[float]], int]:
    """Return the values of one latency, request by request, and how many requests were given up before they had one.

    The arguments are those of `latency`.
    """
    formula, values, censored = FORMULAS[name], [], 0
    for record in records:
        if record.outcome == "failed" and name not in _CLIENT_SIDE:
            censored += failures_never_end
            continue
        found = formula.values(record)
        values.append(found)
        censored += not found and record.outcome == "unfinished" and formula.counts_unfinished
    return values, censored


_CLIENT_SIDE: Final = frozenset({"lateness", "queue", "connect"})
"""Latencies of the client itself. A failed request has them like any other."""


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
