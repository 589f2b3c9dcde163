"""Fixtures for the fault suites: certificates, and figures that are printed at the end of the run."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from tests.support.certificates import Certificates
from tests.support.figures import FIGURES, Figures


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    return Certificates()


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Figures:
    return request.config.stash.setdefault(FIGURES, Figures())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the figures of a worker of pytest-xdist to the process that prints them."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["figures"] = pickle.dumps(session.config.stash.get(FIGURES, Figures()))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the figures of a worker."""
    if packed := getattr(node, "workeroutput", {}).get("figures"):
        node.config.stash.setdefault(FIGURES, Figures()).add(pickle.loads(packed))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tell the size of the catalogue and the number of points at which was cancelled."""
    for line in config.stash.get(FIGURES, Figures()).lines():
        terminalreporter.write_line(line)
