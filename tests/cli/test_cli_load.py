"""`chatscope load`: its exit codes, what it prints and writes, and Ctrl-C. Runs are short; figures are not tested."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.processes import launcher

from chatscope.cli.load import CLIENT_IN_THE_WAY, exit_code
from chatscope.cli.load_view import LoadTable, figures, milliseconds
from chatscope.cli.terminal import Terminal
from chatscope.load import LoadProgress, LoadReport, load_report
from chatscope.load.verdict import VerdictState
from chatscope.simulator import Reply, error

if TYPE_CHECKING:
    from tests.support.command import Run
    from tests.support.simulated import Simulate

pytestmark = pytest.mark.slow

REPLY = Reply(tokens=5, first_token=0, between_tokens=0)
SHORT = ("load", "--model", "m", "--concurrency", "1", "--requests", "4", "--prompt-tokens", "16")
MEASURED = {0, CLIENT_IN_THE_WAY}
"""A busy machine makes any client late, and the command says so."""


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
def test_a_run_prints_and_saves_its_report(simulate: Simulate, chatscope: Run, tmp_path: Path, backend: str) -> None:
    simulated = simulate(REPLY)
    out = tmp_path / "out"
    ran = chatscope(*SHORT, "--slo", "ttft:p50<60s", "--out", str(out), "--backend", backend)
    assert ran.code in MEASURED
    lines = ran.out.splitlines()
    assert lines[0].startswith("client: "), "the verdict comes first"
    assert "concurrency 1: 4 requests in" in ran.out
    assert "met: ttft:p50<60s" in ran.out
    report = load_report(out)
    assert (report.ok, len(report.records)) == (4, 4)
    asked = [request.path for request in simulated.server.requests if request.status == 200]
    assert asked == ["/v1/chat/completions"] * 6, "two more told how long a word is in tokens"
    assert json.loads((out / "vllm.json").read_text())["completed"] == 4
    again = chatscope(*SHORT, "--out", str(out))
    assert again.code == 2
    assert "has a report already" in again.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
@pytest.mark.parametrize("name", ["requests.jsonl", "report.html"])
def test_the_figures_are_printed_although_a_disk_is_full(
    simulate: Simulate, chatscope: Run, tmp_path: Path, name: str
) -> None:
    simulate(REPLY)
    (tmp_path / name).symlink_to("/dev/full")
    ran = chatscope(*SHORT, "--no-calibrate-prompts", "--out", str(tmp_path))
    assert ran.code == 1
    assert "concurrency 1: 4 requests in" in ran.out
    assert "No space left on device" in ran.err
    assert "files: " not in ran.out


def test_the_clients_own_error_is_measured_on_request(simulate: Simulate, chatscope: Run, tmp_path: Path) -> None:
    simulate(REPLY)
    out = tmp_path / "out"
    ran = chatscope(*SHORT, "--output-tokens", "5", "--calibrate", "--workers", "1", "--out", str(out))
    assert ran.code in MEASURED
    assert "this client against the simulator" in ran.out
    assert "the kernel's stamps: " in ran.out
    error = load_report(out).client_error
    assert error is not None
    assert error.tokens == 20, "of four requests"
    assert 0 < (error.stamp.percentile(50) or 0) < 0.5
    assert (error.arrival.count, error.icl.count) == (4, 16)
    ran = chatscope(*SHORT, "--workers", "0")
    assert (ran.code, "neither a number of processes nor auto" in ran.err) == (2, True)


def test_json_is_the_summary(simulate: Simulate, chatscope: Run) -> None:
    simulate(REPLY)
    ran = chatscope(
        *SHORT, "--json", "--quiet", "--no-stream", "--parameter", "temperature=0", "--extra-body", '{"a": 1}'
    )
    assert ran.code in MEASURED
    assert ran.err == ""
    assert json.loads(ran.out)["stages"][0]["summary"]["ok"] == 4


def test_parameters_reach_the_server(simulate: Simulate, chatscope: Run, tmp_path: Path) -> None:
    simulated = simulate(REPLY)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Hello", "output_tokens": 3}\n')
    extra = ("--parameter", "temperature=0.5", "--extra-body", '{"top_k": 4}', "--prompts", str(prompts))
    chatscope("load", "--model", "m", "--rate", "1000", "--requests", "1", *extra)
    (request,) = simulated.server.requests
    body = request.json
    assert (body["temperature"], body["top_k"], body["max_tokens"]) == (0.5, 4, 3)
    assert body["messages"] == [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "exactly one of concurrency, rate and trace"),
        (["--rate", "fast", "--requests", "1"], "not a number, nor a list"),
        (["--rate", "1", "--requests", "1", "--prompt-tokens", "x"], "not N tokens, nor MEAN,DEVIATION"),
        (["--rate", "1", "--requests", "1", "--extra-body", "[]"], "must be a JSON object"),
        (["--rate", "1", "--requests", "1", "--slo", "fast"], "slo 'fast' is not METRIC:STATISTIC<LIMIT"),
        (["--rate", "1", "--requests", "1", "--calibrate", "--no-stream"], "it needs streams"),
        (["--trace", __file__], "neither a Mooncake trace"),
    ],
)
def test_what_cannot_be_right_exits_with_2(
    simulate: Simulate, chatscope: Run, arguments: list[str], message: str
) -> None:
    simulated = simulate(REPLY)
    ran = chatscope("load", "--model", "m", "--no-calibrate-prompts", *arguments)
    assert ran.code == 2
    assert message in ran.err
    assert not simulated.server.requests


def test_without_a_key_nothing_is_sent(chatscope: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setattr("chatscope.cli.load.measure_client_error", None)  # not even the self-test has begun
    ran = chatscope(*SHORT, "--calibrate", "--out", str(tmp_path / "out"))
    assert ran.code == 2
    assert "no API key: set OPENAI_API_KEY in the environment" in ran.err
    assert not (tmp_path / "out").exists()


def test_a_server_that_only_fails_exits_with_1(simulate: Simulate, chatscope: Run) -> None:
    simulate(error(503, "overloaded"))
    ran = chatscope(*SHORT, "--no-calibrate-prompts")
    assert ran.code == 1
    assert "4 x 503 InternalServerError" in ran.out
    ran = chatscope(*SHORT)
    assert ran.code == 1
    assert "overloaded" in ran.err


def test_two_reports_are_compared(simulate: Simulate, chatscope: Run, tmp_path: Path) -> None:
    simulate(REPLY)
    folders = [str(tmp_path / name) for name in ("one", "two")]
    for folder in folders:
        chatscope(*SHORT, "--out", folder)
    ran = chatscope("load", "compare", *folders)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("concurrency 1: client ")
    assert "ttft p50 (ms)" in ran.out
    (stage,) = json.loads(chatscope("load", "compare", *folders, "--json").out)
    assert {"name", "first", "second", "low", "high", "unit"} >= stage["differences"][0].keys()
    ran = chatscope("load", "compare", folders[0], str(tmp_path))
    assert ran.code == 2
    assert f"Error: {tmp_path / 'summary.json'}: No such file or directory" in ran.err


@pytest.mark.parametrize(
    ("ok", "verdict", "meets", "stopped", "code"),
    [
        (1, "valid", True, False, 0),
        (1, "suspect", True, False, 0),
        (0, "invalid", False, False, 1),
        (1, "valid", False, False, 3),
        (1, "invalid", False, False, 4),
        (1, "valid", True, True, 130),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, ok: int, verdict: VerdictState, meets: bool, stopped: bool, code: int
) -> None:
    monkeypatch.setattr(LoadReport, "ok", ok)
    monkeypatch.setattr(LoadReport, "meets_objectives", meets)
    report = LoadReport(verdict=verdict, stages=[], plan={}, salt="", started_at="", was_stopped=stopped)
    assert exit_code(report) == code


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_reports_what_was_measured(simulate: Simulate, tmp_path: Path) -> None:
    simulated = simulate(Reply(tokens=2, first_token=0.01))
    out = tmp_path / "out"
    arguments = ("load", "--model", "m", "--rate", "50", "--duration", "60", "--out", str(out))
    with launcher() as launch:
        process = launch("chatscope", *arguments, base_url=simulated.base_url)
        simulated.wait_until(lambda server: server.requests_received >= 20)
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate()
    assert process.returncode == 130
    assert "client: " in stdout
    report = load_report(out)
    assert report.was_stopped
    assert report.ok >= 10


def test_the_live_table() -> None:
    progress = LoadProgress("rate 5", 10, 2, 7, 1, 1234.5, (0.05, 0.2), (0.01, 0.02), 0.001, 12.0, "suspect")
    terminal = Terminal(force_terminal=True, width=80, record=True)
    with terminal.capture() as captured, LoadTable(terminal) as table:
        table.show(progress)
    assert "10 sent, 2 running, 7 ok, 1 failed" in captured.get()
    assert dict(figures(progress))["client so far"] == "suspect"
    assert dict(figures(progress))["ttft"] == "p50 50, p99 200 ms"
    assert (milliseconds(0.0123456), milliseconds(12.3456)) == ("12.3", "12,346")


def test_a_search_tells_what_it_found(simulate: Simulate, chatscope: Run, tmp_path: Path) -> None:
    """A queue of one slot: the second request of two always waits for the first."""
    simulate(lambda request: error(503) if request.number > 16 else REPLY)
    given = ("load", "--model", "m", "--requests", "8", "--no-calibrate-prompts", "--quiet", "--slo", "failed<1%")
    ran = chatscope(*given, "--search", "concurrency", "--concurrency", "2", "--out", str(tmp_path))
    assert ran.code in MEASURED
    report = load_report(tmp_path)
    assert report.search is not None
    in_the_way = any(stage.verdict.state == "invalid" for stage in report.stages)  # such a stage counts as failed
    assert "search: concurrency 4 meets every objective; 5 does not" in ran.out or in_the_way
    ran = chatscope(*given, "--search", "rate", "--rate", "1000")
    assert ran.code == 1
    assert "search: no rate meets every objective" in ran.out
    assert "search needs slos" in chatscope("load", "--model", "m", "--requests", "1", "--search", "rate").err


def test_sessions_are_asked_for(simulate: Simulate, chatscope: Run, tmp_path: Path) -> None:
    simulated = simulate(REPLY)
    chatscope(*SHORT, "--turns", "2", "--think-time", "0.01", "--no-calibrate-prompts", "--out", str(tmp_path))
    assert [len(request.json["messages"]) for request in simulated.server.requests] == [1, 3, 1, 3]
    assert [(each.session, each.turn) for each in load_report(tmp_path).records][:2] == [("0", 0), ("0", 1)]
    assert "think_time passes between" in chatscope(*SHORT, "--think-time", "1").err


def test_a_report_is_drawn_and_drawn_anew(simulate: Simulate, chatscope: Run, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="it is what draws the pages")
    simulate(REPLY)
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        assert chatscope(*SHORT, "--out", str(folder)).code in MEASURED
    page = folders[0] / "report.html"
    drawn = page.read_text()
    page.unlink()
    ran = chatscope("load", "report", str(folders[0]))
    assert (ran.code, ran.out) == (0, f"{page}\n")
    assert page.read_text() == drawn
    ran = chatscope("load", "compare", *map(str, folders), "--html", str(tmp_path / "comparison.html"))
    assert (ran.code, ran.err) == (0, "")
    assert "<h1>one and two</h1>" in (tmp_path / "comparison.html").read_text()
    assert chatscope("load", "report", str(tmp_path)).code == 2


def test_without_plotly_a_run_writes_everything_else(
    simulate: Simulate, chatscope: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.delitem(sys.modules, "plotly.offline", raising=False)
    simulate(REPLY)
    ran = chatscope(*SHORT, "--out", str(tmp_path), "--quiet")
    assert ran.code in MEASURED
    assert {path.name for path in tmp_path.iterdir()} == {"summary.json", "requests.jsonl", "vllm.json"}
    assert "pip install 'chatscope[load]', then run: chatscope load report" in ran.err
    ran = chatscope("load", "report", str(tmp_path))
    assert ran.code == 2
    assert "chatscope[load]" in ran.err


@pytest.mark.parametrize("search", [(), ("--search", "concurrency")])
def test_an_objective_that_no_load_meets_exits_with_3(
    simulate: Simulate, chatscope: Run, search: tuple[str, ...]
) -> None:
    simulate(REPLY)
    ran = chatscope(*SHORT, "--no-calibrate-prompts", "--quiet", "--slo", "ttft:p50<1us", *search)
    assert ran.code == (3 if not ran.out.startswith("client: invalid") else CLIENT_IN_THE_WAY)
    assert "NOT MET: ttft:p50<1us" in ran.out
    assert ("search: no concurrency meets every objective; 1 does not" in ran.out) is bool(search)
