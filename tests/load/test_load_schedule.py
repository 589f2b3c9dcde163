"""When requests are due: the arrivals, to the nanosecond; windows; the shares of workers."""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean, pstdev

import pytest

from chatscope.load.schedule import SECOND, ArrivalProcess, OpenLoop, Windows, WorkShare, due_offsets


def offsets(shape: OpenLoop, seed: str = "7", requests: int | None = None, duration: float | None = None) -> list[int]:
    return list(due_offsets(shape, seed, requests=requests, duration=duration))


def test_a_seed_fixes_every_nanosecond() -> None:
    """Written out, so that a new version of the package or of Python cannot change a schedule unnoticed."""
    assert offsets(OpenLoop(4, "constant"), requests=4) == [0, 250_000_000, 500_000_000, 750_000_000]
    assert offsets(OpenLoop(10), requests=3) == [124_631_552, 334_931_561, 636_013_130]
    assert offsets(OpenLoop(10, "gamma", 0.5), requests=3) == [429_764_177, 467_037_059, 781_194_841]
    assert offsets(OpenLoop(10), seed="8", requests=3)[0] != 124_631_552


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_share_one_schedule(workers: int) -> None:
    """Each repeats no other's arrivals: together they are the schedule, whatever their number."""
    due = offsets(OpenLoop(50), requests=101)
    shares = [WorkShare(worker, workers) for worker in range(workers)]
    assert sorted(offset for share in shares for offset in share.requests(due, None)) == due
    assert sorted(slot for share in shares for slot in share.slots(7)) == list(range(7))
    counts = [len(list(share.requests(range(70), 7))) for share in shares]
    assert counts == [10 * len(share.slots(7)) for share in shares], "each slot has as much to do as another"


@pytest.mark.parametrize(
    ("arrivals", "burstiness", "variation"),
    [("constant", 1, 0), ("poisson", 1, 1), ("gamma", 0.25, 2), ("gamma", 4, 0.5)],
)
def test_gaps_have_the_mean_and_the_variation_of_their_process(
    arrivals: ArrivalProcess, burstiness: float, variation: float
) -> None:
    due = offsets(OpenLoop(20, arrivals, burstiness), requests=20_001)
    gaps = [(after - before) / SECOND for before, after in pairwise(due)]
    assert fmean(gaps) == pytest.approx(1 / 20, rel=0.05)
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(variation, rel=0.05, abs=1e-6)


def test_a_ramp_grows_linearly_and_ends_at_the_rate() -> None:
    due = offsets(OpenLoop(100, "constant", ramp=10), duration=20)
    per_second = [sum(second <= offset / SECOND < second + 1 for offset in due) for second in range(20)]
    assert per_second[:10] == pytest.approx([5, 15, 25, 35, 45, 55, 65, 75, 85, 95], abs=1)
    assert per_second[10:] == pytest.approx([100] * 10, abs=1)


def test_time_scale_stretches_the_same_arrivals() -> None:
    due = offsets(OpenLoop(10), requests=5)
    assert offsets(OpenLoop(10, time_scale=2), requests=5) == pytest.approx([2 * offset for offset in due], abs=1)


def test_a_duration_ends_a_schedule() -> None:
    assert offsets(OpenLoop(2, "constant"), duration=1.5) == [0, 500_000_000, 1_000_000_000]
    with pytest.raises(ValueError, match="give requests or duration"):
        offsets(OpenLoop(2))


def test_windows_part_one_continuous_stage() -> None:
    windows = Windows(start=10, end=20)
    assert [windows.of(due) for due in (9, 10, 19, 20)] == ["warmup", "measured", "measured", "cooldown"]
    assert Windows().of(10**12) == "measured"


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"rate": 0}, "rate"),
        ({"rate": 1, "burstiness": -1}, "burstiness"),
        ({"rate": 1, "ramp": float("nan")}, "ramp"),
        ({"rate": 1, "time_scale": 0}, "time_scale"),
        ({"rate": 1, "arrivals": "normal"}, "arrivals"),
    ],
)
def test_a_shape_that_cannot_be_right_is_refused(values: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        OpenLoop(**values)  # type: ignore[arg-type]
