"""`chatscope load`: the command and its options. Not here: what it does (`chatscope.load`) and prints (`load_view`)."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal, Self, TypeVar

import anyio
import click
from rich.text import Text

from chatscope import ChatError
from chatscope.cli.load_reports import compare_command, report_command, write_page
from chatscope.cli.load_view import LoadLines, LoadTable, report_lines
from chatscope.cli.loop import run as run_loop
from chatscope.cli.options import json_values as json_parameters
from chatscope.cli.progress_views import NoProgress, ProgressView
from chatscope.cli.terminal import Terminal, without_controls
from chatscope.load import (
    Length,
    LoadMonitor,
    LoadPlan,
    LoadProgress,
    LoadReport,
    RequestRecord,
    Workload,
    measure_client_error,
    run_in_processes,
)
from chatscope.load.plan import GRACE, SEARCH_KINDS, TIMEOUT
from chatscope.load.processes import WorkerLoop
from chatscope.load.schedule import ARRIVAL_PROCESSES
from chatscope.ray import run_load_on_ray

FAILED: Final = 1
"""The exit code when nothing succeeded."""

USAGE: Final = 2
"""The exit code when an option, a file or the key cannot be right; nothing was sent."""

OBJECTIVE_MISSED: Final = 3
CLIENT_IN_THE_WAY: Final = 4
STOPPED: Final = 130

REFRESH_SECONDS: Final = 1.0
"""How often the view is drawn. The workers measure in processes of their own."""

BUFFER_BYTES: Final = 1 << 20
"""Of `requests.jsonl`: few writes, since each stops the event loop for a moment."""

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

_OPTIONS: Final = (
    click.option("--base-url", metavar="URL", help="Address of the server. [default: $OPENAI_BASE_URL, else OpenAI's]"),
    click.option("--model", metavar="NAME", help="Model to ask. Required."),
    click.option("--profile", metavar="NAME", help="Name of the server, if its URL does not reveal it."),
    click.option("--concurrency", metavar="N[,N...]", callback=_numbers(int), help="Closed loop: requests at a time."),
    click.option("--rate", metavar="R[,R...]", callback=_numbers(float), help="Open loop: requests a second."),
    click.option("--trace", type=_FILE, help="Recorded arrivals: Mooncake, Azure or BurstGPT."),
    click.option("--arrivals", type=click.Choice(ARRIVAL_PROCESSES), default="poisson", show_default=True),
    click.option("--burstiness", type=_POSITIVE, metavar="B", default=1.0, help="Of gamma arrivals; below 1: bursts."),
    click.option("--ramp", type=_SECONDS, metavar="SECONDS", default=0.0, help="In which the load grows to its size."),
    click.option("--time-scale", type=_POSITIVE, metavar="X", default=1.0, help="0.5 sends twice as fast."),
    click.option("--max-concurrency", type=_COUNT, metavar="N", help="Of an open loop; others wait for a slot."),
    click.option("--requests", type=_COUNT, metavar="N", help="Requests per stage."),
    click.option("--duration", type=_POSITIVE, metavar="SECONDS", help="Length of a stage."),
    click.option("--warmup", type=_SECONDS, metavar="SECONDS", default=0.0, help="At its start, not measured."),
    click.option("--cooldown", type=_SECONDS, metavar="SECONDS", default=0.0, help="At its end, not measured."),
    click.option("--seed", type=int, metavar="N", default=0, help="Of arrivals and lengths."),
    click.option("--prompt-tokens", metavar="N[,S]", default="512", show_default=True, callback=_length),
    click.option("--output-tokens", metavar="N[,S]", callback=_length, help="Mean and deviation of the output."),
    click.option("--shared-prefix-tokens", type=click.IntRange(min=0), metavar="N", default=0),
    click.option("--prompts", type=_FILE, help="Prompts as JSON lines, or ShareGPT's JSON."),
    click.option("--turns", type=_COUNT, metavar="N", default=1, help="Requests of a session, with the history."),
    click.option("--think-time", type=_SECONDS, metavar="SECONDS", default=0.0, help="Between turns of a session."),
    click.option("--parameter", "parameters", multiple=True, metavar="NAME=JSON", callback=json_parameters),
    click.option("--extra-body", metavar="JSON", callback=_json_object, help="More fields of each request's body."),
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
    click.option("--backend", type=click.Choice(["asyncio", "uvloop", "trio"]), default="asyncio", show_default=True),
)


_WORKLOAD: Final = ("prompt_tokens", "output_tokens", "shared_prefix_tokens", "prompts", "turns", "think_time")
"""The options that say what the requests ask."""


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group("load", invoke_without_command=True, short_help="Measure a server, and whether the measurement is true.")
@_with_options
@click.pass_context
def load(
    context: click.Context,
    /,
    workers: int | Literal["auto"],
    ray: str | None,
    backend: WorkerLoop,
    self_test: bool,
    out: Path | None,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> int:
    """Measure a server under load, and tell whether the client was in the way.

    Give the load by --concurrency, --rate or --trace, and its length by --requests or --duration. A list makes one
    stage of each value. The API key comes from OPENAI_API_KEY; an empty one sends none.

    \b
    Exit codes:
      0    measured
      1    nothing succeeded
      2    bad arguments; nothing was sent
      3    an objective (--slo) is not met; with --search, by no load
      4    the client was in the way; the figures are printed all the same
      130  Ctrl-C; what was measured is printed
    """  # noqa: D301 - the backspace character makes click keep the lines as they are
    if context.invoked_subcommand is not None:
        return 0
    if given["model"] is None:
        raise click.UsageError("give --model")
    asked = {name: given.pop(name) for name in _WORKLOAD}
    if (extra_body := given.pop("extra_body")) is not None:
        given["parameters"] = {**given["parameters"], "extra_body": extra_body}
    try:
        # An empty key in the environment is meant: many servers want none.
        plan = LoadPlan(workload=Workload(**asked), api_key=os.environ.get("OPENAI_API_KEY"), **given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if out is not None and (out / "summary.json").exists():
        raise click.UsageError(f"--out: {out} has a report already; choose another folder")
    monitor = LoadMonitor()
    runs = partial(_measure, plan, monitor, workers=workers, loop=backend, self_test=self_test, ray=ray)
    body = partial(_run, runs, monitor, out, as_json=as_json, quiet=quiet)
    is_uvloop = backend == "uvloop"
    return run_loop(body, "asyncio" if is_uvloop else backend, uvloop=is_uvloop, on_first_signal=monitor.stop)


load.add_command(compare_command)
load.add_command(report_command)


async def _run(
    runs: Callable[[], Awaitable[LoadReport]], monitor: LoadMonitor, out: Path | None, *, as_json: bool, quiet: bool
) -> int:
    stderr = Terminal(stderr=True, highlight=False)
    try:
        with ExitStack() as stack:
            if out is not None:
                monitor.on_record = stack.enter_context(_RecordsFile(out)).write
            view = stack.enter_context(_view(stderr, quiet=quiet))
            report = await _run_and_show(runs, monitor, view)
    except (ChatError, ValueError, ImportError, ConnectionError) as error:
        stderr.print(Text(f"Error: {without_controls(str(error))}", style="bold red"), soft_wrap=True)
        return FAILED if isinstance(error, ChatError) else USAGE
    if out is not None:
        report.save(out, records=False)
        write_page(report, out, stderr)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        for line in report_lines(report):
            click.echo(without_controls(line))
        if out is not None:
            click.echo(f"\nfiles: {out}")
    return exit_code(report)


async def _measure(
    plan: LoadPlan,
    monitor: LoadMonitor,
    *,
    workers: int | Literal["auto"],
    loop: WorkerLoop,
    self_test: bool,
    ray: str | None,
) -> LoadReport:
    found = await measure_client_error(plan, workers=workers, loop=loop) if self_test else None
    if ray is None:
        report = await run_in_processes(plan, workers=workers, loop=loop, monitor=monitor)
    else:
        count = None if workers == "auto" else workers
        report = await run_load_on_ray(plan, address=ray, workers=count, loop=loop, monitor=monitor)
    report.client_error = found
    return report


def exit_code(report: LoadReport) -> int:
    """Return the command's exit code for a report."""
    if report.was_stopped:
        return STOPPED
    if not report.ok:
        return FAILED
    if report.verdict == "invalid":
        return CLIENT_IN_THE_WAY
    return 0 if report.meets_objectives else OBJECTIVE_MISSED


async def _run_and_show(
    runs: Callable[[], Awaitable[LoadReport]], monitor: LoadMonitor, view: ProgressView[LoadProgress]
) -> LoadReport:
    """Await a run while its progress is shown."""
    failure: Exception | None = None
    reports: list[LoadReport] = []
    async with anyio.create_task_group() as group:
        group.start_soon(_show, monitor, view)
        try:
            reports.append(await runs())
        except (ChatError, ValueError, ImportError, ConnectionError) as error:
            failure = error  # the task group would wrap it
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return reports[0]


async def _show(monitor: LoadMonitor, view: ProgressView[LoadProgress]) -> None:
    while True:
        await anyio.sleep(REFRESH_SECONDS)
        progress = monitor.progress()
        if progress is not None:
            view.show(progress)


class _RecordsFile:
    """Writes `requests.jsonl` while its block is open. A run that fails before its first request leaves no file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, record: RequestRecord) -> None:
        """Write a record."""
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = (self._folder / "requests.jsonl").open("wb", buffering=BUFFER_BYTES)
        self._file.write(record.to_json())


def _view(terminal: Terminal, *, quiet: bool) -> ProgressView[LoadProgress]:
    if quiet:
        return NoProgress()
    if terminal.is_terminal and not terminal.is_dumb_terminal:
        return LoadTable(terminal)
    return LoadLines(terminal)
