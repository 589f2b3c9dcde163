"""examples/load_harness.py: its output on both loops, and failures that stay in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from chatscope.simulator import Answer, ChatRequest, Reply, error
from examples.load_harness import measure, print_report

if TYPE_CHECKING:
    from tests.support.processes import Launch
    from tests.support.simulated import Simulate

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_command_prints_a_verdict_and_percentiles(launch: Launch, backend: str) -> None:
    command = ("--simulate", "--rate", "20", "--duration", "1", "--output-tokens", "5", "--backend", backend)
    out, err = launch("examples.load_harness", *command).communicate()
    assert err == ""
    lines = [line for line in out.splitlines() if not line.startswith("  ")]  # without the verdict's reasons
    assert re.fullmatch(r"client: (valid|suspect|invalid)", lines[0])
    assert re.fullmatch(r"(\d+) requests, \1 ok", lines[1])
    assert [line.split()[0] for line in lines[2:]] == ["ttft", "tpot", "e2e"]
    ttft = [float(number) for number in re.findall(r"\d+\.\d\d", lines[2])]
    assert ttft == sorted(ttft)
    assert ttft[0] >= 50  # the simulator's first token takes this long


async def test_failures_are_counted_and_not_retried(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(request: ChatRequest) -> Answer:
        return Reply(tokens=1) if request.body["max_tokens"] == 1 else error(503)

    simulated = simulate(answer)
    monkeypatch.setenv("OPENAI_BASE_URL", simulated.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-examples")
    report = await measure(20, 0.5, 2, simulate=False)
    print_report(report)
    sent = report.stages[0].summary.attempts
    assert capsys.readouterr().out.endswith(f"{sent} x 503 InternalServerError\n")
    asked = sum(request.path == "/v1/chat/completions" for request in simulated.server.requests)
    assert asked == sent + 2, "two more told how long a word is in tokens"
