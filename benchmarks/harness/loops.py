"""The event loops, and concurrent calls on each by the loop's own functions, so that no contender pays for anyio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
AsyncFunction = Callable[[], Coroutine[Any, Any, T]]


def run(loop: str, main: AsyncFunction[T]) -> T:
    """Run `main` on a fresh event loop of that name."""
    # Imported here, so that each contender's memory is measured without the other loops.
    if loop == "trio":
        import trio  # noqa: PLC0415 - see above

        return trio.run(main)
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415 - see above

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main())
    return asyncio.run(main())


async def at_once(loop: str, number: int, call: AsyncFunction[None]) -> None:
    """Run `call` in a number of concurrent tasks and wait for all of them."""
    if loop == "trio":
        import trio  # noqa: PLC0415 - see above

        async with trio.open_nursery() as nursery:
            for _ in range(number):
                nursery.start_soon(call)
    else:
        async with asyncio.TaskGroup() as group:
            for _ in range(number):
                group.create_task(call())
