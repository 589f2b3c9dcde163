"""Tables of rows in one test: a failure says which row it was."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest
from _pytest.mark import ParameterSet


@contextmanager
def row(*values: object) -> Iterator[None]:
    """Add the values of a row to what its block raises."""
    try:
        yield
    except BaseException as failure:
        failure.add_note(f"in the row {values!r}")
        raise


def each_row(
    names: str | Sequence[str], rows: Iterable[Any], *, ids: Mapping[str, Any] | Sequence[str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test for each row of a table, as one case. Arguments as for `pytest.mark.parametrize`.

    Every row runs, whatever becomes of those before it; what failed comes out together, each with its row. The rows
    share the test's fixtures, so a test whose rows change them is parametrized instead.
    """
    arguments = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    table = [_values(given, len(arguments)) for given in rows]
    labels = list(ids or ())
    assert table, "a test without rows cannot fail"

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @wraps(test)
        def run(*args: Any, **fixtures: Any) -> None:
            failures: list[Exception] = []
            for number, cells in enumerate(table):
                values = dict(zip(arguments, cells, strict=True))
                failure: Exception
                try:
                    test(*args, **fixtures, **values)
                    continue
                except pytest.fail.Exception as outcome:  # which is no Exception
                    failure = AssertionError(outcome.msg).with_traceback(outcome.__traceback__)
                except Exception as error:  # noqa: BLE001 - raised below
                    failure = error
                shown = (
                    labels[number] if labels else ", ".join(f"{name}={value!r:.200}" for name, value in values.items())
                )
                failure.add_note(f"row {number}: {shown}")
                failures.append(failure)
            if failures:
                raise ExceptionGroup(f"{len(failures)} of {len(table)} rows", failures)

        signature = inspect.signature(test)
        left = [parameter for name, parameter in signature.parameters.items() if name not in arguments]
        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]  # what pytest reads
        return run

    return decorate


def _values(given: Any, count: int) -> Sequence[Any]:
    if isinstance(given, ParameterSet):
        return given.values
    values: Sequence[Any] = (given,) if count == 1 else given
    return values
