"""Keep the key out of what is shown: errors repeat what servers say, and servers repeat keys."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from chatscope.protocol.loading import dump

_SHORTEST_SECRET: Final = 8
"""Shorter keys are made up for servers that check none. They occur in ordinary words, and replacing those would spoil
messages without protecting anything."""

_PLACEHOLDER_WORD: Final = re.compile(
    r"""
    an?|any|anything|applicable|change|changeme|default|empty|here|in|is|me|missing|my|na|necessary|needed|no|none|not
    |notneeded|notrequired|notused|null|optional|or|placeholder|provided|random|replace|required|set|some|string|the|this
    |undefined|unset|unused|used|whatever|with|your
    |anonymous|api|auth|authentication|key|keys|noauth|nokey|sk|token
    |demo|dummy|example|fake|free|mock|sample|test|testing
    |cpp|llama|lm|lmstudio|local|localhost|ollama|open|openai|sglang|studio|vllm
    """,
    re.VERBOSE,
)
_PLACEHOLDERS: Final = frozenset(
    {
        "nokeyrequired",
        "nokeyneeded",
        "token-abc123",  # vLLM's documentation
    }
)
"""What servers that check no key are given instead of one: `lm-studio` and `not-needed` in LM Studio's and
llama-cpp-python's examples, `sk-no-key-required` in llama.cpp's. vLLM's "EMPTY" and "ollama" are
short enough anyway."""


def is_secret(key: str) -> bool:
    """Return whether a key has to be kept out of messages."""
    return len(key) >= _SHORTEST_SECRET and not _is_placeholder(key.lower())


@lru_cache(maxsize=64)
def _is_placeholder(key: str) -> bool:
    """Return whether a key is made of words that say that it is none, or of one character."""
    words = re.findall(r"[^\W_]+", key)
    return key in _PLACEHOLDERS or len(set(key)) == 1 or all(map(_PLACEHOLDER_WORD.fullmatch, words))


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
