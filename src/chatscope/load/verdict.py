"""The verdict on the client: whether the figures are the server's or its own. Pure functions.

Every limit is a constant with its reason. The figures are reported in any case; the verdict says whether to trust them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, Literal

import msgspec

from chatscope.load.distributions import Distribution, distribution, linear_percentile
from chatscope.load.records import RequestRecord

VerdictState = Literal["valid", "suspect", "invalid"]

CPU_LIMITS: Final = (0.60, 0.85)
"""Shares of one core. A loop that is busy for more than this answers reads late, since events come in bursts."""

LATENESS_LIMITS: Final = (0.010, 0.050)
"""Seconds at p99 by which requests were sent late."""

LATENESS_OF_TTFT: Final = 0.1
"""Lateness above this share of the median TTFT is a visible part of it."""

LAG_LIMITS: Final = (0.005, 0.025)
"""Seconds at p99 by which the event loop woke up late: stamps are late by as much."""

GC_LIMITS: Final = (0.02, 0.10)
"""Shares of the window spent in garbage collection."""

SHARED_READ_LIMITS: Final = (0.05, 0.50)
"""Shares of chunks that were read together with the one before them while the event loop was late."""


class ClientEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured about the client during the measured window.

    `cpu_shares` has one share of a core for each worker. `lateness` leaves out waiting for `max_concurrency`, which
    was asked for. `lost` is how many requests died with their worker.
    """

    cpu_shares: list[float] = []
    lateness: Distribution = msgspec.field(default_factory=lambda: distribution(()))
    loop_lag: Distribution = msgspec.field(default_factory=lambda: distribution(()))
    shared_read_share: float = 0.0
    gc_share: float = 0.0
    lost: int = 0
    ttft_p50: float | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`valid`: the client was not in the way. `suspect`: it may have been. `invalid`: it was. With the reasons."""

    state: VerdictState
    reasons: list[str]
    evidence: ClientEvidence


def judge(evidence: ClientEvidence) -> Verdict:
    """Return the verdict that the evidence leads to."""
    found = list(_findings(evidence))
    state: VerdictState = "valid"
    if found:
        state = "invalid" if any(is_invalid for is_invalid, _ in found) else "suspect"
    return Verdict(state=state, reasons=[reason for _, reason in found], evidence=evidence)


def own_lateness(records: Sequence[RequestRecord]) -> Distribution:
    """Summarise by how much the client itself sent late: without the wait for `max_concurrency`."""
    return distribution(
        (record.dispatched_ns - record.due_ns - record.queued_ns) / 1e9
        for record in records
        if record.dispatched_ns is not None
    )


def shared_read_share(records: Sequence[RequestRecord], lags: Sequence[tuple[int, int]]) -> float:
    """Return the share of chunks that one late read brought together.

    Chunks with the same stamp came in one read. If the event loop was on time then, the server sent them together; if
    it was late, the client may have read together what was sent apart.

    Args:
        records: the requests.
        lags: when the event loop woke up late, in order: the moments when it should have and when it did.
    """
    late = [(due, woken) for due, woken in lags if woken - due >= LAG_LIMITS[0] * 1e9]
    chunks = sum(max(0, len(record.token_ns) - 1) for record in records)
    if not late or not chunks:
        return 0.0
    shared = sorted(after for record in records for before, after in pairwise(record.token_ns) if before == after)
    count, at = 0, 0
    for moment in shared:
        while at < len(late) and late[at][1] < moment:
            at += 1
        count += at < len(late) and late[at][0] <= moment
    return count / chunks


def lag_p99(lags: Sequence[tuple[int, int]]) -> float:
    """Return the lag at p99 in seconds; 0 without any."""
    return linear_percentile(sorted((woken - due) / 1e9 for due, woken in lags), 99) if lags else 0.0


def _findings(evidence: ClientEvidence) -> Iterator[tuple[bool, str]]:
    """Yield what is wrong: whether it makes the figures invalid, and a sentence."""
    if evidence.lost:
        yield True, f"{evidence.lost:,} requests were lost with the worker that ran them"
    for worker, share in enumerate(evidence.cpu_shares):
        yield from _above(share, CPU_LIMITS, f"worker {worker} used {share:.0%} of a core", "{:.0%}")
    lateness = evidence.lateness.percentile(99)
    if lateness is not None:
        yield from _above(lateness, LATENESS_LIMITS, f"requests were sent {lateness * 1e3:.1f} ms late at p99", "{} s")
        ttft = evidence.ttft_p50
        if ttft is not None and LATENESS_OF_TTFT * ttft < lateness <= LATENESS_LIMITS[0]:
            visible = f"which is more than {LATENESS_OF_TTFT:.0%} of the median TTFT of {ttft * 1e3:.1f} ms"
            yield False, f"requests were sent {lateness * 1e3:.1f} ms late at p99, {visible}"
    lag = evidence.loop_lag.percentile(99)
    if lag is not None:
        yield from _above(lag, LAG_LIMITS, f"the event loop woke up {lag * 1e3:.1f} ms late at p99", "{} s")
    share = evidence.shared_read_share
    yield from _above(share, SHARED_READ_LIMITS, f"{share:.0%} of the chunks were read together, late", "{:.0%}")
    share = evidence.gc_share
    yield from _above(share, GC_LIMITS, f"{share:.0%} of the time went into garbage collection", "{:.0%}")


def _above(value: float, limits: tuple[float, float], sentence: str, unit: str) -> Iterator[tuple[bool, str]]:
    """Yield the finding that a value is above one of two limits: suspect, or invalid."""
    suspect, invalid = limits
    if value > suspect:
        is_invalid = value > invalid
        limit = unit.format(invalid if is_invalid else suspect)
        yield is_invalid, f"{sentence} (the limit of {'suspect' if is_invalid else 'valid'} is {limit})"
