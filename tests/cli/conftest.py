"""Fixtures for the command line: its environment, a simulator in a thread, the command in this process."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pytest
from tests.support.command import MakeOutput, Output, Ran, Run
from tests.support.simulated import Simulate, Simulated, simulators

from chatscope.cli import main
from chatscope.simulator import Script

KEY = "sk-cli-test"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a key, and remove every setting that changes how or when output is written."""
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "PYTHONUNBUFFERED", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulate]:
    """Start a simulator, and set the environment to its address."""
    with simulators() as start:

        def start_for_the_command(script: Script) -> Simulated:
            simulated = start(script)
            monkeypatch.setenv("OPENAI_BASE_URL", simulated.base_url)
            return simulated

        yield start_for_the_command


@pytest.fixture
def chatscope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process."""

    def run(*arguments: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        code = main(arguments)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> MakeOutput:
    """Replace stdout by an `Output`."""

    def replace(text: str, then: Callable[[], object], *, terminal: bool = False) -> Output:
        stdout = Output(text, then, terminal=terminal)
        monkeypatch.setattr("sys.stdout", stdout)
        return stdout

    return replace
