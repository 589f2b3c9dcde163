"""RetryPolicy and Retrier: how many attempts to make and how long to wait. Only this module uses stamina for attempts.

stamina counts the attempts, sleeps between them and calls the user's hooks. Its process-wide settings apply and are
never changed. It is used only after a first attempt has failed, so a request that succeeds does not pay for it. The
wait is computed here before it starts, so that it can be logged and cannot pass a deadline. Not here: which errors
allow another attempt (`transient`), and the record of the attempts (`attempts`).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Final, TypeVar

import anyio
import msgspec
import stamina

from chatscope._limits.attempts import AttemptsLog
from chatscope._limits.connection_errors import is_refused
from chatscope._limits.stamina_hooks import guard_hooks, is_scheduling
from chatscope._limits.timeouts import Deadline
from chatscope._limits.transient import is_transient
from chatscope._validation import check_count, check_wait
from chatscope.errors import APIConnectionError, ChatError, RateLimitError

_T = TypeVar("_T")

MAX_RETRY_AFTER: Final = 120.0
"""The longest wait that a server may request, in seconds. A server that requests more means "come back later", and an
error serves the caller better. The openai package has the same bound."""

REFUSED_INITIAL: Final = 0.5
"""The first wait after a refused connection, in seconds: the server is probably restarting, and got no request."""

REFUSED_ATTEMPTS: Final = 3
"""How many refused connections end a request of a client without its own policy: after about 1.5 s, as with the openai
package. The caller is waiting, and most often the address is wrong or no server was started. A task of an adapter
outlasts a server's restart."""

PATIENCE: Final = 30.0
"""How long a call without a deadline is held back while its server fails before the call fails too, in seconds, for all
its attempts together."""

REFUSED_PATIENCE: Final = 1.5
"""How long such a request is held back, in seconds, while the server counts as down because it refuses connections: as
long as its waits would take."""

_log: Final = logging.getLogger("chatscope.retry")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How many attempts to make, and how long to wait in between.

    The wait before retry n is `min(max, initial * 2 ** (n - 1) + a random part of jitter)`, unless the server requests
    another one.

    Args:
        attempts: the largest number of requests; 1 means no retry.
        initial: the first wait, in seconds.
        max: the longest wait, in seconds.
        jitter: the largest random addition to a wait, in seconds.
        restart_unread: retry even after text has arrived, as long as no reader has seen any of it.
        refused_attempts: how many of the attempts may find their connections refused; `None` means all of them. A
            `ChatClient` without its own policy gives up after three.

    Raises:
        ValueError: a value is out of range; the error names the field.
    """

    attempts: int = 5
    initial: float = 1.0
    max: float = 32.0
    jitter: float = 3.0
    restart_unread: bool = False
    refused_attempts: int | None = None

    def __post_init__(self) -> None:
        check_count(self.attempts, "retry.attempts")
        if self.refused_attempts is not None:
            check_count(self.refused_attempts, "retry.refused_attempts")
        for name in ("initial", "max", "jitter"):
            check_wait(getattr(self, name), f"retry.{name}")

    @classmethod
    def of(cls, retry: RetryPolicy | int | None, default: RetryPolicy | None = None) -> RetryPolicy:
        """Return the policy for an argument `retry=`; `None` means the default.

        A number means that many attempts, refused or not, with the waits of the default.

        Args:
            retry: the argument.
            default: the policy that it overrides; without one, `RetryPolicy()`.

        Raises:
            ValueError: it is neither a policy nor a number of attempts.
        """
        if retry is None:
            return default or cls()
        if isinstance(retry, int) and not isinstance(retry, bool):
            check_count(retry, "retry")
            return replace(default or cls(), attempts=retry, refused_attempts=None)
        if not isinstance(retry, RetryPolicy):
            raise ValueError(f"retry must be a RetryPolicy or a number of attempts, not {type(retry).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
        return retry

    def backoff(self, failed: int, *, is_refused: bool = False) -> float:
        """Return how long to wait before the next attempt, in seconds.

        Args:
            failed: how many attempts have failed.
            is_refused: whether the connection was refused. The first wait is then at most `REFUSED_INITIAL` seconds.
        """
        initial, jitter = self.initial, self.jitter
        if is_refused and initial > REFUSED_INITIAL:
            initial, jitter = REFUSED_INITIAL, min(jitter, REFUSED_INITIAL / 4)
        wait = initial * 2.0 ** min(failed - 1, 1023)  # a larger exponent would overflow
        return min(self.max, wait + random.uniform(0, jitter))  # noqa: S311 - spreads load, guards nothing


def waits_disabled() -> bool:
    """Return whether stamina's testing mode is on, in which there are no waits."""
    return stamina.is_testing()


class Retrier(msgspec.Struct, eq=False):
    """Runs the attempts of one call by a policy.

    Attributes:
        policy: how many attempts, and how far apart.
        label: the call's name in the log: a task's id, or `request`.
        deadline: the call's deadline. A wait that would pass it is not started.
        log: records the requests of the call. The calls of one conversation share it.
        level: the level at which waits are logged; `None` means WARNING for rate limits, INFO otherwise.
        failed: how many attempts have failed so far.
        refused: how many of them found their connections refused.
        gave_up: whether an attempt ended while it waited for a permit.
        last_failure: the error of the last one, until the call is over; the error of a deadline quotes it.
    """

    policy: RetryPolicy
    label: str = "request"
    deadline: Deadline | None = None
    log: AttemptsLog = msgspec.field(default_factory=AttemptsLog)
    level: int | None = None
    failed: int = 0
    refused: int = 0
    gave_up: bool = False
    last_failure: Exception | None = None

    def successor(self) -> Retrier:
        """Return the retrier for the next call of the same conversation: it counts from zero and shares the log."""
        return Retrier(self.policy, label=self.label, deadline=self.deadline, log=self.log, level=self.level)

    def patience(self, outage: ChatError | None) -> float:
        """Return how long the call may be held back while its server fails, in seconds.

        Args:
            outage: the error for which the server counts as down, if it does.
        """
        if self.policy.refused_attempts is not None and outage is not None and is_refused(outage):
            return REFUSED_PATIENCE
        return PATIENCE if self.deadline is None else inf

    def on_lost(self, error: Exception) -> bool:
        """Record that a request was lost together with its connection; return whether to send it again at once."""
        if self.failed + 1 >= self.policy.attempts:
            return False
        self._on_failure(error)
        _log.info(
            "%s: attempt %d failed: %s: %s; sent again at once", self.label, self.failed, type(error).__name__, error
        )
        return True

    async def run(
        self,
        attempt: Callable[[], Awaitable[_T]],
        should_retry: Callable[[Exception], bool] = is_transient,
        on_retry: Callable[[], None] | None = None,
    ) -> _T:
        """Make attempts until one succeeds, and return its result.

        Cancellation passes through, during an attempt as well as during a wait.

        Args:
            attempt: makes one attempt.
            should_retry: returns whether an error is worth another attempt.
            on_retry: called when another attempt will be made, before the wait for it.

        Raises:
            Exception: what the last attempt raised, unchanged.
        """
        # One coroutine, and no other before the first failure: each in the chain would cost every request some time.
        try:
            try:
                result = await attempt()
            except Exception as error:
                self._on_failure(error)
                if self.policy.attempts == 1 or not should_retry(error):
                    raise
                first = error
            else:
                self.last_failure = None
                return result
            result = await self._retry(first, attempt, should_retry, on_retry)
        except Exception:
            self.last_failure = None  # its traceback refers to this object: avoid a reference cycle
            raise
        self.last_failure = None
        return result

    async def _retry(
        self,
        first: Exception,
        attempt: Callable[[], Awaitable[_T]],
        should_retry: Callable[[Exception], bool],
        on_retry: Callable[[], None] | None,
    ) -> _T:
        wait_after = partial(self._wait_after, should_retry, on_retry)
        try:
            retries = aiter(stamina.retry_context(on=wait_after, attempts=self.policy.attempts, timeout=None))
            guard_hooks(retries)
            while True:
                stamina_attempt = await anext(retries)
                with stamina_attempt:
                    if stamina_attempt.num == 1:
                        raise first  # lets stamina count it
                    return await self._attempt_again(attempt)
        except Exception:
            if is_scheduling.get():
                # stamina's testing mode may stop earlier than the policy, after the wait was recorded.
                is_scheduling.set(False)
                self.log.set_wait(None)
            raise

    async def _attempt_again(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        is_scheduling.set(False)
        sent = len(self.log)
        try:
            return await attempt()
        except Exception as error:
            earlier = self.last_failure
            if not isinstance(earlier, ChatError) or not self._was_held_back(error, sent):
                self._on_failure(error)
                raise
            # The call ends with the server's error, not with the one about waiting for a permit.
            self.gave_up = True
            earlier.not_retried = str(error).removeprefix("not sent: ")
            raise earlier from earlier.__cause__

    def _was_held_back(self, error: Exception, sent: int) -> bool:
        """Return whether an attempt failed while waiting for a permit, so that nothing was sent."""
        return isinstance(error, APIConnectionError) and error.should_retry is False and 0 < len(self.log) == sent

    def _on_failure(self, error: Exception) -> None:
        self.failed += 1
        self.refused += is_refused(error)
        self.last_failure = error

    def _wait_after(
        self, should_retry: Callable[[Exception], bool], on_retry: Callable[[], None] | None, error: Exception
    ) -> float | bool:
        """Return the seconds until the next attempt, or `False` to give up. stamina calls this after each failure."""
        failed = self.failed
        if (
            self.gave_up
            or failed >= self.policy.attempts
            or self.refused >= (self.policy.refused_attempts or self.policy.attempts)
            or not isinstance(error, Exception)
            or not should_retry(error)
        ):
            return False
        wait = self.policy.backoff(failed, is_refused=is_refused(error))
        if isinstance(error, ChatError) and error.retry_after is not None:
            wait = error.retry_after
            if wait > MAX_RETRY_AFTER:
                error.not_retried = f"the server asks to wait {wait:g} s, which is more than {MAX_RETRY_AFTER:g} s"
                return False
        if waits_disabled():
            wait = 0.0
        if self.deadline is not None and anyio.current_time() + wait >= self.deadline.at:
            if isinstance(error, ChatError):
                error.not_retried = f"waiting {wait:.3g} s would pass the deadline of {self.deadline.seconds:g} s"
            return False
        if on_retry is not None:
            on_retry()
        self.log.set_wait(wait)
        is_scheduling.set(True)  # until the wait is over: stamina calls its hooks now
        level = self.level or (logging.WARNING if isinstance(error, RateLimitError) else logging.INFO)
        _log.log(
            level,
            "%s: attempt %d failed: %s: %s; next in %.3g s",
            self.label,
            failed,
            type(error).__name__,
            error.message if isinstance(error, ChatError) else error,  # without the address, which never changes
            wait,
        )
        return wait
