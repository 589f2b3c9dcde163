"""examples/trio_app: who wins, what becomes of the losers, and how Ctrl-C ends it."""

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
from examples.trio_app.race import Answer, race

if TYPE_CHECKING:
    from tests.support.processes import Launch
    from tests.support.simulated import Simulate

# Far longer than anything here takes; it ends what hangs.
SECONDS = 60.0

SILENT = Reply("too late", faults=(faults.stall(0),))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """trio, which is what the example is about."""
    return "trio", {}


def by_model(**answers: Scripted) -> Callable[[ChatRequest], Scripted]:
    return lambda request: answers[request.parameters.model]


def outcomes(server: Simulator) -> dict[str, Outcome]:
    return {each.json["model"]: each.outcome for each in server.requests}


def asking(base_url: str) -> ChatClient:
    """Make a client that never gives up waiting: what has to be cancelled does not end by itself."""
    return ChatClient(base_url, "any key", timeout=None, retry=RetryPolicy(attempts=1))


async def test_the_first_to_speak_wins_and_the_losers_are_closed() -> None:
    all_asked = trio.Event()
    server = simulator(by_model(a=SILENT, b=Reply("I am b", faults=(_hold(all_asked),)), c=SILENT))
    shown: list[str] = []
    async with server as base_url, asking(base_url) as client, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def let_it_speak() -> None:
            await server.wait_until(lambda s: len(s.requests) == 3)
            all_asked.set()

        with trio.fail_after(SECONDS):
            assert await race(client, ["a", "b", "c"], "who?", shown.append) == Answer("b", "I am b")
        await server.wait_until(lambda s: Outcome.RUNNING not in outcomes(s).values())
    assert outcomes(server) == {"a": Outcome.DISCONNECTED, "b": Outcome.COMPLETED, "c": Outcome.DISCONNECTED}
    assert "".join(shown) == "I am b"


def _hold(event: trio.Event) -> faults.Fault:
    return faults.hold(0, event)  # type: ignore[arg-type]  # it needs nothing of an event but `wait`


class AllAtOnce(httpx.AsyncBaseTransport):
    """Gives every request its whole answer in one turn of the loop, once all of them are there."""

    def __init__(self, requests: int) -> None:
        self._missing = requests
        self._all_there = trio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._missing -= 1
        if not self._missing:
            self._all_there.set()
        await self._all_there.wait()
        chunk = b'data: {"choices": [{"delta": {"content": "Me!"}, "finish_reason": "stop"}]}\n\n'
        headers = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=headers, content=chunk + b"data: [DONE]\n\n", request=request)


async def test_a_dead_heat_has_one_winner() -> None:
    shown: list[str] = []
    async with ChatClient("http://race.test/v1", "any key", transport=AllAtOnce(5)) as client:
        answer = await race(client, ["a", "b", "c", "d", "e"], "who?", shown.append)
    assert answer.text == "Me!"
    assert shown == ["Me!"]


async def test_a_model_that_fails_leaves_the_others_in_the_race() -> None:
    a_has_failed = trio.Event()
    server = simulator(by_model(a=error(404, "no such model"), b=Reply("I am b", faults=(_hold(a_has_failed),))))
    async with server as base_url, asking(base_url) as client, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def let_b_speak() -> None:
            await server.wait_until(lambda s: outcomes(s).get("a") is Outcome.COMPLETED)
            a_has_failed.set()

        assert await race(client, ["a", "b"], "who?", str) == Answer("b", "I am b")


async def test_no_answer_is_an_error_with_every_reason() -> None:
    server = simulator(by_model(a=error(404, "no such model"), b=error(401, "no such key")))
    async with server as base_url, asking(base_url) as client:
        with pytest.raises(ExceptionGroup, match="no model answered") as caught:
            await race(client, ["a", "b"], "who?", str)
    assert {type(each) for each in caught.value.exceptions} == {NotFoundError, AuthenticationError}


async def test_a_winner_that_breaks_off_is_an_error_with_what_it_had_said() -> None:
    server = simulator(by_model(a=SILENT, b=Reply("I am b", faults=(faults.close(2),))))
    shown: list[str] = []
    async with server as base_url, asking(base_url) as client:
        with pytest.raises(StreamTruncatedError) as caught:
            await race(client, ["a", "b"], "who?", shown.append)
    assert caught.value.partial_text == "".join(shown) == "I am"


def test_the_command_shows_the_winner(launch: Launch) -> None:
    process = launch("examples.trio_app", "--simulate")
    assert process.communicate() == (
        "So that whatever starts in it has ended when it closes, says gpt-4o-mini.\n[gpt-4o-mini was first]\n",
        "",
    )
    assert process.returncode == 0


def test_the_command_tells_why_nobody_answered(launch: Launch, simulate: Simulate) -> None:
    process = launch("examples.trio_app", "--models", "a", "b", base_url=simulate(error(401, "no such key")).base_url)
    out, err = process.communicate()
    assert (out, process.returncode) == ("", 1)
    assert [line.split(": ")[:2] for line in err.splitlines()] == [["no answer", "AuthenticationError"]] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send there")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly(launch: Launch, simulate: Simulate, number: signal.Signals, code: int) -> None:
    endless = Reply("I am still speaking", faults=(faults.stall(3),))
    simulated = simulate(by_model(a=SILENT, b=endless))
    process = launch("examples.trio_app", "who?", "--models", "a", "b", base_url=simulated.base_url)
    assert process.stdout
    assert process.stdout.read(10) == "I am still"
    simulated.wait_until(lambda s: s.connections_open == 1)  # the loser's is closed already
    process.send_signal(number)
    assert process.communicate() == ("", "")
    assert process.returncode == code
    simulated.wait_until(lambda s: s.connections_open == 0)
    assert set(outcomes(simulated.server).values()) == {Outcome.DISCONNECTED}
