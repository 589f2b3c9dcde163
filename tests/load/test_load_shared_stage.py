"""One stage in several workers, without processes: what a worker's death loses."""

from __future__ import annotations

import pytest

from chatscope.load import Length, LoadMonitor, LoadPlan, Workload
from chatscope.load.messages import Order, StagePrepared, StartStage, WorkerMessage
from chatscope.load.schedule import WorkShare
from chatscope.load.setup import RunSetup
from chatscope.load.shared_stage import run_stages


class DyingWorker:
    """A worker that dies when its stage starts."""

    def __init__(self, monitor: LoadMonitor, *, stops: bool) -> None:
        self.share = WorkShare()
        self.death: str | None = None
        self.running = self.dispatched = 0
        self._monitor = monitor
        self._stops = stops

    async def send(self, order: Order) -> None:
        if isinstance(order, StartStage):
            if self._stops:
                self._monitor.stop()
            self.death = "it ended"

    async def receive(self) -> WorkerMessage | None:
        return StagePrepared() if self.death is None else None


@pytest.mark.one_loop
@pytest.mark.parametrize("stops", [False, True])
async def test_what_was_not_due_when_a_run_was_stopped_is_not_a_failure(stops: bool) -> None:
    workload = Workload(prompt_tokens=Length(4))
    plan = LoadPlan(model="m", rate=1, arrivals="constant", requests=4, workload=workload, calibrate=False)
    monitor = LoadMonitor()
    (report,) = await run_stages(RunSetup(plan=plan, workload=workload), [DyingWorker(monitor, stops=stops)], monitor)
    assert [record.due_ns - monitor.records[0].due_ns for record in monitor.records] == (
        [] if stops else [0, 1_000_000_000, 2_000_000_000, 3_000_000_000]
    )
    assert [loss.requests for loss in report.verdict.evidence.losses] == [4]
    assert report.verdict.state == "invalid"
