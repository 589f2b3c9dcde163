"""respx mocks the default transport, by name and by default, without a socket."""

from __future__ import annotations

import socket
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

import anyio
import httpcore
import httpx
import pytest
import respx

import chatscope.testing.respx  # noqa: F401  # importing it is what is tested
from chatscope.transport import HTTPTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.one_loop  # respx patches methods: no loop sees the difference

URL = "https://api.example.com/v1/chat/completions"


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make resolving and connecting fail, whoever tries."""

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("a socket was about to be opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


async def call() -> httpx.Response:
    async with HTTPTransport(trust_env=False) as transport:
        response = await transport.handle_async_request(httpx.Request("POST", URL, content=b"{}"))
        await response.aread()
        assert transport.statistics().connects == 0
        return response


async def test_without_the_mock_a_socket_would_be_opened() -> None:
    with pytest.raises(AssertionError, match="about to be opened"):
        await call()


@pytest.mark.parametrize("using", ["chatscope", None], ids=["by name", "by default"])
async def test_the_transport_is_mocked(using: str | None) -> None:
    with respx.mock(using=using) if using else respx.mock() as router:
        route = router.post(URL).respond(418, json={"a": 1})
        response = await call()
    assert (response.status_code, response.json()) == (418, {"a": 1})
    assert route.calls.last.request.content == b"{}"


@respx.mock
async def test_the_global_router_is_mocked() -> None:
    respx.post(URL).respond(201)
    assert (await call()).status_code == 201


@respx.mock(base_url="https://api.example.com")
async def test_a_decorator_with_a_router_of_its_own_is_mocked(respx_mock: respx.MockRouter) -> None:
    respx_mock.post("/v1/chat/completions").respond(201)
    assert (await call()).status_code == 201


async def through_httpx() -> int:
    async with httpx.AsyncClient() as client:
        return (await client.post(URL)).status_code


@pytest.mark.parametrize("first", [None, "httpcore"], ids=["default first", "httpcore first"])
async def test_routers_for_httpcore_work_beside_it(first: str | None) -> None:
    """As in respx alone: the router that started first is asked first, and the next one where it has no route."""
    second = None if first else "httpcore"

    def router(using: str | None) -> respx.MockRouter:
        if using is None:
            return respx.mock(assert_all_called=False)
        return respx.mock(assert_all_called=False, using=using)

    patched = (HTTPTransport, httpcore.AsyncConnectionPool, httpcore.ConnectionPool)
    before = [vars(cls).copy() for cls in patched]
    with router(first) as one, router(second) as two:
        two.post(URL).respond(202)
        assert await through_httpx() == 202
        one.post(URL).respond(201)
        assert await through_httpx() == 201
        if first:
            assert (await call()).status_code == 202
        else:
            assert (await call()).status_code == 201
            one.routes.clear()
            with pytest.raises(AssertionError, match="not mocked"):
                await call()
    assert [vars(cls) for cls in patched] == before


async def test_nested_routers_are_asked_in_turn() -> None:
    with respx.mock(assert_all_called=False) as outer, respx.mock() as inner:
        inner.post(URL).respond(202)
        assert (await call()).status_code == 202
        outer.post(URL).respond(203)
        assert (await call()).status_code == 203
        assert (inner.calls.call_count, outer.calls.call_count) == (1, 1)


async def test_calls_keep_copies_as_in_respx() -> None:
    with respx.mock() as router:
        router.post(URL).respond(200, text="hi")
        async with httpx.AsyncClient(transport=HTTPTransport()) as client:
            request = client.build_request("POST", URL, headers={"x-key": "one"})
            response = await client.send(request)
            request.headers["x-key"] = "two"
            response.headers["x-new"] = "one"
            assert (await client.send(request)).text == "hi"
        assert [call.request.headers["x-key"] for call in router.calls] == ["one", "two"]
        assert response.request is request
        assert "x-new" not in router.calls[0].response.headers


async def test_a_request_that_is_passed_through_keeps_its_body(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []

    async def handle(self: HTTPTransport, request: httpx.Request) -> httpx.Response:
        sent.append(await request.aread())
        return httpx.Response(200)

    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    handle.__name__ = "handle_async_request"
    monkeypatch.setattr(HTTPTransport, "handle_async_request", handle)
    with respx.mock() as router:
        router.post(URL).pass_through()
        await HTTPTransport().handle_async_request(httpx.Request("POST", URL, content=body()))
    assert sent == [b"once"]


async def test_side_effects_raise() -> None:
    with respx.mock() as router:
        router.post(URL).mock(side_effect=httpx.ConnectError)
        with pytest.raises(httpx.ConnectError):
            await call()


async def test_what_is_not_mocked_is_refused() -> None:
    with respx.mock(), pytest.raises(AssertionError, match="not mocked"):
        await call()


async def test_streams_are_lazy_and_see_cancellation() -> None:
    produced: list[str] = []

    async def body() -> AsyncIterator[bytes]:
        for part in ("a", "b"):
            produced.append(part)
            yield part.encode()
        try:
            await anyio.sleep_forever()
        finally:
            produced.append("cancelled")

    with respx.mock() as router:
        router.post(URL).mock(return_value=httpx.Response(200, content=body()))
        async with HTTPTransport() as transport:
            response = await transport.handle_async_request(httpx.Request("POST", URL))
            assert isinstance(response.stream, httpx.AsyncByteStream)
            parts = aiter(response.stream)
            assert produced == []
            assert await anext(parts) == b"a"
            assert produced == ["a"]
            assert await anext(parts) == b"b"
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anext(parts)
    assert produced == ["a", "b", "cancelled"]


def test_without_respx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "respx.mocks", None)
    monkeypatch.delitem(sys.modules, "chatscope.testing.respx")
    with pytest.raises(ImportError, match="needs respx; install it with: pip install respx"):
        import_module("chatscope.testing.respx")
