"""A short soak: mixed faults, readers, cancellation, and nothing lost, delivered twice, wrong, or left behind.

The long one is `python -m benchmarks.soak`.
"""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("trustme", reason="the benchmarks' processes need it")

from benchmarks.scenarios.mishaps import MISHAPS, Server, kind_of, task_of, words_of, wrong_with
from benchmarks.scenarios.soak import Soak, what_was_seen
from benchmarks.scenarios.soak_report import Plan, Report, Seen
from chatscope import AsyncChatGPTAdapter, Platform, Result, Task, TaskStatus
from chatscope.simulator import Config, Reply, simulator

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

pytestmark = pytest.mark.slow

TASKS = 600
KEPT = 100


async def soaked(plan: Plan) -> Report:
    script = Server()
    server = simulator(script, Config(directives=False, keep_requests=1))

    async def ask_server() -> Seen:
        return what_was_seen(server, script)

    async with server as base_url:
        return await Soak(plan, ask_server).run(base_url)


async def test_nothing_is_lost_told_twice_wrong_or_left_behind() -> None:
    report = await soaked(Plan(TASKS, concurrency=50, keep_finished=KEPT))
    assert report.problems == []
    assert (report.lost, report.duplicates, report.wrong) == (0, 0, 0)
    assert report.kinds.total() == report.results.total() == TASKS
    assert set(report.kinds) >= MISHAPS.keys() - {"always 503"}, "the first tasks should meet nearly everything"
    assert report.known_at_the_end == KEPT
    assert report.transport["active"] == 0
    assert report.server["open_connections"] == 0


async def test_what_is_wrong_is_found() -> None:
    """The soak itself can fail: a server that answers the wrong thing now and then is noticed in each task."""

    class Confused(Server):
        def __call__(self, request: object) -> Reply:
            return Reply("something else")

    server = simulator(Confused(), Config(directives=False))

    async def ask_server() -> Seen:
        return what_was_seen(server, Server())

    # Without those that wait for the client to stop them: they would have come to their end.
    async with server as base_url:
        report = await Soak(Plan(20, concurrency=10, keep_finished=5), ask_server).run(base_url)
    assert report.wrong >= 15
    assert report.problems[0].startswith("task ")


def test_what_must_come_of_a_task_is_exact() -> None:
    number = next(number for number in range(1000) if kind_of(number) == "none")
    task = task_of(number)
    text = " ".join(words_of(number))
    right = Result(task, Platform.CHATGPT, text, success=True, status=TaskStatus.COMPLETED, attempts=1)
    assert wrong_with(number, right) is None
    assert "text" in (wrong_with(number, replace(right, output="reply")) or "")
    assert "requests" in (wrong_with(number, replace(right, attempts=2)) or "")
    assert "error" in (wrong_with(number, replace(right, exception=ValueError())) or "")
    assert "cancelled" in (wrong_with(number, replace(right, status=TaskStatus.CANCELLED)) or "")


WORD = "x" * 200 + " "
PARTS = 500
READERS = 100

TEXT_BYTES = 3 * len(WORD) * PARTS
"""The text, at the most, three times: in parts for the readers, as the result's output, and in its message."""

SLACK_BYTES = 150 * PARTS
"""What Python adds to a part: 49 bytes of a string's own, its place in a list, its time stamp; and the task itself."""


async def held(serve: Serve, readers: int) -> int:
    """Return the bytes that a task with a long text takes once it has ended, most of it unread by its readers."""
    async with AsyncChatGPTAdapter("key", transport=serve(Reply(WORD * PARTS))) as chat:
        (await chat.execute(Task("hi"))).raise_for_error()  # whatever is made at the first use is made
        tracemalloc.start()
        try:
            handle = chat.start_task(Task("hi"))
            streams = [handle.stream() for _ in range(readers)]
            for stream in streams:
                assert await anext(stream) == "x" * 200
            assert len((await handle.wait()).raise_for_error().output) == len(WORD) * PARTS
            gc.collect()
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()


async def test_absent_and_slow_readers_cost_no_more_than_the_text(serve: Serve) -> None:
    absent, slow = await held(serve, 0), await held(serve, READERS)
    assert absent < TEXT_BYTES + SLACK_BYTES
    assert slow - absent < 1024 * READERS  # a reader is its place in the text
