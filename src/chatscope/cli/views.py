"""The output of the demonstration: live columns in a terminal, prefixed lines elsewhere, then a table.

It reads only the tasks' handles and results. Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from chatscope import ChatTask, Result, TaskStatus
from chatscope.cli.terminal import Terminal, dollars, seconds

LINE: Final = 40
"""Characters after which a plain line ends at the next word: half a terminal's width, so tasks alternate often."""

WIDTH: Final = 80
"""Columns that the plain lines need. In a narrower terminal they are wrapped at words."""

LAST_WORD: Final = 16
"""Columns of a narrow terminal that are left for a line's number and its last word."""

_STYLES: Final = {
    TaskStatus.PENDING: "dim",
    TaskStatus.RUNNING: "cyan",
    TaskStatus.COMPLETED: "green",
    TaskStatus.FAILED: "red",
    TaskStatus.CANCELLED: "yellow",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A task with the number and label that stand for it in the output."""

    number: int
    label: str
    handle: ChatTask

    @property
    def prefix(self) -> str:
        """The beginning of its lines."""
        return f"[{self.number}]"

    @property
    def status(self) -> Text:
        """Its status in colour."""
        return Text(self.handle.status.upper(), style=_STYLES[self.handle.status])


TABLE_WIDTH: Final = 72
"""Columns of a terminal that the report's table needs."""


class View(Protocol):
    """Shows running tasks while its block is open."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def add_text(self, row: Row, text: str) -> None:
        """Show a part of a task's text."""

    def show_end(self, row: Row) -> None:
        """Show that a task has ended."""

    def show_note(self, message: str) -> None:
        """Show a log message about a task; the message names the task's id."""


class PlainView:
    """Prints lines that begin with the task's number. A line is printed once it is long enough."""

    def __init__(self, terminal: Terminal, rows: Sequence[Row]) -> None:
        self._terminal = terminal
        self._rows = rows
        self._lines = {row.number: "" for row in rows}
        self._length = max(1, min(LINE, terminal.width - LAST_WORD))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def add_text(self, row: Row, text: str) -> None:
        """Add to the task's line; print the line when a word begins after its length."""
        line = self._lines[row.number]
        if len(line) >= self._length and text.startswith(" "):
            self._print(row, line)
            line = ""
        self._lines[row.number] = line + text

    def show_end(self, row: Row) -> None:
        """Print the rest of the text and the task's status."""
        self._print(row, self._lines.pop(row.number))
        self._print(row, row.handle.status.upper())

    def show_note(self, message: str) -> None:
        """Print the message after the task's number."""
        _print_line(self._terminal, _numbered(message, self._rows))

    def _print(self, row: Row, line: str) -> None:
        if line.strip():
            _print_line(self._terminal, f"{row.prefix} {line.strip()}")


class LiveView:
    """Redraws columns with every part of text, and one line for the tasks without a column."""

    def __init__(self, terminal: Terminal, rows: Sequence[Row], watched: Sequence[Row]) -> None:
        self._terminal = terminal
        self._rows = rows
        self._texts = {row.number: (row, Text()) for row in watched}
        # Every change redraws the frame: rich's automatic refresh would need a thread.
        self._live = Live(self._frame(), console=terminal, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.update(self._frame())
        self._live.stop()

    def add_text(self, row: Row, text: str) -> None:
        """Add to the task's column."""
        self._texts[row.number][1].append(text)
        self._live.update(self._frame(), refresh=True)

    def show_end(self, row: Row) -> None:  # noqa: ARG002 - a frame shows all tasks
        """Redraw, with the task's final status."""
        self._live.update(self._frame(), refresh=True)

    def show_note(self, message: str) -> None:
        """Print the message above the columns, after the task's number."""
        self._terminal.print(Text(_numbered(message, self._rows), style="dim"))

    def _frame(self) -> Group:
        columns = Table(box=box.ROUNDED, expand=True)
        for row, _ in self._texts.values():
            columns.add_column(_titled(row), ratio=1)
        columns.add_row(*(text for _, text in self._texts.values()))
        others = [_titled(row) for row in self._rows if row.number not in self._texts]
        return Group(columns, Text("   ").join(others))


def view_for(terminal: Terminal, rows: Sequence[Row], watched: Sequence[Row]) -> View:
    """Return the view for a terminal or for a pipe."""
    return LiveView(terminal, rows, watched) if terminal.is_interactive else PlainView(terminal, rows)


def introduce(terminal: Terminal, rows: Sequence[Row]) -> None:
    """Print the submitted tasks."""
    terminal.print(Text(f"{len(rows)} tasks submitted:", style="bold"))
    for row in rows:
        task = row.handle.task
        _print_line(terminal, f"{row.prefix} {row.handle.id}  {task.constraints.model}  {task.prompt}")
    terminal.print()


def report(terminal: Terminal, rows: Sequence[Row]) -> None:
    """Print how the tasks ended: a table, the retries, and the texts that were cut short."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for name in ("tokens", "cost", "attempts", "first\ntoken", "duration"):
        table.add_column(name, justify="right", no_wrap=True)
    results = [(row, row.handle.result) for row in rows]
    for row, result in results:
        table.add_row(Text(f"{row.prefix} {row.label}"), row.status, *_cells(result))
    if terminal.width >= TABLE_WIDTH:
        terminal.print(table)
    else:
        _report_lines(terminal, results)
    for row, result in results:
        for number, attempt in enumerate(result.attempts_log if result else (), start=1):
            if attempt.wait_seconds is not None:
                line = f"attempt {number} got {attempt.status} ({attempt.error}), waited {attempt.wait_seconds:g} s"
                _print_line(terminal, f"{row.prefix} {line}")
        if result is not None and not result.success:
            why = getattr(result.exception, "message", result.error)  # without the address, to fit the line
            _print_line(terminal, f"{row.prefix} {why}; the text received:")
            terminal.print(Text(result.output.strip(), style="dim"))


def _report_lines(terminal: Terminal, results: Sequence[tuple[Row, Result | None]]) -> None:
    """Print the table's cells below one another, for terminals that are too narrow for the table."""
    for row, result in results:
        terminal.print(_titled(row))
        names = ("tokens", "cost", "attempts", "first token", "duration")
        for name, cell in zip(names, _cells(result), strict=False):
            terminal.print(Text(f"    {name:<12} {cell}"))


def _cells(result: Result | None) -> tuple[str, ...]:
    """Return a result's cells of the table."""
    if result is None:
        return ()
    return (
        "-" if result.tokens_used is None else str(result.tokens_used),
        dollars(result.cost),
        str(result.attempts),
        seconds(result.timings.first_token_seconds if result.timings else None),
        seconds(result.duration_seconds),
    )


def _print_line(terminal: Terminal, text: str) -> None:
    """Print text as one line, or wrapped at words if it does not fit."""
    terminal.print(Text(text), soft_wrap=terminal.width >= WIDTH)


def _titled(row: Row) -> Text:
    """Return a task's number, label and status."""
    return Text.assemble(f"{row.prefix} {row.label} ", row.status)


def _numbered(message: str, rows: Sequence[Row]) -> str:
    for row in rows:
        message = message.replace(f"{row.handle.id}:", row.prefix)
    return message
