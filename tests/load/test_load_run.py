"""Whole runs in virtual time: when requests are sent, what their records say, and how a run is stopped.

Each row of what goes wrong in other load generators has its test here or beside the pure function that rules it out.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from chatscope.load import Length, LoadMonitor, LoadPlan, LoadReport, RequestRecord, Workload, load_report, run
from chatscope.load.distributions import linear_percentile
from chatscope.load.schedule import OpenLoop, due_offsets
from chatscope.simulator import ChatRequest, Reply, error, faults
from chatscope.testing.loops import Backend

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

SECOND = 10**9
WORKLOAD = Workload(prompt_tokens=Length(32), output_tokens=Length(5))
REPLY = Reply(tokens=5, first_token=0.05, between_tokens=0.01)


@pytest.fixture
def anyio_backend(stamps_in_virtual_time: Backend) -> Backend:
    return stamps_in_virtual_time


def plan(**values: Any) -> LoadPlan:
    given: dict[str, Any] = {
        "model": "m",
        "base_url": "http://server/v1",
        "api_key": "",
        "workload": WORKLOAD,
        "calibrate": False,
    }
    return LoadPlan(**(given | values))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def offsets(report: LoadReport, stamp: Callable[[RequestRecord], int | None]) -> list[float]:
    """Return stamps in seconds from the first due one, by index."""
    start = min(record.due_ns for record in report.records)
    records = sorted(report.records, key=lambda record: record.index)
    return [((stamp(record) or 0) - start) / 1e9 for record in records]


async def test_an_open_loop_sends_on_schedule_however_slow_the_server_is(serve: Serve) -> None:
    server = serve(Reply(tokens=5, first_token=30, between_tokens=1))
    report = await run(plan(rate=10, arrivals="constant", duration=2), transport=server)
    assert offsets(report, lambda record: record.due_ns) == pytest.approx([n / 10 for n in range(20)], abs=1e-6)
    assert offsets(report, lambda record: record.dispatched_ns) == pytest.approx([n / 10 for n in range(20)], abs=1e-3)
    assert report.stages[0].verdict.evidence.no_witness == "the transport is not chatscope's own"
    summary = report.stages[0].summary
    assert summary.ok == 20
    assert summary.metrics["ttft"].percentile(99) == pytest.approx(30, abs=1e-3)


async def test_a_schedule_is_kept_to_the_nanosecond(serve: Serve) -> None:
    due = list(due_offsets(OpenLoop(50), "4:arrivals:0", requests=40))
    report = await run(plan(rate=50, requests=40, seed=4), transport=serve(REPLY))
    by_index = sorted(report.records, key=lambda record: record.index)
    starts = {record.due_ns - offset for record, offset in zip(by_index, due, strict=True)}
    assert len(starts) == 1


async def test_a_stall_shows_in_the_headline_as_the_schedule_implies(serve: Serve) -> None:
    """Coordinated omission: four slots wait for the stalled server, the fifth request waits for a slot."""
    stall, service = (7.99, 9.99), 0.05
    started: list[float] = []

    def reply(_request: ChatRequest) -> Reply:
        now = anyio.current_time()
        started.append(now)
        since = now - started[0]
        wait = stall[1] - since if stall[0] <= since < stall[1] else 0.0
        return Reply(tokens=1, first_token=wait + service)

    given = plan(rate=25, arrivals="constant", duration=20, max_concurrency=4)
    summary = (await run(given, transport=serve(reply))).stages[0].summary
    queued: list[float] = []
    free, ttft = [0.0] * 4, []
    for due in (n / 25 for n in range(500)):
        starts = max(due, heapq.heappop(free))
        queued.append(starts - due)
        wait = stall[1] - starts if stall[0] <= starts < stall[1] else 0.0
        heapq.heappush(free, starts + wait + service)
        ttft.append(starts + wait + service - due)
    implied = linear_percentile(sorted(ttft), 99)
    assert implied > 1.5
    assert summary.metrics["ttft"].percentile(99) == pytest.approx(implied, rel=0.05)
    assert summary.metrics["ttft_service"].percentile(99) == pytest.approx(service, abs=0.01)
    assert summary.metrics["queue"].maximum == pytest.approx(max(queued), rel=0.05)


async def test_a_closed_loop_keeps_its_slots_busy(serve: Serve) -> None:
    server = serve(REPLY)
    report = await run(plan(concurrency=[1, 3], requests=9, ramp=0), transport=server)
    assert server.peak == 3
    assert [stage.summary.ok for stage in report.stages] == [9, 9]
    assert [stage.summary.mean_concurrency for stage in report.stages] == pytest.approx([1, 3], abs=0.05)
    assert [stage.summary.name for stage in report.stages] == ["concurrency 1", "concurrency 3"]
    records = [record for record in report.records if record.stage == 0]
    assert [after.due_ns for after in records[1:]] == pytest.approx(
        [before.finished_ns for before in records[:-1]], abs=10_000_000
    ), "a request is due when its slot is free"


async def test_windows_part_a_run_that_goes_on(serve: Serve) -> None:
    """No barrier: the gaps at their borders are those of the schedule."""
    given = plan(rate=10, arrivals="constant", duration=10, warmup=2, cooldown=3)
    report = await run(given, transport=serve(REPLY))
    (stage,) = report.stages
    assert [record.window for record in sorted(report.records, key=lambda each: each.index)] == (
        ["warmup"] * 20 + ["measured"] * 50 + ["cooldown"] * 30
    )
    assert (stage.summary.attempts, stage.summary.seconds) == (50, 5)
    assert stage.summary.requests_per_second == pytest.approx(10)
    assert stage.summary.output_tokens_per_second == pytest.approx(50, rel=0.02)
    sent = offsets(report, lambda record: record.dispatched_ns)
    assert [after - before for before, after in itertools.pairwise(sent)] == pytest.approx([0.1] * 99, abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ramp", "backlog", "starts"),
    [(8, 0, [0, 2, 4, 6]), (8, 10, [0, 2, 4, 6]), (None, 0, [0, 0.005, 0.01, 0.015]), (0, 0, [0] * 4)],
)
async def test_slots_start_one_after_another(
    serve: Serve, ramp: float | None, backlog: int, starts: list[float]
) -> None:
    server = serve(Reply(tokens=5, first_token=10))
    report = await run(plan(concurrency=4, ramp=ramp, requests=4 + backlog), transport=server)
    assert sorted(offsets(report, lambda record: record.due_ns))[:4] == pytest.approx(starts, abs=1e-6)


async def test_the_first_token_is_the_first_output_and_the_first_answer_comes_after_the_reasoning(serve: Serve) -> None:
    """The role chunk is no output. Reasoning is output, but no answer."""
    reply = Reply(("One", " two"), reasoning="Let me think", first_token=1, between_tokens=0.5)
    report = await run(plan(concurrency=1, requests=1), transport=serve(reply))
    metrics = report.stages[0].summary.metrics
    assert metrics["ttft"].percentile(50) == pytest.approx(1, abs=0.01)
    assert metrics["ttfat"].percentile(50) == pytest.approx(2.5, abs=0.01)
    (record,) = report.records
    assert (record.outcome, record.output_tokens, len(record.token_ns)) == ("ok", 5, 5)
    assert metrics["tpot"].percentile(50) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(503), "503 InternalServerError"),
        (error(429, retry_after=1), "429 RateLimitError"),
        (Reply(tokens=5, faults=(faults.reset(3),)), "StreamTruncatedError"),
        (None, "APIConnectionError"),
    ],
    ids=["refused", "limited", "cut", "unreachable"],
)
async def test_failures_are_recorded_and_never_sent_again(serve: Serve, answer: Any, kind: str) -> None:
    """A stream that is cut off is never a success, whatever was received."""

    def respond(request: ChatRequest) -> Any:
        if len(server.requests) % 2:
            return REPLY
        if answer is None:
            raise httpx.ConnectError("No route.")
        return answer

    server = serve(respond)
    report = await run(plan(concurrency=1, requests=8, slos=["failed<1%", "ttft:p99<1s"]), transport=server)
    (stage,) = report.stages
    assert len(server.requests) == 8
    assert (stage.summary.attempts, stage.summary.ok, stage.summary.failed) == (8, 4, 4)
    assert [name.startswith(kind.rsplit(maxsplit=1)[-1]) or name == kind for name in stage.summary.failures] == [True]
    assert stage.goodput == 0.5
    assert not report.meets_objectives


async def test_a_server_that_never_answers_fails_by_its_silence(serve: Serve) -> None:
    report = await run(plan(concurrency=2, requests=2, timeout=5), transport=serve(Reply(first_token=1000)))
    assert report.stages[0].summary.failures.keys() <= {"APITimeoutError (first_token)", "APITimeoutError (idle)"}
    assert report.stages[0].summary.failed == 2


async def stopped(given: LoadPlan, server: MemoryServer, after: float) -> LoadReport:
    """Run a plan, and stop it after so many seconds; asking again two seconds later changes nothing."""
    monitor, reports = LoadMonitor(), []
    async with anyio.create_task_group() as group:

        async def run_it() -> None:
            reports.append(await run(given, monitor=monitor, transport=server))

        group.start_soon(run_it)
        await anyio.sleep(after)
        assert monitor.stop()
        await anyio.sleep(2)
        monitor.stop()
    return reports[0]


async def test_stopping_lets_what_runs_end_within_the_grace(serve: Serve) -> None:
    """Requests that do not are censored: they count, as longer than all others."""

    def reply(_request: ChatRequest) -> Reply:
        return Reply(tokens=2, first_token=3 if len(server.requests) % 2 else 60)

    server = serve(reply)
    given = plan(rate=[1, 5], arrivals="constant", duration=100, grace=4)
    began = anyio.current_time()
    report = await stopped(given, server, 4.95)
    assert anyio.current_time() - began == pytest.approx(8.95)
    assert report.was_stopped
    (stage,) = report.stages
    outcomes = [record.outcome for record in sorted(report.records, key=lambda each: each.index)]
    assert outcomes == ["ok", "unfinished"] * 2 + ["ok"]
    assert (stage.summary.unfinished, stage.summary.metrics["ttft"].censored) == (2, 2)
    assert stage.summary.metrics["ttft"].percentile(99) is None


async def test_stopping_before_the_first_stage_sends_nothing(serve: Serve) -> None:
    monitor, server = LoadMonitor(), serve(REPLY)
    assert not monitor.stop()
    report = await run(plan(rate=1, requests=5), monitor=monitor, transport=server)
    assert (report.stages, server.requests, report.was_stopped) == ([], [], True)


async def test_requests_that_wait_for_a_slot_are_recorded_when_a_run_is_stopped(serve: Serve) -> None:
    given = plan(rate=1, arrivals="constant", duration=100, grace=0, max_concurrency=1)
    report = await stopped(given, serve(Reply(first_token=60)), 4.95)
    assert [record.outcome for record in report.records] == ["unfinished"] * 5
    assert sum(record.dispatched_ns is None for record in report.records) == 4


async def test_a_cancelled_run_closes_every_response(serve: Serve) -> None:
    server = serve(Reply(first_token=60))
    with anyio.move_on_after(3):
        await run(plan(rate=5, duration=10), transport=server)
    assert server.open == 0


async def test_plain_responses_have_no_first_token(serve: Serve) -> None:
    report = await run(plan(concurrency=1, requests=2, stream=False), transport=serve(REPLY))
    metrics = report.stages[0].summary.metrics
    assert (metrics["ttft"].count, metrics["e2e"].count) == (0, 2)
    assert report.stages[0].summary.output_tokens_per_second


@pytest.mark.parametrize("tokens", [64, 512, 4096])
async def test_prompts_are_calibrated_by_the_servers_usage(serve: Serve, tokens: int) -> None:
    """Here the server counts five tokens for four words, and 21 for its template."""

    def reply(request: ChatRequest) -> Reply:
        words = len(str(request.body["messages"][-1]["content"]).split())
        return Reply(tokens=1, usage={"prompt_tokens": round(words * 1.25) + 21})

    given = plan(concurrency=1, requests=3, workload=Workload(prompt_tokens=Length(tokens)), calibrate=True)
    report = await run(given, transport=serve(reply))
    assert report.tokens_per_word == pytest.approx(1.25)
    assert report.stages[0].summary.prompt_tokens_mean == pytest.approx(tokens, rel=0.02)
    assert report.stages[0].notices == []


async def test_lengths_that_were_missed_are_noticed(serve: Serve) -> None:
    reply = Reply(tokens=3, usage={"prompt_tokens": 32})
    report = await run(plan(concurrency=1, requests=2), transport=serve(reply))
    assert report.stages[0].notices == ["responses had 3.0 tokens on average, and 5.0 were requested"]


async def test_vllm_is_asked_for_exact_lengths(serve: Serve) -> None:
    server = serve(REPLY)
    await run(plan(concurrency=1, requests=1, profile="vllm"), transport=server)
    body = server.bodies[0]
    assert (body["max_tokens"], body["min_tokens"], body["ignore_eos"]) == (5, 5, True)


async def test_a_trace_is_replayed(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-01-01 00:00:01,40,3\n2023-01-01 00:00:03,50,4\n")
    report = await run(plan(trace=path, time_scale=0.5, workload=Workload()), transport=serve(REPLY))
    assert offsets(report, lambda record: record.due_ns) == [0, 1]
    assert [record.requested_output_tokens for record in report.records] == [3, 4]


@pytest.mark.parametrize("requests", [1, 3])
async def test_every_request_of_a_stage_without_a_duration_counts_for_its_rate(serve: Serve, requests: int) -> None:
    (stage,) = (await run(plan(concurrency=1, requests=requests), transport=serve(REPLY))).stages
    assert stage.summary.requests_per_second == pytest.approx(requests / stage.summary.seconds)
    (stage,) = (await run(plan(concurrency=1, requests=requests, warmup=60), transport=serve(REPLY))).stages
    assert stage.notices[0].startswith(f"nothing was measured: all {requests} requests were due in the warm-up")


async def test_a_malformed_trace_ends_the_run_with_its_line(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "2023-01-01 00:00:01,4,3\n" * 100 + "x,1,1\n")
    with pytest.raises(ValueError, match="row 101 is malformed"):
        await run(plan(trace=path, workload=Workload()), transport=serve(REPLY))
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    with pytest.raises(ValueError, match="there is no row in it"):
        await run(plan(trace=path, workload=Workload()), transport=serve(REPLY))


@pytest.mark.slow
async def test_a_report_is_saved_and_loaded(serve: Serve, tmp_path: Path) -> None:
    report = await run(plan(rate=[20, 40], duration=1, slos=["ttft:p90<1s"]), transport=serve(REPLY))
    report.save(tmp_path)
    assert load_report(tmp_path) == report
    assert names(tmp_path) == {"summary.json", "requests.jsonl", "vllm-0.json", "vllm-1.json"}
    text = (tmp_path / "summary.json").read_text()
    assert "api_key" not in text
    (tmp_path / "summary.json").write_text(text.replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(ValueError, match="use a newer chatscope"):
        load_report(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(ValueError, match="is not the summary of a load test"):
        load_report(tmp_path)


async def test_whatever_a_plan_holds_is_saved_and_keys_are_not(serve: Serve, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Hello"}\n')
    given = plan(
        base_url="http://user:password@server/v1",
        concurrency=(1,),
        requests=1,
        workload=Workload(prompts=prompts),
        parameters={
            "extra_headers": {"x-gateway": "sk-other"},
            "extra_query": {"code": "sk-third"},
            "stop": ("a", "b"),
        },
    )
    (await run(given, transport=serve(REPLY))).save(tmp_path)
    loaded = load_report(tmp_path).plan
    assert loaded["workload"]["prompts"] == str(prompts)
    assert loaded["base_url"] == "http://***@server/v1"
    assert loaded["parameters"] == {
        "extra_headers": {"x-gateway": "***"},
        "extra_query": {"code": "***"},
        "stop": ["a", "b"],
    }
    text = (tmp_path / "summary.json").read_text()
    assert not [key for key in ("password", "sk-other", "sk-third") if key in text]


async def test_vllms_result_has_its_keys_and_its_meaning(serve: Serve, tmp_path: Path) -> None:
    (await run(plan(concurrency=1, requests=4), transport=serve([error(500), REPLY]))).save(tmp_path)
    result = json.loads((tmp_path / "vllm.json").read_text())
    assert result.keys() == VLLM_KEYS
    assert (result["completed"], result["failed"], result["total_output_tokens"]) == (3, 1, 15)
    assert result["median_ttft_ms"] == pytest.approx(50, abs=1)
    assert result["ttfts"] == pytest.approx([0, 0.05, 0.05, 0.05], abs=1e-3)
    assert [len(gaps) for gaps in result["itls"]] == [0, 4, 4, 4]
    assert result["latencies"] == pytest.approx([0, 0.09, 0.09, 0.09], abs=1e-3)
    assert result["errors"][0] != ""


async def test_vllms_result_has_the_queue_of_a_limited_open_loop(serve: Serve, tmp_path: Path) -> None:
    given = plan(rate=1000, arrivals="constant", requests=3, max_concurrency=1)
    (await run(given, transport=serve(Reply(tokens=1, first_token=1)))).save(tmp_path)
    result = json.loads((tmp_path / "vllm.json").read_text())
    assert result["queue_times"] == pytest.approx([0, 1, 2], abs=0.01)
    assert result["mean_client_queue_time_ms"] == pytest.approx(1000, rel=0.01)
    assert result["mean_e2el_including_client_queue_ms"] == pytest.approx(2000, rel=0.01)
    assert result["mean_e2el_ms"] == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exactly one of concurrency, rate and trace"),
        ({"rate": 1, "concurrency": 1, "requests": 1}, "exactly one of concurrency, rate and trace"),
        ({"rate": 1}, "give requests or duration"),
        ({"rate": [], "requests": 1}, "at least one value"),
        ({"concurrency": 0, "requests": 1}, "concurrency"),
        ({"concurrency": 1, "requests": 1, "ramp": -1}, "ramp"),
        ({"rate": 1, "requests": 1, "cooldown": 1}, "cooldown needs duration"),
        ({"rate": 1, "duration": 3, "warmup": 2, "cooldown": 1}, "leave nothing of duration"),
        ({"concurrency": 1, "requests": 1, "max_concurrency": 2}, "max_concurrency is for open loops"),
        ({"search": "concurrency", "max_concurrency": 2, "slos": ["failed<1%"]}, "max_concurrency is for open loops"),
        ({"concurrency": 1, "requests": 1, "time_scale": 2}, "time_scale is for open loops"),
        ({"concurrency": 1, "requests": 1, "arrivals": "gamma"}, "arrivals is for a rate"),
        ({"rate": 1, "requests": 1, "burstiness": 0.5}, "burstiness is the shape of gamma arrivals"),
        ({"rate": 1, "requests": 1, "slos": ["ttft:p50<1s"], "stream": False}, "'ttft:p50<1s' needs streams"),
        ({"trace": Path("t.csv"), "ramp": 1}, "ramp is for a rate or concurrency"),
        ({"trace": Path("t.csv"), "workload": Workload(output_tokens=Length(9))}, "rows have lengths of their own"),
        ({"rate": 1, "requests": 1, "slos": ["ttft"]}, "slo 'ttft'"),
        ({"rate": 1, "requests": 1, "parameters": {"stream": False}}, "parameters must not have 'stream'"),
    ],
)
@pytest.mark.one_loop
def test_a_plan_that_cannot_be_right_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoadPlan(model="m", **values)


VLLM_KEYS = {
    *("date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate"),
    *("burstiness", "max_concurrency", "duration", "completed", "failed", "total_input_tokens", "total_output_tokens"),
    *("request_throughput", "request_goodput", "output_throughput", "total_token_throughput"),
    *("max_output_tokens_per_s", "max_concurrent_requests", "input_lens", "output_lens", "ttfts", "itls"),
    *("start_times", "generated_texts", "errors", "latencies", "queue_times", "rtfx"),
    *(f"{kind}_{name}_ms" for kind in ("mean", "median", "std", "p99") for name in ("ttft", "tpot", "itl", "e2el")),
}
