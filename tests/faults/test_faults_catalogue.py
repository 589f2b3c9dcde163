"""The fault catalogue: each row is a fault on real sockets and the one outcome that must come of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from _pytest.mark import ParameterSet
from tests.faults import rows_connecting, rows_ending, rows_endless, rows_field, rows_status
from tests.faults.driver import run
from tests.faults.rows import Loops, Row
from tests.support.certificates import Certificates
from tests.support.figures import Figures

CATALOGUE = [
    *rows_connecting.ROWS,
    *rows_ending.ROWS,
    *rows_endless.ROWS,
    *rows_field.ROWS,
    *rows_status.ROWS,
]

MARKS = {Loops.ALL: (), Loops.TWO: (pytest.mark.two_loops,), Loops.ONE: (pytest.mark.one_loop,)}


def cases() -> Iterator[ParameterSet]:
    """Yield the rows as cases."""
    for row in CATALOGUE:
        yield pytest.param(row, id=row.name, marks=MARKS[row.loops])


@pytest.mark.slow
@pytest.mark.parametrize("row", [*cases()])
async def test_row(row: Row, certificates: Certificates, figures: Figures, loop: str) -> None:
    began = time.perf_counter()
    assert await run(row, certificates) == row.expected
    figures.took(loop, row.name, time.perf_counter() - began)


def test_the_catalogue(figures: Figures, record_property: Callable[[str, object], None]) -> None:
    """Every row has a name of its own; how many there are, and how many were run, is recorded."""
    assert [name for name, times in Counter(row.name for row in CATALOGUE).items() if times > 1] == []
    record_property("fault_catalogue_rows", len(CATALOGUE))
    record_property("fault_catalogue_runs", dict(figures.rows))
