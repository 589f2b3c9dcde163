"""`chatscope load`: the command and its options. Not here: what it does (`chatscope.load`) and prints (`load_view`)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal, Self

import anyio
import click
from rich.text import Text

from chatscope import ChatError
from chatscope.cli.load_options import WORKLOAD_OPTIONS, with_load_options
from chatscope.cli.load_reports import compare_command, report_command, write_page
from chatscope.cli.load_view import LoadLines, LoadTable, report_lines
from chatscope.cli.loop import run as run_loop
from chatscope.cli.options import NO_KEY, key_from_environment
from chatscope.cli.progress_views import NoProgress, ProgressView
from chatscope.cli.terminal import Terminal, error_text, without_controls
from chatscope.load import (
    LoadMonitor,
    LoadPlan,
    LoadProgress,
    LoadReport,
    RequestRecord,
    Workload,
    measure_client_error,
    run_in_processes,
)
from chatscope.load.worker_loops import WorkerLoop
from chatscope.ray import run_load_on_ray

FAILED: Final = 1
"""The exit code when nothing succeeded, or a file could not be written."""

USAGE: Final = 2
"""The exit code when an option, a file or the key is invalid; nothing was sent."""

OBJECTIVE_MISSED: Final = 3
CLIENT_IN_THE_WAY: Final = 4
STOPPED: Final = 130

REFRESH_SECONDS: Final = 1.0
"""How often the view is drawn, in seconds. Drawing does not disturb the workers, which are separate processes."""

BUFFER_BYTES: Final = 1 << 20
"""The buffer of `requests.jsonl`, in bytes. Each write blocks the event loop for a moment, so there are few."""


@click.group("load", invoke_without_command=True, short_help="Measure a server, and whether the measurement is true.")
@with_load_options
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
    """Measure a server under load, and report whether the client was in the way.

    Set the load with --concurrency, --rate or --trace, and its length with --requests or --duration. A list of values
    runs one stage for each. The API key comes from OPENAI_API_KEY; if that is empty, no key is sent.

    \b
    Exit codes:
      0    measured
      1    nothing succeeded, or a file of --out could not be written
      2    bad arguments; nothing was sent
      3    an objective (--slo) is not met; with --search, no load meets it
      4    the client was in the way; the figures are still printed
      130  Ctrl-C; what was measured is printed
    """  # noqa: D301 - the backspace character makes click keep the lines as they are
    if context.invoked_subcommand is not None:
        return 0
    if given["model"] is None:
        raise click.UsageError("give --model")
    asked = {name: given.pop(name) for name in WORKLOAD_OPTIONS}
    if (extra_body := given.pop("extra_body")) is not None:
        given["parameters"] = {**given["parameters"], "extra_body": extra_body}
    try:
        plan = LoadPlan(workload=Workload(**asked), api_key=key_from_environment(), **given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if out is not None and (out / "summary.json").exists():
        raise click.UsageError(f"--out: {out} has a report already; choose another folder")
    monitor = LoadMonitor()
    runs = partial(_measure, plan, monitor, workers=workers, loop=backend, self_test=self_test, ray=ray)
    body = partial(_run, runs, monitor, out, as_json=as_json, quiet=quiet)
    return run_loop(body, backend, on_first_signal=monitor.stop)


load.add_command(compare_command)
load.add_command(report_command)


async def _run(
    runs: Callable[[], Awaitable[LoadReport]], monitor: LoadMonitor, out: Path | None, *, as_json: bool, quiet: bool
) -> int:
    stderr = Terminal(stderr=True, highlight=False)
    records = None if out is None else _RecordsFile(out)
    try:
        with ExitStack() as stack:
            if records is not None:
                monitor.on_record = stack.enter_context(records).write
            view = stack.enter_context(_view(stderr, quiet=quiet))
            report = await _run_and_show(runs, monitor, view)
    except (ChatError, ValueError, ImportError, ConnectionError) as error:
        _print_error(stderr, error)
        return FAILED if isinstance(error, ChatError) else USAGE
    failure = None if records is None else records.failure
    if out is not None:
        try:
            report.save(out, records=not (out / "requests.jsonl").exists())
            write_page(report, out, stderr)
        except OSError as error:
            failure = failure or error
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        for line in report_lines(report):
            click.echo(without_controls(line))
        if out is not None and failure is None:
            click.echo(f"\nfiles: {out}")
    if failure is not None:  # after the figures, which took as long as the run
        _print_error(stderr, failure)
        return FAILED
    return exit_code(report)


def _print_error(stderr: Terminal, error: Exception) -> None:
    stderr.print(Text(f"Error: {without_controls(error_text(error))}", style="bold red"), soft_wrap=True)


async def _measure(
    plan: LoadPlan,
    monitor: LoadMonitor,
    *,
    workers: int | Literal["auto"],
    loop: WorkerLoop,
    self_test: bool,
    ray: str | None,
) -> LoadReport:
    if plan.api_key is None:  # checked before the self-test, which takes as long as the run
        raise ValueError(NO_KEY)
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
    """Await a run, showing its progress."""
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
    """Writes `requests.jsonl` while its block is open. A run that fails before its first request leaves no file.

    Attributes:
        failure: why it could not be written; the run continues.
    """

    def __init__(self, folder: Path) -> None:
        self.failure: OSError | None = None
        self._folder = folder
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._file is not None:
                self._file.close()
        except OSError as failure:
            self.failure = self.failure or failure

    def write(self, record: RequestRecord) -> None:
        """Write a record, unless one could not be written."""
        if self.failure is not None:
            return
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = (self._folder / "requests.jsonl").open("wb", buffering=BUFFER_BYTES)
            self._file.write(record.to_json())
        except OSError as failure:
            self.failure = failure


def _view(terminal: Terminal, *, quiet: bool) -> ProgressView[LoadProgress]:
    if quiet:
        return NoProgress()
    if terminal.is_terminal and not terminal.is_dumb_terminal:
        return LoadTable(terminal)
    return LoadLines(terminal)
