"""Counts that outlive their tests: what the suites ran, told in the terminal's last lines."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest


@dataclass(slots=True)
class Figures:
    """What was run, by loop."""

    rows: Counter[str] = field(default_factory=Counter)
    """How many rows of the catalogue."""
    slowest: tuple[float, str] = (0.0, "none")
    """The longest that one took, in seconds, and which it was."""
    points: defaultdict[str, defaultdict[str, Counter[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Counter))
    )
    """At how many checkpoints was cancelled, by scenario and way."""

    def took(self, loop: str, row: str, seconds: float) -> None:
        """Count a row that was run."""
        self.rows[loop] += 1
        self.slowest = max(self.slowest, (seconds, f"{row}, {loop}"))

    def lines(self) -> Iterator[str]:
        """Yield the lines to be shown."""
        if self.rows:
            seconds, name = self.slowest
            yield f"fault catalogue: {_by_loop(self.rows)}; the slowest row took {seconds:.2f} s ({name})"
        if self.points:
            yield "checkpoints cancelled at:"
            for scenario, ways in self.points.items():
                yield f"  {scenario}: {'; '.join(f'{way} {_by_loop(points)}' for way, points in ways.items())}"
            totals = sum((points for ways in self.points.values() for points in ways.values()), Counter[str]())
            yield f"  in all: {_by_loop(totals)}; {totals.total()}"


def _by_loop(counts: Counter[str]) -> str:
    return ", ".join(f"{count} on {loop}" for loop, count in sorted(counts.items()))


FIGURES = pytest.StashKey[Figures]()
