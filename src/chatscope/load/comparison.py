"""Compares two reports: the differences of their figures, with 95 % intervals from the bootstrap. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from random import Random
from statistics import fmean
from typing import Any, Final

import msgspec

from chatscope.load.distributions import (
    CONFIDENCE,
    INTERVAL_PERCENTS,
    Percentile,
    linear_percentile,
    wilson_interval,
)
from chatscope.load.metrics import StageSummary
from chatscope.load.report import LoadReport, StageReport
from chatscope.load.schedule import SECOND
from chatscope.load.throughput import block_rates
from chatscope.load.verdict import VerdictState

BLOCKS: Final = 20
"""Blocks into which a window is divided. They are resampled to see how much a rate varies by chance."""

SHORTEST_BLOCK: Final = 0.25
"""The shortest block, in seconds. Shorter neighbouring blocks would share their requests."""

RESAMPLES: Final = 2_000
"""Draws of the bootstrap: enough for the ends of an interval to be right within a fiftieth of its width."""

_MAY_DIFFER: Final = frozenset({"base_url", "model", "profile", "grace"})

COMPARED: Final = ("ttft", "ttft_service", "tpot", "icl", "e2e")


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of two reports. `difference` is the second minus the first.

    `low` and `high` are the difference's 95 % interval; `None` where a figure has none.
    """

    name: str
    unit: str
    first: float
    second: float
    low: float | None = None
    high: float | None = None

    @property
    def difference(self) -> float:
        """The second figure minus the first."""
        return self.second - self.first

    @property
    def is_significant(self) -> bool:
        """Whether the interval is known and does not contain 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


class StageComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of two reports, with the verdicts on both clients. Figures unknown in one report are left out."""

    name: str
    verdicts: tuple[VerdictState, VerdictState]
    differences: list[Difference]


def compare(first: LoadReport, second: LoadReport) -> list[StageComparison]:
    """Compare the stages that two reports have in common: the first of a name with the first of that name.

    Raises:
        ValueError: they have none in common.
    """
    others = list(second.stages)
    pairs = []
    for stage in first.stages:
        other = next((each for each in others if each.summary.name == stage.summary.name), None)
        if other is not None:
            others = [each for each in others if each is not other]
            pairs.append((stage, other))
    if not pairs:
        raise ValueError(
            f"the reports have no stage in common: {_names(first)} in the first, {_names(second)} in the second"
        )
    return [
        StageComparison(
            name=one.summary.name,
            verdicts=(one.verdict.state, two.verdict.state),
            differences=[*_latencies(one.summary, two.summary), *_rates(first, second, one, two)],
        )
        for one, two in pairs
    ]


def plan_differences(first: LoadReport, second: LoadReport) -> list[str]:
    """Return how the two plans differ, one text for each difference. They may explain differences of the figures.

    The servers and models may differ, since that is what is compared.
    """
    one, two = _flat(first.plan), _flat(second.plan)
    return [
        f"{name} is {one[name]} in the first, {two[name]} in the second"
        for name in one
        if name in two and name not in _MAY_DIFFER and one[name] != two[name]
    ]


def _flat(plan: Mapping[str, Any]) -> dict[str, Any]:
    workload = plan.get("workload") or {}
    return {name: value for name, value in plan.items() if name != "workload"} | dict(workload)


def _latencies(first: StageSummary, second: StageSummary) -> Iterator[Difference]:
    for name in COMPARED:
        for percent in INTERVAL_PERCENTS:
            one, two = (stage.metrics[name].percentiles.get(f"p{percent}") for stage in (first, second))
            if one is None or two is None or one.value is None or two.value is None:
                continue
            low, high = _interval(one, two)
            yield Difference(name=f"{name} p{percent}", unit="s", first=one.value, second=two.value, low=low, high=high)


def _rates(first: LoadReport, second: LoadReport, one: StageReport, two: StageReport) -> Iterator[Difference]:
    """Yield throughput and the share of successes."""
    blocks = _blocks(first, one), _blocks(second, two)
    for index, name in enumerate(("requests_per_second", "output_tokens_per_second")):
        values = getattr(one.summary, name), getattr(two.summary, name)
        if None not in values:
            low, high = _difference_of_means(blocks[0][index], blocks[1][index])
            yield Difference(name=name, unit="1/s", first=values[0], second=values[1], low=low, high=high)
    low, high = _difference_of_shares(one.summary, two.summary)
    shares = one.summary.ok_share, two.summary.ok_share
    yield Difference(name="ok_share", unit="", first=shares[0], second=shares[1], low=low, high=high)


def _blocks(report: LoadReport, stage: StageReport) -> tuple[list[float], list[float] | None]:
    """Return the rates in the blocks of a stage; none if its window is too short for blocks."""
    if (stage.window_ns[1] - stage.window_ns[0]) / SECOND < BLOCKS * SHORTEST_BLOCK:
        return [], None
    index = report.stages.index(stage)
    return block_rates([record for record in report.records if record.stage == index], stage.window_ns, BLOCKS)


def _difference_of_means(first: list[float] | None, second: list[float] | None) -> tuple[float | None, float | None]:
    """Return the interval of the difference of two rates, from resampled blocks of time.

    What happens in neighbouring seconds is not independent, so whole blocks are drawn (H. R. Kuensch, Annals of
    Statistics 17, 1989). The draws are seeded: equal reports give equal intervals.
    """
    if not first or not second:
        return None, None
    random = Random(0)  # noqa: S311 - no secret
    drawn = sorted(
        fmean(random.choices(second, k=len(second))) - fmean(random.choices(first, k=len(first)))
        for _ in range(RESAMPLES)
    )
    tail = 100 * (1 - CONFIDENCE) / 2
    return linear_percentile(drawn, tail), linear_percentile(drawn, 100 - tail)


def _difference_of_shares(one: StageSummary, two: StageSummary) -> tuple[float | None, float | None]:
    """Return the interval of the difference of two shares of successes (Newcombe's, of Wilson's intervals)."""
    if not one.attempts or not two.attempts:
        return None, None
    (one_low, one_high), (two_low, two_high) = (wilson_interval(each.ok, each.attempts) for each in (one, two))
    first, second = one.ok_share, two.ok_share
    return (
        second - first - math.hypot(second - two_low, one_high - first),
        second - first + math.hypot(two_high - second, first - one_low),
    )


def _interval(first: Percentile, second: Percentile) -> tuple[float | None, float | None]:
    """Return the interval of the difference of two independent percentiles.

    Each has its own bootstrap interval. The sides of both add as squares, each towards its own direction, since
    percentiles are skewed (MOVER: R. G. Newcombe, Statistics in Medicine 17, 1998; G. Y. Zou and A. Donner, ibid. 27,
    2008).
    """
    edges = (first.value, first.low, first.high, second.value, second.low, second.high)
    if any(edge is None for edge in edges) or first.few or second.few:
        return None, None  # too few values lie beyond it, and an interval cannot extend past the values
    one, one_low, one_high, two, two_low, two_high = (edge or 0.0 for edge in edges)
    difference = two - one
    return (
        difference - math.hypot(two - two_low, one_high - one),
        difference + math.hypot(two_high - two, one - one_low),
    )


def _names(report: LoadReport) -> str:
    return ", ".join(stage.summary.name for stage in report.stages) or "none"
