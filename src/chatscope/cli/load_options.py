"""The options of `chatscope load`, and how their values are parsed. Not here: the command (`load`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import click

from chatscope.cli.options import BACKEND_OPTION
from chatscope.cli.options import json_values as json_parameters
from chatscope.load import Length
from chatscope.load.plan import CONNECTION_MODES, GRACE, SEARCH_KINDS, TIMEOUT
from chatscope.load.schedule import ARRIVAL_PROCESSES

_Number = TypeVar("_Number", int, float)


def _numbers(kind: Callable[[str], _Number]) -> Callable[..., list[_Number] | None]:
    """Return the callback of an option that is one number or a list of them, such as "1,2,4"."""

    def parse(_context: click.Context, _option: click.Parameter, value: str | None) -> list[_Number] | None:
        try:
            return None if value is None else [kind(part) for part in value.split(",")]
        except ValueError:
            raise click.BadParameter(f"{value!r} is not a number, nor a list such as 1,2,4") from None

    return parse


def _length(_context: click.Context, _option: click.Parameter, value: str | None) -> Length | None:
    if value is None:
        return None
    mean, _, deviation = value.partition(",")
    try:
        return Length(int(mean), float(deviation or 0))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not N tokens, nor MEAN,DEVIATION such as 512,64") from None


def _workers(_context: click.Context, _option: click.Parameter, value: str) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if value.isdecimal() and int(value):
        return int(value)
    raise click.BadParameter(f"{value!r} is neither a number of processes nor auto")


def _json_object(_context: click.Context, _option: click.Parameter, value: str | None) -> dict[str, Any] | None:
    try:
        decoded = None if value is None else json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}") from error
    if decoded is not None and not isinstance(decoded, dict):
        raise click.BadParameter("must be a JSON object")
    return decoded


_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER: Final = click.Path(file_okay=False, path_type=Path)
_POSITIVE: Final = click.FloatRange(min=0, min_open=True)
_SECONDS: Final = click.FloatRange(min=0)
_COUNT: Final = click.IntRange(min=1)

OPTIONS: Final = (
    click.option("--base-url", metavar="URL", help="Address of the server. [default: $OPENAI_BASE_URL, else OpenAI's]"),
    click.option("--model", metavar="NAME", help="Model to ask. Required."),
    click.option("--profile", metavar="NAME", help="Name of the server, if its URL does not reveal it."),
    click.option("--concurrency", metavar="N[,N...]", callback=_numbers(int), help="Closed loop: requests at a time."),
    click.option("--rate", metavar="R[,R...]", callback=_numbers(float), help="Open loop: requests a second."),
    click.option("--trace", type=_FILE, help="Recorded arrivals: Mooncake, Azure or BurstGPT."),
    click.option("--arrivals", type=click.Choice(ARRIVAL_PROCESSES), default="poisson", help="Gaps of an open loop."),
    click.option("--burstiness", type=_POSITIVE, metavar="B", default=1.0, help="Of gamma arrivals; below 1: bursts."),
    click.option("--ramp", type=_SECONDS, metavar="SECONDS", help="Increase the load over this time."),
    click.option("--time-scale", type=_POSITIVE, metavar="X", default=1.0, help="0.5 sends twice as fast."),
    click.option("--max-concurrency", type=_COUNT, metavar="N", help="Of an open loop; others wait for a slot."),
    click.option("--requests", type=_COUNT, metavar="N", help="Requests per stage."),
    click.option("--duration", type=_POSITIVE, metavar="SECONDS", help="Length of a stage."),
    click.option("--warmup", type=_SECONDS, metavar="SECONDS", default=0.0, help="At its start, not measured."),
    click.option("--cooldown", type=_SECONDS, metavar="SECONDS", default=0.0, help="At its end, not measured."),
    click.option("--seed", type=int, metavar="N", default=0, help="Of arrivals and lengths."),
    click.option("--prompt-tokens", metavar="N[,S]", default="512", callback=_length, help="Length. [default: 512]"),
    click.option("--output-tokens", metavar="N[,S]", callback=_length, help="Mean and deviation of the output."),
    click.option("--shared-prefix-tokens", type=click.IntRange(min=0), metavar="N", default=0, help="The same in all."),
    click.option("--prompts", type=_FILE, help="Prompts as JSON lines, or ShareGPT's JSON."),
    click.option("--turns", type=_COUNT, metavar="N", default=1, help="Requests of a session, with the history."),
    click.option("--think-time", type=_SECONDS, metavar="SECONDS", default=0.0, help="Between turns of a session."),
    click.option(
        *("--parameter", "parameters"),
        multiple=True,
        metavar="NAME=JSON",
        callback=json_parameters,
        help="Parameter of each request; repeatable.",
    ),
    click.option("--extra-body", metavar="JSON", callback=_json_object, help="More fields of each request's body."),
    click.option(
        "--connections", type=click.Choice(CONNECTION_MODES), default="ahead", help="Opened before requests need them."
    ),
    click.option("--stream/--no-stream", default=True, help="Ask for streams. [default: --stream]"),
    click.option("--calibrate-prompts/--no-calibrate-prompts", "calibrate", default=True, help="Probe token lengths."),
    click.option("--calibrate", "self_test", is_flag=True, help="Measure the client's own error on a simulator first."),
    click.option("--slo", "slos", multiple=True, metavar="TEXT", help="Such as 'ttft:p99<500ms' or 'failed<1%'."),
    click.option("--search", type=click.Choice(SEARCH_KINDS), help="The highest that meets every --slo."),
    click.option("--timeout", type=_POSITIVE, metavar="SECONDS", default=TIMEOUT, help="Of silence. [default: 600]"),
    click.option("--grace", type=_SECONDS, metavar="SECONDS", default=GRACE, show_default=True, help="After Ctrl-C."),
    click.option("--out", type=_FOLDER, metavar="DIR", help="Folder for the report."),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
    click.option("--quiet", is_flag=True, help="Show no progress."),
    click.option("--workers", metavar="N|auto", default="auto", callback=_workers, help="Processes. [default: auto]"),
    click.option("--ray", metavar="ADDRESS", help="Send from a Ray cluster: auto, HOST:PORT, or local."),
    BACKEND_OPTION,
)


WORKLOAD_OPTIONS: Final = ("prompt_tokens", "output_tokens", "shared_prefix_tokens", "prompts", "turns", "think_time")
"""The options that describe the requests."""


def with_load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a load test to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
