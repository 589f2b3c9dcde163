"""That `python -m benchmarks.load` runs, and that every stamp has its write. Figures are not tested."""

from __future__ import annotations

import pytest

pytest.importorskip("trustme", reason="the benchmarks' processes need it")

from benchmarks.contenders.load_tools import TOOLS
from benchmarks.scenarios import load

pytestmark = pytest.mark.slow


def test_rows_are_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "RANGE", (2,))
    assert load.main(["--rows", "range,arrivals", "--seconds", "2"]) in {0, 1}  # a busy machine may make it late
    head, streams, arrivals = capsys.readouterr().out.splitlines()
    assert head.startswith("first token after 50 ms")
    assert "0 valid with p99 above 10 ms (2: " in streams
    assert "due - arrived: p50" in arrivals


def test_rows_that_are_not_there_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load.main(["--rows", "streams,speed"])
    assert "not speed" in capsys.readouterr().err


def test_tools_that_are_not_installed_are_skipped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in TOOLS:
        monkeypatch.delenv(tool.variable or "UNSET", raising=False)
    monkeypatch.setattr("benchmarks.scenarios.load_tools.SECONDS", 2)
    assert load.main(["--rows", "tools"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ttft p50" in lines[1]
    assert "skipped: set CHATSCOPE_BENCH_AIPERF to the path" in "\n".join(lines)
