"""The first mistakes: the wrong argument first, another library's name for one. Each is typed in, and its message held.

Not here: values that can never be right (`tests/test_bad_input.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chatscope import AsyncChatGPTAdapter, ChatClient

KEY = "sk-proj-0123456789abcdef"
URL = "http://localhost:8000/v1"

BOTH = [ChatClient, AsyncChatGPTAdapter]


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"api_key": URL}, "api_key looks like an address: pass addresses as base_url="),
        ({"api_key": f"{KEY} "}, "api_key .* without blanks and line ends"),
        ({"api_key": f"{KEY}\r\n"}, "api_key .* without blanks and line ends"),
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
