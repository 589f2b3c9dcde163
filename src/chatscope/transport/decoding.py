"""Content-encodings of responses: gzip, deflate, br and zstd, with a limit on the decoded size.

Here: decoders that return a limited part at a time, so that a decompression bomb needs no more memory. br and zstd need
their packages (`brotli` 1.2 or `brotlicffi`; `zstandard` or Python 3.14). A coding whose decoder has no such limit is
not decoded, and its header remains for httpx. Not here: transfer codings (`response_parser`).
"""

from __future__ import annotations

import importlib
import zlib
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from chatscope.transport.base import TimedStream

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ACCEPT_ENCODING", "DecodedStream", "decoders_for"]

# The most that one step inflates to: large enough for speed, and small compared with the largest body.
PART_SIZE = 1024 * 1024
# `zstandard` cannot stop in the middle of its input, and 4 bytes may inflate to a block of 128 KiB (RFC 8878, 3.1.1.2).
# With slices this small, a step stays at about two parts.
ZSTD_SLICE = 64
GZIP_MAGIC = b"\x1f\x8b"
# Two bytes tell zlib's format from bare deflate: RFC 1950, section 2.2.
ZLIB_HEADER = b"\x78\x9c"
# curl has allowed five codings in one header since CVE-2022-32206. More are an attack.
MAX_CODINGS = 5


class Decoder(Protocol):
    """One coding. `feed` is only called once `read` has returned `b""`."""

    def feed(self, data: bytes) -> None:
        """Accept encoded bytes."""
        ...

    def read(self) -> bytes:
        """Return at most about `PART_SIZE` decoded bytes, or `b""` if there are none without more input."""
        ...


class ZlibDecoder:
    """gzip, with any number of members, and both formats that are called deflate: zlib's and the bare one."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._has_ended = False
        self._input = b""
        self._member: zlib._Decompress | None = None

    def feed(self, data: bytes) -> None:
        """See `Decoder`."""
        self._input += data

    def read(self) -> bytes:
        """See `Decoder`."""
        while True:
            if self._member is None:
                if len(self._input) < len(ZLIB_HEADER):
                    return b""
                if self._has_ended and not self._input.startswith(GZIP_MAGIC):
                    self._input = b""  # no further member; curl and httpx ignore it, too
                    return b""
                self._member = zlib.decompressobj(self._format())
            data = self._member.decompress(self._input, PART_SIZE)
            self._input = self._member.unconsumed_tail
            if self._member.eof:
                # Zeros may pad a gzip file (gzip does that, though RFC 1952 does not say so). Deflate has one member.
                self._input = self._member.unused_data.lstrip(b"\0") if self._gzip else b""
                self._member, self._has_ended = None, True
            if data or not self._input:
                return data

    def _format(self) -> int:
        if self._gzip:
            return zlib.MAX_WBITS | 16
        is_zlib = self._input[0] & 0x0F == zlib.DEFLATED and int.from_bytes(self._input[:2]) % 31 == 0
        return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS


class BrotliDecoder:
    """br, by `brotli` or `brotlicffi`."""

    def __init__(self) -> None:
        self._input = b""
        self._stream = BROTLI.Decompressor()
        self._more = False

    def feed(self, data: bytes) -> None:
        """See `Decoder`."""
        self._input = data

    def read(self) -> bytes:
        """See `Decoder`."""
        if self._stream.is_finished() or not (self._input or self._more):
            return b""
        # As long as it returns something there may be more, even if can_accept_more_data() says otherwise.
        data = bytes(self._stream.process(self._input, output_buffer_limit=PART_SIZE))
        self._input = b""
        self._more = bool(data)
        return data


class ZstdDecoder:
    """zstd, any number of frames, by the package `zstandard`."""

    def __init__(self) -> None:
        self._input = b""
        self._frame: Any = None

    def feed(self, data: bytes) -> None:
        """See `Decoder`."""
        self._input = data

    def read(self) -> bytes:
        """See `Decoder`."""
        while self._input:
            if self._frame is None:
                self._frame = ZSTANDARD.ZstdDecompressor().decompressobj()
            data = self._frame.decompress(self._input[:ZSTD_SLICE])
            self._input = self._input[ZSTD_SLICE:]
            if self._frame.eof:
                self._input = self._frame.unused_data + self._input
                self._frame = None
            if data:
                return bytes(data)
        return b""


class StandardZstdDecoder:
    """zstd, any number of frames, by the standard library."""

    def __init__(self) -> None:
        self._input = b""
        self._frame: Any = None

    def feed(self, data: bytes) -> None:
        """See `Decoder`."""
        self._input = data

    def read(self) -> bytes:
        """See `Decoder`."""
        while self._input or not (self._frame is None or self._frame.needs_input):
            if self._frame is None:
                self._frame = COMPRESSION_ZSTD.ZstdDecompressor()
            data, self._input = self._frame.decompress(self._input, max_length=PART_SIZE), b""
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = None
            if data:
                return bytes(data)
        return b""


def _optional(*names: str) -> Any:
    """Return the first of these modules that is installed, or `None`."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _supported() -> dict[bytes, Callable[[], Decoder]]:
    found: dict[bytes, Callable[[], Decoder]] = {
        b"gzip": lambda: ZlibDecoder(gzip=True),
        b"deflate": lambda: ZlibDecoder(gzip=False),
    }
    # Before 1.2, which added this method, brotli inflates everything it is given at once.
    if hasattr(getattr(BROTLI, "Decompressor", None), "can_accept_more_data"):
        found[b"br"] = BrotliDecoder
    if COMPRESSION_ZSTD is not None:
        found[b"zstd"] = StandardZstdDecoder
    elif ZSTANDARD is not None:
        found[b"zstd"] = ZstdDecoder
    return found


BROTLI = _optional("brotli", "brotlicffi")
COMPRESSION_ZSTD = _optional("compression.zstd")
ZSTANDARD = _optional("zstandard")
SUPPORTED = _supported()
ACCEPT_ENCODING = b", ".join(SUPPORTED).decode("ascii")
"""The value of an Accept-Encoding header that names the codings that can be decoded here."""

FAULTS: tuple[type[Exception], ...] = (
    zlib.error,
    *(module.error for module in (BROTLI,) if module is not None),
    *(module.ZstdError for module in (COMPRESSION_ZSTD, ZSTANDARD) if module is not None),
)


def decoders_for(content_encoding: bytes, request: httpx.Request | None) -> list[Decoder] | None:
    """Return the decoders for a Content-Encoding in the order of their use; `None` if one is not supported.

    Raises `httpx.DecodingError` if there are too many codings.
    """
    codings = [coding.strip().lower().removeprefix(b"x-") for coding in content_encoding.split(b",")]
    codings = [coding for coding in codings if coding not in {b"", b"identity"}]
    if len(codings) > MAX_CODINGS:
        raise httpx.DecodingError(f"{len(codings)} content-encodings on one response", request=request)
    if not SUPPORTED.keys() >= set(codings):
        return None
    return [SUPPORTED[coding]() for coding in reversed(codings)]


class DecodedStream(TimedStream):
    """The body of a response, decoded on demand. Cancellation and closing act on the stream inside.

    Only the HTTP framing decides whether the body is whole. Some servers flush their encoder and never finish it; curl
    and httpx accept that. If a part is missing, the parser of the body notices.
    """

    def __init__(
        self, inner: TimedStream, decoders: list[Decoder], *, limit: int, request: httpx.Request | None
    ) -> None:
        self.read_ns = inner.read_ns
        self._inner = inner
        self._decoders = decoders
        self._limit = limit
        self._request = request
        self._decoded = 0

    async def __anext__(self) -> bytes:
        """Return the next decoded bytes. Raises `httpx.DecodingError` if they are broken or too many."""
        try:
            while not (data := self._read(len(self._decoders) - 1)):
                self._decoders[0].feed(await self._inner.__anext__())
        except FAULTS as exc:
            await self._inner.aclose()
            raise httpx.DecodingError(f"the encoded body is broken: {exc}", request=self._request) from exc
        except httpx.DecodingError:
            await self._inner.aclose()
            raise
        self.read_ns = self._inner.read_ns
        return data

    async def aclose(self, *, complete: bool = False) -> None:
        """Close the stream inside."""
        await self._inner.aclose(complete=complete)

    def _read(self, stage: int) -> bytes:
        """Return the output of the decoder `stage` for the output of the decoders before it."""
        decoder = self._decoders[stage]
        while not (data := decoder.read()):
            if stage == 0 or not (encoded := self._read(stage - 1)):
                return b""
            decoder.feed(encoded)
        self._decoded += len(data)
        if self._decoded > self._limit:
            raise httpx.DecodingError(f"the body inflates to more than {self._limit} bytes", request=self._request)
        return data
