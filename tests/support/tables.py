"""Tables of rows in one test: a failure says which row it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def row(*values: object) -> Iterator[None]:
    """Add the values of a row to what its block raises."""
    try:
        yield
    except BaseException as failure:
        failure.add_note(f"in the row {values!r}")
        raise
