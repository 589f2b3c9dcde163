"""Fixtures for the transport: a scripted server on sockets, certificates, requests with timeouts."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator

import httpx
import pytest
import trustme
from tests.support.socket_server import PATIENCE, Serve, Server


@pytest.fixture
def serve() -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:
        yield Serve(stack)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def request_to() -> Callable[..., httpx.Request]:
    """Build a POST of a few bytes, or what else is asked for, with timeouts of `PATIENCE`."""

    def build(server: Server | str, method: str = "POST", **kwargs: object) -> httpx.Request:
        url = server if isinstance(server, str) else server.url
        timeout = {"connect": PATIENCE, "read": PATIENCE, "write": PATIENCE}
        kwargs.setdefault("extensions", {"timeout": timeout})
        if method == "POST":
            kwargs.setdefault("content", b"hello")
        return httpx.Request(method, url, **kwargs)  # type: ignore[arg-type]  # passed through

    return build
