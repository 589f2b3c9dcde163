"""Each async test runs on asyncio, on uvloop and on trio, as far as they are installed."""

from __future__ import annotations

from typing import Any

import pytest

from chatscope.testing import LOOPS


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Give anyio's pytest plugin the loop to run the test on."""
    return request.param
