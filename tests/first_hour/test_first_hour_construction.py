"""The first mistakes: the wrong argument first, another library's name for one. Each is typed in, and its message held.

Not here: values that can never be right (`tests/test_bad_input.py`).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
import trustme

from chatscope import AsyncChatGPTAdapter, ChatClient, InternalServerError, Task
from chatscope._client.config import ClientArguments
from chatscope.simulator import Reply, error, simulator

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

KEY = "sk-proj-0123456789abcdef"
URL = "http://localhost:8000/v1"

BOTH = [ChatClient, AsyncChatGPTAdapter]


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"api_key": URL}, "api_key looks like an address: pass addresses as base_url="),
        ({"api_key": f"{KEY} "}, "api_key .* without whitespace"),
        ({"api_key": f"{KEY}\r\n"}, "api_key .* without whitespace"),
        ({"base_url": KEY}, "base_url .* looks like a key, which goes into api_key"),
        ({"base_url": "localhost:8000/v1"}, r"base_url .* is http:// or https:// missing\?"),
        ({"base_url": f"http://localhost:{KEY}/v1"}, "base_url is not a URL: its host or port cannot be read"),
    ],
)
def test_a_key_and_an_address_that_changed_places(
    make: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make(**arguments)
    assert KEY not in str(caught.value)
    assert URL not in str(caught.value)


@pytest.mark.parametrize("make", BOTH)
def test_the_key_is_the_first_argument_of_both(make: Callable[..., Any]) -> None:
    assert make(KEY, base_url=URL)
    with pytest.raises(ValueError, match="api_key looks like an address"):
        make(URL)


def test_the_client_takes_only_the_key_by_position() -> None:
    with pytest.raises(TypeError, match=r"ChatClient\(api_key, base_url=\.\.\.\)"):
        ChatClient(KEY, URL)
    assert ChatClient(URL, KEY).base_url == URL, "an address is no key, whichever comes first"


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "OPENAI_BASE_URL"])
def test_the_same_from_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, URL if name == "OPENAI_API_KEY" else KEY)
    with pytest.raises(ValueError, match="looks like") as caught:
        ChatClient()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("max_retries", "use retry=, the number of attempts"),
        ("azure_endpoint", "pass it as base_url="),
        ("default_header", "did you mean 'default_headers'?"),
        ("apikey", "did you mean 'api_key'?"),
        ("wholly_unknown", ""),
    ],
)
def test_an_argument_of_another_library(make: Callable[..., Any], name: str, hint: str) -> None:
    with pytest.raises(TypeError) as caught:
        make(KEY, **{name: "x"})
    assert str(caught.value).startswith(f"{make.__name__}() got an unexpected keyword argument {name!r}")
    assert hint in str(caught.value)


def test_the_adapters_own_arguments_are_suggested_too() -> None:
    with pytest.raises(TypeError, match=r"AsyncChatGPTAdapter\(\) got .* 'modle': did you mean 'model'\?"):
        AsyncChatGPTAdapter(KEY, modle="m")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_number_of_attempts(serve: Serve) -> None:
    server = serve([error(503), Reply("yes")])
    async with ChatClient("k", transport=server, retry=1) as client:
        with pytest.raises(InternalServerError):
            await client.complete(**ASK)
        assert (await client.complete(**ASK, retry=2)).text == "yes"
    server = serve(error(503))
    async with AsyncChatGPTAdapter("k", transport=server, retry=1) as adapter:
        assert (await adapter.execute(Task("hi"))).attempts == 1


@pytest.mark.parametrize("kind", [httpx.Timeout, openai.Timeout])
def test_httpx_timeouts_are_taken(kind: Any) -> None:
    client = ChatClient("k", timeout=kind(5, connect=2))
    assert client._core.options.timeouts.for_transport() == {"connect": 2, "read": 5, "write": 5, "pool": 5}
    forever = ChatClient("k", timeout=kind(5, connect=None))
    assert forever._core.options.timeouts.for_transport()["connect"] is None


async def test_copies_share_connections_and_limits(serve: Serve) -> None:
    server = serve([error(503), Reply("yes")])
    async with ChatClient("k", transport=server, max_concurrency=3) as client:
        once = client.with_options(timeout=2, retry=1)
        with pytest.raises(InternalServerError):
            await once.complete(**ASK)
        await once.aclose()  # which is left to the client
        assert (await client.with_options(retry=2).complete(**ASK)).text == "yes"
        assert once.statistics() == client.statistics()
        with pytest.raises(RuntimeError, match="a copy of a client needs no block of its own"):
            await once.__aenter__()
        with pytest.raises(TypeError, match=r"with_options\(\) takes timeout and retry, not 'max_retries'"):
            client.with_options(max_retries=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(RuntimeError, match="is not open"):
        await once.complete(**ASK)


async def test_a_private_ca_and_a_certificate_of_its_own(tmp_path: Path) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    server.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server)
    leaf = authority.issue_cert("me.example")
    ca, chain, cert, key = (tmp_path / name for name in ("ca.pem", "both.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    leaf.private_key_and_cert_chain_pem.write_to_path(chain)
    leaf.cert_chain_pems[0].write_to_path(cert)
    leaf.private_key_pem.write_to_path(key)
    context = ssl.create_default_context(cafile=str(ca))
    leaf.configure_cert(context)
    ways: list[ClientArguments] = [
        {"verify": str(ca), "cert": str(chain)},
        {"verify": ca, "cert": (cert, key)},
        {"verify": context},
        {"verify": False, "cert": chain},
    ]
    async with simulator(ssl_context=server) as base_url:
        for way in ways:
            async with ChatClient("k", base_url=base_url, **way) as client:
                assert (await client.complete(**ASK)).text
        async with AsyncChatGPTAdapter("k", base_url=base_url, **ways[0]) as adapter:
            assert (await adapter.execute(Task("hi"))).success
        async with AsyncChatGPTAdapter("k", base_url=base_url) as adapter:
            result = await adapter.execute(Task("hi"))
        assert "CERTIFICATE_VERIFY_FAILED" in str(result.error)
        assert "a private CA goes into verify=" in str(result.error)
        assert result.attempts == 1
