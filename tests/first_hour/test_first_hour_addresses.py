"""Errors say where a request went, and what may be wrong with the address."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from chatscope import AsyncChatGPTAdapter, ChatClient, ChatError, RetryPolicy, Task
from chatscope.simulator import Config, html, respond, simulator

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ONCE = RetryPolicy(attempts=1)


async def read(client: ChatClient) -> None:
    async with client.stream(**ASK) as stream:
        async for _ in stream:
            pass


async def failures(base_url: str) -> list[str]:
    """Return what a plain request, a stream and a task say about the same fault."""
    said = []
    async with ChatClient("k", base_url=base_url, retry=ONCE) as client:
        with pytest.raises(ChatError) as plain:
            await client.complete(**ASK)
        with pytest.raises(ChatError) as streamed:
            await read(client)
        said += [str(plain.value), str(streamed.value)]
    async with AsyncChatGPTAdapter("k", base_url=base_url, retry=ONCE) as adapter:
        said.append((await adapter.execute(Task("hi"))).error or "")
    return said


async def test_a_base_url_without_its_version() -> None:
    async with simulator() as base_url:
        bare = base_url.removesuffix("/v1")
        for said in await failures(bare):
            assert said.startswith("HTTP 404: Invalid URL")
            assert f"(POST {bare}/chat/completions; does base_url lack /v1?)" in said


async def test_https_spoken_to_an_http_port() -> None:
    async with simulator() as base_url, ChatClient("k", base_url=base_url.replace("http://", "https://")) as client:
        with pytest.raises(ChatError, match="does the server speak http://") as caught:
            await client.complete(**ASK)
    assert caught.value.attempts == 1


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("response", "words"),
    [(html(200), "Gateway Please sign in"), (html(502), "HTTP 502: Gateway Please sign in")],
)
async def test_a_page_instead_of_an_answer(response: Any, words: str) -> None:
    async with simulator(response) as base_url:
        for said in await failures(base_url):
            assert words in said
            assert f"(POST {base_url}/chat/completions, which sent text/html" in said


async def test_a_page_at_an_address_without_a_version() -> None:
    async with simulator(respond(200, b"<h1>Welcome</h1>", "text/html"), Config(base_path=None)) as base_url:
        bare = base_url.removesuffix("/v1")
        for said in await failures(bare):
            assert "Welcome" in said
            assert "does base_url lack /v1?" in said


async def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        base_url = f"http://me:secret@127.0.0.1:{free.getsockname()[1]}/v1"
        port = free.getsockname()[1]
        for said in await failures(base_url):
            assert f"no connection to 127.0.0.1:{port}" in said
            assert f"POST http://***@127.0.0.1:{port}/v1/chat/completions" in said
            assert "secret" not in said


async def test_a_proxy_that_nobody_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        proxy = f"127.0.0.1:{free.getsockname()[1]}"
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", f"http://me:secret@{proxy}")
        for said in await failures("http://llm.example/v1"):
            assert f"through the environment's proxy {proxy}" in said
            assert "secret" not in said
