"""The deadlines of tool calls, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from chatscope import (
    APITimeoutError,
    AsyncChatGPTAdapter,
    ChatClient,
    Task,
    TaskConstraints,
    TaskStatus,
    Timeouts,
    ToolTimeoutError,
)
from chatscope.simulator import Reply, ToolCall

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "How long?"}]}
CALLS = Reply(tool_calls=(ToolCall("waits", {"seconds": 5}), ToolCall("waits", {"seconds": 20})))


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return virtual_time


async def waits(seconds: int) -> str:
    """Wait."""
    await anyio.sleep(seconds)
    return "waited"


async def test_each_call_has_its_own_deadline(serve: Serve) -> None:
    server = serve([CALLS, Reply("Done.")])
    async with ChatClient("", base_url="http://x/v1", transport=server) as client:
        began = anyio.current_time()
        result = await client.run_tools(**ASK, tools=[waits], tool_timeout=10)
        assert anyio.current_time() - began == 10
    assert [message["content"] for message in result.messages[2:]] == [
        "waited",
        '{"error":"ToolTimeoutError: tool waits took longer than 10 s"}',
    ]


async def test_a_deadline_that_passes_is_raised_where_errors_are(serve: Serve) -> None:
    server = serve([CALLS, Reply("Done.")])
    async with ChatClient("", base_url="http://x/v1", transport=server) as client:
        with pytest.raises(ToolTimeoutError, match=r"^tool waits took longer than 10 s$"):
            await client.run_tools(**ASK, tools=[waits], tool_timeout=10, on_tool_error="raise")
    assert len(server.requests) == 1


async def test_the_total_deadline_bounds_all_turns_and_their_tools(serve: Serve) -> None:
    server = serve([Reply(tool_calls=(ToolCall("waits", {"seconds": 6}),))])
    async with ChatClient("", base_url="http://x/v1", transport=server) as client:
        began = anyio.current_time()
        with pytest.raises(APITimeoutError, match="not finished within 15 s") as caught:
            await client.run_tools(**ASK, tools=[waits], timeout=Timeouts(total=15))
        assert anyio.current_time() - began == 15
    assert caught.value.phase == "total"
    assert caught.value.attempts == 3
    assert server.open == 0


async def test_the_total_deadline_bounds_the_model_calls_of_later_turns(serve: Serve) -> None:
    server = serve([Reply(tool_calls=(ToolCall("waits", {"seconds": 6}),)), Reply("Slow.", first_token=20)])
    async with ChatClient("", base_url="http://x/v1", transport=server) as client:
        began = anyio.current_time()
        with pytest.raises(APITimeoutError, match="not finished within 15 s"):
            await client.run_tools(**ASK, tools=[waits], timeout=Timeouts(total=15))
        assert anyio.current_time() - began == 15
    assert server.open == 0


@pytest.mark.parametrize(
    "own",
    [{"constraints": TaskConstraints(timeout_seconds=30)}, {"parameters": {"timeout": Timeouts(total=30)}}],
    ids=["constraint", "parameter"],
)
async def test_a_tasks_deadline_bounds_its_tools(serve: Serve, own: dict[str, Any]) -> None:
    server = serve([Reply("Let me wait. ", tool_calls=(ToolCall("waits", {"seconds": 60}),))])
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        result = await adapter.execute(Task("How long?", tools=[waits], **own))
    assert result.status is TaskStatus.FAILED
    assert isinstance(result.exception, APITimeoutError)
    assert result.exception.phase == "total"
    assert result.output == "Let me wait. "
    assert result.duration_seconds < 30  # of real time


async def test_a_tasks_calls_have_their_own_deadline(serve: Serve) -> None:
    server = serve([CALLS, Reply("Done.")])
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        constraints = TaskConstraints(tool_timeout_seconds=10)
        result = await adapter.execute(Task("How long?", tools=[waits], on_tool_error="raise", constraints=constraints))
    assert isinstance(result.exception, ToolTimeoutError)
    assert result.exception.attempts == 1
