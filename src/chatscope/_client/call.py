"""One call of a client: a slot, then attempts at its request until one succeeds.

Not here: an attempt (`completion`, `stream_reader`), and whether to make another one (`_limits.retry`). A task has its
slot before it makes its calls (`_tasks.runner`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from chatscope._client.request import ClientRequest
from chatscope._limits.timeouts import fail_at
from chatscope.errors import ChatError

_T = TypeVar("_T")


async def run_call(request: ClientRequest, attempt: Callable[[], Awaitable[_T]], *, keeps_slot: bool = False) -> _T:
    """Wait for a slot, then make attempts until one succeeds. If cancelled, the slot is released.

    Args:
        request: what is sent.
        attempt: acquires a permit and makes one attempt.
        keeps_slot: whether the slot is held after a success, until `request.release_slot`.

    Raises:
        APITimeoutError: the deadline passed.
        ChatError: what the last attempt raised.
    """
    slot = request.slot = request.server.limiter.slots.reserve()
    deadlines, retrier = request.deadlines, request.retrier
    try:
        if not slot.is_granted:
            with fail_at(deadlines.queue, request.last_failure):
                await slot.wait()
        if (deadline := deadlines.total) is None:
            result = await retrier.run(attempt)
        else:
            with fail_at(deadline, request.last_failure):
                result = await retrier.run(attempt)
    except BaseException as error:
        slot.release()
        if isinstance(error, ChatError):
            request.annotate(error)  # an error raised by a deadline has no request data yet
        raise
    if not keeps_slot:
        slot.release()
    return result
