"""The event loops that async tests run on."""

from __future__ import annotations

import asyncio
import sys

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
