"""The helpers of the tests fail where they should."""

from __future__ import annotations

import pytest
from tests.support.tables import each_row


def test_a_table_runs_every_row_and_reports_those_that_fail() -> None:
    seen = []

    @each_row("number, square", [(1, 1), (2, 5), (3, 9), (4, 0)])
    def rule(number: int, square: int) -> None:
        seen.append(number)
        if number == 4:
            pytest.fail("four")
        assert number**2 == square

    with pytest.raises(ExceptionGroup, match="2 of 4 rows") as caught:
        rule()
    assert seen == [1, 2, 3, 4]
    assert [failure.__notes__ for failure in caught.value.exceptions] == [
        ["row 1: number=2, square=5"],
        ["row 3: number=4, square=0"],
    ]
