"""The plugin is part of every pytest run where chatscope is installed. It costs almost nothing until it is used."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest

import chatscope.testing

if TYPE_CHECKING:
    from tests.support.inner_pytest import Run

PROBE = """
import json, sys
import pytest
before = set(sys.modules)
import chatscope.testing.plugin
loaded = set(sys.modules) - before
print(json.dumps(sorted(loaded)))
"""

IN_A_RUN = """
import sys

HEAVY = ("anyio", "asyncio", "chatscope._client.client", "chatscope.simulator", "h11", "httpx", "msgspec", "trio")

def test_it():
    assert "chatscope.testing.fixtures" in sys.modules
    assert [name for name in HEAVY if name in sys.modules] == []
"""


def test_the_entry_point() -> None:
    (plugin,) = entry_points(group="pytest11", name="chatscope")
    assert plugin.value == "chatscope.testing.plugin"


def test_loading_it_loads_nothing_heavy() -> None:
    ran = subprocess.run([sys.executable, "-W", "error", "-c", PROBE], capture_output=True, text=True, check=True)
    expected = ["chatscope", "chatscope.testing", "chatscope.testing.plugin", "chatscope.version"]
    assert json.loads(ran.stdout) == expected


def test_a_run_that_does_not_use_it_loads_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(IN_A_RUN)
    others = ("anyio", "hypothesispytest", "respx", "cov", "timeout")
    options = [option for name in others for option in ("-p", f"no:{name}")]
    result = pytester.runpytest_subprocess("-W", "error", *options)
    result.assert_outcomes(passed=1)


def test_pytest_lists_its_markers_and_fixtures(run: Run) -> None:
    result = run("", "--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.chat_endpoint(*", "@pytest.mark.virtual_time: *"])
    result = run("", "--fixtures")
    result.stdout.fnmatch_lines(["chat_endpoint -- *", "    A scripted endpoint *", "chat_simulator -- *"])


def test_it_leaves_an_older_pytest_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest, "version_tuple", (7, 4, 4))
    result = run("def test_it():\n    pass\n\ndef test_with_it(chat_endpoint):\n    pass\n")
    result.assert_outcomes(passed=1, errors=1)


def test_it_can_be_turned_off(run: Run) -> None:
    result = run("def test_it(chat_endpoint):\n    pass\n", "-p", "no:chatscope")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'chat_endpoint' not found*"])


def test_every_public_name_is_there_and_documented() -> None:
    assert set(chatscope.testing.__all__) == set(chatscope.testing._HOMES)
    for name in chatscope.testing.__all__:
        assert getattr(chatscope.testing, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        chatscope.testing.nothing  # noqa: B018
