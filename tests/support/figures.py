"""Counts that outlive their tests: what the suites ran, printed in the terminal's last lines."""

from __future__ import annotations

from collections import Counter
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
    points: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """At how many checkpoints a scenario was cancelled, by scenario, way and loop."""

    def took(self, loop: str, row: str, seconds: float) -> None:
        """Count a row that was run."""
        self.rows[loop] += 1
        self.slowest = max(self.slowest, (seconds, f"{row}, {loop}"))

    def add(self, other: Figures) -> None:
        """Add what another process ran."""
        self.rows += other.rows
        self.points += other.points
        self.slowest = max(self.slowest, other.slowest)

    def lines(self) -> Iterator[str]:
        """Yield the lines to be shown."""
        if self.rows:
            seconds, name = self.slowest
            yield f"fault catalogue: {_by_loop(self.rows)}; the slowest row took {seconds:.2f} s ({name})"
        if self.points:
            yield "checkpoints cancelled at:"
            for scenario in dict.fromkeys(scenario for scenario, _, _ in self.points):
                ways = dict.fromkeys(way for name, way, _ in self.points if name == scenario)
                yield f"  {scenario}: {'; '.join(f'{way} {_by_loop(self._at(scenario, way))}' for way in ways)}"
            totals = Counter[str]()
            for (_, _, loop), count in self.points.items():
                totals[loop] += count
            yield f"  in all: {_by_loop(totals)}; {totals.total()}"

    def _at(self, scenario: str, way: str) -> Counter[str]:
        return Counter({loop: count for (*where, loop), count in self.points.items() if where == [scenario, way]})


def _by_loop(counts: Counter[str]) -> str:
    return ", ".join(f"{count} on {loop}" for loop, count in sorted(counts.items()))


FIGURES = pytest.StashKey[Figures]()
