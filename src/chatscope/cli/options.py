"""Options that several commands share, and prompts from stdin. Not here: what the commands do."""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import Any, BinaryIO, Final

import click

from chatscope.load.worker_loops import WORKER_LOOPS

NO_KEY: Final = "no API key: set OPENAI_API_KEY in the environment (OPENAI_API_KEY= sends none)"


def key_from_environment() -> str | None:
    """Return the key, which is empty if `OPENAI_API_KEY` is set to nothing: many servers need none."""
    return os.environ.get("OPENAI_API_KEY")


BACKEND_OPTION: Final = click.option(
    "--backend", type=click.Choice(WORKER_LOOPS), default="asyncio", show_default=True, help="Event loop."
)


def json_values(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of a repeated option `NAME=JSON` by name."""
    parameters = {}
    for item in values:
        name, separator, text = item.partition("=")
        if not separator or not name:
            raise click.BadParameter(f"{item!r} is not NAME=JSON")
        try:
            parameters[name] = json.loads(text)
        except RecursionError as error:
            raise click.BadParameter(f"{name} is nested too deeply") from error
        except ValueError:
            parameters[name] = text  # a plain word needs no quotes
    return parameters


def json_object(_context: click.Context, _option: click.Parameter, file: BinaryIO | None) -> dict[str, Any] | None:
    """Return the JSON object in a file."""
    if file is None:
        return None
    try:
        value = json.load(file)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{file.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise click.BadParameter(f"{file.name} does not hold a JSON object")
    return value


def whole_prompt(prompt: str | None) -> str:
    """Return the prompt followed by the piped input. If the prompt is `-`, return the piped input alone.

    A terminal, a device such as `/dev/null` and a closed stdin are not read.
    """
    if prompt == "-":
        if sys.stdin is None:
            raise click.BadParameter("stdin is closed", param_hint="PROMPT")
        return sys.stdin.read()
    return "\n\n".join(part for part in (prompt or "", _piped()) if part.strip())


def _piped() -> str:
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # closed, or replaced by an object that is not a file
        return ""
    return sys.stdin.read() if stat.S_ISFIFO(mode) or stat.S_ISREG(mode) else ""
