"""Fixtures for servers that are not ours, started once for the whole test session and stopped with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from anyio.from_thread import start_blocking_portal
from tests.support.litellm_proxy import LiteLLMProxy
from tests.support.litellm_proxy import litellm_proxy as started_proxy

from chatscope.simulator import Simulator, simulator


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the proxy in one process, so that pytest-xdist does not start one for each."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if "litellm_proxy" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group("litellm"))


@pytest.fixture(scope="session")
def upstream() -> Iterator[tuple[Simulator, str]]:
    """A simulator in a thread of its own, and its address: what the proxy's model `simulated` goes on to."""
    server = simulator()
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server) as base_url:
        yield server, base_url


@pytest.fixture(scope="session")
def litellm_proxy(tmp_path_factory: pytest.TempPathFactory, upstream: tuple[Simulator, str]) -> Iterator[LiteLLMProxy]:
    """A LiteLLM proxy for the session: ``$CHATSCOPE_LITELLM``, or ``litellm`` on the PATH, or a skip.

    It needs an environment of its own, since it pins what chatscope does not:
    ``python3 -m venv DIR && DIR/bin/pip install 'litellm[proxy]'``, then ``CHATSCOPE_LITELLM=DIR/bin/litellm``.
    """
    named = os.environ.get("CHATSCOPE_LITELLM")
    executable = named or shutil.which("litellm")
    if executable is None:
        pytest.skip("no LiteLLM proxy: CHATSCOPE_LITELLM is not set and there is no litellm on the PATH")
    home = str(tmp_path_factory.mktemp("litellm-home"))
    with started_proxy(executable, home, upstream[1]) as proxy:
        yield proxy
