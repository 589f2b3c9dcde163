"""Event loops and virtual time: with anyio's plugin, with another plugin, and without one."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from chatscope.testing import LOOPS
from chatscope.testing.loops import virtual_time

if TYPE_CHECKING:
    from tests.support.inner_pytest import Run

INI = "[pytest]\nfilterwarnings = error\n"

ON_ALL_LOOPS = """
import pytest
from chatscope.testing import LOOPS

@pytest.fixture(params=LOOPS)
def anyio_backend(request):
    return request.param
"""

# What pytest-asyncio and pytest-trio do with an async test that requests no loop of anyio's.
ANOTHER_PLUGIN = """
import {library}, inspect, pytest

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        arguments = [pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters]
        async def main():
            await pyfuncitem.obj(*arguments)
        {library}.run({main})
        return True
"""


def test_only_installed_loops_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    from chatscope.testing import loops

    assert [loop.id for loop in LOOPS] == ["asyncio", "uvloop", "trio"]
    for missing in ("uvloop", "trio"):
        monkeypatch.setattr(
            loops, "find_spec", lambda name, missing=missing: None if name == missing else find_spec(name)
        )
        left = [name for name in ("asyncio", "uvloop", "trio") if name != missing]
        assert [loop.id for loop in loops._loops()] == left


def test_each_test_runs_on_each_loop(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(ON_ALL_LOOPS)
    result = run(
        """
import asyncio, sniffio

async def test_it(chat_endpoint, chat_simulator, anyio_backend_name):
    chat_endpoint.add("a")
    assert await ask() == "a"
    loop = sniffio.current_async_library()
    print("ran on", loop if loop == "trio" else type(asyncio.get_running_loop()).__module__.partition(".")[0])
""",
        "-s",
    )
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines_random(["*ran on asyncio*", "*ran on uvloop*", "*ran on trio*"])


VIRTUAL = """
import time

async def wait_a_day():
    import anyio
    assert anyio.current_time() == 0
    await anyio.sleep(86_400)
    assert anyio.current_time() == 86_400
"""


@pytest.mark.parametrize("conftest", [ON_ALL_LOOPS, ""], ids=["all loops", "anyio's own"])
def test_virtual_time_runs_a_test_once_and_starts_at_0(conftest: str, run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(conftest)
    result = run(
        VIRTUAL
        + """
@pytest.fixture
async def waited():
    import anyio
    await anyio.sleep(5)
    return anyio.current_time()

@pytest.mark.virtual_time
@pytest.mark.parametrize("number", [1, 2])
async def test_each(number):
    await wait_a_day()

@pytest.mark.virtual_time
class TestClass:
    async def test_fixtures_share_it(self, waited):
        assert waited == 5

    def test_a_synchronous_test_has_no_clock(self):
        pass
""",
        "-v",
    )
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        ["*::test_each[[]*virtual_time*] PASSED*", "*::test_fixtures_share_it[[]virtual_time] *"]
    )


def test_virtual_time_of_a_module_with_anyios_marker(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini(f"{INI}addopts = -p no:hypothesispytest\n")
    result = run(
        VIRTUAL
        + "pytestmark = [pytest.mark.virtual_time, pytest.mark.anyio]\nasync def test_it():\n    await wait_a_day()\n"
    )
    result.assert_outcomes(passed=1)


def test_virtual_time_beside_a_running_loop_is_refused(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "import pytest\n@pytest.fixture(scope='session')\ndef anyio_backend():\n    return 'asyncio'\n"
    )
    result = run("""
@pytest.fixture(scope="session")
async def application():
    yield

async def test_first(application):
    pass

@pytest.mark.virtual_time
async def test_it():
    pass
""")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["virtual_time needs an event loop of its own: an async fixture of a wider scope *"])


def test_virtual_time_names_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio.testing", None)
    with pytest.raises(ImportError, match=r"virtual time needs trio; .* 'chatscope\[trio\]'"):
        virtual_time()


@pytest.mark.parametrize(("library", "main"), [("asyncio", "main()"), ("trio", "main")], ids=["asyncio", "trio"])
def test_another_plugin_runs_the_tests(library: str, main: str, run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini(f"{INI}addopts = -p no:anyio -p no:hypothesispytest\n")
    pytester.makeconftest(ANOTHER_PLUGIN.format(library=library, main=main))
    result = run("""
async def test_endpoint(chat_endpoint):
    chat_endpoint.add("a")
    assert await ask() == "a"

async def test_unused(chat_endpoint):
    chat_endpoint.add("a")

async def test_simulator(chat_simulator):
    chat_simulator.script = Reply("a")
    assert await ask() == "a"
    await chat_simulator.wait_until(lambda server: server.connections_open == 0)
    assert len(chat_simulator.requests) == 1

@pytest.mark.virtual_time
async def test_virtual():
    pass
""")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["virtual_time is for tests that anyio's plugin runs; pytest-trio has *autojump_clock"])


@pytest.mark.virtual_time
async def test_the_marker_in_this_run(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    assert anyio_backend[0] == "trio"
