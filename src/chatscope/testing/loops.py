"""The event loops to test on, and virtual time, for anyio's pytest plugin."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

__all__ = ["LOOPS", "Backend", "virtual_time"]

Backend: TypeAlias = tuple[str, dict[str, Any]]
"""A value of the fixture `anyio_backend`: the library that runs a test, and its options."""


def _loops() -> tuple[ParameterSet, ...]:
    backends = {"asyncio": ("asyncio", {"use_uvloop": False})}
    if find_spec("uvloop"):
        backends["uvloop"] = ("asyncio", {"use_uvloop": True})
    if find_spec("trio"):
        backends["trio"] = ("trio", {})
    return tuple(pytest.param(backend, id=name) for name, backend in backends.items())


LOOPS = _loops()
"""asyncio, and uvloop and trio if installed: parameters for an `anyio_backend` fixture.

::

    @pytest.fixture(params=LOOPS)
    def anyio_backend(request):
        return request.param
"""


def virtual_time() -> Backend:
    """Return a backend whose clock jumps to the next deadline when all tasks wait.

    Raises:
        ImportError: trio is not installed.
    """
    try:
        testing = import_module("trio.testing")  # not at the top: trio is an extra, and LOOPS does not need it
    except ModuleNotFoundError as missing:
        raise ImportError("virtual time needs trio; install it with: pip install 'chatscope[trio]'") from missing
    return "trio", {"clock": testing.MockClock(autojump_threshold=0)}
