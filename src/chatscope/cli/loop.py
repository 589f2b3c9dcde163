"""Run a command on an event loop. Signals cancel it, and the exit code says how it was stopped."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final, TextIO

import anyio
import click

from chatscope.errors import first_in
from chatscope.load.worker_loops import anyio_backend_of

CLOSED_OUTPUT: Final = 128 + 13
"""The exit code when the reader of the output has closed it: what a shell reports for SIGPIPE (13)."""

YOUNG_OBJECTS: Final = 20_000
"""How many more objects than at the last collection cause the next one: about 10 MB. Python's default is 700, fewer
than 200 running requests have."""


def run(
    body: Callable[[], Awaitable[int]],
    loop: str,
    *,
    on_first_signal: Callable[[], bool] | None = None,
    with_hangup: bool = False,
) -> int:
    """Run a command's body on an event loop and return the exit code.

    SIGINT and SIGTERM cancel the body, which then closes its connections.

    Args:
        body: the command's body; it returns the exit code.
        loop: the event loop: `asyncio`, `uvloop` or `trio`.
        on_first_signal: called at the first signal; if it returns True, only the next signal cancels the body.
        with_hangup: SIGHUP counts as a first signal, too, unless it is ignored (nohup). It never counts as a second
            one, because the shell and the system may both send it when a terminal is closed.

    Raises:
        ClickException: it is not installed.
    """
    if find_spec(loop) is None:
        package = "'chatscope[trio]'" if loop == "trio" else loop
        raise click.ClickException(f"{loop} is not installed; install it with: pip install {package}")
    backend, options = anyio_backend_of(loop)
    return anyio.run(_until_signal, body, on_first_signal, with_hangup, backend=backend, backend_options=options)


async def _until_signal(
    body: Callable[[], Awaitable[int]], on_first_signal: Callable[[], bool] | None, with_hangup: bool
) -> int:
    """Run the body until a signal cancels it. Shells expect the exit code 128 + number after a signal."""
    if sys.platform == "win32":  # no signal handlers on its event loops; Ctrl-C raises KeyboardInterrupt
        return await exit_code_of(body)
    code = 0
    received: list[signal.Signals] = []
    numbers = [signal.SIGINT, signal.SIGTERM]
    if with_hangup and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    with anyio.open_signal_receiver(*numbers) as signals:
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_at_signal, signals, group.cancel_scope, received, on_first_signal)
            code = await exit_code_of(body)
            group.cancel_scope.cancel()
    return 128 + received[0] if received else code


async def _cancel_at_signal(
    signals: AsyncIterator[signal.Signals],
    scope: anyio.CancelScope,
    received: list[signal.Signals],
    on_first_signal: Callable[[], bool] | None,
) -> None:
    number = await anext(signals)
    if on_first_signal is not None and on_first_signal():
        number = await anext(signals)
        while number not in {signal.SIGINT, signal.SIGTERM}:
            number = await anext(signals)
    received.append(number)
    scope.cancel()


@contextmanager
def fewer_collections() -> Iterator[None]:
    """Within the block, let the garbage collector ignore the objects that exist at its beginning, and run rarely.

    A command with many requests makes it look at all objects of all imported modules, and at all running requests,
    again and again. That took a fifth of a batch's CPU time (`python -m benchmarks.batch throughput`).
    """
    if gc.get_freeze_count():  # the host of this command line has made its own choice
        yield
        return
    threshold = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *threshold[1:])
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()


async def exit_code_of(body: Callable[[], Awaitable[int]]) -> int:
    """Run the body and return its exit code. Report an `OSError`, usually from the output, and return 1."""
    code = 1
    try:
        code = await body()
    except* BrokenPipeError:
        discard(sys.stdout)
        code = CLOSED_OUTPUT
    except* OSError as errors:
        report_os_error(first_in(errors))
    return code


def report_os_error(error: BaseException) -> None:
    """Print an `OSError` to stderr, and redirect stdout to nowhere."""
    discard(sys.stdout)
    click.ClickException(str(error)).show()


def discard(stream: TextIO) -> None:
    """Redirect a standard stream to nowhere.

    Python flushes it at exit. That flush would fail again, with a traceback (docs.python.org, library/signal, "Note on
    SIGPIPE").
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
