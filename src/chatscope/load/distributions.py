"""Exact percentiles with confidence intervals. Pure functions over plain numbers.

Here: distributions of values, some of which may only be known to be "longer than this". Not here: what is measured
(`metrics`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import NormalDist
from typing import Final, TypeAlias

import msgspec

PERCENTS: Final = (50, 90, 95, 99)
INTERVAL_PERCENTS: Final = (50, 90, 99)
"""The percentiles that have a confidence interval."""

CONFIDENCE: Final = 0.95
FEW: Final = 10
"""A percentile with fewer values beyond it than this is marked: a single outlier would move it."""

_EXACT_UP_TO: Final = 2_000
"""Up to this many values, the bootstrap's distribution is summed exactly. Beyond, it is normal to three digits."""

_QUANTILE: Final = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
Ranks: TypeAlias = Callable[[int], tuple[float, float]]
"""Returns the ends of a percentile's interval, as ranks between 0 and 1."""


class Percentile(msgspec.Struct, frozen=True, kw_only=True):
    """One percentile.

    `value` is `None` if requests that did not finish make it unknown. `few` is whether fewer than ten values lie
    beyond it. `low` and `high` are its 95 % interval.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    few: bool = False


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """A summary of values. `count` includes `censored`: requests that were given up while they waited.

    Censored values count as longer than all others, so a percentile among them is `None`. `mean`, `std`, `minimum` and
    `maximum` are those of the known values.
    """

    count: int
    censored: int = 0
    mean: float | None = None
    std: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    percentiles: dict[str, Percentile] = {}

    def percentile(self, percent: int) -> float | None:
        """Return a percentile's value; `None` if it is unknown.

        Raises:
            KeyError: it is not one of `PERCENTS`.
        """
        if percent not in PERCENTS:
            raise KeyError(percent)
        found = self.percentiles.get(f"p{percent}")
        return None if found is None else found.value


def distribution(values: Iterable[float], censored: int = 0) -> Distribution:
    """Summarise independent values, such as one for each request."""
    known = sorted(values)
    return _summary(known, censored, lambda percent: _bootstrap_ranks(len(known) + censored, percent / 100))


def clustered_distribution(clusters: Iterable[Sequence[float]]) -> Distribution:
    """Summarise values that come in groups, such as the gaps of each request.

    The gaps of one response resemble each other, so treating them as independent would make the interval too narrow.
    These are Woodruff's intervals, with the variance between groups (R. S. Woodruff, JASA 47, 1952).
    """
    groups = [group for group in clusters if group]
    known = sorted(value for group in groups for value in group)

    def ranks(percent: int) -> tuple[float, float]:
        share, cut = percent / 100, linear_percentile(known, percent)
        excess = (sum(value <= cut for value in group) - share * len(group) for group in groups)
        deviation = math.sqrt(sum(each * each for each in excess)) / len(known)
        return share - _QUANTILE * deviation, share + _QUANTILE * deviation

    return _summary(known, 0, ranks)


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Return the interval of a share (E. B. Wilson, JASA 22, 1927). Unlike the bootstrap's, it holds near 0 and 1."""
    share, z = successes / count, _QUANTILE
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def linear_percentile(ordered: Sequence[float], percent: float, censored: int = 0) -> float:
    """Return a percentile of sorted values, interpolated linearly as numpy does by default.

    It is infinite if it is among the censored values.
    """
    rank = (len(ordered) + censored - 1) * percent / 100
    below = math.floor(rank)
    part = rank - below
    if below + (part > 0) >= len(ordered):
        return math.inf
    return ordered[below] if not part else ordered[below] + (ordered[below + 1] - ordered[below]) * part


def _summary(known: list[float], censored: int, ranks: Ranks) -> Distribution:
    count = len(known) + censored
    if not known:
        return Distribution(count=count, censored=censored)
    mean = math.fsum(known) / len(known)
    found = {}
    for percent in PERCENTS:
        low = high = None
        if percent in INTERVAL_PERCENTS and count > 1:
            low, high = (
                _finite(linear_percentile(known, 100 * min(1.0, max(0.0, rank)), censored)) for rank in ranks(percent)
            )
        found[f"p{percent}"] = Percentile(
            value=_finite(linear_percentile(known, percent, censored)),
            low=low,
            high=high,
            few=count * (100 - percent) / 100 < FEW,
        )
    return Distribution(
        count=count,
        censored=censored,
        mean=mean,
        std=math.sqrt(math.fsum((value - mean) ** 2 for value in known) / len(known)),
        minimum=known[0],
        maximum=known[-1],
        percentiles=found,
    )


def _bootstrap_ranks(count: int, share: float) -> tuple[float, float]:
    """Return the ends of a percentile's bootstrap interval, as ranks between 0 and 1.

    No resampling is needed. The share of a resample below the j-th value is binomial, so the bootstrap's distribution
    of a percentile is known (B. Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 10.2).
    """
    deviation = math.sqrt(share * (1 - share) / count)
    if count > _EXACT_UP_TO:
        return share - _QUANTILE * deviation, share + _QUANTILE * deviation
    tail = (1 - CONFIDENCE) / 2
    total, low, high = 0.0, 0, -1
    while total < 1 - tail and high < count:
        high += 1
        total += _binomial(count, high, share)
        low += total < tail
    return low / count, high / count


def _binomial(count: int, successes: int, share: float) -> float:
    log = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    return math.exp(log + successes * math.log(share) + (count - successes) * math.log1p(-share))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
