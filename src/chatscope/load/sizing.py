"""How many worker processes a plan needs, by its expected events and the machine's cores."""

from __future__ import annotations

import math
import os
from typing import Final, Literal

from chatscope._validation import check_count
from chatscope.load.plan import LoadPlan
from chatscope.load.planned import LoadStage
from chatscope.load.schedule import SECOND

EVENT_SECONDS: Final = 60e-6
"""Seconds of CPU time per event of a stream, on an ordinary core (`python -m benchmarks.load` prints it)."""

BUSY_SHARE: Final = 0.5
"""The share of a core that a worker may use: below the verdict's limit, with room for bursts."""

TOKENS_PER_SECOND: Final = 100
"""The assumed pace of one stream in a closed loop: that of a fast server."""

MOST_WORKERS: Final = 256
"""More than any machine has cores for."""

OUTPUT_TOKENS: Final = 256
"""The assumed length of a response if the plan sets none."""


def worker_count(plan: LoadPlan, asked: int | Literal["auto"]) -> tuple[int, list[str]]:
    """Return how many workers to run, and a notice for the report.

    Raises:
        ValueError: the number is below 1.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked != "auto":
        check_count(asked, "workers")
        return min(asked, _most(plan)), []
    if cores == 1:
        return 1, ["this machine has one core, so the worker shares it with everything else"]
    if plan.search is not None:  # the load is still unknown
        return min(cores - 1, _most(plan)), []
    events = max((_events_per_second(plan, stage) for stage in plan.stages()), default=0.0)
    needed = math.ceil(events * EVENT_SECONDS / BUSY_SHARE)
    return max(1, min(needed, cores - 1, _most(plan))), []


def _most(plan: LoadPlan) -> int:
    """Return the number of workers above which some would have no slot."""
    stages = plan.stages() if plan.search is None else []
    slots = [stage.concurrency for stage in stages if stage.concurrency is not None]
    limits = slots if plan.max_concurrency is None else [*slots, plan.max_concurrency]
    return min(limits, default=MOST_WORKERS)


def _events_per_second(plan: LoadPlan, stage: LoadStage) -> float:
    length = plan.workload.output_tokens
    tokens = OUTPUT_TOKENS if length is None else length.mean
    if stage.concurrency is not None:
        return float(stage.concurrency * TOKENS_PER_SECOND)
    if stage.rate is not None:
        return stage.rate * tokens
    planned = list(plan.schedule(stage, plan.workload))
    seconds = max(1.0, (planned[-1].offset or 0) / SECOND) if planned else 1.0
    return sum(each.source.output_tokens or tokens for each in planned) / seconds
