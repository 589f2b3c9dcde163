"""The tokens and dollars that an adapter's tasks have used, and their limits.

Not here: which tasks are stopped at a limit (`supervisor.py`).
"""

from __future__ import annotations

import logging
from typing import Final

from chatscope._tasks.models import Result, TaskStatus
from chatscope._validation import check_count, check_rate
from chatscope.errors import BudgetExceededError

_log: Final = logging.getLogger("chatscope.tasks")


class Spending:
    """The sums over all tasks that have ended, and their limits.

    A task with unknown cost or usage counts in `unpriced` or `uncounted`. The sums include what was reported.

    Args:
        max_cost: in US dollars. Tasks with unknown cost cannot be counted; the first one is logged.
        max_total_tokens: prompt and completion tokens.

    Raises:
        ValueError: a limit is out of range; the error names it.
    """

    __slots__ = ("_max_cost", "_max_tokens", "_warned", "cost", "ended", "tasks", "tokens", "uncounted", "unpriced")

    def __init__(self, max_cost: float | None = None, max_total_tokens: int | None = None) -> None:
        check_rate(max_cost, "max_cost")
        if max_total_tokens is not None:
            check_count(max_total_tokens, "max_total_tokens")
        self._max_cost = max_cost
        self._max_tokens = max_total_tokens
        self._warned = False
        self.tasks = 0
        self.ended: dict[TaskStatus, int] = dict.fromkeys(TaskStatus, 0)
        self.tokens = 0
        self.cost = 0.0
        self.uncounted = 0
        self.unpriced = 0

    def add(self, result: Result, reported_tokens: int, *, is_charged: bool) -> None:
        """Count a task that has ended.

        Args:
            result: its result.
            reported_tokens: the tokens that the server reported, even if they are not all.
            is_charged: whether the server may charge for any of its requests.
        """
        self.tasks += 1
        self.ended[result.status] += 1
        self.tokens += reported_tokens
        if not is_charged:
            return
        if result.tokens_used is None:
            self.uncounted += 1
        if result.cost is not None:
            self.cost += result.cost
            return
        self.unpriced += 1
        if self._max_cost is not None and not self._warned:
            self._warned = True
            model = result.metadata.get("model")
            _log.warning("the cost of a task with %s is not known, so max_cost does not bound it", model)

    def exceeded(self) -> BudgetExceededError | None:
        """Return a new error if a limit has been reached; otherwise `None`."""
        if self._max_cost is not None and self.cost >= self._max_cost:
            return BudgetExceededError(f"max_cost of {self._max_cost:g} USD is reached: {self.cost:.6g} USD are spent")
        if self._max_tokens is not None and self.tokens >= self._max_tokens:
            return BudgetExceededError(f"max_total_tokens of {self._max_tokens} is reached: {self.tokens} are used")
        return None
