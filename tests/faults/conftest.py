"""What the fault suites share: certificates, and the figures that are told at the end of the run."""

from __future__ import annotations

from typing import Any

import pytest

pytest.register_assert_rewrite("tests.faults.driver")  # before it is imported

from tests.faults.certificates import Certificates  # noqa: E402 - see above
from tests.faults.figures import FIGURES, Figures  # noqa: E402 - see above


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    return Certificates()


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Figures:
    return request.config.stash.setdefault(FIGURES, Figures())


@pytest.fixture
def loop(anyio_backend: tuple[str, dict[str, Any]]) -> str:
    """The name of the event loop."""
    name, options = anyio_backend
    if options.get("use_uvloop"):
        return "uvloop"
    return f"{name}-eager" if "loop_factory" in options else name


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tell the size of the catalogue and the number of points at which was cancelled."""
    for line in config.stash.get(FIGURES, Figures()).lines():
        terminalreporter.write_line(line)
