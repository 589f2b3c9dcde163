"""Starts the processes of a run, the server and the contenders, each on its core. They communicate by lines of JSON.

Not here: what is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trustme

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """Runs a module of this package in a separate process while the block is open.

    Entering the block waits for the first line of output. The process ends when its standard input is closed.
    """

    def __init__(self, module: str, *arguments: str, core: int | None, source: str | None = None) -> None:
        pinned = () if core is None else ("--core", str(core))
        self._command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, *pinned]
        self._source = source
        self._process: subprocess.Popen[str] | None = None
        self.greeting: Any = None

    def __enter__(self) -> Self:
        self.start()
        self.greeting = self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        if error is not None:
            process.kill()
        process.communicate()

    def start(self) -> None:
        """Start the process without waiting for it, so that several can start at once. A second call does nothing."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=environment(self._source),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

    def ask(self, order: dict[str, Any]) -> Any:
        """Send an order and return the response."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError(f"{' '.join(self._command[2:])} ended with status {self._process.wait()}")
        return json.loads(line)


class LocalServer:
    """The server in its own process, with a certificate made for this run."""

    def __init__(self, core: int | None) -> None:
        self._core = core
        self._folder = tempfile.TemporaryDirectory(prefix="benchmarks-")

    def __enter__(self) -> Self:
        folder = Path(self._folder.name)
        authority = trustme.CA()
        certificate = folder / "server.pem"
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        self.authority = str(folder / "authority.pem")
        authority.cert_pem.write_to_path(self.authority)
        self._process = Process("harness.server", "--certificate", str(certificate), core=self._core)
        self.port, self.tls_port = self._process.__enter__().greeting
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, error, trace)
        self._folder.cleanup()


def environment(source: str | None = None) -> dict[str, str]:
    """Return the environment without the variables that would redirect a client: proxies, keys, addresses.

    Args:
        source: a folder to put first on the import path.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("OPENAI_", "PYTHONASYNCIO", "PYTHONPROFILE"))
    }
    if source is not None:
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (source, kept.get("PYTHONPATH"))))
    return kept
