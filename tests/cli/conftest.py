"""A simulator in a thread of its own, and the command run in this process, in the main thread as signals want it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from chatscope.cli import main
from chatscope.simulator import Outcome, Script, Simulator, simulator

KEY = "sk-cli-test"

# Far longer than anything here takes; it ends what hangs.
SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulator that runs in another thread."""

    server: Simulator
    base_url: str
    portal: BlockingPortal

    def outcome(self) -> Outcome:
        """Return how the latest request ended, waiting for its end."""
        ended = self.portal.start_task_soon(
            self.server.wait_until, lambda server: server.requests[-1].outcome is not Outcome.RUNNING
        )
        ended.result(SECONDS)
        return self.server.requests[-1].outcome

    def body(self) -> Any:
        """Return what the latest request sent."""
        return self.server.requests[-1].json


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


class Output(io.StringIO):
    """A stdout that does something as soon as a text was written to it.

    Args:
        text: what to wait for.
        then: what to do; may raise.
        terminal: whether it claims to be a terminal.
    """

    def __init__(self, text: str, then: Callable[[], object], *, terminal: bool) -> None:
        super().__init__()
        self._text: str | None = text
        self._then = then
        self._terminal = terminal

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._text is not None and self._text in self.getvalue():
            self._text = None
            self._then()
        return written

    def isatty(self) -> bool:
        return self._terminal

    def fileno(self) -> int:
        return os.open(os.devnull, os.O_WRONLY)  # one of its own, for those who redirect it


Simulate = Callable[[Script], Simulated]
Run = Callable[..., Ran]
MakeOutput = Callable[..., Output]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and none of the settings that change how output looks or when it is written."""
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "PYTHONUNBUFFERED", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulate]:
    """Start a simulator; the environment then says where it is."""
    with ExitStack() as stack:

        def start(script: Script) -> Simulated:
            portal = stack.enter_context(start_blocking_portal())
            server = simulator(script)
            base_url = stack.enter_context(portal.wrap_async_context_manager(server))
            monkeypatch.setenv("OPENAI_BASE_URL", base_url)
            return Simulated(server, base_url, portal)

        yield start


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
    """Put an `Output` in the place of stdout."""

    def replace(text: str, then: Callable[[], object], *, terminal: bool = False) -> Output:
        stdout = Output(text, then, terminal=terminal)
        monkeypatch.setattr("sys.stdout", stdout)
        return stdout

    return replace
