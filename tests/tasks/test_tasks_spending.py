"""What tasks have used, when that is too much, and the one warning about what cannot be priced."""

from __future__ import annotations

import logging

import pytest
from tests.support.tables import each_row

from chatscope._tasks.models import Platform, Result, TaskStatus
from chatscope._tasks.spending import Spending
from chatscope.errors import TaskCancelledError


def result(tokens: int | None = None, cost: float | None = None, *, success: bool = True) -> Result:
    return Result(
        task=None,
        platform=Platform.CHATGPT,
        output="",
        success=success,
        status=TaskStatus.COMPLETED if success else TaskStatus.FAILED,
        exception=None if success else TaskCancelledError("stopped"),
        tokens_used=tokens,
        cost=cost,
        metadata={"model": "m"},
    )


def add(spending: Spending, tokens: int | None = None, cost: float | None = None, *, charged: bool = True) -> None:
    spending.add(result(tokens, cost, success=charged), tokens or 0, is_charged=charged)


def test_without_limits_it_only_counts() -> None:
    spending = Spending()
    for _ in range(3):
        add(spending, 1_000_000, 10.0)
    add(spending, charged=False)
    assert (spending.tasks, spending.tokens, spending.cost) == (4, 3_000_000, 30.0)
    assert (spending.unpriced, spending.uncounted) == (0, 0)
    add(spending)
    add(spending, 1)
    spending.add(result(), 7, is_charged=True)  # one of two requests was reported
    assert (spending.unpriced, spending.uncounted, spending.tokens) == (3, 2, 3_000_008)
    assert spending.exceeded() is None


def test_tokens() -> None:
    spending = Spending(max_total_tokens=100)
    add(spending, 99)
    assert spending.exceeded() is None
    add(spending, 1)
    assert str(spending.exceeded()) == "max_total_tokens of 100 is reached: 100 are used"


def test_cost() -> None:
    spending = Spending(max_cost=0.5)
    add(spending, 10, 0.499)
    assert spending.exceeded() is None
    add(spending, 10, 0.002)
    assert str(spending.exceeded()) == "max_cost of 0.5 USD is reached: 0.501 USD are spent"


def test_every_task_gets_an_error_of_its_own() -> None:
    spending = Spending(max_total_tokens=1)
    add(spending, 1)
    assert spending.exceeded() is not spending.exceeded()


def test_what_cannot_be_priced_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    spending = Spending(max_cost=1, max_total_tokens=25)
    with caplog.at_level(logging.WARNING, "chatscope.tasks"):
        add(spending, charged=False)
        assert caplog.messages == []
        for _ in range(3):
            add(spending, 10)
    assert caplog.messages == ["the cost of a task with m is not known, so max_cost does not bound it"]
    assert "max_total_tokens" in str(spending.exceeded()), "tokens count all the same"


@each_row(
    ("name", "value"),
    [
        ("max_cost", 0),
        ("max_cost", -1.0),
        ("max_cost", float("nan")),
        ("max_cost", "1"),
        ("max_cost", True),
        ("max_total_tokens", 0),
        ("max_total_tokens", 1.5),
        ("max_total_tokens", False),
    ],
)
def test_a_limit_that_is_none(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Spending(**{name: value})  # type: ignore[arg-type]  # that is the point
