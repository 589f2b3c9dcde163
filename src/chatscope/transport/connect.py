"""Connects a `SocketStream` to an origin: addresses, happy eyeballs, Unix sockets, TLS.

Here: one implementation for all event loops, with anyio's task groups, because uvloop has no happy eyeballs and the
others differ in the details. Not here: names (`resolver`), waiting for sockets (`streams`), reuse (`pool`).
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import anyio

from chatscope.transport.streams import attach, connect_socket
from chatscope.transport.tls import TLSStream

if TYPE_CHECKING:
    import ssl

    from chatscope.transport.base import SocketStream
    from chatscope.transport.resolver import Resolver
    from chatscope.transport.witness import ReadWitness

__all__ = ["connect"]

# Seconds after which the next address is tried if one does not respond. RFC 8305, section 5, recommends this.
ATTEMPT_DELAY = 0.25


async def connect(
    host: str,
    port: int,
    *,
    resolver: Resolver,
    uds: str | None,
    context: ssl.SSLContext | None,
    witness: ReadWitness | None = None,
) -> SocketStream:
    """Return a stream to `host` and `port`, or to the Unix socket `uds`, through TLS if there is a `context`.

    A `witness` may watch its reads.

    If cancelled at any point, no socket stays open. Deadlines are the caller's. Raises `OSError`, and `ValueError` for
    a host that no DNS name or certificate can have.
    """
    if uds is None:
        sock = await _connect_tcp(await resolver.resolve(host, port))
    else:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        await _connect_or_close(sock, uds)
    stream = await attach(sock if witness is None else witness.watch(sock))
    if context is None:
        return stream
    try:
        tls = TLSStream(stream, context, host)
        await tls.handshake()
        if tls.selected_alpn_protocol() not in {None, "http/1.1"}:
            raise OSError(f"the server chose {tls.selected_alpn_protocol()!r}, but this transport speaks only HTTP/1.1")
    except BaseException:
        stream.abort()
        raise
    return tls


async def _connect_tcp(addresses: list[tuple[int, Any]]) -> socket.socket:
    if len(addresses) == 1:
        return await _attempt(*addresses[0])
    connected: list[socket.socket] = []
    failures: list[OSError] = []

    async def attempt(family: int, address: Any, failed: anyio.Event) -> None:
        try:
            sock = await _attempt(family, address)
        except OSError as exc:
            failures.append(exc)
            failed.set()
        else:
            connected.append(sock)
            group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            for family, address in addresses:
                failed = anyio.Event()
                group.start_soon(attempt, family, address, failed)
                with anyio.move_on_after(ATTEMPT_DELAY):
                    await failed.wait()
        if not connected:
            reasons = "; ".join(dict.fromkeys(str(failure) for failure in failures))
            raise OSError(f"no address accepts a connection: {reasons}") from failures[0]
    except BaseException:
        for sock in connected:
            sock.close()
        raise
    # Two attempts may succeed in the same tick of the loop.
    for sock in connected[1:]:
        sock.close()
    return connected[0]


async def _attempt(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    # A request is one write, and its last segment must not wait for an acknowledgement.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return await _connect_or_close(sock, address)


async def _connect_or_close(sock: socket.socket, address: Any) -> socket.socket:
    try:
        sock.setblocking(False)
        await connect_socket(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
