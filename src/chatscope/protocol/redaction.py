"""Keep the key out of what is shown: errors repeat what servers say, and servers repeat keys."""

from __future__ import annotations

from typing import Any, Final

from chatscope.protocol.loading import dump

_SHORTEST_SECRET: Final = 8
"""Shorter keys are made up for servers that check none. They occur in ordinary words, and replacing those would spoil
messages without protecting anything."""

_PLACEHOLDERS: Final = frozenset(
    {
        "api-key",
        "api_key",
        "changeme",
        "change-me",
        "dummy-api-key",
        "dummy-key",
        "dummy_key",
        "fake-api-key",
        "fake-key",
        "lm-studio",  # LM Studio's documentation
        "localhost",
        "no-api-key",
        "no-key-needed",
        "no-key-required",
        "no_key_required",
        "nokeyrequired",
        "not-needed",  # LM Studio's and llama-cpp-python's examples
        "not-required",
        "not-used",
        "not_needed",
        "not_required",
        "notneeded",
        "notrequired",
        "openai-api-key",
        "openai_api_key",
        "placeholder",
        "sk-dummy",
        "sk-no-key-required",  # llama.cpp's documentation
        "sk-placeholder",
        "test-key",
        "token-abc123",  # vLLM's documentation
        "undefined",
        "your-api-key",
        "your_api_key",
    }
)
"""What servers that check no key are given instead of one. vLLM's "EMPTY" and "ollama" are short enough anyway."""


def is_secret(key: str) -> bool:
    """Return whether a key has to be kept out of messages."""
    return len(key) >= _SHORTEST_SECRET and key.lower() not in _PLACEHOLDERS


def redact(value: Any, key: str) -> Any:
    """Return a JSON value with the key replaced by `***` in every text in it."""
    return _redact(value, key) if is_secret(key) else value


def redact_json(text: str, key: str) -> str:
    """Return text that may be JSON with the key replaced, as it is and as JSON escapes it."""
    if not is_secret(key):
        return text
    escaped = dump(str(key))[1:-1]
    for form in (key, escaped, escaped.replace("/", "\\/")):
        text = text.replace(form, "***")
    return text


def _redact(value: Any, key: str) -> Any:
    if isinstance(value, str):
        return value.replace(key, "***")
    if isinstance(value, list):
        return [_redact(item, key) for item in value]
    if isinstance(value, dict):
        return {_redact(name, key): _redact(item, key) for name, item in value.items()}
    return value
