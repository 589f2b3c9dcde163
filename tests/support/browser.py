"""A headless Chromium for tests: at `CHATSCOPE_CHROMIUM`, or the first of the usual names on the PATH."""

from __future__ import annotations

import os
import shutil
from typing import Final

import pytest

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM: Final = os.environ.get("CHATSCOPE_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)

ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""No sandbox, because CI runs as root, and no background traffic."""

needs_browser: Final = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: set CHATSCOPE_CHROMIUM or put it on the PATH"),
]
"""The marks of a module whose tests need it."""
