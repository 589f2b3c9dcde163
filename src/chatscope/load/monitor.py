"""LoadMonitor: shows the progress of a run, receives its records as they arrive, and stops it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from chatscope.load.distributions import linear_percentile
from chatscope.load.metrics import FORMULAS
from chatscope.load.plan import LoadPlan
from chatscope.load.planned import LoadStage
from chatscope.load.records import RequestRecord
from chatscope.load.schedule import SECOND
from chatscope.load.verdict import ClientEvidence, VerdictState, judge, own_lateness

RECENT: Final = 200
"""How many of the latest records the progress is computed from. Computing it must not make the client late."""


class StageControl(Protocol):
    """A monitor's view of the running stage."""

    started_ns: int

    @property
    def running(self) -> int:
        """How many requests are running."""
        ...

    @property
    def dispatched(self) -> int:
        """How many requests were sent."""
        ...

    def stop(self, grace: float) -> None:
        """Send nothing more, and give running requests a number of seconds to end."""
        ...


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The progress of the running stage. Latencies, in seconds, are of its latest requests; `None` means unknown."""

    stage: str
    sent: int
    running: int
    ok: int
    failed: int
    output_tokens_per_second: float | None
    ttft: tuple[float, float] | None
    """p50 and p99."""
    icl: tuple[float, float] | None
    lateness_p99: float | None
    seconds_left: float | None
    verdict: VerdictState | None = None
    """The verdict on the client so far, by its lateness alone. The report has the full verdict."""


class LoadMonitor:
    """Follows one run, and can stop it.

    Args:
        on_record: called with each record when its request has ended. It must not wait.

    Attributes:
        on_record: the same; may be replaced.
        records: the records of all requests that have ended.
        is_stopped: whether the run was stopped.
    """

    def __init__(self, on_record: Callable[[RequestRecord], object] | None = None) -> None:
        self.records: list[RequestRecord] = []
        self.is_stopped = False
        self.on_record = on_record
        self._stage: tuple[LoadStage, StageControl, LoadPlan] | None = None
        self._first = self._ok = self._failed = 0

    def stop(self) -> bool:
        """Stop sending; running requests get the plan's `grace`. Return whether there was a stage to stop."""
        self.is_stopped = True
        if self._stage is None:
            return False
        _, control, plan = self._stage
        control.stop(plan.grace)
        return True

    def add(self, record: RequestRecord) -> None:
        """Add the record of a request that has ended."""
        self.records.append(record)
        self._ok += record.outcome == "ok"
        self._failed += record.outcome == "failed"
        if self.on_record is not None:
            self.on_record(record)

    def on_stage(self, stage: LoadStage, control: StageControl, plan: LoadPlan) -> None:
        """Follow the next stage from now on."""
        self._stage = stage, control, plan
        self._first, self._ok, self._failed = len(self.records), 0, 0

    def progress(self) -> LoadProgress | None:
        """Return the progress of the running stage; `None` before the first."""
        if self._stage is None:
            return None
        stage, control, plan = self._stage
        recent = self.records[max(self._first, len(self.records) - RECENT) :]
        late = _percentiles(recent, "lateness")
        return LoadProgress(
            stage=stage.name,
            sent=control.dispatched,
            running=control.running,
            ok=self._ok,
            failed=self._failed,
            output_tokens_per_second=_token_rate(recent),
            ttft=_percentiles(recent, "ttft"),
            icl=_percentiles(recent, "icl"),
            lateness_p99=None if late is None else late[1],
            verdict=_verdict(recent) if recent else None,
            seconds_left=_seconds_left(plan, control),
        )


def _percentiles(records: Sequence[RequestRecord], name: str) -> tuple[float, float] | None:
    values = sorted(value for record in records for value in FORMULAS[name].values(record))
    return (linear_percentile(values, 50), linear_percentile(values, 99)) if values else None


def _verdict(recent: Sequence[RequestRecord]) -> VerdictState:
    ttft = _percentiles(recent, "ttft")
    evidence = ClientEvidence(lateness=own_lateness(recent), ttft_p50=None if ttft is None else ttft[0])
    return judge(evidence).state


def _token_rate(records: Sequence[RequestRecord]) -> float | None:
    """Return the output tokens per second between the first and the last end of some requests."""
    ends = [record.finished_ns for record in records if record.finished_ns is not None]
    tokens = [record.output_tokens for record in records if record.output_tokens is not None]
    if len(ends) < 2 or not tokens or ends[-1] <= ends[0]:
        return None
    return sum(tokens[1:]) * SECOND / (ends[-1] - ends[0])


def _seconds_left(plan: LoadPlan, control: StageControl) -> float | None:
    if plan.duration is None:
        return None
    return max(0.0, plan.duration - (time.perf_counter_ns() - control.started_ns) / SECOND)
