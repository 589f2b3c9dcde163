"""How fast requests may go out: budgets per minute, what the server's headers say, and pauses that it asks for.

Shared by all calls of a client, so that one refusal makes everybody wait instead of each finding out by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import anyio

from chatscope._limits.fifo import WaiterQueue
from chatscope.protocol.headers import has_plenty, rate_limits

LONGEST_LEARNED_WAIT: Final = 120.0
"""How long a call waits because of what headers said, in seconds; then it asks the server again. Headers can be wrong
(Azure sends -1 and 0), and a refusal tells the truth."""

CHARACTERS_PER_TOKEN: Final = 4.0
"""For the estimate of a prompt: OpenAI's own rule of thumb for English text."""

FIRST_GUESS: Final = 256.0
"""What a reply is taken to need before the first one was seen, in tokens."""

_log: Final = logging.getLogger("chatscope.pacing")


class Bucket:
    """A token bucket: so much at once, so much per second.

    Args:
        capacity: how much it holds; it is full at first.
        per_second: how fast it fills.
    """

    __slots__ = ("_at", "capacity", "level", "per_second")

    def __init__(self, capacity: float, per_second: float, now: float) -> None:
        self.capacity = capacity
        self.per_second = per_second
        self.level = capacity
        self._at = now

    def wait_for(self, amount: float, now: float) -> float:
        """Return the seconds until it holds an amount. More than it can ever hold counts as all of it."""
        self.level = min(self.capacity, self.level + (now - self._at) * self.per_second)
        self._at = now
        missing = min(amount, self.capacity) - self.level
        # A level that floating point left a hair short counts as reached: a wait of 1e-12 s would not pass.
        return missing / self.per_second if missing > 1e-6 else 0.0

    def take(self, amount: float) -> None:
        """Take an amount; what is taken too much is owed."""
        self.level -= min(amount, self.capacity)

    def settle(self, taken: float, used: float) -> None:
        """Put back what `take` took of an amount and was not used, or take what was used beyond it."""
        self.level = min(self.capacity, self.level + min(taken, self.capacity) - used)


class Meter:
    """What one resource, requests or tokens, allows: a budget, and what the server's headers say of it.

    Args:
        per_minute: the budget; `None` is no limit.
    """

    __slots__ = ("_budget", "_learned", "_per_minute", "_unseen")

    def __init__(self, per_minute: float | None) -> None:
        self._per_minute = per_minute
        self._budget: Bucket | None = None  # made at the first use, when there is a clock
        self._learned: Bucket | None = None
        self._unseen = 0.0  # sent, and not counted yet in any header that was received

    @property
    def is_free(self) -> bool:
        """Whether nothing limits it."""
        return self._per_minute is None and self._learned is None

    def wait_for(self, amount: float, now: float) -> float:
        """Return the seconds until an amount may be used."""
        wait = 0.0
        if self._per_minute is not None:
            if self._budget is None:
                self._budget = Bucket(self._per_minute, self._per_minute / 60, now)
            wait = self._budget.wait_for(amount, now)
        if self._learned is not None:
            learned = self._learned.wait_for(amount, now)
            if learned > LONGEST_LEARNED_WAIT:
                self._learned = None
            else:
                wait = max(wait, learned)
        return wait

    def take(self, amount: float) -> None:
        """Use an amount."""
        self._unseen += amount
        if self._budget is not None:
            self._budget.take(amount)
        if self._learned is not None:
            self._learned.take(amount)

    def seen(self, amount: float) -> None:
        """Take note that the server has counted an amount, or never will."""
        self._unseen -= amount

    def settle(self, taken: float, used: float) -> None:
        """Let the budget have lost what was used of an amount that was taken, and no more or less."""
        if self._budget is not None:
            self._budget.settle(taken, used)

    def learn(self, limit: int | None, remaining: int | None, reset: float | None, now: float) -> None:
        """Take in what headers say: so much in all, so much left, all of it back after `reset` seconds.

        What was sent meanwhile may or may not be in `remaining`; the truth lies between the two.
        """
        if limit is None or remaining is None or remaining > limit:
            return
        per_second = (limit - remaining) / reset if reset and remaining < limit else limit / 60
        bucket = self._learned
        if bucket is None:
            bucket = self._learned = Bucket(limit, per_second, now)
            bucket.level = remaining - self._unseen
        else:
            bucket.wait_for(0.0, now)
            bucket.capacity, bucket.per_second = limit, per_second
            bucket.level = min(max(bucket.level, remaining - self._unseen), remaining)


class Pacer:
    """Let requests go out no faster than budgets, the server's headers and its pauses allow.

    Args:
        name: what the log calls the server.
        requests_per_minute, tokens_per_minute: budgets; `None` is no limit.
    """

    __slots__ = ("_guess", "_name", "_pause_until", "_requests", "_tokens", "_waiters")

    def __init__(
        self, name: str, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        self._name = name
        self._requests = Meter(requests_per_minute)
        self._tokens = Meter(tokens_per_minute)
        self._waiters = WaiterQueue()
        self._pause_until: float | None = None
        self._guess = FIRST_GUESS

    @property
    def waiting(self) -> int:
        """How many requests wait to go out."""
        return len(self._waiters)

    def estimate(self, body: bytes, max_tokens: int | None) -> float:
        """Return the tokens that a request will probably use, given its body and its limit on the reply."""
        reply = self._guess if max_tokens is None else min(self._guess, max_tokens)
        return len(body) / CHARACTERS_PER_TOKEN + reply

    def acquire_nowait(self, tokens: float) -> bool:
        """Take what a request needs if nothing limits requests at present, and say whether that was so."""
        if self._waiters or not self._is_free:
            return False
        self._requests.take(1.0)
        self._tokens.take(tokens)
        return True

    async def acquire(self, tokens: float) -> None:
        """Wait until a request may go out, and take what it needs. Cancelled, nothing is taken.

        Whoever was admitted says what became of it: `on_response` or `on_no_response`, then `on_usage`.
        """

        def claim() -> float:
            if self._is_free:
                wait = 0.0
            else:
                now = anyio.current_time()
                wait = max(self._requests.wait_for(1.0, now), self._tokens.wait_for(tokens, now))
                if self._pause_until is not None:
                    wait = max(wait, self._pause_until - now)
            if wait <= 0:
                self._pause_until = None
                self._requests.take(1.0)
                self._tokens.take(tokens)
            return wait

        await self._waiters.acquire(claim)

    @property
    def _is_free(self) -> bool:
        return self._pause_until is None and self._requests.is_free and self._tokens.is_free

    def on_response(self, tokens: float, headers: Mapping[str, str]) -> None:
        """Take note that a reply's headers came, and what they say of the limits.

        As long as plenty is left, nothing is learned: that is the usual case, and costs the least.
        """
        self._requests.seen(1.0)
        self._tokens.seen(tokens)
        if self._is_free and has_plenty(headers):
            return
        limits = rate_limits(headers)
        if limits is not None:
            now = anyio.current_time()
            self._requests.learn(limits.limit_requests, limits.remaining_requests, limits.reset_requests, now)
            self._tokens.learn(limits.limit_tokens, limits.remaining_tokens, limits.reset_tokens, now)
            self._waiters.wake()

    def on_no_response(self, tokens: float) -> None:
        """Take note that no reply came: cancelled, or no connection."""
        self._requests.seen(1.0)
        self._tokens.seen(tokens)

    def on_usage(self, estimated: float, total_tokens: int, completion_tokens: int) -> None:
        """Take note of what a request really used; the rest of the estimate goes back."""
        self._tokens.settle(estimated, total_tokens)
        if completion_tokens:
            self._guess += (completion_tokens - self._guess) / 8  # the smoothing of TCP's round-trip time, RFC 6298
        self._waiters.wake()

    def pause(self, seconds: float, label: str) -> None:
        """Let nobody send for so long: the server asked for it, answering the call of that label."""
        until = anyio.current_time() + seconds
        if self._pause_until is None or until > self._pause_until:
            self._pause_until = until
            _log.info("%s: %s asks for a pause; all its requests wait %.3g s", label, self._name, seconds)
            self._waiters.wake()
