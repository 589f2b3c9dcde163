"""Every deadline, to the second, in virtual time: which phase it ends, and that nothing is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from chatscope import (
    APIConnectionError,
    APITimeoutError,
    AsyncChatGPTAdapter,
    Result,
    RetryPolicy,
    StreamServerError,
    Task,
    TaskConstraints,
    TaskStatus,
    Timeouts,
)
from chatscope.simulator import Framing, Part, Reply, Response, Stage, Stall, Wait, error, faults

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

Backend = tuple[str, dict[str, Any]]

ONCE = RetryPolicy(attempts=1)


@pytest.fixture
def anyio_backend(virtual_time: Backend) -> Backend:
    return virtual_time


def at_most(seconds: float) -> TaskConstraints:
    return TaskConstraints(timeout_seconds=seconds)


async def run(server: MemoryServer, task: Task, **options: Any) -> tuple[Result, float]:
    """Return a task's result and how long it took, in virtual seconds."""
    given: dict[str, Any] = {"retry": ONCE, **options}
    async with AsyncChatGPTAdapter("sk-1", transport=server, **given) as adapter:
        began = anyio.current_time()
        result = await adapter.execute(task)
        took = round(anyio.current_time() - began, 6)
    assert server.open == 0
    return result, took


def check(result: Result, phase: str, seconds: float, text: str = "") -> None:
    assert result.status is TaskStatus.FAILED
    assert isinstance(result.exception, APITimeoutError)
    assert result.exception.phase == phase
    assert f"{seconds:g} s" in str(result.exception)
    assert f"({phase})" in str(result.exception)
    assert result.exception.partial_text == result.output == text


# -- the whole task ----------------------------------------------------------------------------------------------------


async def test_total_by_the_tasks_own_constraint(serve: Serve) -> None:
    server = serve(Reply("Hello, world.", between_tokens=4))
    result, took = await run(server, Task("hi", constraints=at_most(9)))
    check(result, "total", 9, "Hello, world")
    assert took == 9
    assert result.exception is not None
    assert result.metadata["request_id"] == "req_1"


async def test_total_of_the_adapter(serve: Serve) -> None:
    result, took = await run(serve(faults.stall(1)), Task("hi"), timeout=Timeouts(total=5))
    check(result, "total", 5, "You")
    assert took == 5


async def test_the_tasks_own_constraint_goes_before_the_adapters(serve: Serve) -> None:
    result, took = await run(
        serve(faults.stall(1)), Task("hi", constraints=at_most(7)), timeout=Timeouts(total=5, read=None)
    )
    check(result, "total", 7, "You")
    assert took == 7


async def test_total_covers_a_plain_response(serve: Serve) -> None:
    server = serve(faults.stall(Stage.STATUS))
    result, took = await run(server, Task("hi", constraints=at_most(3), parameters={"stream": False}))
    check(result, "total", 3)
    assert took == 3


async def test_total_covers_the_attempts_and_the_waits(serve: Serve) -> None:
    server = serve([error(500), faults.stall(1)])
    policy = RetryPolicy(initial=4, jitter=0)
    result, took = await run(server, Task("hi", constraints=at_most(10)), retry=policy)
    check(result, "total", 10, "You")
    assert (took, result.attempts) == (10, 2)
    assert result.exception is not None
    assert [attempt.wait_seconds for attempt in result.attempts_log] == [4, None]


@pytest.mark.parametrize(
    ("answers", "parameters", "attempts", "text"),
    [
        ([faults.stall(Stage.STATUS)], {}, 1, ""),
        ([faults.stall(Stage.STATUS)], {"stream": False}, 1, ""),
        ([faults.stall(Stage.ROLE)], {}, 1, ""),
        ([faults.stall(2)], {}, 1, "You asked"),
        ([Reply("Hello, world.", between_tokens=4)], {}, 1, "Hello, world"),
        ([error(500, retry_after=4), faults.stall(1)], {}, 2, "You"),
    ],
    ids=["headers", "plain", "first token", "silence", "slow", "second attempt"],
)
@pytest.mark.parametrize("idle", [None, 30])
async def test_total_as_a_parameter_of_the_task(
    serve: Serve, answers: list[Any], parameters: dict[str, Any], attempts: int, text: str, idle: float | None
) -> None:
    task = Task("hi", parameters={**parameters, "timeout": Timeouts(total=9, idle=idle)})
    result, took = await run(serve(answers), task, retry=RetryPolicy(attempts=2))
    check(result, "total", 9, text)
    assert (took, result.attempts) == (9, attempts)


async def test_no_wait_is_begun_that_would_pass_the_tasks_total(serve: Serve) -> None:
    task = Task("hi", parameters={"timeout": Timeouts(total=9)})
    result, took = await run(serve(error(500, retry_after=10)), task, retry=RetryPolicy())
    assert (took, result.attempts) == (0, 1)
    assert "waiting 10 s would pass the deadline of 9 s" in str(result.error)


@pytest.mark.parametrize(
    ("constraint", "parameter", "adapters", "seconds"),
    [(9, Timeouts(total=5), 3, 5), (5, Timeouts(total=9), 3, 5), (None, Timeouts(total=9), 3, 9), (None, 30, 3, 3)],
)
async def test_the_sooner_total_of_the_task_goes_before_the_adapters(
    serve: Serve, constraint: float | None, parameter: float | Timeouts, adapters: float, seconds: float
) -> None:
    task = Task("hi", constraints=TaskConstraints(timeout_seconds=constraint), parameters={"timeout": parameter})
    result, took = await run(serve(faults.stall(1)), task, timeout=Timeouts(total=adapters))
    check(result, "total", seconds, "You")
    assert took == seconds


async def test_the_other_timeouts_beside_a_total_count(serve: Serve) -> None:
    task = Task("hi", parameters={"timeout": Timeouts(total=9, idle=4)})
    result, took = await run(serve(faults.stall(1)), task)
    check(result, "idle", 4, "You")
    assert took == 4


@pytest.mark.parametrize(
    "own",
    [{"constraints": at_most(5)}, {"parameters": {"timeout": Timeouts(total=5)}}],
    ids=["constraint", "parameter"],
)
async def test_queue(serve: Serve, own: dict[str, Any]) -> None:
    server = serve(faults.stall(1))
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=1, timeout=None) as adapter:
        blocker = adapter.start_task(Task("hi"))
        began = anyio.current_time()
        result = await adapter.execute(Task("hi", **own))
        assert anyio.current_time() - began == pytest.approx(5)
        check(result, "queue", 5)
        assert (result.attempts, len(server.requests)) == (0, 1)
        await blocker.cancel()


async def test_the_time_in_the_queue_counts(serve: Serve) -> None:
    server = serve(Reply("Hello, world.", first_token=4))
    async with AsyncChatGPTAdapter("sk-1", transport=server, max_concurrency=1) as adapter:
        first = adapter.start_task(Task("hi"))
        result = await adapter.execute(Task("hi", constraints=at_most(7)))
        assert (await first.wait()).success
    check(result, "total", 7)


async def test_a_deadline_is_no_cancellation(serve: Serve) -> None:
    """Whoever streams sees the error, and the siblings go on."""
    server = serve([Reply("Hello, world.", between_tokens=4), Reply("Hello, world.", between_tokens=6)])
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        hasty = adapter.start_task(Task("hi", constraints=at_most(6)))
        await server.wait_for_requests(1)
        patient = adapter.start_task(Task("hi"))
        texts: list[str] = []
        with pytest.raises(APITimeoutError, match="total"):
            texts.extend([text async for text in hasty.stream()])
        assert hasty.text == "Hello,"
        assert (await patient.wait()).success


async def test_infinity_is_no_deadline(serve: Serve) -> None:
    server = serve(Reply("Hello, world.", between_tokens=10_000))
    inf = float("inf")
    timeouts = Timeouts(connect=inf, first_token=inf, idle=inf, total=inf, read=inf)
    result, took = await run(server, Task("hi", constraints=at_most(inf)), timeout=timeouts)
    assert (result.success, took) == (True, 30_000)


# -- silence -----------------------------------------------------------------------------------------------------------


async def test_silence_before_the_headers(serve: Serve) -> None:
    result, took = await run(serve(faults.stall(Stage.STATUS)), Task("hi"))
    check(result, "headers", 60)
    assert took == 60


@pytest.mark.parametrize(("at", "phase", "text"), [(Stage.ROLE, "first_token", ""), (2, "idle", "You asked")])
async def test_silence_in_the_stream(serve: Serve, at: Stage | int, phase: str, text: str) -> None:
    result, took = await run(serve(faults.stall(at)), Task("hi"), timeout=7.5)
    check(result, phase, 7.5, text)
    assert took == 7.5


async def test_silence_is_broken_by_keep_alive_comments(serve: Serve) -> None:
    patient = faults.insert(faults.KEEP_ALIVE, times=20, seconds=30)
    result, took = await run(serve(Reply("Hello, world.", faults=(patient,))), Task("hi"))
    assert (result.success, took) == (True, 600)


async def test_silence_in_a_plain_response(serve: Serve) -> None:
    for at, phase in ((Stage.STATUS, "headers"), (Stage.CONTENT, "first_token")):
        result, _ = await run(serve(faults.stall(at)), Task("hi", parameters={"stream": False}), timeout=7)
        check(result, phase, 7)


async def test_none_waits_for_ever(serve: Serve) -> None:
    server = serve(Reply("Hello, world.", first_token=100_000))
    result, took = await run(server, Task("hi"), timeout=None)
    assert (result.success, took) == (True, 100_000)


async def test_connect(serve: Serve) -> None:
    def refuse(request: object) -> Reply:
        raise httpx.ConnectTimeout("too slow")

    server = serve(refuse)
    result, _ = await run(server, Task("hi"), timeout=Timeouts(connect=3))
    check(result, "connect", 3)
    assert server.requests[0].request.extensions["timeout"] == {"connect": 3, "read": 60.0, "write": 60.0, "pool": 60.0}


async def test_a_number_bounds_every_wait_of_the_transport(serve: Serve) -> None:
    for timeout, told in ((7.5, 7.5), (Timeouts(read=None), None), (None, None), (float("inf"), None)):
        server = serve()
        await run(server, Task("hi"), timeout=timeout)
        assert set(server.requests[0].request.extensions["timeout"].values()) == {told}


# -- the first token ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [Stage.STATUS, Stage.ROLE, 0])
async def test_first_token(serve: Serve, at: Stage | int) -> None:
    result, took = await run(serve(faults.stall(at)), Task("hi"), timeout=Timeouts(first_token=5))
    check(result, "first_token", 5)
    assert took == 5


async def test_first_token_is_not_moved_by_comments(serve: Serve) -> None:
    comments = faults.insert(faults.KEEP_ALIVE, times=100, seconds=1)
    result, took = await run(serve(comments), Task("hi"), timeout=Timeouts(first_token=5))
    check(result, "first_token", 5)
    assert took == 5


async def test_first_token_counts_from_the_beginning_of_each_attempt(serve: Serve) -> None:
    server = serve([faults.stall(0), Reply("Hello, world.", first_token=4)])
    policy = RetryPolicy(initial=3, jitter=0)
    result, took = await run(server, Task("hi"), timeout=Timeouts(first_token=5), retry=policy)
    assert (result.success, result.attempts, took) == (True, 2, 5 + 3 + 4)
    assert [attempt.error for attempt in result.attempts_log] == ["APITimeoutError", None]


async def test_first_token_says_nothing_about_later_ones(serve: Serve) -> None:
    server = serve(Reply("Hello, world.", first_token=4, between_tokens=50))
    result, took = await run(server, Task("hi"), timeout=Timeouts(first_token=5))
    assert (result.success, took) == (True, 154)


# -- idle --------------------------------------------------------------------------------------------------------------


async def test_idle(serve: Serve) -> None:
    result, took = await run(serve(faults.stall(2)), Task("hi"), timeout=Timeouts(idle=5))
    check(result, "idle", 5, "You asked")
    assert took == 5


async def test_idle_is_not_moved_by_comments(serve: Serve) -> None:
    comments = faults.insert(faults.KEEP_ALIVE, 2, times=100, seconds=1)
    result, took = await run(serve(comments), Task("hi"), timeout=Timeouts(idle=5))
    check(result, "idle", 5, "You asked")
    assert took == 5


async def test_idle_is_moved_by_every_chunk(serve: Serve) -> None:
    server = serve(Reply("Hello, world.", first_token=30, between_tokens=4))
    result, took = await run(server, Task("hi"), timeout=Timeouts(idle=5))
    assert (result.success, took) == (True, 30 + 12)


async def test_the_sooner_deadline_counts(serve: Serve) -> None:
    server = serve(faults.stall(2))
    result, took = await run(server, Task("hi", constraints=at_most(3)), timeout=Timeouts(idle=5))
    check(result, "total", 3, "You asked")
    assert took == 3


# -- after the last text -----------------------------------------------------------------------------------------------


def then_silent(*events: str) -> Response:
    """Return a stream whose events come one each half second, and after which the connection stays open."""
    steps = [step for event in events for step in (Part(f"data: {event}\n\n".encode()), Wait(0.5))]
    return Response(200, (("content-type", "text/event-stream"),), (*steps, Stall()), Framing.CHUNKED)


FIRST = '{"choices": [{"index": 0, "delta": {"content": "Hello, world."}, "finish_reason": null}]}'
WHOLE = FIRST.replace("null", '"stop"')
ERROR = '{"error": {"message": "out of luck"}}'
USAGE = '{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}'


@pytest.mark.parametrize(
    "answer", [Reply("Hello, world.", faults=(faults.stall(Stage.USAGE),)), then_silent(WHOLE)], ids=["", "in one read"]
)
async def test_a_stream_that_is_finished_and_falls_silent_is_complete(serve: Serve, answer: Any) -> None:
    """Some servers send neither usage nor [DONE] after the finish_reason, and keep the connection open."""
    result, took = await run(serve(answer), Task("hi"))
    assert (result.success, result.output, result.finish_reason) == (True, "Hello, world.", "stop")
    assert took == 5
    assert (result.tokens_used, result.cost) == (None, None)
    result, took = await run(serve(answer), Task("hi", constraints=at_most(3)))
    assert (result.success, result.output) == (True, "Hello, world.")
    assert took == pytest.approx(3, abs=0.1)


async def test_a_stream_that_finishes_without_output_has_its_first_token_behind_it(serve: Serve) -> None:
    empty = WHOLE.replace("Hello, world.", "")
    result, took = await run(serve(then_silent(empty)), Task("hi"), timeout=Timeouts(first_token=2))
    assert (result.success, result.output, took) == (True, "", 5)


async def test_usage_after_an_error_is_waited_for_a_while(serve: Serve) -> None:
    result, took = await run(serve(then_silent(FIRST, ERROR, USAGE)), Task("hi"))
    assert isinstance(result.exception, StreamServerError)
    assert (result.output, result.tokens_used, took) == ("Hello, world.", 3, 1.5)


@pytest.mark.parametrize(("times", "tokens", "seconds"), [(20, 11, 20), (100, None, 30)])
async def test_a_finished_stream_is_kept_alive_for_a_while(
    serve: Serve, times: int, tokens: int | None, seconds: int
) -> None:
    comments = faults.insert(faults.KEEP_ALIVE, Stage.USAGE, times=times, seconds=1)
    result, took = await run(serve(Reply("Hello, world.", faults=(comments,))), Task("hi"))
    assert (result.success, result.tokens_used, took) == (True, tokens, seconds)


@pytest.mark.parametrize("at", [Stage.USAGE, Stage.DONE])
async def test_a_response_that_is_finished_and_cut_off_is_not(serve: Serve, at: Stage) -> None:
    result, _ = await run(serve(Reply("Hello, world.", faults=(faults.reset(at),))), Task("hi"))
    assert (result.success, result.output) == (False, "Hello, world.")


async def test_done_ends_the_task_at_once(serve: Serve) -> None:
    result, took = await run(serve(Reply("Hello, world.", faults=(faults.stall(Stage.END),))), Task("hi"))
    assert (result.success, result.tokens_used, took) == (True, 11, 0)


async def test_silence_shorter_than_the_grace_counts_after_the_finish_too(serve: Serve) -> None:
    result, took = await run(serve(faults.stall(Stage.USAGE)), Task("hi"), timeout=2)
    assert (result.success, took) == (True, 2)


# -- errors that come late ---------------------------------------------------------------------------------------------


async def test_a_refusal_whose_body_never_comes_is_still_a_refusal(serve: Serve) -> None:
    refusal = error(400).interrupted(Stage.CONTENT, Wait(1_000))
    result, took = await run(serve(refusal), Task("hi"), timeout=6)
    assert isinstance(result.exception, Exception)
    assert (str(result.error).partition(" (POST")[0], took) == ("HTTP 400", 6)


async def test_closing_a_transport_that_hangs_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    monkeypatch.setattr(server, "aclose", anyio.sleep_forever)
    began = anyio.current_time()
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        assert (await adapter.execute(Task("hi"))).success
    assert anyio.current_time() - began == pytest.approx(2)


async def test_closing_a_response_that_hangs_is_given_up(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=_HangingClose(serve(faults.stall(1)))) as adapter:
        handle = adapter.start_task(Task("hi"))
        assert await anext(handle.stream()) == "You"
        began = anyio.current_time()
        assert await handle.cancel() is True
        assert anyio.current_time() - began == pytest.approx(2)


async def test_a_task_that_completes_while_it_is_cancelled_has_completed(serve: Serve) -> None:
    """The response was there in full; the order to cancel came while its connection was being closed."""
    async with AsyncChatGPTAdapter("sk-1", transport=_HangingClose(serve())) as adapter:
        task_id = await adapter.submit_task(Task("hi"))
        result = await adapter.get_result(task_id, timeout=0.5, cancel_on_timeout=True)
        assert (result.status, result.output) == (TaskStatus.COMPLETED, "Hello, world.")
        assert await adapter.cancel_task(task_id) is False


class _HangingClose(httpx.AsyncBaseTransport):
    """A transport whose responses never finish closing."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._server.handle_async_request(request)
        response.stream.aclose = anyio.sleep_forever  # type: ignore[union-attr, method-assign]  # one fault in one response
        return response


async def test_a_connection_error_is_no_timeout(serve: Serve) -> None:
    result, _ = await run(serve(faults.close(Stage.STATUS)), Task("hi"))
    assert type(result.exception) is APIConnectionError
    assert result.exception.phase is None
