"""Attempts and the waits between them, to the second, in virtual time."""

from __future__ import annotations

import logging
import time
from email.utils import formatdate
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from chatscope import (
    APIConnectionError,
    AsyncChatGPTAdapter,
    AuthenticationError,
    BadRequestError,
    ChatClient,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    RetryPolicy,
    StreamServerError,
    StreamTruncatedError,
    Task,
    TaskConstraints,
    TaskStatus,
    UnprocessableEntityError,
)
from chatscope.errors import APIStatusError
from chatscope.protocol.error_codes import QUOTA_CODES
from chatscope.simulator import Answer, ErrorShape, Received, Reply, Response, Stage, error, faults

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

Backend = tuple[str, dict[str, Any]]

EXACT = RetryPolicy(jitter=0)
"""The default policy without its random part."""


@pytest.fixture
def anyio_backend(virtual_time: Backend) -> Backend:
    return virtual_time


def adapter_for(server: MemoryServer, retry: RetryPolicy | None = EXACT) -> AsyncChatGPTAdapter:
    return AsyncChatGPTAdapter("sk-1", transport=server, retry=retry)


def waits(server: MemoryServer) -> list[float]:
    return [round(later - earlier, 6) for earlier, later in pairwise(server.times)]


# -- what is tried again -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
async def test_these_pass_by_themselves(serve: Serve, status: int) -> None:
    server = serve([error(status), Reply("Hello, world.")])
    async with adapter_for(server) as adapter:
        result = await adapter.execute(Task("hi"))
    assert (result.success, result.output, result.attempts) == (True, "Hello, world.", 2)
    assert waits(server) == [1]
    assert [attempt.status for attempt in result.attempts_log] == [status, 200]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (413, APIStatusError),
        (422, UnprocessableEntityError),
    ],
)
async def test_these_do_not(serve: Serve, status: int, kind: type[APIStatusError]) -> None:
    server = serve(error(status))
    async with adapter_for(server) as adapter:
        result = await adapter.execute(Task("hi"))
    assert (type(result.exception), result.attempts, len(server.requests)) == (kind, 1, 1)


async def test_no_retry_helps_an_exhausted_quota(serve: Serve) -> None:
    codes = sorted(QUOTA_CODES)
    server = serve([error(429, code=code, retry_after=1) for code in codes])
    async with adapter_for(server) as adapter:
        for code in codes:
            result = await adapter.execute(Task("hi"))
            assert isinstance(result.exception, QuotaExceededError), code
            assert (result.exception.code, result.attempts) == (code, 1)


@pytest.mark.parametrize(("status", "attempts"), [(429, 1), (500, 1), (503, 1)])
async def test_the_server_forbids_it(serve: Serve, status: int, attempts: int) -> None:
    server = serve(error(status, headers=(("x-should-retry", "false"),)))
    async with adapter_for(server) as adapter:
        assert (await adapter.execute(Task("hi"))).attempts == attempts


async def test_the_server_asks_for_it(serve: Serve) -> None:
    server = serve([error(400, headers=(("x-should-retry", "true"),)), Reply("Hello, world.")])
    async with adapter_for(server) as adapter:
        assert (await adapter.execute(Task("hi"))).attempts == 2


async def test_who_waits_for_a_server_that_refuses_connections(serve: Serve) -> None:
    def refuse(_: object) -> Reply:
        raise httpx.ConnectError("refused") from ConnectionRefusedError("refused")

    ask: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    rows: list[tuple[dict[str, Any], int]] = [
        ({}, 3),
        ({"retry": 5}, 5),
        ({"retry": RetryPolicy(refused_attempts=1)}, 1),
    ]
    for options, attempts in rows:
        async with ChatClient("k", transport=serve(refuse), backpressure=False) as client:
            begun = anyio.current_time()
            with pytest.raises(APIConnectionError) as caught:
                await client.complete(**ask, **options)
            assert caught.value.attempts == attempts
            if not options:
                assert 1.5 <= anyio.current_time() - begun <= 1.75, "a caller waits, as with the openai package"
    async with AsyncChatGPTAdapter("k", transport=serve(refuse), backpressure=False) as adapter:
        result = await adapter.execute("hi")
    assert result.attempts == 5, "a task waits out a restart"
    assert sum(attempt.wait_seconds or 0 for attempt in result.attempts_log) >= 7.5

    async with ChatClient("k", transport=serve(refuse)) as client:
        for _ in range(8):  # from the fourth on, the server counts as down
            begun = anyio.current_time()
            with pytest.raises(APIConnectionError, match="refused"):
                await client.complete(**ask)
            assert anyio.current_time() - begun <= 3.25

    def restart(request: Received) -> Answer:
        return refuse(request) if request.number in {2, 3} else error(503) if request.number == 1 else Reply("back")

    async with ChatClient("k", transport=serve(restart), backpressure=False) as client:
        assert (await client.complete(**ask)).text == "back", "only refused connections count"


@pytest.mark.parametrize("fault", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadTimeout, httpx.ReadError])
async def test_connection_failures_pass(serve: Serve, fault: type[httpx.RequestError]) -> None:
    def script(request: object) -> Reply:
        if len(server.requests) == 1:
            raise fault("once")
        return Reply("Hello, world.")

    server = serve(script)
    async with adapter_for(server) as adapter:
        result = await adapter.execute(Task("hi"))
    assert (result.output, result.attempts, waits(server)) == ("Hello, world.", 2, [1])


@pytest.mark.parametrize(
    "fault",
    [faults.zero_bytes(), faults.only_done(), faults.end(0), faults.reset(0), faults.stream_error(0, code="boom")],
    ids=lambda fault: fault.name,
)
async def test_a_stream_that_breaks_before_its_first_token_is_tried_again(serve: Serve, fault: faults.Fault) -> None:
    server = serve([fault, Reply("Hello, world.")])
    async with adapter_for(server) as adapter:
        result = await adapter.execute(Task("hi"))
    if fault.name == "stream-error":  # an error object without a status says nothing about whether it passes
        assert result.attempts in {1, 2}
    else:
        assert (result.output, result.attempts) == ("Hello, world.", 2)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faults.end(2), StreamTruncatedError),
        (faults.reset(2), StreamTruncatedError),
        (faults.stream_error(2, ErrorShape.INT_CODE, status=503), StreamServerError),
    ],
)
async def test_once_there_is_text_nothing_is_tried_again(
    serve: Serve, fault: faults.Fault, kind: type[Exception]
) -> None:
    server = serve([Reply("Hello, world.", faults=(fault,)), Reply("Another.")])
    async with adapter_for(server) as adapter:
        result = await adapter.execute(Task("hi"))
    assert (type(result.exception), result.output, result.attempts) == (kind, "Hello,", 1)


async def test_a_stream_error_before_the_first_token_goes_by_its_status(serve: Serve) -> None:
    for status, attempts in ((503, 2), (429, 2), (400, 1)):
        server = serve([faults.stream_error(0, ErrorShape.INT_CODE, status=status), Reply("Hello, world.")])
        async with adapter_for(server) as adapter:
            assert (await adapter.execute(Task("hi"))).attempts == attempts


# -- how often, how far apart ------------------------------------------------------------------------------------------


async def test_five_attempts_doubling(serve: Serve) -> None:
    server = serve(error(503))
    async with adapter_for(server) as adapter:
        result = await adapter.execute(Task("hi"))
    assert waits(server) == [1, 2, 4, 8]
    assert isinstance(result.exception, InternalServerError)
    assert (result.status, result.attempts, result.exception.attempts) == (TaskStatus.FAILED, 5, 5)
    assert result.error == str(result.exception)
    log = result.attempts_log
    assert [attempt.wait_seconds for attempt in log] == [1, 2, 4, 8, None]
    assert [attempt.status for attempt in log] == [503] * 5
    assert [attempt.error for attempt in log] == ["InternalServerError"] * 5
    assert [attempt.request_id for attempt in log] == [f"req_{number}" for number in range(1, 6)]
    assert all(one.started_seconds <= other.started_seconds for one, other in pairwise(log))
    assert all(attempt.duration_seconds >= 0 for attempt in log)


async def test_a_policy_of_ones_own(serve: Serve) -> None:
    server = serve(error(503))
    async with adapter_for(server, RetryPolicy(attempts=4, initial=10, max=25, jitter=0)) as adapter:
        assert (await adapter.execute(Task("hi"))).attempts == 4
    assert waits(server) == [10, 20, 25]


async def test_jitter_is_added_within_its_bound(serve: Serve) -> None:
    server = serve(error(503))
    async with adapter_for(server, None) as adapter:
        await adapter.execute(Task("hi"))
    for wait, base in zip(waits(server), [1, 2, 4, 8], strict=True):
        assert base <= wait <= base + 3


async def test_one_attempt_is_no_retry(serve: Serve) -> None:
    server = serve(error(503))
    async with adapter_for(server, RetryPolicy(attempts=1)) as adapter:
        assert (await adapter.execute(Task("hi"))).attempts == 1


async def test_a_plain_response_is_tried_again_too(serve: Serve) -> None:
    server = serve([error(503), faults.close(0), Reply("Hello, world.")])
    async with adapter_for(server) as adapter:
        result = await adapter.execute(Task("hi", parameters={"stream": False}))
    assert (result.output, result.attempts, waits(server)) == ("Hello, world.", 3, [1, 2])


# -- what the server asks for ------------------------------------------------------------------------------------------


def refused(*headers: tuple[str, str]) -> Response:
    return error(429, headers=headers)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ((("retry-after", "7"),), 7),
        ((("retry-after", "0.25"),), 0.25),
        ((("retry-after-ms", "1500"),), 1.5),
        ((("retry-after-ms", "1500"), ("retry-after", "7")), 1.5),
        ((("retry-after", "120"),), 120),
        ((("retry-after", "soon"),), 1),
        ((("retry-after", "-5"),), 1),
        ((("retry-after", "0"),), 1),
    ],
)
async def test_it_is_waited_exactly(serve: Serve, headers: tuple[tuple[str, str], ...], seconds: float) -> None:
    server = serve([refused(*headers), Reply("Hello, world.")])
    async with AsyncChatGPTAdapter("sk-1", transport=server, retry=EXACT) as adapter:
        result = await adapter.execute(Task("hi"))
    assert waits(server) == [seconds]
    assert [attempt.wait_seconds for attempt in result.attempts_log] == [seconds, None]


async def test_a_date_is_waited_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    server = serve([refused(("retry-after", formatdate(now + 30, usegmt=True))), Reply("Hello, world.")])
    async with adapter_for(server) as adapter:
        await adapter.execute(Task("hi"))
    assert waits(server) == [30]


async def test_more_than_two_minutes_are_not_waited(serve: Serve) -> None:
    server = serve(refused(("retry-after", "121")))
    async with adapter_for(server) as adapter:
        began = anyio.current_time()
        result = await adapter.execute(Task("hi"))
        assert anyio.current_time() == began
    assert isinstance(result.exception, RateLimitError)
    assert (result.attempts, result.exception.retry_after) == (1, 121)
    assert result.error == str(result.exception)
    assert "the server asks to wait 121 s, which is more than 120 s" in str(result.error)


async def test_a_wait_that_does_not_fit_the_deadline_is_not_begun(serve: Serve) -> None:
    server = serve(refused(("retry-after", "50")))
    async with adapter_for(server) as adapter:
        began = anyio.current_time()
        result = await adapter.execute(Task("hi", constraints=TaskConstraints(timeout_seconds=40)))
        assert anyio.current_time() == began
    assert isinstance(result.exception, RateLimitError)
    assert "waiting 50 s would pass the deadline of 40 s" in str(result.error)


async def test_a_backoff_that_does_not_fit_the_deadline_is_not_begun(serve: Serve) -> None:
    server = serve(error(503))
    async with adapter_for(server) as adapter:
        result = await adapter.execute(Task("hi", constraints=TaskConstraints(timeout_seconds=6)))
    assert waits(server) == [1, 2]
    assert isinstance(result.exception, ConflictError | InternalServerError)
    assert "waiting 4 s would pass the deadline of 6 s" in str(result.error)


# -- while it waits ----------------------------------------------------------------------------------------------------


async def test_a_task_is_cancelled_while_it_waits(serve: Serve) -> None:
    server = serve(error(503))
    async with adapter_for(server, RetryPolicy(initial=30, jitter=0)) as adapter:
        handle = adapter.start_task(Task("hi"))
        await anyio.sleep(10)
        assert handle.status is TaskStatus.RUNNING
        assert await handle.cancel() is True
        result = await handle.wait()
    assert (result.status, result.attempts, len(server.requests)) == (TaskStatus.CANCELLED, 1, 1)
    assert [attempt.error for attempt in result.attempts_log] == ["InternalServerError"]


async def test_each_wait_is_logged_with_the_tasks_id(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="chatscope")
    server = serve([error(429, "Slow down."), error(503, "Broken."), Reply("Hello, world.")])
    async with adapter_for(server) as adapter:
        handle = adapter.start_task(Task("hi"))
        await handle.wait()
    records = [record for record in caplog.records if record.name == "chatscope.retry"]
    assert [(record.levelname, record.getMessage()) for record in records] == [
        ("WARNING", f"{handle.id}: attempt 1 failed: RateLimitError: HTTP 429: Slow down.; next in 1 s"),
        ("INFO", f"{handle.id}: attempt 2 failed: InternalServerError: HTTP 503: Broken.; next in 2 s"),
    ]


async def test_the_error_of_the_last_attempt_is_the_result(serve: Serve) -> None:
    def script(request: object) -> Response:
        if len(server.requests) < 5:
            return error(503)
        raise httpx.ConnectError("gone")

    server = serve(script)
    async with adapter_for(server) as adapter:
        result = await adapter.execute(Task("hi"))
    assert type(result.exception) is APIConnectionError
    assert result.exception.attempts == 5
    assert isinstance(result.exception.__cause__, httpx.ConnectError)


# -- a server that is down ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "waits"),
    [
        (error(503), 1 + 2 + 4 + 8),
        (error(429, retry_after=0.5), 4 * 0.5),
        (error(429, retry_after=20), 4 * 20),
    ],
)
async def test_no_task_is_held_longer_than_its_own_attempts_and_waits_and_half_a_minute(
    serve: Serve, answer: Answer, waits: float
) -> None:
    server = serve(answer)
    ends: list[float] = []
    async with adapter_for(server) as adapter:
        began = anyio.current_time()

        async def run() -> None:
            result = await adapter.execute(Task("hi"))
            ends.append(anyio.current_time() - began)
            assert result.attempts == len(result.attempts_log)
            failure = result.exception if result.attempts else result.exception and result.exception.__cause__
            assert isinstance(failure, InternalServerError | RateLimitError)

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(run)
        assert max(ends) <= waits + 30
        for result in await adapter.gather([Task("hi")] * 100):
            assert result.attempts == len(result.attempts_log)
            if result.attempts == 0:
                assert isinstance(result.exception, APIConnectionError)
                assert isinstance(result.exception.__cause__, InternalServerError | RateLimitError)


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("hedge_after", [None, 100.0])
async def test_a_deadline_that_ends_a_task_names_the_server_s_last_failure(
    serve: Serve, streams: bool, hedge_after: float | None
) -> None:
    server = serve([error(503, message="overloaded"), faults.stall(Stage.HEADERS)])
    adapter = AsyncChatGPTAdapter("sk-1", transport=server, retry=EXACT, hedge_after=hedge_after)
    async with adapter:
        task = Task("hi", constraints=TaskConstraints(timeout_seconds=20), parameters={"stream": streams})
        result = await adapter.execute(task)
    assert result.error == "not finished within 20 s (total); last failure: HTTP 503: overloaded"
    assert result.exception is not None
    assert isinstance(result.exception.__cause__, InternalServerError)
    assert [(attempt.status, attempt.wait_seconds) for attempt in result.attempts_log] == [(503, 1.0), (None, None)]


async def test_a_deadline_behind_a_server_that_is_down_names_why(serve: Serve) -> None:
    async with adapter_for(serve(error(503))) as adapter:
        await adapter.gather([Task("hi")] * 20)
        result = await adapter.execute(Task("hi", constraints=TaskConstraints(timeout_seconds=1)))
        assert result.attempts == 0
        assert str(result.error).startswith("not started within 1 s (queue); last failure: HTTP 503")
        assert isinstance(result.exception.__cause__, InternalServerError) if result.exception else False
