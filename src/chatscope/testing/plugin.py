"""The entry point of the pytest plugin, loaded wherever chatscope and pytest are installed.

It only registers `fixtures`, because pytest imports it before reading its options and before coverage starts.
"""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and the fixtures."""
    if pytest.version_tuple < (8,):  # the extra requires 8; with an older pytest, the run continues without the plugin
        return
    config.addinivalue_line(
        "markers",
        "chat_endpoint(*, ordered=True, allow_unexpected=False, allow_unused=False): how strict the fixture "
        "chat_endpoint is (chatscope)",
    )
    config.addinivalue_line(
        "markers",
        "virtual_time: run the test once, on trio, with a clock that jumps when all tasks wait (chatscope)",
    )
    config.pluginmanager.import_plugin("chatscope.testing.fixtures")
