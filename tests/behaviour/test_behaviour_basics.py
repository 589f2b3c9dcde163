"""The adapter's main road: a key, a block, a task, its states, its result; and what it says about itself."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from chatscope import (
    AsyncBasePlatformAdapter,
    AsyncChatGPTAdapter,
    BadRequestError,
    Platform,
    ResultTimeoutError,
    Task,
    TaskStatus,
    TaskType,
    UnknownTaskError,
)
from chatscope.simulator import Reply, error, faults

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

# -- the key, the address ----------------------------------------------------------------------------------------------


async def test_the_key_and_the_address_come_from_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-env")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://llm.example.com/v7/")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-2")
    server = serve()
    async with AsyncChatGPTAdapter(transport=server) as adapter:
        await adapter.execute(Task("hi"))
    (request,) = server.requests
    assert str(request.url) == "https://llm.example.com/v7/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-from-env"
    assert request.headers["openai-organization"] == "org-1"
    assert request.headers["openai-project"] == "proj-2"


async def test_arguments_go_before_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "http://wrong.example")
    server = serve()
    async with AsyncChatGPTAdapter(
        "sk-given",
        "gpt-4.1",
        base_url="https://right.example/v1",
        organization="org-3",
        project="proj-4",
        default_headers={"X-Team": "blue"},
        transport=server,
    ) as adapter:
        await adapter.execute(Task("hi"))
    (request,) = server.requests
    assert str(request.url) == "https://right.example/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-given"
    assert request.headers["openai-organization"] == "org-3"
    assert request.headers["openai-project"] == "proj-4"
    assert request.headers["x-team"] == "blue"
    assert server.bodies[0]["model"] == "gpt-4.1"


async def test_the_defaults_are_openai_and_its_small_model(serve: Serve) -> None:
    server = serve()
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        await adapter.execute(Task("hi"))
    assert str(server.requests[0].url) == "https://api.openai.com/v1/chat/completions"
    assert server.bodies[0]["model"] == "gpt-4o-mini"
    assert "openai-organization" not in server.requests[0].headers


async def test_without_a_key_the_block_does_not_open(serve: Serve) -> None:
    adapter = AsyncChatGPTAdapter(transport=serve())
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        await adapter.__aenter__()
    with pytest.raises(RuntimeError, match="use 'async with'"):
        await adapter.submit_task(Task("hi"))


async def test_an_empty_key_in_the_environment_is_none(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        await AsyncChatGPTAdapter(transport=serve()).__aenter__()


async def test_an_empty_key_given_on_purpose_sends_none(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-them")
    server = serve()
    async with AsyncChatGPTAdapter("", base_url="http://localhost:8000/v1", transport=server) as adapter:
        assert (await adapter.execute(Task("hi"))).success
    assert "authorization" not in server.requests[0].headers


# -- what it says about itself -----------------------------------------------------------------------------------------


async def test_the_status_report_with_a_key(serve: Serve) -> None:
    adapter = AsyncChatGPTAdapter("sk-1", transport=serve())
    assert isinstance(adapter, AsyncBasePlatformAdapter)
    assert adapter.platform is Platform.CHATGPT
    assert Platform.CHATGPT.value == "chatgpt"
    assert adapter.is_implemented is True
    assert adapter.implementation_status == "working"
    report = adapter.get_adapter_status()
    assert report["name"] == "ChatGPT (Async)"
    assert report["is_implemented"] is True
    assert report["status"] == "working"
    assert report["model"] == "gpt-4o-mini"
    assert "Streaming responses" in report["capabilities"]
    assert "OPENAI_API_KEY (set)" in report["requirements"]
    assert {name: report[name] for name in ("pending", "running", "finished", "tokens", "cost")} == {
        "pending": 0,
        "running": 0,
        "finished": 0,
        "tokens": 0,
        "cost": 0.0,
    }


async def test_the_status_report_without_a_key() -> None:
    adapter = AsyncChatGPTAdapter()
    assert adapter.implementation_status == "unavailable"
    report = adapter.get_adapter_status()
    assert report["status"] == "unavailable"
    assert report["is_implemented"] is False
    assert "OPENAI_API_KEY (missing)" in report["requirements"]


async def test_the_status_report_counts(serve: Serve) -> None:
    release = anyio.Event()
    held = Reply("Hello, world.", faults=(faults.hold(1, release),))
    async with AsyncChatGPTAdapter("sk-1", transport=(server := serve(held)), max_concurrency=1) as adapter:
        first = adapter.start_task(Task("Write hello world"))
        second = adapter.start_task(Task("Write hello world"))
        await server.wait_for_requests(1)
        report = adapter.get_adapter_status()
        assert (report["pending"], report["running"], report["finished"]) == (1, 1, 0)
        release.set()
        await first.wait()
        await second.wait()
        report = adapter.get_adapter_status()
    assert (report["pending"], report["running"], report["finished"]) == (0, 0, 2)
    assert report["tokens"] == 26
    assert report["cost"] == pytest.approx(2 * 3.75e-6)


# -- one task ----------------------------------------------------------------------------------------------------------


async def test_a_task_from_submission_to_result(serve: Serve) -> None:
    release = anyio.Event()
    held = Reply("Hello, world.", faults=(faults.hold(2, release),))
    async with AsyncChatGPTAdapter("sk-1", transport=(server := serve(held))) as adapter:
        task = Task(type=TaskType.CODE_GENERATION, prompt="Write hello world", metadata={"mine": 1})
        task_id = await adapter.submit_task(task)
        assert task.task_id == task_id
        assert re.fullmatch(r"chatgpt_\d{8}_[0-9a-f]{8}", task_id)
        assert task_id.split("_")[1] in {f"{datetime.now(UTC):%Y%m%d}", f"{datetime.now():%Y%m%d}"}  # noqa: DTZ005 - whichever day it is called
        await server.wait_for_requests(1)
        assert await adapter.get_status(task_id) is TaskStatus.RUNNING
        release.set()
        result = await adapter.get_result(task_id, timeout=30)
        assert await adapter.get_status(task_id) is TaskStatus.COMPLETED
    assert (result.success, result.status) == (True, TaskStatus.COMPLETED)
    assert result.output == "Hello, world."
    assert (result.error, result.exception) == (None, None)
    assert result.raise_for_error() is result
    assert result.platform is Platform.CHATGPT
    assert result.task is not None
    assert (result.task.prompt, result.task.task_id, result.task.metadata) == (task.prompt, task_id, {"mine": 1})
    assert result.tokens_used == 13
    assert result.cost == pytest.approx((9 * 0.15 + 4 * 0.60) / 1e6)
    assert result.finish_reason == "stop"
    assert result.attempts == 1


async def test_every_label_is_there() -> None:
    labels = (
        "CODE_GENERATION REFACTORING RESEARCH DATA_ANALYSIS DOCUMENTATION CODE_REVIEW SQL_DB_WORK TESTING DEBUGGING"
    )
    assert [*TaskType.__members__] == [*labels.split(), "PLANNING", "CHAT"]
    assert [*TaskStatus.__members__] == ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "UNKNOWN"]
    assert Task("hi").type is TaskType.CHAT


async def test_execute_is_submit_and_wait(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        result = await adapter.execute(Task("hi"))
        assert result.output == "Hello, world."
        assert result.task is not None
        assert result.task.task_id is not None
        assert await adapter.get_status(result.task.task_id) is TaskStatus.COMPLETED


async def test_a_task_that_fails(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve(error(400, "No such tool."))) as adapter:
        task_id = await adapter.submit_task(Task("hi"))
        result = await adapter.get_result(task_id)
        assert await adapter.get_status(task_id) is TaskStatus.FAILED
    assert (result.success, result.status, result.output) == (False, TaskStatus.FAILED, "")
    assert str(result.error).startswith("HTTP 400: No such tool. (POST ")
    assert (result.tokens_used, result.cost) == (None, None)
    with pytest.raises(BadRequestError, match="No such tool") as caught:
        result.raise_for_error()
    assert caught.value is result.exception


async def test_a_task_is_submitted_again_under_another_id(serve: Serve) -> None:
    task = Task("hi")
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        first = await adapter.execute(task)
        second = await adapter.execute(task)
    assert first.task is not None
    assert second.task is not None
    assert first.task.task_id != second.task.task_id == task.task_id


# -- waiting for it ----------------------------------------------------------------------------------------------------


def told(model: str | None = None, *, request_id: str | None = None) -> dict[str, Any]:
    """Return the metadata of a result of which no more is known."""
    rest = dict.fromkeys(("input_tokens", "output_tokens", "finish_reason"))
    return {"model": model, "request_id": request_id, **rest}


async def test_a_wait_that_is_too_long_leaves_the_task_running(serve: Serve) -> None:
    release = anyio.Event()
    held = Reply("Hello, world.", faults=(faults.hold(1, release),))
    async with AsyncChatGPTAdapter("sk-1", transport=serve(held), max_concurrency=1) as adapter:
        task_id = await adapter.submit_task(Task("hi"))
        async for text in adapter.stream_result(task_id):
            assert text == "Hello"
            break
        waiting_id = await adapter.submit_task(Task("hi"))
        result = await adapter.get_result(task_id, timeout=0)
        assert (result.success, result.status, result.output) == (False, TaskStatus.RUNNING, "Hello")
        assert result.error == "Task timed out after 0s"
        assert isinstance(result.exception, ResultTimeoutError)
        assert (result.exception.attempts, result.exception.request_id, result.exception.partial_text) == (
            *(1, "req_1"),
            "Hello",
        )
        assert (result.attempts, result.metadata) == (1, told("gpt-4o-mini", request_id="req_1"))
        assert result.timings is not None
        assert result.timings.sent_ns is not None
        assert result.timings.finished_ns is None
        assert await adapter.get_status(task_id) is TaskStatus.RUNNING
        result = await adapter.get_result(waiting_id, timeout=0)
        assert (result.status, result.output, result.attempts) == (TaskStatus.PENDING, "", 0)
        assert result.metadata == told("gpt-4o-mini")
        assert await adapter.get_status(waiting_id) is TaskStatus.PENDING
        release.set()
        assert (await adapter.get_result(task_id, timeout=None)).output == "Hello, world."


async def test_a_wait_that_is_too_long_cancels_if_it_is_told_to(serve: Serve) -> None:
    held = Reply("Hello, world.", faults=(faults.stall(1),))
    async with AsyncChatGPTAdapter("sk-1", transport=(server := serve(held))) as adapter:
        handle = adapter.start_task(Task("hi"))
        async for _ in handle.stream():
            break
        result = await adapter.get_result(handle.id, timeout=0, cancel_on_timeout=True)
        assert (result.success, result.error) == (False, "Task timed out after 0s")
        assert result.status is handle.status is TaskStatus.CANCELLED
        assert (server.open, result.output) == (0, "Hello")
        assert (result.attempts, result.metadata["request_id"]) == (1, "req_1")
        assert result.timings is not None
        assert result.timings.finished_ns is not None


async def test_a_finished_task_has_its_result_without_waiting(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        task_id = await adapter.submit_task(Task("hi"))
        result = await adapter.get_result(task_id)
        assert await adapter.get_result(task_id, timeout=0) is result


async def test_an_unknown_id(serve: Serve) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        assert await adapter.get_status("chatgpt_x") is TaskStatus.UNKNOWN
        result = await adapter.get_result("chatgpt_x")
        assert (result.success, result.status, result.task) == (False, TaskStatus.UNKNOWN, None)
        assert result.error == "Unknown task_id: chatgpt_x"
        assert (result.output, result.tokens_used, result.cost) == ("", None, None)
        assert result.metadata == told()
        with pytest.raises(UnknownTaskError):
            result.raise_for_error()
        assert [text async for text in adapter.stream_result("chatgpt_x")] == []
        assert await adapter.cancel_task("chatgpt_x") is False
        assert adapter.forget("chatgpt_x") is False
