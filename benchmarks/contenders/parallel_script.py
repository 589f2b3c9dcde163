"""A common script for sending a file of requests: `api_request_parallel_processor.py` of OpenAI's cookbook.

It is rewritten here from the original's behaviour, with the original's defaults, but for the budgets, which are never
exhausted. One loop reads a request, counts its tokens, refills two budgets, starts a task and sleeps for a millisecond.
The task logs its start, posts the request through one aiohttp session, and opens the output file to append the request
and the response. After a rate limit, the loop pauses for 15 s. The log texts are f-strings, so those of level DEBUG
cost time as well, though they are dropped.

The script counts tokens with `tiktoken`, which downloads its vocabulary at the first use. This contender downloads
nothing: the vocabulary must be in the folder `TIKTOKEN_CACHE_DIR`, or `litellm` must be installed, which contains a
copy (`pip install tiktoken; pip install --no-deps litellm`). Without either, no tokens are counted, which flatters the
script.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import aiohttp

LOOP_SLEEP: Final = 0.001
"""The original's value. It limits the script to 1,000 requests per second."""

PAUSE_SECONDS: Final = 15
"""How long the loop pauses after a rate limit, in seconds."""

ATTEMPTS: Final = 5
PER_MINUTE: Final = 10_000_000.0
"""A budget that is never exhausted, for requests and for tokens."""

ENCODING: Final = "cl100k_base"
VOCABULARY: Final = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
"""The name of tiktoken's vocabulary in its cache: the SHA-1 of its URL."""

_log = logging.getLogger(__name__)


def vocabulary() -> Path | None:
    """Return the folder with the vocabulary; `None` if tiktoken or the vocabulary is missing."""
    if find_spec("tiktoken") is None:
        return None
    folders = [Path(os.environ["TIKTOKEN_CACHE_DIR"])] if "TIKTOKEN_CACHE_DIR" in os.environ else []
    if (litellm := find_spec("litellm")) is not None:
        places = litellm.submodule_search_locations or []
        folders += [Path(place) / "litellm_core_utils" / "tokenizers" for place in places]
    return next((folder for folder in folders if (folder / VOCABULARY).is_file()), None)


def token_counter() -> Callable[[dict[str, Any]], int]:
    """Return a function that counts a request's tokens: the prompt's, by tiktoken, plus the completion's limit."""
    if (folder := vocabulary()) is None:
        return lambda _: 100
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    get_encoding = import_module("tiktoken").get_encoding
    get_encoding(ENCODING)  # reads the vocabulary, once

    def count(body: dict[str, Any]) -> int:
        encoding = get_encoding(ENCODING)
        tokens: int = 2 + body.get("n", 1) * body.get("max_tokens", 15)
        for message in body["messages"]:
            tokens += 4
            for name, value in message.items():
                tokens += len(encoding.encode(value)) - (name == "name")
        return tokens

    return count


@dataclass
class _Call:
    number: int
    body: dict[str, Any]
    tokens: int
    attempts_left: int
    metadata: Any
    failures: list[Any] = field(default_factory=list)


class Script:
    """One run of the script.

    Args:
        output: the file to which requests and responses are appended.
        url: the address to which the requests are posted.
        api_key: the key.
    """

    def __init__(self, output: Path, url: str, api_key: str) -> None:
        self._output = output
        self._url = url
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._count = token_counter()
        self._again: asyncio.Queue[_Call] = asyncio.Queue()
        self._started = self._unfinished = 0
        self._limited_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, source: Path) -> None:
        """Send every request of a file."""
        requests = tokens = PER_MINUTE
        updated = time.time()
        waiting: _Call | None = None
        with source.open() as lines:
            async with aiohttp.ClientSession() as session:
                while True:
                    if waiting is None:
                        waiting = self._next(lines)
                    now = time.time()
                    requests = min(requests + PER_MINUTE * (now - updated) / 60, PER_MINUTE)
                    tokens = min(tokens + PER_MINUTE * (now - updated) / 60, PER_MINUTE)
                    updated = now
                    if waiting is not None and requests >= 1 and tokens >= waiting.tokens:
                        requests, tokens = requests - 1, tokens - waiting.tokens
                        waiting.attempts_left -= 1
                        task = asyncio.create_task(self._send(session, waiting))
                        self._tasks.add(task)  # the original keeps no reference, so a task may be lost
                        task.add_done_callback(self._tasks.discard)
                        waiting = None
                    if not self._unfinished:
                        return
                    await asyncio.sleep(LOOP_SLEEP)
                    if (pause := self._limited_at + PAUSE_SECONDS - time.time()) > 0:
                        await asyncio.sleep(pause)

    def _next(self, lines: Any) -> _Call | None:
        if not self._again.empty():
            return self._again.get_nowait()
        if (line := next(lines, None)) is None:
            return None
        body = json.loads(line)
        tokens, metadata = self._count(body), body.pop("metadata", None)
        self._started += 1
        self._unfinished += 1
        call = _Call(self._started, body, tokens, ATTEMPTS, metadata)
        _log.debug(f"Reading request {call.number}: {call}")
        return call

    async def _send(self, session: aiohttp.ClientSession, call: _Call) -> None:
        _log.info(f"Starting request #{call.number}")
        received: Any = None
        try:
            async with session.post(url=self._url, headers=self._headers, json=call.body) as response:
                received = await response.json()
            if "error" in received:
                call.failures.append(received)
                if received["error"].get("code") == "429":
                    self._limited_at = time.time()
        except Exception as error:  # noqa: BLE001 - as the original does
            _log.warning("Request %s failed with Exception %s", call.number, error)
            call.failures.append(error)
            received = {"error": error}
        if "error" not in received:
            self._append(call, received)
        elif call.attempts_left:
            self._again.put_nowait(call)
            return
        else:
            self._append(call, [str(failure) for failure in call.failures])
        self._unfinished -= 1
        _log.debug(f"Request {call.number} saved to {self._output}")

    def _append(self, call: _Call, outcome: Any) -> None:
        text = json.dumps([call.body, outcome, call.metadata] if call.metadata else [call.body, outcome])
        with self._output.open("a") as file:
            file.write(text + "\n")


async def run(source: Path, output: Path, url: str, api_key: str) -> None:
    """Send every request of a file, one body per line, and append the responses to another file."""
    logging.basicConfig(level=logging.INFO, filename=output.with_suffix(".log"))
    await Script(output, url, api_key).run(source)
