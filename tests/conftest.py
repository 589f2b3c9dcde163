"""For every test: the event loops, virtual time, a clean environment, a server in memory; and how many run at once."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from importlib import import_module
from typing import Any

import pytest
from tests.support.loops import BACKENDS, is_its_loop, loop_name, repeats_another_loop
from tests.support.memory_server import MemoryServer, Serve
from tests.support.reports import encodable

from chatscope.simulator import Reply, Script
from chatscope.testing.loops import Backend
from chatscope.testing.loops import virtual_time as in_virtual_time

pytest_plugins = ("pytester",)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Let `-n auto` start one worker more than there are cores: a quarter of the tests' time is waiting."""
    workers = yield
    return workers if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else workers + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Find the tests without the garbage collector, which would look in vain: what is imported stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> Generator[None, object, object]:
    """Keep what is imported out of the garbage collections of the tests: each would take 0.2 s."""
    # Its first import asks the collector what refers to trio's random numbers, and must not find it frozen.
    import_module("hypothesis")
    gc.collect()
    gc.freeze()
    try:
        return (yield)
    finally:
        gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def compiled_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the processes that tests start share compiled modules if Python is told to write none beside the sources.

    Without this, compiling is half of what starting the command line costs.
    """
    if not sys.dont_write_bytecode:
        yield
        return
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # one for all workers
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", str(shared / "compiled"))
        yield


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    """Run the test on asyncio, on asyncio with uvloop, on trio, and from Python 3.12 on with eager tasks too."""
    backend: Backend = request.param
    return backend


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, Any]:
    """Make each row of a test marked `one_loop` for one loop only."""
    made = yield
    return [item for item in made if is_its_loop(item)] if isinstance(made, list) else made


def pytest_itemcollected(item: pytest.Item) -> None:
    """Leave rows that repeat another loop's out of the quick run."""
    if repeats_another_loop(item):
        item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Let workers of pytest-xdist report whatever a test printed."""
    return encodable((yield))


@pytest.fixture
def loop(anyio_backend: Backend) -> str:
    """The name of the event loop."""
    return loop_name(anyio_backend)


@pytest.fixture
def virtual_time() -> Backend:
    """A backend whose clock jumps ahead whenever everybody waits: a module makes it its `anyio_backend`."""
    return in_virtual_time()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's own key, address and proxies out of the tests."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)


@pytest.fixture
def serve() -> Serve:
    """Make a server in memory, to be given as `transport=`."""

    def make(script: Script | None = None) -> MemoryServer:
        return MemoryServer(Reply("Hello, world.") if script is None else script)

    return make
