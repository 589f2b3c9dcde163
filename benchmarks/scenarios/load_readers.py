"""Reads many streams and discards them, so cheaply that only the server limits the load."""

from __future__ import annotations

import selectors
import socket
import time
from typing import Final
from urllib.parse import urlsplit

_BODY: Final = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}'
LOOK_SECONDS: Final = 0.02
"""The reader polls fifty times per second. Reading each token separately would cost as much as writing it."""


def read_streams(base_url: str, number: int, seconds: float) -> None:
    """Read a number of streams for a number of seconds, then disconnect."""
    address = urlsplit(base_url)
    head = f"POST {address.path}/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(_BODY)}\r\n\r\n"
    request = head.encode() + _BODY
    with selectors.DefaultSelector() as selector:
        for _ in range(number):
            sock = socket.create_connection((address.hostname or "", address.port or 0))
            sock.sendall(request)
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ)
            time.sleep(seconds / number / 10)  # do not start all streams at once
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
            for key, _ in selector.select(0):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.recv(1 << 16)
        for key in list(selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
