"""Files of chat requests, run to the end: what is recorded is neither lost nor paid for twice.

`run_batch` runs a source of requests and records each outcome in a journal, which is also the output. To resume a run
that was stopped or killed, start it again with the same arguments. `chatscope batch` is its command.

Here: files, keys, the journal, the run. Not here: how one request is sent, retried and priced (the adapter).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatscope.batch.errors import BatchError as BatchError
    from chatscope.batch.errors import InputError as InputError
    from chatscope.batch.errors import JournalError as JournalError
    from chatscope.batch.errors import LockedError as LockedError
    from chatscope.batch.options import BatchOptions as BatchOptions
    from chatscope.batch.progress import BatchProgress as BatchProgress
    from chatscope.batch.progress import BatchSummary as BatchSummary
    from chatscope.batch.result import BatchResult as BatchResult
    from chatscope.batch.run import BatchRun as BatchRun
    from chatscope.batch.run import run_batch as run_batch

_HOMES = {
    "BatchError": "errors",
    "BatchOptions": "options",
    "BatchProgress": "progress",
    "BatchResult": "result",
    "BatchRun": "run",
    "BatchSummary": "progress",
    "InputError": "errors",
    "JournalError": "errors",
    "LockedError": "errors",
    "run_batch": "run",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - one table says what is public  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'chatscope.batch' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"chatscope.batch.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
