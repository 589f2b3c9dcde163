"""The errors of a batch as a whole. The error of a single line is a row of the errors file, not an exception.

::

    BatchError
    ├── InputError      the input or an argument is invalid; nothing was sent
    ├── JournalError    the output cannot be read or continued; nothing was sent
    └── LockedError     another run is writing this output
"""

from __future__ import annotations


class BatchError(Exception):
    """The root of the errors that `chatscope.batch` raises before it sends anything."""


class InputError(BatchError):
    """The input or an argument is invalid. The message names the line or the argument."""


class JournalError(BatchError):
    """The output of an earlier run cannot be read, or does not belong to this run."""


class LockedError(BatchError):
    """Another run is writing this output. The message names its process and host."""


class AbandonedError(Exception):
    """The preparation was cancelled. Only the preparing thread sees this."""


class LineError(Exception):
    """One line cannot become a request.

    Args:
        message: what is wrong with it.
        custom_id: the line's id, if it has one.
    """

    def __init__(self, message: str, custom_id: str | None = None) -> None:
        super().__init__(message)
        self.custom_id = custom_id
