"""Calls stamina's hooks for this package's retries, guarded, and prints nothing if logging is not configured.

Without any configuration, Python prints a record of its logging module to stderr, and structlog prints one to stdout.
This package logs its retries itself. stamina's hooks are process-wide settings, which this package never changes. Hooks
that a user has set are called, and so are the default ones once logging or structlog is configured
(`structlog.configure()` is enough). Retries of other packages are not affected. If a hook raises, the error is logged
once and the retry continues.
"""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Final

from stamina.instrumentation import RetryDetails, RetryHook, get_on_retry_hooks

from chatscope.telemetry.guard import Guard, GuardedBlock

is_scheduling: Final[ContextVar[bool]] = ContextVar("chatscope_is_scheduling", default=False)
"""Whether the current task is scheduling a retry of this package, so that stamina's log records are about it."""

_STRUCTLOG_HOOK: Final = "stamina.instrumentation._structlog"
"""The module of stamina's hook for structlog. It is the default hook if structlog is installed."""

_guard: Final = Guard()
"""All retries share it, because stamina's hooks are process-wide."""


class _UnhandledFilter(logging.Filter):
    """Drops stamina's log records about this package's retries if no handler is configured for them."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not is_scheduling.get() or logging.getLogger(record.name).hasHandlers()


logging.getLogger("stamina").addFilter(_UnhandledFilter())


def guard_hooks(retries: Any) -> None:
    """Guard the hooks of a `stamina.retry_context` that `aiter` has entered; skip structlog if it is unconfigured.

    stamina has no hooks for one context, so this replaces the callback with which the context's tenacity object calls
    them. If a version of stamina has no such object, this does nothing.
    """
    retrying = getattr(retries, "_t_a_retrying", None)
    if retrying is None or getattr(retrying, "before_sleep", None) is None:
        return

    def before_sleep(state: Any) -> None:
        wait = state.upcoming_sleep
        details = RetryDetails(
            name="<context block>",
            args=(),
            kwargs={},
            retry_num=state.attempt_number,
            wait_for=wait,
            waited_so_far=state.idle_for - wait,
            caused_by=state.outcome.exception(),
        )
        for hook in _guard.call("stamina's retry hooks", (), get_on_retry_hooks):
            if not _prints_bare(hook) and (block := _entered(hook, details)) is not None:
                retries._cms_to_exit.append(block)  # stamina exits it before each further attempt

    retrying.before_sleep = before_sleep


def _entered(hook: RetryHook, details: RetryDetails) -> GuardedBlock | None:
    """Call a hook, and enter the block that it returns, if it returns one."""
    name = f"stamina's retry hook {getattr(hook, '__qualname__', type(hook).__name__)}"
    block = _guard.call(name, None, hook, details)
    if not isinstance(block, AbstractContextManager):
        return None
    guarded = GuardedBlock(_guard, name, lambda: block)
    guarded.__enter__()
    return guarded


def _prints_bare(hook: object) -> bool:
    structlog = sys.modules.get("structlog")
    return (
        getattr(hook, "__module__", "") == _STRUCTLOG_HOOK and structlog is not None and not structlog.is_configured()
    )
