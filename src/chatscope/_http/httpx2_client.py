"""Sending through an `httpx2.AsyncClient` of the user's: httpx's shape from another package.

httpx2 is no dependency and is not imported here: who hands in its client has imported it. At this edge its exceptions
become httpx's of the same names; the rest of the package knows one kind.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Protocol

import httpx

from chatscope._http.base import Reply, Sender, decoded
from chatscope._http.httpx_client import UsersClient
from chatscope._limits.timeouts import Timeouts
from chatscope.protocol.headers import ResponseHeaders
from chatscope.transport.base import TimedStream
from chatscope.transport.request_head import PostTemplate


class HTTPClient(Protocol):
    """What `http_client=` takes: an `httpx.AsyncClient` or an `httpx2.AsyncClient`, both of which have this shape."""

    def build_request(
        self,
        method: str,
        url: str,
        *,
        content: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        timeout: tuple[float | None, float | None, float | None, float | None],
    ) -> Any:
        """Return a request with all that the client adds to it."""

    async def send(self, request: Any, *, stream: bool, follow_redirects: bool) -> Any:
        """Return the response."""


def sender_through(client: HTTPClient) -> Sender:
    """Return what sends through a user's client.

    Raises:
        ValueError: it is neither httpx's nor httpx2's.
    """
    if isinstance(client, httpx.AsyncClient):
        return UsersClient(client)
    httpx2 = sys.modules.get("httpx2")
    if httpx2 is not None and isinstance(client, httpx2.AsyncClient):
        return Httpx2Client(client)
    raise ValueError(f"http_client must be an httpx.AsyncClient or an httpx2.AsyncClient, not {type(client).__name__}")


@dataclass(frozen=True, slots=True)
class Httpx2Client:
    """Send through a user's client: its proxies, event hooks, auth and instrumentation apply. No redirects."""

    client: HTTPClient

    async def send(self, request: PostTemplate, body: bytes, timeouts: Timeouts) -> Reply:
        """Return the reply as soon as its headers are there."""
        told = timeouts.for_transport()
        with _translated():
            sent = self.client.build_request(
                "POST",
                str(request.url),
                content=body,
                headers=request.headers.raw,
                timeout=(told["connect"], told["read"], told["write"], told["pool"]),
            )
            response = await self.client.send(sent, stream=True, follow_redirects=False)
        headers = ResponseHeaders(response.headers.raw)
        stream: TimedStream = _Body(response.stream)
        if codings := headers.get("content-encoding"):
            stream = decoded(stream, codings, None)
        return Reply(response.status_code, headers, stream, is_own=False)


class _Body(TimedStream):
    """The body of a response, with the time at which each piece arrived."""

    def __init__(self, stream: Any) -> None:
        self.read_ns = perf_counter_ns()
        self._stream = stream
        self._parts = aiter(stream)

    async def __anext__(self) -> bytes:
        """Return the next bytes; what cancellation leaves behind is httpx2's affair."""
        with _translated():
            data: bytes = await anext(self._parts)
        self.read_ns = perf_counter_ns()
        return data

    async def aclose(self, *, complete: bool = False) -> None:  # noqa: ARG002 - what becomes of its connection is not ours to say
        """Close the stream."""
        with _translated():
            if isinstance(self._parts, AsyncGenerator):
                await self._parts.aclose()
            await self._stream.aclose()


@contextmanager
def _translated() -> Iterator[None]:
    """Raise httpx's exception for one of httpx2's: that of the same name, or of its nearest base that httpx knows."""
    try:
        yield
    except Exception as error:
        for cls in type(error).__mro__:
            same = getattr(httpx, cls.__name__, None) if cls.__module__.partition(".")[0] == "httpx2" else None
            if same is httpx.StreamError or (isinstance(same, type) and issubclass(same, httpx.RequestError)):
                raise same(str(error)) from error
        raise
