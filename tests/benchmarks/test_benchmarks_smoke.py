"""That the benchmarks run, not how fast anything is: a few requests by each contender, in its own process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("trustme", reason="the local server's certificate is made by it")

from tests.support.tables import row

from benchmarks import __main__ as command
from benchmarks.contenders import CONTENDERS
from benchmarks.harness.baseline import source_at, with_baseline
from benchmarks.harness.cores import Cores
from benchmarks.harness.processes import ROOT
from benchmarks.harness.report import document, table, verdict
from benchmarks.harness.run import Measured, Plan, available, measure
from benchmarks.harness.targets import Cell, judge, median
from benchmarks.scenarios.costs import SCENARIOS, Scenario

pytestmark = pytest.mark.slow

TINY = [
    replace(SCENARIOS["stream-tls"], at_once=2, total=2, tokens=4),
    replace(SCENARIOS["plain-16"], at_once=2, total=4, tokens=4),
    replace(SCENARIOS["cancel"], total=1),
    replace(SCENARIOS["memory"], at_once=10, total=10),
]


def the_plan(loops: list[str], scenarios: list[Scenario], contenders: list[str]) -> Plan:
    entries, _ = available(contenders)
    return Plan(scenarios=scenarios, loops=loops, contenders=entries, repetitions=1)


@pytest.fixture(scope="module")
def samples() -> list[Measured]:
    """Every contender on asyncio, streaming over TLS; unpinned, for other tests may run beside."""
    told: list[Measured] = []
    taken = measure(the_plan(["asyncio"], TINY[:1], []), Cores(None, None), told.extend)
    assert told == taken
    return taken


def test_every_contender_completes(samples: list[Measured]) -> None:
    installed = {name for name, contender in CONTENDERS.items() if not contender.missing}
    assert {sample.contender for sample in samples} == installed
    assert len(samples) == len(installed)
    for sample in samples:
        with row(sample):
            assert sample.value > 0
            assert sample.client_load > 0
            assert (sample.scenario, sample.loop, sample.repetition) == ("stream-tls", "asyncio", 0)
            assert sample.unit == "us of client CPU per streamed token"


@pytest.mark.parametrize(
    ("loop", "scenario", "name"),
    [("uvloop", TINY[1], "floor"), ("trio", TINY[2], "chatscope-task"), ("trio", TINY[3], "floor")],
    ids=["plain", "cancel", "memory"],
)
def test_the_other_kinds_of_scenario_and_loops_complete(loop: str, scenario: Scenario, name: str) -> None:
    pytest.importorskip(loop, reason="the loop is not installed")
    (sample,) = measure(the_plan([loop], [scenario], [name]), Cores(None, None), lambda _: None)
    assert (sample.scenario, sample.loop, sample.contender) == (scenario.name, loop, name)
    assert sample.unit == scenario.unit


def test_the_tables_and_the_json_hold_what_was_measured(samples: list[Measured]) -> None:
    plan = the_plan(["asyncio"], TINY[:1], [])
    text = table(TINY[0], samples)
    assert all(entry.name in text for entry in plan.contenders)
    kept = json.loads(json.dumps(document(plan, Cores(None, None), samples, [0.1])))
    assert kept["samples"] == [
        {
            "scenario": sample.scenario,
            "loop": sample.loop,
            "contender": sample.contender,
            "repetition": sample.repetition,
            "unit": sample.unit,
            "value": sample.value,
            "client_load": sample.client_load,
            "server_load": sample.server_load,
            "late_share": sample.late_share,
        }
        for sample in samples
    ]
    assert {"python", "platform", "packages", "cores", "load_average", "targets", "repetitions"} <= kept.keys()
    assert kept["packages"]["chatscope"]


def one(scenario: str, loop: str, contender: str, value: float, **loads: float) -> Measured:
    return Measured(scenario, loop, contender, 0, SCENARIOS[scenario].unit, value, **loads)


def test_targets_are_judged_by_the_ratio_of_medians() -> None:
    taken = [one("stream", "asyncio", "chatscope-task", value) for value in (10.0, 12.0, 99.0)]
    taken += [one("stream", "asyncio", "aiohttp", 15.0), one("stream", "asyncio", "openai", 71.0)]
    assert median(taken, Cell("stream", "asyncio", "chatscope-task")) == 12.0
    by_name = {outcome.target.what: outcome for outcome in judge(taken)}
    reached = by_name["task, per streamed token, asyncio: aiohttp"]
    assert (reached.ratio, reached.reached) == (0.8, True)
    missed = by_name["task, per streamed token, asyncio: openai"]
    assert missed.reached is False
    assert by_name["task, burst, per token: openai"].reached is None
    lines = verdict(taken).splitlines()
    assert sum(line.endswith("MISSED") for line in lines) == 1
    assert sum(line.endswith("not measured") for line in lines) == len(by_name) - 2


def test_the_package_at_another_commit_runs_beside_this_one() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a repository")
    with source_at("HEAD") as (commit, source):
        assert (source / "chatscope" / "__init__.py").is_file()
        entries = with_baseline(the_plan([], [], ["chatscope-client", "floor"]).contenders, commit, source)
        names = ["chatscope-client", f"chatscope-client@{commit}", "floor"]
        assert [entry.name for entry in entries] == names
        plan = Plan(scenarios=[TINY[1]], loops=["asyncio"], contenders=entries, repetitions=1)
        taken = measure(plan, Cores(None, None), lambda _: None)
    assert [sample.contender for sample in taken] == names
    assert not source.exists()
    with pytest.raises(ValueError, match="no-such-commit"), source_at("no-such-commit"):
        pass


def test_more_cpu_than_at_another_commit_misses_the_target() -> None:
    taken = [one("plain-16", "trio", "chatscope-task", 10.4), one("plain-16", "trio", "chatscope-task@abc", 10.0)]
    (reached, missed) = [
        next(outcome for outcome in judge(samples) if outcome.target.what.endswith(": abc"))
        for samples in ([taken[1], replace(taken[0], value=10.3)], taken)
    ]
    assert (reached.ratio, reached.reached) == (1.03, True)
    assert missed.reached is False
    assert missed.target.what == "chatscope-task, plain-16, trio: abc"


def test_a_saturated_side_is_marked() -> None:
    taken = [one("stream", "asyncio", "openai", 71.0, client_load=0.99, server_load=0.2)]
    assert "71.0 (71.0 .. 71.0)*\n" in table(SCENARIOS["stream"], taken) + "\n"
    taken = [one("stream", "asyncio", "floor", 7.0, late_share=0.06)]
    assert "7.0 (7.0 .. 7.0)~\n" in table(SCENARIOS["stream"], taken) + "\n"
    taken = [one("plain-64", "asyncio", "floor", 5.0, client_load=0.99, server_load=0.97)]
    assert "5.0 (5.0 .. 5.0)!\n" in table(SCENARIOS["plain-64"], taken) + "\n"


def test_the_command_lists_and_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*CONTENDERS, *SCENARIOS))
    with pytest.raises(SystemExit):
        command.main(["--only", "urllib", "--json", str(tmp_path / "never.json")])
    assert "urllib: not among chatscope-task" in capsys.readouterr().err
