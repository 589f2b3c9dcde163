"""The assistant's tests. They need no network and no key, and do not wait.

pytest examples/tested_app
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import httpx
import pytest

from chatscope import APITimeoutError, QuotaExceededError
from chatscope.simulator import ChatRequest, Outcome, Reply, Stage, error, faults
from chatscope.testing import ChatEndpoint, ChatSimulator
from examples.tested_app.tickets import AT_ONCE, DRAFT, MODEL, RETRY, SUMMARY, Desk, Ticket

ROOT = Path(__file__).parents[2]
BILL = Ticket(1, "My bill is wrong: I paid twice in May.")


# -- a script: what the model writes, and what it must be asked --------------------------------------------------------


async def test_a_summary_is_one_line(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(
        "Customer was charged\ntwice in May.",
        model=MODEL,
        temperature=0,
        messages=[{"role": "system", "content": SUMMARY}, {"role": "user", "content": BILL.text}],
    )
    async with Desk() as desk:
        (summary,) = await desk.summarise([BILL])
    assert (summary.text, summary.problem) == ("Customer was charged twice in May.", None)


async def test_a_draft_is_shown_as_it_is_written(chat_endpoint: ChatEndpoint) -> None:
    def is_a_draft(request: ChatRequest) -> bool:
        return request.parameters.messages[0].text == DRAFT

    chat_endpoint.add("We are sorry.", stream=True, where=is_a_draft)
    shown: list[str] = []
    async with Desk() as desk:
        assert await desk.draft(BILL, shown.append)
    assert [text for text in shown if text] == ["We", " are", " sorry", "."]


@pytest.mark.chat_endpoint(ordered=False)  # concurrent requests arrive in any order
async def test_one_bad_ticket_does_not_affect_the_others(chat_endpoint: ChatEndpoint) -> None:
    tickets = [Ticket(number, f"Ticket {number}") for number in range(10)]
    for ticket in tickets:
        refused = error(400, "I can't help with that.", code="content_filter")
        response = refused if ticket.number == 7 else f"Summary of {ticket.text}"
        chat_endpoint.add(
            response, messages=[{"role": "system", "content": SUMMARY}, {"role": "user", "content": ticket.text}]
        )
    async with Desk() as desk:
        summaries = await desk.summarise(tickets)
    assert [summary.text for summary in summaries if summary.ticket.number != 7] == [
        f"Summary of Ticket {number}" for number in range(10) if number != 7
    ]
    assert "I can't help" in (summaries[7].problem or "")


async def test_it_stops_when_the_quota_is_exhausted(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.default = error(429, "You exceeded your quota.", code="insufficient_quota")
    async with Desk() as desk:
        with pytest.raises(QuotaExceededError):
            await desk.summarise(Ticket(number, "...") for number in range(3))


async def test_it_does_not_flood_the_endpoint(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.default = lambda request: f"Summary of {request.prompt}"
    async with Desk() as desk:
        summaries = await desk.summarise(Ticket(number, f"Ticket {number}") for number in range(200))
    assert [summary.text for summary in summaries] == [f"Summary of Ticket {number}" for number in range(200)]
    assert chat_endpoint.peak == AT_ONCE


# -- faults ------------------------------------------------------------------------------------------------------------


async def test_half_a_draft_is_kept(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(Reply("We are sorry.", faults=(faults.end(2),)))
    shown: list[str] = []
    async with Desk() as desk:
        assert not await desk.draft(BILL, shown.append)
    assert "".join(shown) == "We are"


# -- virtual time: minutes that take no time ---------------------------------------------------------------------------


@pytest.mark.virtual_time
async def test_it_is_patient(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.add(httpx.ConnectError("refused"), error(503), error(429, retry_after=60), "Charged twice.")
    async with Desk() as desk:
        (summary,) = await desk.summarise([BILL])
    assert (summary.text, anyio.current_time()) == ("Charged twice.", 2 + 4 + 60)


@pytest.mark.virtual_time
async def test_its_patience_ends(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.default = faults.stall()
    shown: list[str] = []
    async with Desk() as desk:
        assert not await desk.draft(BILL, shown.append)
    assert anyio.current_time() == 10, "the longest silence within a response"


@pytest.mark.virtual_time
async def test_silence_from_the_start_is_an_error(chat_endpoint: ChatEndpoint) -> None:
    chat_endpoint.default = faults.stall(Stage.ROLE)
    async with Desk() as desk:
        with pytest.raises(APITimeoutError):
            await desk.draft(BILL, print)
    assert len(chat_endpoint.requests) == RETRY.attempts


# -- a real server on a loopback port ----------------------------------------------------------------------------------


async def test_a_reader_that_stops_ends_the_request(chat_simulator: ChatSimulator) -> None:
    chat_simulator.script = Reply("We are sorry.", faults=(faults.stall(2),))

    def stop_reading(text: str) -> None:
        if text:
            raise KeyError(text)

    async with Desk() as desk:
        with pytest.raises(KeyError):
            await desk.draft(BILL, stop_reading)
    await chat_simulator.wait_until(lambda server: server.connections_open == 0)
    assert [request.outcome for request in chat_simulator.requests] == [Outcome.DISCONNECTED]


def test_the_command(chat_simulator: ChatSimulator) -> None:
    chat_simulator.script = lambda request: Reply(f"About: {request.prompt}")
    command = [sys.executable, "-m", "examples.tested_app"]
    ran = subprocess.run(command, cwd=ROOT, input="One.\n\nTwo.\n", capture_output=True, text=True, check=True)  # noqa: S603 - our own command
    assert ran.stdout == "1: About: One.\n3: About: Two.\n"
    assert len(chat_simulator.requests) == 2
