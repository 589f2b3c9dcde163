"""Profiles: which server a base URL is, and what is sent to each; the key goes to the host of the base URL alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.support.tables import row

from chatscope import AsyncChatGPTAdapter, ChatClient, RetryPolicy, Task, TaskConstraints
from chatscope.profiles import AZURE_API_VERSION, NO_PROFILE, PROFILES, find_profile
from chatscope.protocol.request import encode_body
from chatscope.simulator import Reply, UsageIn, error

if TYPE_CHECKING:
    from tests.support.memory_server import MemoryServer, Serve

    from chatscope.simulator import ChatRequest

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
VERSION = f"api-version={AZURE_API_VERSION}"


def client_of(server: MemoryServer, base_url: str | None = None, profile: str | None = None) -> ChatClient:
    return ChatClient(
        "sk-12345678", base_url=base_url, profile=profile, transport=server, retry=RetryPolicy(attempts=1)
    )


# -- which ------------------------------------------------------------------------------------------------------------


def test_a_base_url_tells_the_profile() -> None:
    rows: list[tuple[str, str]] = [
        ("https://api.openai.com/v1", "openai"),
        ("https://API.OpenAI.com:443/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://mine.openai.azure.com", "azure"),
        ("https://mine.cognitiveservices.azure.com/openai/v1", "azure"),
        ("https://mine.services.ai.azure.com/openai/v1", "azure"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://ollama.com/v1", "ollama"),
        ("http://localhost:11434/v1", "ollama"),
        ("http://localhost:8000/v1", ""),
        ("http://localhost/v1", ""),
        ("https://api.mistral.ai.evil.example/v1", ""),
        ("https://evil.example/api.mistral.ai", ""),
        ("https://notopenai.azure.com", ""),
        ("https://api.mistral.ai@evil.example/v1", ""),
        ("http://host:port/v1", ""),
        ("http://[", ""),
    ]
    for base_url, name in rows:
        with row(base_url, name):
            assert find_profile(None, base_url).name == name


def test_a_name_goes_before_the_base_url() -> None:
    assert find_profile("vllm", "https://api.mistral.ai/v1") is PROFILES["vllm"]
    assert find_profile(None, "http://gpu:8000/v1") is NO_PROFILE


def test_every_profile_of_the_contract_is_there() -> None:
    assert list(PROFILES) == [
        "openai",
        "azure",
        "vllm",
        "llama.cpp",
        "ollama",
        "openrouter",
        "mistral",
        "groq",
        "deepseek",
    ]
    assert all(profile.name == name for name, profile in PROFILES.items())


def test_a_profile_that_does_not_exist() -> None:
    rows: list[Any] = ["mystral", "", "OpenAI", 5, ["vllm"]]
    for profile in rows:
        with row(profile):
            says = r"profile must be one of openai, azure, .*, deepseek, not "
            with pytest.raises(ValueError, match=says):
                ChatClient("k", base_url="http://gpu:8000/v1", profile=profile)
            with pytest.raises(ValueError, match=says):
                AsyncChatGPTAdapter("k", base_url="http://gpu:8000/v1", profile=profile)


def test_a_profile_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="profile 'groq' says how to ask a server, not where it is"):
        ChatClient(api_key="k", profile="groq")
    assert ChatClient(api_key="k", profile="openai").base_url == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://gpu:8000/v1")
    assert ChatClient(api_key="k", profile="vllm")._core.options.profile.name == "vllm"


def test_the_adapter_names_it() -> None:
    rows: list[tuple[dict[str, str], str | None]] = [
        ({}, "openai"),
        ({"base_url": "https://api.groq.com/openai/v1"}, "groq"),
        ({"base_url": "http://gpu:8000/v1", "profile": "vllm"}, "vllm"),
        ({"base_url": "http://gpu:8000/v1"}, None),
    ]
    for arguments, profile in rows:
        with row(arguments, profile):
            assert AsyncChatGPTAdapter("k", **arguments).get_adapter_status()["profile"] == profile  # type: ignore[arg-type]  # texts


# -- what is sent -----------------------------------------------------------------------------------------------------

GIVEN: dict[str, Any] = {"max_completion_tokens": 5, "seed": 7, "store": False, "user": "u", "temperature": 0}
USAGE = {"stream_options": {"include_usage": True}}


async def test_what_each_is_sent(serve: Serve) -> None:
    rows: list[tuple[str | None, dict[str, Any], dict[str, Any]]] = [
        (None, GIVEN, USAGE),
        ("openai", GIVEN, USAGE),
        ("azure", GIVEN, USAGE),
        ("vllm", {"max_tokens": 5, "seed": 7, "store": False, "user": "u", "temperature": 0}, USAGE),
        ("llama.cpp", {"max_tokens": 5, "seed": 7, "store": False, "user": "u", "temperature": 0}, USAGE),
        ("ollama", {"max_tokens": 5, "seed": 7, "store": False, "user": "u", "temperature": 0}, USAGE),
        ("deepseek", {"max_tokens": 5, "seed": 7, "store": False, "user": "u", "temperature": 0}, USAGE),
        ("openrouter", GIVEN, {}),
        ("mistral", {"max_tokens": 5, "random_seed": 7, "temperature": 0}, {}),
        ("groq", {"max_completion_tokens": 5, "seed": 7, "user": "u", "temperature": 0}, USAGE),
    ]
    for profile, sent, usage in rows:
        with row(profile, sent, usage):
            server = serve()
            async with client_of(server, "http://host.example/v1", profile) as client:
                await client.complete(**ASK, **GIVEN)
                async with client.stream(**ASK, **GIVEN) as stream:
                    [chunk async for chunk in stream]
            assert server.bodies == [ASK | sent, ASK | sent | usage | {"stream": True}]


async def test_reasoning_is_not_sent_back_to_servers_that_refuse_it(serve: Serve) -> None:
    kept = {"role": "assistant", "content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "hi"}]}
    message = kept | {"reasoning": "hm", "reasoning_content": "hm", "reasoning_details": []}
    for profile in PROFILES:
        server = serve()
        async with client_of(server, "http://host.example/v1", profile) as client:
            for messages in ([message], (message,)):
                await client.complete(model="m", messages=messages)
        sent = kept if profile in {"mistral", "groq"} else message
        assert [body["messages"] for body in server.bodies] == [[sent], [sent]], profile
    assert set(message) > set(kept), "the caller's message is left alone"
    with pytest.raises(ValueError, match="messages must be a list"):
        encode_body("m", PROFILES["groq"].adapt_messages("hi"), {}, stream=False)


def test_a_name_of_the_servers_own_goes_before_the_endpoints() -> None:
    mistral = PROFILES["mistral"]
    assert mistral.adapt({"max_completion_tokens": 5, "max_tokens": 6}) == {"max_tokens": 6}
    untouched = {"seed": 1}
    assert NO_PROFILE.adapt(untouched) is untouched


async def test_what_the_caller_adds_by_hand_is_sent_as_it_is(serve: Serve) -> None:
    server = serve()
    async with client_of(server, "https://api.mistral.ai/v1") as client:
        await client.complete(**ASK, stream_options={"include_usage": True}, extra_body={"store": True, "seed": 1})
    assert server.bodies == [ASK | {"store": True, "seed": 1}]


async def test_the_limit_of_a_task_has_the_servers_name(serve: Serve) -> None:
    server = serve()
    task = Task("hi", constraints=TaskConstraints(model="router/o3", max_tokens=5))
    async with AsyncChatGPTAdapter("k", base_url="https://api.mistral.ai/v1", transport=server) as adapter:
        assert (await adapter.execute(task)).success
    assert "max_completion_tokens" not in server.bodies[0]
    assert server.bodies[0]["max_tokens"] == 5


async def test_usage_that_comes_unasked(serve: Serve) -> None:
    rows: list[UsageIn] = [UsageIn.FINISH, UsageIn.X_GROQ]
    for place in rows:
        with row(place):
            server = serve(Reply("Hello, world.", usage_in=place))
            async with client_of(server, "https://openrouter.ai/api/v1") as client, client.stream(**ASK) as stream:
                [chunk async for chunk in stream]
            assert "stream_options" not in server.bodies[0]
            assert stream.completion.usage is not None
            assert stream.completion.usage.completion_tokens == 4


# -- where it goes ----------------------------------------------------------------------------------------------------


async def test_the_key_goes_to_the_host_of_the_base_url(serve: Serve) -> None:
    rows: list[str | None] = [None, *PROFILES]
    base_urls: list[str] = ["https://host.example:8443/v1", "https://host.example:8443"]
    for profile in rows:
        for base_url in base_urls:
            with row(profile, base_url):
                server = serve()
                async with client_of(server, base_url, profile) as client:
                    await client.complete(**ASK)
                (request,) = server.requests
                assert (request.url.scheme, request.url.host, request.url.port) == ("https", "host.example", 8443)
                assert b"sk-12345678" not in request.url.raw_path
                carriers = {name: value for name, value in request.headers.items() if "sk-12345678" in value}
                assert carriers == (
                    {"api-key": "sk-12345678"} if profile == "azure" else {"authorization": "Bearer sk-12345678"}
                )


def test_no_profile_moves_the_host() -> None:
    rows = PROFILES.values()
    for profile in rows:
        with row(profile):
            for base_url in (
                "https://host.example/v1",
                "https://user@host.example:1",
                "https://host.example/openai?a=b",
            ):
                assert urlsplit(profile.address(base_url)).netloc == urlsplit(base_url).netloc


async def test_azure(serve: Serve) -> None:
    rows: list[tuple[str, str]] = [
        ("https://r.openai.azure.com", f"/openai/deployments/my%2Fmodel/chat/completions?{VERSION}"),
        ("https://r.openai.azure.com/", f"/openai/deployments/my%2Fmodel/chat/completions?{VERSION}"),
        ("https://r.openai.azure.com/openai", f"/openai/deployments/my%2Fmodel/chat/completions?{VERSION}"),
        (
            "https://r.openai.azure.com?api-version=2025-01-01-preview",
            "/openai/deployments/my%2Fmodel/chat/completions?api-version=2025-01-01-preview",
        ),
        ("https://r.openai.azure.com/openai/deployments/d", f"/openai/deployments/d/chat/completions?{VERSION}"),
        (
            "https://r.openai.azure.com/openai/deployments/d?a=b",
            f"/openai/deployments/d/chat/completions?a=b&{VERSION}",
        ),
        ("https://r.openai.azure.com/openai/v1", "/openai/v1/chat/completions"),
        ("https://r.services.ai.azure.com/openai/v1/", "/openai/v1/chat/completions"),
        ("https://r.openai.azure.com/openai/v1?api-version=preview", "/openai/v1/chat/completions?api-version=preview"),
    ]
    for base_url, sent in rows:
        with row(base_url, sent):
            server = serve()
            ask: dict[str, Any] = {**ASK, "model": "my/model"}
            async with client_of(server, base_url) as client:
                await client.complete(**ask)
                async with client.stream(**ask, extra_query={"x": 1}) as stream:
                    [chunk async for chunk in stream]
            plain, streamed = server.requests
            assert plain.url.raw_path.decode() == sent
            assert streamed.url.raw_path.decode() == f"{sent}{'&' if '?' in sent else '?'}x=1"
            assert (plain.headers["api-key"], "authorization" in plain.headers) == ("sk-12345678", False)
            assert server.bodies[0]["model"] == "my/model"


async def test_azures_version_from_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_VERSION", "2025-04-01-preview")
    server = serve()
    async with client_of(server, "https://r.openai.azure.com") as client:
        await client.complete(**ASK)
    assert server.requests[0].url.params["api-version"] == "2025-04-01-preview"


async def test_a_token_of_azures_own_directory_goes_in_a_header_of_the_callers(serve: Serve) -> None:
    server = serve()
    headers = {"Authorization": "Bearer token"}
    async with ChatClient(
        "", base_url="https://r.openai.azure.com", default_headers=headers, transport=server
    ) as client:
        await client.complete(**ASK)
    assert server.requests[0].headers["authorization"] == "Bearer token"
    assert "api-key" not in server.requests[0].headers


async def test_the_key_in_azures_header_does_not_show(serve: Serve) -> None:
    server = serve(error(401, "Access denied for key sk-12345678."))
    async with client_of(server, "https://r.openai.azure.com") as client:
        with pytest.raises(Exception, match=r"Access denied for key \*\*\*\.") as caught:
            await client.complete(**ASK)
    assert "sk-12345678" not in repr(client)
    assert "sk-12345678" not in repr(caught.value)


# -- what is learned --------------------------------------------------------------------------------------------------


class OldServer:
    """Refuses `stream_options`, and quotes the request in whatever else it refuses."""

    def __call__(self, request: ChatRequest) -> Any:
        if request.parameters.top_p == 0:
            return error(400, f"top_p must be positive: {dict(request.body)}")
        return error(400, "stream_options?") if "stream_options" in request.body else Reply("Hello, world.")


async def test_learned_once_per_base_url(serve: Serve) -> None:
    server = serve(OldServer())
    async with client_of(server, "http://old:8000/v1") as client:
        for _ in range(3):
            async with client.stream(**ASK) as stream:
                [chunk async for chunk in stream]
    assert ["stream_options" in body for body in server.bodies] == [True, False, False, False]


async def test_a_refusal_that_only_quotes_the_request_teaches_nothing(serve: Serve) -> None:
    server = serve(OldServer())
    async with client_of(server, "http://new:8000/v1") as client:
        with pytest.raises(Exception, match="top_p must be positive"):
            await client.stream(**ASK, top_p=0).__aenter__()
        server.script = Reply("Hello, world.")
        async with client.stream(**ASK) as stream:
            [chunk async for chunk in stream]
    assert ["stream_options" in body for body in server.bodies] == [True, False, True]


async def test_httpx_clients_get_the_address_too(serve: Serve) -> None:
    server = serve()
    async with (
        httpx.AsyncClient(transport=server) as http_client,
        ChatClient("k", base_url="https://r.openai.azure.com", http_client=http_client) as client,
    ):
        await client.complete(**ASK)
    assert server.requests[0].url.path == "/openai/deployments/m/chat/completions"
