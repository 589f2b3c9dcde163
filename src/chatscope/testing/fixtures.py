"""The fixtures and hooks of the pytest plugin. What they need is imported when a test asks for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import httpx

    from chatscope.testing import ChatEndpoint, ChatSimulator

DUMMY_KEY = "sk-chatscope-test"


@dataclass(slots=True)
class _Case:
    """A test that has an endpoint, and the problems that its report tells; None before it has run."""

    endpoint: ChatEndpoint
    told: list[str] | None = None


_CASE = pytest.StashKey[_Case]()
# The backend of every test in virtual time. Its options are made anew for each, since no two tests share a clock.
_VIRTUAL: tuple[str, dict[str, Any]] = ("trio", {})


@pytest.fixture
def chat_endpoint(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatEndpoint]:
    """A scripted endpoint in memory that every chatscope client of the test asks, unless it has a transport of its own.

    A request that no step is for fails the test, and so does a step that is left over.
    """
    from chatscope.testing.endpoint import ChatEndpoint  # noqa: PLC0415 - see above
    from chatscope.transport import HTTPTransport  # noqa: PLC0415

    marker = request.node.get_closest_marker("chat_endpoint")
    endpoint = ChatEndpoint(*marker.args, **marker.kwargs) if marker else ChatEndpoint()
    monkeypatch.setattr(HTTPTransport, "handle_async_request", _method_of(endpoint))
    _set_key(monkeypatch)
    case = request.node.stash[_CASE] = _Case(endpoint)
    yield endpoint
    if case.told is not None:  # the test has run: this is about what fixtures asked since then
        _fail_for([problem for problem in endpoint.problems() if problem not in case.told])


@pytest.fixture
def chat_simulator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatSimulator]:
    """The simulator on a loopback port, where the environment sends every chatscope client of the test."""
    from chatscope.testing.simulating import ChatSimulator  # noqa: PLC0415 - see above

    if request.node.get_closest_marker("virtual_time"):
        pytest.fail("chat_simulator answers in real time: use chat_endpoint in virtual time", pytrace=False)
    with ChatSimulator.running() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        _set_key(monkeypatch)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, ",".join(filter(None, (os.environ.get(name), "127.0.0.1"))))
        yield server


def _method_of(endpoint: ChatEndpoint) -> Callable[[object, httpx.Request], Awaitable[httpx.Response]]:
    # respx patches methods of this name, with these arguments: within the test its mocks go first.
    async def handle_async_request(self: object, request: httpx.Request) -> httpx.Response:  # noqa: ARG001
        __tracebackhide__ = True
        return await endpoint.handle_async_request(request)

    return handle_async_request


def _set_key(monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.environ.get("OPENAI_API_KEY"):
        monkeypatch.setenv("OPENAI_API_KEY", DUMMY_KEY)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test in virtual time once, whatever backends there are."""
    if "anyio_backend" in metafunc.fixturenames and metafunc.definition.get_closest_marker("virtual_time"):
        backend = pytest.param(_VIRTUAL, id="virtual_time")
        metafunc.definition.add_marker(pytest.mark.parametrize("anyio_backend", [backend]))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start a test's virtual time at 0."""
    if item.get_closest_marker("virtual_time") and "anyio_backend" in getattr(item, "fixturenames", ()):
        from chatscope.testing.loops import virtual_time  # noqa: PLC0415 - see above

        # anyio gives every test the loop that runs already, whatever the test asks for, and has no public name for it.
        if getattr(sys.modules.get("anyio.pytest_plugin"), "_current_runner", None) is not None:
            pytest.fail(
                "virtual_time needs an event loop of its own: an async fixture of a wider scope keeps another running",
                pytrace=False,
            )
        _VIRTUAL[1].update(virtual_time()[1])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test whose endpoint was asked what it should not have been, or was not asked what it should."""
    if item.get_closest_marker("virtual_time") and iscoroutinefunction(getattr(item, "obj", None)):
        _check_virtual(getattr(item, "funcargs", {}).get("anyio_backend"))
    try:
        result = yield
    except BaseException as error:
        if case := _ended(item):
            from chatscope.testing.steps import explained  # noqa: PLC0415 - see above

            # The application may have swallowed what the test's own failure comes from.
            for unexpected in case.endpoint.unexpected:
                if unexpected is not error:
                    item.add_report_section("call", "chat_endpoint", explained(unexpected))
        raise
    if case := _ended(item):
        _fail_for(case.told)
    return result


def _ended(item: pytest.Item) -> _Case | None:
    """Note what is wrong at the end of a test, if it has an endpoint by then: it may ask for one in its body."""
    case = item.stash.get(_CASE, None)
    if case is not None:
        case.told = case.endpoint.problems()
    return case


def _check_virtual(backend: object) -> None:
    if backend is not _VIRTUAL:
        pytest.fail(
            "virtual_time is for tests that anyio's plugin runs; pytest-trio has a fixture for it, autojump_clock",
            pytrace=False,
        )


def _fail_for(problems: list[str] | None) -> None:
    if problems:
        pytest.fail("chat_endpoint: " + "\n\n".join(problems), pytrace=False)
