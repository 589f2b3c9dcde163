"""The search for the highest load that meets every objective: what it tries, and the knees it finds."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio.testing

from chatscope.load import (
    ClientEvidence,
    Length,
    LoadMonitor,
    LoadPlan,
    ObjectiveResult,
    RequestRecord,
    StageReport,
    Workload,
    run,
)
from chatscope.load.metrics import summarise
from chatscope.load.search import next_stage, run_verdict, search_result
from chatscope.load.verdict import Verdict, VerdictState, judge
from chatscope.simulator import ChatRequest, Config, Reply, simulator
from chatscope.testing.loops import Backend

if TYPE_CHECKING:
    from tests.support.memory_server import Serve


@pytest.fixture
def anyio_backend(stamps_in_virtual_time: Backend) -> Backend:
    return stamps_in_virtual_time


def plan(**values: Any) -> LoadPlan:
    given: dict[str, Any] = {
        "model": "m",
        "base_url": "http://server/v1",
        "api_key": "",
        "workload": Workload(prompt_tokens=Length(8), output_tokens=Length(2)),
        "calibrate": False,
    }
    return LoadPlan(**(given | values))


def stage(
    kind: str, load: float, *, holds: bool, state: VerdictState = "valid", ok: int = 1, may_be_chance: bool = False
) -> StageReport:
    record = RequestRecord(index=0, due_ns=0, dispatched_ns=0, token_ns=[1], finished_ns=1, outcome="ok")
    given: dict[str, Any] = {"rate": load} if kind == "rate" else {"concurrency": int(load)}
    result = ObjectiveResult(
        objective="failed<1%", limit=0.01, value=0.0 if holds else 1.0, is_met=holds, may_be_chance=may_be_chance
    )
    return StageReport(
        summary=summarise(f"{kind} {load:g}", [record] * ok, (0, 1), **given),
        verdict=Verdict(state=state, reasons=[], evidence=ClientEvidence()),
        window_ns=(0, 1),
        objectives=[result],
    )


def searched(given: LoadPlan, kind: str, knee: float) -> tuple[list[float], float | None]:
    """Return the loads that a search tries on a server that holds up to a knee, and what it finds."""
    ended: list[StageReport] = []
    loads = []
    while (following := next_stage(given, ended)) is not None:
        load = float(following.rate or following.concurrency or 0)
        loads.append(load)
        ended.append(stage(kind, load, holds=load <= knee))
    found = search_result(given, ended)
    assert found is not None
    return loads, found.value


@pytest.mark.one_loop
@pytest.mark.parametrize("start", [None, 7.0, 500.0])
@pytest.mark.parametrize("knee", [0.3, 1.0, 13.7, 900.0])
def test_a_rate_is_found_within_its_tolerance(start: float | None, knee: float) -> None:
    loads, found = searched(plan(search="rate", rate=start, requests=9, slos=["failed<1%"]), "rate", knee)
    assert loads[0] == (start or 1)
    assert found is not None
    assert knee / 1.051 <= found <= knee
    assert len(loads) <= 20


@pytest.mark.one_loop
@pytest.mark.parametrize("knee", [1, 2, 9, 10, 37, 200])
def test_a_concurrency_is_found(knee: int) -> None:
    _, found = searched(plan(search="concurrency", duration=9, slos=["failed<1%"]), "concurrency", knee)
    assert found is not None
    assert knee * 0.95 <= found <= knee
    assert knee > 20 or found == knee


@pytest.mark.one_loop
def test_no_more_slots_are_tried_than_there_are_requests() -> None:
    for requests in (8, 9):
        given = plan(search="concurrency", requests=requests, slos=["failed<1%"])
        assert searched(given, "concurrency", 200) == ([1, 2, 4, 8], 8)


@pytest.mark.one_loop
def test_a_server_that_never_holds_is_given_up() -> None:
    assert searched(plan(search="concurrency", requests=9, slos=["failed<1%"]), "concurrency", 0) == ([1], None)
    loads, found = searched(plan(search="rate", requests=9, slos=["failed<1%"]), "rate", 0)
    assert (len(loads), found) == (13, None)
    dead = [stage("rate", 1, holds=False, ok=0)]
    assert next_stage(plan(search="rate", requests=9, slos=["failed<1%"]), dead) is None


@pytest.mark.one_loop
def test_a_load_that_held_above_one_that_failed_is_not_believed() -> None:
    given = plan(search="rate", requests=9, slos=["failed<1%"])
    ended = [stage("rate", load, holds=load != 2) for load in (1, 2, 4)]
    found = search_result(given, ended)
    assert found is not None
    assert (found.value, found.failed_at) == (1, 2)


@pytest.mark.one_loop
@pytest.mark.parametrize("unlucky", [0, 1, 3])
def test_a_load_that_may_have_failed_by_chance_is_tried_again(unlucky: int) -> None:
    """One slow response of sixty misses a p99: without another try, the search would end far below the knee."""
    given = plan(search="rate", requests=9, slos=["failed<1%"])
    ended: list[StageReport] = []
    while (following := next_stage(given, ended)) is not None:
        load = following.rate or 0
        is_unlucky = len(ended) == unlucky or load > 13
        ended.append(stage("rate", load, holds=not is_unlucky, may_be_chance=is_unlucky and load < 15))
        assert following.name == f"rate {load:g}{' (2)' if following.repetition else ''}"
    found = search_result(given, ended)
    assert found is not None
    assert found.value == pytest.approx(13, rel=0.051)
    tried = [stage.summary.rate for stage in ended]
    assert tried[unlucky] == tried[unlucky + 1], "tried again at once"
    assert max(map(tried.count, tried)) == 2
    assert run_verdict(given, ended) == "valid"


@pytest.mark.one_loop
def test_a_client_in_the_way_ends_the_climb_and_is_reported() -> None:
    """The limit may then be the client's. A bad stage far above what was found does not matter."""
    given = plan(search="rate", requests=9, slos=["failed<1%"])
    ended = [stage("rate", 1, holds=True), stage("rate", 2, holds=True, state="invalid")]
    found = search_result(given, ended)
    assert found is not None
    assert (found.value, found.failed_at, found.client_in_the_way) == (1, 2, True)
    assert run_verdict(given, ended) == "invalid"
    ended.append(stage("rate", 1.5, holds=False))
    assert run_verdict(given, ended) == "valid"


@pytest.mark.slow
async def test_the_knee_of_a_server_with_four_slots_is_found(serve: Serve) -> None:
    """Four slots of 0.25 s hold 16 requests a second. Above, its queue grows for as long as the load lasts."""
    free: list[float] = []

    def reply(_request: ChatRequest) -> Reply:
        now = anyio.current_time()
        free[:] = free or [0.0] * 4
        starts = max(now, heapq.heappop(free))
        heapq.heappush(free, starts + 0.25)
        return Reply(tokens=2, first_token=starts - now + 0.125, between_tokens=0.125)

    given = plan(search="rate", rate=8, arrivals="constant", duration=4, slos=["ttft:p99<300ms"])
    report = await run(given, transport=serve(reply))
    assert report.search is not None
    assert report.search.value == pytest.approx(16, rel=0.1)
    assert 16 < (report.search.failed_at or 0) < 18
    assert report.meets_objectives


@pytest.mark.slow
class TestOnSockets:
    """Against the simulator's own queue, over real sockets, whose bytes arrive before the clock jumps."""

    @pytest.fixture
    def anyio_backend(self, stamps_in_virtual_time: Backend) -> Backend:
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0.002)}

    async def test_the_knee_of_the_simulators_queue_is_found(self) -> None:
        """N slots of a closed loop on 4 of 60 ms: a request takes N / 4 * 60 ms, so 300 ms are reached at 20."""
        server = simulator(Reply(tokens=1, first_token=0.06), Config(max_running=4))
        async with server as base_url:
            given = plan(
                base_url=base_url, search="concurrency", concurrency=6, requests=60, ramp=0, slos=["e2e:p50<307ms"]
            )
            report = await run(given)
        assert report.search is not None
        assert report.search.value == pytest.approx(20, rel=0.1)


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"search": "speed", "slos": ["failed<1%"]}, "search must be one of rate, concurrency"),
        ({"search": "rate"}, "search needs slos"),
        ({"search": "rate", "concurrency": 1, "slos": ["failed<1%"]}, "starts at rate: do not give concurrency"),
        ({"search": "rate", "rate": [1, 2], "slos": ["failed<1%"]}, "starts at one value"),
    ],
)
def test_a_search_that_cannot_be_right_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(requests=5, **values)


async def test_a_stopped_search_reports_what_it_knows(serve: Serve) -> None:
    monitor = LoadMonitor()
    monitor.on_record = lambda record: record.stage == 2 and monitor.stop()
    given = plan(search="rate", requests=9, slos=["failed<1%"])
    report = await run(given, monitor=monitor, transport=serve(Reply(tokens=1)))
    assert report.search is not None
    assert (len(report.stages), report.search.failed_at) == (3, None)


def test_the_verdict_of_a_run_without_a_search_is_the_worst() -> None:
    ended = [stage("rate", 1, holds=True), stage("rate", 2, holds=True, state="suspect")]
    assert run_verdict(plan(rate=[1, 2], requests=1), ended) == "suspect"
    assert judge(ClientEvidence()).state == "valid"
