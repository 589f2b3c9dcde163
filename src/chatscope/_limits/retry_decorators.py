"""retry_on_rate_limit and retry_on_transient: retries for the user's own async functions."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from chatscope._limits.connection_errors import is_lost_connection
from chatscope._limits.retry import Retrier, RetryPolicy
from chatscope._limits.transient import is_transient
from chatscope._validation import check_count, check_wait
from chatscope.errors import ChatError, RateLimitError

_T = TypeVar("_T")
_P = ParamSpec("_P")


def retry_on_rate_limit(
    max_attempts: int = 5, initial_wait: float = 1.0, max_wait: float = 32.0, jitter: float = 3.0
) -> Callable[[Callable[_P, Awaitable[_T]]], Callable[_P, Awaitable[_T]]]:
    """Decorate an async function: call it again after a `RateLimitError`, unless waiting does not help.

    A server's `retry-after` is honoured exactly, up to 120 s. Each wait is logged at WARNING. The last error is raised
    unchanged. Cancellation is never retried.

    Args:
        max_attempts: the largest number of calls.
        initial_wait: the first wait, in seconds; it doubles.
        max_wait: the longest wait, in seconds.
        jitter: the largest random addition to a wait, in seconds.

    Raises:
        ValueError: an argument is out of range.
    """
    policy = _policy(max_attempts, initial_wait, max_wait, jitter)
    return _decorator(policy, lambda error: isinstance(error, RateLimitError) and is_transient(error), logging.WARNING)


def retry_on_transient(
    max_attempts: int = 3, initial_wait: float = 0.5, max_wait: float = 10.0
) -> Callable[[Callable[_P, Awaitable[_T]]], Callable[_P, Awaitable[_T]]]:
    """Decorate an async function: call it again after a transient failure other than a rate limit.

    Errors from outside this package are retried if they are failed connections or timeouts: `ConnectionError`,
    `TimeoutError`, and httpx's equivalents. Certificate and TLS-protocol errors are not retried, nor are host names
    that do not exist. Each wait is logged at INFO. The last error is raised unchanged. Cancellation is never retried.

    Args:
        max_attempts: the largest number of calls.
        initial_wait: the first wait, in seconds; it doubles. A random addition to each wait is at most as long.
        max_wait: the longest wait, in seconds.

    Raises:
        ValueError: an argument is out of range.
    """
    policy = _policy(max_attempts, initial_wait, max_wait, initial_wait)

    def should_retry(error: Exception) -> bool:
        return not isinstance(error, RateLimitError) and (is_transient(error) or is_lost_connection(error))

    return _decorator(policy, should_retry, logging.INFO)


def _policy(max_attempts: int, initial_wait: float, max_wait: float, jitter: float) -> RetryPolicy:
    check_count(max_attempts, "max_attempts")
    check_wait(initial_wait, "initial_wait")
    check_wait(max_wait, "max_wait")
    check_wait(jitter, "jitter")
    return RetryPolicy(max_attempts, initial_wait, max_wait, jitter)


def _decorator(
    policy: RetryPolicy, should_retry: Callable[[Exception], bool], level: int
) -> Callable[[Callable[_P, Awaitable[_T]]], Callable[_P, Awaitable[_T]]]:
    def decorate(function: Callable[_P, Awaitable[_T]]) -> Callable[_P, Awaitable[_T]]:
        label = getattr(function, "__qualname__", "call")

        @wraps(function)
        async def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            retrier = Retrier(policy, label=label, level=level)

            async def attempt() -> _T:
                record = retrier.log.start()
                try:
                    result = await function(*args, **kwargs)
                except BaseException as error:
                    record.finish(error)
                    if isinstance(error, ChatError):
                        error.attempts = max(error.attempts, len(retrier.log))
                    raise
                record.finish(None)
                return result

            return await retrier.run(attempt, should_retry=should_retry)

        return call

    return decorate
