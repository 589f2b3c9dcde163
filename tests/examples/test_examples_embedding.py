"""examples/embedding: a library around ChatClient, as its users see it and as its users test with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from chatscope import AuthenticationError, ChatClient, OutputInvalidError, OutputRefusedError, RetryPolicy
from chatscope.simulator import ChatRequest, Outcome, Reply, error, faults, simulator
from examples.embedding.summaries import NotSummarizableError, Summarizer, Summary, SummaryError, UnavailableError

if TYPE_CHECKING:
    from tests.support.processes import Launch
    from tests.support.simulated import Simulate

# Far longer than anything here takes; it ends what hangs.
SECONDS = 60.0

SUMMARY = '{"headline": "Tasks", "sentences": ["They end."]}'


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_command_prints_summaries(launch: Launch, backend: str) -> None:
    process = launch("examples.embedding", "--simulate", "--backend", backend)
    out, err = process.communicate()
    assert out.splitlines() == [
        "A nursery is a",
        "  It is not left before all of them have ended.",
        "A cancel scope bounds",
        "  When it is cancelled, so is all that waits inside.",
    ]
    assert (err, process.returncode) == ("", 0)


def test_the_command_tells_what_failed(launch: Launch, simulate: Simulate) -> None:
    process = launch("examples.embedding", base_url=simulate(error(401, "no such key")).base_url)
    out, err = process.communicate()
    assert (out, process.returncode) == ("", 1)
    assert err.startswith("no summary for now: ")
    assert len(err.splitlines()) == 1


def fake(content: str) -> httpx.AsyncBaseTransport:
    """Answer everything with one text: how the library's users test without a network, and without chatscope."""
    reply = {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}
    return httpx.MockTransport(lambda _: httpx.Response(200, json=reply))


async def test_a_fake_transport_is_all_that_a_test_needs() -> None:
    async with Summarizer.open("any key", transport=fake(SUMMARY)) as summarizer:
        assert await summarizer.summarize("A long text.") == Summary("Tasks", ["They end."])


async def test_its_own_client_is_closed_with_the_block_and_an_injected_one_is_not() -> None:
    class Counting(httpx.MockTransport):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    transport = Counting(lambda _: httpx.Response(500))
    async with Summarizer.open("any key", transport=transport):
        pass
    assert transport.closed == 1
    transport = Counting(lambda _: httpx.Response(500))
    async with ChatClient(api_key="any key", transport=transport) as client:
        Summarizer(client)
        assert transport.closed == 0
    assert transport.closed == 1


def asking(base_url: str) -> ChatClient:
    """Make a client that never gives up waiting: what has to be cancelled does not end by itself."""
    return ChatClient(base_url, "any key", timeout=None, retry=RetryPolicy(attempts=1))


@pytest.mark.parametrize(
    ("answer", "raised", "cause"),
    [
        (error(401, "no such key"), UnavailableError, AuthenticationError),
        (Reply("no JSON"), NotSummarizableError, OutputInvalidError),
        (Reply(refusal="I will not."), NotSummarizableError, OutputRefusedError),
    ],
    ids=["status", "invalid", "refused"],
)
async def test_errors_are_the_librarys_own(answer: Reply, raised: type[SummaryError], cause: type[Exception]) -> None:
    async with simulator(answer) as base_url, asking(base_url) as client:
        with pytest.raises(SummaryError) as caught:
            await Summarizer(client).summarize("A long text.")
    assert type(caught.value) is raised
    assert type(caught.value.__cause__) is cause


async def test_an_error_says_when_to_come_back() -> None:
    async with simulator(error(429, retry_after=7)) as base_url, asking(base_url) as client:
        with pytest.raises(UnavailableError) as caught:
            await Summarizer(client).summarize("A long text.")
    assert caught.value.retry_after == 7


def by_prompt(replies: dict[str, Reply]) -> Callable[[ChatRequest], Reply]:
    return lambda request: replies[request.prompt]


async def test_many_come_in_the_order_of_the_texts() -> None:
    second_is_answered = anyio.Event()
    replies = {
        "one": Reply(json.dumps({"headline": "1", "sentences": []}), faults=(faults.hold(0, second_is_answered),)),
        "two": Reply(json.dumps({"headline": "2", "sentences": []})),
    }
    server = simulator(by_prompt(replies))
    async with server as base_url, asking(base_url) as client, anyio.create_task_group() as group:

        @group.start_soon
        async def let_the_first_go() -> None:
            await server.wait_until(lambda s: any(each.outcome is Outcome.COMPLETED for each in s.requests))
            second_is_answered.set()

        assert [each.headline for each in await Summarizer(client).summarize_all(["one", "two"])] == ["1", "2"]


async def test_one_failure_cancels_the_others_and_comes_out_as_it_is() -> None:
    both_asked = anyio.Event()
    replies = {
        "slow": Reply(SUMMARY, faults=(faults.stall(0),)),
        "bad": Reply("no JSON", faults=(faults.hold(0, both_asked),)),
    }
    server = simulator(by_prompt(replies))
    async with server as base_url, asking(base_url) as client, anyio.create_task_group() as group:

        @group.start_soon
        async def let_it_fail() -> None:
            await server.wait_until(lambda s: len(s.requests) == 2)
            both_asked.set()

        with anyio.fail_after(SECONDS), pytest.raises(NotSummarizableError):
            await Summarizer(client).summarize_all(["slow", "bad"])
        await server.wait_until(lambda s: all(each.outcome is not Outcome.RUNNING for each in s.requests))
    ends = {each.json["messages"][-1]["content"]: each.outcome for each in server.requests}
    assert ends == {"slow": Outcome.DISCONNECTED, "bad": Outcome.COMPLETED}


async def test_cancelling_the_caller_closes_the_requests() -> None:
    server = simulator(Reply(SUMMARY, faults=(faults.stall(0),)))
    async with server as base_url, asking(base_url) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(Summarizer(client).summarize_all, ["one", "two"])
            await server.wait_until(lambda s: len(s.requests) == 2)
            group.cancel_scope.cancel()
        await server.wait_until(lambda s: s.connections_open == 0)
    assert [each.outcome for each in server.requests] == [Outcome.DISCONNECTED] * 2
