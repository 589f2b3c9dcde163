"""The interface of a contender, and the event-stream reader that the raw ones share.

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


class Received(NamedTuple):
    """What is read from every response, streamed or not."""

    text: str
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Address:
    """The address of the server, and the number of concurrent requests.

    Args:
        base_url: the URL before `/chat/completions`.
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
    """A client that is open while its block is. A cancelled call closes its connection."""

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
        """Create the client. Whatever must be closed is registered with `resources`."""

    @abstractmethod
    async def stream(self, tokens: int) -> Received:
        """Request a streamed response, read it token by token, and return it joined."""

    @abstractmethod
    async def complete(self, tokens: int) -> Received:
        """Request a response without streaming and return it."""

    async def cancel(self, cancel_calls: Callable[[], object]) -> None:
        """Cancel the running requests. Override this if cancelling a call does not cancel its request.

        Args:
            cancel_calls: cancels the tasks that called `stream`.
        """
        cancel_calls()


class StreamedText:
    """An event stream, split by hand as it arrives: the minimum that users of a raw HTTP client must write.

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
        """Process the bytes of one read."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line[:6] == b"data: " and line != b"data: [DONE]":
                chunk = self._loads(line[6:])
                if choices := chunk["choices"]:
                    if text := choices[0]["delta"].get("content"):
                        self._parts.append(text)
                elif usage := chunk["usage"]:
                    self._tokens = usage["completion_tokens"]

    def received(self) -> Received:
        """Return what was received."""
        return Received("".join(self._parts), self._tokens)


def received_from(loaded: Any) -> Received:
    """Return the text and usage of a decoded response that was not streamed."""
    return Received(loaded["choices"][0]["message"]["content"], loaded["usage"]["completion_tokens"])
