"""What is retried, after how long, and what passes through unchanged."""

from __future__ import annotations

import asyncio
import errno
import inspect
import logging
import math
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
import stamina
import stamina.instrumentation
import stamina.typing
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.tables import each_row

from chatscope import errors
from chatscope._limits import stamina_hooks
from chatscope._limits.attempts import AttemptsLog
from chatscope._limits.retry import MAX_RETRY_AFTER, Retrier, RetryPolicy
from chatscope._limits.retry_decorators import retry_on_rate_limit, retry_on_transient
from chatscope._limits.timeouts import Deadline
from chatscope._limits.transient import is_transient
from chatscope.errors import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    ChatError,
    InternalServerError,
    QuotaExceededError,
    RateLimitError,
    StreamServerError,
    StreamTruncatedError,
)
from chatscope.protocol.error_meaning import status_error_class
from chatscope.telemetry.guard import Guard

AT_ONCE = RetryPolicy(attempts=4, initial=0, max=0, jitter=0)
NEVER = RetryPolicy(attempts=4, initial=1e9, max=1e9, jitter=0)


class Attempts:
    """Fails with each of some errors in turn, then succeeds with how often it was called."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = failures
        self.times: list[float] = []

    async def __call__(self) -> int:
        self.times.append(anyio.current_time())
        if len(self.times) <= len(self.failures):
            raise self.failures[len(self.times) - 1]
        return len(self.times)

    def logged(self, log: AttemptsLog) -> Callable[[], Awaitable[int]]:
        """Return the same, each call with an entry in a log."""

        async def attempt() -> int:
            record = log.start()
            try:
                return await self()
            finally:
                record.finish(None)

        return attempt

    @property
    def waits(self) -> list[float]:
        """The seconds between one call and the next."""
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


@pytest.mark.parametrize("name", ["initial", "max", "jitter"])
def test_a_policy_with_a_wait_that_is_none(name: str) -> None:
    wrong: list[Any] = [-1, -0.001, math.nan, math.inf, "1", None, True, [1]]
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^retry\.{name} must be a number of seconds, not "):
            RetryPolicy(**{name: value})


def test_a_policy_with_a_count_that_is_none() -> None:
    wrong: list[Any] = [0, -1, 1.0, 2.5, math.nan, "3", None, True]
    for value in wrong:
        with pytest.raises(ValueError, match=r"^retry\.attempts must be a whole number of at least 1, not "):
            RetryPolicy(attempts=value)
    with pytest.raises(ValueError, match=r"^retry\.refused_attempts must be a whole number of at least 1, not 0"):
        RetryPolicy(refused_attempts=0)


def test_the_policy_by_default() -> None:
    assert RetryPolicy() == RetryPolicy(attempts=5, initial=1.0, max=32.0, jitter=3.0, restart_unread=False)


def test_the_wait_doubles_up_to_the_longest() -> None:
    policy = RetryPolicy(jitter=0)
    assert [policy.backoff(failed) for failed in range(1, 9)] == [1, 2, 4, 8, 16, 32, 32, 32]
    assert policy.backoff(100_000) == 32
    assert RetryPolicy(initial=0, jitter=0).backoff(100) == 0


@given(st.just(0.0) | st.floats(1e-9, 1e6), st.floats(0, 1e6), st.floats(0, 1e6), st.integers(1, 2000))
@example(0.0, 1.0, 0.0, 1025)
def test_the_wait_stays_between_its_bounds(initial: float, longest: float, jitter: float, failed: int) -> None:
    wait = RetryPolicy(initial=initial, max=longest, jitter=jitter).backoff(failed)
    doubled = initial * 2.0 ** min(failed - 1, 1023)
    assert min(longest, doubled) <= wait <= min(longest, doubled + jitter)


def test_the_jitter_is_random() -> None:
    assert len({RetryPolicy().backoff(1) for _ in range(20)}) > 1


def test_which_statuses_pass_by_themselves() -> None:
    for status in range(400, 600):
        transient = status in {408, 409, 425, 429} or status >= 500
        kind = status_error_class(status)
        assert is_transient(kind(status=status)) is transient
        assert is_transient(StreamServerError(status=status)) is transient
        # What the server orders overrides its status, but no order fills an empty balance.
        assert is_transient(kind(status=status, should_retry=True)) is (kind is not QuotaExceededError)
        assert is_transient(kind(status=status, should_retry=False)) is False
    assert not is_transient(QuotaExceededError(status=429, should_retry=True))


def test_which_errors_without_a_status_pass_by_themselves() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ChatError)]
    assert {kind for kind in kinds if is_transient(kind())} == {
        APIConnectionError,
        APITimeoutError,
        StreamTruncatedError,
    }
    for error in (ValueError(), OSError(), TimeoutError(), RuntimeError(), ExceptionGroup("", [RateLimitError()])):
        assert not is_transient(error)


def test_after_a_refused_connection_the_first_wait_is_half_a_second() -> None:
    waits = [RetryPolicy().backoff(failed, is_refused=True) for failed in (1, 2, 3)]
    assert [0.5 <= waits[0] <= 0.625, 1 <= waits[1] <= 1.125, 2 <= waits[2] <= 2.125] == [True] * 3
    assert RetryPolicy(initial=0.1, jitter=0).backoff(1, is_refused=True) == 0.1


async def test_a_first_success_is_the_only_attempt() -> None:
    assert await Retrier(AT_ONCE).run(Attempts()) == 1


async def test_attempts_until_one_succeeds() -> None:
    attempts = Attempts(RateLimitError(status=429), APIConnectionError(), InternalServerError(status=503))
    assert await Retrier(AT_ONCE).run(attempts) == 4


async def test_the_last_error_is_raised_as_it_is() -> None:
    failures = [RateLimitError(f"{number}", status=429) for number in range(4)]
    attempts = Attempts(*failures)
    with pytest.raises(RateLimitError) as caught:
        await Retrier(AT_ONCE).run(attempts)
    assert caught.value is failures[-1]
    assert len(attempts.times) == 4
    assert str(caught.value) == "3"
    assert caught.value.__cause__ is None


@pytest.mark.one_loop
@pytest.mark.parametrize("error", [BadRequestError(status=400), QuotaExceededError(status=429), KeyError("bug")])
async def test_an_error_that_is_not_transient_is_raised_at_once(error: Exception) -> None:
    for before in (0, 2):
        attempts = Attempts(*[APIConnectionError()] * before, error)
        with pytest.raises(type(error)) as caught:
            await Retrier(NEVER if not before else AT_ONCE).run(attempts)
        assert caught.value is error
        assert len(attempts.times) == before + 1


async def test_a_policy_of_one_attempt_never_waits() -> None:
    attempts = Attempts(RateLimitError(status=429, retry_after=1e9))
    with pytest.raises(RateLimitError) as caught:
        await Retrier(RetryPolicy(attempts=1)).run(attempts)
    assert caught.value.not_retried is None
    assert len(attempts.times) == 1


async def test_the_predicate_may_be_another() -> None:
    attempts = Attempts(BadRequestError(), BadRequestError(), RateLimitError())
    with pytest.raises(RateLimitError):
        await Retrier(AT_ONCE).run(attempts, should_retry=lambda error: isinstance(error, BadRequestError))
    assert len(attempts.times) == 3


async def test_the_log_has_an_entry_for_each_request_and_no_other() -> None:
    retrier, calls = Retrier(AT_ONCE), []

    async def attempt() -> str:
        calls.append(retrier.failed)
        record = retrier.log.start()
        if len(calls) == 1:
            record.status, record.request_id = 400, "req_0"
            record.finish(BadRequestError())
            record.finish(None)  # only the first end counts
            record = retrier.log.start()  # a second request of the same attempt
            record.status, record.request_id = 429, "req_1"
            record.finish(error := RateLimitError(status=429))
            raise error
        record.status, record.request_id = 200, "req_2"
        record.finish(None)
        return "done"

    assert await retrier.run(attempt) == "done"
    assert calls == [0, 1]
    running = retrier.successor().log.start()
    attempts = [record.attempt(0) for record in retrier.log.so_far()]
    assert [(entry.status, entry.error, entry.request_id, entry.wait_seconds) for entry in attempts] == [
        (400, "BadRequestError", "req_0", None),
        (429, "RateLimitError", "req_1", 0.0),
        (200, None, "req_2", None),
        (None, None, None, None),
    ]
    assert attempts[3].duration_seconds < retrier.log.so_far()[3].attempt(0).duration_seconds
    running.finish(None)
    assert retrier.log.so_far()[3] == retrier.log.so_far()[3]
    starts = [entry.started_seconds for entry in attempts]
    assert starts == sorted(starts)


async def test_a_call_that_could_not_be_sent_again_ends_with_what_it_failed_with() -> None:
    retrier, failure, cause = Retrier(AT_ONCE), InternalServerError("HTTP 503", status=503), ValueError()
    failure.__cause__ = cause

    async def attempt() -> None:
        if not len(retrier.log):
            retrier.log.start().finish(failure)
            raise failure
        raise APIConnectionError("not sent: the server is down", should_retry=False)

    with pytest.raises(InternalServerError) as caught:
        await retrier.run(attempt)
    assert caught.value is failure
    assert failure.__cause__ is cause
    assert str(failure) == "HTTP 503 (not retried: the server is down)"
    assert len(retrier.log) == 1


async def test_on_retry_is_called_once_for_each_further_attempt() -> None:
    retrier, called = Retrier(AT_ONCE), []
    attempts = Attempts(APIConnectionError(), APIConnectionError())
    assert await retrier.run(attempts, on_retry=lambda: called.append(retrier.failed)) == 3
    assert called == [1, 2]


async def test_cancellation_during_an_attempt_is_neither_retried_nor_swallowed() -> None:
    for failures in (0, 1):
        began = 0
        retrier = Retrier(AT_ONCE)

        async def attempt(failures: int = failures) -> None:
            nonlocal began
            began += 1
            if began <= failures:
                raise APIConnectionError
            scope.cancel()
            await anyio.sleep_forever()

        with anyio.CancelScope() as scope:
            await retrier.run(attempt)
            pytest.fail("cancellation was swallowed")
        assert scope.cancelled_caught
        assert began == failures + 1


async def test_cancellation_during_a_wait_is_neither_retried_nor_swallowed() -> None:
    for policy, error in ((NEVER, APIConnectionError()), (AT_ONCE, RateLimitError(status=429, retry_after=119.0))):
        attempts = Attempts(error)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(Retrier(policy).run, attempts)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        assert len(attempts.times) == 1


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})])
async def test_a_host_s_own_cancellation_on_asyncio() -> None:
    for attempts in (Attempts(asyncio.CancelledError()), Attempts(APIConnectionError())):
        task = asyncio.create_task(Retrier(NEVER).run(attempts))
        await anyio.wait_all_tasks_blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert len(attempts.times) == 1


class TestWaits:
    """Exact waits, in virtual time."""

    @pytest.fixture
    def anyio_backend(self, virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
        return virtual_time

    async def test_the_backoff_is_waited(self) -> None:
        attempts = Attempts(*[APIConnectionError()] * 3)
        retrier = Retrier(RetryPolicy(attempts=4, initial=1.5, max=5, jitter=0))
        assert await retrier.run(attempts.logged(retrier.log)) == 4
        assert attempts.waits == pytest.approx([1.5, 3, 5])
        assert [record.wait_seconds for record in retrier.log.so_far()] == [1.5, 3, 5, None]

    @pytest.mark.parametrize("seconds", [0.001, 7.25, MAX_RETRY_AFTER])
    async def test_what_the_server_asks_for_is_waited_exactly(self, seconds: float) -> None:
        attempts = Attempts(
            RateLimitError(status=429, retry_after=seconds), InternalServerError(status=503, retry_after=seconds)
        )
        assert await Retrier(RetryPolicy(attempts=3, initial=2, max=3, jitter=1)).run(attempts) == 3
        assert attempts.waits == pytest.approx([seconds, seconds], rel=1e-9)

    @pytest.mark.parametrize("seconds", [120.001, 3600, 1e12])
    async def test_more_than_two_minutes_are_not_waited(self, seconds: float) -> None:
        error = RateLimitError("HTTP 429", status=429, retry_after=seconds)
        attempts = Attempts(error)
        with pytest.raises(RateLimitError) as caught:
            await Retrier(RetryPolicy()).run(attempts)
        assert caught.value is error
        assert str(error) == f"HTTP 429 (not retried: the server asks to wait {seconds:g} s, which is more than 120 s)"
        assert len(attempts.times) == 1

    async def test_a_backoff_may_be_longer_than_that(self) -> None:
        attempts = Attempts(APIConnectionError())
        assert await Retrier(RetryPolicy(attempts=2, initial=500, max=500, jitter=0)).run(attempts) == 2
        assert attempts.waits == pytest.approx([500])

    async def test_a_wait_that_fits_the_deadline_is_waited(self) -> None:
        deadline = Deadline(anyio.current_time() + 5.01, "total", 5.01)
        attempts = Attempts(RateLimitError(status=429, retry_after=5.0))
        assert await Retrier(RetryPolicy(), deadline=deadline).run(attempts) == 2

    @pytest.mark.parametrize("retry_after", [5.0, None])
    async def test_a_wait_that_would_pass_the_deadline_is_not_begun(self, retry_after: float | None) -> None:
        began = anyio.current_time()
        error = RateLimitError("HTTP 429", status=429, retry_after=retry_after)
        attempts = Attempts(error)
        with pytest.raises(RateLimitError) as caught:
            await Retrier(RetryPolicy(initial=5, jitter=0), deadline=Deadline(began + 5.0, "total", 5.0)).run(attempts)
        assert caught.value is error
        assert str(error) == "HTTP 429 (not retried: waiting 5 s would pass the deadline of 5 s)"
        assert anyio.current_time() == began
        assert len(attempts.times) == 1

    async def test_what_is_left_of_the_deadline_counts(self) -> None:
        deadline = Deadline(anyio.current_time() + 10, "total", 10)
        attempts = Attempts(*[APIConnectionError() for _ in range(9)])
        with pytest.raises(APIConnectionError, match="not retried: waiting 8 s would pass the deadline of 10 s"):
            await Retrier(RetryPolicy(attempts=9, initial=1, jitter=0), deadline=deadline).run(attempts)
        assert attempts.waits == pytest.approx([1, 2, 4])

    async def test_the_decorators_waits(self) -> None:
        attempts = Attempts(
            RateLimitError(status=429), RateLimitError(status=429, retry_after=40), RateLimitError(status=429)
        )
        assert await retry_on_rate_limit(4, 1.0, 3.0, 0.0)(attempts)() == 4
        assert attempts.waits == pytest.approx([1, 40, 3])
        attempts = Attempts(APIConnectionError(), APIConnectionError())
        assert await retry_on_transient(3, 0.5, 10.0)(attempts)() == 3
        first, second = attempts.waits
        assert 0.5 <= first <= 1.0
        assert 1.0 <= second <= 1.5


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "chatscope.retry"]


async def test_each_wait_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    attempts = Attempts(
        RateLimitError("HTTP 429: slow", status=429), APIConnectionError("no route"), BadRequestError("no")
    )
    with pytest.raises(BadRequestError):
        await Retrier(AT_ONCE, label="chatgpt_1").run(attempts)
    assert logged(caplog) == [
        (logging.WARNING, "chatgpt_1: attempt 1 failed: RateLimitError: HTTP 429: slow; next in 0 s"),
        (logging.INFO, "chatgpt_1: attempt 2 failed: APIConnectionError: no route; next in 0 s"),
    ]


async def test_the_decorators_log_at_their_own_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def slow() -> int:
        return await rate_limited()

    async def flaky() -> int:
        return await unreachable()

    rate_limited, unreachable = Attempts(RateLimitError("a", status=429)), Attempts(APIConnectionError("b"))
    assert await retry_on_rate_limit(initial_wait=0, jitter=0)(slow)() == 2
    assert await retry_on_transient(initial_wait=0)(flaky)() == 2
    here = "test_the_decorators_log_at_their_own_level.<locals>"
    assert logged(caplog) == [
        (logging.WARNING, f"{here}.slow: attempt 1 failed: RateLimitError: a; next in 0 s"),
        (logging.INFO, f"{here}.flaky: attempt 1 failed: APIConnectionError: b; next in 0 s"),
    ]


async def test_how_often_the_decorators_try() -> None:
    for decorate, failure, other, most in (
        (retry_on_rate_limit(initial_wait=0, jitter=0), RateLimitError(status=429), InternalServerError(status=500), 5),
        (retry_on_transient(initial_wait=0), InternalServerError(status=500), RateLimitError(status=429), 3),
        (retry_on_rate_limit(1), RateLimitError(status=429), APIConnectionError(), 1),
        (retry_on_transient(2, 0), StreamTruncatedError(), QuotaExceededError(status=429), 2),
    ):
        attempts = Attempts(*[failure] * 9)
        with pytest.raises(type(failure)) as caught:
            await decorate(attempts)()
        assert caught.value is failure
        assert len(attempts.times) == failure.attempts == most
        for never in (other, QuotaExceededError(status=429), BadRequestError(status=400), ValueError()):
            attempts = Attempts(never)
            with pytest.raises(type(never)):
                await decorate(attempts)()
            assert len(attempts.times) == 1


FAILURES: dict[Exception, bool] = {
    TimeoutError(): True,
    ConnectionRefusedError(errno.ECONNREFUSED, "refused"): True,
    ConnectionResetError(errno.ECONNRESET, "reset"): True,
    httpx.ConnectTimeout("slow"): True,
    httpx.ReadTimeout("slow"): True,
    httpx.ConnectError("refused"): True,
    httpx.RemoteProtocolError("Server disconnected without sending a response."): True,
    httpx.RemoteProtocolError("peer closed connection without sending complete message body"): True,
    type("NetworkError", (Exception,), {"__module__": "httpx2"})("lost"): True,
    httpx.RemoteProtocolError("illegal status line: bytearray(b'SSH-2.0-OpenSSH_9.6')"): False,
    httpx.LocalProtocolError("Illegal header value"): False,
    httpx.UnsupportedProtocol("ftp"): False,
    httpx.InvalidURL(""): False,
    OSError(): False,
    FileNotFoundError(): False,
}
"""Errors of others, and whether the decorator for connections retries them."""

CAUSES: dict[BaseException, bool] = {
    ConnectionRefusedError(errno.ECONNREFUSED, "refused"): True,
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"): True,
    socket.gaierror(socket.EAI_NONAME, "Name or service not known"): False,
    ssl.SSLCertVerificationError(1, "certificate verify failed"): False,
    ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"): False,
    ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC] bad record mac"): True,
    ssl.SSLEOFError(8, "EOF occurred in violation of protocol"): True,
}
"""What a connection failed with, and whether the next one may do better."""


async def test_which_errors_of_others_the_decorators_retry() -> None:
    failures = dict(FAILURES)
    for cause, retried in CAUSES.items():
        wrapped = httpx.ConnectError("no")
        wrapped.__context__ = cause
        failures[wrapped] = retried
        grouped = ConnectionError("all addresses failed")
        grouped.__cause__ = BaseExceptionGroup("", [OSError("other address"), cause])
        failures[grouped] = retried
    for failure, retried in failures.items():
        attempts = Attempts(failure)
        if retried:
            assert await retry_on_transient(initial_wait=0)(attempts)() == 2
        else:
            with pytest.raises(type(failure)) as caught:
                await retry_on_transient(initial_wait=0)(attempts)()
            assert caught.value is failure
        with pytest.raises(type(failure)):
            await retry_on_rate_limit(initial_wait=0)(Attempts(failure))()


async def test_an_error_that_counts_more_requests_keeps_its_count() -> None:
    error = InternalServerError(status=500)
    error.attempts = 5
    with pytest.raises(InternalServerError):
        await retry_on_transient(1)(Attempts(error))()
    assert error.attempts == 5


async def test_a_decorated_function_stays_what_it_is() -> None:
    @retry_on_transient()
    async def add(one: int, *, other: int = 1) -> int:
        """Add two numbers."""
        return one + other

    assert add.__name__ == "add"
    assert add.__doc__ == "Add two numbers."
    assert list(inspect.signature(add).parameters) == ["one", "other"]
    assert inspect.iscoroutinefunction(add)
    assert await add(1, other=2) == 3
    assert await add(5) == 6


async def test_calls_of_a_decorated_function_do_not_share_their_count() -> None:
    failures: dict[str, int] = {}

    @retry_on_transient(2, 0)
    async def call(name: str) -> None:
        failures[name] = failures.get(name, 0) + 1
        await anyio.lowlevel.checkpoint()
        raise APIConnectionError(name)

    async def expect(name: str) -> None:
        with pytest.raises(APIConnectionError, match=name):
            await call(name)

    async with anyio.create_task_group() as group:
        for name in ("a", "b", "c"):
            group.start_soon(expect, name)
    assert failures == {"a": 2, "b": 2, "c": 2}


@each_row(
    ("decorator", "arguments", "named"),
    [
        (retry_on_rate_limit, {"max_attempts": 0}, "max_attempts"),
        (retry_on_rate_limit, {"initial_wait": -1}, "initial_wait"),
        (retry_on_rate_limit, {"max_wait": math.nan}, "max_wait"),
        (retry_on_rate_limit, {"jitter": "1"}, "jitter"),
        (retry_on_transient, {"max_attempts": 1.5}, "max_attempts"),
        (retry_on_transient, {"initial_wait": None}, "initial_wait"),
        (retry_on_transient, {"max_wait": math.inf}, "max_wait"),
        (retry_on_transient, {"max_attempts": len}, "max_attempts"),  # used without its parentheses
    ],
)
def test_a_decorator_s_argument_that_is_out_of_range(
    decorator: Callable[..., Any], arguments: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=rf"^{named} must be "):
        decorator(**arguments)


@pytest.fixture
def restored() -> Iterator[None]:
    """Leave stamina's process-wide settings as they were."""
    yield
    stamina.set_testing(testing=False)
    stamina.set_active(active=True)
    stamina.instrumentation.set_on_retry_hooks(None)


async def test_stamina_s_settings_are_not_touched() -> None:
    def settings() -> tuple[object, ...]:
        return stamina.is_active(), stamina.is_testing(), stamina.instrumentation.get_on_retry_hooks()

    before = settings()
    assert await retry_on_transient(initial_wait=0)(Attempts(APIConnectionError()))() == 2
    assert settings() == before == (True, False, before[2])


QUIET = """
import anyio, stamina
from chatscope import RateLimitError, retry_on_rate_limit

calls = []

async def call():
    calls.append(1)
    if len(calls) < 3:
        raise RateLimitError("HTTP 429", status=429)

async def main():
    await retry_on_rate_limit(initial_wait=0, jitter=0)(call)()
    calls.clear()
    await stamina.retry(on=RateLimitError, wait_initial=0, wait_jitter=0)(call)()

anyio.run(main)
"""


def test_without_logging_a_retry_prints_no_line_of_another_library() -> None:
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=True)
    ours, theirs = done.stderr.splitlines()[:2], done.stderr.splitlines()[2:]
    assert [line.split(":")[1].strip() for line in ours] == ["attempt 1 failed", "attempt 2 failed"]
    assert theirs == ["stamina.retry_scheduled"] * 2  # what another user of stamina gets, as before


@pytest.mark.skipif(find_spec("structlog") is None, reason="structlog is not installed")
@pytest.mark.parametrize("configured", [False, True])
def test_without_structlog_s_configuration_a_retry_prints_no_line_of_another_library(configured: bool) -> None:
    code = f"import structlog\n{'structlog.configure()' if configured else ''}\n{QUIET}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stderr.splitlines()) == 2
    assert done.stdout.count("stamina.retry_scheduled") == 2 * (1 + configured)


@pytest.mark.parametrize("configured", [False, True])
async def test_stamina_s_hook_for_structlog_is_left_out_alone(
    monkeypatch: pytest.MonkeyPatch, restored: None, configured: bool
) -> None:
    heard: list[tuple[str, int, float, float]] = []

    def hook(name: str) -> stamina.typing.RetryHook:
        @contextmanager
        def until_the_retry(details: stamina.instrumentation.RetryDetails) -> Iterator[None]:
            heard.append((name, details.retry_num, details.wait_for, details.waited_so_far))
            yield
            heard.append((f"end of {name}", details.retry_num, 0.0, 0.0))

        until_the_retry.__module__ = f"stamina.instrumentation._{name}"
        return until_the_retry

    monkeypatch.setitem(sys.modules, "structlog", SimpleNamespace(is_configured=lambda: configured))
    stamina.instrumentation.set_on_retry_hooks([hook("mine"), hook("structlog")])
    policy = RetryPolicy(initial=0.01, max=0.01, jitter=0)
    assert await Retrier(policy).run(Attempts(APIConnectionError(), APIConnectionError())) == 3
    mine = [entry for entry in heard if entry[0].endswith("mine")]
    assert mine == [
        ("mine", 1, 0.01, 0.0),
        ("end of mine", 1, 0.0, 0.0),
        ("mine", 2, 0.01, 0.01),
        ("end of mine", 2, 0.0, 0.0),
    ]
    assert len(heard) == len(mine) * (1 + configured)


async def test_with_logging_stamina_s_hook_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    assert await Retrier(AT_ONCE).run(Attempts(APIConnectionError())) == 2
    assert "stamina.retry_scheduled" in caplog.messages


async def test_stamina_s_hooks_are_told(restored: None) -> None:
    told: list[stamina.instrumentation.RetryDetails] = []

    def hook(details: stamina.instrumentation.RetryDetails) -> None:
        told.append(details)

    stamina.instrumentation.set_on_retry_hooks([hook])
    failures = [APIConnectionError(), RateLimitError(status=429)]
    assert await Retrier(AT_ONCE).run(Attempts(*failures)) == 3
    assert [(details.retry_num, details.caused_by, details.wait_for) for details in told] == [
        (1, failures[0], 0.0),
        (2, failures[1], 0.0),
    ]


async def test_stamina_s_hooks_that_fail_are_logged_and_touch_no_retry(
    restored: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamina_hooks, "_guard", Guard())  # the one of the process may have logged these before

    def raises(details: stamina.instrumentation.RetryDetails) -> None:
        raise asyncio.CancelledError

    @contextmanager
    def raises_at_the_end(details: stamina.instrumentation.RetryDetails) -> Iterator[None]:
        yield
        raise LookupError

    def is_no_factory() -> stamina.typing.RetryHook:
        raise LookupError

    for hooks in ([raises, raises_at_the_end], [stamina.instrumentation.RetryHookFactory(is_no_factory)]):
        stamina.instrumentation.set_on_retry_hooks(hooks)
        assert await Retrier(AT_ONCE).run(Attempts(APIConnectionError(), APIConnectionError())) == 3
    logged = [
        record.message.partition(" raised")[0] for record in caplog.records if record.name == "chatscope.callbacks"
    ]
    name = "stamina's retry hook test_stamina_s_hooks_that_fail_are_logged_and_touch_no_retry.<locals>."
    assert logged == [f"{name}raises", f"{name}raises_at_the_end", "stamina's retry hooks"]


async def test_inactive_stamina_means_no_retries(restored: None) -> None:
    stamina.set_active(active=False)
    error = APIConnectionError()
    attempts = Attempts(error)
    with pytest.raises(APIConnectionError) as caught:
        await Retrier(AT_ONCE).run(attempts)
    assert caught.value is error
    assert len(attempts.times) == 1


async def test_stamina_s_testing_mode_waits_for_nothing(restored: None) -> None:
    stamina.set_testing(testing=True, attempts=3)
    attempts = Attempts(APIConnectionError(), RateLimitError(status=429, retry_after=100.0))
    assert await Retrier(NEVER).run(attempts) == 3


@pytest.mark.one_loop
@pytest.mark.parametrize("most", [1, 2, 3])
async def test_in_stamina_s_testing_mode_the_last_attempt_records_no_wait(restored: None, most: int) -> None:
    stamina.set_testing(testing=True, attempts=most)
    attempts, retrier = Attempts(*[APIConnectionError() for _ in range(9)]), Retrier(NEVER)
    with pytest.raises(APIConnectionError) as caught:
        await retrier.run(attempts.logged(retrier.log))
    assert caught.value is attempts.failures[most - 1]
    assert len(attempts.times) == most
    assert [record.wait_seconds for record in retrier.log.so_far()] == [0.0] * (most - 1) + [None]


async def test_an_attempt_may_be_any_awaitable() -> None:
    async def answer() -> int:
        return 42

    def attempt() -> Awaitable[int]:
        return answer()

    assert await Retrier(AT_ONCE).run(attempt) == 42
