"""`chatscope ask`: one task, its text on stdout while it comes, everything else on stderr."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Final

import anyio
import click
import msgspec
from rich.text import Text

from chatscope._tasks.adapter import AsyncChatGPTAdapter
from chatscope._tasks.handle import ChatTask
from chatscope._tasks.models import Platform, Result, Task, TaskConstraints, TaskStatus
from chatscope.cli.terminal import Terminal, dollars, harmless, logs_told, seconds

FAILED: Final = 1
"""The exit code for a task that failed."""

WRONG_USAGE: Final = 2
"""The exit code for what was never sent: click's own for bad arguments."""

_ERROR_FIELDS: Final = ("status", "code", "type", "param", "request_id", "phase", "retry_after", "not_retried", "body")


@dataclass(frozen=True, slots=True)
class Question:
    """What `chatscope ask` was told."""

    prompt: str
    system: str | None
    model: str
    base_url: str | None
    constraints: TaskConstraints
    as_json: bool

    @property
    def task(self) -> Task:
        """The task that it makes."""
        if self.system is None:
            return Task(self.prompt, constraints=self.constraints)
        spoken = [{"role": "system", "content": self.system}, {"role": "user", "content": self.prompt}]
        return Task(messages=spoken, constraints=self.constraints)


async def ask(question: Question) -> int:
    """Run the task and return the exit code.

    Cancelled, the task's connection is closed and what had arrived is shown before the cancellation passes.

    Raises:
        BrokenPipeError: nobody reads the output any more; the connection is closed by then.
    """
    answer, task, handle = Answer(as_json=question.as_json), question.task, None
    try:
        adapter = AsyncChatGPTAdapter(base_url=question.base_url, model=question.model)
        if adapter.implementation_status == "unavailable":
            raise ValueError("no API key: set OPENAI_API_KEY in the environment")
        with logs_told(answer.tell):
            async with adapter:
                handle = adapter.start_task(task)
                await _show(handle, answer)
    except anyio.get_cancelled_exc_class():
        if handle is not None and handle.result is not None:
            answer.finish(handle.result)
        raise
    except ValueError as error:
        if handle is not None:
            raise  # it is not about what the task was given
        return answer.finish(
            Result(task, Platform.CHATGPT, "", False, TaskStatus.FAILED, error=str(error), exception=error)
        )
    return answer.finish(await handle.wait())


async def _show(handle: ChatTask, answer: Answer) -> None:
    """Show a task's text while it comes. What the task fails with is left to its result."""
    try:
        async for text in handle.stream():
            answer.add(text)
    except Exception as error:
        if handle.result is None or handle.result.exception is not error:
            raise


class Answer:
    """Shows the answer: the text as it comes, or the whole result as one JSON document at the end.

    Args:
        as_json: the latter.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._stderr = Terminal(stderr=True, highlight=False, soft_wrap=True)
        self._in_line = False

    def add(self, text: str) -> None:
        """Show a piece of the text."""
        if text and not self._as_json:
            sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)
            sys.stdout.flush()
            self._in_line = not text.endswith("\n")

    def tell(self, text: str, style: str = "dim") -> None:
        """Say something that is not the answer."""
        self._stderr.print(Text(harmless(text), style=style))

    def finish(self, result: Result) -> int:
        """Show what became of the task; return the exit code, which matters unless the task was cancelled."""
        if self._as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(document(result), enc_hook=str)))
        elif result.message is not None and result.message.refusal and not result.output:
            self.add(result.message.refusal)
        if self._in_line:
            self.add("\n")
        if result.status is TaskStatus.FAILED:
            wrong_usage = isinstance(result.exception, ValueError)  # its message names the argument
            kind = "" if wrong_usage else f"{type(result.exception).__name__}: "
            self.tell(f"Error: {kind}{result.error}", style="bold red")
            return WRONG_USAGE if wrong_usage else FAILED
        if result.success and self._stderr.is_terminal and not self._as_json:
            self.tell(summary(result))
        return 0


def summary(result: Result) -> str:
    """Return a line of what the answer took."""
    first_token = result.timings.first_token_seconds if result.timings else None
    parts = {
        "": result.metadata["model"],
        "tokens": result.tokens_used,
        "cost": dollars(result.cost),
        "first token": seconds(first_token),
        "total": seconds(result.duration_seconds),
        "attempts": result.attempts if result.attempts > 1 else None,
        "finish reason": result.finish_reason if result.finish_reason != "stop" else None,
    }
    return " | ".join(f"{name} {value}".lstrip() for name, value in parts.items() if value is not None)


def document(result: Result) -> dict[str, Any]:
    """Return a result as JSON can hold it, by the names that it has in Python."""
    timings = result.timings
    return {
        "task_id": result.task.task_id if result.task else None,
        "platform": result.platform,
        "status": result.status,
        "success": result.success,
        "output": result.output,
        "finish_reason": result.finish_reason,
        "error": result.error,
        "exception": _described(result.exception),
        "message": result.message.to_dict() if result.message else None,
        "usage": result.usage,
        "tokens_used": result.tokens_used,
        "cost": result.cost,
        "duration_seconds": result.duration_seconds,
        "attempts": result.attempts,
        "attempts_log": result.attempts_log,
        "timings": {
            "queue_seconds": timings.queue_seconds,
            "first_token_seconds": timings.first_token_seconds,
            "inter_token_seconds": timings.inter_token_seconds,
            "total_seconds": timings.total_seconds,
        }
        if timings
        else None,
        "metadata": result.metadata,
    }


def _described(exception: Exception | None) -> dict[str, Any] | None:
    if exception is None:
        return None
    known = {name: getattr(exception, name, None) for name in _ERROR_FIELDS}
    return {"class": type(exception).__name__, **{name: value for name, value in known.items() if value is not None}}
