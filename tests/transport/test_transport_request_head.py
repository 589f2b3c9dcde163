"""The head of a request: what is sent, what is added and what never leaves the process."""

from __future__ import annotations

import httpx
import pytest
from tests.support.tables import each_row

from chatscope.transport import request_head as request_module
from chatscope.transport.request_head import RequestHead


def head(request: httpx.Request, body: bytes | None = b"") -> RequestHead:
    return RequestHead(request, b"Host: chat.example", body)


def bare(method: str = "POST", **kwargs: object) -> httpx.Request:
    """A request without the headers that httpx adds."""
    return httpx.Request(method, "http://chat.example/", stream=httpx.ByteStream(b""), **kwargs)  # type: ignore[arg-type]  # passed through


def test_a_request_of_httpx_goes_out_as_it_is() -> None:
    request = httpx.Request("POST", "http://chat.example:81/a b?c=d", headers={"X-A": "b"}, content=b"hello")
    assert head(request, b"hello").data == (
        b"POST /a%20b?c=d HTTP/1.1\r\nHost: chat.example:81\r\nX-A: b\r\nContent-Length: 5\r\n\r\n"
    )


@each_row(
    ("method", "body", "added"),
    [
        ("POST", b"hello", b"Content-Length: 5\r\n"),
        ("POST", b"", b"Content-Length: 0\r\n"),
        ("GET", b"", b""),
        ("GET", b"hello", b"Content-Length: 5\r\n"),
        ("POST", None, b"Transfer-Encoding: chunked\r\n"),
    ],
)
def test_what_a_bare_request_lacks_is_added(method: str, body: bytes | None, added: bytes) -> None:
    assert head(bare(method), body).data == method.encode() + b" / HTTP/1.1\r\nHost: chat.example\r\n" + added + b"\r\n"


@pytest.mark.parametrize(("value", "closes"), [("close", True), ("Close, TE", True), ("keep-alive", False)])
def test_a_wish_to_close(value: str, closes: bool) -> None:
    assert head(bare(headers={"Connection": value})).wants_close is closes


@each_row("bad", ["\r", "\n", "\r\n", "\0", "\r\nX-Evil: yes"])
@each_row("place", ["{}b", "a{}b", "a{}"])
def test_a_value_that_would_break_out_of_its_header(bad: str, place: str) -> None:
    with pytest.raises(httpx.LocalProtocolError, match="line break or NUL in 'Authorization'") as caught:
        head(bare(headers={"Authorization": "sk-secret" + place.format(bad)}))
    assert "sk-secret" not in str(caught.value)


@each_row("name", ["X-A\r\nX-B", "X A", "X-A:", "", "X-A\0", "X-Ä"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(httpx.LocalProtocolError, match="not a valid method or header name"):
        head(bare(headers=[(name.encode(), b"b")]))


@pytest.mark.parametrize("method", ["GET / HTTP/1.1\r\nX-A: b\r\n\r\nGET", "GE T", ""])
def test_a_method_that_is_none(method: str) -> None:
    with pytest.raises(httpx.LocalProtocolError, match="not a valid method or header name"):
        head(bare(method))


@each_row(
    ("headers", "message"),
    [
        ({"Content-Length": "4"}, "Content-Length is 4, the body has 5 bytes"),
        ({"Content-Length": "five"}, "one number"),
        ([("Content-Length", "5"), ("Content-Length", "5")], "one number"),
        ({"Content-Length": "5", "Transfer-Encoding": "chunked"}, "exclude each other"),
        ({"Transfer-Encoding": "gzip"}, "'chunked'"),
    ],
)
def test_a_body_that_is_delimited_in_no_way(headers: object, message: str) -> None:
    with pytest.raises(httpx.LocalProtocolError, match=message):
        head(bare(headers=headers), b"hello")


def test_made_up_names_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    known = dict.fromkeys([str(number).encode() for number in range(request_module.MAX_KNOWN_TOKENS)], b"x")
    monkeypatch.setattr(request_module, "_lowered", known)
    assert b"\r\nX-New: a\r\n" in head(bare(headers={"X-New": "a"})).data
    assert len(known) == request_module.MAX_KNOWN_TOKENS
