"""Files of chat requests, run to the end: what is recorded is neither lost nor paid for twice.

`run_batch` runs a source of requests and records each outcome in a journal, which is also the output. To resume a run
that was stopped or killed, start it again with the same arguments. `chatscope batch` is its command.

Here: files, keys, the journal, the run. Not here: how one request is sent, retried and priced (the adapter).
"""

from typing import TYPE_CHECKING

from chatscope import load_at_first_use

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

__getattr__, __dir__ = load_at_first_use(__name__, _HOMES)
