"""What a contender has to do, and the reading of an event stream that the raw ones share.

Not here: anything that measures.
"""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

from benchmarks.harness.wire import API_KEY

HEADERS = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}


class Reply(NamedTuple):
    """What is read of every reply, streamed or not."""

    text: str
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is.

    Args:
        base_url: up to and without `/chat/completions`.
        context: the TLS context of an `https` address.
        at_once: how many requests are made at a time.
    """

    base_url: str
    context: ssl.SSLContext | None
    at_once: int

    @property
    def url(self) -> str:
        """The whole URL of a request."""
        return f"{self.base_url}/chat/completions"


class Contender(ABC):
    """A client, open for as long as its block is. A call that is cancelled closes its connection."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.resources.__aexit__(kind, error, trace)

    @abstractmethod
    async def open(self) -> None:
        """Make the client; what must be closed goes to `resources`."""

    @abstractmethod
    async def stream(self, tokens: int) -> Reply:
        """Ask for a streamed reply, read it token by token, and return it joined."""

    @abstractmethod
    async def complete(self, tokens: int) -> Reply:
        """Ask for a reply in one piece and return it."""

    async def cancel(self, cancel_calls: Callable[[], object]) -> None:
        """Cancel what runs. Where a call's end does not end its request, there is another way.

        Args:
            cancel_calls: cancels the tasks in which `stream` was called.
        """
        cancel_calls()


class StreamedText:
    """An event stream, split by hand as it comes in: the least that a user of a raw HTTP client writes.

    Args:
        loads: decodes JSON.
    """

    __slots__ = ("_loads", "_parts", "_rest", "_tokens")

    def __init__(self, loads: Callable[[bytes], Any]) -> None:
        self._loads = loads
        self._rest = b""
        self._parts: list[str] = []
        self._tokens = 0

    def feed(self, data: bytes) -> None:
        """Take in what was read."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line[:6] == b"data: " and line != b"data: [DONE]":
                chunk = self._loads(line[6:])
                if choices := chunk["choices"]:
                    if text := choices[0]["delta"].get("content"):
                        self._parts.append(text)
                elif usage := chunk["usage"]:
                    self._tokens = usage["completion_tokens"]

    def reply(self) -> Reply:
        """Return what came."""
        return Reply("".join(self._parts), self._tokens)


def reply_of(loaded: Any) -> Reply:
    """Return what is read of a decoded reply that was not streamed."""
    return Reply(loaded["choices"][0]["message"]["content"], loaded["usage"]["completion_tokens"])
