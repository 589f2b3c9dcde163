"""`chatscope batch run`: the command. Not here: what it does (`chatscope.batch`), and what it prints (`batch_view`)."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import anyio
import click
from rich.text import Text

from chatscope import AsyncChatGPTAdapter, RetryPolicy
from chatscope.batch import BatchError, BatchOptions, BatchProgress, BatchRun, run_batch
from chatscope.batch.dry_run import dry_run as inspect_input
from chatscope.cli.batch_options import with_options
from chatscope.cli.batch_outputs import export_command, failed_command, status_command
from chatscope.cli.batch_view import BatchLines, BatchPanel, Limits, summary_lines
from chatscope.cli.loop import fewer_collections
from chatscope.cli.loop import run as run_loop
from chatscope.cli.options import NO_KEY, key_from_environment
from chatscope.cli.progress_views import NoProgress, ProgressView, UnbrokenProgress, unless_closed
from chatscope.cli.terminal import Terminal, error_text, without_controls
from chatscope.protocol.endpoint import shown_url
from chatscope.ray import ShardedRun, run_batch_on_ray

_Run: TypeAlias = BatchRun | ShardedRun

REFRESH_SECONDS: Final = 0.25

USAGE: Final = 2
"""The exit code when nothing was sent, because the input, an option or the output is invalid."""


@click.group("batch")
def batch() -> None:
    """Run files of requests, and resume them after a crash.

    Outcomes are recorded in the output as they arrive. The same command resumes where an earlier run stopped.
    """


@dataclass(frozen=True, slots=True)
class _Arguments:
    """The arguments of `chatscope batch run`."""

    source: str
    output: Path
    options: BatchOptions
    adapter: dict[str, Any]
    progress: str
    as_json: bool
    ray: str | None
    ray_workers: int | None


@batch.command("run", short_help="Run a file of requests, or resume it.")
@click.argument("source", metavar="INPUT")
@with_options
def run_command(source: str, output: Path, backend: str, dry_run: bool, **given: Any) -> int:
    """Run the requests of INPUT: JSON lines, also .gz or .zst, CSV, Parquet, or - for stdin.

    The API key comes only from OPENAI_API_KEY.

    \b
    Exit codes:
      0    all done
      1    some requests failed permanently
      2    the input, an option or the output is invalid; nothing was sent
      3    stopped early: a limit, quota, key, disk, or an input that fails or changes
      130  Ctrl-C, SIGTERM or a closed terminal
    After any code but 2, the same command resumes the run.
    """  # noqa: D301 - the backspace character makes click keep the lines as they are
    arguments = _parse(source, output, given)
    if dry_run:
        return _print_dry_run(arguments)
    stop: list[_Run] = []
    code = run_loop(
        partial(_run, arguments, stop),
        backend,
        on_first_signal=lambda: bool(stop) and _stop(stop[0]),
        with_hangup=True,
    )
    if code in {0, USAGE}:
        return code
    # Also after a second Ctrl-C, which cancelled the run
    _print(Text(f"To resume: {_this_command(arguments.adapter['base_url'])}"))
    return 130 if code in {129, 130, 143} else code


def _print(text: Text) -> None:
    with unless_closed():
        Terminal(stderr=True, highlight=False).print(text, soft_wrap=True)


def _this_command(base_url: str | None) -> str:
    program = [Path(sys.argv[0]).name]
    if program == ["__main__.py"]:
        program = [Path(sys.executable).name, "-m", "chatscope"]
    given = sys.argv[1:] if base_url is None else [one.replace(base_url, shown_url(base_url)) for one in sys.argv[1:]]
    return shlex.join([*program, *given])


def _parse(source: str, output: Path, given: dict[str, Any]) -> _Arguments:
    if given["ray"] is None and given["ray_workers"] is not None:
        raise click.UsageError("--ray-workers needs --ray: without a cluster, one process sends")
    schema = given.pop("schema")
    retry_errors = given.pop("retry_errors")
    progress, as_json, ray, ray_workers = (given.pop(name) for name in ("progress", "as_json", "ray", "ray_workers"))
    adapter = {
        "base_url": given.pop("base_url"),
        "profile": given.pop("profile"),
        "max_concurrency": given.pop("max_concurrency"),
        "requests_per_minute": given.pop("rpm"),
        "tokens_per_minute": given.pop("tpm"),
        "retry": RetryPolicy(attempts=given.pop("attempts")),
        "timeout": given.pop("timeout"),
        "keep_finished": 1,
    }
    if given["model"] is not None:
        adapter["model"] = given["model"]
    try:
        if schema is not None:
            given["schema"] = _json_of(schema)
        given["retry_errors"] = True if retry_errors == "*" else retry_errors or False
        return _Arguments(source, output, BatchOptions(**given), adapter, progress, as_json, ray, ray_workers)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _json_of(file: IO[bytes]) -> Any:
    try:
        return json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"schema: {file.name} is not JSON: {error}") from error


def _stop(run: _Run) -> bool:
    """Stop a run, and return whether it was running."""
    was_running = run.progress().phase == "running"
    run.stop()
    return was_running


async def _run(arguments: _Arguments, started: list[_Run]) -> int:
    stderr = Terminal(stderr=True, highlight=False)
    try:
        await (_run_here if arguments.ray is None else _run_on_ray)(arguments, started, stderr)
    except (BatchError, ValueError, ImportError, ConnectionError) as error:
        _print(Text(f"Error: {without_controls(str(error))}", style="bold red"))
        return USAGE
    run = started[0]
    summary = run.summary
    if arguments.as_json:
        click.echo(json.dumps(summary.to_dict(), indent=2))
    else:
        for line in summary_lines(summary):
            _print(Text(without_controls(line)))
    return summary.exit_code


async def _run_here(arguments: _Arguments, started: list[_Run], terminal: Terminal) -> None:
    adapter = AsyncChatGPTAdapter(key_from_environment(), **arguments.adapter)
    if adapter.implementation_status == "unavailable":
        raise BatchError(NO_KEY)
    async with adapter:
        run = run_batch(arguments.source, arguments.output, adapter=adapter, options=arguments.options)
        started.append(run)
        await _run_and_show(run, arguments, terminal)


async def _run_on_ray(arguments: _Arguments, started: list[_Run], terminal: Terminal) -> None:
    run = run_batch_on_ray(
        arguments.source,
        arguments.output,
        address=arguments.ray or "auto",
        workers=arguments.ray_workers,
        adapter=arguments.adapter,
        options=arguments.options,
    )
    started.append(run)
    await _run_and_show(run, arguments, terminal)


async def _run_and_show(run: _Run, arguments: _Arguments, terminal: Terminal) -> None:
    """Run to the end, showing the progress.

    Raises:
        BatchError, ValueError, OSError, ImportError: the batch cannot be run; nothing was sent.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        with UnbrokenProgress(_view(arguments, terminal)) as view:
            group.start_soon(_show, run, view)
            failure = await _finish(run)
            view.show(run.progress())
            group.cancel_scope.cancel()
    if failure is not None and run.progress().phase != "ended":
        raise failure


async def _finish(run: _Run) -> Exception | None:
    """Run to the end. An error of the whole batch is returned, because the task group would wrap it."""
    try:
        async with run:
            with fewer_collections():
                await run.finish()
    except (BatchError, ValueError, ImportError, ConnectionError) as error:
        return error  # once requests have been sent, the summary reports it
    return None


async def _show(run: _Run, view: ProgressView[BatchProgress]) -> None:
    while True:
        view.show(run.progress())
        await anyio.sleep(REFRESH_SECONDS)


def _view(arguments: _Arguments, terminal: Terminal) -> ProgressView[BatchProgress]:
    limits = Limits(arguments.adapter["requests_per_minute"], arguments.adapter["tokens_per_minute"])
    if arguments.progress == "none":
        return NoProgress()
    if arguments.progress == "auto" and terminal.is_terminal and not terminal.is_dumb_terminal:
        return BatchPanel(terminal, f"{arguments.source} to {arguments.output}", limits)
    return BatchLines(terminal, limits)


def _print_dry_run(arguments: _Arguments) -> int:
    try:
        adapter = AsyncChatGPTAdapter(**arguments.adapter)
        base_url = adapter.get_adapter_status()["base_url"]
        found = inspect_input(arguments.source, arguments.output, arguments.options, adapter.model, base_url)
    except (BatchError, ValueError, OSError) as error:
        raise click.UsageError(error_text(error)) from error
    for problem in found.problems:
        click.echo(problem, err=True)
    tokens = "an unknown number of" if found.completion_tokens is None else f"at most {found.completion_tokens:,}"
    cost = "not known" if found.cost is None else f"about ${found.cost:.4g} if all are used"
    click.echo(
        f"{found.total:,} rows: {found.settled:,} recorded, {found.to_send:,} to send, {found.invalid:,} invalid\n"
        f"tokens: about {found.prompt_tokens:,} in, {tokens} out; cost: {cost}. Nothing was sent."
    )
    return USAGE if found.invalid else 0


for _command in (status_command, failed_command, export_command):
    batch.add_command(_command)
