"""A LiteLLM proxy in a process of its own, and what it prints."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread
import httpx
import pytest

CONFIG = Path(__file__).parents[1] / "interop" / "litellm_proxy" / "config.yaml"
MASTER_KEY = "sk-interop"  # as in the config

# Importing LiteLLM takes about 10 s of CPU, and several times that on a busy machine.
START_SECONDS = 120.0
# An idle proxy stops at once on SIGTERM; one that still streams waits for its clients, so it is killed.
STOP_SECONDS = 5.0

# Whatever LiteLLM would fetch when it starts comes from its package instead.
OFFLINE = {
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_TELEMETRY": "False",
}


@dataclass(frozen=True, slots=True)
class ProxyLog:
    """What the proxy printed so far, in lines; filled by a thread that drains its pipe."""

    _lines: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def drain(self, pipe: Iterator[str]) -> None:
        for line in pipe:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def __str__(self) -> str:
        with self._changed:
            return "\n".join(self._lines)

    def count(self, text: str) -> int:
        """How many lines contain ``text``."""
        with self._changed:
            return sum(text in line for line in self._lines)

    async def wait_for(self, text: str, *, seconds: float = 20.0) -> None:
        """Return once a line contains ``text``; fail with the whole log after ``seconds``."""
        if not await anyio.to_thread.run_sync(self._await_line, text, seconds):
            pytest.fail(f"after {seconds} s the LiteLLM proxy has not printed {text!r}; it printed:\n{self}")

    def _await_line(self, text: str, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: any(text in line for line in self._lines), seconds)


@dataclass(frozen=True, slots=True)
class LiteLLMProxy:
    """A running LiteLLM proxy on loopback."""

    base_url: str
    api_key: str
    log: ProxyLog


@contextlib.contextmanager
def litellm_proxy(executable: str, home: str, upstream: str) -> Iterator[LiteLLMProxy]:
    """Run a proxy whose model `simulated` goes on to the server at `upstream`; stop it with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [executable, "--host", "127.0.0.1", "--port", str(port), "--config", str(CONFIG)]
    # The caller's keys, database URLs and LITELLM_* settings stay out of it; its group is killed as a whole.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "HOME": home, "UPSTREAM": upstream, **OFFLINE},
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    log = ProxyLog()
    reader = threading.Thread(target=log.drain, args=(process.stdout,), name="litellm-log", daemon=True)
    reader.start()
    try:
        origin = f"http://127.0.0.1:{port}"
        _await_ready(process, f"{origin}/health/liveliness", log)
        yield LiteLLMProxy(base_url=f"{origin}/v1", api_key=MASTER_KEY, log=log)
    finally:
        _stop(process)
        reader.join(STOP_SECONDS)
        process.stdout.close()


def _await_ready(process: subprocess.Popen[str], url: str, log: ProxyLog) -> None:
    """Return when the proxy answers; fail with its log when it exits or stays silent for too long."""
    give_up_at = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up_at:
        if (code := process.poll()) is not None:
            pytest.fail(f"the LiteLLM proxy exited with {code} while starting; it printed:\n{log}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, timeout=5.0, trust_env=False).is_success:
                return
        time.sleep(0.2)
    pytest.fail(f"the LiteLLM proxy was not ready within {START_SECONDS} s; it printed:\n{log}")


def _stop(process: subprocess.Popen[str]) -> None:
    """End the proxy's process group: SIGTERM, and SIGKILL for whatever is left after a grace period."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
