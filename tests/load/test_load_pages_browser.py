"""A report in a real browser: drawn without a network, in light and dark, on a narrow screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.browser import needs_browser, open_browser
from tests.support.load_reports import made_report

from chatscope.load import comparison_page, report_page

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("plotly", reason="it is what draws the pages")

pytestmark = needs_browser

DRAWN = "() => [...document.querySelectorAll('.chart')].every(place => place.querySelector('.main-svg'))"
CURVE = "() => getComputedStyle(document.querySelector('.scatterlayer .js-line')).stroke"
TEXT = "() => getComputedStyle(document.querySelector('.xtick text')).fill"
OVERFLOW = "() => document.documentElement.scrollWidth - innerWidth"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[BrowserContext]:
    """A headless browser without a network, in a window as wide as a telephone."""
    with open_browser(tmp_path / "profile", 400, 800, offline=True, color_scheme="light") as context:
        yield context


def opened(browser: BrowserContext, path: Path, html: str) -> tuple[Page, list[str], list[str]]:
    """Open a page. Return it, what it requested, and its script's errors."""
    path.write_text(html, encoding="utf-8")
    page = browser.new_page()
    requested: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_function(DRAWN, timeout=60_000)
    return page, requested, problems


def test_a_report_is_drawn_offline_in_both_themes_on_a_narrow_screen(browser: BrowserContext, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    page, requested, problems = opened(browser, path, report_page(made_report()))
    assert requested == [path.as_uri()]
    assert problems == []
    assert page.locator(".chart").count() == 10
    assert page.evaluate(OVERFLOW) == 0
    light = page.evaluate(CURVE), page.evaluate(TEXT)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"before => ({TEXT})() !== before", arg=light[1], timeout=60_000)
    assert page.evaluate(CURVE) != light[0]
    assert requested == [path.as_uri()]
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_function("() => document.querySelector('.main-svg').clientWidth > 400", timeout=60_000)
    assert problems == []


def test_a_comparison_is_drawn_offline(browser: BrowserContext, tmp_path: Path) -> None:
    path = tmp_path / "comparison.html"
    html = comparison_page(made_report(), made_report(seed=2), ("one", "two"))
    page, requested, problems = opened(browser, path, html)
    assert (requested, problems) == ([path.as_uri()], [])
    assert page.evaluate(OVERFLOW) == 0
    assert page.locator(".chart").count() == 8
