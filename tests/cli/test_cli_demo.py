"""`chatscope demo`: what it must show, on every loop, in a pipe and in a terminal."""

from __future__ import annotations

import errno
import os
import re
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from chatscope.cli.demo import SCENES, Scene
from chatscope.simulator import faults

if TYPE_CHECKING:
    from tests.support.command import MakeOutput, Run

SECONDS = 15.0  # limit for one demonstration
ASYNCIO, UVLOOP, TRIO = (), ("--backend", "uvloop"), ("--backend", "trio")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the demonstration without its waits."""
    monkeypatch.setattr("chatscope.cli.demo.SCENES", tuple(map(_fast, SCENES)))


def _fast(scene: Scene) -> Scene:
    reply = replace(scene.reply, first_token=0.0, between_tokens=0.001)
    return replace(scene, reply=reply, refused_seconds=scene.refused_seconds and 0.01)


def table_of(text: str) -> dict[str, list[str]]:
    """Return the table's rows by task number."""
    rows = re.findall(r"^ *\[(\d)\] \w+ +([A-Z]+) +(.*\S) *$", text, re.MULTILINE)
    return {number: [status, *cells.replace(" s", "").split()] for number, status, cells in rows if "." in cells}


def check_table(text: str) -> None:
    """Check the table against the scenes."""
    table = table_of(text)
    assert {number: (cells[0], cells[3]) for number, cells in table.items()} == {
        "1": ("COMPLETED", "1"),
        "2": ("CANCELLED", "1"),
        "3": ("COMPLETED", "2"),
        "4": ("COMPLETED", "1"),
        "5": ("COMPLETED", "1"),
    }
    for number, (_, tokens, cost, _, first_token, duration) in table.items():
        assert float(first_token) <= float(duration)
        if number == "2":  # its usage would be in the last chunk
            assert (tokens, cost) == ("-", "-")
        else:
            assert int(tokens) > 0
            assert float(cost.removeprefix("$")) > 0


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_pipe_gets_interleaved_lines_and_the_table(backend: str) -> None:
    command = [sys.executable, "-m", "chatscope", "demo", "--backend", backend]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "\x1b" not in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 80
    check_table(ran.stdout)
    _, _, live = ran.stdout.partition("\n\n")
    turns = [line[:3] for line in live.splitlines() if line.startswith(("[1]", "[2]"))]
    first, last = turns.index("[2]"), len(turns) - turns[::-1].index("[2]")
    assert turns.index("[1]") < last
    assert "[1]" in turns[first:last], "the two tasks do not alternate"
    assert re.search(r"^\[3\] attempt 1 failed: RateLimitError: .* next in 1 s$", live, re.MULTILINE)
    assert re.search(r"^\[3\] attempt 1 got 429 \(RateLimitError\), waited 1 s$", live, re.MULTILINE)
    assert "[2] the task was cancelled; the text received:\nOnce upon a time an event loop" in live
    assert "\n[2] CANCELLED\n" in live


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(
    ("loop", "terminal"),
    [(ASYNCIO, False), (UVLOOP, True), (TRIO, True)],
    ids=["asyncio-plain", "uvloop-live", "trio-live"],
)
def test_every_loop_shows_it(
    chatscope: Run, monkeypatch: pytest.MonkeyPatch, loop: tuple[str, ...], terminal: bool
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    ran = chatscope("demo", *loop)
    assert (ran.code, ran.err) == (0, "")
    assert ("\x1b" in ran.out) == terminal
    check_table(ESCAPE.sub("", ran.out))


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("terminal", [False, True], ids=["plain", "live"])
def test_it_fits_into_40_columns_and_ends_with_the_next_command(
    chatscope: Run, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    ran = chatscope("demo")
    assert (ran.code, ran.err) == (0, "")
    lines = [ESCAPE.sub("", line).rstrip("\r") for line in ran.out.splitlines()]
    assert max(map(len, lines)) <= 40, [line for line in lines if len(line) > 40]
    cells = [
        line.split(maxsplit=1) for line in lines if re.match(r"    (tokens|cost|attempts|first token|duration) ", line)
    ]
    assert [name for name, _ in cells] == ["tokens", "cost", "attempts", "first", "duration"] * 5
    assert lines[-2:] == ["  chatscope simulator", '  chatscope ask "Say hello"']


@pytest.mark.usefixtures("fast")
def test_a_dumb_terminal_gets_plain_lines(chatscope: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    ran = chatscope("demo")
    assert ran.code == 0
    assert "\n[1] Structured concurrency" in ran.out


def test_a_task_with_another_status_makes_it_exit_1(chatscope: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, *others = map(_fast, SCENES)
    broken = replace(watched, reply=replace(watched.reply, faults=(faults.end(3),)))
    monkeypatch.setattr("chatscope.cli.demo.SCENES", (broken, *others))
    ran = chatscope("demo")
    assert (ran.code, ran.err) == (1, "")
    assert table_of(ran.out)["1"][0] == "FAILED"
    assert table_of(ran.out)["2"][0] == "CANCELLED"
    assert "the text received:\nStructured concurrency gives\n" in ran.out


@pytest.mark.parametrize(
    ("loop", "terminal", "number", "code"),
    [
        (ASYNCIO, False, signal.SIGTERM, 143),
        (ASYNCIO, True, signal.SIGINT, 130),
        (UVLOOP, True, signal.SIGTERM, 143),
        (TRIO, True, signal.SIGINT, 130),
    ],
)
def test_a_signal_stops_it(
    chatscope: Run,
    output: MakeOutput,
    monkeypatch: pytest.MonkeyPatch,
    loop: tuple[str, ...],
    terminal: bool,
    number: signal.Signals,
    code: int,
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    stdout = output("Structured", partial(signal.raise_signal, number), terminal=terminal)
    ran = chatscope("demo", *loop)
    assert (ran.code, ran.err) == (code, "")
    assert stdout.getvalue().endswith("\x1b[?25h") == terminal  # the cursor is visible again


@pytest.mark.parametrize(
    ("loop", "text", "problem", "code", "shown"),
    [
        (ASYNCIO, "tasks submitted", BrokenPipeError(), 141, ""),
        (ASYNCIO, "[1] Structured", BrokenPipeError(), 141, ""),
        (TRIO, "[1] Structured", OSError(errno.ENOSPC, "full"), 1, f"Error: [Errno {errno.ENOSPC}] full\n"),
    ],
)
def test_an_output_that_fails_ends_it(
    chatscope: Run, output: MakeOutput, loop: tuple[str, ...], text: str, problem: OSError, code: int, shown: str
) -> None:
    def fail() -> None:
        raise problem

    output(text, fail)
    ran = chatscope("demo", *loop)
    assert (ran.code, ran.err) == (code, shown)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_a_terminal_shows_two_columns_growing() -> None:
    import fcntl
    import pty
    import termios

    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    command = [sys.executable, "-m", "chatscope", "demo"]
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=os.environ | {"TERM": "xterm-256color"}
    )
    os.close(terminal)
    seen = bytearray()
    try:
        while part := _read(controller):
            seen += part
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        os.close(controller)
    shown = ESCAPE.sub("", seen.decode()).replace("\r\n", "\n")
    check_table(shown)
    assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h") == 1  # the cursor is hidden once, and shown once
    assert max(map(len, shown.replace("\r", "\n").splitlines())) <= 80
    # Every part of text draws a frame. In some frames both columns have text, and they grow in turns.
    lines = re.findall(r"^│ (.{37}) │ (.{36}) │$", shown, re.MULTILINE)
    both = [(one.strip(), two.strip()) for one, two in lines if one.startswith("Structured") and two.startswith("Once")]
    assert len({one for one, _ in both}) > 1 or len({two for _, two in both}) > 1
    assert re.search(r"\[1\] explain RUNNING +│ \[2\] story RUNNING", shown)
    assert re.search(r"\[1\] explain COMPLETED +│ \[2\] story CANCELLED", shown)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux reports the closed other side like this
        return b""
