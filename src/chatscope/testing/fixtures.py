"""The fixtures and hooks of the pytest plugin. Their imports are delayed until a test uses them."""

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
    """A test with an endpoint, and the problems in the test's report; `None` before the test has run."""

    endpoint: ChatEndpoint
    reported: list[str] | None = None


_CASE = pytest.StashKey[_Case]()
# The backend of every test in virtual time. Each test gets new options, because tests must not share a clock.
_VIRTUAL: tuple[str, dict[str, Any]] = ("trio", {})


@pytest.fixture
def chat_endpoint(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatEndpoint]:
    """A scripted endpoint in memory for every chatscope client of the test that has no transport of its own.

    A request without a step fails the test. So does an unused step.
    """
    from chatscope.testing.endpoint import ChatEndpoint  # noqa: PLC0415 - see above
    from chatscope.transport import HTTPTransport  # noqa: PLC0415

    marker = request.node.get_closest_marker("chat_endpoint")
    endpoint = ChatEndpoint(*marker.args, **marker.kwargs) if marker else ChatEndpoint()
    monkeypatch.setattr(HTTPTransport, "handle_async_request", _method_of(endpoint))
    _set_key(monkeypatch)
    case = request.node.stash[_CASE] = _Case(endpoint)
    yield endpoint
    if case.reported is not None:  # the test has run: report what fixtures requested since then
        _fail_for([problem for problem in endpoint.problems() if problem not in case.reported])


@pytest.fixture
def chat_simulator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatSimulator]:
    """The simulator on a loopback port. Environment variables point every chatscope client of the test to it."""
    from chatscope.testing.simulating import running_simulator  # noqa: PLC0415 - see above

    if request.node.get_closest_marker("virtual_time"):
        pytest.fail("chat_simulator answers in real time: use chat_endpoint in virtual time", pytrace=False)
    with running_simulator() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        _set_key(monkeypatch)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, ",".join(filter(None, (os.environ.get(name), "127.0.0.1"))))
        yield server


def _method_of(endpoint: ChatEndpoint) -> Callable[[object, httpx.Request], Awaitable[httpx.Response]]:
    # respx patches methods with this name and these arguments, so a respx mock in the test takes precedence.
    async def handle_async_request(self: object, request: httpx.Request) -> httpx.Response:  # noqa: ARG001
        __tracebackhide__ = True
        return await endpoint.handle_async_request(request)

    return handle_async_request


def _set_key(monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.environ.get("OPENAI_API_KEY"):
        monkeypatch.setenv("OPENAI_API_KEY", DUMMY_KEY)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test in virtual time only once, on any set of backends."""
    if "anyio_backend" in metafunc.fixturenames and metafunc.definition.get_closest_marker("virtual_time"):
        backend = pytest.param(_VIRTUAL, id="virtual_time")
        metafunc.definition.add_marker(pytest.mark.parametrize("anyio_backend", [backend]))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start the test's virtual time at 0."""
    if item.get_closest_marker("virtual_time") and "anyio_backend" in getattr(item, "fixturenames", ()):
        from chatscope.testing.loops import virtual_time  # noqa: PLC0415 - see above

        # anyio reuses a running loop for every test, whatever the test's backend, and offers no public way to check.
        if getattr(sys.modules.get("anyio.pytest_plugin"), "_current_runner", None) is not None:
            pytest.fail(
                "virtual_time needs an event loop of its own: an async fixture of a wider scope keeps another running",
                pytrace=False,
            )
        _VIRTUAL[1].update(virtual_time()[1])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test whose endpoint got an unexpected request, or has an unused step."""
    if item.get_closest_marker("virtual_time") and iscoroutinefunction(getattr(item, "obj", None)):
        _check_virtual(getattr(item, "funcargs", {}).get("anyio_backend"))
    try:
        result = yield
    except BaseException as error:
        if case := _finish(item):
            from chatscope.testing.steps import explain  # noqa: PLC0415 - see above

            # The application may have swallowed the error that made the test fail.
            for unexpected in case.endpoint.unexpected:
                if unexpected is not error:
                    item.add_report_section("call", "chat_endpoint", explain(unexpected))
        raise
    if case := _finish(item):
        _fail_for(case.reported)
    return result


def _finish(item: pytest.Item) -> _Case | None:
    """Record the problems at the end of a test. The test may have requested its endpoint in its body."""
    case = item.stash.get(_CASE, None)
    if case is not None:
        case.reported = case.endpoint.problems()
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
