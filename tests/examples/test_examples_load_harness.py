"""examples/load_harness.py: its output on both loops. Its figures match the server's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from chatscope.simulator import Reply, error
from examples.load_harness import main, print_percentiles

if TYPE_CHECKING:
    from tests.support.processes import Launch
    from tests.support.simulated import Simulate

pytestmark = pytest.mark.slow

LINE = re.compile(r"p50 +(\d+\.\d\d) ms +p90 +(\d+\.\d\d) ms +p99 +(\d+\.\d\d) ms")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_command_prints_percentiles(launch: Launch, backend: str) -> None:
    command = ("--simulate", "--requests", "30", "--at-once", "10", "--backend", backend)
    out, err = launch("examples.load_harness", *command).communicate()
    assert err == ""
    head, first_token, between_tokens, rate = out.splitlines()
    assert re.fullmatch(r"30 requests, 10 at once, 0 failed, \d+\.\d\d s", head)
    for line, name, least in (
        (first_token, "first token", 50.0),  # the simulator's first token takes this long
        (between_tokens, "between tokens", 0.0),
    ):
        assert line.startswith(name)
        found = LINE.search(line)
        assert found
        p50, p90, p99 = map(float, found.groups())
        assert least <= p50 <= p90 <= p99
    assert re.fullmatch(r"1500 tokens, \d+ tokens/s", rate)


async def test_failures_are_counted_and_not_retried(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    simulated = simulate([error(503, "overloaded"), error(503, "overloaded"), Reply("one two three")])
    monkeypatch.setenv("OPENAI_BASE_URL", simulated.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-examples")
    await main(requests=4, at_once=2, max_tokens=2, simulate=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 requests, 2 at once, 2 failed, ")
    assert lines[3].startswith("4 tokens, ")  # two responses of `max_tokens`
    assert lines[4].startswith("2 x ")
    assert "overloaded" in lines[4]
    assert len(simulated.server.requests) == 4


async def test_a_server_that_only_fails_has_no_percentiles(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", simulate(error(401, "no such key")).base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-examples")
    await main(requests=2, at_once=1, max_tokens=2, simulate=False)
    head, rate, failure = capsys.readouterr().out.splitlines()
    assert head.startswith("2 requests, 1 at once, 2 failed, ")
    assert rate == "0 tokens, 0 tokens/s"
    assert failure.startswith("2 x ")


def test_percentiles(capsys: pytest.CaptureFixture[str]) -> None:
    print_percentiles("waits", [number / 1000 for number in range(101)])
    assert capsys.readouterr().out == "waits            p50    50.00 ms   p90    90.00 ms   p99    99.00 ms\n"
