"""Any split of a response gives the same response; any bytes at all give a response or one httpx exception."""

from __future__ import annotations

import gzip
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.tables import each_row

from chatscope.transport import HTTPTransport, transport

if TYPE_CHECKING:
    from collections.abc import Callable

RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Empty:\r\nX-A: b\r\n\r\nhello",
    (
        b"HTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 Quite Fine\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nX-Trailer: c\r\n\r\n"
    ),
    b"HTTP/1.0 200 OK\r\nX-A: b\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 25\r\n\r\n" + gzip.compress(b"hello", mtime=0),
    b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
]


class MemoryStream:
    """A `SocketStream` that receives the given parts and then the end."""

    def __init__(self, parts: list[bytes]) -> None:
        self.read_ns = 0
        self.write_refused = False
        self.open = True
        self._parts = [part for part in parts if part]

    async def receive(self, within: float | None) -> bytes:
        self.read_ns += 1
        return self._parts.pop(0) if self._parts else b""

    def write(self, data: bytes) -> bool:
        assert self.open
        return True

    async def flush(self, within: float | None) -> bool:
        raise AssertionError("nothing is ever unsent")

    def unsent(self) -> bool:
        return False

    def poll(self) -> bytes | None:
        return self._parts.pop(0) if self._parts else None

    def is_quiet(self) -> bool:
        return self.poll() is None

    def watch(self, on_lost: Callable[[], object] | None) -> bool:
        return True

    def abort(self) -> None:
        self.open = False

    def abandon(self) -> None:
        raise AssertionError("there is one run only")


def exchange(parts: list[bytes], method: str = "POST", *, stream: MemoryStream | None = None) -> httpx.Response:
    """Read a response that arrives in these parts, however it ends; no connection may be left in use."""
    stream = stream or MemoryStream(parts)

    async def connect(*args: object, **kwargs: object) -> MemoryStream:
        return stream

    async def main() -> httpx.Response:
        async with HTTPTransport(max_header_bytes=1000, max_decoded_bytes=1000) as client:
            response = None
            try:
                response = await client.handle_async_request(httpx.Request(method, "http://chat.example/"))
                await response.aread()
            except httpx.DecodingError:
                if response is not None and "content-encoding" in response.headers:
                    await response.aclose()  # httpx decodes this body, and its client closes it after an error
                raise
            finally:
                assert client.statistics().active == 0
                assert stream.open == (client.statistics().idle == 1)
            return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "connect", connect)
        return anyio.run(main)


def seen(response: httpx.Response) -> tuple[int, list[tuple[bytes, bytes]], bytes, dict[str, object]]:
    return response.status_code, response.headers.raw, response.content, response.extensions


@each_row("wire", RESPONSES)
def test_every_split_in_two(wire: bytes) -> None:
    whole = seen(exchange([wire]))
    for cut in range(len(wire)):
        assert seen(exchange([wire[:cut], wire[cut:]])) == whole


@each_row("wire", RESPONSES)
def test_byte_by_byte(wire: bytes) -> None:
    assert seen(exchange([bytes([byte]) for byte in wire])) == seen(exchange([wire]))


@given(st.sampled_from(RESPONSES), st.lists(st.integers(0, 200)))
def test_any_split(wire: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    parts = [wire[start:end] for start, end in pairwise(edges)]
    assert seen(exchange(parts)) == seen(exchange([wire]))


FRAGMENTS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 ", b"204 ", b"101 ", b"\r\n", b"\r\n\r\n", b"\n", b"Content-Length: 3\r\n",
        b"Content-Length:", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n",
        b"Content-Encoding: deflate,", b"Connection: close\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n",
        b"0\r\n\r\n", b"3\r\nabc\r\n", b"abc", b"\x00", gzip.compress(b"x" * 2000), b"HTTP/1.1 100 Continue\r\n\r\n",
        b"X" * 1001, b"A: b\r\n" * 300,
    ]
)  # fmt: skip


@given(st.lists(st.one_of(FRAGMENTS, st.binary(max_size=20))), st.sampled_from(["POST", "HEAD"]))
@example([b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 101 \r\n\r\n"], "POST")
@example([b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", b"cHTTP/1.1 500 No\r\n\r\n"], "POST")
@example([b"HTTP/1.1 200 OK\r\n" * 2], "POST")
@example([b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate,exotic\r\n\r\n204 HTTP/1.1 200 OK\r\n"], "POST")
def test_any_bytes_at_all(parts: list[bytes], method: str) -> None:
    outcome: httpx.Response | httpx.RequestError
    try:
        outcome = exchange(parts, method)
    except (httpx.TransportError, httpx.DecodingError) as exc:
        outcome = exc
    assert outcome.request.method == method
    if isinstance(outcome, httpx.Response):
        assert 200 <= outcome.status_code <= 999
    else:
        assert str(outcome)


class Deaf(MemoryStream):
    """A server that takes no request; where it says nothing either, the connection is reset."""

    def write(self, data: bytes) -> bool:
        raise BrokenPipeError("Broken pipe")

    async def receive(self, within: float | None) -> bytes:
        if not self._parts:
            raise ConnectionResetError("Connection reset by peer")
        return await super().receive(within)


def test_a_response_counts_for_more_than_a_failed_write() -> None:
    assert exchange([], stream=Deaf([b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno"])).content == b"no"


def test_a_failed_write_counts_for_more_than_a_failed_read() -> None:
    with pytest.raises(httpx.WriteError, match="Broken pipe"):
        exchange([], stream=Deaf([]))
    with pytest.raises(httpx.ReadError, match="reset"):
        exchange([], stream=Deaf([b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nn"]))


class Behind(MemoryStream):
    """A server that answers in full before all of the request has left."""

    def unsent(self) -> bool:
        return True

    async def flush(self, within: float | None) -> bool:
        return True


def test_a_connection_on_which_something_is_unsent_is_not_kept() -> None:
    stream = Behind([RESPONSES[0]])
    assert exchange([], stream=stream).content == b"hello"
    assert not stream.open
