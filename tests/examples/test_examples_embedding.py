"""examples/embedding: a library around ChatClient, as its users see and test it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from chatscope import (
    AuthenticationError,
    ChatClient,
    OutputInvalidError,
    OutputRefusedError,
    RateLimitError,
    RetryPolicy,
)
from chatscope.simulator import Answer, ChatRequest, Outcome, Reply, error, faults, simulator
from examples.embedding.summaries import NotSummarizableError, Summarizer, Summary, SummaryError, UnavailableError

if TYPE_CHECKING:
    from tests.support.processes import Launch
    from tests.support.simulated import Simulate

pytestmark = pytest.mark.slow

# Far longer than any wait here; it ends a hang.
SECONDS = 60.0

SUMMARY = '{"headline": "Tasks", "sentences": ["They end."]}'


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_command_prints_summaries(launch: Launch, backend: str) -> None:
    process = launch("examples.embedding", "--simulate", "--backend", backend)
    out, err = process.communicate()
    assert out.splitlines() == [
        "A nursery is a",
        "  It ends only after all of them have ended.",
        "A cancel scope limits",
        "  When it is cancelled, every wait inside it ends.",
    ]
    assert (err, process.returncode) == ("", 0)


def test_the_command_reports_a_failure(launch: Launch, simulate: Simulate) -> None:
    process = launch("examples.embedding", base_url=simulate(error(401, "no such key")).base_url)
    out, err = process.communicate()
    assert (out, process.returncode) == ("", 1)
    assert err.startswith("no summary for now: ")
    assert len(err.splitlines()) == 1


def mock(content: str) -> httpx.AsyncBaseTransport:
    """Respond to every request with one text. The library's users test like this, without a network."""
    response = {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}
    return httpx.MockTransport(lambda _: httpx.Response(200, json=response))


async def test_a_mock_transport_is_enough() -> None:
    async with Summarizer.open("any-key", transport=mock(SUMMARY)) as summarizer:
        assert await summarizer.summarize("A long text.") == Summary("Tasks", ["They end."])


async def test_only_a_client_that_it_opened_is_closed() -> None:
    class Counting(httpx.MockTransport):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    transport = Counting(lambda _: httpx.Response(500))
    async with Summarizer.open("any-key", transport=transport):
        pass
    assert transport.closed == 1
    transport = Counting(lambda _: httpx.Response(500))
    async with ChatClient(api_key="any-key", transport=transport) as client:
        Summarizer(client)
        assert transport.closed == 0
    assert transport.closed == 1


def patient_client(base_url: str) -> ChatClient:
    """Return a client without timeouts and retries, so only a cancellation ends its requests."""
    return ChatClient("any-key", base_url=base_url, timeout=None, retry=RetryPolicy(attempts=1))


async def test_errors_are_the_librarys_own() -> None:
    script: list[Answer] = [
        error(401, "no such key"),
        Reply("no JSON"),
        Reply(refusal="I will not."),
        error(429, retry_after=7),
    ]
    caught: list[SummaryError] = []
    async with simulator(script) as base_url, patient_client(base_url) as client:
        for _ in script:
            with pytest.raises(SummaryError) as raised:
                await Summarizer(client).summarize("A long text.")
            caught.append(raised.value)
    assert [(type(each), type(each.__cause__)) for each in caught] == [
        (UnavailableError, AuthenticationError),
        (NotSummarizableError, OutputInvalidError),
        (NotSummarizableError, OutputRefusedError),
        (UnavailableError, RateLimitError),
    ]
    assert isinstance(caught[3], UnavailableError)
    assert caught[3].retry_after == 7


def by_prompt(replies: dict[str, Reply]) -> Callable[[ChatRequest], Reply]:
    return lambda request: replies[request.prompt]


async def test_summaries_are_in_the_order_of_the_texts() -> None:
    second_has_ended = anyio.Event()
    replies = {
        "one": Reply(json.dumps({"headline": "1", "sentences": []}), faults=(faults.hold(0, second_has_ended),)),
        "two": Reply(json.dumps({"headline": "2", "sentences": []})),
    }
    server = simulator(by_prompt(replies))
    async with server as base_url, patient_client(base_url) as client, anyio.create_task_group() as group:

        @group.start_soon
        async def let_the_first_go() -> None:
            await server.wait_until(lambda s: any(each.outcome is Outcome.COMPLETED for each in s.requests))
            second_has_ended.set()

        assert [each.headline for each in await Summarizer(client).summarize_all(["one", "two"])] == ["1", "2"]


async def test_one_failure_cancels_the_others_and_is_raised_unwrapped() -> None:
    both_received = anyio.Event()
    replies = {
        "slow": Reply(SUMMARY, faults=(faults.stall(0),)),
        "bad": Reply("no JSON", faults=(faults.hold(0, both_received),)),
    }
    server = simulator(by_prompt(replies))
    async with server as base_url, patient_client(base_url) as client, anyio.create_task_group() as group:

        @group.start_soon
        async def let_it_fail() -> None:
            await server.wait_until(lambda s: len(s.requests) == 2)
            both_received.set()

        with anyio.fail_after(SECONDS), pytest.raises(NotSummarizableError):
            await Summarizer(client).summarize_all(["slow", "bad"])
        await server.wait_until(lambda s: all(each.outcome is not Outcome.RUNNING for each in s.requests))
    ends = {each.json["messages"][-1]["content"]: each.outcome for each in server.requests}
    assert ends == {"slow": Outcome.DISCONNECTED, "bad": Outcome.COMPLETED}


async def test_cancelling_the_caller_closes_the_requests() -> None:
    server = simulator(Reply(SUMMARY, faults=(faults.stall(0),)))
    async with server as base_url, patient_client(base_url) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(Summarizer(client).summarize_all, ["one", "two"])
            await server.wait_until(lambda s: len(s.requests) == 2)
            group.cancel_scope.cancel()
        await server.wait_until(lambda s: s.connections_open == 0)
    assert [each.outcome for each in server.requests] == [Outcome.DISCONNECTED] * 2
