"""Starts the processes of a load test: modules of this package, connected by pipes, that never outlive it."""

from __future__ import annotations

import os
import sys
from typing import Final

import anyio
import anyio.abc

CLOSE_SECONDS: Final = 5.0
"""Seconds that a process may take to end by itself."""


async def open_child(module: str, *arguments: str) -> anyio.abc.Process:
    """Start a module in a separate process, with pipes as standard input and output. The caller closes it.

    It is spawned, so it inherits no thread, lock or event loop. It ends when its standard input ends.

    Raises:
        OSError: it cannot be started.
    """
    return await anyio.open_process(
        [sys.executable, "-m", module, *arguments],
        stderr=None,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},  # import the same modules, wherever they were found
        start_new_session=True,  # Ctrl-C is for the parent, which lets its workers drain
    )


async def close_child(process: anyio.abc.Process) -> None:
    """Close a process's standard input, and wait until it has ended. If cancelled, or if it is too slow, kill it."""
    with anyio.move_on_after(CLOSE_SECONDS):
        await process.aclose()
