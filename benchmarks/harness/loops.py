"""The event loops, and many callers at a time on each, by the loop's own means: no contender pays for anyio's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
AsyncFunction = Callable[[], Coroutine[Any, Any, T]]


def run(loop: str, main: AsyncFunction[T]) -> T:
    """Run `main` on a fresh event loop of that name."""
    # Only the process of its own contender loads a loop: the others' memory is measured without it.
    if loop == "trio":
        import trio  # noqa: PLC0415 - see above

        return trio.run(main)
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415 - see above

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main())
    return asyncio.run(main())


async def at_once(loop: str, number: int, call: AsyncFunction[None]) -> None:
    """Run `call` in so many tasks at the same time and wait for all of them."""
    if loop == "trio":
        import trio  # noqa: PLC0415 - see above

        async with trio.open_nursery() as nursery:
            for _ in range(number):
                nursery.start_soon(call)
    else:
        async with asyncio.TaskGroup() as group:
            for _ in range(number):
                group.create_task(call())
