"""The example application passes its own tests, as it stands and with its own settings."""

from __future__ import annotations

from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tested_app"


def test_the_examples_tests_pass(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess(str(EXAMPLE), "-p", "no:cacheprovider", "-W", "error")
    # Seven of them on three loops, three in virtual time, one without a loop.
    result.assert_outcomes(passed=25)


def test_they_would_notice_a_mistake(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    from examples.tested_app import tickets

    monkeypatch.setattr(tickets, "AT_ONCE", 51)
    monkeypatch.setattr(tickets, "_messages", lambda instruction, ticket: [{"role": "user", "content": ticket.text}])
    result = pytester.runpytest_inprocess(str(EXAMPLE), "-p", "no:cacheprovider")
    outcomes = result.parseoutcomes()
    assert outcomes["failed"] >= 9, outcomes
    result.stdout.fnmatch_lines(["*  messages: (- expected, + got)"])
