"""Run each async test on asyncio, uvloop and trio, as far as they are installed."""

from __future__ import annotations

from typing import Any

import pytest

from chatscope.testing import LOOPS


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loop on which anyio's pytest plugin runs the test."""
    return request.param
