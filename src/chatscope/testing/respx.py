"""respx mocks for chatscope's own transport: importing this module is all there is to it.

Afterwards plain `respx.mock` covers `chatscope.transport.HTTPTransport` as well as everything it covered before, and so
does `respx.mock(using="chatscope")`, by name. Requests go to the routes before anything is resolved or connected, and
streams of mocked responses are read as lazily as real ones. What is not mocked here: timeouts, which belong to sockets.
"""

from __future__ import annotations

from typing import Any

import httpx

try:
    import respx.mocks
except ModuleNotFoundError as missing:
    raise ImportError("chatscope.testing.respx needs respx; install it with: pip install respx") from missing

from chatscope.transport import HTTPTransport

__all__ = ["ChatscopeMocker"]


class ChatscopeMocker(respx.mocks.HTTPCoreMocker):
    """respx's default mocker, with one more transport to patch: one that takes httpx's own requests."""

    name = "chatscope"
    targets = [*respx.mocks.HTTPCoreMocker.targets, "chatscope.transport.HTTPTransport"]  # noqa: RUF012  # as respx declares it

    @classmethod
    def to_httpx_request(cls, **kwargs: Any) -> httpx.Request:
        """Return the request that the patched method was called with, as httpx's."""
        request = kwargs["request"]
        if isinstance(request, httpx.Request):
            return request
        return super().to_httpx_request(**kwargs)  # type: ignore[no-any-return, no-untyped-call]  # respx has no types

    @classmethod
    async def from_async_httpx_response(cls, httpx_response: httpx.Response, target: object, **kwargs: Any) -> Any:
        """Return the mocked response as what the patched method of `target` returns."""
        if isinstance(target, HTTPTransport):
            return httpx_response
        return await super().from_async_httpx_response(  # type: ignore[no-untyped-call]  # respx has no types here
            httpx_response, target, **kwargs
        )


# Looked up by respx whenever a router starts that names no mocker: the one knob there is for `respx.mock` as it stands.
respx.mocks.DEFAULT_MOCKER = ChatscopeMocker.name
