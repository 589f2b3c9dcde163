"""`chatscope demo`: several tasks at once against a simulator in the same process.

Here: the tasks, and the simulator's script. Not here: the output (`views`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import anyio

from chatscope import AsyncChatGPTAdapter, ChatError, Task, TaskConstraints, TaskStatus, TaskType
from chatscope.cli.terminal import Terminal, logs_shown
from chatscope.cli.views import Row, View, introduce, report, view_for
from chatscope.simulator import Answer, ChatRequest, Reply, error, simulator


@dataclass(frozen=True, slots=True)
class Scene:
    """A task of the demonstration, and how the simulated server responds to it."""

    label: str
    prompt: str
    type: TaskType
    model: str
    reply: Reply
    watched: bool = False
    """Whether its text is shown live."""
    cancelled_after: int | None = None
    """The reader cancels the task after this many text parts."""
    refused_seconds: float | None = None
    """Its first request gets a 429 with this `retry-after`."""

    @property
    def task(self) -> Task:
        """The task to submit."""
        constraints = TaskConstraints(model=self.model, timeout_seconds=15)
        return Task(self.prompt, self.type, constraints=constraints, metadata={"label": self.label})

    @property
    def expected(self) -> TaskStatus:
        """The status with which it must end."""
        return TaskStatus.COMPLETED if self.cancelled_after is None else TaskStatus.CANCELLED


# The waits add up to about 4 s: long enough to watch, but not tedious.
SCENES: Final = (
    Scene(
        "explain",
        "What is structured concurrency?",
        TaskType.RESEARCH,
        "gpt-4o-mini",
        Reply(
            "Structured concurrency gives every task an owner. A task group opens, starts its tasks, and does not "
            "close before the last of them has ended. If one fails, its siblings are cancelled and the error comes "
            "out where the group stands. Nothing runs on unseen, and a deadline on the outside bounds all that "
            "happens within.",
            first_token=0.3,
            between_tokens=0.055,
        ),
        watched=True,
    ),
    Scene(
        "story",
        "Tell me a very long story.",
        TaskType.CHAT,
        "gpt-4o",
        Reply(
            "Once upon a time an event loop lived at the edge of a large network. Every morning it asked its "
            "sockets for news, and every evening it counted the tasks that had come home. One day a task went "
            "out to fetch a story, and the story would not end.",
            tokens=2_000,
            first_token=0.5,
            between_tokens=0.06,
        ),
        watched=True,
        cancelled_after=45,
    ),
    Scene(
        "review",
        "Review: def add(a, b): return a - b",
        TaskType.CODE_REVIEW,
        "gpt-4o-mini",
        Reply("The name says add, the body subtracts: use a + b.", first_token=0.3, between_tokens=0.03),
        refused_seconds=1.0,
    ),
    Scene(
        "query",
        "SQL for the ten newest orders, please.",
        TaskType.SQL_DB_WORK,
        "gpt-4.1",
        Reply("SELECT * FROM orders ORDER BY created_at DESC LIMIT 10;", first_token=0.4, between_tokens=0.05),
    ),
    Scene(
        "plan",
        "Plan the migration in one sentence.",
        TaskType.PLANNING,
        "o4-mini",
        Reply(
            "Write to both, compare, read from the new one, then drop the old one.",
            reasoning="Downtime is not allowed, so the switch has to be gradual and reversible.",
            first_token=0.8,
            between_tokens=0.04,
        ),
    ),
)


def script() -> Callable[[ChatRequest], Answer]:
    """Return the simulator's script: each refusal once, then the replies."""
    replies = {scene.prompt: scene.reply for scene in SCENES}
    refusals = {
        scene.prompt: error(429, "slow down", code="rate_limit_exceeded", retry_after=scene.refused_seconds)
        for scene in SCENES
        if scene.refused_seconds is not None
    }
    return lambda request: refusals.pop(request.prompt, None) or replies[request.prompt]


async def demo() -> int:
    """Run the demonstration. Return 0 if every task ended with its expected status, else 1.

    If cancelled, the tasks are cancelled and the simulator is closed.

    Raises:
        BrokenPipeError: the reader of the output has closed it. While streaming, it is inside an `ExceptionGroup`.
    """
    terminal = Terminal(highlight=False)
    async with simulator(script()) as base_url, AsyncChatGPTAdapter("simulated", base_url=base_url) as adapter:
        handles = [adapter.start_task(scene.task) for scene in SCENES]
        rows = [Row(number, SCENES[number - 1].label, handle) for number, handle in enumerate(handles, start=1)]
        introduce(terminal, rows)
        watched = [row for row in rows if SCENES[row.number - 1].watched]
        with view_for(terminal, rows, watched) as view, logs_shown(view.show_note):
            async with anyio.create_task_group() as group:
                for row in watched:
                    group.start_soon(watch, row, SCENES[row.number - 1].cancelled_after, view)
            results = [await handle.wait() for handle in handles]
    report(terminal, rows)
    terminal.print("\nNext, ask for yourself. Without a key, start a server and paste the line that it prints:\n")
    terminal.print("  [bold]chatscope simulator[/bold]")
    terminal.print('  [bold]chatscope ask "Say hello"[/bold]')
    return 0 if [result.status for result in results] == [scene.expected for scene in SCENES] else 1


async def watch(row: Row, cancelled_after: int | None, view: View) -> None:
    """Show a task's text as it arrives; cancel the task after `cancelled_after` text parts."""
    parts = 0
    with suppress(ChatError):  # the report shows it
        async for text in row.handle.stream():
            view.add_text(row, text)
            parts += 1
            if parts == cancelled_after:
                await row.handle.cancel()
    view.show_end(row)
