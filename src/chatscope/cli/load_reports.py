"""`chatscope load report` and `chatscope load compare`: pages and tables of the reports that `--out` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.text import Text

from chatscope.cli.load_view import comparison_lines
from chatscope.cli.terminal import Terminal, error_text, without_controls
from chatscope.load import LoadReport, compare, comparison_page, load_report, plan_differences, report_page

PAGE: Final = "report.html"

_FOLDER: Final = click.Path(file_okay=False, path_type=Path)
_OUTPUT: Final = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command("compare")
@click.argument("first", type=_FOLDER)
@click.argument("second", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
@click.option("--html", type=_OUTPUT, metavar="FILE", help="Write a page with charts, too (extra `load`).")
def compare_command(first: Path, second: Path, as_json: bool, html: Path | None) -> int:
    """Compare two reports that --out wrote, stage by stage.

    A difference is SECOND minus FIRST, with its 95 % interval. An interval that contains 0 may be due to chance.
    """
    try:
        reports = load_report(first), load_report(second)
        compared = compare(*reports)
        if html is not None:
            names = (first.name, second.name) if first.name != second.name else (str(first), str(second))
            html.write_text(comparison_page(*reports, names), encoding="utf-8")
    except (OSError, ValueError, ImportError) as error:
        raise click.UsageError(error_text(error)) from error
    if as_json:
        click.echo(json.dumps([msgspec.to_builtins(stage) for stage in compared], indent=2))
    else:
        for text in plan_differences(*reports):
            click.echo(without_controls(f"notice: {text}"))
        for line in comparison_lines(compared):
            click.echo(without_controls(line))
    return 0


@click.command("report")
@click.argument("folder", metavar="DIR", type=_FOLDER)
def report_command(folder: Path) -> int:
    """Draw again the report.html of a folder that --out wrote."""
    try:
        (folder / PAGE).write_text(report_page(load_report(folder)), encoding="utf-8")
    except (OSError, ValueError, ImportError) as error:
        raise click.UsageError(error_text(error)) from error
    click.echo(folder / PAGE)
    return 0


def write_page(report: LoadReport, out: Path, stderr: Terminal) -> None:
    """Write the page beside the other files. Without the extra, print what to install instead: the page is optional."""
    try:
        page = report_page(report)
    except ImportError as error:
        stderr.print(Text(f"{error}, then run: chatscope load report {out}"), soft_wrap=True)
    else:
        (out / PAGE).write_text(page, encoding="utf-8")
