"""The outcome of one request, with its row, as a run delivers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chatscope import Result


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The outcome of one request.

    Attributes:
        custom_id: the line's id, or the one that was made from its key.
        number: the line of the input, from 1.
        record: the input record, where the row was one.
        result: its task's result.
    """

    custom_id: str
    number: int
    record: Mapping[str, Any] | None
    result: Result

    @property
    def success(self) -> bool:
        """Whether the request succeeded."""
        return self.result.success

    @property
    def output(self) -> str:
        """The response's text."""
        return self.result.output
