"""Differences between two reports: what is chance and what is not."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from chatscope.load import (
    ClientEvidence,
    Difference,
    LoadReport,
    RequestRecord,
    StageReport,
    compare,
    comparison_page,
    plan_differences,
)
from chatscope.load.metrics import summarise
from chatscope.load.verdict import judge

SECOND = 10**9


def report(
    seed: int, *, slower: float = 1.0, name: str = "rate 20", rate: float = 20, refused: float = 0.0
) -> LoadReport:
    """Return a report of 10 s of random arrivals with a mean TTFT of 100 ms, or so many times that."""
    random = Random(seed)
    records: list[RequestRecord] = []
    due = 0
    while (due := due + round(random.expovariate(rate) * SECOND)) < 10 * SECOND:
        first = due + round(random.expovariate(10) * slower * SECOND)
        is_ok = random.random() >= refused
        records.append(
            RequestRecord(
                index=len(records),
                due_ns=due,
                dispatched_ns=due,
                token_ns=[first] if is_ok else [],
                finished_ns=first,
                outcome="ok" if is_ok else "failed",
                output_tokens=3 if is_ok else None,
            )
        )
    window = (0, 10 * SECOND)
    stage = StageReport(summary=summarise(name, records, window), verdict=judge(ClientEvidence()), window_ns=window)
    return LoadReport(verdict="valid", stages=[stage], plan={}, salt="", started_at="", records=records)


def differences(first: LoadReport, second: LoadReport) -> dict[str, Difference]:
    (stage,) = compare(first, second)
    return {each.name: each for each in stage.differences}


def test_a_slower_server_differs_by_more_than_chance() -> None:
    found = differences(report(1), report(2, slower=2.0))
    assert compare(report(1), report(2))[0].verdicts == ("valid", "valid")
    assert found["ttft p50"].is_significant
    assert found["ttft p50"].difference > 0
    assert found["ttft p90"].low is not None
    assert found["ttft p99"].low is None, "two of 200 values lie beyond, which is too few to tell"
    assert not found["ok_share"].is_significant
    assert not found["requests_per_second"].is_significant


def test_throughput_and_failures_differ_by_more_than_chance() -> None:
    found = differences(report(1, rate=40), report(2, rate=25, refused=0.2))
    for name in ("requests_per_second", "output_tokens_per_second", "ok_share"):
        each = found[name]
        assert each.is_significant, name
        assert each.low is not None
        assert each.high is not None
        assert each.low < each.difference < each.high < 0, name
    assert differences(report(1), report(1)) == differences(report(1), report(1)), "draws are seeded"


def test_chance_is_called_a_difference_as_seldom_as_it_should_be() -> None:
    called: Counter[str] = Counter()
    for seed in range(0, 120, 2):
        found = differences(report(seed), report(seed + 1))
        called.update(name for name, each in found.items() if each.is_significant)
    assert max(called.values()) <= 9  # of 60, at 95 %: more in 1 of 1000 tests


def test_short_windows_have_no_interval_of_rates() -> None:
    one, two = report(1), report(2)
    for each in (one, two):
        each.stages[0].window_ns = (0, 4 * SECOND)
    assert differences(one, two)["requests_per_second"].low is None


def test_repeated_stages_are_compared_in_order_and_plans_that_differ_are_named() -> None:
    first, second = report(1), report(2)
    first.stages *= 2
    second.stages = [report(3).stages[0], report(4).stages[0], second.stages[0]]
    compared = compare(first, second)
    expected = [stage.summary.metrics["ttft"].percentile(50) for stage in second.stages[:2]]
    assert [stage.differences[0].second for stage in compared] == expected
    first.plan = {"model": "a", "seed": 1, "connections": "ahead", "workload": {"turns": 1, "salt": ""}}
    second.plan = {"model": "b", "seed": 2, "stream": True, "workload": {"turns": 3, "salt": ""}}
    shown = ["seed is 1 in the first, 2 in the second", "turns is 1 in the first, 3 in the second"]
    assert plan_differences(first, second) == shown
    assert all(text in comparison_page(first, second) for text in shown)


def test_reports_without_a_common_stage_are_refused() -> None:
    with pytest.raises(ValueError, match="rate 20 in the first, rate 9 in the second"):
        compare(report(1), report(2, name="rate 9"))
