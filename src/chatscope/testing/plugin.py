"""The pytest plugin, loaded by its entry point wherever chatscope and pytest are installed.

Nothing but the door: pytest imports this before it has read its options, and before coverage measures anything.
"""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and what lies behind the door."""
    if pytest.version_tuple < (8,):  # what the extra asks for; a run with an older one may not want any of this
        return
    config.addinivalue_line(
        "markers",
        "chat_endpoint(*, ordered=True, allow_unexpected=False, allow_unused=False): how strict the fixture "
        "chat_endpoint is (chatscope)",
    )
    config.addinivalue_line(
        "markers", "virtual_time: run the test once, on trio, with a clock that jumps ahead when all wait (chatscope)"
    )
    config.pluginmanager.import_plugin("chatscope.testing.fixtures")
