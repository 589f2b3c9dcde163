"""The inputs of the batch benchmarks, and the processes that run them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.processes import ROOT, environment
from benchmarks.harness.wire import MODEL, PROMPT, PROMPT_TOKENS


@dataclass(frozen=True, slots=True)
class Length:
    """How long prompts and completions are, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    """The server sends them at once, so the client limits the rate."""


SHORT: Final = Length(PROMPT_TOKENS, 58)
LONG: Final = Length(7 * PROMPT_TOKENS, 338)
"""The mean lengths of Alpaca (19 and 58 tokens) and of ShareGPT (161 and 338), by which vLLM was measured
(https://arxiv.org/abs/2309.06180, figure 11)."""


def line(number: int, length: Length = SHORT, **more: Any) -> bytes:
    """Return one line of an input."""
    prompt = " ".join([PROMPT] * (length.prompt_tokens // PROMPT_TOKENS))
    messages = [{"role": "user", "content": f"{number}: {prompt}"}]
    body = {"model": MODEL, "messages": messages, "max_tokens": length.completion_tokens}
    request = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": {**body, **more}}
    return json.dumps(request).encode() + b"\n"


def write_input(path: Path, lines: int, length: Length = SHORT) -> Path:
    """Write an input with a number of lines, and the same requests in the script's format to `bodies.jsonl`."""
    with path.open("wb") as file, path.with_name("bodies.jsonl").open("wb") as bodies:
        for number in range(lines):
            file.write(data := line(number, length))
            request = json.loads(data)
            metadata = {"row_id": request["custom_id"]}
            bodies.write(json.dumps({**request["body"], "metadata": metadata}).encode() + b"\n")
    return path


def figures_of(*arguments: str) -> dict[str, float]:
    """Run a part of a benchmark in a separate process, and return its measurements."""
    command = [sys.executable, "-m", "benchmarks.batch", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures
