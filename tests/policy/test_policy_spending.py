"""The sums over tasks that have ended, and the limits that they reach."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from chatscope.errors import BudgetExceededError
from chatscope.policy.spending import Spending
from chatscope.tasks import Platform, Result, TaskStatus


def ended(cost: float | None, tokens: int | None, *, success: bool = True) -> Result:
    status = TaskStatus.COMPLETED if success else TaskStatus.FAILED
    return Result(None, Platform.CHATGPT, "", success, status, tokens_used=tokens, cost=cost, metadata={"model": "m"})


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "chatscope.tasks"]


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "1", True])
def test_a_cost_that_is_none(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^max_cost must be a positive number, not "):
        Spending(max_cost=value)


@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, "1", True])
def test_a_number_of_tokens_that_is_none(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^max_total_tokens must be a whole number of at least 1, not "):
        Spending(max_total_tokens=value)


def test_the_sums() -> None:
    spending = Spending()
    for result in (ended(0.5, 10), ended(None, None, success=False), ended(None, 5), ended(0.25, 1)):
        spending.add(result)
    assert (spending.tasks, spending.tokens, spending.cost) == (4, 16, 0.75)
    assert spending.exceeded() is None


def test_a_limit_of_cost_is_reached() -> None:
    spending = Spending(max_cost=1.0)
    spending.add(ended(0.75, 10**9))
    assert spending.exceeded() is None
    spending.add(ended(0.25, 1))
    error = spending.exceeded()
    assert type(error) is BudgetExceededError
    assert str(error) == "1 USD are spent, and max_cost is 1 USD"


def test_a_limit_of_tokens_is_reached() -> None:
    spending = Spending(max_total_tokens=100)
    spending.add(ended(1e9, 99))
    assert spending.exceeded() is None
    spending.add(ended(None, 1))
    error = spending.exceeded()
    assert type(error) is BudgetExceededError
    assert str(error) == "100 tokens are used, and max_total_tokens is 100"


def test_a_cost_that_is_not_known_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    spending = Spending(max_cost=1.0)
    spending.add(ended(None, None, success=False))  # nothing was used, as far as anybody knows
    spending.add(ended(0.5, 10))
    assert logged(caplog) == []
    spending.add(ended(None, 10, success=False))
    spending.add(ended(None, 10))
    assert logged(caplog) == [
        (logging.WARNING, "the cost of m is not known: max_cost does not bound what cannot be priced")
    ]


def test_a_cost_that_is_not_known_matters_only_to_a_limit_of_cost(caplog: pytest.LogCaptureFixture) -> None:
    spending = Spending(max_total_tokens=100)
    spending.add(ended(None, 10))
    assert logged(caplog) == []
