"""SharedLimit: one limit for all processes of a Ray job, held by a named actor.

Here: the actor, and how it is found, lost and started again. Not here: what it grants (`LimitServer`), and how a
process uses its lease (`LeasedPacer`).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final, Self

import anyio
import anyio.to_thread

from chatscope import Lease, LeaseRequest, LimitServer
from chatscope.ray.engine import beside_this_process, ray_module

CALL_SECONDS: Final = 4.0
"""Seconds after which the actor counts as lost: longer than it holds a request, and longer than a restart takes."""


class LimitActor:
    """What runs in the actor: a `LimitServer` for all."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._server = LimitServer(requests_per_minute, tokens_per_minute)

    async def budgets(self) -> tuple[float | None, float | None]:
        """Return the whole limit."""
        return self._server.budgets

    async def lease(self, request: LeaseRequest) -> Lease:
        """Return a lease."""
        return await self._server.lease(request)

    async def pause(self, model: str, seconds: float) -> None:
        """Record a pause."""
        await self._server.pause(model, seconds)


class SharedLimit:
    """One limit for all workers of a Ray job, each of which leases about a second of it at a time.

    A server's request to pause (a 429 with `retry-after`) holds back all workers within about a second, even if there
    are no budgets. While the limit cannot be reached, each worker continues with its share: the limit divided by the
    number of workers. The object can be pickled; every copy reaches the same limit.

    Args:
        requests_per_minute, tokens_per_minute: the limit for all workers together; `None` means no limit.
        name: names the limit among others of the same job.
        namespace: a namespace of Ray's; jobs that give the same one share the limit. Default: the job's own.

    Raises:
        ValueError: a limit is not a number above 0.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        *,
        name: str = "chatscope-limit",
        namespace: str | None = None,
    ) -> None:
        LimitServer(requests_per_minute, tokens_per_minute)  # checks them
        self._budgets = (requests_per_minute, tokens_per_minute)
        self._name = name
        self._namespace = namespace
        self._actor: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_actor": None}

    def __repr__(self) -> str:
        requests, tokens = self._budgets
        return f"SharedLimit(requests_per_minute={requests}, tokens_per_minute={tokens}, name={self._name!r})"

    @property
    def budgets(self) -> tuple[float | None, float | None]:
        """The whole limit: requests and tokens per minute."""
        return self._budgets

    def start(self) -> Self:
        """Start the limit in this process's job, so that it exists as long as this object. Blocks.

        Otherwise the first worker starts the limit, and if that worker ends, another one must start it again.

        Raises:
            ValueError: there is a limit of this name already, with other budgets.
            ImportError: Ray is not installed.
        """
        self._actor = self._find()
        found = ray_module().get(self._actor.budgets.remote())
        if tuple(found) != self._budgets:
            raise ValueError(f"there is a limit named {self._name!r} with other budgets, {found}: give another name")
        return self

    def stop(self) -> None:
        """End the limit, if this object has reached it. Workers that still use it start another one."""
        actor, self._actor = self._actor, None
        if actor is not None and ray_module().is_initialized():
            ray_module().kill(actor)

    async def lease(self, request: LeaseRequest) -> Lease:
        """Return a lease. If cancelled, the actor may still grant it; it then counts as used.

        Raises:
            ConnectionError: the actor is lost.
        """
        lease: Lease = await self._call("lease", request)
        return lease

    async def pause(self, model: str, seconds: float) -> None:
        """Pause the requests of all workers for a model.

        Raises:
            ConnectionError: the actor is lost.
        """
        await self._call("pause", model, seconds)

    async def _call(self, method: str, *arguments: object) -> Any:
        """Call the actor. If necessary, find it or start it again. If cancelled, the call continues in the actor."""
        errors = ray_module().exceptions
        try:
            with anyio.fail_after(CALL_SECONDS):
                if self._actor is None:
                    self._actor = await anyio.to_thread.run_sync(self._find, abandon_on_cancel=True)
                return await getattr(self._actor, method).remote(*arguments)
        except (
            errors.RayError,
            TimeoutError,
            ValueError,
        ) as error:  # the last: a name that just went
            self._actor = None
            raise ConnectionError(f"the limit {self._name!r} does not respond: {type(error).__name__}") from error

    def _find(self) -> Any:
        """Return the actor, and start it if there is none. Blocks, for a second if a process must be started."""
        make = partial(ray_module().remote(LimitActor).options, name=self._name, namespace=self._namespace)
        actor = make(get_if_exists=True, num_cpus=0, max_restarts=-1, scheduling_strategy=beside_this_process())
        return actor.remote(*self._budgets)
