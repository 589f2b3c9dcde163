"""The command line run in this process, and a stdout that reacts to what is written."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


class Output(io.StringIO):
    """A stdout that does something as soon as a text was written to it.

    Args:
        text: what to wait for.
        then: what to do; may raise.
        terminal: whether it claims to be a terminal.
    """

    def __init__(self, text: str, then: Callable[[], object], *, terminal: bool) -> None:
        super().__init__()
        self._text: str | None = text
        self._then = then
        self._terminal = terminal

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._text is not None and self._text in self.getvalue():
            self._text = None
            self._then()
        return written

    def isatty(self) -> bool:
        return self._terminal

    def fileno(self) -> int:
        return os.open(os.devnull, os.O_WRONLY)  # one of its own, for those who redirect it


Run = Callable[..., Ran]
MakeOutput = Callable[..., Output]
