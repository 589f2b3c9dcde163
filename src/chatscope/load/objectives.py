"""Service-level objectives such as `ttft:p99<500ms`, and goodput. Pure functions over records.

A request that failed or did not finish never meets an objective: for a percentile, it took longer than all others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from chatscope.load.distributions import PERCENTS, wilson_interval
from chatscope.load.metrics import FORMULAS, latency
from chatscope.load.records import RequestRecord

_OBJECTIVE: Final = re.compile(r"(?P<metric>\w+):(?P<statistic>\w+)<(?P<limit>[\d.]+)(?P<unit>us|ms|s)")
_FAILED: Final = re.compile(r"failed<(?P<limit>[\d.]+)%")
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_STATISTICS: Final = ("mean", *(f"p{percent}" for percent in PERCENTS))

STREAMED: Final = frozenset({"ttft", "ttft_service", "ttfat", "tpot", "icl"})
"""The metrics that need the time of the first token, which only a stream shows."""


class ObjectiveResult(msgspec.Struct, frozen=True, kw_only=True):
    """An objective and what was measured. `value` is `None` if it is unknown; the objective is then not met.

    `may_be_chance` tells whether chance may explain the miss, because so few requests were beyond the limit.
    """

    objective: str
    limit: float
    value: float | None
    is_met: bool
    may_be_chance: bool = False


@dataclass(frozen=True, slots=True)
class Objective:
    """A limit: of a statistic of a latency in seconds, or of the share of requests that do not succeed."""

    text: str
    metric: str
    statistic: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Parse an objective: `ttft:p99<500ms`, `icl:mean<0.02s`, `failed<1%`.

        Raises:
            ValueError: the text is not an objective.
        """
        compact = text.replace(" ", "")
        try:
            if found := _FAILED.fullmatch(compact):
                return cls(compact, "failed", "", float(found["limit"]) / 100)
            found = _OBJECTIVE.fullmatch(compact)
            if found and found["metric"] in FORMULAS and found["statistic"] in _STATISTICS:
                limit = float(found["limit"]) * _UNITS[found["unit"]]
                return cls(compact, found["metric"], found["statistic"], limit)
        except ValueError:
            pass  # such as 1.2.3
        raise ValueError(
            f"slo {text!r} is not METRIC:STATISTIC<LIMIT, such as ttft:p99<500ms, nor failed<1%: metrics are"
            f" {', '.join(FORMULAS)}; statistics are {', '.join(_STATISTICS)}; units are us, ms and s"
        )

    def check(self, records: Sequence[RequestRecord]) -> ObjectiveResult:
        """Check the objective against requests. Without any requests, it is not met."""
        value = self._value(records)
        is_met = value is not None and value < self.limit
        may_be_chance = not is_met and self._may_be_chance(records)
        return ObjectiveResult(
            objective=self.text, limit=self.limit, value=value, is_met=is_met, may_be_chance=may_be_chance
        )

    def is_met_by(self, record: RequestRecord) -> bool:
        """Return whether one request is within the limit, whatever the statistic. For gaps, its mean gap counts."""
        if record.outcome != "ok":
            return False
        if self.metric == "failed":
            return True
        values = FORMULAS[self.metric].values(record)
        return math.fsum(values) / len(values) < self.limit if values else self._has_none(record)

    def _has_none(self, record: RequestRecord) -> bool:
        """Return whether a request really has no value, which meets any limit, rather than an unknown one."""
        if self.metric == "connect":
            return record.sent_ns is not None  # over a connection that was open already
        if self.metric == "tpot" and record.output_tokens is None:
            return False
        return self.metric in {"icl", "tpot"} and len(record.token_ns) == 1

    def _may_be_chance(self, records: Sequence[RequestRecord]) -> bool:
        """Return whether chance may explain the miss: in the long run, the share beyond the limit may be small enough.

        A p99 below a limit means that at most 1 % of the requests are beyond it. So chance may explain the miss if the
        interval of that share reaches down to 1 %. A mean is judged as if it were the median.
        """
        if not records:
            return False
        percent = int(self.statistic[1:]) if self.statistic.startswith("p") else 50
        allowed = self.limit if self.metric == "failed" else 1 - percent / 100
        beyond = sum(not self.is_met_by(record) for record in records)
        return wilson_interval(beyond, len(records))[0] <= allowed

    def _value(self, records: Sequence[RequestRecord]) -> float | None:
        if not records:
            return None
        if self.metric == "failed":
            return sum(record.outcome != "ok" for record in records) / len(records)
        found = latency(records, self.metric, failures_never_end=True)
        if self.statistic == "mean":
            return None if found.censored else found.mean
        return found.percentile(int(self.statistic[1:]))


def goodput(records: Sequence[RequestRecord], objectives: Sequence[Objective]) -> float:
    """Return the share of all attempts that succeeded within every objective's limit; 0 if there was no attempt."""
    if not records:
        return 0.0
    good = sum(
        record.outcome == "ok" and all(objective.is_met_by(record) for objective in objectives) for record in records
    )
    return good / len(records)
