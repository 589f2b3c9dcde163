"""Reports of load tests, made by hand: several stages, gaps, failures, requests that were given up."""

from __future__ import annotations

from random import Random
from typing import Any

from chatscope.load import (
    ClientError,
    ClientEvidence,
    LoadReport,
    ObjectiveResult,
    RequestError,
    RequestRecord,
    StageReport,
)
from chatscope.load.distributions import distribution
from chatscope.load.metrics import summarise
from chatscope.load.verdict import judge

SECOND = 10**9
HOSTILE = "</script><script>alert(1)</script><img src=https://elsewhere.example/x.png>"
"""What a server might put into its messages, or somebody into a model's name."""


def made_report(
    *, seed: int = 1, loads: tuple[int, ...] = (10, 20), model: str = HOSTILE, failed: int = 3
) -> LoadReport:
    """Return a report of stages of 8 s, with an objective that is missed in the last."""
    random = Random(seed)
    records: list[RequestRecord] = []
    stages = []
    for index, rate in enumerate(loads):
        start = index * 10 * SECOND
        found = [
            _record(random, index, number, start + round(number * SECOND / rate), fails=number < failed)
            for number in range(rate * 8)
        ]
        found[-1].outcome, found[-1].error, found[-1].token_ns = "unfinished", None, []
        records += found
        window = (start + SECOND, start + 8 * SECOND)
        result = ObjectiveResult(objective="ttft:p99<150ms", limit=0.15, value=0.1 + index / 10, is_met=not index)
        stages.append(
            StageReport(
                summary=summarise(f"rate {rate}", found, window, rate=rate),
                verdict=judge(ClientEvidence(cpu_shares=[0.7 if index else 0.1])),
                window_ns=window,
                objectives=[result],
                notices=["prompts had 5 tokens on average"],
            )
        )
    plan = {"model": model, "base_url": "http://127.0.0.1:8000/v1", "burstiness": 1.0, "max_concurrency": None}
    late = distribution(random.uniform(0, 0.001) for _ in range(1000))
    error = ClientError(
        stamp=late,
        ttft=late,
        icl=late,
        arrival=late,
        verdict="valid",
        simulator_late_p99=0.0001,
        simulator_held=True,
        tokens=1000,
    )
    return LoadReport(
        client_error=error,
        verdict="suspect",
        stages=stages,
        plan=plan,
        salt="salt",
        started_at="2026-01-02T03:04:05+00:00",
        host={"chatscope": "0.1.0"},
        records=records,
    )


def _record(random: Random, stage: int, number: int, due: int, *, fails: bool) -> RequestRecord:
    sent = due + random.randrange(2_000_000)
    first = sent + round(random.uniform(0.05, 0.1) * SECOND)
    given: dict[str, Any] = {"index": number, "stage": stage, "due_ns": due, "dispatched_ns": sent}
    if fails:
        error = RequestError(class_="InternalServerError", message=HOSTILE, status=500)
        return RequestRecord(**given, finished_ns=first, outcome="failed", error=error)
    stamps = [first + n * 10_000_000 for n in range(5)]
    return RequestRecord(
        **given, token_ns=stamps, finished_ns=stamps[-1], outcome="ok", output_tokens=5, prompt_tokens=9
    )
