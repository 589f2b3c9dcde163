"""``chatscope ask`` and ``chatscope batch`` as a process of its own, against the LiteLLM proxy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from typing import TYPE_CHECKING

import anyio
from tests.support.batches import errors_of, ids, line, read_lines, write_lines

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.litellm_proxy import LiteLLMProxy

REPLY = "The proxy says hello to the world."  # as in the proxy's config
WORDS = "one two three "  # all that the scripted provider streams

# Far longer than any of these runs takes; it ends one that hangs.
RUN_SECONDS = 60.0

# The installed command, but for one thing: a shell that runs the tests in the background makes them ignore SIGINT, and
# what they start inherits it.
COMMAND = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # noqa: ISC004  # one argument
    "from chatscope.cli import main; raise SystemExit(main())",
]


def start(proxy: LiteLLMProxy, *arguments: str) -> subprocess.Popen[str]:
    """Start ``chatscope ask`` with pipes for its output, so that it writes as it does when it is no terminal's."""
    return subprocess.Popen(
        [*COMMAND, "ask", "--base-url", proxy.base_url, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OPENAI_API_KEY": proxy.api_key},
        text=True,
    )


def ask(proxy: LiteLLMProxy, *arguments: str) -> tuple[int, str, str]:
    """Run ``chatscope ask`` to its end: exit code, stdout, stderr."""
    with start(proxy, *arguments) as process:
        try:
            out, err = process.communicate(timeout=RUN_SECONDS)
        finally:
            process.kill()
    return process.returncode, out, err


def test_ask_prints_the_response(litellm_proxy: LiteLLMProxy) -> None:
    code, out, err = ask(litellm_proxy, "hi", "--model", "gpt-4o-mini")
    assert (code, out.strip(), err) == (0, REPLY, "")


def test_ask_gives_the_whole_result_as_json(litellm_proxy: LiteLLMProxy) -> None:
    code, out, _ = ask(litellm_proxy, "hi", "--model", "gpt-4o-mini", "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["output"], result["status"]) == (REPLY, "completed")
    assert result["cost"] > 0


def test_ask_reports_an_error_and_exits_1(litellm_proxy: LiteLLMProxy) -> None:
    code, out, err = ask(litellm_proxy, "hi", "--model", "context-too-long")
    assert (code, out.strip()) == (1, "")
    assert "mock context window exceeded error" in err
    assert "Traceback" not in err


def test_ctrl_c_mid_stream_exits_130_and_disconnects(litellm_proxy: LiteLLMProxy) -> None:
    prompt = f"interrupted {uuid.uuid4()}"
    got = ""
    with start(litellm_proxy, prompt, "--model", "never-ends") as process:
        assert process.stdout is not None
        watchdog = threading.Timer(RUN_SECONDS, process.kill)
        watchdog.start()
        try:
            while not got.endswith(WORDS):
                character = process.stdout.read(1)
                assert character, f"it ended after {got!r}"
                got += character
            process.send_signal(signal.SIGINT)
            code = process.wait()
        finally:
            watchdog.cancel()
            process.kill()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert code == 130
    anyio.run(litellm_proxy.log.wait_for, f"interop: client-disconnected {prompt}")


def test_a_batch_runs_and_resumes(litellm_proxy: LiteLLMProxy, tmp_path: Path) -> None:
    models = ["gpt-4o-mini", "context-too-long", "simulated", "gpt-4o-mini"]
    lines = [line(number) for number in range(len(models))]
    for one, model in zip(lines, models, strict=True):
        one["body"]["model"] = model
    source, output = write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    command = [*COMMAND, "batch", "run", str(source), "-o", str(output), "--base-url", litellm_proxy.base_url, "--json"]
    environment = os.environ | {"OPENAI_API_KEY": litellm_proxy.api_key}
    for succeeded, settled in ((3, 0), (0, 4)):
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=RUN_SECONDS, check=False)
        summary = json.loads(ran.stdout)
        assert (ran.returncode, summary["succeeded"], summary["settled"]) == (1, succeeded, settled), ran.stderr
        assert sorted(ids(output)) == ["request-0", "request-2", "request-3"]
        assert [one["response"]["status_code"] for one in errors_of(output)] == [400]
    assert {one["response"]["body"]["choices"][0]["message"]["content"] for one in read_lines(output)} >= {REPLY}
    assert litellm_proxy.api_key not in ran.stdout + ran.stderr
