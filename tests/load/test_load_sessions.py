"""Sessions of several turns: what each turn sends, when it is due, and how a session ends early."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from chatscope.load import Length, LoadMonitor, LoadPlan, LoadReport, RequestRecord, Workload, run
from chatscope.simulator import ChatRequest, Reply, error
from chatscope.testing.loops import Backend

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

REPLY = Reply("Good question.", first_token=1, between_tokens=0)


@pytest.fixture
def anyio_backend(stamps_in_virtual_time: Backend) -> Backend:
    return stamps_in_virtual_time


def plan(workload: Workload | None = None, **values: Any) -> LoadPlan:
    workload = workload or Workload(prompt_tokens=Length(20), turns=3, think_time=4)
    given: dict[str, Any] = {"model": "m", "base_url": "http://server/v1", "api_key": "", "calibrate": False}
    return LoadPlan(workload=workload, **(given | values))


def in_order(report: LoadReport) -> list[RequestRecord]:
    return sorted(report.records, key=lambda record: record.index)


@pytest.mark.parametrize("stream", [True, False])
async def test_each_turn_sends_the_conversation_so_far(serve: Serve, stream: bool) -> None:
    server = serve(replace(REPLY, reasoning="It is not sent again."))
    report = await run(plan(concurrency=1, requests=7, stream=stream), transport=server)
    records = in_order(report)
    turns = [(record.session, record.turn) for record in records]
    assert turns == [("0", 0), ("0", 1), ("0", 2), ("1", 0), ("1", 1), ("1", 2), ("2", 0)]
    first, second, third, other = (body["messages"] for body in server.bodies[:4])
    assert [message["role"] for message in third] == ["user", "assistant", "user", "assistant", "user"]
    assert third[:3] == second
    assert second[:2] == [*first, {"role": "assistant", "content": "Good question."}]
    assert len(second[2]["content"].split()) == 20
    assert other[0] != first[0]
    requested = [record.requested_prompt_tokens for record in records[:3]]
    so_far = [(one.prompt_tokens or 0) + (one.output_tokens or 0) - (one.reasoning_tokens or 0) for one in records]
    assert requested == [20, so_far[0] + 20, so_far[1] + 20]
    assert records[0].reasoning_tokens


async def test_a_turn_is_due_when_the_user_has_thought(serve: Serve) -> None:
    """In a closed loop the slot is the user's, who thinks meanwhile."""
    report = await run(plan(concurrency=1, requests=4), transport=serve(REPLY))
    records = in_order(report)
    gaps = [(after.due_ns - (before.finished_ns or 0)) / 1e9 for before, after in itertools.pairwise(records)]
    assert gaps == pytest.approx([4, 4, 0], abs=1e-6)
    assert [record.dispatched_ns for record in records] == pytest.approx([record.due_ns for record in records], abs=2e6)


async def test_sessions_come_at_the_rate_of_requests_divided_by_their_turns(serve: Serve) -> None:
    report = await run(plan(rate=6, arrivals="constant", requests=12), transport=serve(REPLY))
    starts = [record.due_ns for record in in_order(report) if record.turn == 0]
    assert [(start - starts[0]) / 1e9 for start in starts] == [0, 0.5, 1, 1.5]
    assert report.stages[0].summary.ok == 12


async def test_equal_seeds_give_equal_sessions(serve: Serve) -> None:
    workload = Workload(prompt_tokens=Length(20, 5), turns=2, think_time=1)
    runs = []
    for _ in range(2):
        server = serve(REPLY)
        report = await run(plan(workload, rate=5, requests=8, seed=3, salt="s"), transport=server)
        records = in_order(report)
        runs.append((server.bodies, [(each.session, each.turn, each.due_ns - records[0].due_ns) for each in records]))
    assert runs[0][0] == runs[1][0]
    assert [turn[:2] for turn in runs[0][1]] == [turn[:2] for turn in runs[1][1]]
    assert [turn[2] for turn in runs[0][1][::2]] == [turn[2] for turn in runs[1][1][::2]], "first turns, exactly"


async def test_a_session_ends_with_a_turn_that_failed(serve: Serve) -> None:
    def reply(request: ChatRequest) -> Any:
        return error(500) if len(request.body["messages"]) == 3 else REPLY

    report = await run(plan(concurrency=1, requests=6), transport=serve(reply))
    assert [(record.session, record.turn, record.outcome) for record in in_order(report)] == [
        ("0", 0, "ok"),
        ("0", 1, "failed"),
        ("1", 0, "ok"),
        ("1", 1, "failed"),
    ]


async def test_the_end_of_a_stage_ends_its_sessions(serve: Serve) -> None:
    report = await run(plan(concurrency=1, duration=7), transport=serve(REPLY))
    assert [record.turn for record in in_order(report)] == [0, 1], "the third turn would be due at 10 s"


async def test_stopping_does_not_wait_for_users_who_think(serve: Serve) -> None:
    monitor = LoadMonitor()
    workload = Workload(prompt_tokens=Length(20), turns=2, think_time=1000)
    async with anyio.create_task_group() as group:

        async def stop() -> None:
            await anyio.sleep(3)
            assert monitor.stop()

        group.start_soon(stop)
        await run(plan(workload, concurrency=2, requests=8, grace=60), monitor=monitor, transport=serve(REPLY))
    assert anyio.current_time() < 4
    assert [record.outcome for record in monitor.records] == ["ok", "ok"]


async def test_conversations_of_a_file_keep_their_turns(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "sharegpt.json"
    rows = [["A1", "gpt", "A2", "gpt", "A3"], ["B1"], ["C1", "gpt", "C2"]]
    path.write_text(
        json.dumps(
            [
                {"conversations": [{"from": "gpt" if each == "gpt" else "human", "value": each} for each in row]}
                for row in rows
            ]
        )
    )
    server = serve(REPLY)
    await run(plan(Workload(prompts=path, turns=2), concurrency=1, requests=5), transport=server)
    asked = [[message["content"] for message in body["messages"][::2]] for body in server.bodies]
    assert asked == [["A1"], ["A1", "A2"], ["B1"], ["C1"], ["C1", "C2"]]


async def test_lines_of_a_file_follow_one_another(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(f'{{"prompt": "P{n}"}}\n' for n in range(4)))
    server = serve(REPLY)
    await run(plan(Workload(prompts=path, turns=2), concurrency=1, requests=4), transport=server)
    assert [body["messages"][-1]["content"] for body in server.bodies] == ["P0", "P1", "P2", "P3"]
    assert [len(body["messages"]) for body in server.bodies] == [1, 3, 1, 3]


async def test_the_sessions_of_a_trace_share_their_beginnings(serve: Serve, tmp_path: Path) -> None:
    """As the next turn of a conversation does. Their turns are due as recorded."""
    path = tmp_path / "burstgpt.csv"
    path.write_text(
        "Timestamp,Session ID,Model,Request tokens,Response tokens\n0,a,M,10,2\n1,b,M,12,2\n2,a,M,30,2\n9,,M,30,2\n"
    )
    server = serve(REPLY)
    report = await run(plan(Workload(), trace=path), transport=server)
    found = [(record.session, record.turn) for record in in_order(report)]
    assert found == [("a", 0), ("b", 0), ("a", 1), (None, 0)]
    first, other, second, alone = (body["messages"][0]["content"].split() for body in server.bodies)
    assert second[:10] == first
    assert [len(words) for words in (first, other, second, alone)] == [10, 12, 30, 30]
    assert other[:8] != first[:8]
    assert alone[:8] != second[:8]


@pytest.mark.one_loop
def test_sessions_that_cannot_be_right_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="turns"):
        Workload(turns=0)
    with pytest.raises(ValueError, match="think_time passes between the turns"):
        Workload(think_time=1)
    with pytest.raises(ValueError, match="turns must be 1 with a trace"):
        plan(Workload(turns=2), trace=tmp_path)
