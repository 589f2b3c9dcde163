"""Whether, when and how often to try again. The only module that imports stamina.

stamina counts the attempts, sleeps between them and tells its users' hooks; its process-wide settings are respected
and never changed. It is asked only once a first attempt has failed: a request that succeeds builds none of its
iterators. What to retry and how long to wait is decided here, by pure functions, so that the wait is known before it
begins: for the log, and for deadlines that it must not pass.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Final, ParamSpec, TypeVar

import anyio
import stamina

from chatscope._limits.timeouts import Deadline
from chatscope._validation import check_count, check_wait
from chatscope.errors import (
    QUOTA_CODES,
    APIConnectionError,
    APIStatusError,
    ChatError,
    QuotaExceededError,
    RateLimitError,
    StreamServerError,
    StreamTruncatedError,
)
from chatscope.telemetry.observer import ObservedCall

_T = TypeVar("_T")
_P = ParamSpec("_P")

MAX_RETRY_AFTER: Final = 120.0
"""The longest wait that a server may ask for, in seconds. Who asks for more means "come back later", and a caller is
better served by the error; the openai package has the same bound."""

_TRANSIENT: Final = frozenset({408, 409, 425, 429})
"""Statuses below 500 that pass by themselves. 409 is the endpoint's lock timeout; 425 is "Too Early", RFC 8470."""

_log: Final = logging.getLogger("chatscope.retry")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that was made for a task."""

    started_seconds: float
    """When it was begun, in seconds after the task was submitted."""
    duration_seconds: float
    status: int | None
    """The HTTP status, as far as it came to one."""
    error: str | None
    """The class of the error it ended with; `None` if it succeeded."""
    request_id: str | None
    wait_seconds: float | None
    """How long was waited before the next attempt; `None` if there was none."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try, and how long to wait in between.

    The wait before retry n is `min(max, initial * 2 ** (n - 1) + a random part of jitter)`, unless the server names
    another.

    Args:
        attempts: how many requests at the most; 1 means no retry.
        initial: the first wait, in seconds.
        max: the longest wait, in seconds.
        jitter: how much may be added at random, in seconds.
        restart_unread: try again even after text has arrived, as long as no reader has seen any of it.

    Raises:
        ValueError: a value is out of range; it names the field.
    """

    attempts: int = 5
    initial: float = 1.0
    max: float = 32.0
    jitter: float = 3.0
    restart_unread: bool = False

    def __post_init__(self) -> None:
        check_count(self.attempts, "retry.attempts")
        for name in ("initial", "max", "jitter"):
            check_wait(getattr(self, name), f"retry.{name}")

    @classmethod
    def of(cls, retry: RetryPolicy | None, default: RetryPolicy | None = None) -> RetryPolicy:
        """Return the policy that an argument `retry=` means; `None` means the default.

        Raises:
            ValueError: it is no policy.
        """
        if retry is None:
            return default or cls()
        if not isinstance(retry, RetryPolicy):
            raise ValueError(f"retry must be a RetryPolicy, not {type(retry).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
        return retry

    def backoff(self, failed: int) -> float:
        """Return how long to wait after so many failed attempts, in seconds."""
        wait = self.initial * 2.0 ** min(failed - 1, 1023)  # more than that a float does not hold
        return min(self.max, wait + random.uniform(0, self.jitter))  # noqa: S311 - spreads load, guards nothing


def is_transient(error: Exception) -> bool:
    """Tell whether an error may pass by itself. A server's `x-should-retry` goes before its status.

    Only this package's own errors can be transient: stamina shows its predicate every exception, cancellation included.
    """
    if not isinstance(error, ChatError):
        return False
    if isinstance(error, QuotaExceededError) or error.code in QUOTA_CODES:
        return False
    if error.should_retry is not None:
        return error.should_retry
    if isinstance(error, APIStatusError | StreamServerError):
        status = error.status or 0
        return status in _TRANSIENT or status >= 500
    return isinstance(error, APIConnectionError | StreamTruncatedError)


_PASSING: Final = frozenset({"TimeoutException", "NetworkError", "ProxyError", "RemoteProtocolError"})
"""httpx's and httpx2's errors of connections, by name: here no HTTP library is imported."""


def _is_lost_connection(error: Exception) -> bool:
    """Tell whether an error that is not this package's is a connection that failed, or a timeout."""
    return isinstance(error, ConnectionError | TimeoutError) or any(
        cls.__name__ in _PASSING and cls.__module__.partition(".")[0] in {"httpx", "httpx2"}
        for cls in type(error).__mro__
    )


def waits_disabled() -> bool:
    """Tell whether stamina's testing mode is on, in which nobody waits."""
    return stamina.is_testing()


class Retrier:
    """Run one call's attempts by a policy and keep account of them.

    Attributes:
        policy: how often and how far apart.
        label: what the log calls this call: a task's id, or the request.
        limit: the call's deadline; a wait that would pass it is not begun.
        retries: which errors are worth another attempt.
        on_retry: called when another attempt is decided upon, before the wait for it.
        level: how loud a wait is logged; `None` means WARNING for rate limits, INFO otherwise.
        attempts: those that ended.
        requests: how many requests were sent; an attempt may need two to find out what a server accepts.
        observed: whoever observes the call.
        status, request_id: what the attempt in progress has learned, for its record.
    """

    __slots__ = (
        "_failed",
        "_sent_at",
        "_zero",
        "attempts",
        "label",
        "level",
        "limit",
        "observed",
        "on_retry",
        "policy",
        "request_id",
        "requests",
        "retries",
        "status",
    )

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        label: str = "request",
        limit: Deadline | None = None,
        retries: Callable[[Exception], bool] = is_transient,
        level: int | None = None,
    ) -> None:
        self.policy = policy
        self.label = label
        self.limit = limit
        self.retries = retries
        self.on_retry: Callable[[], None] | None = None
        self.observed: ObservedCall | None = None
        self.level = level
        self._zero = time.perf_counter()
        self._failed = 0
        self._sent_at: float | None = None
        self.attempts: list[Attempt] = []
        self.requests = 0
        self.status: int | None = None
        self.request_id: str | None = None

    def follow(self, earlier: Retrier) -> None:
        """Count on from an earlier call for the same task: requests, the time they are made at, and who observes."""
        self._zero = earlier._zero
        self.observed = earlier.observed
        self.requests = earlier.requests

    def on_permit_wait(self) -> None:
        """Record that the attempt in progress waits before it sends anything."""
        self._sent_at = None

    def on_send(self, *, hedged: bool = False) -> None:
        """Record that a request is sent now.

        Args:
            hedged: it runs beside the attempt in progress, which is recorded from its own beginning.
        """
        self.requests += 1
        if not hedged:
            self._sent_at = time.perf_counter()
            self.status = self.request_id = None

    def on_refused(self, error: Exception) -> None:
        """Record the end of a request whose attempt goes on with another one, which the policy does not count."""
        self._record(error)

    def on_lost(self, error: Exception) -> bool:
        """Record that a request was lost with its connection, and return whether it may be sent again at once."""
        if self._failed + 1 >= self.policy.attempts:
            return False
        self._failed += 1
        self._record(error)
        _log.info(
            "%s: attempt %d failed: %s: %s; sent again at once", self.label, self._failed, type(error).__name__, error
        )
        return True

    async def run(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Return what the first attempt that succeeds returns.

        Cancellation passes through, from an attempt as from a wait.

        Raises:
            Exception: what the last attempt raised, as it is.
        """
        try:
            return await self._once(attempt)
        except Exception as error:
            if self.policy.attempts == 1 or not self.retries(error):
                raise
            first = error
        try:
            async for turn in stamina.retry_context(on=self._wait_after, attempts=self.policy.attempts, timeout=None):
                with turn:
                    if turn.num == 1:
                        raise first  # so that stamina counts it
                    return await self._once(attempt)
        except Exception:
            # stamina's testing mode may stop earlier than the policy, after it has asked how long to wait.
            self._set_wait(None)
            raise
        raise AssertionError("unreachable")  # pragma: no cover - the loop above returns or raises

    async def _once(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        self._sent_at = time.perf_counter()
        self.status = self.request_id = None
        try:
            result = await attempt()
        except BaseException as error:
            if isinstance(error, ChatError):
                error.attempts = self.requests
            self._failed += 1
            self._record(error)
            raise
        self._record(None)
        return result

    def _record(self, error: BaseException | None) -> None:
        """Record the end of the request that was sent last, if its attempt came to that."""
        sent_at, self._sent_at = self._sent_at, None
        if sent_at is not None:
            self.attempts.append(self.account(sent_at, error, self.status, self.request_id))

    def _set_wait(self, seconds: float | None) -> None:
        if self.attempts:
            self.attempts[-1] = replace(self.attempts[-1], wait_seconds=seconds)

    def account(self, began: float, error: BaseException | None, status: int | None, request_id: str | None) -> Attempt:
        """Return the account of an attempt that ends now and was begun at that time of `time.perf_counter`."""
        return Attempt(
            started_seconds=began - self._zero,
            duration_seconds=time.perf_counter() - began,
            status=status,
            error=type(error).__name__ if error is not None else None,
            request_id=request_id,
            wait_seconds=None,
        )

    def _wait_after(self, error: Exception) -> float | bool:
        """Answer stamina's question: wait how long, or False for giving up."""
        failed = self._failed
        if failed >= self.policy.attempts or not isinstance(error, Exception) or not self.retries(error):
            return False
        wait = self.policy.backoff(failed)
        if isinstance(error, ChatError) and error.retry_after is not None:
            wait = error.retry_after
            if wait > MAX_RETRY_AFTER:
                error.not_retried = f"the server asks to wait {wait:g} s, and at most {MAX_RETRY_AFTER:g} s are waited"
                return False
        if waits_disabled():
            wait = 0.0
        if self.limit is not None and anyio.current_time() + wait >= self.limit.at:
            if isinstance(error, ChatError):
                error.not_retried = f"waiting {wait:.3g} s would pass the deadline of {self.limit.seconds:g} s"
            return False
        if self.on_retry is not None:
            self.on_retry()
        self._set_wait(wait)
        level = self.level or (logging.WARNING if isinstance(error, RateLimitError) else logging.INFO)
        _log.log(
            level,
            "%s: attempt %d failed: %s: %s; next in %.3g s",
            self.label,
            failed,
            type(error).__name__,
            error,
            wait,
        )
        return wait


def retry_on_rate_limit(
    max_attempts: int = 5, initial_wait: float = 1.0, max_wait: float = 32.0, jitter: float = 3.0
) -> Callable[[Callable[_P, Awaitable[_T]]], Callable[_P, Awaitable[_T]]]:
    """Decorate an async function: call it again after a `RateLimitError`, unless a quota is exhausted.

    A server's `retry-after` is waited exactly. Each wait is logged at WARNING. Cancellation is never retried.

    Args:
        max_attempts: how many calls at the most.
        initial_wait: the first wait, in seconds; it doubles.
        max_wait: the longest wait, in seconds.
        jitter: how much may be added at random, in seconds.

    Raises:
        ValueError: an argument is out of range.
    """
    policy = _policy(max_attempts, initial_wait, max_wait, jitter)
    return _decorator(policy, lambda error: isinstance(error, RateLimitError) and is_transient(error), logging.WARNING)


def retry_on_transient(
    max_attempts: int = 3, initial_wait: float = 0.5, max_wait: float = 10.0
) -> Callable[[Callable[_P, Awaitable[_T]]], Callable[_P, Awaitable[_T]]]:
    """Decorate an async function: call it again after a failure that may pass, rate limits excepted.

    Of errors that are not this package's, those are connections that failed and timeouts: `ConnectionError`,
    `TimeoutError`, and httpx's errors of their kind. Each wait is logged at INFO. Cancellation is never retried.

    Args:
        max_attempts: how many calls at the most.
        initial_wait: the first wait, in seconds, plus up to as much at random; it doubles.
        max_wait: the longest wait, in seconds.

    Raises:
        ValueError: an argument is out of range.
    """
    policy = _policy(max_attempts, initial_wait, max_wait, initial_wait)

    def retries(error: Exception) -> bool:
        return not isinstance(error, RateLimitError) and (is_transient(error) or _is_lost_connection(error))

    return _decorator(policy, retries, logging.INFO)


def _policy(max_attempts: int, initial_wait: float, max_wait: float, jitter: float) -> RetryPolicy:
    check_count(max_attempts, "max_attempts")
    check_wait(initial_wait, "initial_wait")
    check_wait(max_wait, "max_wait")
    check_wait(jitter, "jitter")
    return RetryPolicy(max_attempts, initial_wait, max_wait, jitter)


def _decorator(
    policy: RetryPolicy, retries: Callable[[Exception], bool], level: int
) -> Callable[[Callable[_P, Awaitable[_T]]], Callable[_P, Awaitable[_T]]]:
    def decorate(function: Callable[_P, Awaitable[_T]]) -> Callable[_P, Awaitable[_T]]:
        label = getattr(function, "__qualname__", "call")

        @wraps(function)
        async def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            retrier = Retrier(policy, label=label, retries=retries, level=level)

            def attempt() -> Awaitable[_T]:
                retrier.on_send()
                return function(*args, **kwargs)

            return await retrier.run(attempt)

        return call

    return decorate
