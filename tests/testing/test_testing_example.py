"""The example application passes its own tests, and they fail when the application has a fault."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tested_app"


def test_the_examples_tests_pass(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess(str(EXAMPLE), "-p", "no:cacheprovider", "-W", "error")
    # Seven on three loops, three in virtual time, one without a loop.
    result.assert_outcomes(passed=25)


def test_they_find_a_fault(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    from examples.tested_app import tickets

    monkeypatch.setattr(tickets, "_messages", lambda instruction, ticket: [{"role": "user", "content": ticket.text}])
    options = ("-p", "no:cacheprovider", "--tb=short", "-k", "one_line")
    result = pytester.runpytest_inprocess(str(EXAMPLE), *options)
    result.assert_outcomes(failed=3, deselected=22)
    result.stdout.fnmatch_lines(["*  messages: (- expected, + got)"])
