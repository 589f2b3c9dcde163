"""From what happened to a result: what is unknown stays unknown, and no frame of a task is kept."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from chatscope import AsyncChatGPTAdapter, ChatError, RetryPolicy, Task, TaskCancelledError, TaskStatus
from chatscope._tasks.outcome import bill_for, without_frames
from chatscope.protocol.response import Completion
from chatscope.protocol.usage import Usage
from chatscope.simulator import Answer, ChatRequest, Reply, ToolCall, error, faults

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

pytestmark = pytest.mark.one_loop

TEN = Completion(usage=Usage(prompt_tokens=6, completion_tokens=4, total_tokens=10))
HALF = Completion(usage=Usage(prompt_tokens=6, total_tokens=10))  # the completion's are missing or unreadable
PROMPT = Completion(usage=Usage(prompt_tokens=10))
SILENT = Completion()
UNCOUNTED = Completion(usage=Usage())


@pytest.mark.parametrize(
    ("charged", "tokens", "cost"),
    [
        ([], None, None),
        ([TEN], 10, 1.0),
        ([TEN, TEN], 20, 2.0),
        ([TEN, None], None, None),
        ([SILENT, TEN], None, None),
        ([UNCOUNTED, TEN], None, None),
        ([UNCOUNTED], None, None),
        ([HALF], 10, None),
        ([TEN, HALF], 20, None),
        ([PROMPT], 10, 1.0),
    ],
)
def test_a_usage_that_is_not_known_makes_the_sums_unknown(
    charged: list[Completion | None], tokens: int | None, cost: float | None
) -> None:
    bill = bill_for(charged, "m", "https://here", lambda query: query.usage.total_tokens / 10)
    assert (bill.usage and bill.usage.total_tokens, bill.cost) == (tokens, cost)
    assert bill.reported_tokens == 10 * sum(charged.count(each) for each in (TEN, HALF, PROMPT))
    assert bill.is_charged is bool(charged)
    assert bill_for(charged, "m", "https://here", lambda _: None).cost is None


def adding(x: int) -> int:
    """Raise what a tool of a user raises."""
    return x // 0


class MuteError(Exception):
    def __str__(self) -> str:
        raise LookupError


@dataclass(frozen=True)
class FrozenError(Exception):
    text: str


@pytest.mark.parametrize(
    ("raised", "text"),
    [(MuteError(), "MuteError"), (FrozenError("hi"), "hi"), (TaskCancelledError("of another task"), "of another task")],
    ids=["no text", "frozen", "cancelled"],
)
async def test_whatever_a_tool_raises_its_task_has_failed_and_no_other(
    serve: Serve, raised: Exception, text: str
) -> None:
    def fails() -> None:
        raise raised

    calls = Reply(None, tool_calls=(ToolCall("fails", {}),))
    async with AsyncChatGPTAdapter("sk-1", transport=serve([calls, "well"]), max_concurrency=1) as adapter:
        results = await adapter.gather([Task("hi", tools=[fails], on_tool_error="raise"), Task("hi")])
    assert [(each.status, each.error) for each in results] == [(TaskStatus.FAILED, text), (TaskStatus.COMPLETED, None)]
    assert results[0].exception is raised


@pytest.mark.parametrize(
    ("answer", "task"),
    [
        (error(400), Task("hi")),
        (Reply("hi", faults=(faults.close(1),)), Task("hi")),
        (Reply(None, tool_calls=(ToolCall("adding", {"x": 1}),)), Task("hi", tools=[adding], on_tool_error="raise")),
    ],
    ids=["refused", "cut", "tool"],
)
async def test_a_failed_result_keeps_no_frame_and_can_be_copied_and_hashed(
    serve: Serve, answer: Answer, task: Task
) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve(answer), retry=RetryPolicy(attempts=1)) as adapter:
        result = await adapter.execute(task)
    chain = [result.exception]
    while chain[-1] is not None:
        assert chain[-1].__traceback__ is None
        chain.append(chain[-1].__cause__ or chain[-1].__context__)  # type: ignore[arg-type]  # an Exception here
    plain = result if not task.tools else replace(result, task=None)
    for other in (copy.copy(plain), copy.deepcopy(plain), pickle.loads(pickle.dumps(plain)), replace(plain)):
        assert (other, hash(other)) == (plain, hash(plain))
    for _ in range(2):
        with pytest.raises((ChatError, ZeroDivisionError)) as caught:
            result.raise_for_error()
        assert len(caught.traceback) == 2, "each raise begins anew"
    notes = getattr(result.exception, "__notes__", [])
    assert isinstance(result.exception, ChatError) or "in adding" in notes[0]


def test_causes_and_groups_lose_their_frames_too() -> None:
    class Held:
        pass

    def fail() -> tuple[Exception, weakref.ref[Held]]:
        held = Held()
        try:
            try:
                raise ExceptionGroup("several", [ValueError("inner")])
            except ExceptionGroup as group:
                raise ChatError("outer") from group
        except ChatError as failed:
            return failed, weakref.ref(held)

    failure, held = fail()
    assert without_frames(failure) is failure
    gc.collect()
    assert held() is None


async def test_what_a_request_may_have_cost_is_known_or_not(serve: Serve) -> None:
    """A refusal costs nothing; what was given up after output, or while the server worked, costs nobody knows what."""

    def answer(request: ChatRequest) -> Answer:
        if request.number > 1:
            return Reply("well")
        return error(503) if request.prompt == "refused" else Reply("cut", faults=(faults.close(1),))

    retry = RetryPolicy(initial=0.0, jitter=0.0, restart_unread=True)
    for prompt, is_known in (("refused", True), ("cut", False)):
        server = serve(answer)
        async with AsyncChatGPTAdapter("sk-1", transport=server, retry=retry) as adapter:
            result = await adapter.execute(Task(prompt))
            report = adapter.get_adapter_status()
        assert (result.output, result.attempts) == ("well", 2)
        assert (result.cost is not None, result.tokens_used is not None) == (is_known, is_known)
        assert (report["unpriced"], report["uncounted"]) == ((0, 0) if is_known else (1, 1))
        assert report["tokens"] > 0, "what was reported counts"
