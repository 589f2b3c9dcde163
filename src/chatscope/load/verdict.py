"""The verdict on the client: whether the figures are the server's or its own. Pure functions.

Every limit is a constant with its reason. The figures are always reported; the verdict says whether to trust them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, Literal

import msgspec

from chatscope.load.distributions import Distribution, distribution
from chatscope.load.metrics import latency
from chatscope.load.records import RequestRecord

VerdictState = Literal["valid", "suspect", "invalid"]

CPU_LIMITS: Final = (0.60, 0.85)
"""Shares of one core. A loop that is busier than this handles reads late, because events arrive in bursts."""

LATENESS_LIMITS: Final = (0.010, 0.050)
"""Seconds at p99 by which requests were sent late."""

LATENESS_OF_TTFT: Final = 0.1
"""Lateness above this share of the median TTFT is a visible part of it."""

LAG_LIMITS: Final = (0.005, 0.025)
"""Seconds at p99 by which the event loop woke up late. Stamps are equally late."""

READ_LAG_LIMITS: Final = (0.005, 0.025)
"""Seconds at p99 from when the kernel received bytes until the client's stamp: the measured error of the stamps."""

GC_LIMITS: Final = (0.02, 0.10)
"""Shares of the window spent in garbage collection."""

SHARED_READ_LIMITS: Final = (0.05, 0.50)
"""Shares of chunks that were read together with the one before them while the event loop was late."""


class WorkerEvidence(msgspec.Struct, kw_only=True):
    """The evidence that one worker collected about itself during the measured window of a stage.

    `lags` has the times when the event loop should have woken up, and when it did. `read_lags` has a number of
    nanoseconds for each read that the kernel stamped; `no_witness` says why there are none. `connections_ahead` is how
    many connections were open before the first request, `None` if requests opened them; `not_ahead` says why not all.
    """

    worker: int = 0
    cpu_share: float | None = None
    gc_share: float = 0.0
    lags: list[tuple[int, int]] = []
    read_lags: list[int] = []
    no_witness: str | None = None
    connections_ahead: int | None = None
    not_ahead: str | None = None


class WorkerLoss(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that died, the reason, and how many requests were lost with it."""

    worker: int
    reason: str
    requests: int


class ClientEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence on the client during the measured window.

    `cpu_shares` has a share of a core for each worker. `lateness` excludes waiting for `max_concurrency`, which was
    requested. `loop_lag` is that of the worker with the latest event loop. `read_lag` is how late stamps were by the
    kernel's own stamps, for the worker where that is worst; `no_witness` says why there are none.
    `connections_ahead` is how many connections were open before the first request, `None` if requests opened them;
    `not_ahead` says why not all were. `losses` has the workers that died.
    """

    cpu_shares: list[float] = []
    lateness: Distribution = msgspec.field(default_factory=lambda: distribution(()))
    loop_lag: Distribution = msgspec.field(default_factory=lambda: distribution(()))
    read_lag: Distribution = msgspec.field(default_factory=lambda: distribution(()))
    no_witness: str | None = None
    connections_ahead: int | None = None
    not_ahead: str | None = None
    shared_read_share: float = 0.0
    gc_share: float = 0.0
    losses: list[WorkerLoss] = []
    ttft_p50: float | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict with its reasons. `valid`: the client was not in the way. `suspect`: perhaps. `invalid`: it was."""

    state: VerdictState
    reasons: list[str]
    evidence: ClientEvidence


def judge(evidence: ClientEvidence) -> Verdict:
    """Return the verdict on the evidence."""
    found = list(_findings(evidence))
    state: VerdictState = "valid"
    if found:
        state = "invalid" if any(is_invalid for is_invalid, _ in found) else "suspect"
    return Verdict(state=state, reasons=[reason for _, reason in found], evidence=evidence)


def evidence_of(
    records: Sequence[RequestRecord], workers: Sequence[WorkerEvidence], losses: Sequence[WorkerLoss] = ()
) -> ClientEvidence:
    """Return the evidence of a stage.

    Args:
        records: the measured requests.
        workers: the evidence that the workers collected.
        losses: the workers that died.
    """
    shared = chunks = 0
    for worker in workers:
        own = [record for record in records if record.worker == worker.worker]
        shared += late_shared_reads(own, worker.lags)
        chunks += sum(max(0, len(record.token_ns) - 1) for record in own)
    reasons = [worker.no_witness for worker in workers if worker.no_witness is not None]
    ahead = [worker.connections_ahead for worker in workers if worker.connections_ahead is not None]
    read_lag = _worst(distribution(lag / 1e9 for lag in worker.read_lags) for worker in workers)
    return ClientEvidence(
        cpu_shares=[worker.cpu_share for worker in workers if worker.cpu_share is not None],
        lateness=own_lateness(records),
        loop_lag=_worst(distribution((woken - due) / 1e9 for due, woken in worker.lags) for worker in workers),
        read_lag=read_lag,
        no_witness=reasons[0] if reasons and not read_lag.count else None,
        connections_ahead=sum(ahead) if ahead else None,
        not_ahead=next((worker.not_ahead for worker in workers if worker.not_ahead is not None), None),
        shared_read_share=shared / chunks if chunks else 0.0,
        gc_share=max((worker.gc_share for worker in workers), default=0.0),
        losses=list(losses),
        ttft_p50=latency(records, "ttft").percentile(50),
    )


def own_lateness(records: Sequence[RequestRecord]) -> Distribution:
    """Summarise how late the client itself sent, without the wait for `max_concurrency`."""
    return distribution(
        (record.dispatched_ns - record.due_ns - record.queued_ns) / 1e9
        for record in records
        if record.dispatched_ns is not None
    )


def late_shared_reads(records: Sequence[RequestRecord], lags: Sequence[tuple[int, int]]) -> int:
    """Count the chunks that a late read returned together with the previous one.

    Chunks with the same stamp were read at once. If the event loop was on time then, the server sent them together. If
    it was late, the client may have read chunks together that were sent separately.

    Args:
        records: the requests of one worker.
        lags: its event loop's wake-ups, in order: the times when it should have woken up and when it did.
    """
    late = [(due, woken) for due, woken in lags if woken - due >= LAG_LIMITS[0] * 1e9]
    if not late:
        return 0
    shared = sorted(after for record in records for before, after in pairwise(record.token_ns) if before == after)
    count, at = 0, 0
    for moment in shared:
        while at < len(late) and late[at][1] < moment:
            at += 1
        count += at < len(late) and late[at][0] <= moment
    return count


def _worst(found: Iterable[Distribution]) -> Distribution:
    """Return the distribution with the highest p99. In the sum of all workers, a single late one would be invisible."""
    return max(found, key=lambda each: each.percentile(99) or 0.0, default=distribution(()))


def _findings(evidence: ClientEvidence) -> Iterator[tuple[bool, str]]:
    """Yield the findings: whether each makes the figures invalid, and a sentence."""
    for loss in evidence.losses:
        yield True, f"{loss.requests:,} requests were lost with worker {loss.worker}: {loss.reason}"
    for worker, share in enumerate(evidence.cpu_shares):
        yield from _above(share, CPU_LIMITS, f"worker {worker} used {share:.0%} of a core", "{:.0%}".format)
    lateness = evidence.lateness.percentile(99)
    if lateness is not None:
        yield from _above(
            lateness, LATENESS_LIMITS, f"requests were sent {lateness * 1e3:.1f} ms late at p99", _milliseconds
        )
        ttft = evidence.ttft_p50
        if ttft is not None and LATENESS_OF_TTFT * ttft < lateness <= LATENESS_LIMITS[0]:
            visible = f"which is more than {LATENESS_OF_TTFT:.0%} of the median TTFT of {ttft * 1e3:.1f} ms"
            yield False, f"requests were sent {lateness * 1e3:.1f} ms late at p99, {visible}"
    lag = evidence.loop_lag.percentile(99)
    if lag is not None:
        yield from _above(lag, LAG_LIMITS, f"the event loop woke up {lag * 1e3:.1f} ms late at p99", _milliseconds)
    lag = evidence.read_lag.percentile(99)
    if lag is not None:
        sentence = f"stamps were {lag * 1e3:.1f} ms later than the kernel's at p99"
        yield from _above(lag, READ_LAG_LIMITS, sentence, _milliseconds)
    share = evidence.shared_read_share
    yield from _above(share, SHARED_READ_LIMITS, f"{share:.0%} of the chunks were read together, late", "{:.0%}".format)
    share = evidence.gc_share
    yield from _above(share, GC_LIMITS, f"{share:.0%} of the time went into garbage collection", "{:.0%}".format)


def _above(
    value: float, limits: tuple[float, float], sentence: str, show: Callable[[float], str]
) -> Iterator[tuple[bool, str]]:
    """Yield the finding that a value is above one of two limits: suspect, or invalid."""
    suspect, invalid = limits
    if value > suspect:
        is_invalid = value > invalid
        limit = show(invalid if is_invalid else suspect)
        yield is_invalid, f"{sentence} (the limit of {'suspect' if is_invalid else 'valid'} is {limit})"


def _milliseconds(seconds: float) -> str:
    """Format seconds for the findings."""
    return f"{seconds * 1e3:g} ms"
