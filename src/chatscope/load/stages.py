"""One stage: running it in this process, and its report from the records and the evidence of all its workers.

Here: a stage from its first encoded request to its report. Not here: sending (`worker`), and the formulas (`metrics`,
`verdict`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import anyio
import httpx

from chatscope.errors import first_in
from chatscope.load.connections import StageConnections
from chatscope.load.metrics import summarise
from chatscope.load.objectives import goodput
from chatscope.load.plan import LoadPlan
from chatscope.load.planned import LoadStage, PlannedRequest
from chatscope.load.records import RequestRecord
from chatscope.load.report import StageReport
from chatscope.load.schedule import ALL, WorkShare
from chatscope.load.sending import Encoder
from chatscope.load.verdict import WorkerEvidence, WorkerLoss, evidence_of, judge
from chatscope.load.witnesses import ClientWitness
from chatscope.load.worker import StageWorker
from chatscope.transport import ReadWitness

LENGTH_TOLERANCE: Final = 0.05
"""If real lengths differ from the requested ones by more than this share, a notice says so."""

_INDEXES_A_STAGE: Final = 1 << 40
"""The number of requests reserved for a stage, so that no prompt of one stage is repeated in another."""


class PreparedStage:
    """One worker's share of a stage, with its first request encoded.

    Args:
        encoder: makes and sends the requests.
        stage: the whole stage.
        requests: the requests of the share, in order.
        on_record: called with each record once its request has ended. It must not wait.
        transport: the transport of the encoder's client.
        share: the part of the stage.
        reads: the kernel's stamps, if the encoder's client has them.

    Attributes:
        worker: sends the requests, and can be stopped.

    Raises:
        ValueError: the first request is invalid, or a file cannot be read.
    """

    def __init__(
        self,
        encoder: Encoder,
        stage: LoadStage,
        requests: Iterator[PlannedRequest],
        on_record: Callable[[RequestRecord], object],
        *,
        transport: httpx.AsyncBaseTransport,
        share: WorkShare = ALL,
        reads: ReadWitness | None = None,
    ) -> None:
        self._plan = encoder.plan
        self._share = share
        self._witness = ClientWitness(reads)
        self._connections = StageConnections(self._plan, stage, share, transport, encoder.client.base_url)
        self.worker = StageWorker(encoder, stage, requests, stage.index * _INDEXES_A_STAGE, on_record, share)
        self.worker.encode_ahead()  # a bad request fails here, before anything is sent

    async def open_connections(self) -> None:
        """Open the connections that the first requests need. If cancelled, keep those that are open."""
        await self._connections.open()

    async def run(self, started_ns: int) -> WorkerEvidence:
        """Run the stage and return the evidence on the client. If cancelled, all requests are cancelled and recorded.

        Args:
            started_ns: when the stage starts (`time.perf_counter_ns`).

        Raises:
            ValueError: a malformed line of a file was found while the stage ran.
            OSError: a file can no longer be read.
        """
        start_ns, end_ns = window_of(self._plan, started_ns)
        failure: Exception | None = None
        with self._witness.frozen_collector():
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._witness.watch, start_ns, end_ns)
                    group.start_soon(self._connections.keep_spare, lambda: self.worker.running)
                    await self.worker.run(started_ns)
                    group.cancel_scope.cancel()
            except* (ValueError, OSError) as errors:
                failure = first_in(errors)
        if failure is not None:
            raise failure
        evidence = self._witness.evidence(self._share.worker)
        evidence.connections_ahead, evidence.not_ahead = self._connections.ahead, self._connections.obstacle
        return evidence


def window_of(plan: LoadPlan, started_ns: int) -> tuple[int, int | None]:
    """Return the start and end of the measured window; `None` if it lasts until the stage ends."""
    windows = plan.windows()
    return started_ns + windows.start, None if windows.end is None else started_ns + windows.end


def conclude(
    plan: LoadPlan,
    stage: LoadStage,
    started_ns: int,
    records: Sequence[RequestRecord],
    workers: Sequence[WorkerEvidence],
    *,
    was_stopped: bool = False,
    losses: Sequence[WorkerLoss] = (),
) -> StageReport:
    """Return the report of a stage that has ended.

    Args:
        plan: the run's plan.
        stage: the stage.
        started_ns: when it started.
        records: the records of all its requests.
        workers: the evidence that its workers collected.
        was_stopped: whether it was stopped before its end.
        losses: the workers that died.
    """
    starts, planned_end = window_of(plan, started_ns)
    # The end of a window is exclusive, and the last request ended within the window.
    last_ns = max((record.finished_ns or record.due_ns for record in records), default=started_ns - 1) + 1
    ends = last_ns if planned_end is None or (was_stopped and last_ns < planned_end) else planned_end
    window_ns = starts, max(starts, ends)
    measured = [record for record in records if record.window == "measured"]
    summary = summarise(stage.name, records, window_ns, concurrency=stage.concurrency, rate=stage.rate)
    objectives = plan.objectives()
    good, seconds = goodput(measured, objectives), summary.seconds
    return StageReport(
        summary=summary,
        verdict=judge(evidence_of(measured, workers, losses)),
        window_ns=window_ns,
        objectives=[objective.check(measured) for objective in objectives],
        goodput=good,
        goodput_per_second=good * len(measured) / seconds if seconds else 0.0,
        notices=list(_window_notices(records, measured))
        + list(_length_notices(summary.prompt_tokens_mean, summary.requested_prompt_tokens_mean, "prompts"))
        + list(_length_notices(summary.output_tokens_mean, summary.requested_output_tokens_mean, "responses")),
    )


def _window_notices(records: Sequence[RequestRecord], measured: Sequence[RequestRecord]) -> Iterator[str]:
    if records and not measured:
        yield f"nothing was measured: all {len(records):,} requests were due in the warm-up or the cool-down"


def _length_notices(real: float | None, requested: float | None, what: str) -> Iterator[str]:
    if real is not None and requested is not None and abs(real - requested) > LENGTH_TOLERANCE * requested:
        yield f"{what} had {real:.1f} tokens on average, and {requested:.1f} were requested"
