"""The inputs of the batch benchmarks, and the processes that run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.processes import ROOT, environment
from benchmarks.harness.wire import MODEL, PROMPT

TOKENS: Final = 20
"""Completion tokens of a response. The server sends them at once, so the client limits the rate."""


def line(number: int, **more: Any) -> bytes:
    """Return one line of an input."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"{number}: {PROMPT}"}], "max_tokens": TOKENS}
    request = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": {**body, **more}}
    return json.dumps(request).encode() + b"\n"


def write_input(path: Path, lines: int) -> Path:
    """Write an input with a number of lines, and the same requests in the script's format to `bodies.jsonl`."""
    with path.open("wb") as file, path.with_name("bodies.jsonl").open("wb") as bodies:
        for number in range(lines):
            file.write(data := line(number))
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
