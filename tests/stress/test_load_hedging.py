"""Hedging: what it is worth, exact in virtual time; and that the second attempt costs what it may and leaves nothing.

On three loops nothing waits for time: a response that is slow is one that a test holds back.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from statistics import quantiles
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from chatscope import (
    AsyncChatGPTAdapter,
    ChatTask,
    InternalServerError,
    Result,
    RetryPolicy,
    StreamServerError,
    Task,
    TaskConstraints,
    TaskStatus,
)
from chatscope._limits.circuit_breaker import DOWN_AFTER
from chatscope._limits.retry_budget import CAPACITY, RATIO
from chatscope.simulator import (
    Answer,
    ChatRequest,
    Outcome,
    Reply,
    Response,
    Stage,
    Until,
    UsageIn,
    error,
    faults,
    simulator,
)

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

ONCE = RetryPolicy(attempts=1)
AT_ONCE = RetryPolicy(initial=0.0, jitter=0.0)

SOON = 0.001
"""Seconds to the second attempt, where it is bound to come."""

HANGS = 30.0
"""Seconds after which a test counts as hanging."""

PROMPT_TOKENS = 8
"""What the simulator counts for the prompt "hi there"."""


class Gate:
    """Holds a response back, and knows when the client has read all that comes before."""

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self.opened = anyio.Event()

    async def wait(self) -> None:
        self.reached.set()
        await self.opened.wait()

    def before(self, at: Stage | int, response: Reply | Response) -> Any:
        """Return the response, held back at that point."""
        if isinstance(response, Response):
            return response.interrupted(at, Until(self))  # type: ignore[arg-type]  # it waits as an event does
        return replace(response, faults=(*response.faults, faults.hold(at, self)))  # type: ignore[arg-type]  # as above


def adapter(server: MemoryServer, **options: Any) -> AsyncChatGPTAdapter:
    given: dict[str, Any] = {"hedge_after": SOON, "retry": ONCE, **options}
    return AsyncChatGPTAdapter("key", transport=server, **given)


def hi(**options: Any) -> Task:
    return Task("hi there", **options)


async def result_of(task: ChatTask) -> Result:
    with anyio.fail_after(HANGS):
        return await task.wait()


def check_timings(result: Result) -> None:
    """What happened is in the order in which it must have happened."""
    timings = result.timings
    assert timings is not None
    assert timings.started_ns is not None
    assert timings.sent_ns is not None
    assert timings.headers_ns is not None
    assert timings.finished_ns is not None
    moments = [timings.submitted_ns, timings.started_ns, timings.sent_ns, timings.headers_ns]
    moments += [*timings.token_ns, timings.finished_ns]
    assert moments == sorted(moments)


class TestInVirtualTime:
    """trio's clock jumps ahead whenever everybody waits."""

    @pytest.fixture
    def anyio_backend(self, virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
        return virtual_time

    @pytest.mark.parametrize("hedge_after", [None, 0.1])
    async def test_the_slow_twentieth_is_overtaken(
        self, serve: Serve, hedge_after: float | None, record_property: Callable[[str, object], None]
    ) -> None:
        """The first token takes 50 ms, but 2 s for 5 % of 400 requests; 20 new tasks come each second."""
        chance = random.Random(4)

        def slow_now_and_then(_: ChatRequest) -> Answer:
            return Reply("ok", first_token=2.0 if chance.random() < 0.05 else 0.05)

        waits: list[float] = []
        results: list[Result] = []

        async def timed(task: ChatTask) -> None:
            began = anyio.current_time()
            async for _ in task.stream():
                waits.append(anyio.current_time() - began)
                break
            results.append(await task.wait())

        server = serve(slow_now_and_then)
        async with adapter(server, hedge_after=hedge_after) as chat, anyio.create_task_group() as group:
            for _ in range(400):
                group.start_soon(timed, chat.start_task(hi()))
                await anyio.sleep(0.05)
        percentile = quantiles(waits, n=100, method="inclusive")[98]
        more = len(server.requests) / 400 - 1
        record_property("outcome", f"99th percentile of the first token: {percentile:.3f} s, {more:.1%} more requests")
        assert len(waits) == 400
        assert {result.status for result in results} == {TaskStatus.COMPLETED}
        assert sum(result.attempts for result in results) == len(server.requests)
        assert server.open == 0
        if hedge_after is None:
            assert percentile == pytest.approx(2.0)
            assert more == 0
        else:
            assert percentile < 0.4
            assert 0.03 < more <= 0.08

    async def test_a_second_attempt_begins_exactly_then(self, serve: Serve) -> None:
        server = serve([Reply("slow", first_token=1.0), Reply("quick", first_token=0.25)])
        async with adapter(server, hedge_after=0.5) as chat:
            began = anyio.current_time()
            result = await chat.execute(hi())
        assert result.output == "quick"
        assert [moment - began for moment in server.times] == pytest.approx([0.0, 0.5])

    async def test_output_in_time_and_ends_in_time_need_no_second(self, serve: Serve) -> None:
        answers = [Reply("ok", first_token=0.4, between_tokens=5.0, tokens=3), Reply(""), error(400), error(500)]
        server = serve(answers)
        async with adapter(server, hedge_after=0.5) as chat:
            for _ in answers:
                assert (await chat.execute(hi())).attempts == 1
        assert len(server.requests) == 4

    async def test_with_an_empty_retry_budget_there_is_none(self, serve: Serve) -> None:
        server = serve(Reply("slow", first_token=1.0))
        async with adapter(server, hedge_after=0.5) as chat:
            chat._core.limiter.budget.tokens = 0.5
            assert (await chat.execute(hi())).output == "slow"
            assert chat.statistics().retry_tokens == pytest.approx(0.5 + RATIO)
        assert len(server.requests) == 1

    async def test_with_a_server_that_is_down_there_is_none(self, serve: Serve) -> None:
        server = serve([error(500)] * DOWN_AFTER + [Reply("slow", first_token=1.0)])
        async with adapter(server, hedge_after=0.5) as chat:
            for _ in range(DOWN_AFTER):
                assert not (await chat.execute(hi())).success
            assert (await chat.execute(hi())).output == "slow"
        assert len(server.requests) == DOWN_AFTER + 1

    @pytest.mark.parametrize("cancelled", [False, True])
    async def test_one_that_has_no_leave_yet_takes_nothing_out_of_the_budget(
        self, serve: Serve, cancelled: bool
    ) -> None:
        server = serve(Reply("slow", first_token=1.0))
        async with adapter(server, hedge_after=0.5, requests_per_minute=1) as chat:
            task = chat.start_task(hi())
            await anyio.sleep(0.75)
            assert chat.statistics().paced == 1
            if cancelled:
                assert await task.cancel()
            assert (await task.wait()).status is (TaskStatus.CANCELLED if cancelled else TaskStatus.COMPLETED)
            statistics = chat.statistics()
        assert (statistics.retry_tokens, statistics.paced, statistics.running) == (CAPACITY, 0, 0)
        assert (len(server.requests), server.open) == (1, 0)
        assert task.result is not None
        assert (task.result.attempts, len(task.result.attempts_log)) == (1, 1)

    async def test_the_deadline_passes_over_both(self, serve: Serve) -> None:
        server = serve(faults.stall(Stage.ROLE))
        async with adapter(server, hedge_after=0.5) as chat:
            began = anyio.current_time()
            result = await chat.execute(hi(constraints=TaskConstraints(timeout_seconds=2.0)))
            assert anyio.current_time() - began == pytest.approx(2.0)
            assert chat.statistics().running == 0
        assert (result.status, result.attempts, server.open) == (TaskStatus.FAILED, 2, 0)
        assert "total" in (result.error or "")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
async def test_the_second_overtakes(serve: Serve, stream: bool) -> None:
    gate = Gate()
    server = serve([gate.before(Stage.STATUS, Reply("slow")), Reply("quick")])
    async with adapter(server) as chat:
        result = await result_of(chat.start_task(hi(parameters={"stream": stream})))
        assert server.open == 0  # when the result is there, not some time later
        statistics = chat.statistics()
    assert result.raise_for_error().output == "quick"
    assert (result.attempts, len(server.requests)) == (2, 2)
    assert result.metadata["request_id"] == "req_2"
    assert (result.usage, result.tokens_used, result.cost) == (None, None, None), "what the slow one used is not known"
    assert (statistics.running, statistics.requests) == (0, 2)
    assert statistics.retry_tokens == pytest.approx(CAPACITY - 1 + RATIO)
    assert [(attempt.request_id, attempt.error is None) for attempt in result.attempts_log] == [
        (None, False),
        ("req_2", True),
    ]
    check_timings(result)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
async def test_the_first_stays_ahead(serve: Serve, stream: bool) -> None:
    first, second = Gate(), Gate()
    answers = [first.before(Stage.CONTENT if stream else Stage.STATUS, Reply("slow"))]
    server = serve([*answers, second.before(Stage.CONTENT, Reply("quick"))])
    async with adapter(server) as chat:
        task = chat.start_task(hi(parameters={"stream": stream}))
        with anyio.fail_after(HANGS):
            await second.reached.wait()  # the second's headers are there, and its request id
        first.opened.set()
        result = await result_of(task)
        assert server.open == 0
    assert result.raise_for_error().output == "slow"
    assert result.metadata["request_id"] == "req_1"
    assert (result.attempts, len(server.requests)) == (2, 2)
    assert [(attempt.status, attempt.request_id) for attempt in result.attempts_log] == [(200, "req_1"), (200, "req_2")]
    assert [attempt.error is None for attempt in result.attempts_log] == [True, False]
    check_timings(result)


async def test_readers_see_one_text(serve: Serve) -> None:
    gate = Gate()
    server = serve([gate.before(Stage.CONTENT, Reply("slow")), Reply("quick and whole")])
    async with adapter(server) as chat:
        with anyio.fail_after(HANGS):
            assert "".join([part async for part in chat.execute_streaming(hi())]) == "quick and whole"


async def test_the_sockets_of_those_who_lost_are_closed() -> None:
    server = simulator([faults.stall(Stage.ROLE), Reply("quick")])
    async with server as base_url, AsyncChatGPTAdapter("key", base_url=base_url, hedge_after=0.05, retry=ONCE) as chat:
        with anyio.fail_after(HANGS):
            result = await chat.execute(hi())
            assert result.raise_for_error().output == "quick"
            await server.wait_until(lambda s: s.requests[0].outcome is Outcome.DISCONNECTED)
            await server.wait_until(lambda s: s.requests[1].outcome is Outcome.COMPLETED)
            await server.wait_until(lambda s: s.connections_open == 1)  # idle, for the next request


@pytest.mark.parametrize("fails_first", [0, 1])
async def test_when_both_fail_the_error_is_that_of_the_first(serve: Serve, fails_first: int) -> None:
    gates = [Gate(), Gate()]
    server = serve([gates[0].before(Stage.STATUS, error(500)), gates[1].before(Stage.STATUS, error(503))])
    async with adapter(server) as chat:
        task = chat.start_task(hi())
        with anyio.fail_after(HANGS):
            for number in (fails_first, 1 - fails_first):
                await server.wait_for_requests(2)
                gates[number].opened.set()
                while server.open > 1:
                    await anyio.lowlevel.checkpoint()
        result = await result_of(task)
    failure = result.exception
    assert isinstance(failure, InternalServerError)
    assert (failure.status, failure.request_id, failure.attempts) == (500, "req_1", 2)
    assert (result.status, result.attempts, server.open) == (TaskStatus.FAILED, 2, 0)
    assert result.metadata["request_id"] == "req_1"
    assert [(attempt.status, attempt.error) for attempt in result.attempts_log] == [
        (500, "InternalServerError"),
        (503, "InternalServerError"),
    ]


@pytest.mark.parametrize(
    "fails",
    [
        lambda gate: gate.before(Stage.STATUS, error(500)),
        lambda gate: gate.before(Stage.ROLE, Reply(faults=(faults.stream_error(Stage.ROLE),))),
        lambda gate: gate.before(Stage.ROLE, Reply(faults=(faults.close(Stage.CONTENT),))),
        lambda gate: gate.before(Stage.ROLE, Reply(faults=(faults.only_done(),))),
    ],
    ids=["status", "error in the stream", "broken off", "no event at all"],
)
async def test_the_second_delivers_if_the_first_fails_meanwhile(serve: Serve, fails: Callable[[Gate], Answer]) -> None:
    first, second = Gate(), Gate()
    server = serve([fails(first), second.before(Stage.CONTENT, Reply("second"))])
    async with adapter(server) as chat:
        task = chat.start_task(hi())
        with anyio.fail_after(HANGS):
            await second.reached.wait()
            first.opened.set()
            while server.open > 1:
                await anyio.lowlevel.checkpoint()
            second.opened.set()
        result = await result_of(task)
    assert result.raise_for_error().output == "second"
    assert (result.attempts, result.metadata["request_id"], server.open) == (2, "req_2", 0)
    assert [attempt.error is None for attempt in result.attempts_log] == [False, True]


async def test_a_response_without_any_output_delivers_by_its_end(serve: Serve) -> None:
    gate = Gate()
    server = serve([gate.before(Stage.STATUS, Reply("slow")), Reply("")])
    async with adapter(server) as chat:
        result = await result_of(chat.start_task(hi()))
    assert (result.status, result.output, result.finish_reason) == (TaskStatus.COMPLETED, "", "stop")
    assert result.metadata["request_id"] == "req_2"
    assert server.open == 0


async def test_who_delivers_and_fails_afterwards_fails_the_task(serve: Serve) -> None:
    gate = Gate()
    answers = [gate.before(Stage.STATUS, Reply("slow")), Reply("a b c", faults=(faults.stream_error(2),))]
    server = serve(answers)
    async with adapter(server) as chat:
        result = await result_of(chat.start_task(hi()))
    assert isinstance(result.exception, StreamServerError)
    assert (result.output, result.exception.request_id, result.attempts) == ("a b", "req_2", 2)
    assert server.open == 0


async def test_each_second_attempt_takes_one_retry_of_the_budget(serve: Serve) -> None:
    gates = [Gate(), Gate(), Gate()]
    answers = [gates[0].before(Stage.STATUS, error(500)), gates[1].before(Stage.STATUS, error(503))]
    server = serve([*answers, gates[2].before(Stage.STATUS, Reply("slow")), Reply("at last")])
    async with adapter(server, retry=AT_ONCE) as chat:
        task = chat.start_task(hi())
        with anyio.fail_after(HANGS):
            await server.wait_for_requests(2)
        gates[0].opened.set()
        gates[1].opened.set()
        result = await result_of(task)
        statistics = chat.statistics()
    assert result.raise_for_error().output == "at last"
    assert (result.attempts, len(server.requests), server.open) == (4, 4, 0)
    assert statistics.retry_tokens == pytest.approx(CAPACITY - 3 + RATIO)  # two hedges and a retry
    assert [attempt.status for attempt in result.attempts_log] == [500, 503, None, 200]
    assert [attempt.wait_seconds for attempt in result.attempts_log] == [None, 0.0, None, None]


async def test_what_the_overtaken_attempt_used_counts_too(serve: Serve) -> None:
    first, second = Gate(), Gate()
    counted = Reply("slow", usage_in=UsageIn.EVERY)  # the first chunk tells the prompt's tokens
    server = serve([first.before(Stage.CONTENT, counted), second.before(Stage.STATUS, Reply("quick"))])
    async with adapter(server) as chat:
        task = chat.start_task(hi())
        with anyio.fail_after(HANGS):
            await first.reached.wait()
            second.opened.set()
        result = await result_of(task)
    assert result.raise_for_error().output == "quick"
    assert result.usage is not None
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (2 * PROMPT_TOKENS, 1)
    assert result.tokens_used == 2 * PROMPT_TOKENS + 1
    assert result.cost == pytest.approx((2 * PROMPT_TOKENS * 0.15 + 0.6) / 1e6)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
async def test_cancelled_during_the_race_both_are_closed(serve: Serve, stream: bool) -> None:
    first, second = Gate(), Gate()
    at = Stage.CONTENT if stream else Stage.STATUS
    server = serve([first.before(at, Reply("slow")), second.before(at, Reply("slow, too"))])
    async with adapter(server) as chat:
        task = chat.start_task(hi(parameters={"stream": stream}))
        with anyio.fail_after(HANGS):
            await second.reached.wait()
            assert await task.cancel()
        assert server.open == 0
        statistics = chat.statistics()
    assert (statistics.running, statistics.queued, statistics.paced, statistics.held_back) == (0, 0, 0, 0)
    assert statistics.retry_tokens == CAPACITY - 1
    assert task.result is not None
    assert (task.result.status, task.result.output, task.result.attempts) == (TaskStatus.CANCELLED, "", 2)
    assert len(task.result.attempts_log) == 2


async def test_cancelled_after_the_race_what_had_arrived_is_kept(serve: Serve) -> None:
    first, second = Gate(), Gate()
    server = serve([first.before(Stage.STATUS, Reply("slow")), second.before(2, Reply("a b c"))])
    async with adapter(server) as chat:
        task = chat.start_task(hi())
        with anyio.fail_after(HANGS):
            await second.reached.wait()
            assert server.open == 1  # the other is closed as soon as it has lost
            assert await task.cancel()
    assert task.result is not None
    assert (task.result.status, task.result.output) == (TaskStatus.CANCELLED, "a b")
    assert task.result.metadata["request_id"] == "req_2"
    assert server.open == 0
