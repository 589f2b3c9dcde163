"""Running the functions that a model calls: in place or in a thread of their own limiter; and their results as text.

Which functions there are, and what becomes of what they raise, is decided in `tools.py`.
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
"""How many sync tools run at the same time in an event loop, at each depth of tools within tools.

Tools are waits more than work, and one that is left behind at its timeout keeps its thread until it returns: the bound
has to leave room for some hundred of both, and still protect the process from a thread for every call."""

_depth: ContextVar[int] = ContextVar("chatscope_tool_depth", default=0)

_limiters: RunVar[dict[int, anyio.CapacityLimiter]] = RunVar("chatscope_tool_limiters")


async def run_function(function: Callable[[], Any]) -> Any:
    """Call a function and return its result.

    An async function is awaited in place. Any other runs in a worker thread; an awaitable that it returns is awaited
    in place. The threads are not those that the application shares through anyio: their limiter may be exhausted, or
    be set to 0. A tool that has its own model calls made, whose tools need threads again, takes those of the next
    depth, so that tools never wait for a thread that waits for them.

    If cancelled, the thread is left behind: the function runs on to its end, and its result is lost.

    Raises:
        BaseException: what the function raised.
    """
    if _is_async(function):
        result = await function()
    else:
        depth = _depth.get()
        token = _depth.set(depth + 1)  # the thread inherits it, and tasks that are started from there
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

    Halves of surrogate pairs, as in names of files that are not UTF-8, become U+FFFD: no JSON can hold them.

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
    """Return a text with halves of surrogate pairs replaced, which UTF-8 cannot encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_async(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - its kind, not whether it has one


def _captured(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Return what a function returned or raised.

    Out of a thread, some exceptions would do harm: StopIteration cannot pass through a coroutine, SystemExit ends an
    asyncio loop, and a CancelledError would be taken for the caller's own.
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
