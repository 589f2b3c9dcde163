"""ModelLimits: all that limits the requests for one model, and the requests that wait for it.

Here: its learned limits together, the pauses that the server requests, and refusals. Not here: the user's budgets
(`budget_window`), learning one limit (`learned_limits`), and waiting (`rate_limit`).
"""

from __future__ import annotations

from time import perf_counter_ns

from chatscope._limits.fifo import WaiterQueue
from chatscope._limits.learned_limits import ModelLimit
from chatscope.errors import ChatError
from chatscope.protocol.headers import RateLimitHeaders


class ModelLimits:
    """The limits of one model, and the requests that wait for them.

    Args:
        requests, tokens: its limits.

    Attributes:
        requests, tokens: as given.
        waiters: the waiting requests for this model. They wait for its own limits or for a budget.
        sent: how many requests were sent and have no response yet.
        blocked_until: when this model's own limits allow the first waiter.
        refusals: how often requests were refused (429). Requests that were under way together count once.
        forgiven: how many of these were followed by a success.
        last_refusal: the error of the last one.
    """

    __slots__ = (
        "_pause_until",
        "_refused_ns",
        "blocked_until",
        "forgiven",
        "last_refusal",
        "refusals",
        "requests",
        "sent",
        "tokens",
        "waiters",
    )

    def __init__(self, requests: ModelLimit, tokens: ModelLimit) -> None:
        self.requests = requests
        self.tokens = tokens
        self.waiters = WaiterQueue()
        self.sent = 0
        self.blocked_until = 0.0
        self._pause_until: float | None = None
        self._refused_ns = 0
        self.refusals = 0
        self.forgiven = 0
        self.last_refusal: ChatError | None = None

    def is_in_use(self, now: float) -> bool:
        """Return whether a request waits or is in flight, or would have to wait for a pause."""
        return bool(self.sent or self.waiters or (self._pause_until is not None and self._pause_until > now))

    def forget(self) -> None:
        """Forget what was learned."""
        self.requests.forget()
        self.tokens.forget()

    def wait_for(self, tokens: float, now: float) -> float:
        """Return the seconds until a request for this many tokens may be sent."""
        wait = max(self.requests.wait_for(1.0, now), self.tokens.wait_for(tokens, now))
        if self._pause_until is not None:
            if self._pause_until > now:
                wait = max(wait, self._pause_until - now)
            else:
                self._pause_until = None
        self.blocked_until = now + wait
        return wait

    def pause(self, seconds: float, now: float) -> bool:
        """Pause all requests for this many seconds; return whether that extends an earlier pause."""
        until = now + seconds
        if self._pause_until is not None and until <= self._pause_until:
            return False
        self._pause_until = self.blocked_until = until
        self.waiters.wake()
        return True

    def on_refusal(self, error: ChatError, sent_ns: int) -> None:
        """Record that a request that was sent at `sent_ns` (`time.perf_counter_ns`) was refused."""
        self.last_refusal = error
        if sent_ns > self._refused_ns:
            self._refused_ns = perf_counter_ns()
            self.refusals += 1

    def on_success(self) -> None:
        """Record that a request succeeded."""
        self.forgiven = self.refusals
        self.last_refusal = None

    def try_take(self, tokens: float) -> bool:
        """Count one request as sent, like `take`, if nothing limits this model and none waits; return whether it was.

        This is the usual case, and costs a third of asking and taking.
        """
        requests, own_tokens = self.requests, self.tokens
        if self._pause_until is not None or requests.learned or own_tokens.learned or self.waiters.waiting:
            return False
        self.sent += 1
        requests.in_flight += 1.0
        own_tokens.in_flight += tokens
        return True

    def take(self, tokens: float) -> None:
        """Count one request as sent."""
        self.sent += 1
        self.requests.take(1.0)
        self.tokens.take(tokens)

    def give_back(self, tokens: float) -> None:
        """Undo `take` for a request that was never sent."""
        self.sent -= 1
        self.requests.give_back(1.0)
        self.tokens.give_back(tokens)

    def on_response(self, tokens: float) -> bool:
        """Record that a request has a response, or will not get one; return whether nothing limits this model."""
        self.sent -= 1
        requests, own_tokens = self.requests, self.tokens
        if self._pause_until is None and requests.learned is None and own_tokens.learned is None:
            requests.in_flight -= 1.0
            own_tokens.in_flight -= tokens
            return True
        requests.on_response(1.0)
        own_tokens.on_response(tokens)
        return False

    def learn(self, tokens: float, limits: RateLimitHeaders, now: float) -> None:
        """Record what the headers of a response report. `on_response` was called for its request."""
        self.requests.learn(1.0, limits.limit_requests, limits.remaining_requests, limits.reset_requests, now)
        self.tokens.learn(tokens, limits.limit_tokens, limits.remaining_tokens, limits.reset_tokens, now)
        self.waiters.wake()
