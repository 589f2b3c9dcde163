"""`chatscope ask`: run one task, print its text to stdout as it arrives, and everything else to stderr.

Here: the task, its output and the exit code. Not here: options (`commands`), signals (`loop`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

import anyio
import click
import msgspec
from rich.text import Text

from chatscope import (
    AsyncChatGPTAdapter,
    ChatTask,
    Platform,
    Result,
    RetryPolicy,
    Task,
    TaskConstraints,
    TaskParameters,
    TaskStatus,
    content,
)
from chatscope.cli.options import NO_KEY, key_from_environment
from chatscope.cli.terminal import Terminal, dollars, logs_shown, seconds, without_controls

FAILED: Final = 1
"""The exit code of a task that failed."""

WRONG_USAGE: Final = 2
"""The exit code when nothing was sent; click uses it for bad arguments."""

PATIENCE: Final = 3
"""How many refused connections end the task (after about 1.5 s), unless `--attempts` says otherwise."""

ALIKE: Final = 0.85
"""How similar two names must be for one to be a likely typo. `top_k` and `top_p` are less similar than this."""

_NAMED: Final = frozenset(TaskParameters.__annotations__)
"""Parameters that a task takes by name. The others go through `extra_body`."""

_ERROR_FIELDS: Final = (
    *("status", "code", "type", "param", "request_id", "phase", "retry_after", "not_retried", "where", "hint", "body"),
)


@dataclass(frozen=True, slots=True)
class Question:
    """The arguments of `chatscope ask`."""

    prompt: str
    system: str | None
    model: str
    base_url: str | None
    constraints: TaskConstraints
    as_json: bool
    parameters: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    profile: str | None = None
    attempts: int | None = None

    @property
    def retry(self) -> RetryPolicy | int:
        """How requests are retried. A person is waiting, so a server that is not running is given up on soon."""
        return RetryPolicy(refused_attempts=PATIENCE) if self.attempts is None else self.attempts

    def notes(self) -> list[str]:
        """Return a note for each parameter that may be a typo. It is only a note: servers have their own parameters."""
        return [
            f"{name!r} is sent as it is; did you mean {near[0]!r}?"
            for name in self.parameters
            if name not in _NAMED and (near := get_close_matches(name, _NAMED, n=1, cutoff=ALIKE))
        ]

    def task(self) -> Task:
        """Return the task to run.

        Raises:
            ValueError: an image or a file cannot be read.
        """
        named = {name: value for name, value in self.parameters.items() if name in _NAMED}
        others = {name: value for name, value in self.parameters.items() if name not in _NAMED}
        parameters = named | ({"extra_body": others} if others else {})
        if not self.images and not self.files:
            return Task(self.prompt, constraints=self.constraints, system=self.system, parameters=parameters)
        parts = [content.text(self.prompt), *map(content.image, self.images), *map(content.file, self.files)]
        messages = [{"role": "user", "content": parts}]
        return Task(messages=messages, constraints=self.constraints, system=self.system, parameters=parameters)


async def ask(question: Question) -> int:
    """Run the task and return the exit code.

    If cancelled, close the connection and print the text received so far, then re-raise.

    Raises:
        BrokenPipeError: the reader of the output has closed it; the connection is already closed.
    """
    printer, task, handle = Printer(as_json=question.as_json), None, None
    try:
        task = question.task()
        adapter = AsyncChatGPTAdapter(
            key_from_environment(),
            base_url=question.base_url,
            model=question.model,
            profile=question.profile,
            retry=question.retry,
        )
        if adapter.implementation_status == "unavailable":
            raise ValueError(NO_KEY)
        for note in question.notes():
            printer.print_note(note)
        with logs_shown(printer.print_note):
            async with adapter:
                handle = adapter.start_task(task)
                await _print_text(handle, printer)
    except anyio.get_cancelled_exc_class():
        if handle is not None and handle.result is not None:
            printer.finish(handle.result)
        raise
    except ValueError as error:
        if handle is not None:
            raise  # the arguments were accepted: this is not a usage error
        return printer.finish(
            Result(task, Platform.CHATGPT, "", False, TaskStatus.FAILED, error=str(error), exception=error)
        )
    return printer.finish(await handle.wait())


async def _print_text(handle: ChatTask, printer: Printer) -> None:
    """Print a task's text as it arrives. The task's own error is ignored here, because the result holds it."""
    try:
        async for text in handle.stream():
            printer.print_text(text)
    except Exception as error:
        if handle.result is None or handle.result.exception is not error:
            raise


class Printer:
    """Prints the response: its text as it arrives, or the whole result as one JSON document at the end.

    Args:
        as_json: print the JSON document.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._stderr = Terminal(stderr=True, highlight=False, soft_wrap=True)
        self._in_line = False

    def print_text(self, text: str) -> None:
        """Print a part of the text."""
        if text and not self._as_json:
            sys.stdout.write(without_controls(text) if sys.stdout.isatty() else text)
            sys.stdout.flush()
            self._in_line = not text.endswith("\n")

    def print_note(self, text: str, style: str = "dim") -> None:
        """Print a line to stderr."""
        self._stderr.print(Text(without_controls(text), style=style))

    def finish(self, result: Result) -> int:
        """Print how the task ended, and return the exit code. If it was cancelled, the caller decides the exit code."""
        if self._as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(document(result), enc_hook=str)))
        elif result.message is not None and result.message.refusal and not result.output:
            self.print_text(result.message.refusal)
        if self._in_line:
            self.print_text("\n")
        if result.status is TaskStatus.FAILED:
            wrong_usage = isinstance(result.exception, ValueError)  # its message names the argument
            kind = "" if wrong_usage else f"{type(result.exception).__name__}: "
            self.print_note(f"Error: {kind}{result.error}", style="bold red")
            return WRONG_USAGE if wrong_usage else FAILED
        if result.success and self._stderr.is_terminal and not self._as_json:
            self.print_note(summary(result))
        return 0


def summary(result: Result) -> str:
    """Return one line with the model, tokens, cost and times."""
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
    """Return a result as values that JSON can represent, under their Python names."""
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
    fields = {name: getattr(exception, name, None) for name in _ERROR_FIELDS}
    return {"class": type(exception).__name__, **{name: value for name, value in fields.items() if value is not None}}
