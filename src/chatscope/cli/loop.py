"""Running a command on an event loop, with signals as cancellation and exit codes for how it was stopped."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.util import find_spec
from typing import Final

import anyio
import click

CLOSED_OUTPUT: Final = 128 + 13
"""The exit code when nobody reads the output any more: what a shell reports for a tool that SIGPIPE (13) ended."""


def run(body: Callable[[], Awaitable[int]], backend: str, *, uvloop: bool) -> int:
    """Run a command's body on an event loop and return the exit code.

    SIGINT and SIGTERM cancel the body, which closes its connections on the way out.

    Raises:
        ClickException: the backend is not installed, or does not go with uvloop.
    """
    if backend == "trio":
        if uvloop:
            raise click.UsageError("--uvloop is an event loop for asyncio; it does not go with --backend trio")
        if find_spec("trio") is None:
            raise click.ClickException("trio is not installed; install it with: pip install 'chatscope[trio]'")
    elif uvloop and find_spec("uvloop") is None:
        raise click.ClickException("uvloop is not installed; install it with: pip install uvloop")
    options = {"use_uvloop": uvloop} if backend == "asyncio" else {}
    return anyio.run(_until_signal, body, backend=backend, backend_options=options)


async def _until_signal(body: Callable[[], Awaitable[int]]) -> int:
    """Run the body; a signal cancels it. A shell knows who was stopped by a signal from the exit code 128 + number."""
    if sys.platform == "win32":  # event loops have no signal handlers there; Ctrl-C is a KeyboardInterrupt
        return await told(body)
    code = 0
    received: list[signal.Signals] = []
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_at_signal, signals, group.cancel_scope, received)
            code = await told(body)
            group.cancel_scope.cancel()
    return 128 + received[0] if received else code


async def _cancel_at_signal(
    signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope, received: list[signal.Signals]
) -> None:
    received.append(await anext(signals))
    scope.cancel()


async def told(body: Callable[[], Awaitable[int]]) -> int:
    """Run the body; what the operating system refuses it, its output mostly, becomes an exit code and a sentence."""
    code = 1
    try:
        code = await body()
    except* BrokenPipeError:
        _give_up_output()
        code = CLOSED_OUTPUT
    except* OSError as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        tell_refusal(error)
    return code


def tell_refusal(error: BaseException) -> None:
    """Say what the operating system refused, and write nothing more to stdout."""
    _give_up_output()
    click.ClickException(str(error)).show()


def _give_up_output() -> None:
    """Send what is still to be written nowhere.

    Python flushes stdout once more when it exits, which would fail again and be reported (docs.python.org,
    library/signal, "Note on SIGPIPE").
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
