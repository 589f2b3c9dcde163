"""The formulas, percentiles, objectives and the verdict: pure functions over records made by hand."""

from __future__ import annotations

from random import Random
from statistics import fmean, pstdev, quantiles
from typing import Any

import pytest

from chatscope.load import FORMULAS, ClientEvidence, Objective, RequestError, RequestRecord
from chatscope.load.distributions import clustered_distribution, distribution
from chatscope.load.metrics import latency, summarise
from chatscope.load.objectives import goodput
from chatscope.load.throughput import requests_in_flight
from chatscope.load.verdict import WorkerEvidence, WorkerLoss, evidence_of, judge, late_shared_reads, own_lateness

MS = 1_000_000


def record(index: int = 0, **values: Any) -> RequestRecord:
    """Return a success, due at 1 s: 2 ms late, the first token 50 ms after that, three more tokens 10 ms apart."""
    given: dict[str, Any] = {
        "due_ns": 1000 * MS,
        "dispatched_ns": 1002 * MS,
        "connect_ns": MS,
        "token_ns": [1052 * MS, 1062 * MS, 1072 * MS, 1082 * MS],
        "answer_ns": 1062 * MS,
        "finished_ns": 1083 * MS,
        "outcome": "ok",
        "output_tokens": 7,
        "prompt_tokens": 100,
    }
    return RequestRecord(index=index, **(given | values))


def failed(index: int = 0, **values: Any) -> RequestRecord:
    error = RequestError(class_="InternalServerError", status=503)
    return record(index, outcome="failed", error=error, token_ns=[], answer_ns=None, output_tokens=None, **values)


def unfinished(index: int = 0, **values: Any) -> RequestRecord:
    return record(
        index, **({"outcome": "unfinished", "token_ns": [], "answer_ns": None, "output_tokens": None} | values)
    )


@pytest.mark.parametrize(
    ("name", "milliseconds"),
    [
        ("ttft", [52]),
        ("ttft_service", [50]),
        ("ttfat", [62]),
        ("e2e", [82]),
        ("e2e_service", [80]),
        ("tpot", [5]),  # 30 ms for the six tokens after the first, not for the three chunks
        ("icl", [10, 10, 10]),
        ("lateness", [2]),
        ("queue", [0]),
        ("connect", [1]),
    ],
)
def test_each_formula(name: str, milliseconds: list[float]) -> None:
    assert FORMULAS[name].values(record()) == pytest.approx([each / 1000 for each in milliseconds])


def test_every_formula_is_tested() -> None:
    (marks,) = (mark for mark in test_each_formula.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert {row[0] for row in marks.args[1]} == set(FORMULAS)


def test_chunks_are_no_tokens() -> None:
    """Without usage, nothing that counts tokens has a value."""
    silent = record(output_tokens=None)
    assert FORMULAS["tpot"].values(silent) == ()
    assert summarise("", [record(), silent], (0, 2000 * MS)).output_tokens_per_second is None
    assert summarise("", [record(), failed()], (0, 2000 * MS)).output_tokens_per_second == 3.5


def test_tokens_belong_to_the_moment_of_their_chunk() -> None:
    half = summarise("", [record()], (1057 * MS, 1077 * MS))
    assert half.output_tokens_per_second == pytest.approx(7 * 2 / 4 / 0.020)


@pytest.mark.parametrize("count", [2, 5, 100, 1001])
def test_percentiles_are_exact(count: int) -> None:
    random = Random(count)
    values = [random.expovariate(1) for _ in range(count)]
    found = distribution(values)
    cuts = quantiles(values, n=100, method="inclusive")  # as numpy.percentile does by default
    for percent in (50, 90, 95, 99):
        assert found.percentile(percent) == pytest.approx(cuts[percent - 1], rel=1e-12)
    assert (found.mean, found.std) == pytest.approx((fmean(values), pstdev(values)))
    assert [found.percentiles[f"p{each}"].few for each in (50, 90, 99)] == [count < 20, count < 100, count < 1000]


def test_intervals_are_those_of_a_bootstrap() -> None:
    random = Random(5)
    values = [random.lognormvariate(0, 1) for _ in range(300)]
    resamples = [quantiles(random.choices(values, k=300), n=10, method="inclusive") for _ in range(2000)]
    for percent in (50, 90):
        resampled = quantiles([cuts[percent // 10 - 1] for cuts in resamples], n=40, method="inclusive")
        interval = distribution(values).percentiles[f"p{percent}"]
        assert (interval.low, interval.high) == pytest.approx((resampled[0], resampled[-1]), rel=0.05)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Also where values come in groups that resemble each other, as the gaps of one response do."""
    alone = grouped = 0
    for seed in range(200):
        random = Random(seed)
        interval = distribution([random.random() for _ in range(100)]).percentiles["p50"]
        assert interval.low is not None
        assert interval.high is not None
        alone += interval.low <= 0.5 <= interval.high
        groups = [[shift + random.random() / 10 for _ in range(20)] for shift in (random.random() for _ in range(60))]
        interval = clustered_distribution(groups).percentiles["p50"]
        assert interval.low is not None
        assert interval.high is not None
        grouped += interval.low <= 0.55 <= interval.high
    assert alone >= 184
    assert grouped >= 184


def test_unfinished_requests_are_longer_than_all_others() -> None:
    """Leaving them out would make a server that hangs look fast."""
    records = [*(record(n) for n in range(90)), *(unfinished(n) for n in range(10))]
    found = latency(records, "ttft")
    assert (found.count, found.censored) == (100, 10)
    assert found.percentile(50) == pytest.approx(0.052)
    assert found.percentile(95) is None
    known = latency([*records[:90], *(unfinished(n, token_ns=[1060 * MS]) for n in range(10))], "ttft")
    assert known.censored == 0
    assert known.percentile(99) == pytest.approx(0.060)


def test_failures_stay_in_the_denominator() -> None:
    """A server that refuses every second request is not a fast server."""
    records = [*(record(n) for n in range(5)), *(failed(n) for n in range(5))]
    summary = summarise("", records, (0, 2000 * MS))
    assert (summary.attempts, summary.ok_share, summary.failures) == (10, 0.5, {"503 InternalServerError": 5})
    assert goodput(records, [Objective.parse("ttft:p99<500ms")]) == 0.5
    assert goodput(records, [Objective.parse("ttft:p99<51ms")]) == 0
    assert not Objective.parse("ttft:p90<500ms").check(records).is_met, "five of ten never had a first token"
    assert Objective.parse("ttft:p90<500ms").check(records[:5]).is_met
    assert Objective.parse("failed<1%").check(records).value == 0.5
    assert [Objective.parse(f"failed<{share}%").check(records).is_met for share in (50, 51)] == [False, True]


def test_only_the_measured_window_is_summarised() -> None:
    records = [record(0, window="warmup"), record(1), record(2, window="cooldown")]
    summary = summarise("", records, (0, 2000 * MS))
    assert (summary.attempts, summary.requests_per_second) == (1, 1.5)
    assert summarise("", records, (0, 1080 * MS)).requests_per_second == 0, "they end after the window"


def test_concurrency() -> None:
    records = [record(0), record(1, dispatched_ns=1010 * MS, finished_ns=1020 * MS)]
    assert list(requests_in_flight(records)) == [(1002 * MS, 1), (1010 * MS, 2), (1020 * MS, 1), (1083 * MS, 0)]
    assert summarise("", records, (1002 * MS, 1083 * MS)).mean_concurrency == pytest.approx((81 + 10) / 81)


@pytest.mark.parametrize(
    ("text", "values", "is_met"),
    [
        ("icl:p99<1ms", {"token_ns": [1052 * MS]}, True),
        ("tpot:p99<1ms", {"token_ns": [1052 * MS], "output_tokens": 1}, True),
        ("tpot:p99<1s", {"output_tokens": None}, False),
        ("icl:p99<1s", {"token_ns": []}, False),
        ("connect:p99<1us", {"connect_ns": None, "sent_ns": 1003 * MS}, True),
        ("connect:p99<1s", {"connect_ns": None}, False),
        ("connect:p99<1us", {}, False),
    ],
)
def test_what_cannot_be_too_long_meets_a_limit_and_what_is_unknown_does_not(
    text: str, values: dict[str, Any], is_met: bool
) -> None:
    assert goodput([record(**values)], [Objective.parse(text)]) == is_met


@pytest.mark.parametrize(
    ("text", "slow", "requests", "may_be_chance"),
    [
        ("ttft:p99<1s", 2, 60, True),
        ("ttft:p99<1s", 9, 60, False),
        ("ttft:p99<1s", 25, 2000, True),
        ("ttft:p99<1s", 60, 2000, False),
        ("ttft:p50<1s", 33, 60, True),
        ("ttft:mean<60ms", 1, 60, True),
        ("ttft:mean<60ms", 60, 60, False),
        ("failed<1%", 1, 60, True),
        ("failed<1%", 9, 60, False),
        ("ttft:p99<1s", 0, 60, False),
    ],
)
def test_a_miss_may_be_chance_if_few_enough_are_beyond_the_limit(
    text: str, slow: int, requests: int, may_be_chance: bool
) -> None:
    """`slow` requests took 2 s, or failed. A miss that Wilson's interval of their share allows is not certain."""
    bad = [failed() if "failed" in text else record(token_ns=[3000 * MS])] * slow
    result = Objective.parse(text).check([*bad, *[record()] * (requests - slow)])
    assert result.is_met == (slow == 0)
    assert result.may_be_chance == may_be_chance


@pytest.mark.parametrize("text", ["ttft<1s", "ttft:p98<1s", "speed:p50<1s", "ttft:p50<1", "ttft:p50<1.2.3s", ""])
def test_what_is_no_objective_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as ttft:p99<500ms"):
        Objective.parse(text)


@pytest.mark.parametrize(
    ("evidence", "state", "reason"),
    [
        ({"cpu_shares": [0.3, 0.59]}, "valid", ""),
        ({"cpu_shares": [0.3, 0.61]}, "suspect", "worker 1 used 61% of a core"),
        ({"cpu_shares": [0.9]}, "invalid", "worker 0 used 90% of a core"),
        ({"lateness": distribution([0.02] * 3)}, "suspect", "sent 20.0 ms late at p99 (the limit of valid is 10 ms)"),
        ({"lateness": distribution([0.06] * 3)}, "invalid", "sent 60.0 ms late"),
        ({"lateness": distribution([0.008] * 3), "ttft_p50": 0.05}, "suspect", "more than 10% of the median TTFT"),
        ({"lateness": distribution([0.004] * 3), "ttft_p50": 0.05}, "valid", ""),
        ({"loop_lag": distribution([0.006] * 3)}, "suspect", "woke up 6.0 ms late"),
        (
            {"loop_lag": distribution([0.026] * 3)},
            "invalid",
            "woke up 26.0 ms late at p99 (the limit of suspect is 25 ms)",
        ),
        ({"shared_read_share": 0.06}, "suspect", "6% of the chunks"),
        ({"gc_share": 0.11}, "invalid", "garbage collection"),
        ({"losses": [WorkerLoss(worker=1, reason="exit status -9", requests=3)]}, "invalid", "3 requests were lost"),
    ],
)
def test_the_verdict(evidence: dict[str, Any], state: str, reason: str) -> None:
    verdict = judge(ClientEvidence(**evidence))
    assert verdict.state == state
    assert reason in "".join(verdict.reasons)
    assert bool(verdict.reasons) == (state != "valid")


def test_the_wait_for_max_concurrency_is_not_the_clients_fault() -> None:
    waited = record(dispatched_ns=1502 * MS, queued_ns=500 * MS)
    assert own_lateness([waited]).maximum == pytest.approx(0.002)
    assert FORMULAS["lateness"].values(waited) == pytest.approx([0.502])


def test_chunks_that_came_together_count_only_while_the_loop_was_late() -> None:
    together = record(token_ns=[1052 * MS, 1052 * MS, 1062 * MS, 1062 * MS])
    assert late_shared_reads([together], []) == 0
    assert late_shared_reads([together], [(1040 * MS, 1053 * MS)]) == 1
    assert late_shared_reads([together], [(1050 * MS, 1053 * MS)]) == 0, "a lag that short is usual"
    late = [(1040 * MS, 1053 * MS), (1055 * MS, 1070 * MS)]
    assert late_shared_reads([together], late) == 2
    evidence = evidence_of([together], [WorkerEvidence(lags=late), WorkerEvidence(worker=1)])
    assert evidence.shared_read_share == pytest.approx(2 / 3)


def test_the_worst_worker_counts() -> None:
    """One late worker among four would vanish in all of them together."""
    late = WorkerEvidence(worker=3, lags=[(0, 30 * MS)] * 3 + [(0, MS)] * 97, read_lags=[30 * MS] * 3 + [MS] * 97)
    others = [WorkerEvidence(worker=n, lags=[(0, MS)] * 100, read_lags=[MS] * 100) for n in range(3)]
    evidence = evidence_of([], [*others, late])
    assert evidence.loop_lag.percentile(99) == evidence.read_lag.percentile(99) == pytest.approx(0.03)
    assert judge(evidence).state == "invalid"
    assert evidence_of([], [WorkerEvidence(no_witness="a proxy")]).no_witness == "a proxy"
    assert evidence_of([], [late, WorkerEvidence(no_witness="a proxy")]).no_witness is None
