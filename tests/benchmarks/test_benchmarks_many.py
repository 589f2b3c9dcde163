"""That `python -m benchmarks.many` runs, and that each of its tasks gives one result."""

from __future__ import annotations

import pytest

pytest.importorskip("trustme", reason="the other benchmarks' server needs it")

from benchmarks.contenders import LOOPS
from benchmarks.scenarios import many

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("loop", LOOPS)
def test_each_task_gives_one_result(loop: str, capsys: pytest.CaptureFixture[str]) -> None:
    many.main(["--tasks", "300", "--concurrency", "20", "--loop", loop])
    told = capsys.readouterr().out
    assert told.startswith(loop)
    assert "300 tasks" in told
    assert "each once: True" in told


def test_what_goes_wrong_is_an_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "MOST_GROWTH", -1.0)
    assert many.main(["--tasks", "3", "--loop", "asyncio"]) == 1
