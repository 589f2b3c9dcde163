"""How the demonstration looks: columns that grow side by side in a terminal, prefixed lines elsewhere, then a table.

Everything shown is read from the tasks' handles and results; nothing here waits.
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

from chatscope._tasks.handle import ChatTask
from chatscope._tasks.models import Result, TaskStatus
from chatscope.cli.terminal import Terminal, dollars, seconds

LINE: Final = 40
"""Characters after which a plain line is closed at the next word: half a terminal, so that tasks take turns often."""

_STYLES: Final = {
    TaskStatus.PENDING: "dim",
    TaskStatus.RUNNING: "cyan",
    TaskStatus.COMPLETED: "green",
    TaskStatus.FAILED: "red",
    TaskStatus.CANCELLED: "yellow",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A task, as it is shown everywhere: by its number and label."""

    number: int
    label: str
    handle: ChatTask

    @property
    def prefix(self) -> str:
        """What begins its lines."""
        return f"[{self.number}]"

    @property
    def status(self) -> Text:
        """Where it stands, in the status's colour."""
        return Text(self.handle.status.upper(), style=_STYLES[self.handle.status])


class View(Protocol):
    """Shows tasks while they run, for as long as its block is open."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def grew(self, row: Row, text: str) -> None:
        """Show a piece of a task's text."""

    def ended(self, row: Row) -> None:
        """Show that a task has ended."""

    def note(self, message: str) -> None:
        """Show something that was logged about a task, which is named by its id."""


class PlainView:
    """Lines that begin with the task's number; a line is printed when it is long enough."""

    def __init__(self, terminal: Terminal, rows: Sequence[Row]) -> None:
        self._terminal = terminal
        self._rows = rows
        self._lines = {row.number: "" for row in rows}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def grew(self, row: Row, text: str) -> None:
        """Add to the task's line; print it when the next word begins behind `LINE`."""
        line = self._lines[row.number]
        if len(line) >= LINE and text.startswith(" "):
            self._print(row, line)
            line = ""
        self._lines[row.number] = line + text

    def ended(self, row: Row) -> None:
        """Print the rest, and how the task ended."""
        self._print(row, self._lines.pop(row.number))
        self._print(row, row.handle.status.upper())

    def note(self, message: str) -> None:
        """Print the message behind the task's number."""
        self._terminal.print(Text(_numbered(message, self._rows)), soft_wrap=True)

    def _print(self, row: Row, line: str) -> None:
        if line.strip():
            self._terminal.print(Text(f"{row.prefix} {line.strip()}"), soft_wrap=True)


class LiveView:
    """Columns that are drawn anew with every piece of text, and a line for the tasks that have none."""

    def __init__(self, terminal: Terminal, rows: Sequence[Row], watched: Sequence[Row]) -> None:
        self._terminal = terminal
        self._rows = rows
        self._texts = {row.number: (row, Text()) for row in watched}
        # Drawn by whoever has news: rich's own refreshing would be a thread.
        self._live = Live(self._frame(), console=terminal, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.update(self._frame())
        self._live.stop()

    def grew(self, row: Row, text: str) -> None:
        """Add to the task's column."""
        self._texts[row.number][1].append(text)
        self._live.update(self._frame(), refresh=True)

    def ended(self, row: Row) -> None:  # noqa: ARG002 - a frame shows all tasks
        """Draw the task's last status."""
        self._live.update(self._frame(), refresh=True)

    def note(self, message: str) -> None:
        """Print the message above the columns, behind the task's number."""
        self._terminal.print(Text(_numbered(message, self._rows), style="dim"))

    def _frame(self) -> Group:
        columns = Table(box=box.ROUNDED, expand=True)
        for row, _ in self._texts.values():
            columns.add_column(_titled(row), ratio=1)
        columns.add_row(*(text for _, text in self._texts.values()))
        others = [_titled(row) for row in self._rows if row.number not in self._texts]
        return Group(columns, Text("   ").join(others))


def view_for(terminal: Terminal, rows: Sequence[Row], watched: Sequence[Row]) -> View:
    """Return the view that fits where the output goes."""
    return LiveView(terminal, rows, watched) if terminal.is_interactive else PlainView(terminal, rows)


def introduce(terminal: Terminal, rows: Sequence[Row]) -> None:
    """Print what was submitted."""
    terminal.print(Text(f"{len(rows)} tasks submitted:", style="bold"))
    for row in rows:
        task = row.handle.task
        terminal.print(Text(f"{row.prefix} {row.handle.id}  {task.constraints.model}  {task.prompt}"), soft_wrap=True)
    terminal.print()


def report(terminal: Terminal, rows: Sequence[Row]) -> None:
    """Print what became of the tasks: a table, what was retried, and the texts that were cut short."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for name in ("tokens", "cost", "attempts", "first\ntoken", "duration"):
        table.add_column(name, justify="right", no_wrap=True)
    ended = [(row, row.handle.result) for row in rows]
    for row, result in ended:
        table.add_row(Text(f"{row.prefix} {row.label}"), row.status, *_cells(result))
    terminal.print(table)
    for row, result in ended:
        for number, attempt in enumerate(result.attempts_log if result else (), start=1):
            if attempt.wait_seconds is not None:
                why = f"attempt {number} got {attempt.status} ({attempt.error}), waited {attempt.wait_seconds:g} s"
                terminal.print(Text(f"{row.prefix} {why}"), soft_wrap=True)
        if result is not None and not result.success:
            terminal.print(Text(f"{row.prefix} {result.error}; the text that had arrived:"), soft_wrap=True)
            terminal.print(Text(result.output.strip(), style="dim"))


def _cells(result: Result | None) -> tuple[str, ...]:
    """Return a result's numbers as the table shows them."""
    if result is None:
        return ()
    return (
        "-" if result.tokens_used is None else str(result.tokens_used),
        dollars(result.cost),
        str(result.attempts),
        seconds(result.timings.first_token_seconds if result.timings else None),
        seconds(result.duration_seconds),
    )


def _titled(row: Row) -> Text:
    """Return a task's name and where it stands."""
    return Text.assemble(f"{row.prefix} {row.label} ", row.status)


def _numbered(message: str, rows: Sequence[Row]) -> str:
    for row in rows:
        message = message.replace(f"{row.handle.id}:", row.prefix)
    return message
