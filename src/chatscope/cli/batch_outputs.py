"""`chatscope batch status`, `failed` and `export`: report on an output without running anything."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from chatscope.batch import BatchError
from chatscope.batch.export import export
from chatscope.batch.status import failed_requests, read_status
from chatscope.cli.terminal import error_text, without_controls

_PATH: Final = click.Path(dir_okay=False, path_type=Path)


@click.command("status", short_help="Show counts, cost and failures of an output.")
@click.argument("output", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def status_command(output: Path, as_json: bool) -> int:
    """Show counts, cost, failures by class, and the requests that were in flight when a run was killed."""
    try:
        status = read_status(output)
    except (BatchError, OSError) as error:
        raise click.UsageError(error_text(error)) from error
    if as_json:
        keys = ("succeeded", "failed", "failures", "cost", "unpriced", "in_flight", "input")
        click.echo(json.dumps({name: getattr(status, name) for name in keys}, indent=2))
        return 0
    click.echo(f"{status.succeeded:,} succeeded, {status.failed:,} failed; cost ${status.cost:.6g}")
    if status.unpriced:
        click.echo(f"the cost of {status.unpriced:,} is not known")
    for name, count in sorted(status.failures.items(), key=lambda item: -item[1]):
        click.echo(f"{count:,} x {without_controls(name)}")
    if status.in_flight:
        note = "have no outcome yet; if the run was killed, they may be billed twice"
        click.echo(f"{status.in_flight:,} requests {note}")
    return 0


@click.command("failed")
@click.argument("output", type=_PATH)
def failed_command(output: Path) -> int:
    """Print the failed requests as lines of an input file."""
    omitted: list[str] = []
    sys.stdout.buffer.writelines(_readable(failed_requests(output, omitted.append)))
    sys.stdout.buffer.flush()
    if omitted:
        example = without_controls(omitted[0])
        click.echo(f"{len(omitted):,} failures have no request to run again, for example {example}", err=True)
    return 0


def _readable(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines. Unlike a stdout that cannot be written, an output that cannot be read is a usage error."""
    try:
        yield from lines
    except (BatchError, OSError) as error:
        raise click.UsageError(error_text(error)) from error


@click.command("export")
@click.argument("output", type=_PATH)
@click.option("--to", "target", required=True, type=_PATH, help="File to write, .parquet or .csv.")
def export_command(output: Path, target: Path) -> int:
    """Write OUTPUT and its failures as a table."""
    try:
        rows = export(output, target)
    except (BatchError, OSError) as error:
        raise click.UsageError(error_text(error)) from error
    click.echo(f"{rows:,} rows in {target}")
    return 0
