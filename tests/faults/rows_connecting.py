"""Rows: no connection comes about, or it ends before the request was read. Hosts, TLS, the first bytes of HTTP."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Callable

from tests.faults.rows import Row, Via, completes, fails, on_one_loop, on_two_loops, wire
from tests.support.certificates import Certificates
from tests.support.defaults import BRIEF, TEXT
from tests.support.loopback import (
    Handler,
    Listener,
    Nobody,
    Nowhere,
    Server,
    after_hello,
    close,
    reset,
    says,
    says_and_leaves,
    silence,
)

from chatscope import APIConnectionError, APITimeoutError, InvalidResponseError
from chatscope.simulator import Close, Reply, Reset, Stall, simulator

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


def broken(name: str, server: Callable[[Certificates], Server], says: str = "") -> Row:
    """Return a row in which neither of two attempts gets anywhere."""
    return fails(name, Reply(TEXT), APIConnectionError, attempts=2, server=server, says=says)


def hopeless(name: str, server: Callable[[Certificates], Server], says: str = "") -> Row:
    """Return a row in which a second attempt could not help, and is not made."""
    return fails(name, Reply(TEXT), APIConnectionError, server=server, says=says)


def silent(name: str, server: Callable[[Certificates], Server], phase: str) -> Row:
    """Return a row in which both attempts time out."""
    return fails(
        name,
        Reply(TEXT),
        APITimeoutError,
        attempts=2,
        server=server,
        phase=phase,
        timeouts=BRIEF,
    )


def peer(handler: Handler, scheme: str = "http") -> Callable[[Certificates], Server]:
    """Return what makes a peer."""
    return lambda _: Listener(handler, scheme=scheme)


def tls(context: Callable[[Certificates], ssl.SSLContext]) -> Callable[[Certificates], Server]:
    """Return what makes a peer that would be silent, behind TLS."""
    return lambda certificates: Listener(silence, context=context(certificates))


HOSTS = [
    broken("a port that refuses", lambda _: Nobody(), f"[Errno {errno.ECONNREFUSED}]"),
    broken("a port that refuses", lambda _: Nobody()).by(Via.PLAIN_TASK),
    broken("a port that refuses", lambda _: Nobody()).by(Via.STREAM),
    broken("a port that refuses", lambda _: Nobody()).by(Via.COMPLETE),
    silent("a host that does not answer", lambda _: Nobody(full=True), "connect"),
    silent("a host that does not answer", lambda _: Nobody(full=True), "connect").by(Via.COMPLETE),
    hopeless("a host that nobody knows", lambda _: Nowhere(60, 60, 60, 60, 60), "x.invalid port 80"),
    hopeless("a host that nobody knows", lambda _: Nowhere(60, 60, 60, 60, 60)).by(Via.STREAM),
    hopeless("a host that nobody can know", lambda _: Nowhere(64), "x.invalid port 80"),
    broken("closed when accepted", peer(close)),
    broken("reset when accepted", peer(reset)),
    broken("closed after the first bytes of the request", peer(after_hello(close))),
    broken("reset after the first bytes of the request", peer(after_hello(reset))),
    silent("accepted, then silent", peer(silence), "headers"),
]

TLS = [
    completes("TLS as it should be", server=lambda made: simulator(Reply(TEXT), ssl_context=made.right)),
    hopeless("TLS: a certificate of another host", tls(lambda made: made.of_another_host), "certificate is not valid"),
    hopeless("TLS: an expired certificate", tls(lambda made: made.expired), "certificate has expired"),
    hopeless("TLS: an authority that nobody trusts", tls(lambda made: made.of_a_stranger), "verify failed"),
    hopeless("TLS: a self-signed certificate", tls(lambda made: made.self_signed), "self-signed certificate"),
    hopeless("TLS: a self-signed certificate", tls(lambda made: made.self_signed)).by(Via.COMPLETE),
    broken("TLS: the server wants a certificate", tls(lambda made: made.asking_for_one)),
    broken("TLS: the server speaks HTTP/2 only", tls(lambda made: made.speaking_http2)),
    hopeless("TLS: the server speaks plain HTTP", peer(says_and_leaves(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "https")),
    broken("TLS: closed when accepted", peer(close, "https")),
    broken("TLS: closed after the hello", peer(after_hello(close), "https")),
    broken("TLS: reset after the hello", peer(after_hello(reset), "https")),
    broken("TLS: half a record, then closed", peer(says_and_leaves(b"\x16\x03\x03\x00\x50"), "https")),
    silent("TLS: silent when accepted", peer(silence, "https"), "connect"),
    silent("TLS: half a record, then silent", peer(says(b"\x16\x03\x03\x00\x50"), "https"), "connect"),
    silent("TLS: silent after the handshake", tls(lambda made: made.right), "headers"),
    broken(
        "TLS: cut without a farewell before the head",
        lambda made: Listener(says_and_leaves(b"HTTP/1.1 200 OK\r\n"), context=made.right),
    ),
    fails(
        "TLS: spoken to a server without it",
        Reply(TEXT),
        InvalidResponseError,
        server=peer(says_and_leaves(b"\x15\x03\x01\x00\x02\x02\x46"), "http"),
    ),
]

HTTP = [
    fails(f"not HTTP/1.1: {name}", wire(said, Close()), InvalidResponseError, says="not valid HTTP")
    for name, said in {
        "another protocol's greeting": b"SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/2 frames": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
        "a version that there is not": b"HTTP/7.7 200 OK\r\n\r\n",
        "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
        "a status of 99": b"HTTP/1.1 099 OK\r\n\r\n",
        "a line that is no header": b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        "a header with a NUL": b"HTTP/1.1 200 OK\r\nx: \0\r\n\r\n",
        "an unknown transfer coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        "another protocol switched to": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n",
    }.items()
]

FRAMING = [
    fails(f"not HTTP/1.1: {name}", wire(said, Close()), InvalidResponseError, 200, says="not valid HTTP")
    for name, said in {
        "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        "a length that is no number": b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
    }.items()
]

BEFORE_THE_HEAD: dict[str, tuple[bytes, ...]] = {
    "after the request": (),
    "within the status line": (b"HTTP/1.1 2",),
    "after the status line": (b"HTTP/1.1 200 OK\r\n",),
    "within a header": (b"HTTP/1.1 200 OK\r\ncontent-ty",),
    "after interim responses": (b"HTTP/1.1 100 Continue\r\n\r\n" * 3,),
    "after an interim response": (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",),
}

ENDED = [
    fails(f"{how} {where}", wire(*said, step), APIConnectionError, attempts=2, timeouts=BRIEF)
    for where, said in BEFORE_THE_HEAD.items()
    for how, step in (("closed", Close()), ("reset", Reset()))
]

SILENT = [
    fails(f"silent {where}", wire(*said, Stall()), APITimeoutError, attempts=2, phase="headers", timeouts=BRIEF)
    for where, said in BEFORE_THE_HEAD.items()
]

ROWS = [*HOSTS, *TLS, *on_one_loop(*HTTP, *FRAMING), *ENDED, *on_two_loops(*SILENT)]
