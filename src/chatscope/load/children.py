"""Processes that a load test starts: modules of this package, spoken to through pipes, that never outlive it."""

from __future__ import annotations

import os
import sys
from typing import Final

import anyio
import anyio.abc

CLOSE_SECONDS: Final = 5.0
"""How long a process may take to end by itself."""


async def open_child(module: str, *arguments: str) -> anyio.abc.Process:
    """Start a module in a process of its own, with pipes as standard input and output. The caller closes it.

    It is spawned, so no thread, lock or event loop of this process is in it. It ends when its standard input does.

    Raises:
        OSError: it cannot be started.
    """
    return await anyio.open_process(
        [sys.executable, "-m", module, *arguments],
        stderr=None,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},  # the same modules, wherever they were found
        start_new_session=True,  # Ctrl-C is for the parent, which lets its workers drain
    )


async def close_child(process: anyio.abc.Process) -> None:
    """End a process's standard input, and wait until it has ended. It is killed when cancelled or too slow."""
    with anyio.move_on_after(CLOSE_SECONDS):
        await process.aclose()
