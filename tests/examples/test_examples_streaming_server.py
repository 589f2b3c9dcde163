"""examples/streaming_server without a browser: called like an ASGI server does, and by plain HTTP under uvicorn."""

from __future__ import annotations

import json
import re
import sys
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.support.asgi_browser import Browser
from tests.support.streaming_server import Served, by_prompt

from chatscope import APIConnectionError, QueueFullError, Timeouts
from chatscope.simulator import Answer as Scripted
from chatscope.simulator import Outcome, Reply, error, faults, simulator
from examples.streaming_server import app as example
from examples.streaming_server import model_response
from examples.streaming_server.__main__ import STORY
from examples.streaming_server.app import LONGEST_QUESTION, create_app
from examples.streaming_server.model_response import status_of

if TYPE_CHECKING:
    from tests.support.processes import Launch
    from tests.support.simulated import Simulate

pytestmark = pytest.mark.slow

TEXT = "one two three four five six"
TEXTS = [{"text": text} for text in ("one", " two", " three", " four", " five", " six")]


def lines(browser: Browser) -> list[Any]:
    """Return the JSON lines that a browser has received."""
    return [json.loads(line) for line in browser.body.splitlines()]


async def test_a_line_for_each_text_part_and_one_for_the_end() -> None:
    browser = Browser("count")
    async with simulator(Reply(TEXT)) as base_url:
        await browser.get(create_app(base_url, "any-key"))
    assert browser.status == 200
    assert lines(browser) == [*TEXTS, {"done": "stop"}]
    assert [each.get("more_body", False) for each in browser.messages[1:]] == [True] * 7 + [False]


async def test_leaving_a_silent_model_closes_its_connection() -> None:
    for tokens in (0, 3):  # before the first word, and midway
        server = simulator(Reply(TEXT, faults=(faults.stall(tokens),)))
        browser = Browser("count")
        async with server as base_url:
            async with anyio.create_task_group() as group:
                group.start_soon(browser.get, create_app(base_url, "any-key"))
                await server.wait_until(lambda s: len(s.requests) == 1)
                await browser.has("".join(each["text"] for each in TEXTS[tokens - 1 : tokens]))
                assert server.requests[0].outcome is Outcome.RUNNING
                browser.leave()
            await server.wait_until(lambda s: s.connections_open == 0)
        assert server.requests[0].outcome is Outcome.DISCONNECTED
        assert lines(browser) == TEXTS[:tokens]


async def test_a_server_that_stops_closes_the_models_connection() -> None:
    server = simulator(Reply(TEXT, faults=(faults.stall(3),)))
    browser = Browser("count")
    async with server as base_url:
        async with anyio.create_task_group() as group:
            group.start_soon(browser.get, create_app(base_url, "any-key"))
            await browser.has(" three")
            group.cancel_scope.cancel()
        await server.wait_until(lambda s: s.connections_open == 0)
    assert server.requests[0].outcome is Outcome.DISCONNECTED


async def test_a_browser_that_stops_reading_holds_the_model_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_response, "LONGEST", 0.2)
    server = simulator(Reply(TEXT, faults=(faults.stall(6),)))
    browser = Browser("count", reads=2)
    async with server as base_url:
        await browser.get(create_app(base_url, "any-key"))
        await server.wait_until(lambda s: s.connections_open == 0)
    assert len(browser.messages) <= 2


EARLY: list[tuple[Scripted, int, bytes]] = [
    (error(401, "no such key"), 401, b"AuthenticationError"),
    (error(402, "pay"), 402, b"QuotaExceededError"),
    (faults.stall(0), 504, b"APITimeoutError"),
]


async def test_an_error_before_the_first_token_is_the_status(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(example, "TIMEOUTS", Timeouts(total=0.3))
    for response, status, body in EARLY:
        caplog.clear()
        browser = Browser("count")
        async with simulator(response) as base_url:
            await browser.get(create_app(base_url, "any-key"))
        assert (browser.status, browser.messages[1]["body"]) == (status, body)
        (logged,) = (each for each in caplog.records if each.name == model_response.__name__)
        assert logged.getMessage().startswith("The model's response is incomplete (request ")
    assert [status_of(each) for each in (APIConnectionError("x"), QueueFullError("x"))] == [502, 503]


LATE: list[tuple[Scripted, list[dict[str, str]]]] = [
    (Reply(TEXT, faults=(faults.stream_error(2),)), [*TEXTS[:2], {"error": "StreamServerError"}]),
    (Reply(TEXT, faults=(faults.close(2),)), [*TEXTS[:2], {"error": "StreamTruncatedError"}]),
]


async def test_a_later_error_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    for response, expected in LATE:
        caplog.clear()
        browser = Browser("count")
        async with simulator(response) as base_url:
            await browser.get(create_app(base_url, "any-key"))
        assert browser.status == 200
        assert lines(browser) == expected
        assert browser.messages[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
        (logged,) = (each for each in caplog.records if each.name == model_response.__name__)
        assert logged.getMessage().startswith("The model's response is incomplete (request req_00000001): ")


async def test_an_invalid_question_is_not_sent_to_the_model() -> None:
    server = simulator()
    async with server as base_url:
        for question, status in ((" \n", 400), ("?" * (LONGEST_QUESTION + 1), 413)):
            browser = Browser(question)
            await browser.get(create_app(base_url, "any-key"))
            assert browser.status == status
    assert not server.requests


# -- under uvicorn -----------------------------------------------------------------------------------------------------

needs_sigint = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")


@needs_sigint
def test_one_of_two_clients_leaves_and_the_other_gets_its_response(simulate: Simulate, launch: Launch) -> None:
    simulated = simulate(Reply())
    one_has_left = simulated.event()
    simulated.server.script = by_prompt(
        one=Reply(TEXT, faults=(faults.stall(3),)), two=Reply(TEXT, faults=(faults.hold(3, one_has_left),))
    )
    served = Served(launch, simulated)
    (one, one_reads), (two, two_reads) = served.ask("one"), served.ask("two")
    assert [json.loads(one_reads.readline()) for _ in range(3)] == TEXTS[:3]
    assert [json.loads(two_reads.readline()) for _ in range(3)] == TEXTS[:3]
    assert simulated.outcomes() == {"one": Outcome.RUNNING, "two": Outcome.RUNNING}
    one_reads.close()
    one.close()
    simulated.wait_for("one", Outcome.DISCONNECTED)
    assert simulated.outcomes()["two"] is Outcome.RUNNING
    simulated.set(one_has_left)
    assert [json.loads(line) for line in two_reads] == [*TEXTS[3:], {"done": "stop"}]
    two.close()
    simulated.wait_for("two", Outcome.COMPLETED)
    log = served.stop()
    assert "Finished server process" in log
    assert not re.search("ERROR|WARNING|Traceback", log)


@needs_sigint
def test_the_command_of_its_docstring_serves_the_page_and_a_response(launch: Launch) -> None:
    served = Served(launch, simulated=None)
    connection = HTTPConnection(served.url.removeprefix("http://"), timeout=60)
    connection.request("GET", "/")
    page = connection.getresponse()
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b'<label for="question">' in page.read()
    connection.close()
    connection, answer = served.ask("why?")
    lines = [json.loads(line) for line in answer]
    connection.close()
    assert "".join(line["text"] for line in lines[:-1]) == STORY.text
    assert lines[-1] == {"done": "stop"}
    assert "Finished server process" in served.stop()
