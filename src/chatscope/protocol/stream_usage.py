"""Adds up the usage that the chunks of one stream report. Not here: finding it in a chunk (`usage_reports.py`)."""

from __future__ import annotations

from chatscope.protocol.response import Chunk
from chatscope.protocol.usage import Usage, merge_usage
from chatscope.protocol.usage_reports import usage_of_choice, usage_of_choices


class StreamUsage:
    """The usage of one stream so far.

    Attributes:
        merged: all reports, merged as if each covered the whole response.
    """

    __slots__ = ("_by_choice", "merged")

    def __init__(self) -> None:
        self.merged: Usage | None = None
        self._by_choice: dict[int, Usage] = {}  # empty unless the server reports usage for each choice

    def add(self, chunk: Chunk) -> None:
        """Add what a chunk reports."""
        self.merged = merge_usage(self.merged, chunk.usage)
        for part in chunk.choices:
            if (usage := usage_of_choice(part.extra | {"delta": part.delta.extra})) is not None:
                self._by_choice[part.index] = merge_usage(self._by_choice.get(part.index), usage) or usage

    def total(self) -> Usage | None:
        """Return the usage so far, if the server has reported any."""
        usage = self.merged
        if len(self._by_choice) > 1 and usage is not None:
            together = usage_of_choices(self._by_choice.values())
            if together is not None and together.completion_tokens > usage.completion_tokens:
                return together
        return usage
