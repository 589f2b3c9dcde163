"""Which core each process runs on, and that it keeps it to itself as far as that is possible."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

PRIORITY: Final = -10
"""What is asked for, if the system grants it: other processes' turns on these cores make tokens come in bunches."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the clients run on, and which the server; `None` where the system cannot pin a process."""

    client: int | None
    server: int | None

    @classmethod
    def of_this_machine(cls) -> Self:
        """Choose two cores, or the same one twice where there is no other."""
        if not hasattr(os, "sched_getaffinity"):
            return cls(None, None)
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[-1])


def settle(core: int | None) -> None:
    """Pin this process to a core and raise its priority, as far as that is allowed."""
    if core is not None:
        os.sched_setaffinity(0, {core})
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Run this process on a core for the length of a block, and let the processes that it starts inherit that."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
