"""What a load test prints about its own client: the kernel's time stamps, and its error against the simulator."""

from __future__ import annotations

from collections.abc import Iterator

from chatscope.load import ClientError, ClientEvidence
from chatscope.load.distributions import Distribution


def witness_line(evidence: ClientEvidence) -> str:
    """Return by how much the client's time stamps are late, or why that is unknown."""
    lag = evidence.read_lag
    if not lag.count:
        return f"the kernel's stamps: none; {evidence.no_witness or 'nothing was read within the window'}"
    shown = f"p50 {_milliseconds(lag.percentile(50))}, p99 {_milliseconds(lag.percentile(99))}"
    return (
        f"the kernel's stamps: {lag.count:,} reads were {shown}, max {_milliseconds(lag.maximum)} ms earlier than ours"
    )


def error_lines(error: ClientError) -> Iterator[str]:
    """Yield the error bars that were measured against the simulator."""
    held = "" if error.simulator_held else ", which did not hold this load and was late itself"
    yield f"this client against the simulator{held} ({error.verdict}; {error.tokens:,} tokens), ms:"
    rows: tuple[tuple[str, str, Distribution], ...] = (
        ("stamps", "late by", error.stamp),
        ("ttft", "too long by", error.ttft),
        ("icl", "wrong by", error.icl),
        ("arrival", "after due", error.arrival),
    )
    for name, what, found in rows:
        p50, p99 = (_milliseconds(found.percentile(percent)) for percent in (50, 99))
        yield f"  {name:8} {what:12} p50 {p50:>8}  p99 {p99:>8}  max {_milliseconds(found.maximum):>8}"


def _milliseconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds * 1e3:,.2f}"
