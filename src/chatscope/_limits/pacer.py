"""Pacer: how fast requests may be sent, for one client or for several that share a limit.

Here: the protocol, and the pacer of one client: its budgets per minute. Not here: the order of waiting requests and the
server's headers (`rate_limit`), and a limit that several processes share (`leased_pacer`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from chatscope._limits.budget_window import BudgetWindow, Use
from chatscope.telemetry.guard import Guard


@runtime_checkable
class Pacer(Protocol):
    """Decides how fast the requests of a client may be sent. Pass one as `pacer=` instead of budgets per minute.

    The client calls every method in its event loop, in the order of its requests. No method may wait.
    """

    def connect(self, wake: Callable[[], None], pause: Callable[[str, float], object]) -> None:
        """Connect the client. Called once, before every other method.

        Args:
            wake: call this, in the client's event loop, when a request that had to wait `inf` seconds may be sent.
            pause: pauses the client's requests for a model, for a number of seconds.
        """

    def wait_for(self, tokens: float, now: float) -> float:
        """Return the seconds after which to ask again for a request with this many tokens; 0 if it may be sent now.

        `inf` means that `wake` will be called. `now` is the event loop's time. It continues if the client is opened
        again in another run of an event loop.
        """
        ...

    def take(self, tokens: float, now: float) -> Any:
        """Use the amounts of a request, right after `wait_for` returned 0. Return a value for the next two methods."""

    def settle(self, use: Any, used: float, now: float) -> None:
        """Replace a request's estimated tokens by the number that it really used."""

    def cancel(self, use: Any, now: float) -> None:
        """Return the amounts of a request that was never sent."""

    def on_pause(self, model: str, seconds: float) -> None:
        """Record that the server asked this client for a pause of its requests for a model."""


class GuardedPacer:
    """A user's pacer. Errors of methods that only count are logged; those of `wait_for` and `take` fail the request.

    Args:
        pacer: the user's.
    """

    __slots__ = ("_guard", "_pacer", "connect", "take", "wait_for")

    def __init__(self, pacer: Pacer) -> None:
        self._guard = Guard()
        self._pacer = pacer
        self.connect = pacer.connect
        self.wait_for = pacer.wait_for
        self.take = pacer.take

    def settle(self, use: Any, used: float, now: float) -> None:
        """Replace a request's estimated tokens."""
        self._guard.call("the pacer's settle()", None, self._pacer.settle, use, used, now)

    def cancel(self, use: Any, now: float) -> None:
        """Return the amounts of a request that was never sent."""
        self._guard.call("the pacer's cancel()", None, self._pacer.cancel, use, now)

    def on_pause(self, model: str, seconds: float) -> None:
        """Record a pause."""
        self._guard.call("the pacer's on_pause()", None, self._pacer.on_pause, model, seconds)


class BudgetUse(NamedTuple):
    """The amounts that one request has taken from the budgets."""

    tokens: float
    requests_use: Use | None
    tokens_use: Use | None


class BudgetPacer:
    """The pacer of one client: budgets per minute that no other process shares.

    Args:
        requests_per_minute, tokens_per_minute: the budgets; `None` means no limit.
    """

    __slots__ = ("_requests", "_tokens")

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._requests = None if requests_per_minute is None else BudgetWindow(requests_per_minute)
        self._tokens = None if tokens_per_minute is None else BudgetWindow(tokens_per_minute)

    def connect(self, wake: Callable[[], None], pause: Callable[[str, float], object]) -> None:
        """Do nothing: only the client's own calls change the budgets."""

    def wait_for(self, tokens: float, now: float) -> float:
        """Return the seconds until both budgets allow a request."""
        wait = 0.0 if self._requests is None else self._requests.wait_for(1.0, now)
        return wait if self._tokens is None else max(wait, self._tokens.wait_for(tokens, now))

    def take(self, tokens: float, now: float) -> BudgetUse:
        """Take a request and its tokens from the budgets."""
        requests_use = None if self._requests is None else self._requests.take(1.0, now)
        return BudgetUse(tokens, requests_use, None if self._tokens is None else self._tokens.take(tokens, now))

    def settle(self, use: BudgetUse, used: float, now: float) -> None:
        """Replace the estimated tokens."""
        if self._tokens is not None and use.tokens_use is not None:
            self._tokens.settle(use.tokens_use, use.tokens, used, now)

    def cancel(self, use: BudgetUse, now: float) -> None:
        """Return the request and its tokens to the budgets."""
        if self._requests is not None and use.requests_use is not None:
            self._requests.settle(use.requests_use, 1.0, 0.0, now)
        self.settle(use, 0.0, now)

    def on_pause(self, model: str, seconds: float) -> None:
        """Do nothing: the client itself pauses its requests."""
