"""`chatscope batch`: its exit codes, what it prints, signals, and its other commands."""

from __future__ import annotations

import csv
import gc
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.batches import ids, line, questions, write_lines

from chatscope.batch import BatchProgress
from chatscope.cli.batch_view import BatchPanel, Limits, duration
from chatscope.cli.terminal import Terminal
from chatscope.simulator import Reply, error

if TYPE_CHECKING:
    from tests.support.command import Run
    from tests.support.simulated import Simulate

HELLO = Reply("Hello.", first_token=0, between_tokens=0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "in.jsonl", [line(number) for number in range(6)])


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
def test_a_run_and_its_resumption(simulate: Simulate, chatscope: Run, source: Path, backend: str) -> None:
    simulated = simulate(HELLO)
    output = source.with_name("out.jsonl")
    ran = chatscope("batch", "run", str(source), "-o", str(output), "--backend", backend)
    assert (ran.code, ran.out) == (0, "")
    assert "6 succeeded, 0 failed" in ran.err
    assert ran.err.startswith("phase reading the output, 0 lines\nphase "), "plain lines, since it is no terminal"
    assert "\x1b" not in ran.err
    assert sorted(ids(output)) == [f"request-{number}" for number in range(6)]
    ran = chatscope("batch", "run", str(source), "-o", str(output), "--json", "--progress", "none")
    assert (ran.code, ran.err, json.loads(ran.out)["settled"]) == (0, "", 6)
    assert len(simulated.server.requests) == 6


def test_the_collector_runs_rarely_while_requests_are_sent(simulate: Simulate, chatscope: Run, source: Path) -> None:
    before, seen = gc.get_threshold(), list[tuple[int, int]]()

    def reply(_request: object) -> Reply:
        seen.append((gc.get_freeze_count(), gc.get_threshold()[0]))
        return HELLO

    simulate(reply)
    gc.unfreeze()  # what the tests themselves have frozen
    try:
        assert chatscope("batch", "run", str(source), "-o", str(source.with_name("out.jsonl"))).code == 0
        assert (gc.get_freeze_count(), gc.get_threshold()) == (0, before)
    finally:
        gc.freeze()
    assert len(seen) == 6
    assert all(frozen > 0 and young > before[0] for frozen, young in seen)


def test_failures_for_good_exit_with_1_and_can_be_printed_and_run_again(
    simulate: Simulate, chatscope: Run, source: Path
) -> None:
    simulate(lambda request: error(400, "No.") if "3" in questions([request.body])[0] else HELLO)
    output = source.with_name("out.jsonl")
    run = ("batch", "run", str(source), "-o", str(output))
    ran = chatscope(*run)
    assert ran.code == 1
    assert "1 x 400, for example request-3: HTTP 400: No." in ran.err
    assert "1 failed" in chatscope("batch", "status", str(output)).out
    status = json.loads(chatscope("batch", "status", str(output), "--json").out)
    assert (status["succeeded"], status["failures"], status["in_flight"]) == (5, {"400": 1}, 0)
    simulate(HELLO)
    assert chatscope(*run, "--new-settings").code == 1, "permanent failures are not sent again by themselves"
    assert chatscope(*run, "--new-settings", "--retry-errors=400").code == 0


def test_failed_requests_are_printed_as_an_input(
    simulate: Simulate, source: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    from chatscope.cli import main

    simulate(lambda request: error(400) if "3" in questions([request.body])[0] else HELLO)
    output = source.with_name("out.jsonl")
    with source.open("a") as file:
        file.write("{bad\n")
    main(["batch", "run", str(source), "-o", str(output), "--progress", "none"])
    capfdbinary.readouterr()
    assert main(["batch", "failed", str(output)]) == 0
    sys.stdout.flush()
    printed = capfdbinary.readouterr()
    assert json.loads(printed.out) == line(3)
    assert b"1 failures have no request to run again" in printed.err
    command = [sys.executable, "-m", "chatscope", "batch", "failed"]
    assert _to_closed_pipe([*command, str(output)]) == (1, ""), "the reader, such as head, has had enough"
    assert _to_closed_pipe([*command, "missing.jsonl"])[0] == 2


def test_a_run_continues_although_nobody_sees_it(simulate: Simulate, source: Path) -> None:
    simulate(Reply("Hello.", first_token=0.5))
    output = source.with_name("out.jsonl")
    command = [sys.executable, "-m", "chatscope", "batch", "run", str(source), "-o", str(output)]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        ran = subprocess.run(command, stdout=closed, stderr=closed, timeout=60, check=False)
    assert (ran.returncode, len(ids(output))) == (0, 6)


def _to_closed_pipe(command: list[str]) -> tuple[int, str]:
    """Run a command whose stdout nobody reads; return its exit code and stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ran = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    finally:
        os.close(writer)
    return ran.returncode, ran.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl"], "missing.jsonl: No such file or directory"),
        (["IN", "--parameter", "temperature"], "'temperature' is not NAME=JSON"),
        (["IN", "--prompt", "{"], "prompt is not a template"),
        (["IN", "--ray-workers", "2"], "--ray-workers needs --ray"),
        (["IN", "--max-concurrency", "0"], "must be a whole number of at least 1, or auto"),
        (["IN", "--strict", "--prompt", "{q}"], "line 1: there is no 'q', which the prompt names"),
    ],
)
def test_what_cannot_be_right_exits_with_2_and_sends_nothing(
    simulate: Simulate, chatscope: Run, source: Path, arguments: list[str], message: str
) -> None:
    simulated = simulate(HELLO)
    given = [str(source) if argument == "IN" else argument for argument in arguments]
    ran = chatscope("batch", "run", *given, "-o", str(source.with_name("out.jsonl")))
    assert ran.code == 2
    assert message in ran.err
    assert not simulated.server.requests


def test_without_a_key_nothing_is_sent_and_an_empty_one_is_none(
    simulate: Simulate, chatscope: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    run = ["batch", "run", str(source), "-o", str(source.with_name("out.jsonl"))]
    ran = chatscope(*run)
    assert ran.code == 2
    assert "set OPENAI_API_KEY" in ran.err
    simulated = simulate(HELLO)
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert chatscope(*run).code == 0
    assert not [request for request in simulated.server.requests if "authorization" in request.headers]


def test_a_dry_run_checks_and_estimates(simulate: Simulate, chatscope: Run, tmp_path: Path) -> None:
    simulated = simulate(HELLO)
    source = write_lines(tmp_path / "in.jsonl", [line(0, max_tokens=100), "{bad", line(1, max_tokens=100)])
    ran = chatscope("batch", "run", str(source), "-o", str(tmp_path / "out.jsonl"), "--dry-run")
    assert ran.code == 2
    assert "line 2: not JSON" in ran.err
    assert "3 rows: 0 recorded, 2 to send, 1 invalid" in ran.out
    assert "at most 200 out" in ran.out
    equal = [line(0, max_tokens=10, n=3) | {"custom_id": f"equal-{number}"} for number in range(3)]
    options = ["-o", str(tmp_path / "out.jsonl"), "--dry-run", "--dedup"]
    ran = chatscope("batch", "run", str(write_lines(source, equal)), *options)
    assert "3 rows: 0 recorded, 1 to send, 0 invalid" in ran.out
    assert "at most 30 out" in ran.out
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": 5}')
    assert "not a valid JSON schema" in chatscope("batch", "run", str(source), *options, "--schema", str(schema)).err
    assert not simulated.server.requests
    assert not (tmp_path / "out.jsonl").exists()


def test_a_run_that_stops_early_says_how_to_go_on(
    simulate: Simulate, chatscope: Run, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = simulate(error(401)).base_url.replace("http://", "http://me:secret@")
    run = ["batch", "run", str(source), "-o", str(source.with_name("out.jsonl")), "--max-concurrency", "1"]
    run += ["--base-url", url]
    monkeypatch.setattr(sys, "argv", ["chatscope", *run])
    ran = chatscope(*run)
    assert ran.code == 3
    assert "stopped early (refused)" in ran.err
    assert f"To resume: chatscope batch run {source}" in ran.err
    assert "secret" not in ran.err


def test_an_export_is_read_by_others(simulate: Simulate, chatscope: Run, source: Path) -> None:
    simulate(lambda request: error(400, "No.") if "3" in questions([request.body])[0] else HELLO)
    output = source.with_name("out.jsonl")
    chatscope("batch", "run", str(source), "-o", str(output))
    assert chatscope("batch", "export", str(output), "--to", str(source.with_name("x.csv"))).code == 0
    with source.with_name("x.csv").open(newline="") as file:
        rows = {row["custom_id"]: row for row in csv.DictReader(file)}
    assert (rows["request-1"]["output"], rows["request-1"]["success"]) == ("Hello.", "True")
    assert (rows["request-3"]["status_code"], rows["request-3"]["error_message"]) == ("400", "No.")
    parquet = pytest.importorskip("pyarrow.parquet")
    wrong = {"status_code": 200, "body": {"usage": {"completion_tokens": 1 << 80}}}
    with output.open("a") as lines:
        lines.write(json.dumps({"custom_id": "other", "response": wrong, "error": None}) + "\n")
    assert chatscope("batch", "export", str(output), "--to", str(source.with_name("x.parquet"))).code == 0
    table = parquet.read_table(source.with_name("x.parquet")).to_pylist()
    counts = {row["custom_id"]: row["completion_tokens"] for row in table}
    assert (counts["request-1"], counts["other"]) == (2, None)
    assert chatscope("batch", "export", str(output), "--to", "x.txt").code == 2
    source.with_name("y.csv").symlink_to(output)
    assert chatscope("batch", "export", str(output), "--to", str(source.with_name("y.csv"))).code == 2
    renamed = source.rename(source.with_name("in.csv"))
    chatscope("batch", "run", str(renamed), "-o", str(output), "--input-format", "jsonl")
    ran = chatscope("batch", "export", str(output), "--to", str(renamed))
    assert (ran.code, "in.csv: this is the input of the batch" in ran.err) == (2, True)
    ran = chatscope("batch", "export", str(output), "--to", "no/folder.csv")
    assert (ran.code, ran.err.splitlines()[-1]) == (2, "Error: no/folder.csv: No such file or directory")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("twice", [False, True])
def test_ctrl_c(simulate: Simulate, tmp_path: Path, backend: str, twice: bool) -> None:
    simulated = simulate(Reply("Hello.", first_token=60 if twice else 0.5))
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(50)])
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "chatscope", "batch", "run", str(source), "-o", str(output)]
    command += ["--backend", backend, "--max-concurrency", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    while len(simulated.server.requests) < 4:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    if twice:
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    command[0] = Path(sys.executable).name
    assert f"To resume: {shlex.join(command)}" in told
    assert len(simulated.server.requests) <= 5
    assert len(ids(output)) == (0 if twice else len(simulated.server.requests))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_closed_terminal(simulate: Simulate, tmp_path: Path, backend: str, is_ignored: bool) -> None:
    simulated = simulate(Reply("Hello.", first_token=0.5))
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(12)])
    output = tmp_path / "out.jsonl"
    handling = "SIG_IGN" if is_ignored else "SIG_DFL"  # whatever these tests themselves were started with
    program = f"import signal, sys; signal.signal(signal.SIGHUP, signal.{handling})"
    program += "; from chatscope.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "batch", "run", str(source), "-o", str(output)]
    command += ["--backend", backend, "--max-concurrency", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ))
    while len(simulated.server.requests) < 4:
        time.sleep(0.05)
    for _ in range(2):  # from the shell, and from the system
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
    process.communicate(timeout=60)
    assert process.returncode == (0 if is_ignored else 130)
    assert len(simulated.server.requests) == (12 if is_ignored else 4)
    assert len(ids(output)) == len(simulated.server.requests)


def progress(**more: Any) -> BatchProgress:
    values: dict[str, Any] = {
        "phase": "running",
        "total": 1000,
        "rows_read": 1000,
        "settled": 100,
        "succeeded": 300,
        "failed": 20,
        "running": 50,
        "tokens": 90_000,
        "cost": 0.5,
        "earlier_cost": 0.25,
        "unpriced": 0,
        "seconds": 60.0,
        "waiting_for": "a rate limit, or a pause that the server asked for (12 requests)",
        "failures": {"429": 19, "400": 1},
        "stop_reason": None,
    }
    return BatchProgress(**values | more)


@pytest.mark.parametrize("width", [80, 40])
def test_the_panel_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    written = io.StringIO()
    terminal = Terminal(width=width, force_terminal=True, record=True, file=written)
    with BatchPanel(terminal, "in.jsonl to out.jsonl", Limits(600, None)) as panel:
        panel.show(progress())
        shown = terminal.export_text()  # before the end, which draws it once more
    assert all(len(one) <= width - len("^C") for one in shown.splitlines()), "the echo of Ctrl-C must not wrap"
    assert not re.search(r"\x1b\[[\d;]*[34]\d", written.getvalue()), "no colours"
    flat = " ".join(shown.split())
    for figure in ("300 done", "20 failed", "50 running", "580 left", "$0.75", "19 x 429"):
        assert figure in flat.replace("│ ", "").replace(" │", ""), figure


@pytest.mark.parametrize(("seconds", "text"), [(4.2, "4.2 s"), (99, "99 s"), (600, "10 min"), (11_100, "3 h 05 min")])
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
