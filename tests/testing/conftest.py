"""Fixtures for the test kit: a test file run in a pytest of its own."""

from __future__ import annotations

import pytest
from tests.support.inner_pytest import HEAD, Run

# pytester forgets what its runs import: what this process shares with them has to be there before.
import chatscope
import chatscope.testing.simulating  # noqa: F401


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a test file, which begins with `HEAD`; warnings are errors there, too."""
    for name in ("CI", "BUILD_NUMBER"):  # where pytest tells every message once more, whole, in its summary
        monkeypatch.delenv(name, raising=False)
    # Hypothesis is imported anew by each run, for nothing.
    options = "--strict-markers --tb=short -p no:hypothesispytest"
    pytester.makeini(f"[pytest]\nanyio_mode = auto\nfilterwarnings = error\naddopts = {options}\n")

    def run(source: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(HEAD + source)
        return pytester.runpytest_inprocess(*options)

    return run
