"""Keeps stamina's default hooks from printing bare lines about this package's retries if logging is not configured.

Without any configuration, Python prints a record of its logging module to stderr, and structlog prints one to stdout.
This package logs its retries itself. stamina's hooks are process-wide settings and never changed: hooks that a user has
set are called, and so are the default ones once logging or structlog is configured (`structlog.configure()` is enough).
Retries of other packages are not affected.
"""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Final

from stamina.instrumentation import RetryDetails, get_on_retry_hooks

is_scheduling: Final[ContextVar[bool]] = ContextVar("chatscope_is_scheduling", default=False)
"""Whether the current task is scheduling a retry of this package, so that stamina's log records are about it."""

_STRUCTLOG_HOOK: Final = "stamina.instrumentation._structlog"
"""The module of stamina's hook for structlog. It is the default hook if structlog is installed."""


class _UnhandledFilter(logging.Filter):
    """Drops stamina's log records about this package's retries if no handler is configured for them."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not is_scheduling.get() or logging.getLogger(record.name).hasHandlers()


logging.getLogger("stamina").addFilter(_UnhandledFilter())


def mute_unconfigured_structlog(retries: Any) -> None:
    """Make the retries of one `stamina.retry_context`, entered with `aiter`, skip structlog while it is unconfigured.

    stamina has no hooks for one context, so this replaces the one callback with which its tenacity object calls them.
    With a stamina that has no such object, nothing happens.
    """
    retrying = getattr(retries, "_t_a_retrying", None)
    call_all = getattr(retrying, "before_sleep", None)
    if retrying is None or call_all is None:
        return

    def before_sleep(state: Any) -> None:
        hooks = get_on_retry_hooks()
        heard = [hook for hook in hooks if not _prints_bare(hook)]
        if len(heard) == len(hooks):
            call_all(state)
            return
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
        for hook in heard:
            if isinstance(entered := hook(details), AbstractContextManager):
                entered.__enter__()
                retries._cms_to_exit.append(entered)  # stamina exits it before the next attempt

    retrying.before_sleep = before_sleep


def _prints_bare(hook: object) -> bool:
    structlog = sys.modules.get("structlog")
    return (
        getattr(hook, "__module__", "") == _STRUCTLOG_HOOK and structlog is not None and not structlog.is_configured()
    )
