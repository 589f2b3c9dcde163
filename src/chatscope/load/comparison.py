"""Two reports side by side: differences of their figures, with intervals. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import msgspec

from chatscope.load.distributions import INTERVAL_PERCENTS, Percentile
from chatscope.load.metrics import StageSummary
from chatscope.load.report import LoadReport, StageReport
from chatscope.load.verdict import VerdictState

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
    """Compare the stages that two reports have in common.

    Raises:
        ValueError: they have none in common.
    """
    others = {stage.summary.name: stage for stage in second.stages}
    pairs = [(stage, others[stage.summary.name]) for stage in first.stages if stage.summary.name in others]
    if not pairs:
        raise ValueError(
            f"the reports have no stage in common: {_names(first)} in the first, {_names(second)} in the second"
        )
    return [
        StageComparison(
            name=one.summary.name,
            verdicts=(one.verdict.state, two.verdict.state),
            differences=[*_latencies(one.summary, two.summary), *_rates(one, two)],
        )
        for one, two in pairs
    ]


def _latencies(first: StageSummary, second: StageSummary) -> Iterator[Difference]:
    for name in COMPARED:
        for percent in INTERVAL_PERCENTS:
            one, two = (stage.metrics[name].percentiles.get(f"p{percent}") for stage in (first, second))
            if one is None or two is None or one.value is None or two.value is None:
                continue
            low, high = _interval(one, two)
            yield Difference(name=f"{name} p{percent}", unit="s", first=one.value, second=two.value, low=low, high=high)


def _rates(one: StageReport, two: StageReport) -> Iterator[Difference]:
    """Yield the figures that one run gives once: they have no interval."""
    for name, unit in (("requests_per_second", "1/s"), ("output_tokens_per_second", "1/s"), ("ok_share", "")):
        first, second = getattr(one.summary, name), getattr(two.summary, name)
        if first is not None and second is not None:
            yield Difference(name=name, unit=unit, first=first, second=second)


def _interval(first: Percentile, second: Percentile) -> tuple[float | None, float | None]:
    """Return the interval of the difference of two independent percentiles.

    The sides of both intervals add as squares, each towards its own direction, since percentiles are skewed (MOVER:
    R. G. Newcombe, Statistics in Medicine 17, 1998; G. Y. Zou and A. Donner, ibid. 27, 2008).
    """
    edges = (first.value, first.low, first.high, second.value, second.low, second.high)
    if any(edge is None for edge in edges) or first.few or second.few:
        return None, None  # an interval can reach no further than the values, and too few lie beyond
    one, one_low, one_high, two, two_low, two_high = (edge or 0.0 for edge in edges)
    difference = two - one
    return (
        difference - math.hypot(two - two_low, one_high - one),
        difference + math.hypot(two_high - two, one - one_low),
    )


def _names(report: LoadReport) -> str:
    return ", ".join(stage.summary.name for stage in report.stages) or "none"
