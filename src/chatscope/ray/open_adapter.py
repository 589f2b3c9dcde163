"""OpenAdapter: an adapter that stays open between the calls of an actor, in the actor's own event loop.

An actor has no block that an adapter could be opened in: its methods are called one by one, and it ends without a last
call. So a task of the event loop holds the block, from the first use until `close`. Ray's event loops are asyncio's;
this is the one file that starts such a task.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any, Final

import anyio

from chatscope import AsyncChatGPTAdapter, LeasedPacer, LimitSource

CLOSE_SECONDS: Final = 5.0
"""How long closing may take while the process ends: running requests are cancelled, and connections closed."""


class OpenAdapter:
    """Opens an adapter when it is first asked for.

    Args:
        arguments: those of the adapter.
        limit: what all workers share; `None` leaves the adapter its own limits.
        worker: names this process among those that share the limit.
    """

    def __init__(self, arguments: Mapping[str, Any], limit: LimitSource | None, worker: str) -> None:
        self._arguments = arguments
        self._limit = limit
        self._worker = worker
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._adapter: AsyncChatGPTAdapter | None = None
        self._failure: BaseException | None = None
        self._opened = anyio.Event()
        self._closing = anyio.Event()
        self._closed = threading.Event()

    async def get(self) -> AsyncChatGPTAdapter:
        """Return the adapter, open. If cancelled, it is opened all the same, for the next call.

        Raises:
            ValueError: an argument can never be right, or there is no key.
            RuntimeError: it was closed, or this is another event loop than that of the first call.
        """
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._loop, self._task = loop, loop.create_task(self._hold())
        elif loop is not self._loop:
            raise RuntimeError("an actor's adapter belongs to one event loop")
        await self._opened.wait()
        if self._adapter is None:
            raise self._failure or RuntimeError("this actor's adapter is closed")
        return self._adapter

    async def _hold(self) -> None:
        """Hold the block until `close`. It ends with the event loop at the latest, which cancels it."""
        try:
            async with anyio.create_task_group() as group:
                pacer = None
                if self._limit is not None:
                    pacer = LeasedPacer(self._limit, self._worker)
                    group.start_soon(pacer.run)
                try:
                    await self._hold_adapter(pacer)
                except Exception as error:  # noqa: BLE001 - `get` raises it
                    self._failure = error
                group.cancel_scope.cancel()
        finally:
            self._adapter = None
            self._opened.set()
            self._closed.set()

    async def _hold_adapter(self, pacer: LeasedPacer | None) -> None:
        with anyio.CancelScope() as running:
            async with AsyncChatGPTAdapter(**self._arguments, pacer=pacer) as adapter:
                self._adapter = adapter
                self._opened.set()
                await self._closing.wait()
                self._adapter = None
                running.cancel()  # nobody waits for what still runs

    def close(self) -> None:
        """Close the adapter. In another thread than the event loop's, wait for that, a few seconds at most."""
        if self._loop is None or self._loop.is_closed():
            return
        try:
            self._loop.call_soon_threadsafe(self._closing.set)
        except RuntimeError:
            return  # the loop was closed just now, and has cancelled the task
        try:
            if asyncio.get_running_loop() is self._loop:
                return
        except RuntimeError:
            pass
        self._closed.wait(CLOSE_SECONDS)

    async def aclose(self) -> None:
        """Close the adapter, and wait for that. If cancelled, it is closed all the same."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait([self._task])
