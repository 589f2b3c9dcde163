"""chatscope's performance targets, as ratios, and whether a run met them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.contenders import LOOPS
from benchmarks.harness.baseline import SEPARATOR
from benchmarks.harness.run import Measured
from benchmarks.scenarios.costs import UNITS

NO_WORSE: Final = 1.03
"""The ratio to another commit in the same run up to which CPU time counts as unchanged: the noise of medians."""

_CPU_UNITS: Final = frozenset({UNITS["stream"], UNITS["plain"]})


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the tables."""

    scenario: str
    loop: str
    contender: str


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio of two cells.

    Args:
        what: a description.
        ours, theirs: the cells.
        at_most: the largest allowed ratio of ours to theirs.
        at_least: how many times smaller ours must be, as an alternative to `at_most`, which is then `None`.
    """

    what: str
    ours: Cell
    theirs: Cell
    at_most: float | None = None
    at_least: float | None = None

    @property
    def wanted(self) -> str:
        """The bound, in words."""
        return f"at most {self.at_most:.2f}" if self.at_most is not None else f"at least {self.at_least:g} times less"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a target. The ratio is `None` if the run did not measure it."""

    target: Target
    ratio: float | None
    reached: bool | None


def _against_aiohttp(what: str, scenario: str, loop: str, contender: str, at_most: float) -> Target:
    return Target(what, Cell(scenario, loop, contender), Cell(scenario, loop, "aiohttp"), at_most=at_most)


def _against_openai(what: str, scenario: str, loop: str, contender: str, at_least: float) -> Target:
    return Target(what, Cell(scenario, loop, contender), Cell(scenario, loop, "openai"), at_least=at_least)


def _growth(loop: str) -> Target:
    ours, theirs = Cell("plain-1024", loop, "chatscope-client"), Cell("plain-16", loop, "chatscope-client")
    return Target(f"ChatClient.complete, growth from 16 to 1024 at once, {loop}", ours, theirs, at_most=1.30)


TARGETS: Final = (
    _against_aiohttp("task, per streamed token, asyncio: aiohttp", "stream", "asyncio", "chatscope-task", 0.80),
    _against_aiohttp("task, per streamed token, uvloop: aiohttp", "stream", "uvloop", "chatscope-task", 0.80),
    Target(
        "task, per streamed token, trio: the floor",
        Cell("stream", "trio", "chatscope-task"),
        Cell("stream", "trio", "floor"),
        at_most=1.30,
    ),
    _against_openai("task, per streamed token, asyncio: openai", "stream", "asyncio", "chatscope-task", 6),
    _against_openai("task, per streamed token, trio: openai", "stream", "trio", "chatscope-task", 6),
    _against_openai("task, per token, 32 streams, asyncio: openai", "stream-32", "asyncio", "chatscope-task", 6),
    _against_openai("task, per token, 32 streams, trio: openai", "stream-32", "trio", "chatscope-task", 6),
    _against_aiohttp("ChatClient.complete, 64 at once: aiohttp", "plain-64", "asyncio", "chatscope-client", 0.80),
    _against_aiohttp("ChatClient.complete, 1024 at once: aiohttp", "plain-1024", "asyncio", "chatscope-client", 0.85),
    _against_openai("ChatClient.complete, 64 at once: openai", "plain-64", "asyncio", "chatscope-client", 14),
    *map(_growth, LOOPS),
    _against_openai("task, burst, per token: openai", "burst", "asyncio", "chatscope-task", 25),
    Target(
        "cold import chatscope: import openai",
        Cell("import", "-", "chatscope-task"),
        Cell("import", "-", "openai"),
        at_most=0.25,
    ),
)


def baseline_targets(samples: Iterable[Measured]) -> list[Target]:
    """Return a target for each CPU figure that was also measured at another commit: at most `NO_WORSE` times that."""
    cells = {
        Cell(sample.scenario, sample.loop, sample.contender): None
        for sample in samples
        if SEPARATOR in sample.contender and sample.unit in _CPU_UNITS
    }
    targets = []
    for theirs in cells:
        ours = replace(theirs, contender=theirs.contender.partition(SEPARATOR)[0])
        what = f"{ours.contender}, {ours.scenario}, {ours.loop}: {theirs.contender.partition(SEPARATOR)[2]}"
        targets.append(Target(what, ours, theirs, at_most=NO_WORSE))
    return targets


def median(samples: Iterable[Measured], cell: Cell) -> float | None:
    """Return the median of a cell's samples, or `None` if there are none."""
    values = [
        sample.value
        for sample in samples
        if (sample.scenario, sample.loop, sample.contender) == (cell.scenario, cell.loop, cell.contender)
    ]
    return statistics.median(values) if values else None


def judge(samples: Sequence[Measured]) -> list[Outcome]:
    """Compare a run with every target."""
    outcomes = []
    for target in (*TARGETS, *baseline_targets(samples)):
        ours, theirs = median(samples, target.ours), median(samples, target.theirs)
        if ours is None or theirs is None:
            outcomes.append(Outcome(target, None, None))
        elif target.at_most is not None:
            outcomes.append(Outcome(target, ours / theirs, ours / theirs <= target.at_most))
        else:
            assert target.at_least is not None
            outcomes.append(Outcome(target, theirs / ours, theirs / ours >= target.at_least))
    return outcomes
