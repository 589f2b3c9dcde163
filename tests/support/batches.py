"""Inputs and outputs of batches, for the tests of `chatscope.batch`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MODEL = "gpt-4o-mini"


def line(number: int, **more: Any) -> dict[str, Any]:
    """Return one line of OpenAI's batch format. `more` goes into its body."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"Question {number}"}], **more}
    return {"custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def write_lines(path: Path, lines: Iterable[Mapping[str, Any] | str]) -> Path:
    """Write an input, or a record of one; a text is written as it is."""
    texts = (item if isinstance(item, str) else json.dumps(item) for item in lines)
    path.write_text("".join(text + "\n" for text in texts))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a recorded file; none if it is not there."""
    return [json.loads(text) for text in path.read_bytes().splitlines()] if path.exists() else []


def ids(path: Path) -> list[str]:
    """Return the ids that a recorded file holds."""
    return [recorded["custom_id"] for recorded in read_lines(path)]


def questions(bodies: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what the requests asked."""
    return [body["messages"][-1]["content"] for body in bodies]


def errors_of(output: Path) -> list[dict[str, Any]]:
    """Return the failures that are recorded beside an output."""
    return read_lines(output.with_name(f"{output.stem}.errors.jsonl"))


def files_of(folder: Path) -> list[Path]:
    """Return all files below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


def path_of(fd: int) -> str:
    """Return the path of an open file."""
    return str(Path(f"/proc/self/fd/{fd}").readlink())
