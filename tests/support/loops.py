"""The event loops that async tests run on."""

from __future__ import annotations

import asyncio
import os
import sys
from zlib import crc32

import pytest

from chatscope.testing import LOOPS
from chatscope.testing.loops import Backend

BACKENDS = list(LOOPS)

if sys.version_info >= (3, 12):

    def eager_loop() -> asyncio.AbstractEventLoop:
        """A stock loop whose tasks run up to their first wait while they are being created."""
        loop = asyncio.new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    BACKENDS.append(pytest.param(("asyncio", {"loop_factory": eager_loop}), id="asyncio-eager"))


def loop_name(backend: Backend) -> str:
    """Return the name of a backend's event loop."""
    name, options = backend
    if options.get("use_uvloop"):
        return "uvloop"
    return f"{name}-eager" if "loop_factory" in options else name


def repeats_another_loop(item: pytest.Item) -> bool:
    """Return whether a row on uvloop or with eager tasks shows what asyncio's row has shown.

    Only the transport's streams can tell these loops apart, and rows marked `one_loop` run once.
    """
    if not isinstance(item, pytest.Function) or item.get_closest_marker("one_loop") or "transport" in item.path.parts:
        return False
    backend = item.callspec.params.get("anyio_backend") if hasattr(item, "callspec") else None
    return isinstance(backend, tuple) and loop_name(backend) not in {"asyncio", "trio"}


def is_its_loop(item: pytest.Item | pytest.Collector) -> bool:
    """Tell whether a test runs on its event loop; a test marked `one_loop` or `two_loops` does so on few of them.

    Two are asyncio and trio. One follows from the row's id, so that each loop gets a third of the rows, and a row
    always the same. With `CHATSCOPE_EVERY_LOOP=1` in the environment, every row runs on every loop.
    """
    few = item.get_closest_marker("one_loop") or item.get_closest_marker("two_loops")
    if few is None or os.environ.get("CHATSCOPE_EVERY_LOOP"):
        return True
    assert isinstance(item, pytest.Function)
    backend = item.callspec.params.get("anyio_backend") if hasattr(item, "callspec") else None
    if not isinstance(backend, tuple):
        return True  # no loop runs it, or one that the test names itself
    loop = loop_name(backend)
    if few.name == "two_loops":
        return loop in {"asyncio", "trio"}
    row = f"-{item.callspec.id}-".replace(f"-{loop}-", "-", 1)[1:-1]  # the same text on every loop, "" without rows
    return loop == [each.id for each in LOOPS][crc32(f"{item.originalname} {row}".encode()) % len(LOOPS)]
