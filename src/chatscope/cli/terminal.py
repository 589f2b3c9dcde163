"""What both commands need to show something: a console, text made harmless, numbers as people read them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console

_CONTROLS: Final = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")})
"""C0, DEL and C1, all but the line feed and the tab: a terminal would act on them."""


class Terminal(Console):
    """A console that raises `BrokenPipeError` like any other writer, where rich would exit the process."""

    def on_broken_pipe(self) -> None:
        """Raise the error that is being handled."""
        raise  # noqa: PLE0704 - rich calls this from its except clause


def harmless(text: str) -> str:
    """Return text from a server without the characters that could move a terminal's cursor or change its title."""
    return text.translate(_CONTROLS)


def seconds(value: float | None) -> str:
    """Return a duration as a table shows it."""
    return "-" if value is None else f"{value:.2f} s"


def dollars(value: float | None) -> str:
    """Return a cost as a table shows it: single requests cost millionths."""
    return "-" if value is None else f"${value:.6f}"


@contextmanager
def logs_told(tell: Callable[[str], object]) -> Iterator[None]:
    """Within the block, tell the library's warnings, and each wait before a retry however loud it is logged."""

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(record.getMessage())

    ours, retries, stamina = map(logging.getLogger, ("chatscope", "chatscope.retry", "stamina"))
    level, teller, silence = retries.level, Teller(), logging.NullHandler()
    retries.setLevel(logging.INFO)
    ours.addHandler(teller)
    stamina.addHandler(silence)  # it tells of the same waits in its own words, to stderr if its logger has no handler
    try:
        yield
    finally:
        stamina.removeHandler(silence)
        ours.removeHandler(teller)
        retries.setLevel(level)
