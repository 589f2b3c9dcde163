"""Runs the functions that a model calls, in the event loop or in worker threads, and encodes their results as text.

Not here: which functions there are, and what happens to the errors that they raise (`tools.py`).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec
from anyio.lowlevel import RunVar

TOOL_THREADS: Final = 500
"""How many sync tools run at the same time in an event loop, at each depth of nested tools.

Tools mostly wait, and an abandoned tool keeps its thread until it returns. The bound leaves room for a few hundred of
both, but keeps a process from starting a thread for every call."""

_depth: ContextVar[int] = ContextVar("chatscope_tool_depth", default=0)

_limiters: RunVar[dict[int, anyio.CapacityLimiter]] = RunVar("chatscope_tool_limiters")


async def run_function(function: Callable[[], Any]) -> Any:
    """Call a function and return its result.

    An async function is awaited in the event loop. Any other function runs in a worker thread; an awaitable that it
    returns is awaited in the event loop. The threads have limiters of their own, since anyio's default limiter, which
    the application shares, may be exhausted or set to 0. A tool may itself run model calls with tools; those use the
    limiter of the next depth, so a tool never waits for a thread that waits for it.

    If cancelled, the thread is abandoned: the function runs to completion, and its result is lost.

    Raises:
        BaseException: what the function raised.
    """
    if _is_async(function):
        result = await function()
    else:
        depth = _depth.get()
        token = _depth.set(depth + 1)  # inherited by the thread, and by tasks that it starts
        try:
            result, error = await anyio.to_thread.run_sync(
                partial(_captured, function), abandon_on_cancel=True, limiter=_limiter(depth)
            )
        finally:
            _depth.reset(token)
        if error is not None:
            raise error
    while inspect.isawaitable(result):
        result = await _awaited(result)
    return result


def encode_result(result: Any) -> str:
    """Return the result of a tool as text: a `str` as it is, anything else as JSON.

    Lone surrogates, as in file names that are not UTF-8, become U+FFFD: JSON cannot hold them.

    Raises:
        TypeError: it has no JSON form.
    """
    if isinstance(result, str):
        return whole_text(result)
    try:
        return msgspec.json.encode(result, enc_hook=_plain).decode()
    except UnicodeEncodeError:
        return whole_text(json.dumps(msgspec.to_builtins(result, str_keys=True, enc_hook=_plain), ensure_ascii=False))


def whole_text(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode, and return the text."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_async(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - its kind, not whether it has one


def _captured(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Return a function's result and its exception, one of which is `None`.

    If a thread raised them, some exceptions would do harm: StopIteration cannot pass through a coroutine, SystemExit
    ends an asyncio loop, and a CancelledError would look like the caller's own cancellation.
    """
    try:
        return function(), None
    except BaseException as error:  # noqa: BLE001 - raised again by the caller
        return None, error


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _limiter(depth: int) -> anyio.CapacityLimiter:
    try:
        limiters = _limiters.get()
    except LookupError:
        limiters = {}
        _limiters.set(limiters)
    if depth not in limiters:
        limiters[depth] = anyio.CapacityLimiter(TOOL_THREADS)
    return limiters[depth]


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):  # a pydantic model
        return value.model_dump(mode="json")
    raise TypeError(f"a {type(value).__name__} has no JSON form")
