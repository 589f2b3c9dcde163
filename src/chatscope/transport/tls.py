"""TLS over any `SocketStream`: the standard `ssl` module on memory buffers.

Here: the default context, the handshake, records to plain bytes and back. There is one implementation for all event
loops, because the loops' own implementations differ in how long a close waits for the peer, in what remains open after
a cancelled handshake, and in speed. Not here: sockets (`streams`), addresses and the handshake's deadline (`connect`).
"""

from __future__ import annotations

import ssl
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

from anyio.lowlevel import cancel_shielded_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatscope.transport.base import SocketStream

__all__ = ["TLSStream", "client_context", "default_context"]

# The largest plaintext of one TLS record (RFC 8446, section 5.1). SSLObject.read never returns more.
RECORD_SIZE = 16 * 1024


def default_context(*, verify: bool) -> ssl.SSLContext:
    """Return a client context on the system's trust store. OpenSSL honours `SSL_CERT_FILE` and `SSL_CERT_DIR`.

    With `verify=False` it accepts any certificate for any name.
    """
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def client_context(
    verify: ssl.SSLContext | str | PathLike[str] | bool,
    cert: str | PathLike[str] | tuple[str | PathLike[str], str | PathLike[str]] | None = None,
) -> ssl.SSLContext:
    """Return the context for a client's arguments `verify` and `cert`, in the forms that httpx accepts.

    Raises:
        ValueError: one of them is invalid; the error names it.
    """
    if isinstance(verify, ssl.SSLContext):
        if cert is not None:
            raise ValueError("cert belongs to the SSLContext that verify is: use its load_cert_chain()")
        return verify
    context = default_context(verify=verify is not False)
    if isinstance(verify, str | PathLike):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_verify_locations(**{"capath" if Path(verify).is_dir() else "cafile": fspath(verify)})
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(f"verify: no certificates can be read from {fspath(verify)!r}: {error}") from error
    elif not isinstance(verify, bool) and verify is not None:
        raise ValueError(f"verify must be an ssl.SSLContext, a path or a bool, not {type(verify).__name__}")
    if cert is not None:
        try:
            file, key = (cert, None) if isinstance(cert, str | PathLike) else cert
            context.load_cert_chain(file, key)
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"cert: no certificate with its key can be read from {cert!r}: {error}") from error
    return context


class TLSStream:
    """A `SocketStream` that encrypts the bytes of another one.

    Closing neither sends nor awaits close_notify, because the response was complete or is not wanted (RFC 9112, section
    9.8, asks only servers to wait). The peer's close_notify is required if the end of the stream ends the body.
    """

    __slots__ = ("_ended", "_incoming", "_outgoing", "_plain", "_raw", "_tls")

    def __init__(self, raw: SocketStream, context: ssl.SSLContext, server_hostname: str) -> None:
        self._raw = raw
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._plain = b""
        self._ended = False

    @property
    def read_ns(self) -> int:
        """See `SocketStream`."""
        return self._raw.read_ns

    @property
    def write_refused(self) -> bool:
        """See `SocketStream`."""
        return self._raw.write_refused

    async def handshake(self) -> None:
        """Shake hands. The caller closes on failure. Raises `ssl.SSLError`, or `OSError` if the peer breaks off."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send()
                self._take_in(await self._raw.receive(None))
            except ssl.SSLError:
                # The alert that says why. asyncio sends it in the loop's next tick, so the caller must not close yet.
                self._raw.write(self._outgoing.read())
                await cancel_shielded_checkpoint()
                raise
            else:
                await self._send()
                return

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol that both sides agreed on, if any."""
        return self._tls.selected_alpn_protocol()

    async def receive(self, within: float | None) -> bytes:
        """See `SocketStream`."""
        while not (self._plain or self._ended):
            self._decrypt(await self._raw.receive(within))
        plain, self._plain = self._plain, b""
        return plain

    async def pump(self, on_bytes: Callable[[bytes], bool], within: float | None) -> bool:
        """See `SocketStream`."""
        is_enough = False

        def on_read(data: bytes) -> bool:
            nonlocal is_enough
            self._decrypt(data)
            plain, self._plain = self._plain, b""
            is_enough = bool(plain) and on_bytes(plain)
            return is_enough or self._ended

        if self._plain:
            plain, self._plain = self._plain, b""
            if on_bytes(plain):
                return True
        if not (self._ended or await self._raw.pump(on_read, within)):
            on_read(b"")
        return is_enough

    def write(self, data: bytes) -> bool:
        """See `SocketStream`."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]  # one record at a time: Python enables OpenSSL's partial writes
        return self._raw.write(self._outgoing.read()) and not (self._plain or self._ended)

    async def flush(self, within: float | None) -> bool:
        """See `SocketStream`. Session tickets and key updates are processed and do not count as something received."""
        while not await self._raw.flush(within):
            while (data := self._raw.poll()) is not None:
                self._decrypt(data)
            if self._plain or self._ended:
                return False
        return True

    def unsent(self) -> bool:
        """See `SocketStream`."""
        return self._raw.unsent()

    def poll(self) -> bytes | None:
        """See `SocketStream`. A session ticket may have arrived while the connection was idle."""
        while not (self._plain or self._ended):
            data = self._raw.poll()
            if data is None:
                return None
            try:
                self._decrypt(data)
            except OSError:
                return b""
        plain, self._plain = self._plain, b""
        return plain

    def is_quiet(self) -> bool:
        """See `SocketStream`. Bytes that the event loop has not read yet may be a ticket, so they do not count."""
        return self.poll() is None

    def watch(self, on_lost: Callable[[], object] | None) -> bool:
        """See `SocketStream`."""
        return self._raw.watch(on_lost)

    def abort(self) -> None:
        """See `SocketStream`."""
        self._raw.abort()

    def abandon(self) -> None:
        """See `SocketStream`."""
        self._raw.abandon()

    async def _send(self) -> None:
        if self._outgoing.pending:
            self._raw.write(self._outgoing.read())
        if self._raw.unsent():
            await self._raw.flush(None)

    def _take_in(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _decrypt(self, data: bytes) -> None:
        """Add the plaintext of `data` to `_plain`, and set `_ended` at a close_notify. An end without one raises."""
        self._take_in(data)
        parts = [self._plain] if self._plain else []
        try:
            # Checked first: an SSLWantReadError for every read costs more than asking whether anything is left.
            while not data or self._incoming.pending or self._tls.pending():
                part = self._tls.read(RECORD_SIZE)
                if not part:
                    self._ended = True
                    break
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        finally:
            self._plain = b"".join(parts) if len(parts) != 1 else parts[0]
        if self._outgoing.pending and not self._ended:
            self._raw.write(self._outgoing.read())  # the response to a key update
