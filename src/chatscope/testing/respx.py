"""respx mocks for chatscope's own transport. Importing this module is all that is needed.

Afterwards plain `respx.mock` also covers `chatscope.transport.HTTPTransport`, and so does the explicit
`respx.mock(using="chatscope")`. Requests reach the routes before any name is resolved or connection opened. Streams of
mocked responses are read as lazily as real ones. Timeouts are not mocked, because only sockets have them.
"""

from __future__ import annotations

from typing import Any

import httpx

try:
    import respx.mocks
except ModuleNotFoundError as missing:
    raise ImportError("chatscope.testing.respx needs respx; install it with: pip install respx") from missing

__all__ = ["ChatscopeMocker"]


class ChatscopeMocker(respx.mocks.AbstractRequestMocker):
    """respx's default mocker, extended to chatscope's transport.

    Routers are registered with both mockers, so they share httpcore with routers of `using="httpcore"`, as the default
    mocker's routers do.
    """

    name = "chatscope"
    targets = ["chatscope.transport.HTTPTransport"]  # noqa: RUF012  # as respx declares it
    target_methods = ["handle_async_request"]  # noqa: RUF012

    @classmethod
    def register(cls, router: respx.Router) -> None:
        """Add a router."""
        super().register(router)
        respx.mocks.HTTPCoreMocker.register(router)

    @classmethod
    def unregister(cls, router: respx.Router) -> bool:
        """Remove a router and return whether it was there."""
        respx.mocks.HTTPCoreMocker.unregister(router)
        return super().unregister(router)

    @classmethod
    def start(cls) -> None:
        """Patch all transports, unless they are patched already."""
        respx.mocks.HTTPCoreMocker.start()
        super().start()

    @classmethod
    def stop(cls, force: bool = False) -> None:
        """Remove the patches that no router needs any more."""
        super().stop(force)
        respx.mocks.HTTPCoreMocker.stop(force)

    @classmethod
    def to_httpx_request(cls, **kwargs: Any) -> httpx.Request:
        """Return a copy of the request for the routes and for `calls`, because its sender may change the original."""
        request: httpx.Request = kwargs["request"]
        return httpx.Request(
            request.method, request.url, headers=request.headers, stream=request.stream, extensions=request.extensions
        )

    @classmethod
    async def prepare_async_request(
        cls, httpx_request: httpx.Request, **kwargs: Any
    ) -> tuple[httpx.Request, dict[str, Any]]:
        """Read the body once, for both the copy and the original, which is sent if the request is passed through."""
        await httpx_request.aread()
        kwargs["request"].stream = httpx_request.stream
        return httpx_request, kwargs

    @classmethod
    async def from_async_httpx_response(
        cls,
        httpx_response: httpx.Response,
        target: object,  # noqa: ARG003 - respx's signature
        **kwargs: Any,
    ) -> httpx.Response:
        """Return a copy of the mocked response, for the sender of the request."""
        return httpx.Response(
            httpx_response.status_code,
            headers=httpx_response.headers,
            stream=httpx_response.stream,
            extensions=httpx_response.extensions,
            request=kwargs["request"],
        )


# respx looks this up when a router that names no mocker starts. There is no other way to cover plain `respx.mock`.
respx.mocks.DEFAULT_MOCKER = ChatscopeMocker.name
