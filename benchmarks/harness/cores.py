"""Chooses the core of each process, and reserves it for that process as far as possible."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

PRIORITY: Final = -10
"""The priority requested from the system. If other processes ran on these cores, tokens would arrive in bunches."""


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores of the clients and of the server; `None` if the system cannot pin a process."""

    client: int | None
    server: int | None

    @classmethod
    def of_this_machine(cls) -> Self:
        """Choose two cores, or the same core twice if there is only one."""
        if not hasattr(os, "sched_getaffinity"):
            return cls(None, None)
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[-1])


def settle(core: int | None) -> None:
    """Pin this process to a core and raise its priority, as far as the system allows."""
    if core is not None:
        os.sched_setaffinity(0, {core})
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Run this process on a core while the block is open. The processes that it starts inherit the core."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
