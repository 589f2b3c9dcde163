"""What the tasks of an adapter have used and may use. Who is stopped when it is used up is not decided here."""

from __future__ import annotations

import logging
from typing import Final

from chatscope._tasks.models import Result
from chatscope._validation import check_count, check_rate
from chatscope.errors import BudgetExceededError

_log: Final = logging.getLogger("chatscope.tasks")


class Spending:
    """The sums over all tasks that have ended, and their limits. The cost leaves out the tasks that are `unpriced`.

    Args:
        max_cost: in US dollars. A task whose cost is not known cannot be counted, which is logged once.
        max_total_tokens: of prompts and completions.

    Raises:
        ValueError: a limit is out of range; the error names it.
    """

    __slots__ = ("_max_cost", "_max_tokens", "_warned", "cost", "tasks", "tokens", "unpriced")

    def __init__(self, max_cost: float | None = None, max_total_tokens: int | None = None) -> None:
        check_rate(max_cost, "max_cost")
        if max_total_tokens is not None:
            check_count(max_total_tokens, "max_total_tokens")
        self._max_cost = max_cost
        self._max_tokens = max_total_tokens
        self._warned = False
        self.tasks = 0
        self.tokens = 0
        self.cost = 0.0
        self.unpriced = 0

    def add(self, result: Result) -> None:
        """Count a task that has ended."""
        self.tasks += 1
        self.tokens += result.tokens_used or 0
        self.cost += result.cost or 0.0
        if result.cost is not None or not (result.success or result.tokens_used):
            return
        self.unpriced += 1
        if self._max_cost is not None and not self._warned:
            self._warned = True
            model = result.metadata.get("model")
            _log.warning("the cost of %s is not known: max_cost does not bound what cannot be priced", model)

    def exceeded(self) -> BudgetExceededError | None:
        """Return the error for a task that may not go on; `None` as long as no limit is reached."""
        if self._max_cost is not None and self.cost >= self._max_cost:
            return BudgetExceededError(f"{self.cost:.6g} USD are spent, and max_cost is {self._max_cost:g} USD")
        if self._max_tokens is not None and self.tokens >= self._max_tokens:
            return BudgetExceededError(f"{self.tokens} tokens are used, and max_total_tokens is {self._max_tokens}")
        return None
