"""examples/trio_app: the winner, the end of the losers, and Ctrl-C."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from chatscope import AuthenticationError, ChatClient, NotFoundError, RetryPolicy, StreamTruncatedError
from chatscope.simulator import Answer as Scripted
from chatscope.simulator import ChatRequest, Outcome, Reply, Simulator, error, faults, simulator
from examples.trio_app.race import Winner, race

if TYPE_CHECKING:
    from tests.support.processes import Launch
    from tests.support.simulated import Simulate

pytestmark = pytest.mark.slow

# Far longer than any wait here; it ends a hang.
SECONDS = 60.0

SILENT = Reply("too late", faults=(faults.stall(0),))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The example is for trio only."""
    return "trio", {}


def by_model(**answers: Scripted) -> Callable[[ChatRequest], Scripted]:
    return lambda request: answers[request.parameters.model]


def outcomes(server: Simulator) -> dict[str, Outcome]:
    return {each.json["model"]: each.outcome for each in server.requests}


def patient_client(base_url: str) -> ChatClient:
    """Return a client without timeouts and retries, so only a cancellation ends its requests."""
    return ChatClient("any-key", base_url=base_url, timeout=None, retry=RetryPolicy(attempts=1))


async def test_the_first_to_speak_wins_and_the_losers_are_closed() -> None:
    all_received = trio.Event()
    server = simulator(by_model(a=SILENT, b=Reply("I am b", faults=(_hold(all_received),)), c=SILENT))
    shown: list[str] = []
    async with server as base_url, patient_client(base_url) as client, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def let_it_speak() -> None:
            await server.wait_until(lambda s: len(s.requests) == 3)
            all_received.set()

        with trio.fail_after(SECONDS):
            assert await race(client, ["a", "b", "c"], "who?", shown.append) == Winner("b", "I am b")
        await server.wait_until(lambda s: Outcome.RUNNING not in outcomes(s).values())
    assert outcomes(server) == {"a": Outcome.DISCONNECTED, "b": Outcome.COMPLETED, "c": Outcome.DISCONNECTED}
    assert "".join(shown) == "I am b"


def _hold(event: trio.Event) -> faults.Fault:
    return faults.hold(0, event)  # type: ignore[arg-type]  # it only uses the `wait` of an event


class AllAtOnce(httpx.AsyncBaseTransport):
    """Waits for all requests, then gives each its whole response in the same tick."""

    def __init__(self, requests: int) -> None:
        self._missing = requests
        self._all_received = trio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._missing -= 1
        if not self._missing:
            self._all_received.set()
        await self._all_received.wait()
        chunk = b'data: {"choices": [{"delta": {"content": "Me!"}, "finish_reason": "stop"}]}\n\n'
        headers = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=headers, content=chunk + b"data: [DONE]\n\n", request=request)


async def test_a_dead_heat_has_one_winner() -> None:
    shown: list[str] = []
    async with ChatClient("any-key", base_url="http://race.test/v1", transport=AllAtOnce(5)) as client:
        winner = await race(client, ["a", "b", "c", "d", "e"], "who?", shown.append)
    assert winner.text == "Me!"
    assert shown == ["Me!"]


async def test_a_model_that_fails_leaves_the_others_in_the_race() -> None:
    a_has_failed = trio.Event()
    server = simulator(by_model(a=error(404, "no such model"), b=Reply("I am b", faults=(_hold(a_has_failed),))))
    async with server as base_url, patient_client(base_url) as client, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def let_b_speak() -> None:
            await server.wait_until(lambda s: outcomes(s).get("a") is Outcome.COMPLETED)
            a_has_failed.set()

        assert await race(client, ["a", "b"], "who?", str) == Winner("b", "I am b")


async def test_no_winner_is_an_error_with_every_reason() -> None:
    server = simulator(by_model(a=error(404, "no such model"), b=error(401, "no such key")))
    async with server as base_url, patient_client(base_url) as client:
        with pytest.raises(ExceptionGroup, match="no model answered") as caught:
            await race(client, ["a", "b"], "who?", str)
    assert {type(each) for each in caught.value.exceptions} == {NotFoundError, AuthenticationError}


async def test_a_winner_whose_stream_breaks_is_an_error_with_its_text() -> None:
    server = simulator(by_model(a=SILENT, b=Reply("I am b", faults=(faults.close(2),))))
    shown: list[str] = []
    async with server as base_url, patient_client(base_url) as client:
        with pytest.raises(StreamTruncatedError) as caught:
            await race(client, ["a", "b"], "who?", shown.append)
    assert caught.value.partial_text == "".join(shown) == "I am"


def test_the_command_shows_the_winner(launch: Launch) -> None:
    process = launch("examples.trio_app", "--simulate")
    assert process.communicate() == (
        "Because everything that starts in it has ended when it closes, says gpt-4o-mini.\n[gpt-4o-mini was first]\n",
        "",
    )
    assert process.returncode == 0


def test_the_command_reports_why_no_model_won(launch: Launch, simulate: Simulate) -> None:
    process = launch("examples.trio_app", "--models", "a", "b", base_url=simulate(error(401, "no such key")).base_url)
    out, err = process.communicate()
    assert (out, process.returncode) == ("", 1)
    assert [line.split(": ")[:2] for line in err.splitlines()] == [["no answer", "AuthenticationError"]] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_ctrl_c_ends_it_cleanly(launch: Launch, simulate: Simulate) -> None:
    endless = Reply("I am still speaking", faults=(faults.stall(3),))
    simulated = simulate(by_model(a=SILENT, b=endless))
    process = launch("examples.trio_app", "who?", "--models", "a", "b", base_url=simulated.base_url)
    assert process.stdout
    assert process.stdout.read(10) == "I am still"
    simulated.wait_until(lambda s: s.connections_open == 1)  # the loser's connection is closed already
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "")
    assert process.returncode == 130
    simulated.wait_until(lambda s: s.connections_open == 0)
    assert set(outcomes(simulated.server).values()) == {Outcome.DISCONNECTED}
