"""Tasks, results and timings: plain values."""

from __future__ import annotations

import dataclasses

import pytest

from chatscope._client.timings import Timings
from chatscope._limits.attempts import Attempt
from chatscope._tasks.models import Platform, Result, Task, TaskConstraints, TaskStatus, TaskType
from chatscope.errors import ChatError


def test_the_labels() -> None:
    assert [kind.name for kind in TaskType] == [
        "CODE_GENERATION",
        "REFACTORING",
        "RESEARCH",
        "DATA_ANALYSIS",
        "DOCUMENTATION",
        "CODE_REVIEW",
        "SQL_DB_WORK",
        "TESTING",
        "DEBUGGING",
        "PLANNING",
        "CHAT",
    ]
    assert [status.name for status in TaskStatus] == [
        "PENDING",
        "RUNNING",
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "UNKNOWN",
    ]
    assert [*Platform] == ["chatgpt"]
    for labels in (TaskType, TaskStatus):
        assert [label.value for label in labels] == [label.name.lower() for label in labels]


def test_a_task_by_default() -> None:
    task = Task("hi")
    assert task == Task(prompt="hi", type=TaskType.CHAT)
    assert task.messages is None
    assert task.task_id is None
    assert task.context == task.parameters == task.metadata == {}
    assert task.constraints == TaskConstraints(None, None, None, None)
    assert task.context is not Task().context


def test_what_is_frozen() -> None:
    for value in (TaskConstraints(), Timings(1), Result(None, Platform.CHATGPT, "", True, TaskStatus.COMPLETED)):
        name = dataclasses.fields(value)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, 1)
        assert not hasattr(value, "__dict__")


def test_timings_of_a_whole_task() -> None:
    timings = Timings(
        submitted_ns=1_000_000_000,
        started_ns=1_500_000_000,
        sent_ns=2_000_000_000,
        headers_ns=2_100_000_000,
        token_ns=[2_250_000_000, 2_500_000_000, 3_500_000_000],
        finished_ns=4_000_000_000,
    )
    assert timings.queue_seconds == 0.5
    assert timings.first_token_seconds == 0.25
    assert timings.inter_token_seconds == [0.25, 1.0]
    assert timings.total_seconds == 3.0


def test_timings_of_what_did_not_happen() -> None:
    timings = Timings(submitted_ns=5)
    assert timings.queue_seconds is None
    assert timings.first_token_seconds is None
    assert timings.inter_token_seconds == []
    assert timings.total_seconds is None
    assert Timings(5, token_ns=[7]).first_token_seconds is None
    assert Timings(5, sent_ns=5, token_ns=[5]).first_token_seconds == 0.0
    assert Timings(0, started_ns=0).queue_seconds == 0.0


def test_a_result_without_an_error_is_returned() -> None:
    result = Result(Task("hi"), Platform.CHATGPT, "text", True, TaskStatus.COMPLETED)
    assert result.raise_for_error() is result
    assert result.tokens_used is None
    assert result.cost is None
    assert result.attempts_log == ()
    assert result.metadata == dict.fromkeys(("model", "input_tokens", "output_tokens", "request_id", "finish_reason"))


def test_a_result_with_an_error_raises_it() -> None:
    error = ChatError("no")
    result = Result(None, Platform.CHATGPT, "", False, TaskStatus.FAILED, error="no", exception=error)
    with pytest.raises(ChatError) as caught:
        result.raise_for_error()
    assert caught.value is error


def test_an_attempt() -> None:
    attempt = Attempt(0.0, 0.5, 429, "RateLimitError", "req_1", 2.0)
    assert attempt.wait_seconds == 2.0
    assert dataclasses.asdict(attempt)["status"] == 429
