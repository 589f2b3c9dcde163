"""A script of the kind that people write to send a file of requests, after the one in OpenAI's cookbook.

Written anew from its structure: one aiohttp session; a loop that reads a request, checks two budgets, starts a task,
and sleeps a millisecond; a task that posts the request and appends the pair of request and response to a file that it
opens for it. Left out: the tokenizer, which would only cost it time, and logging.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

import aiohttp

LOOP_SLEEP: Final = 0.001
"""The original's own: at most 1,000 requests a second."""

ATTEMPTS: Final = 5
PER_MINUTE: Final = 10_000_000.0
"""Budgets that never bind, for requests and tokens alike."""


async def run(source: Path, output: Path, url: str, api_key: str) -> None:
    """Send every request of a file."""
    script = _Script(output, url)
    headers = {"Authorization": f"Bearer {api_key}"}
    with source.open() as lines:
        async with aiohttp.ClientSession(headers=headers) as session:
            await script.send_all(lines, session)


class _Script:
    def __init__(self, output: Path, url: str) -> None:
        self._output = output
        self._url = url
        self._again: deque[tuple[dict[str, Any], int]] = deque()
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def send_all(self, lines: Any, session: aiohttp.ClientSession) -> None:
        requests = tokens = PER_MINUTE
        updated = time.time()
        waiting: tuple[dict[str, Any], int] | None = None
        more = True
        while True:
            if waiting is None:
                if self._again:
                    waiting = self._again.popleft()
                elif more and (line := next(lines, None)) is not None:
                    waiting = json.loads(line)["body"], ATTEMPTS
                    self._open += 1
                else:
                    more = False
            now = time.time()
            requests = min(PER_MINUTE, requests + PER_MINUTE * (now - updated) / 60)
            tokens = min(PER_MINUTE, tokens + PER_MINUTE * (now - updated) / 60)
            updated = now
            if waiting is not None and requests >= 1 and tokens >= 100:
                requests, tokens = requests - 1, tokens - 100
                task = asyncio.create_task(self._call(session, *waiting))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                waiting = None
            if not self._open:
                return
            await asyncio.sleep(LOOP_SLEEP)

    async def _call(self, session: aiohttp.ClientSession, body: dict[str, Any], attempts: int) -> None:
        async with session.post(self._url, json=body) as response:
            received = await response.json()
        if "error" in received and attempts > 1:
            self._again.append((body, attempts - 1))
            return
        with self._output.open("a") as file:
            file.write(json.dumps([body, received]) + "\n")
        self._open -= 1
