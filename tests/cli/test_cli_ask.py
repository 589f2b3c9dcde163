"""`chatscope ask`: what it sends, what it prints, and how it ends."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from chatscope import Result
from chatscope.cli import main
from chatscope.cli.options import NO_KEY
from chatscope.simulator import Answer, ChatRequest, Outcome, Reply, error, faults

if TYPE_CHECKING:
    from tests.support.command import MakeOutput, Run
    from tests.support.simulated import Simulate

TEXT = "one two three"
ASYNCIO, UVLOOP, TRIO = (), ("--backend", "uvloop"), ("--backend", "trio")
LOOPS = pytest.mark.parametrize("loop", [ASYNCIO, UVLOOP, TRIO], ids=["asyncio", "uvloop", "trio"])
LIBRARIES = pytest.mark.parametrize("loop", [ASYNCIO, TRIO], ids=["asyncio", "trio"])

SECONDS = 30.0  # longer than any process here runs


@LOOPS
def test_the_response_goes_to_stdout_with_a_newline(simulate: Simulate, chatscope: Run, loop: list[str]) -> None:
    server = simulate(Reply(TEXT))
    ran = chatscope("ask", "hi", *loop)
    assert (ran.code, ran.out, ran.err) == (0, f"{TEXT}\n", "")
    assert server.outcome() is Outcome.COMPLETED
    assert server.body()["messages"] == [{"role": "user", "content": "hi"}]
    assert server.server.requests[0].headers["authorization"] == "Bearer sk-cli-test"


@pytest.mark.parametrize(
    ("reply", "printed"),
    [
        (Reply(f"{TEXT}\n"), f"{TEXT}\n"),  # no second newline
        (Reply(""), ""),
        (Reply(refusal="I would rather not."), "I would rather not.\n"),
        (Reply("a\x1b[2Jb"), "a\x1b[2Jb\n"),  # a pipe gets every character
    ],
    ids=["newline", "empty", "refusal", "controls"],
)
def test_what_is_printed(simulate: Simulate, chatscope: Run, reply: Reply, printed: str) -> None:
    simulate(reply)
    ran = chatscope("ask", "hi")
    assert (ran.code, ran.out, ran.err) == (0, printed, "")


def test_text_is_printed_as_it_arrives(simulate: Simulate, chatscope: Run, output: MakeOutput) -> None:
    more = anyio.Event()

    def script(request: ChatRequest) -> Answer:
        return Reply(TEXT, faults=(faults.hold(2, more),))

    server = simulate(script)
    stdout = output("one two", lambda: server.portal.start_task_soon(more.set))  # the server waits until it is printed
    assert chatscope("ask", "hi").code == 0
    assert stdout.getvalue() == f"{TEXT}\n"


def test_options_arrive_on_the_wire(simulate: Simulate, chatscope: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    server = simulate(Reply(TEXT))
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")  # the option has precedence
    ran = chatscope(
        *("ask", "hi", "--base-url", server.base_url, "--system", "Be brief.", "--model", "gpt-4.1"),
        *("--max-tokens", "7", "--temperature", "0.5", "--timeout", "20"),
    )
    assert ran.code == 0
    sent = server.body()
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert (sent["model"], sent["max_tokens"], sent["temperature"]) == ("gpt-4.1", 7, 0.5)


@pytest.mark.parametrize(
    ("given", "sent"), [("grüß dich\n".encode(), "grüß dich\n"), (b"a\xffb", "a\N{REPLACEMENT CHARACTER}b")]
)
def test_a_dash_reads_the_prompt_from_stdin(simulate: Simulate, chatscope: Run, given: bytes, sent: str) -> None:
    server = simulate(Reply(TEXT))
    assert chatscope("ask", "-", stdin=given).code == 0
    assert server.body()["messages"][-1]["content"] == sent


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_failed_task_exits_1_with_the_error_on_stderr(simulate: Simulate, chatscope: Run) -> None:
    simulate(error(404, "no such model"))
    ran = chatscope("ask", "hi")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Error: NotFoundError: HTTP 404: no such model (POST http://127.0.0.1:")


def test_the_text_before_a_failure_is_kept(simulate: Simulate, chatscope: Run) -> None:
    simulate(Reply(TEXT, faults=(faults.end(2),)))
    ran = chatscope("ask", "hi")
    assert (ran.code, ran.out) == (1, "one two\n")
    assert ran.err.startswith("Error: StreamTruncatedError: ")


def test_a_deadline_fails_the_task(simulate: Simulate, chatscope: Run) -> None:
    server = simulate(Reply(TEXT, faults=(faults.stall(2),)))
    ran = chatscope("ask", "hi", "--timeout", "0.2")
    assert (ran.code, ran.out) == (1, "one two\n")
    assert ran.err == "Error: APITimeoutError: not finished within 0.2 s (total)\n"
    assert server.outcome() is Outcome.DISCONNECTED


def test_every_wait_before_a_retry_is_shown_once(simulate: Simulate, chatscope: Run) -> None:
    # The library logs the second at INFO, and stamina logs both.
    simulate([error(429, "slow down", retry_after=0.01), error(503, "back soon", retry_after=0.02), Reply(TEXT)])
    ran = chatscope("ask", "hi")
    assert (ran.code, ran.out) == (0, f"{TEXT}\n")
    assert ran.err.count("attempt 1 failed: RateLimitError: HTTP 429: slow down; next in 0.01 s\n") == 1
    assert ran.err.count("attempt 2 failed: InternalServerError: HTTP 503: back soon; next in 0.02 s\n") == 1
    assert "stamina" not in ran.err


BAD_ARGUMENTS: dict[tuple[str, ...], str] = {
    (): "PROMPT",
    ("",): "PROMPT",
    ("-",): "PROMPT",  # stdin is empty
    ("hi", "--max-tokens", "0"): "--max-tokens",
    ("hi", "--timeout", "-1"): "--timeout",
    ("hi", "--timeout", "nan"): "timeout_seconds",
    ("hi", "--temperature", "warm"): "--temperature",
    ("hi", "--temperature", "nan"): "temperature",
    ("hi", "--model", ""): "model",
    ("hi", "--base-url", "ftp://example.org"): "base_url",
    ("hi", "--base-url", ""): "base_url must begin with http:// or https://",  # not OpenAI's address
    ("a\udcffb",): "messages",  # how Python passes an argument that is not UTF-8
    ("hi", "--api-key", "sk-in-the-history"): "--api-key",
    ("hi", "--backend", "curio"): "--backend",
}


def test_bad_arguments_exit_2_and_send_nothing(simulate: Simulate, chatscope: Run) -> None:
    server = simulate(Reply(TEXT))
    for arguments, named in BAD_ARGUMENTS.items():
        ran = chatscope("ask", *arguments)
        assert (ran.code, ran.out) == (2, ""), arguments
        assert named in ran.err, arguments
        assert "Traceback" not in ran.err
    assert server.server.requests_received == 0


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_missing_key_exits_2_and_an_empty_one_is_not_sent(
    simulate: Simulate, chatscope: Run, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    ran = chatscope("ask", "hi", *options)
    assert (ran.code, ran.err) == (2, f"Error: {NO_KEY}\n")
    assert ran.out == "" or json.loads(ran.out)["error"] == NO_KEY
    simulated = simulate(Reply("Hello."))
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert chatscope("ask", "hi", *options).code == 0
    assert "authorization" not in simulated.server.requests[0].headers


# -- as JSON -----------------------------------------------------------------------------------------------------------


def _document(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text)
    return document


def test_json_holds_the_whole_result(simulate: Simulate, chatscope: Run) -> None:
    simulate(Reply("schöne Grüße"))
    ran = chatscope("ask", "hi", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert "schöne Grüße" in ran.out
    document = _document(ran.out)
    assert document["task_id"].startswith("chatgpt_")
    assert (document["status"], document["success"], document["error"]) == ("completed", True, None)
    assert (document["output"], document["message"]["content"]) == ("schöne Grüße", "schöne Grüße")
    assert document["tokens_used"] == document["usage"]["prompt_tokens"] + 2
    assert document["cost"] > 0
    assert (document["attempts"], len(document["attempts_log"])) == (1, 1)
    not_printed = {"task", "messages", "parsed", "completion"}  # what was asked, and what `message` holds already
    assert {field.name for field in fields(Result)} - document.keys() == not_printed
    assert len(document["timings"]["inter_token_seconds"]) == 1
    assert document["metadata"]["finish_reason"] == document["finish_reason"] == "stop"


def test_json_holds_a_failure(simulate: Simulate, chatscope: Run) -> None:
    simulate(error(400, "too warm", param="temperature", code="bad_value"))
    ran = chatscope("ask", "hi", "--json")
    assert ran.code == 1
    assert ran.err.startswith("Error: BadRequestError: HTTP 400: too warm (POST ")
    document = _document(ran.out)
    assert (document["status"], document["success"]) == ("failed", False)
    assert document["error"].startswith("HTTP 400: too warm (POST ")
    exception = document["exception"]
    assert (exception["class"], exception["status"], exception["param"]) == ("BadRequestError", 400, "temperature")
    assert exception["body"]["error"]["code"] == "bad_value"


def test_json_holds_a_cancelled_task(simulate: Simulate, chatscope: Run) -> None:
    def script(request: ChatRequest) -> Answer:
        os.kill(os.getpid(), signal.SIGINT)
        return Reply(TEXT, faults=(faults.stall(2),))

    server = simulate(script)
    ran = chatscope("ask", "hi", "--json")
    assert ran.code == 130
    assert _document(ran.out)["status"] == "cancelled"
    assert server.outcome() is Outcome.DISCONNECTED


# -- stopped midway ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loop", "number", "code"),
    [(ASYNCIO, signal.SIGINT, 130), (UVLOOP, signal.SIGINT, 130), (TRIO, signal.SIGTERM, 143)],
    ids=["asyncio", "uvloop", "trio"],
)
def test_a_signal_cancels_the_task(
    simulate: Simulate, chatscope: Run, output: MakeOutput, loop: list[str], number: signal.Signals, code: int
) -> None:
    server = simulate(Reply(TEXT, faults=(faults.stall(2),)))
    stdout = output("one two", partial(signal.raise_signal, number))
    ran = chatscope("ask", "hi", *loop)
    assert (ran.code, stdout.getvalue(), ran.err) == (code, "one two\n", "")
    assert server.outcome() is Outcome.DISCONNECTED


@LIBRARIES
@pytest.mark.parametrize(
    ("problem", "code", "shown"),
    [
        (BrokenPipeError(), 141, ""),
        (OSError(errno.ENOSPC, "No space left"), 1, f"Error: [Errno {errno.ENOSPC}] No space left\n"),
    ],
    ids=["closed", "full"],
)
def test_an_output_that_fails_ends_the_task(
    simulate: Simulate, chatscope: Run, output: MakeOutput, loop: list[str], problem: OSError, code: int, shown: str
) -> None:
    def fail() -> None:
        raise problem

    server = simulate(Reply(TEXT, faults=(faults.stall(2),)))
    output("one two", fail)
    ran = chatscope("ask", "hi", *loop)
    assert (ran.code, ran.err) == (code, shown)
    assert server.outcome() is Outcome.DISCONNECTED


def test_closed_standard_streams_are_reported_before_anything_is_sent(
    simulate: Simulate, chatscope: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = simulate(Reply(TEXT))
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", None)  # what Python makes of `>&-`
        ran = chatscope("ask", "hi")
    assert (ran.code, ran.err) == (1, "Error: stdout is closed, so the response cannot be printed\n")
    monkeypatch.setattr("sys.stdin", None)
    assert main(["ask", "-"]) == 2
    assert capsys.readouterr().err.endswith("Error: Invalid value for PROMPT: stdin is closed\n")
    assert not server.server.requests


def test_a_value_error_of_the_output_is_not_a_bad_argument(
    simulate: Simulate, chatscope: Run, output: MakeOutput
) -> None:
    def closed() -> None:
        raise ValueError("I/O operation on closed file")

    simulate(Reply(TEXT, faults=(faults.stall(2),)))
    output("one two", closed)
    with pytest.raises(ExceptionGroup) as raised:
        chatscope("ask", "hi")
    assert raised.group_contains(ValueError, match="closed file")


def test_ctrl_c_while_stdin_is_read_exits_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupted())
    assert main(["ask", "-"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def _started(
    *arguments: str, stdout: int = subprocess.PIPE, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start the command in a process."""
    command = [sys.executable, "-m", "chatscope", *arguments]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, env=env)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "number", "code"), [("asyncio", signal.SIGTERM, 143), ("trio", signal.SIGINT, 130)]
)
def test_a_process_is_stopped_by_a_signal(simulate: Simulate, backend: str, number: signal.Signals, code: int) -> None:
    server = simulate(Reply(TEXT, faults=(faults.stall(2),)))
    with _started("ask", "hi", "--backend", backend) as process:
        assert process.stdout is not None
        assert process.stdout.read(len("one two")) == b"one two"
        process.send_signal(number)
        rest = process.communicate(timeout=SECONDS)
    assert (process.returncode, rest) == (code, (b"\n", b""))
    assert server.outcome() is Outcome.DISCONNECTED


@pytest.mark.slow
def test_a_process_whose_reader_leaves_ends_quietly(simulate: Simulate) -> None:
    server = simulate(Reply("line\n", tokens=5_000, between_tokens=0.001))
    reading, writing = os.pipe()
    with _started("ask", "hi", stdout=writing) as process:
        os.close(writing)
        assert os.read(reading, 4) == b"line"
        os.close(reading)
        _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (141, b"")
    assert server.outcome() is Outcome.DISCONNECTED


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_process_whose_output_is_full_says_so(simulate: Simulate) -> None:
    server = simulate(Reply(TEXT, faults=(faults.stall(2),)))
    with Path("/dev/full").open("wb") as full, _started("ask", "hi", stdout=full.fileno()) as process:
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert re.fullmatch(rb"Error: \[Errno \d+\] No space left on device\n", err)
    assert server.outcome() is Outcome.DISCONNECTED


# -- in a terminal -----------------------------------------------------------------------------------------------------


def test_a_terminal_gets_no_control_characters(simulate: Simulate, chatscope: Run, output: MakeOutput) -> None:
    simulate(Reply("a\x1b[2J\tb\r\n\x9dc"))
    stdout = output("c", int, terminal=True)
    assert chatscope("ask", "hi").code == 0
    assert stdout.getvalue() == "a[2J\tb\nc\n"


def test_a_terminal_gets_a_summary_on_stderr(
    simulate: Simulate, chatscope: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    simulate([error(429, retry_after=0.01), Reply(TEXT)])
    ran = chatscope("ask", "hi", "--max-tokens", "2")
    assert ran.out == "one two\n"
    summary = ran.err.splitlines()[-1]
    for part in ("gpt-4o-mini | tokens ", " | cost $0.0000", " | attempts 2", " | finish reason length"):
        assert part in summary


def test_no_color_is_respected(simulate: Simulate, chatscope: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(error(404, "no such model"))
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = chatscope("ask", "hi").err
    monkeypatch.setenv("NO_COLOR", "1")
    plain = chatscope("ask", "hi").err
    assert "31mError: NotFoundError" in coloured
    assert "31m" not in plain
    assert "Error: NotFoundError" in plain


@pytest.mark.slow
def test_characters_that_the_output_cannot_show_are_replaced(simulate: Simulate) -> None:
    simulate(Reply("naïve"))
    with _started("ask", "hi", env=os.environ | {"PYTHONIOENCODING": "ascii"}) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (0, b"na?ve\n", b"")
