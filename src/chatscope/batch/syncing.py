"""Syncs the journal to the disk: in groups, after each line, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
import anyio.to_thread

from chatscope.batch.journal import SYNC_LINES, Journal
from chatscope.batch.options import Fsync

SYNC_SECONDS: Final = 1.0
"""Seconds that a recorded line may wait for a sync. A power failure loses at most the lines of that time."""


class Syncer:
    """Syncs a journal in a worker thread.

    Args:
        journal: the journal.
        fsync: as in `BatchOptions`.
        on_error: called with the error if the disk fails.
    """

    def __init__(self, journal: Journal, fsync: Fsync, on_error: Callable[[OSError], None]) -> None:
        self._journal = journal
        self._fsync = fsync
        self._on_error = on_error
        self._due = anyio.Event()

    async def run(self) -> None:
        """Sync every second, or sooner if enough lines wait. Runs until cancelled."""
        while self._fsync != "none":
            with anyio.move_on_after(SYNC_SECONDS):
                await self._due.wait()
            self._due = anyio.Event()
            await self.sync()

    def on_lines(self) -> bool:
        """Record that lines were appended. Return whether they must be synced before anything else."""
        if self._fsync == "group" and self._journal.unsynced >= SYNC_LINES:
            self._due.set()
        return self._fsync == "each"

    async def sync(self) -> None:
        """Sync what was appended. If cancelled, the thread finishes first."""
        if self._journal.unsynced and self._fsync != "none":
            try:
                await anyio.to_thread.run_sync(self._journal.sync, limiter=anyio.CapacityLimiter(1))
            except OSError as error:
                self._on_error(error)
