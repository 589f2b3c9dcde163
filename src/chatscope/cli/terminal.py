"""Shared by the commands that print: a console, safe text, readable numbers, and the library's log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console

_CONTROLS: Final = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")})
"""C0, DEL and C1, except line feed and tab: terminals act on these characters."""


class Terminal(Console):
    """A console that raises `BrokenPipeError`, as other writers do. By default, rich exits the process."""

    def on_broken_pipe(self) -> None:
        """Re-raise the current error."""
        raise  # noqa: PLE0704 - rich calls this from its except clause


def without_controls(text: str) -> str:
    """Return text without the characters that could move a terminal's cursor or change its title."""
    return text.translate(_CONTROLS)


def error_text(error: Exception) -> str:
    """Return an error's message. For an error of the system it is the file and the reason, without a number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def seconds(value: float | None) -> str:
    """Format a duration."""
    return "-" if value is None else f"{value:.2f} s"


def dollars(value: float | None) -> str:
    """Format a cost; one request costs millionths of a dollar."""
    return "-" if value is None else f"${value:.6f}"


@contextmanager
def logs_shown(show: Callable[[str], object]) -> Iterator[None]:
    """Within the block, show the library's warnings, and every wait before a retry (also those logged at INFO)."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            show(record.getMessage())

    ours, retries, stamina = map(logging.getLogger, ("chatscope", "chatscope.retry", "stamina"))
    level, handler, silence = retries.level, Handler(), logging.NullHandler()
    retries.setLevel(logging.INFO)
    ours.addHandler(handler)
    stamina.addHandler(silence)  # stamina logs the same waits, to stderr if its logger has no handler
    try:
        yield
    finally:
        stamina.removeHandler(silence)
        ours.removeHandler(handler)
        retries.setLevel(level)
