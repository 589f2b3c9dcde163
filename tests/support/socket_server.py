"""A server on raw sockets that follows a test's script, in threads of its own, whatever the client's event loop."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

PATIENCE = 10.0  # seconds after which a test that waits for the other side fails instead of hanging


class Peer:
    """One accepted connection, seen from the server."""

    def __init__(self, server: Server, sock: socket.socket, number: int) -> None:
        self.server = server
        self.number = number
        self._sock = sock
        self._buffer = b""

    def _more(self) -> bool:
        data = self._sock.recv(65536)
        self._buffer += data
        return bool(data)

    def head(self) -> bytes:
        """Receive the head of a request; `b""` if the client has gone."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return b""
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def request(self) -> bytes:
        """Receive a whole request and note it."""
        head = self.head()
        body = b""
        if match := re.search(rb"(?i)content-length: (\d+)", head):
            while len(self._buffer) < int(match[1]) and self._more():
                pass
            body, self._buffer = self._buffer[: int(match[1])], self._buffer[int(match[1]) :]
        elif re.search(rb"(?i)transfer-encoding: chunked", head):
            while b"0\r\n\r\n" not in self._buffer and self._more():
                pass
            body, end, self._buffer = self._buffer.partition(b"0\r\n\r\n")
            body += end
        if head:
            self.server.requests.append(head + body)
        return head + body

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def wait_closed(self) -> None:
        """Wait until the client has closed the connection."""
        while self._more():
            pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def reset(self) -> None:
        """Break the connection off with a TCP reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def wait(self, event: threading.Event) -> None:
        assert event.wait(PATIENCE), "the test never gave the sign"


class Server:
    """Runs `script` once for every connection; the end of the script closes the connection."""

    def __init__(self, script: Callable[[Peer], None], listener: socket.socket, context: ssl.SSLContext | None) -> None:
        self.requests: list[bytes] = []
        self.accepted = 0
        self.closed = threading.Semaphore(0)
        self._script = script
        self._listener = listener
        self._context = context
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/"

    def wait_closed(self, times: int = 1) -> None:
        """Wait until `times` connections have come to their end."""
        for _ in range(times):
            assert self.closed.acquire(timeout=PATIENCE), "the connection was not closed"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            thread = threading.Thread(target=self._serve, args=(sock, self.accepted))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(PATIENCE)
        try:
            with contextlib.suppress(OSError):
                if self._context is not None:
                    sock = self._context.wrap_socket(sock, server_side=True)
                peer = Peer(self, sock, number)
                self._script(peer)
                peer.close()
        finally:
            sock.close()
            self.closed.release()


class Serve:
    """Starts servers that end with the test."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def __call__(
        self,
        script: Callable[[Peer], None],
        *,
        context: ssl.SSLContext | None = None,
        uds: Path | None = None,
        backlog: int = 128,
    ) -> Server:
        if uds is None:
            listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        else:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(uds))
            listener.listen(backlog)
        return self._stack.enter_context(Server(script, listener, context))

    def responses(self, *responses: bytes, context: ssl.SSLContext | None = None) -> Server:
        """Answer the requests of every connection with these, then leave it open until the client closes it."""

        def script(peer: Peer) -> None:
            for response in responses:
                if not peer.request():
                    return
                peer.send(response)
            peer.wait_closed()

        return self(script, context=context)
