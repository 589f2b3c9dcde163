"""The arguments that clients share: which class an error names, and what the environment stands in for."""

from __future__ import annotations

from typing import Any

import pytest

from chatscope import AsyncChatGPTAdapter, ChatClient, RetryPolicy
from chatscope._client.config import ClientArguments, ClientOptions
from chatscope.transport import HTTPTransport


@pytest.mark.parametrize("kind", [ChatClient, AsyncChatGPTAdapter])
def test_an_unknown_argument_names_the_class_that_was_called(kind: Any) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}\(\) got an unexpected keyword argument 'max_retries'"):
        kind(max_retries=3)


@pytest.mark.parametrize("kind", [ChatClient, AsyncChatGPTAdapter])
def test_every_shared_argument_is_taken_by_both(kind: Any) -> None:
    given: dict[str, Any] = dict.fromkeys(ClientArguments.__annotations__)
    given |= {"telemetry": False, "retry": RetryPolicy(attempts=2), "transport": HTTPTransport(), "max_pending": 7}
    options = kind(api_key="k", **given)._core.options
    assert (options.retry.attempts, options.transport, options.limits["max_pending"]) == (2, given["transport"], 7)


def test_what_is_not_given_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASE_URL", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", f"http://{name.lower().replace('_', '-')}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-api-key")
    options = ClientOptions.of(ChatClient, None, None, 60.0, {})
    endpoint = options.endpoint
    assert (endpoint.base_url, endpoint.api_key) == ("http://base-url/v1", "sk-api-key")
    assert (endpoint.organization, endpoint.project) == ("http://org-id/v1", "http://project-id/v1")
    assert options.has_key
    assert "api-key" not in repr(options)
    given = ClientOptions.of(ChatClient, "", "http://x", 60.0, {"organization": "o", "project": "p"}).endpoint
    assert (given.base_url, given.api_key, given.organization, given.project) == ("http://x", "", "o", "p")
