"""OpenAdapter: an adapter that stays open between the calls of an actor, in the actor's own event loop.

An actor has no block in which an adapter could be opened: its methods are called one by one, and it ends without a last
call. So a task of the event loop holds the block, from the first use until `close`. Ray uses asyncio's event loops;
this is the only file that starts such a task.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any, Final

import anyio

from chatscope import AsyncChatGPTAdapter, LeasedPacer, LimitSource

CLOSE_SECONDS: Final = 5.0
"""Seconds that closing may take while the process ends: running requests are cancelled, and connections closed."""


class OpenAdapter:
    """Opens an adapter when it is first asked for.

    Args:
        arguments: those of the adapter.
        limit: the limit that all workers share; `None` means that the adapter has its own limits.
        worker: this process's name among those that share the limit.
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
        """Return the open adapter. If cancelled, it is still opened, for the next call.

        Raises:
            ValueError: an argument is invalid, or there is no key.
            RuntimeError: it was closed, or the first call was in another event loop.
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
        """Close the adapter. In a thread other than the event loop's, wait for that, for a few seconds at most."""
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
        """Close the adapter, and wait until it is closed. If cancelled, it is still closed."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait([self._task])
