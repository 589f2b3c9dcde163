"""Shared by the floor's two forms: the bytes of a request, and parsing a response with msgspec."""

from __future__ import annotations

import msgspec

from benchmarks.contenders.base import HEADERS, Received
from benchmarks.harness.wire import request_body


class Usage(msgspec.Struct):
    """The part of the usage that is read."""

    completion_tokens: int


class Spoken(msgspec.Struct):
    """A delta or a message."""

    content: str | None = None


class Choice(msgspec.Struct):
    """A choice of a chunk or a completion."""

    delta: Spoken | None = None
    message: Spoken | None = None


class Body(msgspec.Struct):
    """A chunk or a completion."""

    choices: list[Choice]
    usage: Usage | None = None


decode = msgspec.json.Decoder(Body).decode
encode = msgspec.json.Encoder().encode


def request_bytes(path: str, tokens: int, *, stream: bool) -> bytes:
    """Return a whole request."""
    body = encode(request_body(tokens, stream=stream))
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Response:
    """The part of a response that has been received."""

    __slots__ = ("_parts", "_rest", "_stream", "_tokens")

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream
        self._parts: list[str] = []
        self._rest = b""
        self._tokens = 0

    def feed(self, data: bytes) -> None:
        """Process a part of the body."""
        if not self._stream:
            self._rest += data
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line[:6] == b"data: " and line != b"data: [DONE]":
                chunk = decode(line[6:])
                if chunk.choices:
                    if (delta := chunk.choices[0].delta) is not None and delta.content:
                        self._parts.append(delta.content)
                elif chunk.usage is not None:
                    self._tokens = chunk.usage.completion_tokens

    def received(self) -> Received:
        """Return what was received."""
        if self._stream:
            return Received("".join(self._parts), self._tokens)
        completion = decode(self._rest)
        message = completion.choices[0].message
        assert message is not None
        assert completion.usage is not None
        return Received(message.content or "", completion.usage.completion_tokens)
