"""Modules run as commands in processes of their own, from the root of the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

Launch = Callable[..., "subprocess.Popen[str]"]


@contextmanager
def launcher() -> Iterator[Launch]:
    """Yield a function that runs `python -m MODULE ARGUMENTS` against the server at `base_url`, if there is one."""
    with ExitStack() as stack:

        def start(module: str, *arguments: str, base_url: str | None = None) -> subprocess.Popen[str]:
            environment = os.environ | {"PYTHONUNBUFFERED": "1"}
            if base_url is not None:
                environment |= {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-examples"}
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)  # called before the process is waited for
            return process

        yield start
