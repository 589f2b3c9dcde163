"""examples/streaming_server in a real browser: the text grows, and closing the page ends the model's request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.browser import needs_browser, open_browser
from tests.support.streaming_server import Served, by_prompt

from chatscope.simulator import Outcome, Reply, error, faults

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page
    from tests.support.processes import Launch
    from tests.support.simulated import Simulate

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

sync_api.expect.set_options(timeout=60_000)  # milliseconds: long enough for a busy machine

pytestmark = needs_browser

TEXT = "one two three four five six"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[BrowserContext]:
    """A headless browser with a new profile, in a narrow window."""
    with open_browser(tmp_path / "profile", 480, 640) as context:
        yield context


def asks(page: Page, url: str, question: str) -> None:
    """Open the page and send a question."""
    page.goto(url)
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Ask").click()


def shows(page: Page, text: str, status: str) -> None:
    """Wait until the page shows exactly this."""
    sync_api.expect(page.get_by_label("Answer")).to_have_text(text)
    sync_api.expect(page.get_by_role("status")).to_have_text(status)


def test_the_text_grows_and_closing_the_page_ends_the_models_request(
    simulate: Simulate, launch: Launch, browser: BrowserContext, tmp_path: Path
) -> None:
    simulated = simulate(Reply())
    three_seen = simulated.event()
    simulated.server.script = Reply(TEXT, faults=(faults.hold(3, three_seen), faults.stall(5)))
    served = Served(launch, simulated)
    page = browser.new_page()
    asks(page, served.url, "count")
    shows(page, "one two three", "Writing …")
    assert simulated.outcomes() == {"count": Outcome.RUNNING}
    simulated.set(three_seen)
    shows(page, "one two three four five", "Writing …")
    assert simulated.outcomes() == {"count": Outcome.RUNNING}
    page.screenshot(path=tmp_path / "growing.png")
    assert (tmp_path / "growing.png").read_bytes().startswith(b"\x89PNG")
    page.close()
    simulated.wait_for("count", Outcome.DISCONNECTED)
    simulated.wait_until(lambda s: s.connections_open == 0)


def test_closing_the_page_before_the_first_word_ends_the_models_request(
    simulate: Simulate, launch: Launch, browser: BrowserContext
) -> None:
    simulated = simulate(Reply(TEXT, faults=(faults.stall(0),)))
    page = browser.new_page()
    asks(page, Served(launch, simulated).url, "think")
    shows(page, "", "Waiting for the first word …")
    simulated.wait_until(lambda s: len(s.requests) == 1)
    assert simulated.outcomes() == {"think": Outcome.RUNNING}
    page.close()
    simulated.wait_for("think", Outcome.DISCONNECTED)
    simulated.wait_until(lambda s: s.connections_open == 0)


def test_the_stop_button_ends_the_request_and_the_page_stays_usable(
    simulate: Simulate, launch: Launch, browser: BrowserContext
) -> None:
    simulated = simulate(by_prompt(long=Reply(TEXT, faults=(faults.stall(3),)), short=Reply("Yes.")))
    page = browser.new_page()
    asks(page, Served(launch, simulated).url, "long")
    shows(page, "one two three", "Writing …")
    sync_api.expect(page.get_by_role("button", name="Ask")).to_be_disabled()
    page.get_by_role("button", name="Stop").click()
    simulated.wait_for("long", Outcome.DISCONNECTED)
    shows(page, "one two three", "Stopped.")
    page.get_by_label("Your question").fill("short")
    page.get_by_role("button", name="Ask").click()
    shows(page, "Yes.", "Complete.")
    sync_api.expect(page.get_by_role("button", name="Stop")).to_be_disabled()


def test_two_pages_are_independent(simulate: Simulate, launch: Launch, browser: BrowserContext) -> None:
    simulated = simulate(Reply())
    one_has_left = simulated.event()
    simulated.server.script = by_prompt(
        one=Reply(TEXT, faults=(faults.stall(2),)), two=Reply(TEXT, faults=(faults.hold(3, one_has_left),))
    )
    served = Served(launch, simulated)
    one, two = browser.new_page(), browser.new_page()
    asks(one, served.url, "one")
    asks(two, served.url, "two")
    shows(one, "one two", "Writing …")
    shows(two, "one two three", "Writing …")
    one.close()
    simulated.wait_for("one", Outcome.DISCONNECTED)
    assert simulated.outcomes()["two"] is Outcome.RUNNING
    simulated.set(one_has_left)
    shows(two, TEXT, "Complete.")
    simulated.wait_for("two", Outcome.COMPLETED)


def test_an_error_is_shown_and_the_page_stays_usable(
    simulate: Simulate, launch: Launch, browser: BrowserContext
) -> None:
    simulated = simulate(by_prompt(early=error(401, "no such key"), late=Reply(TEXT, faults=(faults.stream_error(2),))))
    page = browser.new_page()
    url = Served(launch, simulated).url
    with page.expect_response("**/answer") as response:
        asks(page, url, "early")
    assert response.value.status == 401
    shows(page, "", "Failed: AuthenticationError")
    asks(page, url, "late")
    shows(page, "one two", "Failed: StreamServerError")
    sync_api.expect(page.get_by_role("button", name="Ask")).to_be_enabled()


def test_markup_from_the_model_is_shown_as_text(simulate: Simulate, launch: Launch, browser: BrowserContext) -> None:
    markup = "<img src=x onerror=\"document.title = 'taken'\"> & so on"
    page = browser.new_page()
    asks(page, Served(launch, simulate(Reply(markup, stream=False))).url, "markup")
    shows(page, markup, "Complete.")
    assert page.title() == "Ask a model"
