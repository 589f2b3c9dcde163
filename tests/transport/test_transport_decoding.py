"""Content-encodings: every one, in any parts, cut off, broken, and inflating without end."""

from __future__ import annotations

import gzip
import importlib
import random
import sys
import zlib
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import zstandard

from chatscope.transport import ACCEPT_ENCODING, HTTPTransport, decoding
from chatscope.transport.base import TimedStream
from chatscope.transport.decoding import DecodedStream, decoders_for

brotli: Any = importlib.import_module("brotli")  # it has no types

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.responses import Build
    from tests.support.socket_server import Serve


TEXT = random.Random(1).randbytes(300_000) + b"hello " * 300_000
REQUEST = httpx.Request("GET", "http://chat.example/")


def bare_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": bare_deflate,
    "br": lambda data: brotli.compress(data, quality=4),
    "zstd": zstandard.compress,
}


class Parts(TimedStream):
    """A body that arrives in parts."""

    def __init__(self, data: bytes, size: int) -> None:
        self.read_ns = 0
        self.closed = False
        self._parts = [data[start : start + size] for start in range(0, len(data), size)]

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        self.read_ns += 1
        return self._parts.pop(0)

    async def aclose(self, *, complete: bool = False) -> None:
        self.closed = True


async def decoded(coding: str, data: bytes, *, size: int = 1000, limit: int = 10_000_000) -> list[bytes]:
    inner = Parts(data, size)
    decoders = decoders_for(coding.encode(), REQUEST)
    assert decoders
    stream = DecodedStream(inner, decoders, limit=limit, request=REQUEST)
    try:
        return [part async for part in stream]
    finally:
        if sys.exc_info()[0] is not None:
            assert inner.closed
        await stream.aclose()
        assert inner.closed


@pytest.fixture
def anyio_backend() -> str:
    """No loop matters here."""
    return "asyncio"


@pytest.mark.one_loop
@pytest.mark.parametrize("size", [1, 7, 1000, 1_000_000])
@pytest.mark.parametrize("coding", ENCODERS)
async def test_every_encoding_in_parts(coding: str, size: int) -> None:
    text = TEXT if size > 7 else TEXT[-2000:]
    parts = await decoded(coding, ENCODERS[coding](text), size=size)
    assert b"".join(parts) == text
    assert max(len(part) for part in parts) <= 2 * decoding.PART_SIZE
    assert all(parts)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_several_members(coding: str) -> None:
    encode = ENCODERS[coding]
    assert b"".join(await decoded(coding, encode(b"hello ") + encode(b"world"), size=3)) == b"hello world"


async def test_a_padded_gzip() -> None:
    for padding in (b"\0" * 50, b"more", b"\0\x1f"):
        assert await decoded("gzip", gzip.compress(b"hello") + padding, size=20) == [b"hello"]


async def test_what_follows_deflate_is_ignored() -> None:
    assert await decoded("deflate", zlib.compress(b"hello") + b"more") == [b"hello"]


async def test_several_encodings() -> None:
    assert b"".join(await decoded("gzip, identity, br", brotli.compress(gzip.compress(TEXT)), size=99)) == TEXT


@pytest.mark.one_loop
@pytest.mark.parametrize("coding", ENCODERS)
async def test_nothing_at_all_is_nothing(coding: str) -> None:
    assert await decoded(coding, b"") == []


@pytest.mark.one_loop
@pytest.mark.parametrize("coding", ENCODERS)
async def test_cut_off(coding: str) -> None:
    """Whether a body is whole is told by the framing: some servers never finish their encoder."""
    text = b"hello" * 100
    assert text.startswith(b"".join(await decoded(coding, ENCODERS[coding](text)[:-1])))
    if coding == "gzip":
        encoder = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
        for end in (encoder.compress(text) + encoder.flush(zlib.Z_SYNC_FLUSH), gzip.compress(text)[:-6]):
            assert b"".join(await decoded(coding, end, size=3)) == text


@pytest.mark.parametrize("coding", [coding for coding in ENCODERS if coding != "Deflate"])
async def test_broken(coding: str) -> None:
    with pytest.raises(httpx.DecodingError, match="broken"):
        await decoded(coding, b"\xff certainly not encoded")


@pytest.mark.one_loop
@pytest.mark.parametrize("coding", ENCODERS)
async def test_a_bomb(coding: str) -> None:
    with pytest.raises(httpx.DecodingError, match="more than 3000000 bytes"):
        await decoded(coding, ENCODERS[coding](bytes(30_000_000)), size=1_000_000, limit=3_000_000)


async def test_a_bomb_in_a_bomb() -> None:
    """What inflates on the way counts too, although it may come to little in the end."""
    nested = gzip.compress(gzip.compress(bytes(1_000_000_000 // 100)) + bytes(10_000_000))
    with pytest.raises(httpx.DecodingError):
        await decoded("gzip, gzip", nested, limit=3_000_000)


def test_what_is_not_supported_is_left_alone() -> None:
    assert decoders_for(b"compress", REQUEST) is None
    assert decoders_for(b"gzip, compress", REQUEST) is None
    assert decoders_for(b"identity", REQUEST) == []


def test_too_many_encodings() -> None:
    with pytest.raises(httpx.DecodingError, match="6 content-encodings"):
        decoders_for(b"gzip," * 6, REQUEST)


def test_everything_is_asked_for_that_can_be_decoded() -> None:
    assert ACCEPT_ENCODING == "gzip, deflate, br, zstd"


@pytest.mark.parametrize(
    ("missing", "supported"),
    [(["BROTLI"], "gzip deflate zstd"), (["ZSTANDARD", "COMPRESSION_ZSTD"], "gzip deflate br")],
)
def test_without_the_packages(monkeypatch: pytest.MonkeyPatch, missing: list[str], supported: str) -> None:
    for name in missing:
        monkeypatch.setattr(decoding, name, None)
    assert b" ".join(decoding._supported()).decode() == supported
    assert decoding._optional("no_such_module", "chatscope.no_such_module") is None


class OldBrotli:
    """brotli before 1.2: its decompressor takes no limit."""

    class Decompressor:
        def process(self, data: bytes) -> bytes:
            raise AssertionError("would inflate without a bound")


def test_a_brotli_without_a_bound_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BROTLI", OldBrotli)
    assert b"br" not in decoding._supported()


class StandardLibraryZstd:
    """The interface of `compression.zstd` (Python 3.14), as far as it is used, on the package `zstandard`."""

    class ZstdDecompressor:
        def __init__(self) -> None:
            self._inner = zstandard.ZstdDecompressor().decompressobj()
            self._waiting = b""

        @property
        def eof(self) -> bool:
            return self._inner.eof and not self._waiting

        @property
        def unused_data(self) -> bytes:
            return self._inner.unused_data

        @property
        def needs_input(self) -> bool:
            return not self._waiting and not self._inner.eof

        def decompress(self, data: bytes, max_length: int = -1) -> bytes:
            waiting = self._waiting + (b"" if self._inner.eof else self._inner.decompress(data))
            self._waiting = waiting[max_length:]
            return waiting[:max_length]


@pytest.mark.parametrize("size", [7, 1_000_000])
async def test_zstd_by_the_standard_library(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(decoding, "COMPRESSION_ZSTD", StandardLibraryZstd)
    monkeypatch.setattr(decoding, "SUPPORTED", decoding._supported())
    wire = zstandard.compress(TEXT) + zstandard.compress(b"more")
    assert b"".join(await decoded("zstd", wire, size=size)) == TEXT + b"more"


@pytest.mark.parametrize("in_client", [False, True], ids=["transport", "client"])
async def test_decoded_by_the_transport_and_not_again_by_httpx(
    serve: Serve, request_to: Build, in_client: bool
) -> None:
    body = gzip.compress(b"hello")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\nX-A: b\r\n\r\n" % len(body)
    server = serve.responses(head + body)
    async with HTTPTransport() as transport:
        if in_client:
            async with httpx.AsyncClient(transport=transport) as client:
                response = await client.post(server.url)
        else:
            response = await transport.handle_async_request(request_to(server))
            before = response.stream.read_ns  # type: ignore[union-attr]  # what this transport's streams have
            await response.aread()
            assert response.stream.read_ns >= before > 0  # type: ignore[union-attr]
        assert response.content == b"hello"
        assert response.headers.raw == [(b"X-A", b"b")]


async def test_what_httpx_alone_can_decode_is_left_to_it(
    serve: Serve, request_to: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "SUPPORTED", {})
    body = gzip.compress(b"hello")
    server = serve.responses(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request_to(server))
        assert response.headers["Content-Encoding"] == "gzip"
        assert await response.aread() == b"hello"


async def test_a_response_to_head_keeps_its_headers(serve: Serve, request_to: Build) -> None:
    wire = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 99\r\n\r\n"
    async with HTTPTransport() as transport:
        response = await transport.handle_async_request(request_to(serve.responses(wire), "HEAD"))
        assert response.headers["Content-Length"] == "99"
        assert await response.aread() == b""


async def test_too_many_encodings_close_the_connection(serve: Serve, request_to: Build) -> None:
    codings: Any = b", ".join([b"gzip"] * 6)
    server = serve.responses(b"HTTP/1.1 200 OK\r\nContent-Encoding: " + codings + b"\r\nContent-Length: 9\r\n\r\n")
    async with HTTPTransport() as transport:
        with pytest.raises(httpx.DecodingError):
            await transport.handle_async_request(request_to(server))
        assert transport.statistics().open == 0
