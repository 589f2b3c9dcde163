"""What an adapter reports about itself: the counts of its tasks, and what `get_adapter_status` returns."""

from __future__ import annotations

from typing import Any

from chatscope._tasks.models import TaskCounts, TaskStatus
from chatscope._tasks.supervisor import Supervisor
from chatscope.protocol.endpoint import shown_url


def counts_of(tasks: Supervisor) -> TaskCounts:
    """Return how many tasks wait, run, and have ended with each status."""
    ended = tasks.spending.ended
    return TaskCounts(
        pending=tasks.pending_count,
        running=tasks.running_count,
        succeeded=ended[TaskStatus.COMPLETED],
        failed=ended[TaskStatus.FAILED],
        cancelled=ended[TaskStatus.CANCELLED],
    )


def status_of(tasks: Supervisor) -> dict[str, Any]:
    """Return the fields of `get_adapter_status` that are about the ChatGPT adapter and its tasks."""
    options, spending = tasks.core.options, tasks.spending
    return {
        "name": "ChatGPT (Async)",
        "model": tasks.model,
        "base_url": shown_url(options.endpoint.base_url),
        "profile": options.profile.name or None,
        "capabilities": [
            "Streaming responses",
            "Concurrent tasks",
            "Cancellation with partial results",
            "Retries with backoff",
            "Token and cost accounting",
        ],
        "requirements": [f"OPENAI_API_KEY ({'set' if options.has_key else 'missing'})"],
        "pending": tasks.pending_count,
        "running": tasks.running_count,
        "finished": spending.tasks,
        "tokens": spending.tokens,
        "cost": spending.cost,
        "uncounted": spending.uncounted,
        "unpriced": spending.unpriced,
    }
