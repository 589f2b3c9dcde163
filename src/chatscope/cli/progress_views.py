"""Shows the progress of a long run: redrawn in a terminal, as occasional lines elsewhere, or not at all.

Not here: the figures (`batch_view`, `load_view`).
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeAlias, TypeVar

from rich.console import RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from chatscope.cli.loop import discard
from chatscope.cli.terminal import Terminal, without_controls

PLAIN_SECONDS: Final = 10.0
"""Seconds between two plain lines. The log of a run overnight stays under 5,000 lines."""

Figures: TypeAlias = Sequence[tuple[str, str]]
"""What is shown: names and values."""

ProgressT_contra = TypeVar("ProgressT_contra", contravariant=True)


class ProgressView(Protocol[ProgressT_contra]):
    """Shows a run while its block is open."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, progress: ProgressT_contra) -> None:
        """Show the current progress."""


class NoProgress:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, progress: object) -> None:
        """Do nothing."""


class UnbrokenProgress(Generic[ProgressT_contra]):
    """Shows a run until stderr cannot be written: a run does not end because nobody sees it.

    Args:
        view: shows the run.
    """

    def __init__(self, view: ProgressView[ProgressT_contra]) -> None:
        self._view = view

    def __enter__(self) -> Self:
        with unless_closed():
            self._view.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with unless_closed():
            self._view.__exit__(kind, error, trace)

    def show(self, progress: ProgressT_contra) -> None:
        """Show the current progress."""
        with unless_closed():
            self._view.show(progress)


@contextmanager
def unless_closed() -> Iterator[None]:
    """Within the block, stderr is written. If that fails, nothing more is written to it."""
    try:
        yield
    except OSError:
        discard(sys.stderr)


class ProgressLines(Generic[ProgressT_contra]):
    """Prints a line every ten seconds, and one for each new stage.

    Args:
        terminal: where it prints.
        stage: returns the name of the stage.
        figures: returns what a line says. Called for each progress, because it may measure rates.
    """

    def __init__(
        self,
        terminal: Terminal,
        stage: Callable[[ProgressT_contra], str],
        figures: Callable[[ProgressT_contra], Figures],
    ) -> None:
        self._terminal = terminal
        self._stage_of = stage
        self._figures = figures
        self._stage = ""
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, progress: ProgressT_contra) -> None:
        """Print a line if one is due."""
        now, stage, shown = time.monotonic(), self._stage_of(progress), self._figures(progress)
        if stage != self._stage or now - self._shown_at >= PLAIN_SECONDS:
            self._stage, self._shown_at = stage, now
            line = "; ".join(f"{name} {value}" for name, value in shown)
            self._terminal.print(Text(without_controls(line)), soft_wrap=True)


class LiveProgress(ABC, Generic[ProgressT_contra]):
    """Redraws a frame at each progress report.

    Args:
        terminal: where it draws.
        transient: remove the last frame at the end.
    """

    def __init__(self, terminal: Terminal, *, transient: bool) -> None:
        # Every progress report redraws the frame: rich's automatic refresh would need a thread.
        self._live = Live(Text(""), console=terminal, auto_refresh=False, transient=transient)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, progress: ProgressT_contra) -> None:
        """Draw the frame."""
        self._live.update(self.frame(progress), refresh=True)

    @abstractmethod
    def frame(self, progress: ProgressT_contra) -> RenderableType:
        """Return what is drawn."""


def grid_of(figures: Figures, alarming: str = "") -> Table:
    """Return figures as a grid, one below the other.

    Args:
        figures: names and values.
        alarming: the name of the figure that is shown in red.
    """
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in figures:
        grid.add_row(name, Text(without_controls(value), style="red" if name == alarming else ""))
    return grid
