"""WorkerPool: the actors of a sharded run, and the shards that they run one after another.

Here: actors that die, and what they are doing. Not here: the shards' files, and when the run stops (`sharded_run`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
from anyio.abc import ObjectReceiveStream

from chatscope.batch import BatchError, BatchOptions, BatchProgress, BatchSummary
from chatscope.batch.progress import StopReason, Tally
from chatscope.ray.engine import ray_module
from chatscope.ray.limit import SharedLimit
from chatscope.ray.shard_worker import ShardWorker

T = TypeVar("T")

LIVES: Final = 5
"""How many workers may die while running one shard. A shard that kills its workers must not run forever."""

POLL_SECONDS: Final = 0.5
"""Seconds between two checks of a worker."""


class WorkerPool:
    """Runs shards on actors, one shard on each at a time.

    Args:
        count: how many actors there are.
        arguments: the arguments of each actor's adapter.
        limit: the limit that they share.
        options: how each shard is run.
        on_progress: called when something has changed.
    """

    def __init__(
        self,
        count: int,
        arguments: Mapping[str, Any],
        limit: SharedLimit,
        options: BatchOptions,
        on_progress: Callable[[], object],
    ) -> None:
        self._arguments = arguments
        self._limit = limit
        self._options = options
        self._on_progress = on_progress
        self._threads = anyio.CapacityLimiter(2 * count + 2)
        self._actors: dict[int, Any] = {}
        self._closed: set[int] = set()
        self._stop: tuple[StopReason, str | None] | None = None
        self.running: dict[int, BatchProgress] = {}
        self.ended: list[BatchSummary] = []
        self.lost = 0
        self.last_loss = ""

    async def work(self, number: int, shards: ObjectReceiveStream[Path]) -> None:
        """Run shards on one actor until there are no more. If cancelled, the actor is killed.

        Raises:
            BatchError: a shard cannot be run.
        """
        try:
            async with shards:
                async for shard in shards:
                    if self._stop is None:
                        self.ended.append(await self._run_shard(number, shard))
                        self.running.pop(number, None)
                        self._on_progress()
        finally:
            self._closed.add(number)  # a thread that was left behind may still be starting the actor
            self._kill(number)

    def stop(self, reason: StopReason, message: str | None) -> None:
        """Make the actors send nothing new, and start no further shard."""
        self._stop = (reason, message)
        for actor in self._actors.values():
            actor.stop.remote(reason, message)

    def add_to(self, tally: Tally) -> None:
        """Add the counts of the shards that have ended, and of those that run."""
        parts: list[BatchProgress | BatchSummary] = [*self.ended, *self.running.values()]
        for part in parts:
            tally.succeeded += part.succeeded
            tally.failed += part.failed
            tally.cost += part.cost
            tally.unpriced += part.unpriced
            tally.failures.update(part.failures)
            if isinstance(part, BatchProgress):
                tally.prompt_tokens += part.tokens  # of both kinds
            else:
                tally.prompt_tokens += part.prompt_tokens
                tally.completion_tokens += part.completion_tokens

    async def _run_shard(self, number: int, shard: Path) -> BatchSummary:
        errors = ray_module().exceptions
        for _ in range(LIVES):
            try:
                actor: Any = self._actors.get(number) or await self._in_thread(partial(self._start, number))
                if self._stop is not None:  # it came while the actor was being started
                    actor.stop.remote(*self._stop)
                return await self._follow(number, actor, shard)
            except errors.RayTaskError as error:
                raise _cause_of(error) from error
            except (errors.RayActorError, errors.RaySystemError) as error:
                self.lost += 1
                self.last_loss = str(error).partition("\n")[0]
                self.running.pop(number, None)
                self._kill(number)
                await anyio.sleep(POLL_SECONDS)
        raise BatchError(f"{shard}: {LIVES} consecutive workers died with it; the last one: {self.last_loss}")

    async def _follow(self, number: int, actor: Any, shard: Path) -> BatchSummary:
        ray = ray_module()
        ended = actor.run.remote(shard, self._options)
        while True:
            ready, _ = await self._in_thread(partial(ray.wait, [ended], timeout=POLL_SECONDS))
            if ready:
                summary: BatchSummary = await self._in_thread(partial(ray.get, ended))
                return summary
            try:
                progress = await self._in_thread(partial(ray.get, actor.progress.remote(), timeout=POLL_SECONDS))
            except ray.exceptions.GetTimeoutError:
                continue  # it is starting, or busy
            if progress is not None:
                self.running[number] = progress
                self._on_progress()

    def _start(self, number: int) -> Any:
        make = ray_module().remote(ShardWorker).options(num_cpus=0.1, max_restarts=0, scheduling_strategy="SPREAD")
        actor = make.remote(self._arguments, self._limit, f"shards-{number}-{secrets.token_hex(4)}")
        self._actors[number] = actor
        if number in self._closed:
            self._kill(number)
        return actor

    def _kill(self, number: int) -> None:
        actor = self._actors.pop(number, None)
        if actor is not None:
            ray_module().kill(actor)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._threads)


def _cause_of(error: Any) -> Exception:
    """Return the exception that a worker raised, without Ray's wrapper."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BatchError) else BatchError(f"a worker failed: {cause or error}")
