"""A headless Chromium for tests: at `CHATSCOPE_CHROMIUM`, or the first of the usual names on the PATH."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

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


@contextmanager
def open_browser(profile: Path, width: int, height: int, **settings: Any) -> Iterator[BrowserContext]:
    """Open it with a profile and a window of that size, and other settings of playwright."""
    with import_module("playwright.sync_api").sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=ARGUMENTS, viewport={"width": width, "height": height}, **settings
        )
        yield context
        context.close()
