"""That `python -m benchmarks.load` runs, and that every stamp has its write."""

from __future__ import annotations

import pytest

pytest.importorskip("trustme", reason="the benchmarks' processes need it")

from benchmarks.scenarios import load

pytestmark = pytest.mark.slow


def test_every_stamp_is_compared(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert load.main(["--streams", "2", "--duration", "3"]) in {0, 1}  # a busy machine may make it late
    lines = capsys.readouterr().out.splitlines()
    assert "2 streams" in lines[0]
    assert "stamp - write: p50" in lines[0]
    assert "due - arrived: p50" in lines[1]
