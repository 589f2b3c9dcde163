"""Responses that httpx and curl both read although HTTP/1.1 does not allow them, and what nobody reads.

h11, which reads for httpx, takes part in the test. curl 7.88 was asked once, over a socket.
"""

from __future__ import annotations

import h11
import httpx
import pytest
from tests.support.tables import each_row

from chatscope._limits.connection_errors import is_permanent
from chatscope.transport.errors import MalformedResponseError
from chatscope.transport.response_head import headers_in
from chatscope.transport.response_parser import ResponseParser

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: 5\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"


def sized(*lines: bytes) -> bytes:
    return OK + b"\r\n".join(lines) + b"\r\n" + LENGTH + b"\r\nhello"


def chunked(body: bytes) -> bytes:
    return OK + CHUNKED + b"\r\n" + body


BOTH_READ = {
    "Transfer-Encoding wins": OK + CHUNKED + LENGTH + b"\r\n" + CHUNKS,
    "Transfer-Encoding wins, second": OK + b"Content-Length: 3\r\n" + CHUNKED + b"\r\n" + CHUNKS,
    "Transfer-Encoding wins in HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + CHUNKED + LENGTH + b"\r\n" + CHUNKS,
    "a padded Transfer-Encoding": OK + b"Transfer-Encoding: chunked \t\r\n\r\n" + CHUNKS,
    "Content-Length three times": OK + LENGTH * 3 + b"\r\nhello",
    "Content-Length as a list": OK + b"Content-Length: 5,5, 5\r\n\r\nhello",
    "a padded Content-Length": OK + b"Content-Length:\t5 \t\r\n\r\nhello",
    "control characters in a value": sized(b"X-A: \x01a\x02b\x1b\x7fc\x1f"),
    "a control character in Connection": sized(b"Connection: \x01"),
    "obs-text in a value": sized("X-A: é\u2028\x80ÿ".encode()),
    "latin-1 in a value": sized(b"X-A: \x80\xff"),
    "an empty value": sized(b"X-A:"),
    "a padded value": sized(b"X-A: \t a b \t "),
    "a folded header": sized(b"X-A: a", b" b", b"\tc"),
    "an empty fold": sized(b"X-A: a", b" "),
    "a folded header at the end": OK + LENGTH + b"X-A: a\r\n  b\r\n\r\nhello",
    "bare line feeds": (OK + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + b"hello",
    "bare line feeds before chunks": (OK + CHUNKED + b"\r\n").replace(b"\r\n", b"\n") + CHUNKS,
    "a bare line feed in the status line": OK.replace(b"\r", b"") + LENGTH + b"\r\nhello",
    "a bare line feed after a header": OK + b"X-A: b\n" + LENGTH + b"\r\nhello",
    "a bare line feed as the empty line": OK + LENGTH + b"\nhello",
    "a bare line feed before the empty line": OK + b"Content-Length: 5\n\r\nhello",
    "bare line feeds up to the end": b"HTTP/1.1 200 OK\n\nhello",
    "no reason": b"HTTP/1.1 200\r\n" + LENGTH + b"\r\nhello",
    "an empty reason": b"HTTP/1.1 200 \r\n" + LENGTH + b"\r\nhello",
    "an odd reason": b"HTTP/1.1 200  \xc3\xbc\x01\r\n" + LENGTH + b"\r\nhello",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n" + LENGTH + b"\r\nhello",
    "HTTP/1.0 up to the end": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "an odd status": b"HTTP/1.1 999 X\r\n" + LENGTH + b"\r\nhello",
    "many headers": sized(*[b"X-%d: a" % number for number in range(1000)]),
    "an upgrade that is none": sized(b"Connection: upgrade", b"Upgrade: h2c"),
    "padded chunk sizes": chunked(b"5  \t\r\nhello\r\n0   \r\n\r\n"),
    "a padded chunk size, later": chunked(b"2\r\nhe\r\n3 \r\nllo\r\n0\r\n\r\n"),
    "zeros before chunk sizes": chunked(b"0005\r\nhello\r\n000\r\n\r\n"),
    "a chunk extension": chunked(b"5;a=b\r\nhello\r\n0;c\r\n\r\n"),
    "an empty chunk extension": chunked(b"5;\r\nhello\r\n0;\r\n\r\n"),
    "a padded chunk extension": chunked(b"5; a= b ;c \r\nhello\r\n0\r\n\r\n"),
    "an odd chunk extension": chunked(b'5;@,/:(){};;a==b;"\x01\xff\r\nhello\r\n0\r\n\r\n'),
    "a bare line feed at the very end": chunked(b"5\r\nhello\r\n0\r\n\n"),
    "trailers that frame": chunked(b"5\r\nhello\r\n0\r\n" + LENGTH + CHUNKED + b"\r\n"),
    "odd trailers": chunked(b"5\r\nhello\r\n0\r\nX-T: a\x01\r\n b\nX-U: \xff\n\r\n"),
    "odd interim responses": b"HTTP/1.1 100\nX-A: \x01\n\nHTTP/1.1 103 E\r\nLink: a\r\n\r\n"
    + OK
    + LENGTH * 2
    + b"\r\nhello",
}

NOBODY_READS = {
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", "it begins with b'SSH-2.0-OpenSSH_9.2"),
    "its first byte": (b"<", "it begins with b'<'"),
    "a lower-case version": (b"http/1.1 200 OK\r\n" + LENGTH + b"\r\nhello", "it begins with b'http/1.1 200"),
    "a version without a dot": (b"HTTP/1 200 OK\r\n\r\n", "its first line is b'HTTP/1 200 OK'"),
    "a status of four digits": (b"HTTP/1.1 2000 OK\r\n\r\n", "its first line is b'HTTP/1.1 2000 OK'"),
    "a status of no class": (b"HTTP/1.1 099 OK\r\n\r\n", "99 is not a status code"),
    "different lengths": (OK + LENGTH + b"Content-Length: 6\r\n\r\nhello", "Content-Length is not one number"),
    "different lengths in a list": (OK + b"Content-Length: 5, 6\r\n\r\nhello", "Content-Length is not one number"),
    "a length that is no number": (OK + b"Content-Length: 5x\r\n\r\nhello", "Content-Length is not one number"),
    "another transfer coding": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "'gzip, chunked' is not supported"),
    "a line that is no header": (sized(b"garbage"), "a header is malformed: b'garbage'"),
    "a NUL in a value": (sized(b"X-A: a\0b"), "a header is malformed: b'X-A'"),
    "a bare carriage return": (sized(b"X-A: a\rb"), "a header is malformed: b'X-A'"),
    "a name with a blank": (sized(b"X A: b"), "a header is malformed: b'X A'"),
    "a fold of nothing": (sized(b" X-A: b"), "the first header begins with a blank"),
    "a chunk size that is no number": (chunked(b"0x5\r\nhello\r\n0\r\n\r\n"), "the size of a chunk is b'0x5'"),
    "no chunk size": (chunked(b"\r\nhello\r\n0\r\n\r\n"), r"the size of a chunk is b'\r\nhello"),
    "a chunk that is too long": (chunked(b"4\r\nhello\r\n0\r\n\r\n"), "a chunk is longer than its size"),
    "a trailer that is none": (chunked(b"5\r\nhello\r\n0\r\nbad\r\n\r\n"), "a header is malformed: b'bad'"),
}  # fmt: skip


def read(parts: list[bytes]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Read a response that arrives in these parts, then the end of the connection unless it is over."""
    parser = ResponseParser(max_header_bytes=100_000)
    body = b""
    for part in [*parts, b""]:
        if not parser.complete:
            body += parser.feed(part)
        if parser.failure is not None:
            raise parser.failure
    return parser.status, [(name.lower(), value) for name, value in headers_in(parser.head)], body


def read_by_h11(wire: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(wire)
    connection.receive_data(b"")
    head, body = None, b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
    assert head is not None
    return head.status_code, list(head.headers), body


@each_row("wire", BOTH_READ.values(), ids=BOTH_READ)
def test_what_httpx_and_curl_read_is_read(wire: bytes) -> None:
    status, headers, body = read([wire])
    status_by_h11, headers_by_h11, body_by_h11 = read_by_h11(wire)
    assert (status, body) == (status_by_h11, b"hello") == (status, body_by_h11)
    # h11 rewrites what it repeats: one length, no padding.
    rewritten = {b"content-length", b"transfer-encoding"}
    assert [item for item in headers if item[0] not in rewritten] == [
        item for item in headers_by_h11 if item[0] not in rewritten
    ]
    for cut in range(1, len(wire) if len(wire) < 1000 else 1):
        assert read([wire[:cut], wire[cut:]]) == (status, headers, body)


@each_row(("wire", "message"), NOBODY_READS.values(), ids=NOBODY_READS)
def test_what_nobody_reads_is_refused_in_its_own_words(wire: bytes, message: str) -> None:
    with pytest.raises(h11.RemoteProtocolError):
        read_by_h11(wire)
    for parts in ([wire], [bytes([byte]) for byte in wire]):
        with pytest.raises(MalformedResponseError) as caught:
            read(parts)
        assert is_permanent(caught.value)
        assert message in str(caught.value) or len(parts) > 1


CURL_READS = {
    "a coding given twice": OK + CHUNKED * 2 + b"\r\n" + CHUNKS,
    "identity": OK + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\nhello",
    "identity up to the end": OK + b"Transfer-Encoding: Identity\r\n\r\nhello",
    "identity, then a coding": OK + b"Transfer-Encoding: identity, chunked\r\n" + LENGTH + b"\r\n" + CHUNKS,
    "a coding, then identity": OK + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n" + CHUNKS,
}


@each_row("wire", CURL_READS.values(), ids=CURL_READS)
def test_what_curl_reads_is_read(wire: bytes) -> None:
    whole = read([wire])
    assert whole[2] == b"hello"
    for cut in range(1, len(wire)):
        assert read([wire[:cut], wire[cut:]]) == whole


def test_a_body_without_a_coding_that_ends_too_early() -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="before the end of the body"):
        read([OK + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\nhell"])


def test_a_response_is_read_again_from_its_beginning_only_while_it_is_short() -> None:
    """What is different about a server's framing shows in its first chunk; a long stream is not kept for it."""
    parser = ResponseParser(max_header_bytes=100_000)
    assert parser.feed(OK + CHUNKED + b"\r\n5\r\nhello\r\n") == b"hello"
    assert parser.feed(b"2;\r\nhe\r\n") == b"he"
    assert parser.feed(b"1388\r\n" + b"a" * 5000 + b"\r\n") == b"a" * 5000
    assert parser.feed(b"2 \r\nhe\r\n") == b"he"

    parser = ResponseParser(max_header_bytes=100_000)
    parser.feed(OK + CHUNKED + b"\r\n1388\r\n" + b"a" * 5000 + b"\r\n")
    with pytest.raises(MalformedResponseError, match="chunk size"):
        parser.feed(b"2 \r\nhe\r\n")


def test_a_connection_with_odd_framing_is_not_kept() -> None:
    for wire, kept in ((OK + LENGTH + b"\r\nhello", True), (OK + LENGTH * 2 + b"\r\nhello", False)):
        parser = ResponseParser(max_header_bytes=1000)
        assert parser.feed(wire) == b"hello"
        assert (parser.complete, parser.keep_alive) == (True, kept)


def test_the_end_of_a_connection_is_not_malformed() -> None:
    for parts in ([b"HTTP/1.1 20"], [OK + LENGTH], [OK + LENGTH + b"\r\nhell"], [chunked(b"5 \r\nhel")]):
        with pytest.raises(httpx.RemoteProtocolError, match="closed the connection") as caught:
            read(parts)
        assert not is_permanent(caught.value)
