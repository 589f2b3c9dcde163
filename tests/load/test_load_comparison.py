"""Differences between two reports: what is chance and what is not."""

from __future__ import annotations

from random import Random

import pytest

from chatscope.load import ClientEvidence, LoadReport, RequestRecord, StageReport, compare
from chatscope.load.metrics import summarise
from chatscope.load.verdict import judge

SECOND = 10**9


def report(seed: int, *, slower: float = 1.0, name: str = "rate 5") -> LoadReport:
    """Return a report of 200 requests with a mean TTFT of 100 ms, or so many times that."""
    random = Random(seed)
    ttfts = [round(random.expovariate(10) * slower * SECOND) for _ in range(200)]
    records = [
        RequestRecord(index=n, due_ns=0, dispatched_ns=0, token_ns=[ttft], finished_ns=ttft, outcome="ok")
        for n, ttft in enumerate(ttfts)
    ]
    window = (0, 10 * SECOND)
    stage = StageReport(summary=summarise(name, records, window), verdict=judge(ClientEvidence()), window_ns=window)
    return LoadReport(verdict="valid", stages=[stage], plan={}, salt="", started_at="")


def test_a_slower_server_differs_by_more_than_chance() -> None:
    (stage,) = compare(report(1), report(2, slower=2.0))
    assert stage.verdicts == ("valid", "valid")
    found = {each.name: each for each in stage.differences}
    assert found["ttft p50"].is_significant
    assert found["ttft p50"].difference > 0
    assert found["ttft p90"].low is not None
    assert found["ttft p99"].low is None, "two of 200 values lie beyond, which is too few to tell"
    assert found["requests_per_second"].low is None
    assert "output_tokens_per_second" not in found, "unknown in both"


def test_chance_is_called_a_difference_as_seldom_as_it_should_be() -> None:
    called = 0
    for seed in range(0, 200, 2):
        (stage,) = compare(report(seed), report(seed + 1))
        called += next(each for each in stage.differences if each.name == "ttft p50").is_significant
    assert called <= 12  # of 100, at 95 %


def test_reports_without_a_common_stage_are_refused() -> None:
    with pytest.raises(ValueError, match="rate 5 in the first, rate 9 in the second"):
        compare(report(1), report(2, name="rate 9"))
