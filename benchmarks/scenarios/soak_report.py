"""The plan of a soak, what the server has seen, and the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Plan:
    """The size and limits of a soak."""

    tasks: int = 100_000
    concurrency: int = 100
    keep_finished: int = 1_000


@dataclass(frozen=True, slots=True)
class Seen:
    """What the server has seen."""

    requests: int
    repeated: int
    open_connections: int


@dataclass(slots=True)
class Report:
    """The results of a soak."""

    tasks: int
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    results: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    lost: int = 0
    duplicates: int = 0
    wrong: int = 0
    known_at_the_end: int = 0
    resident_mib: dict[str, float] = field(default_factory=dict)
    transport: dict[str, int] = field(default_factory=dict)
    statistics: dict[str, Any] = field(default_factory=dict)
    server: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """The first few problems, in words. Empty means success."""

    def complain(self, problem: str) -> None:
        """Record a problem."""
        if len(self.problems) < 20:
            self.problems.append(problem)

    def demand(self, what: str, seen: object, wanted: object) -> None:
        """Record a problem unless a figure has the expected value."""
        if seen != wanted:
            self.complain(f"{what}: {seen}, not {wanted}")

    def document(self) -> dict[str, Any]:
        """Return the report for JSON. `asdict` would not do: before Python 3.12 it breaks a `Counter`."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def __str__(self) -> str:
        lines = [f"{self.tasks} tasks in {self.seconds:.1f} s, {self.attempts} requests sent"]
        lines += ["faults:"] + [f"  {count:7} {name}" for name, count in sorted(self.kinds.items())]
        lines += ["results:"] + [f"  {count:7} {name}" for name, count in sorted(self.results.items())]
        lines += [
            f"lost: {self.lost}, duplicates: {self.duplicates}, wrong outcomes: {self.wrong}",
            f"still known at the end: {self.known_at_the_end}",
            f"resident size in MiB: {', '.join(f'{at}: {size:.1f}' for at, size in self.resident_mib.items())}",
            f"connections: {self.transport}",
            f"statistics: {self.statistics}",
            f"server: {self.server}",
            *[f"WRONG: {problem}" for problem in self.problems],
        ]
        return "\n".join(lines)
