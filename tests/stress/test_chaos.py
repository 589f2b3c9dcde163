"""A short run of random tasks that are cancelled at random moments. The long one is `python -m benchmarks.chaos`."""

from __future__ import annotations

import pytest

from benchmarks.scenarios.chaos import Figures, run_seeds

SEEDS = range(5)


@pytest.mark.parametrize("hedge_after", [None, 0.001], ids=["not hedged", "hedged"])
async def test_nothing_is_held_open_lost_or_logged_twice(hedge_after: float | None) -> None:
    figures = Figures()
    assert await run_seeds(SEEDS, hedge_after, figures) == []
    assert figures.requests > 30  # 45 to 65 on machines that were tried
    assert set(figures.statuses) == {"completed", "failed", "cancelled"}
    assert bool(figures.hedged) == (hedge_after is not None)
