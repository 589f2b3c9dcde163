"""RefusalCount: how long a call waits for the limits of a server that only refuses (429).

Not here: what the limits are (`model_limits`), the wait itself (`rate_limit`), and servers that fail
(`circuit_breaker`).
"""

from __future__ import annotations

from chatscope._limits.model_limits import ModelLimits
from chatscope.errors import APIConnectionError, ChatError


class RefusalCount:
    """How often a server refused requests for a model since a call was refused or had to wait for the first time.

    Each time, the call's own attempt was or would have been refused. So it waits no longer once its policy would have
    given up.

    Args:
        seconds: how long it waits in any case.

    Attributes:
        has_waited: whether it had to wait for the server's limits. If not, its policy alone decides.
    """

    __slots__ = ("_began_at", "_seconds", "_since", "has_waited")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: int | None = None
        self.has_waited = False
        self._began_at = 0.0

    def start(self, limits: ModelLimits, now: float) -> None:
        """Count from now on. Only the first call has an effect."""
        if self._since is None:
            self._since = limits.refusals - 1  # its own, or the one for which it waits now
            self._began_at = now

    def check(self, limits: ModelLimits, now: float, most: float) -> None:
        """Raise if there were too many.

        Args:
            limits: those of the model.
            now: the current time.
            most: how many consecutive refusals are too many.

        Raises:
            APIConnectionError: there were that many.
        """
        if self._since is None or now < self._began_at + self._seconds:
            return
        refused = limits.refusals - max(self._since, limits.forgiven)
        if refused >= most:
            raise not_sent(f"the server refused {refused} consecutive requests", limits.last_refusal)


def not_sent(why: str, failure: ChatError | None) -> APIConnectionError:
    """Return the error for a request that waited for too long.

    Args:
        why: what it waited for.
        failure: the last error of the server.
    """
    last = f"; last failure: {failure.message}" if failure is not None else ""
    error = APIConnectionError(f"not sent: {why}{last}", should_retry=False)
    error.__cause__ = failure
    return error
