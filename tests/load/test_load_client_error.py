"""The client's own error: what is compared with the simulator's stamps, the shape of that run, and its messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chatscope.load import Length, LoadPlan, RequestRecord, Workload
from chatscope.load.client_error import compare_stamps
from chatscope.load.messages import (
    BeginRun,
    MessageFrames,
    RequestEnded,
    StageEnded,
    StagePrepared,
    WorkerMessage,
    encode_message,
    encode_order,
)
from chatscope.load.schedule import WorkShare
from chatscope.load.self_test import shape_of
from chatscope.load.setup import RunSetup
from chatscope.load.verdict import WorkerEvidence
from chatscope.simulator.written import WrittenResponse, WrittenResponses

MS = 1_000_000
KEY = "sk-secret"

pytestmark = pytest.mark.one_loop


def record(index: int, **values: Any) -> RequestRecord:
    """Return a request that was due at 0, whose tokens were stamped 2, 4 and 3 ms late."""
    given: dict[str, Any] = {"due_ns": 0, "request_id": f"r{index}", "outcome": "ok", "finished_ns": 90 * MS}
    given["token_ns"] = [57 * MS, 69 * MS, 78 * MS]
    return RequestRecord(index=index, **(given | values))


def test_stamps_are_compared_token_by_token() -> None:
    written = WrittenResponse(arrived_ns=5 * MS, token_ns=[55 * MS, 65 * MS, 75 * MS])
    records = [
        record(0),
        record(1, token_ns=[1]),  # cut off: which token is which is not known
        record(2, window="warmup"),
        record(3, outcome="failed"),
        record(4, request_id="of another server"),
    ]
    responses = {f"r{index}": written for index in range(4)}
    error = compare_stamps(records, WrittenResponses(responses, 3, 0.0001, 0.003), "suspect")
    assert (error.tokens, error.verdict, error.simulator_held) == (3, "suspect", False)
    assert (error.stamp.minimum, error.stamp.percentile(50), error.stamp.maximum) == (0.002, 0.003, 0.004)
    assert error.ttft.percentile(50) == pytest.approx(0.007), "57 ms instead of the 50 that the server took"
    assert error.icl.minimum == pytest.approx(0.001)
    assert error.icl.maximum == pytest.approx(0.002)
    assert error.arrival.percentile(50) == pytest.approx(0.005)


def test_the_run_against_the_simulator_has_the_same_shape_and_nothing_of_the_server() -> None:
    given = LoadPlan(
        model="m",
        base_url="https://example.com/v1",
        api_key=KEY,
        profile="vllm",
        rate=[5, 10],
        duration=100,
        warmup=20,
        cooldown=10,
        ramp=10,
        workload=Workload(output_tokens=Length(30)),
        parameters={"temperature": 0, "extra_body": {"ignore_eos": True}},
        slos=["failed<1%"],
        seed=7,
    )
    shape = shape_of(given, "http://127.0.0.1:1/v1")
    assert (shape.rate, shape.workload, shape.seed) == ([5, 10], given.workload, 7)
    assert (shape.duration, shape.warmup, shape.cooldown, shape.ramp) == (10, 2, 1, 1)
    assert (shape.api_key, shape.profile, shape.parameters, shape.slos) == ("", None, {}, ())
    search = replace(given, rate=None, search="concurrency")
    assert shape_of(search, "http://127.0.0.1:1/v1").concurrency == 1


def test_messages_arrive_however_the_pipe_cuts_them() -> None:
    sent: list[WorkerMessage] = [
        StagePrepared(),
        RequestEnded(record(1), 2, 3),
        StageEnded(WorkerEvidence(worker=1, lags=[(1, 2)])),
    ]
    data = b"".join(map(encode_message, sent))
    for size in (1, 7, len(data)):
        frames = MessageFrames()
        parts = (data[start : start + size] for start in range(0, len(data), size))
        assert [message for part in parts for message in frames.feed(part)] == sent


def test_a_plan_that_no_process_can_be_given_is_refused() -> None:
    plan = LoadPlan(model="m", rate=1, requests=1, parameters={"metadata": lambda: None}, api_key=KEY)
    setup = RunSetup(plan=plan, workload=plan.workload)
    with pytest.raises(ValueError, match="cannot be handed to worker processes") as raised:
        encode_order(BeginRun(setup, WorkShare(), "asyncio"))
    assert KEY not in str(raised.value)
