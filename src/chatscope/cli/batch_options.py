"""The options of `chatscope batch run`, and how click checks each. `BatchOptions` checks their combinations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from chatscope.cli.options import BACKEND_OPTION, json_values


def _concurrency(_context: click.Context, _option: click.Parameter, value: str) -> int | str:
    if value == "auto":
        return value
    if not value.isdecimal() or not int(value):
        raise click.BadParameter("must be a whole number of at least 1, or auto")
    return int(value)


_PATH: Final = click.Path(dir_okay=False, path_type=Path)
_POSITIVE: Final = click.FloatRange(min=0, min_open=True)
_COUNT: Final = click.IntRange(min=1)

_OPTIONS: Final = (
    click.option("-o", "--output", required=True, type=_PATH, help="Output file; failures go to a file beside it."),
    click.option(
        "--input-format",
        type=click.Choice(["auto", "jsonl", "csv", "parquet"]),
        default="auto",
        help="[default: by content]",
    ),
    click.option("--model", metavar="NAME", help="Model of lines that name none."),
    click.option("--system", metavar="TEXT", help="System message, for lines that have none."),
    click.option(
        "--parameter",
        "parameters",
        multiple=True,
        metavar="NAME=JSON",
        callback=json_values,
        help="Request parameter of lines that set none; repeatable.",
    ),
    click.option("--prompt", metavar="TEMPLATE", help='For records (CSV, Parquet, JSON): "Translate: {text}".'),
    click.option("--id-column", metavar="NAME", help="Column with the custom_id."),
    click.option("--schema", type=click.File("rb"), metavar="FILE", help="JSON schema that responses must match."),
    click.option("--base-url", metavar="URL", help="Address of the server. [default: $OPENAI_BASE_URL, else OpenAI's]"),
    click.option("--profile", metavar="NAME", help="Name of the server, if its URL does not reveal it."),
    click.option("--max-concurrency", metavar="N|auto", default="100", show_default=True, callback=_concurrency),
    click.option("--rpm", type=_POSITIVE, metavar="N", help="Requests a minute."),
    click.option("--tpm", type=_POSITIVE, metavar="N", help="Tokens a minute."),
    click.option(
        "--max-cost",
        type=_POSITIVE,
        metavar="USD",
        help="Stop when all runs have spent this much, or if prices are not known and no --max-tokens-total is given.",
    ),
    click.option("--max-tokens-total", type=_COUNT, metavar="N", help="Stop when this run has used this many tokens."),
    click.option("--attempts", type=_COUNT, metavar="N", default=5, show_default=True, help="Requests per line."),
    click.option("--timeout", type=_POSITIVE, metavar="SECONDS", default=60.0, show_default=True, help="Of silence."),
    click.option("--stream/--no-stream", default=True, help="Stream responses on the wire. [default: --stream]"),
    click.option("--limit", type=_COUNT, metavar="N", help="Run only the first N rows."),
    click.option("--dry-run", is_flag=True, help="Check every line and estimate tokens and price; send nothing."),
    click.option("--strict", is_flag=True, help="Refuse the file if any line is invalid."),
    click.option(
        "--retry-errors",
        is_flag=False,
        flag_value="*",
        default=None,
        metavar="[=CLASS]",
        help="Run permanent failures again, or only one class of them, such as 400.",
    ),
    click.option(
        "--changed",
        type=click.Choice(["refuse", "rerun", "keep"]),
        default="refuse",
        show_default=True,
        help="What to do with rows whose id is recorded for another request.",
    ),
    click.option("--new-settings", is_flag=True, help="Resume with settings that differ from the earlier run."),
    click.option("--repair", is_flag=True, help="Set aside unreadable lines of the output."),
    click.option("--dedup", is_flag=True, help="Send equal requests once."),
    click.option("--ordered", is_flag=True, help="At the end, sort the output in the order of the input."),
    click.option("--max-errors", type=_COUNT, metavar="N", help="Stop after N failures."),
    click.option(
        "--output-format",
        type=click.Choice(["batch", "record"]),
        default="batch",
        show_default=True,
        help="OpenAI's batch lines, or the input record with its output.",
    ),
    click.option(
        "--fsync",
        type=click.Choice(["group", "each", "none"]),
        default="group",
        show_default=True,
        help="Sync the output every second, after each line, or never.",
    ),
    click.option("--ray", metavar="ADDRESS", help="Run on a Ray cluster: auto, HOST:PORT, or local. See the guide."),
    click.option("--ray-workers", type=_COUNT, metavar="N", help="Processes that send. [default: one per node]"),
    click.option(
        "--grace",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        default=30.0,
        show_default=True,
        help="For running requests to end after Ctrl-C.",
    ),
    click.option(
        "--progress",
        type=click.Choice(["auto", "plain", "none"]),
        default="auto",
        show_default=True,
        help="A panel on terminals, else lines; or nothing.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
    BACKEND_OPTION,
)


def with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
