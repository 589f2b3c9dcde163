"""`chatscope simulator`: what it prints, how to use it, and how it ends."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.command import MakeOutput, Run

SECONDS = 30.0  # longer than any process here runs


def test_a_line_to_paste_is_all_that_ask_needs(chatscope: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "chatscope", "simulator", "--port", "0", "--first-token", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(3)]
        export, *settings = printed[2].split()
        try:
            for name, _, value in (setting.partition("=") for setting in settings):
                monkeypatch.setenv(name, value)
            ran = chatscope("ask", "are you there?")
        finally:
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=SECONDS)
    assert (export, [setting.partition("=")[0] for setting in settings]) == (
        "export",
        ["OPENAI_BASE_URL", "OPENAI_API_KEY"],
    )
    assert f"listens on {os.environ['OPENAI_BASE_URL']} until Ctrl-C" in printed[0]
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("You asked: “are you there?”.")
    assert process.returncode == 0
    assert re.fullmatch(r" +1 POST /v1/chat/completions 200 completed \d\.\d\d s\n", err)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_normally(chatscope: Run, output: MakeOutput, number: signal.Signals) -> None:
    stdout = output("OPENAI_API_KEY=", partial(signal.raise_signal, number))
    ran = chatscope("simulator", "--port", "0", "--requests-per-minute", "5")
    assert (ran.code, ran.err) == (0, "")
    assert "http://127.0.0.1:" in stdout.getvalue()


def test_a_port_in_use_exits_1(chatscope: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = chatscope("simulator", "--port", str(port))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"Error: cannot listen on 127.0.0.1:{port}: {os.strerror(errno.EADDRINUSE)}\n"


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            f"Error: [Errno {errno.ENOSPC}] No space left on device\n",
        ),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_an_output_that_fails_is_not_blamed_on_the_port(
    chatscope: Run, output: MakeOutput, error: OSError, code: int, shown: str
) -> None:
    def fail() -> None:
        raise error

    output("OPENAI_API_KEY=", fail)
    ran = chatscope("simulator", "--port", "0")
    assert (ran.code, ran.err) == (code, shown)


def test_faults_come_from_a_file(tmp_path: Path, chatscope: Run) -> None:
    faults = tmp_path / "faults.txt"
    faults.write_text("# a comment\nstatus=503\nclose=1\n")
    command = [sys.executable, "-m", "chatscope", "simulator", "--port", "0", "--first-token", "0"]
    command += ["--faults", str(faults)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        base_url = [process.stdout.readline() for _ in range(3)][2].split()[1].partition("=")[2]
        try:
            codes = [chatscope("ask", "hi", "--base-url", base_url, "--attempts", "1").code for _ in range(3)]
        finally:
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=SECONDS)
    assert codes == [1, 1, 0]
    ended = re.findall(r"(\d+ \w+) \d+\.\d\d s$", err, re.MULTILINE)
    assert ended == ["503 completed", "200 cut", "200 completed"], err
    faults.write_text("nonsense\n")
    ran = chatscope("simulator", "--port", "0", "--faults", str(faults))
    assert (ran.code, "Cannot simulate 'nonsense'" in ran.err) == (2, True)


def test_bad_arguments_exit_2(chatscope: Run) -> None:
    for option, value in (("--port", "65536"), ("--first-token", "-1"), ("--tokens-per-minute", "0")):
        ran = chatscope("simulator", option, value)
        assert (ran.code, ran.out) == (2, "")
        assert option in ran.err
