"""The search for the highest load that meets every objective: the next stage, and the result.

These are pure functions of the stages that have ended, so the search is the same in one process and in several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chatscope.load.plan import LoadPlan, SearchKind
from chatscope.load.planned import LoadStage
from chatscope.load.report import SearchResult, StageReport, worst_verdict
from chatscope.load.verdict import VerdictState

SEARCH_TOLERANCE: Final = 0.05
"""The search ends when the lowest load that failed is at most this much above the highest that held."""

MAX_FACTOR: Final = 4096
"""Loads further from the first one are not tried. A lower load would take hours; no client could send a higher one."""


def next_stage(plan: LoadPlan, ended: Sequence[StageReport]) -> LoadStage | None:
    """Return the stage to run after others; `None` if the search has ended."""
    if plan.search is None:
        stages = plan.stages()
        return stages[len(ended)] if len(ended) < len(stages) else None
    if not ended:
        return plan.stages()[0]
    if not ended[-1].summary.ok and not any(holds(stage) for stage in ended):
        return None  # a server that fails every request is not slow
    first, last = load_of(ended[0]), ended[-1]
    if _may_have_failed_by_chance(last) and load_of(last) not in map(load_of, ended[:-1]):
        return plan.stage_at(len(ended), load_of(last), repetition=1)
    highest = max(map(load_of, ended))
    is_doubtful = _failed_by_chance(ended, highest)  # a higher load has more requests, so chance decides less
    value = 2 * highest if is_doubtful else _next_value(plan.search, _outcomes(ended))
    if value is None or not first / MAX_FACTOR <= value <= first * MAX_FACTOR:
        return None
    if plan.search == "concurrency" and plan.requests is not None and value > plan.requests:
        return None  # more slots than requests would add no load
    return plan.stage_at(len(ended), value)


def search_result(plan: LoadPlan, ended: Sequence[StageReport]) -> SearchResult | None:
    """Return the result of a search; `None` if the plan has no search."""
    if plan.search is None:
        return None
    below, above = _bracket(_outcomes(ended))
    limits = [stage for stage in ended if load_of(stage) == above]
    in_the_way = any(stage.verdict.state == "invalid" for stage in limits)
    return SearchResult(kind=plan.search, value=below, failed_at=above, client_in_the_way=in_the_way)


def run_verdict(plan: LoadPlan, ended: Sequence[StageReport]) -> VerdictState:
    """Return the verdict on a run: that of its worst stage; for a search, the worst of the two that decide it."""
    found = search_result(plan, ended)
    if found is None:
        return worst_verdict(ended)
    decisive = [stage for stage in ended if load_of(stage) == (found.value if holds(stage) else found.failed_at)]
    return worst_verdict(decisive)


def holds(stage: StageReport) -> bool:
    """Return whether a stage met every objective with a client that was not in the way."""
    return stage.verdict.state != "invalid" and all(result.is_met for result in stage.objectives)


def _may_have_failed_by_chance(stage: StageReport) -> bool:
    """Return whether the load may hold in another run. With few requests, one slow response is enough to miss a p99."""
    missed = [result for result in stage.objectives if not result.is_met]
    return not holds(stage) and all(result.may_be_chance for result in missed)


def _failed_by_chance(ended: Sequence[StageReport], load: float) -> bool:
    """Return whether every run of a load may have failed by chance. A client that was in the way is no chance."""
    stages = [stage for stage in ended if load_of(stage) == load]
    return all(_may_have_failed_by_chance(stage) and stage.verdict.state != "invalid" for stage in stages)


def _outcomes(ended: Sequence[StageReport]) -> list[tuple[float, bool]]:
    """Return each load, and whether it held: it did in a run, or failed by chance while a higher load held."""
    loads = {load_of(stage) for stage in ended}
    held = {load_of(stage) for stage in ended if holds(stage)}
    highest = max(held, default=0.0)
    return [(load, load in held or (load < highest and _failed_by_chance(ended, load))) for load in sorted(loads)]


def load_of(stage: StageReport) -> float:
    """Return the rate of a stage, or its concurrency."""
    summary = stage.summary
    return float(summary.rate if summary.rate is not None else summary.concurrency or 0)


def _bracket(found: Sequence[tuple[float, bool]]) -> tuple[float | None, float | None]:
    """Return the highest load that held below the lowest that failed, and the latter.

    A load that succeeded above one that failed did so by chance, and does not count.
    """
    above = min((value for value, held in found if not held), default=None)
    below = max((value for value, held in found if held and (above is None or value < above)), default=None)
    return below, above


def _next_value(kind: SearchKind, found: Sequence[tuple[float, bool]]) -> float | None:
    below, above = _bracket(found)
    if above is None:
        return 2 * (below or 1)
    if kind == "concurrency":
        lowest = 0 if below is None else below
        middle = (lowest + above) // 2
        return middle if lowest < middle < above and above - lowest > SEARCH_TOLERANCE * above else None
    if below is None:
        return above / 2
    return (below + above) / 2 if above - below > SEARCH_TOLERANCE * below else None
